//! Every way in which a call can fail, and what of it a caller is told.

use std::time::Duration;

use gureum_model::{Refusal, RefusalKind, refusal::Violation};
use gureum_proto::codec::ERROR_DOMAIN;
use gureum_store::{StoreError, WriteError};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// How soon a caller may try again when a peer or a store is away: a service restarts well within it.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The input was refused; the caller is told everything.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This service's store is away.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A peer refused or is away.
    #[error("{peer}: {status}")]
    Peer { peer: &'static str, status: Box<Status> },
    /// A fault of ours: the caller gets a request id, the log the reason.
    #[error("{0}")]
    Internal(String),
}

impl From<WriteError<Refusal>> for Error {
    fn from(error: WriteError<Refusal>) -> Self {
        match error {
            WriteError::Refused(refusal) => Self::Refused(refusal),
            WriteError::Store(error) => Self::Store(error),
        }
    }
}

impl Error {
    /// Whether the same call may succeed later without anything being changed.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(refusal) => matches!(refusal.kind, RefusalKind::Unavailable | RefusalKind::Conflict),
            Self::Store(StoreError::Barred) => false,
            Self::Store(StoreError::Stopped(_) | StoreError::Panicked) => true,
            Self::Peer { status, .. } => matches!(
                status.code(),
                Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted | Code::Unknown | Code::Internal
            ),
            Self::Internal(_) => false,
        }
    }

    /// The same, with the fields that it blames named as the caller's own request names them; of a field that it
    /// has not, nothing is said but in words.
    #[must_use]
    pub fn of_fields(self, named: impl Fn(&str) -> Option<String>) -> Self {
        match self {
            Self::Refused(refusal) => {
                let renamed = |it: Violation| named(&it.field).map(|field| Violation { field, ..it });
                let violations = refusal.violations.into_iter().filter_map(renamed).collect();
                Self::Refused(Refusal { violations, ..refusal })
            }
            Self::Peer { peer, status } => {
                let mut details = status.get_error_details();
                let Some(bad) = details.bad_request() else { return Self::Peer { peer, status } };
                let renamed = |it: &FieldViolation| named(&it.field).map(|field| FieldViolation::new(field, it.description.clone()));
                let violations: Vec<_> = bad.field_violations.iter().filter_map(renamed).collect();
                details.set_bad_request(violations);
                let status = Box::new(Status::with_error_details(status.code(), status.message(), details));
                Self::Peer { peer, status }
            }
            Self::Store(_) | Self::Internal(_) => self,
        }
    }

    /// One failure of both, as [`Refusal::and`] has it of two refusals. A peer that is away or at fault refuses nothing: the
    /// other then stands alone.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let (one, two) = match (self.refusing(), other.refusing()) {
            (Some(one), Some(two)) => (one, two),
            (None, Some(_)) => return other,
            (Some(_) | None, None) => return self,
        };
        let malformed = |status: &Status| status.code() == Code::InvalidArgument;
        let second_first = malformed(&two) && !malformed(&one);
        let (first, second) = if second_first { (two, one) } else { (one, two) };
        let mut details = first.get_error_details();
        let bad = [&first, &second].into_iter().filter_map(|status| status.get_details_bad_request());
        let mut violations: Vec<FieldViolation> = Vec::new();
        for violation in bad.flat_map(|bad| bad.field_violations) {
            // Two peers may have refused the same of what both were told.
            if violations.iter().all(|known| (&known.field, &known.description) != (&violation.field, &violation.description)) {
                violations.push(violation);
            }
        }
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        let message = match (first.message(), second.message()) {
            (one, other) if one == other => one.to_owned(),
            (one, other) => format!("{one}; {other}"),
        };
        let peer = match (&self, &other) {
            (Self::Peer { peer, .. }, _) | (_, Self::Peer { peer, .. }) => *peer,
            (_, _) => "",
        };
        Self::Peer { peer, status: Box::new(Status::with_error_details(first.code(), message, details)) }
    }

    /// What is refused of the call itself.
    fn refusing(&self) -> Option<Status> {
        match self {
            Self::Refused(refusal) => Some(refused(refusal)),
            Self::Peer { status, .. } if !self.is_transient() && status.get_details_error_info().is_some() => {
                (!matches!(status.code(), Code::Unauthenticated | Code::DataLoss)).then(|| (**status).clone())
            }
            Self::Peer { .. } | Self::Store(_) | Self::Internal(_) => None,
        }
    }

    /// EC2's reason, where there is one.
    pub fn reason(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => Some(refusal.reason.to_owned()),
            Self::Peer { status, .. } => status.get_details_error_info().map(|info| info.reason),
            Self::Store(_) | Self::Internal(_) => None,
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Refused(refusal) => refused(&refusal),
            // Without details: the context layer tells why instead.
            Error::Store(error @ StoreError::Barred) => Status::invalid_argument(error.to_string()),
            Error::Store(StoreError::Panicked) => internal("a decision panicked"),
            // Why stands in the service's log: it names files of the host.
            Error::Store(StoreError::Stopped(_)) => {
                unavailable("ServiceUnavailable", "the service's store has stopped; try again when the service was started again")
            }
            Error::Peer { peer, status } => from_peer(peer, *status),
            Error::Internal(text) => internal(&text),
        }
    }
}

/// The one place where kinds become codes.
pub fn code(kind: RefusalKind) -> Code {
    match kind {
        RefusalKind::Invalid => Code::InvalidArgument,
        RefusalKind::NotFound => Code::NotFound,
        RefusalKind::WrongState => Code::FailedPrecondition,
        RefusalKind::Conflict => Code::Aborted,
        RefusalKind::AlreadyExists => Code::AlreadyExists,
        RefusalKind::Exhausted => Code::ResourceExhausted,
        RefusalKind::Denied => Code::PermissionDenied,
        RefusalKind::Unavailable => Code::Unavailable,
        RefusalKind::OutOfRange => Code::OutOfRange,
        RefusalKind::Unsupported => Code::Unimplemented,
    }
}

/// A refusal as the caller sees it.
pub fn refused(refusal: &Refusal) -> Status {
    let mut details = ErrorDetails::with_error_info(refusal.reason, ERROR_DOMAIN, []);
    if !refusal.violations.is_empty() {
        let violations = refusal.violations.iter().map(|violation| FieldViolation::new(&violation.field, &violation.description));
        details.set_bad_request(violations.collect::<Vec<_>>());
    }
    if refusal.kind == RefusalKind::Unavailable {
        details.set_retry_info(Some(RETRY_AFTER));
    }
    Status::with_error_details(code(refusal.kind), refusal.message.clone(), details)
}

/// A service is ending; `then` says what its listener should do.
pub fn ending(then: &str) -> Status {
    unavailable("ServiceUnavailable", &format!("the service is shutting down; {then}"))
}

pub(crate) fn unavailable(reason: &str, text: &str) -> Status {
    let mut details = ErrorDetails::with_error_info(reason, ERROR_DOMAIN, []);
    details.set_retry_info(Some(RETRY_AFTER));
    Status::with_error_details(Code::Unavailable, text, details)
}

/// A peer's refusal is the caller's answer; a peer that is away or hangs is UNAVAILABLE, whatever the transport
/// says; a peer's fault is ours.
fn from_peer(peer: &str, status: Status) -> Status {
    match status.code() {
        Code::DeadlineExceeded if status.get_details_error_info().is_none() => {
            unavailable("ServiceUnavailable", &format!("the {peer} service did not answer in time; try again"))
        }
        Code::Unavailable | Code::Cancelled | Code::Unknown if status.get_details_error_info().is_none() => {
            unavailable("ServiceUnavailable", &format!("the {peer} service does not answer; try again"))
        }
        Code::Internal | Code::Unauthenticated | Code::DataLoss => internal(&format!("{peer}: {status}")),
        _ => status,
    }
}

fn internal(text: &str) -> Status {
    let request = crate::context::request_id();
    tracing::error!(request_id = %request, error = text, "a call failed by our fault");
    let mut details = ErrorDetails::with_error_info("InternalError", ERROR_DOMAIN, []);
    details.set_request_info(request.to_string(), "");
    Status::with_error_details(Code::Internal, format!("an internal error occurred; request id {request}"), details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_carries_reason_and_every_violation() {
        let status = Status::from(Error::from(Refusal::missing("group_name")));
        assert_eq!(status.code(), Code::InvalidArgument);
        let details = status.get_error_details();
        assert_eq!(details.error_info().map(|info| info.reason.as_str()), Some("MissingParameter"));
        let fields =
            details.bad_request().map(|bad| bad.field_violations.iter().map(|violation| violation.field.clone()).collect::<Vec<_>>());
        assert_eq!(fields, Some(vec!["group_name".to_owned()]));
    }

    #[test]
    fn the_fields_of_a_peers_refusal_are_named_as_the_callers() {
        let named = |field: &str| field.strip_prefix("holds[0].").map(str::to_owned);
        let refusal = Refusal::missing("group_ids[1]").under("holds[0]").and(Refusal::missing("token"));
        for error in [Error::from(refusal.clone()), Error::Peer { peer: "security", status: Box::new(refused(&refusal)) }] {
            let status = Status::from(error.of_fields(named));
            assert_eq!(status.get_details_error_info().map(|info| info.reason), Some("MissingParameter".to_owned()));
            let told = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
            assert_eq!(told.iter().map(|it| it.field.as_str()).collect::<Vec<_>>(), ["group_ids[1]"]);
        }
    }

    #[test]
    fn a_peer_that_is_away_is_unavailable_with_a_time_to_retry() {
        let status = Status::from(Error::Peer { peer: "security", status: Box::new(Status::unknown("transport error")) });
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.get_details_retry_info().and_then(|info| info.retry_delay), Some(RETRY_AFTER));
    }

    #[test]
    fn a_peer_that_hangs_is_unavailable_and_named() {
        let status = Status::from(Error::Peer { peer: "network", status: Box::new(Status::deadline_exceeded("late")) });
        assert_eq!((status.code(), status.message()), (Code::Unavailable, "the network service did not answer in time; try again"));
        assert_eq!(status.get_details_retry_info().and_then(|info| info.retry_delay), Some(RETRY_AFTER));
    }

    #[test]
    fn a_fault_of_ours_tells_no_secrets() {
        let status = Status::from(Error::Internal("password 1234".into()));
        assert_eq!(status.code(), Code::Internal);
        assert!(!status.message().contains("1234"));
    }
}
