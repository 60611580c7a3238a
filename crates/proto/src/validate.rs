//! The checks behind the rules that the protos declare. The calls to them are generated.

use std::{fmt, net::IpAddr};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::codec::ERROR_DOMAIN;

/// A message that can say which of its declared rules it breaks.
pub trait Validate {
    /// Records every violation in this message and those inside it.
    fn check(&self, path: Path<'_>, found: &mut Found);
    /// Brings its numbers and lists within their declared bounds, so that whoever reads on, only to find
    /// what else is wrong, never works on more than a valid message can hold.
    fn bound(&mut self);
}

/// Where a value stands in a request; written out only when something is wrong with it.
#[derive(Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    field: &'a str,
    item: Option<usize>,
}

impl Path<'_> {
    pub const fn root() -> Path<'static> {
        Path { parent: None, field: "", item: None }
    }

    pub fn field<'a>(&'a self, field: &'a str) -> Path<'a> {
        Path { parent: Some(self), field, item: None }
    }

    pub fn item<'a>(&'a self, field: &'a str, place: usize) -> Path<'a> {
        Path { parent: Some(self), field, item: Some(place) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|parent| parent.parent.is_some()) {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.field)?;
        self.item.map_or(Ok(()), |place| write!(f, "[{place}]"))
    }
}

/// All violations of a request.
#[derive(Debug, Default)]
pub struct Found {
    reason: Option<&'static str>,
    violations: Vec<FieldViolation>,
}

/// A request of thousands of bad items gets an answer of bounded size.
const MAX_VIOLATIONS: usize = 100;

impl Found {
    fn add(&mut self, reason: &'static str, path: &Path<'_>, description: impl fmt::Display) {
        // EC2's code for the request is that of its first fault.
        self.reason.get_or_insert(reason);
        if self.violations.len() < MAX_VIOLATIONS {
            self.violations.push(FieldViolation::new(path.to_string(), format!("{path} {description}")));
        }
    }

    /// Whether anything was found.
    pub fn is_any(&self) -> bool {
        self.reason.is_some()
    }

    /// The refusal, if anything was found.
    pub fn into_status(self) -> Option<Status> {
        self.refusal(None)
    }

    /// The refusal, if anything was found, together with what a handler found wrong with the same request.
    pub fn refusal(&self, answered: Option<&Status>) -> Option<Status> {
        let reason = self.reason?;
        let mut violations = self.violations.clone();
        let more = answered.and_then(StatusExt::get_details_bad_request).map(|bad| bad.field_violations).unwrap_or_default();
        let of_no_field =
            answered.filter(|status| more.is_empty() && status.code() == Code::InvalidArgument && !status.details().is_empty());
        for violation in more {
            // A field is named once: what a handler says of one that breaks a rule is mostly the same in other words, or of
            // what `bound` has made of it.
            let told = self.violations.iter().any(|it| it.field == violation.field);
            if !told && violations.len() < MAX_VIOLATIONS {
                violations.push(violation);
            }
        }
        let told = violations.iter().map(|violation| violation.description.as_str());
        let message = told.chain(of_no_field.map(Status::message)).collect::<Vec<_>>().join("; ");
        let mut details = ErrorDetails::with_bad_request(violations);
        details.set_error_info(reason, ERROR_DOMAIN, []);
        Some(Status::with_error_details(Code::InvalidArgument, message, details))
    }
}

const INVALID: &str = "InvalidParameterValue";
const MISSING: &str = "MissingParameter";

pub fn missing(path: &Path<'_>, found: &mut Found) {
    found.add(MISSING, path, "is required");
}

pub fn min_length(path: &Path<'_>, length: usize, least: usize, found: &mut Found) {
    if length == 0 && least > 0 {
        missing(path, found);
    } else if length < least {
        found.add(INVALID, path, format_args!("has length {length}, at least {least} is needed"));
    }
}

pub fn max_length(path: &Path<'_>, length: usize, most: usize, unit: &str, found: &mut Found) {
    if length > most {
        found.add(INVALID, path, format_args!("has {length} {unit}, at most {most} are allowed"));
    }
}

pub fn min_items(path: &Path<'_>, count: usize, least: usize, found: &mut Found) {
    if count == 0 && least > 0 {
        missing(path, found);
    } else if count < least {
        found.add(INVALID, path, format_args!("has {count} items, at least {least} are needed"));
    }
}

pub fn max_items(path: &Path<'_>, count: usize, most: usize, found: &mut Found) {
    if count > most {
        found.add(INVALID, path, format_args!("has {count} items, at most {most} are allowed"));
    }
}

pub fn at_least(path: &Path<'_>, value: i128, least: i128, found: &mut Found) {
    if value < least {
        found.add(INVALID, path, format_args!("is {value}, at least {least} is needed"));
    }
}

pub fn at_most(path: &Path<'_>, value: i128, most: i128, found: &mut Found) {
    if value > most {
        found.add(INVALID, path, format_args!("is {value}, at most {most} is allowed"));
    }
}

pub fn above(path: &Path<'_>, value: i128, limit: i128, found: &mut Found) {
    if value <= limit {
        found.add(INVALID, path, format_args!("is {value}, it must be above {limit}"));
    }
}

pub fn below(path: &Path<'_>, value: i128, limit: i128, found: &mut Found) {
    if value >= limit {
        found.add(INVALID, path, format_args!("is {value}, it must be below {limit}"));
    }
}

/// Not a number is below every bound.
pub fn float_at_least(path: &Path<'_>, value: f64, least: f64, found: &mut Found) {
    if value.is_nan() || value < least {
        found.add(INVALID, path, format_args!("is {value}, at least {least} is needed"));
    }
}

pub fn float_at_most(path: &Path<'_>, value: f64, most: f64, found: &mut Found) {
    if value > most {
        found.add(INVALID, path, format_args!("is {value}, at most {most} is allowed"));
    }
}

pub fn ip_address(path: &Path<'_>, value: &str, found: &mut Found) {
    if value.is_empty() {
        missing(path, found);
    } else if value.parse::<IpAddr>().is_err() {
        found.add(INVALID, path, format_args!("is \"{value}\", which is neither an IPv4 nor an IPv6 address"));
    }
}

pub fn one_of(path: &Path<'_>, value: &str, allowed: &[&str], found: &mut Found) {
    if !allowed.contains(&value) {
        found.add(INVALID, path, format_args!("is \"{value}\", allowed are {}", allowed.join(", ")));
    }
}

pub fn defined(path: &Path<'_>, value: i32, numbers: &[i32], names: &[&str], found: &mut Found) {
    if !numbers.contains(&value) {
        found.add(INVALID, path, format_args!("is {value}, which has no meaning here; known are {}", names.join(", ")));
    }
}

/// Zero is how an enum's absence arrives, so it is missing rather than wrong.
pub fn not_among(path: &Path<'_>, value: i32, refused: &[i32], names: &[&str], found: &mut Found) {
    if !refused.contains(&value) {
        return;
    }
    if value == 0 {
        missing(path, found);
    } else {
        found.add(INVALID, path, format_args!("is {value}, allowed are {}", names.join(", ")));
    }
}
