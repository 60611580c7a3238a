//! The codec of all services: protobuf, and the rules that the protos declare.
//!
//! A request that breaks a rule never reaches a handler: it is answered with INVALID_ARGUMENT and
//! every violation at once. Checking here is checking once for every service.

use std::marker::PhantomData;

use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder},
};
use tonic_types::{ErrorDetails, StatusExt};

use crate::validate::{Found, Path, Validate};

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
        let message = U::decode(buffer).map_err(|error| {
            Status::with_error_details(
                tonic::Code::InvalidArgument,
                format!("the message cannot be decoded: {error}"),
                ErrorDetails::with_error_info("MalformedMessage", ERROR_DOMAIN, []),
            )
        })?;
        let mut found = Found::default();
        message.check(Path::root(), &mut found);
        found.into_status().map_or(Ok(Some(message)), Err)
    }
}
