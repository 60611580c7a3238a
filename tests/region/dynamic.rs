//! Calls by name, with JSON: a client that knows the region by its descriptors alone.

use bytes::{Buf, BufMut, Bytes};
use gureum_service::{clock::monotonic, context::ACCOUNT_HEADER};
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use std::time::Duration;
use tonic::{
    Code, Request, Status, Streaming,
    client::Grpc,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::{AsciiMetadataKey, MetadataValue},
    transport::Channel,
};
use tonic_types::StatusExt;

/// One caller of a region.
#[derive(Clone)]
pub struct Caller {
    channel: Channel,
    pool: DescriptorPool,
    metadata: Vec<(String, String)>,
}

impl Caller {
    /// A caller who shows nothing of itself.
    pub fn new(channel: Channel) -> Self {
        Self { channel, pool: DescriptorPool::decode(gureum_proto::PUBLIC_DESCRIPTORS).unwrap(), metadata: Vec::new() }
    }

    /// The same with one more piece of metadata in every call.
    pub fn with(&self, name: &str, value: &str) -> Self {
        let mut caller = self.clone();
        caller.metadata.push((name.to_owned(), value.to_owned()));
        caller
    }

    /// The same in the scope of an account.
    pub fn of(&self, account: &str) -> Self {
        self.with(ACCOUNT_HEADER, account)
    }

    /// Calls `gureum.SERVICE.v1.NAME/METHOD`, written as `SERVICE.NAME/METHOD`.
    pub async fn call(&self, method: &str, request: Value) -> Result<Value, Status> {
        let descriptor = self.method(method);
        let bytes = DynamicMessage::deserialize(descriptor.input(), request).expect(method).encode_to_vec();
        let answer = self.call_bytes(method, bytes).await?;
        Ok(json(&descriptor, answer))
    }

    /// The same with a message that is already encoded, or is none.
    pub async fn call_bytes(&self, method: &str, request: Vec<u8>) -> Result<Bytes, Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let answer = grpc.unary(self.request(request), path(method), Raw).await?;
        Ok(answer.into_inner())
    }

    /// Calls until the region says something definite.
    pub async fn insist(&self, method: &str, request: Value) -> Result<Value, Status> {
        let patience = monotonic() + Duration::from_secs(30);
        loop {
            match self.call(method, request.clone()).await {
                Err(status) if status.code() == Code::Unavailable && monotonic() < patience => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                definite => return definite,
            }
        }
    }

    /// Calls until the answer is as wanted.
    pub async fn until(&self, method: &str, request: Value, wanted: impl Fn(&Value) -> bool) -> Value {
        let patience = monotonic() + Duration::from_secs(30);
        loop {
            let answer = self.insist(method, request.clone()).await.unwrap();
            if wanted(&answer) {
                return answer;
            }
            assert!(monotonic() < patience, "{method} never answers as wanted, but {answer:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Opens a server stream.
    pub async fn stream(&self, method: &str, request: Value) -> Result<Messages, Status> {
        let descriptor = self.method(method);
        let bytes = DynamicMessage::deserialize(descriptor.input(), request).expect(method).encode_to_vec();
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let stream = grpc.server_streaming(self.request(bytes), path(method), Raw).await?.into_inner();
        Ok(Messages { descriptor, stream })
    }

    fn request(&self, bytes: Vec<u8>) -> Request<Bytes> {
        let mut request = Request::new(Bytes::from(bytes));
        for (name, value) in &self.metadata {
            let name = AsciiMetadataKey::from_bytes(name.as_bytes()).unwrap();
            request.metadata_mut().insert(name, MetadataValue::try_from(value).unwrap());
        }
        request
    }

    fn method(&self, method: &str) -> MethodDescriptor {
        let path = path(method);
        let (service, name) = path.path().trim_start_matches('/').split_once('/').unwrap();
        let service = self.pool.get_service_by_name(service).unwrap_or_else(|| panic!("there is no service {service}"));
        service.methods().find(|method| method.name() == name).unwrap_or_else(|| panic!("there is no method {method}"))
    }
}

fn path(method: &str) -> http::uri::PathAndQuery {
    let (package, rest) = method.split_once('.').unwrap();
    format!("/gureum.{package}.v1.{rest}").parse().unwrap()
}

fn json(descriptor: &MethodDescriptor, bytes: Bytes) -> Value {
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false).stringify_64_bit_integers(false);
    let message = DynamicMessage::decode(descriptor.output(), bytes).unwrap();
    message.serialize_with_options(serde_json::value::Serializer, &options).unwrap()
}

/// The messages of a stream, as JSON.
pub struct Messages {
    descriptor: MethodDescriptor,
    stream: Streaming<Bytes>,
}

impl Messages {
    /// The next, within a time in which a region that is well always has one.
    pub async fn next(&mut self) -> Result<Option<Value>, Status> {
        let next = tokio::time::timeout(Duration::from_secs(30), self.stream.message()).await.expect("a message is missing");
        Ok(next?.map(|bytes| json(&self.descriptor, bytes)))
    }
}

/// Code, reason and the fields of a refusal.
pub fn told(status: &Status) -> (Code, String, Vec<String>) {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let fields = status.get_details_bad_request().map(|bad| bad.field_violations).unwrap_or_default();
    (status.code(), reason, fields.into_iter().map(|violation| violation.field).collect())
}

/// When to try again, if a refusal says so.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info().and_then(|info| info.retry_delay)
}

/// Messages as they travel.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}
