//! Logs and traces of a process. Set up once, by `main`; libraries only emit.

use opentelemetry::{
    Context, KeyValue,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{EnvFilter, fmt, prelude::*};

use crate::config::TelemetryConfig;

/// Sends what is left to send when dropped, at the end of `main`.
#[must_use = "traces are sent only as long as it lives"]
#[derive(Debug, Default)]
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A collector that is away must not keep the process from ending.
            let _ = provider.shutdown();
        }
    }
}

/// Sends logs to standard error and, where configured, traces to a collector. A second call in one
/// process changes nothing. Must be called inside a runtime. `name` is whose traces these are: "gureum-compute".
pub fn start(config: &TelemetryConfig, name: &str) -> TelemetryGuard {
    let filter = || config.log.parse::<EnvFilter>().unwrap_or_else(|_| EnvFilter::new("info"));
    let plain = (!config.log_json).then(|| fmt::layer().with_writer(std::io::stderr).with_target(false).with_filter(filter()));
    let json = config.log_json.then(|| fmt::layer().json().with_writer(std::io::stderr).with_filter(filter()));
    let provider = config.otlp_endpoint.as_deref().and_then(|endpoint| provider(endpoint, name));
    // Traces hold what is at "info" whatever the log shows: a trace without its calls is none.
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("gureum")).with_filter(EnvFilter::new("info")));
    let _ = tracing_subscriber::registry().with(plain).with(json).with(traces).try_init();
    TelemetryGuard(provider)
}

fn provider(endpoint: &str, name: &str) -> Option<SdkTracerProvider> {
    match SpanExporter::builder().with_tonic().with_endpoint(endpoint).build() {
        Ok(exporter) => {
            let resource = Resource::builder().with_attribute(KeyValue::new("service.name", name.to_owned())).build();
            Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
        }
        Err(error) => {
            eprintln!("traces are not sent: {endpoint} cannot be used: {error}");
            None
        }
    }
}

/// Makes `span` a child of the span that `traceparent` names.
pub fn continue_trace(span: &Span, traceparent: Option<&str>) {
    if let Some(parent) = traceparent.and_then(parse) {
        // Refused only where no collector is configured; then there is nothing to continue.
        let _ = span.set_parent(Context::new().with_remote_span_context(parent));
    }
}

/// The span as it goes to peers, if traces are collected.
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let context = span.span_context();
    context.is_valid().then(|| format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8()))
}

fn parse(traceparent: &str) -> Option<SpanContext> {
    let parts: Vec<&str> = traceparent.split('-').collect();
    let ["00", trace, span, flags] = parts[..] else { return None };
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?);
    let context = SpanContext::new(TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?, flags, true, TraceState::default());
    context.is_valid().then_some(context)
}
