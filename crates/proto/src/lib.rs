//! Gureum's contracts as Rust: messages, clients, servers, and the descriptors for reflection.
//!
//! Everything here is generated from `proto/`; beside it stand only the codec, the checks of the rules
//! that the protos declare, and three traits by which the scaffold serves all services alike.

// Generated code; its comments are the protos'.
#![allow(clippy::all, reason = "generated code")]

pub mod codec;
pub mod declared;
pub mod validate;

pub use validate::Validate;

include!(concat!(env!("OUT_DIR"), "/modules.rs"));

mod validation {
    include!(concat!(env!("OUT_DIR"), "/validation.rs"));
}

mod traits {
    include!(concat!(env!("OUT_DIR"), "/traits.rs"));
}

/// Every contract as an encoded `FileDescriptorSet`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The same without what only services may call: what callers of a region see.
pub const PUBLIC_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/public_descriptors.bin"));

/// A request that changes something.
pub trait Mutation: prost::Message {
    /// The request's full name: a client token is good for one kind of call.
    const NAME: &'static str;
    /// Makes the call idempotent; empty if the caller wants none.
    fn client_token(&self) -> &str;
    /// Checks everything and changes nothing.
    fn dry_run(&self) -> bool;
}

/// A service's `Event` message.
pub trait EventMessage: prost::Message + Default + 'static {
    /// The package, which is the beginning of the events' types: `gureum.security.v1`.
    const PACKAGE: &'static str;
    fn metadata(&self) -> Option<&common::v1::EventMetadata>;
    fn set_metadata(&mut self, metadata: common::v1::EventMetadata);
}

/// What a `Watch` stream carries.
pub enum WatchPart<E> {
    /// A change, or in a snapshot a resource as it is.
    Event(Box<E>),
    /// Everything up to this sequence has been sent.
    CaughtUp(u64),
    /// From a newer service; to be passed over.
    Unknown,
}

/// A service's answer to `Watch` and `WatchAll`.
pub trait WatchMessage: prost::Message + Default + 'static {
    type Event: EventMessage;
    fn event(event: Self::Event) -> Self;
    fn caught_up(sequence: u64) -> Self;
    fn into_parts(self) -> WatchPart<Self::Event>;
}
