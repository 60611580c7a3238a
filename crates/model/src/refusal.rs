//! Refusals: why an input was not accepted, in EC2's codes and in words.
//!
//! Domain errors are enums of their own; each turns into a [`Refusal`], which knows everything an
//! answer needs: what kind of situation it is (from which the gRPC code follows), EC2's reason, a
//! text with the value and the remedy, and every field that was wrong.

use std::fmt;

/// The situation, from which the gRPC code follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// The input can never be right: INVALID_ARGUMENT.
    Invalid,
    /// There is no such resource, or it is another account's: NOT_FOUND.
    NotFound,
    /// The resource is in a state that does not allow this: FAILED_PRECONDITION.
    WrongState,
    /// Something changed meanwhile; read again and retry: ABORTED.
    Conflict,
    /// The name is taken: ALREADY_EXISTS.
    AlreadyExists,
    /// A quota or pool is used up: RESOURCE_EXHAUSTED.
    Exhausted,
    /// Not allowed to this caller: PERMISSION_DENIED.
    Denied,
    /// A peer is away; retrying later may work: UNAVAILABLE.
    Unavailable,
    /// Older than what is kept: OUT_OF_RANGE.
    OutOfRange,
    /// Not offered here: UNIMPLEMENTED.
    Unsupported,
}

/// One field of a request and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field in the request: `ip_permissions[1].from_port`.
    pub field: String,
    /// What is wrong, with the value, and what would be right.
    pub description: String,
}

/// Why an input was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// EC2's code, such as `InvalidInstanceID.NotFound`.
    pub reason: &'static str,
    /// What was wrong, with what value, and what to do.
    pub message: String,
    /// All fields that were wrong; empty where no one field is to blame.
    pub violations: Vec<Violation>,
}

impl Refusal {
    /// A refusal without field violations.
    pub fn new(kind: RefusalKind, reason: &'static str, message: impl Into<String>) -> Self {
        Self { kind, reason, message: message.into(), violations: Vec::new() }
    }

    /// `InvalidParameterValue` for one field.
    pub fn invalid(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self::invalid_as("InvalidParameterValue", field, description)
    }

    /// An invalid field with a code of its own.
    pub fn invalid_as(reason: &'static str, field: impl Into<String>, description: impl Into<String>) -> Self {
        let description = description.into();
        let violation = Violation { field: field.into(), description: description.clone() };
        Self { kind: RefusalKind::Invalid, reason, message: description, violations: vec![violation] }
    }

    /// `MissingParameter` for one field.
    pub fn missing(field: impl Into<String>) -> Self {
        let field = field.into();
        let text = format!("{field} is required");
        Self::invalid_as("MissingParameter", field, text)
    }

    /// No resource with this id in this scope.
    pub fn not_found<I: crate::id::ResourceId>(id: I) -> Self {
        Self::new(RefusalKind::NotFound, I::NOT_FOUND, format!("the {} {id} does not exist", I::KIND))
    }

    /// No resources with these ids in this scope; each stands in the request's list `field`, at its place.
    pub fn none_found<I: crate::id::ResourceId>(field: &str, absent: &[(usize, I)]) -> Self {
        let message = match absent {
            [(_, id)] => format!("the {} {id} does not exist", I::KIND),
            absent => {
                let names = absent.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>().join(", ");
                format!("the {}s {names} do not exist", I::KIND)
            }
        };
        let violation = |(place, id): &(usize, I)| Violation {
            field: format!("{field}[{place}]"),
            description: format!("the {} {id} does not exist", I::KIND),
        };
        let violations = absent.iter().map(violation).collect();
        Self { violations, ..Self::new(RefusalKind::NotFound, I::NOT_FOUND, message) }
    }

    /// The id in `field`. Errors: `Invalid….Malformed` of that field.
    pub fn parse_id<I: crate::id::ResourceId>(field: &str, text: &str) -> Result<I, Self> {
        text.parse().map_err(|error: crate::IdError| Self::from(error).of_field(field))
    }

    /// All, or one refusal of everything that is wrong with any of them.
    pub fn all<T>(results: impl IntoIterator<Item = Result<T, Self>>) -> Result<Vec<T>, Self> {
        let mut values = Vec::new();
        let mut refused: Option<Self> = None;
        for result in results {
            match (result, refused.take()) {
                (Ok(value), none_or_earlier) => {
                    values.push(value);
                    refused = none_or_earlier;
                }
                (Err(refusal), None) => refused = Some(refusal),
                (Err(refusal), Some(earlier)) => refused = Some(earlier.and(refusal)),
            }
        }
        refused.map_or(Ok(values), Err)
    }

    /// Both, or what is wrong with either: what is malformed before what only does not fit.
    pub fn both<A, B>(one: Result<A, impl Into<Self>>, other: Result<B, impl Into<Self>>) -> Result<(A, B), Self> {
        match (one, other) {
            (Ok(one), Ok(other)) => Ok((one, other)),
            (Err(error), Ok(_)) => Err(error.into()),
            (Ok(_), Err(error)) => Err(error.into()),
            (Err(one), Err(other)) => Err(one.into().and(other.into())),
        }
    }

    /// One refusal of both: what is malformed before what only does not fit, and everything that is wrong with either.
    pub fn and(self, other: Self) -> Self {
        let malformed = |refusal: &Self| refusal.kind == RefusalKind::Invalid;
        let (first, second) = if malformed(&other) && !malformed(&self) { (other, self) } else { (self, other) };
        let message = format!("{}; {}", first.message, second.message);
        let violations = first.violations.into_iter().chain(second.violations).collect();
        Self { message, violations, ..first }
    }

    /// The same, saying of which field.
    pub fn of_field(self, field: impl Into<String>) -> Self {
        let violation = Violation { field: field.into(), description: self.message.clone() };
        Self { violations: vec![violation], ..self }
    }

    /// The same, whose fields stand in this one.
    pub fn under(self, field: &str) -> Self {
        let inside = |it: Violation| Violation { field: format!("{field}.{}", it.field), ..it };
        Self { violations: self.violations.into_iter().map(inside).collect(), ..self }
    }

    /// A refusal because of the resource's state.
    pub fn wrong_state(reason: &'static str, message: impl Into<String>) -> Self {
        Self::new(RefusalKind::WrongState, reason, message)
    }
}

impl From<crate::IdError> for Refusal {
    fn from(error: crate::IdError) -> Self {
        Self::new(RefusalKind::Invalid, error.reason, error.to_string())
    }
}

/// Collects every violation of a request, so that a caller learns of all of them at once.
#[derive(Debug, Default)]
pub struct Violations {
    first_reason: Option<&'static str>,
    violations: Vec<Violation>,
}

impl Violations {
    pub fn new() -> Self {
        Self::default()
    }

    /// Records one more `InvalidParameterValue`.
    pub fn add(&mut self, field: impl Into<String>, description: impl Into<String>) {
        self.add_as("InvalidParameterValue", field, description);
    }

    /// Records one more with a code of its own. The answer carries the code of the first.
    pub fn add_as(&mut self, reason: &'static str, field: impl Into<String>, description: impl Into<String>) {
        self.first_reason.get_or_insert(reason);
        self.violations.push(Violation { field: field.into(), description: description.into() });
    }

    /// Keeps the value of a success, records a failure for `field` and goes on.
    pub fn check<T, E: Into<Refusal>>(&mut self, field: impl Into<String>, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let refusal = error.into();
                self.first_reason.get_or_insert(refusal.reason);
                if refusal.violations.is_empty() {
                    self.violations.push(Violation { field: field.into(), description: refusal.message });
                } else {
                    let field = field.into();
                    self.violations.extend(
                        refusal.violations.into_iter().map(|violation| Violation {
                            field: if field.is_empty() { violation.field } else { field.clone() },
                            ..violation
                        }),
                    );
                }
                None
            }
        }
    }

    /// Parses an id in `field`.
    pub fn id<I: crate::id::ResourceId>(&mut self, field: impl Into<String>, text: &str) -> Option<I> {
        self.check(field, text.parse::<I>())
    }

    /// Parses an id that may be absent (empty).
    pub fn optional_id<I: crate::id::ResourceId>(&mut self, field: impl Into<String>, text: &str) -> Option<I> {
        if text.is_empty() { None } else { self.id(field, text) }
    }

    /// Parses a list of ids; a bad one is named by its place.
    pub fn ids<I: crate::id::ResourceId>(&mut self, field: &str, texts: &[String]) -> Vec<I> {
        let mut ids = Vec::with_capacity(texts.len());
        for (place, text) in texts.iter().enumerate() {
            ids.extend(self.id::<I>(format!("{field}[{place}]"), text));
        }
        ids
    }

    /// `Ok` if nothing was recorded.
    pub fn finish(self) -> Result<(), Refusal> {
        let Some(reason) = self.first_reason else { return Ok(()) };
        let message = self.violations.iter().map(|violation| violation.description.as_str()).collect::<Vec<_>>();
        Err(Refusal { kind: RefusalKind::Invalid, reason, message: message.join("; "), violations: self.violations })
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.description)
    }
}
