//! Logs of a process. Set up once, by `main`; libraries only emit.

use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::TelemetryConfig;

/// Sends logs to standard error. A second call in one process changes nothing.
pub fn start(config: &TelemetryConfig) {
    let filter = || config.log.parse::<EnvFilter>().unwrap_or_else(|_| EnvFilter::new("info"));
    let plain = (!config.log_json).then(|| fmt::layer().with_writer(std::io::stderr).with_target(false).with_filter(filter()));
    let json = config.log_json.then(|| fmt::layer().json().with_writer(std::io::stderr).with_filter(filter()));
    let _ = tracing_subscriber::registry().with(plain).with(json).try_init();
}
