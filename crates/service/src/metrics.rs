//! Prometheus metrics of a service: calls by method and code, and how long they took.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use tonic::Code;

use crate::contract::methods;

/// Bounds in seconds: half a millisecond, below which nothing durable happens, to the default deadline.
const LATENCY_BOUNDS: [f64; 12] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: Arc<str>,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: Arc<str>,
}

/// Counts the calls of one service.
#[derive(Clone)]
pub struct CallMetrics {
    calls: Family<CallLabels, Counter>,
    seconds: Family<MethodLabels, Histogram, fn() -> Histogram>,
}

impl CallMetrics {
    /// Registers the metrics in a service's registry.
    pub fn new(registry: &mut Registry) -> Self {
        let calls = Family::default();
        let seconds: Family<MethodLabels, Histogram, fn() -> Histogram> = Family::new_with_constructor(|| Histogram::new(LATENCY_BOUNDS));
        registry.register("gureum_calls", "Calls answered, by method and code", calls.clone());
        registry.register("gureum_call_seconds", "Time to the answer of a call, or to the begin of a stream", seconds.clone());
        Self { calls, seconds }
    }

    /// Counts one call. Paths that name no call that there is are counted together, so that no caller can
    /// make the service remember paths without end.
    pub fn record(&self, method: &str, code: Code, elapsed: Duration) {
        let method: Arc<str> = Arc::from(if methods().contains_key(method) { method } else { "other" });
        self.calls.get_or_create(&CallLabels { method: method.clone(), code: code_name(code) }).inc();
        self.seconds.get_or_create(&MethodLabels { method }).observe(elapsed.as_secs_f64());
    }
}

/// The type of the page: what `render` writes is OpenMetrics, which newer Prometheus reads only under its name.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics in Prometheus' text form.
pub fn render(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail; what a metric cannot say is left out.
    let _ = encode(&mut text, registry);
    text
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_caller_makes_a_service_remember_what_it_makes_up() {
        let mut registry = Registry::default();
        let calls = CallMetrics::new(&mut registry);
        for number in 0..100 {
            for code in [Code::Ok, Code::Unauthenticated, Code::DeadlineExceeded, Code::Unimplemented] {
                calls.record(&format!("gureum.made.up{number}.Service/Call"), code, Duration::from_millis(1));
            }
        }
        calls.record("gureum.security.v1.SecurityService/CreateTags", Code::Ok, Duration::from_millis(1));
        let page = render(&registry);
        assert!(page.contains("SecurityService/CreateTags") && !page.contains("made.up"), "{page}");
        assert!(page.lines().count() < 60, "{page}");
    }
}
