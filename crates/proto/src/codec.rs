//! The codec of all services: protobuf, and the rules that the protos declare.
//!
//! Checking here is checking once for every service. A request that breaks a rule is refused with INVALID_ARGUMENT
//! and every violation at once, without a handler; or, where its call gathers what is wrong with it
//! ([`crate::declared`]), after a handler that can change nothing has looked at it.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    declared,
    validate::{Found, Path, Validate},
};

/// Domain of the `ErrorInfo` in every refusal.
pub const ERROR_DOMAIN: &str = "gureum";

/// Encodes `T` and decodes `U`, whose rules it checks.
#[derive(Debug, Clone)]
pub struct ValidatingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for ValidatingCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for ValidatingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Validate + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = tonic_prost::ProstEncoder<T>;
    type Decoder = ValidatingDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        Self::Encoder::new(BufferSettings::default())
    }

    fn decoder(&mut self) -> Self::Decoder {
        ValidatingDecoder(PhantomData)
    }
}

/// Decodes one message and checks its rules.
#[derive(Debug, Clone)]
pub struct ValidatingDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Validate> Decoder for ValidatingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let mut message = U::decode(buffer).map_err(|error| {
            Status::with_error_details(
                tonic::Code::InvalidArgument,
                format!("the message cannot be decoded: {error}"),
                ErrorDetails::with_error_info("MalformedMessage", ERROR_DOMAIN, []),
            )
        })?;
        let mut found = Found::default();
        message.check(Path::root(), &mut found);
        match declared::keep(found) {
            Ok(()) => message.bound(),
            Err(found) => {
                if let Some(refusal) = found.into_status() {
                    return Err(refusal);
                }
            }
        }
        Ok(Some(message))
    }
}
