//! How a command fails: what the user reads, and the exit code that a script sees.
//!
//! 0: done. 1: the region refused, or the region itself failed. 2: the command cannot be carried out as it
//! was given. 3: no region answers.

use std::{error::Error, fmt::Write as _, io, path::Path, process::ExitCode, time::Duration};

use serde_json::{Value as Json, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::client::NO_TRUST;

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The region's own answer.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// What was asked for by name is not there; the reason is EC2's.
    #[error("{message}")]
    NotFound { reason: &'static str, message: String },
    /// A resource did not become what was waited for.
    #[error("{0}")]
    NotReached(String),
    /// The command cannot be carried out as it was given.
    #[error("{0}")]
    Usage(String),
    /// Nothing answers at the endpoint.
    #[error("no region answers at {endpoint}: {cause}")]
    Unreachable { endpoint: String, cause: String },
    /// What answers there wants TLS and is not asked for it, or the other way round.
    #[error("no region answers at {endpoint}: what is there speaks {}; try {other}", if other.starts_with("https") { "TLS" } else { "no TLS" })]
    OtherScheme { endpoint: String, other: String },
    /// Something that should work does not: a region that cannot start, an answer that cannot be read.
    #[error("{0}")]
    Broken(String),
    /// The reader of standard output is gone, as `head` is when it has enough. No fault.
    #[error("standard output is closed")]
    Closed,
    /// A program in an instance ended so; it has said itself what there is to say.
    #[error("the program ended with exit code {0}")]
    Exit(u8),
}

impl Failure {
    /// The command cannot be carried out as it was given.
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A file that was named cannot be read or written.
    pub fn file(operation: &str, path: &Path, error: &io::Error) -> Self {
        Self::Usage(format!("cannot {operation} {}: {error}", path.display()))
    }

    /// A region could not be set up.
    #[cfg(feature = "region")]
    pub fn start(error: impl Error) -> Self {
        Self::Broken(chain(&error))
    }

    /// A service of a region could not start or go on.
    #[cfg(feature = "region")]
    pub fn service(name: &str, error: &dyn Error) -> Self {
        Self::Broken(format!("{name}: {}", chain(error)))
    }

    /// A call's end that is no answer.
    pub fn call(endpoint: &str, status: Status) -> Self {
        let from_region = status.get_details_error_info().is_some();
        match (status.code(), status.source()) {
            // With a cause it was made here: what is there does not speak HTTP/2, or broke off.
            (Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal, Some(cause)) if !from_region => {
                Self::Unreachable { endpoint: endpoint.to_owned(), cause: chain(cause) }
            }
            (Code::Unavailable | Code::Unknown | Code::Cancelled, None) if !from_region => {
                Self::Unreachable { endpoint: endpoint.to_owned(), cause: status.message().to_owned() }
            }
            _ => Self::Refused(Box::new(status)),
        }
    }

    /// EC2's reason, where the region gave one.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Refused(status) => status.get_details_error_info().map(|info| info.reason),
            Self::NotFound { reason, .. } => Some((*reason).to_owned()),
            Self::NotReached(_) | Self::Usage(_) | Self::Broken(_) | Self::Closed | Self::Exit(_) => None,
            Self::Unreachable { .. } | Self::OtherScheme { .. } => None,
        }
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Exit(code) => ExitCode::from(*code),
            Self::Refused(_) | Self::NotFound { .. } | Self::NotReached(_) | Self::Broken(_) => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
            Self::Unreachable { .. } | Self::OtherScheme { .. } => ExitCode::from(3),
        }
    }

    /// For people: reason and message, then a line for each field that is wrong.
    pub fn to_text(&self) -> String {
        let mut text = match self.reason() {
            Some(reason) => format!("error: {reason}: {self}"),
            None => format!("error: {self}"),
        };
        match self {
            Self::Refused(status) => add_details(&mut text, status),
            Self::Unreachable { cause, .. } if cause.contains(NO_TRUST) => {
                text.push_str("\n  name the authority that signed the region's certificate with --ca FILE or GUREUM_CA");
            }
            Self::Unreachable { .. } => text.push_str("\n  start one with `gureum up`, or name one with --endpoint or GUREUM_ENDPOINT"),
            Self::NotFound { .. } | Self::NotReached(_) | Self::Usage(_) => {}
            Self::OtherScheme { .. } | Self::Broken(_) | Self::Closed | Self::Exit(_) => {}
        }
        text
    }

    /// For programs.
    pub fn to_json(&self) -> Json {
        let mut error = json!({ "code": self.code(), "message": self.to_string() });
        if let Some(reason) = self.reason() {
            error["reason"] = reason.into();
        }
        if let Self::Refused(status) = self {
            let details = status.get_error_details();
            if let Some(bad) = details.bad_request() {
                let violation = |found: &tonic_types::FieldViolation| json!({ "field": found.field, "description": found.description });
                error["violations"] = bad.field_violations.iter().map(violation).collect();
            }
            if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
                error["retryAfter"] = format!("{:.3}s", delay.as_secs_f64()).into();
            }
            if let Some(request) = details.request_info() {
                error["requestId"] = request.request_id.clone().into();
            }
        }
        json!({ "error": error })
    }

    fn code(&self) -> String {
        match self {
            Self::Refused(status) => code_name(status.code()),
            Self::NotFound { .. } => "NOT_FOUND",
            Self::NotReached(_) => "NOT_REACHED",
            Self::Usage(_) => "USAGE",
            Self::Unreachable { .. } | Self::OtherScheme { .. } => "UNREACHABLE",
            Self::Broken(_) => "BROKEN",
            Self::Closed => "OUTPUT_CLOSED",
            Self::Exit(_) => "PROGRAM_ENDED",
        }
        .to_owned()
    }
}

fn add_details(text: &mut String, status: &Status) {
    let details = status.get_error_details();
    // Writing to a String cannot fail.
    for found in details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default() {
        let _ = match &found.description {
            // A single violation is often all that the message tells; where it is, is then what is new.
            told if told == status.message() => write!(text, "\n  at {}", found.field),
            description => write!(text, "\n  {}: {description}", found.field),
        };
    }
    if let Some(delay) = details.retry_info().and_then(|info| info.retry_delay) {
        // To the next 10 ms: nobody waits by the nanosecond.
        let delay = Duration::from_millis(delay.as_millis().div_ceil(10).saturating_mul(10).try_into().unwrap_or(u64::MAX));
        let _ = write!(text, "\n  try again in {}", humantime::format_duration(delay));
    }
    if details.error_info().is_none() {
        let _ = write!(text, " ({})", code_name(status.code()));
    }
}

/// The code as the gRPC specification spells it.
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

/// An error and its causes in one line. A cause that its effect already tells is not told twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let told = cause.to_string();
        if !text.ends_with(&told) {
            let _ = write!(text, ": {told}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic_types::{ErrorDetails, FieldViolation};

    use super::*;

    fn refused() -> Failure {
        let mut details = ErrorDetails::with_error_info("InvalidParameterValue", "gureum", []);
        details.set_bad_request(vec![
            FieldViolation::new("max_count", "must be at most 1000"),
            FieldViolation::new("spec.user_data", "too long"),
        ]);
        Failure::call("http://x", Status::with_error_details(Code::InvalidArgument, "2 fields are wrong", details))
    }

    #[test]
    fn every_violation_is_told() {
        let expected = "error: InvalidParameterValue: 2 fields are wrong\n  max_count: must be at most 1000\n  spec.user_data: too long";
        assert_eq!(refused().to_text(), expected);
        assert_eq!(refused().exit_code(), ExitCode::from(1));
        assert_eq!(refused().to_json()["error"]["code"], "INVALID_ARGUMENT");
        assert_eq!(refused().to_json()["error"]["violations"][1]["field"], "spec.user_data");
    }

    #[test]
    fn a_region_that_is_not_there_is_another_matter_than_one_whose_service_is_away() {
        assert_eq!(Failure::call("http://x", Status::unavailable("tcp connect error")).exit_code(), ExitCode::from(3));
        let mut details = ErrorDetails::with_error_info("ServiceUnavailable", "gureum", []);
        details.set_retry_info(Some(Duration::from_millis(500)));
        let away = Failure::call("http://x", Status::with_error_details(Code::Unavailable, "compute does not answer", details));
        assert_eq!(away.exit_code(), ExitCode::from(1));
        assert_eq!(away.to_text(), "error: ServiceUnavailable: compute does not answer\n  try again in 500ms");
        let untrusted = Failure::call("https://x", Status::unavailable("invalid peer certificate: UnknownIssuer"));
        assert!(untrusted.to_text().contains("--ca FILE"), "{}", untrusted.to_text());
    }

    #[test]
    fn nothing_is_told_twice() {
        let mut details = ErrorDetails::with_error_info("MissingParameter", "gureum", []);
        details.set_bad_request(vec![FieldViolation::new("group_name", "it is missing")]);
        let failure = Failure::call("http://x", Status::with_error_details(Code::InvalidArgument, "it is missing", details));
        assert_eq!(failure.to_text(), "error: MissingParameter: it is missing\n  at group_name");
    }

    #[test]
    fn a_refusal_without_reason_shows_its_code() {
        let failure = Failure::call("http://x", Status::unimplemented("no such method"));
        assert_eq!(failure.to_text(), "error: no such method (UNIMPLEMENTED)");
    }
}
