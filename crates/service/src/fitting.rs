//! Refusals in a size that every client takes.
//!
//! A status travels in headers, and gRPC's own libraries take 8 KiB of them by default: the C core, which Python and others
//! stand on, drops what is longer at random (its soft limit), Java always. HTTP/2 connections even end over more than 16 KiB.

use http::{HeaderMap, Response};
use tonic::{Status, body::Body};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

/// Bytes of a status' message in a header, where all but letters and digits may count three times.
const MESSAGE_BYTES: usize = 1_500;

/// Bytes of a status' details before base64, which adds a third. With the message and what else stands in an answer's headers
/// it stays below 8 KiB.
const DETAILS_BYTES: usize = 3_900;

/// Characters of each violation's description, tried in turn; its field is always told.
const DESCRIPTIONS: [usize; 4] = [usize::MAX, 200, 60, 0];

/// The answer, with a shorter status if it has too long a one.
pub fn fit(mut answer: Response<Body>) -> Response<Body> {
    let headers = answer.headers();
    let length = |name: &str| headers.get(name).map_or(0, |value| value.len());
    if length("grpc-status-details-bin") <= DETAILS_BYTES / 3 * 4 && length("grpc-message") <= MESSAGE_BYTES {
        return answer;
    }
    let Some(status) = Status::from_header_map(headers) else { return answer };
    let mut shorter = HeaderMap::new();
    if fitted(&status).add_header(&mut shorter).is_ok() {
        let headers = answer.headers_mut();
        headers.remove("grpc-message");
        headers.remove("grpc-status-details-bin");
        headers.extend(shorter);
    }
    answer
}

fn fitted(status: &Status) -> Status {
    let (message, details) = (clipped(status.message(), MESSAGE_BYTES), status.get_error_details());
    let all = details.bad_request().map(|request| request.field_violations.clone()).unwrap_or_default();
    let with = |violations: Vec<FieldViolation>| {
        let mut details: ErrorDetails = details.clone();
        if !violations.is_empty() {
            details.set_bad_request(violations);
        }
        Status::with_error_details(status.code(), message.clone(), details)
    };
    let fits = |status: &Status| status.details().len() <= DETAILS_BYTES;
    let described = |limit: usize| all.iter().map(move |it| FieldViolation::new(it.field.clone(), first(&it.description, limit)));
    let whole = DESCRIPTIONS.iter().map(|limit| with(described(*limit).collect())).find(fits);
    whole.unwrap_or_else(|| {
        let some = |count: usize| {
            let more = FieldViolation::new("", format!("and {} more", all.len() - count));
            with(described(0).take(count).chain([more]).collect())
        };
        // The most that fit: each adds at least a byte.
        let (mut few, mut many) = (0, all.len().min(DETAILS_BYTES));
        while few < many {
            let middle = (few + many).div_ceil(2);
            if fits(&some(middle)) { few = middle } else { many = middle - 1 }
        }
        some(few)
    })
}

/// As much of a text as takes no more than so many bytes in a header.
fn clipped(text: &str, bytes: usize) -> String {
    let mut length = 0;
    let cost = |symbol: char| if symbol.is_ascii_alphanumeric() { 1 } else { 3 * symbol.len_utf8() };
    let fits = text.char_indices().find(|(_, symbol)| {
        length += cost(*symbol);
        length > bytes
    });
    fits.map_or_else(|| text.to_owned(), |(place, _)| format!("{}…", &text[..place]))
}

fn first(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        Some((place, _)) => format!("{}…", &text[..place]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use gureum_model::{Refusal, RefusalKind, refusal::Violation};
    use tonic::Code;

    use super::*;
    use crate::error::refused;

    /// grpc-core's soft limit, without what else stands in an answer: request id, sequences, date, content type.
    const ROOM: usize = 8_192 - 700;

    fn refusal(count: usize, description: &str) -> Status {
        let violation = |number| Violation { field: format!("instance_ids[{number}]"), description: format!("{description} {number}") };
        let violations: Vec<Violation> = (0..count).map(violation).collect();
        let message = violations.iter().map(|it| it.description.clone()).collect::<Vec<_>>().join("; ");
        refused(&Refusal { kind: RefusalKind::Invalid, reason: "InvalidInstanceID.Malformed", message, violations })
    }

    fn size(headers: &HeaderMap) -> usize {
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum()
    }

    #[test]
    fn whatever_is_wrong_fits_and_keeps_its_code_and_reason() {
        for count in [0, 1, 20, 60, 200, 1_000] {
            for description in ["", "Invalid id: \"bad\" (expecting \"i-...\")", &"é".repeat(300)] {
                let answer = fit(refusal(count, description).into_http());
                assert!(size(answer.headers()) <= ROOM, "{count} of {}: {}", description.len(), size(answer.headers()));
                let status = Status::from_header_map(answer.headers()).expect("a status");
                assert_eq!(status.code(), Code::InvalidArgument);
                assert_eq!(status.get_details_error_info().map(|info| info.reason), Some("InvalidInstanceID.Malformed".to_owned()));
                let told = status.get_details_bad_request().map(|request| request.field_violations).unwrap_or_default();
                let more = told.last().and_then(|last| last.description.strip_prefix("and ")?.strip_suffix(" more")?.parse::<usize>().ok());
                let named = told.len() - usize::from(more.is_some()) + more.unwrap_or(0);
                assert_eq!(named, count, "each is named or counted");
                assert!(more.is_none() || told.len() > 100, "{} of {count} named", told.len());
            }
        }
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        let answer = fit(refusal(20, "too long").into_http());
        let whole: Response<Body> = refusal(20, "too long").into_http();
        assert_eq!(answer.headers(), whole.headers());
    }
}
