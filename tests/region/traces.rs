//! One call is one trace, across processes, and it hangs on the client's own span.

use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::{Span, span::SpanKind},
};
use serde_json::json;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

use crate::{dynamic::Caller, region::region_with};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

/// What an OpenTelemetry collector is to the services: it takes spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<(String, Span)>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(&self, request: Request<ExportTraceServiceRequest>) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for resource in request.into_inner().resource_spans {
            let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name =
                attributes.into_iter().find(|attribute| attribute.key == "service.name").and_then(|attribute| attribute.value?.value);
            let Some(Value::StringValue(name)) = name else { return Err(Status::invalid_argument("spans of nobody")) };
            let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| (name.clone(), span));
            self.0.lock().unwrap().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launch_is_one_trace_under_its_clients_span() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("telemetry.otlp_endpoint=http://{}", listener.local_addr().unwrap());
    let collector = Collector::default();
    tokio::spawn(
        Server::builder().add_service(TraceServiceServer::new(collector.clone())).serve_with_incoming(TcpListenerStream::new(listener)),
    );
    let region = region_with(&|_| vec![endpoint.clone()]);
    let caller = Caller::new(region.channel()).of("000000000601");
    let shell = json!({ "owners": ["amazon"], "filters": [{ "name": "name", "values": ["gureum-shell"] }] });
    let images = caller.insist("compute.ComputeService/DescribeImages", shell).await.unwrap();
    let spec = json!({ "image_id": images["images"][0]["image_id"], "instance_type": "t3.micro" });
    let launch = json!({ "spec": spec, "min_count": 1, "max_count": 1, "client_token": "traced" });
    let traced = caller.with("traceparent", &format!("00-{TRACE}-{CLIENT}-01"));
    traced.insist("compute.ComputeService/RunInstances", launch).await.unwrap();
    // What is left to send is sent at the end, so nothing has to be waited for.
    region.finish();

    let spans = collector.0.lock().unwrap().clone();
    assert!(spans.iter().any(|(_, span)| hex(&span.trace_id) != TRACE), "calls without a trace begin one");
    let trace: Vec<_> = spans.into_iter().filter(|(_, span)| hex(&span.trace_id) == TRACE).collect();
    let children = |parent: &[u8], service: &str| -> Vec<Span> {
        let of = trace.iter().filter(|(name, span)| name == service && span.parent_span_id == parent);
        of.map(|(_, span)| span.clone()).collect()
    };
    let client: Vec<u8> = (0..16).step_by(2).map(|at| u8::from_str_radix(&CLIENT[at..at + 2], 16).unwrap()).collect();
    let gateway = children(&client, "gureum-gateway");
    assert_eq!(gateway.len(), 1, "{trace:#?}");
    assert_eq!(gateway[0].name, "gureum.compute.v1.ComputeService/RunInstances");
    assert_eq!(gateway[0].kind(), SpanKind::Server);
    let compute = children(&gateway[0].span_id, "gureum-compute");
    assert_eq!(compute.len(), 1, "{trace:#?}");
    let network = children(&compute[0].span_id, "gureum-network");
    let made = network.iter().find(|span| span.name.ends_with("/CreateInstanceInterfaces")).expect("network made no interface");
    let security = children(&made.span_id, "gureum-security");
    assert!(!security.is_empty(), "network holds the groups within the same trace: {trace:#?}");
    for (inner, outer) in [(&compute[0], &gateway[0]), (made, &compute[0]), (&security[0], made)] {
        assert!(inner.start_time_unix_nano >= outer.start_time_unix_nano && inner.end_time_unix_nano <= outer.end_time_unix_nano);
    }
}
