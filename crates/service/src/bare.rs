//! Refusals that the transport made by itself, and that say too little.
//!
//! A caller finds a reason in every refusal, whoever made it.

use gureum_proto::codec::ERROR_DOMAIN;
use http::Response;
use tonic::{Code, Status, body::Body};
use tonic_types::{ErrorDetails, StatusExt};

/// How tonic begins to say that a message is above the limit.
const TOO_LARGE: &str = "Error, decoded message length too large";

/// How tonic says that a request is not framed as gRPC's are, or is missing.
const NO_MESSAGE: [&str; 2] = ["invalid compression flag", "Missing request message"];

/// The answer, with a reason if it is a refusal without one.
pub fn explain(method: &str, answer: Response<Body>) -> Response<Body> {
    if !answer.headers().contains_key("grpc-status") || answer.headers().contains_key("grpc-status-details-bin") {
        return answer;
    }
    let Some(status) = Status::from_header_map(answer.headers()) else { return answer };
    reason(method, &status).map_or(answer, Status::into_http)
}

fn reason(method: &str, bare: &Status) -> Option<Status> {
    let told = |code, reason: &str, text: String| {
        Some(Status::with_error_details(code, text, ErrorDetails::with_error_info(reason, ERROR_DOMAIN, [])))
    };
    match bare.code() {
        // The code that gRPC's own libraries give; tonic's says something else.
        Code::OutOfRange if bare.message().starts_with(TOO_LARGE) => {
            let sizes = bare.message().trim_start_matches(TOO_LARGE).trim_start_matches([':', ' ']);
            told(Code::ResourceExhausted, "RequestEntityTooLarge", format!("the message is too large: {sizes}; ask for less at once"))
        }
        Code::Unimplemented if bare.message().is_empty() => {
            let text = format!("\"/{method}\" names no call of this region; server reflection lists them");
            told(bare.code(), "InvalidAction", text)
        }
        // What is no message of gRPC's, which tonic takes for a fault of its own.
        Code::Internal if NO_MESSAGE.iter().any(|text| bare.message().contains(text)) => {
            let text = format!("the request is no message of gRPC: {}", bare.message());
            told(Code::InvalidArgument, "MalformedMessage", text)
        }
        // A compression that is not offered.
        Code::Unimplemented => told(bare.code(), "UnsupportedOperation", bare.message().to_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(status: Status) -> Option<(Code, String)> {
        let answer = explain("gureum.x.v1.X/Y", status.into_http());
        let status = Status::from_header_map(answer.headers())?;
        Some((status.code(), status.get_details_error_info().map(|info| info.reason).unwrap_or_default()))
    }

    #[test]
    fn the_transports_refusals_get_a_reason() {
        let large = Status::out_of_range(format!("{TOO_LARGE}: found 9 bytes, the limit is: 8 bytes"));
        assert_eq!(explained(large), Some((Code::ResourceExhausted, "RequestEntityTooLarge".into())));
        assert_eq!(explained(Status::unimplemented("")), Some((Code::Unimplemented, "InvalidAction".into())));
        let frame = Status::internal("protocol error: received message with invalid compression flag: 103 (valid flags are 0 and 1)");
        assert_eq!(explained(frame), Some((Code::InvalidArgument, "MalformedMessage".into())));
        assert_eq!(explained(Status::internal("Missing request message.")), Some((Code::InvalidArgument, "MalformedMessage".into())));
        assert_eq!(explained(Status::unimplemented("no gzip")), Some((Code::Unimplemented, "UnsupportedOperation".into())));
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        assert_eq!(explained(Status::out_of_range("a page too far")), Some((Code::OutOfRange, String::new())));
        let given = Status::with_error_details(Code::Unimplemented, "no", ErrorDetails::with_error_info("Mine", ERROR_DOMAIN, []));
        assert_eq!(explained(given), Some((Code::Unimplemented, "Mine".into())));
        assert!(explain("x", Response::new(Body::empty())).headers().is_empty());
    }
}
