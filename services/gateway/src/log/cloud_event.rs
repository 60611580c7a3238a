//! A service's event as a CloudEvent, its resource in JSON's form.

use gureum_proto::{EventMessage, gateway::v1::CloudEvent};
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, Value};
use prost_types::{Struct, value::Kind};
use serde_json::Value as Json;

/// Knows every contract, so that it can show any service's event to anyone.
#[derive(Debug, Clone)]
pub struct Describer(DescriptorPool);

impl Describer {
    pub fn new() -> Result<Self, DescriptorError> {
        DescriptorPool::decode(gureum_proto::DESCRIPTORS).map(Self)
    }

    /// The event as it stands in the log; its place is given by the log.
    pub fn describe<E: EventMessage>(&self, service: &str, event: &E) -> CloudEvent {
        let metadata = event.metadata().cloned().unwrap_or_default();
        CloudEvent {
            id: metadata.id,
            source: format!("/gureum/{service}"),
            spec_version: "1.0".to_owned(),
            r#type: metadata.r#type,
            subject: metadata.resource_id,
            time: metadata.time,
            data: self.resource(E::PACKAGE, &event.encode_to_vec()),
            place: 0,
            account_id: metadata.account_id,
            region: metadata.region,
            causation_id: metadata.causation_id,
            deleted: metadata.deleted,
        }
    }

    /// The one resource that an event carries.
    fn resource(&self, package: &str, event: &[u8]) -> Option<Struct> {
        let descriptor = self.0.get_message_by_name(&format!("{package}.Event"))?;
        let message = DynamicMessage::decode(descriptor, event).ok()?;
        let (_, value) = message.fields().find(|(field, _)| field.containing_oneof().is_some())?;
        let Value::Message(resource) = value else { return None };
        match serde_json::to_value(resource).ok()? {
            Json::Object(fields) => Some(to_struct(fields)),
            _ => None,
        }
    }
}

fn to_struct(fields: serde_json::Map<String, Json>) -> Struct {
    Struct { fields: fields.into_iter().map(|(name, value)| (name, to_value(value))).collect() }
}

fn to_value(value: Json) -> prost_types::Value {
    let kind = match value {
        Json::Null => Kind::NullValue(0),
        Json::Bool(value) => Kind::BoolValue(value),
        Json::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::StringValue(text),
        Json::Array(values) => Kind::ListValue(prost_types::ListValue { values: values.into_iter().map(to_value).collect() }),
        Json::Object(fields) => Kind::StructValue(to_struct(fields)),
    };
    prost_types::Value { kind: Some(kind) }
}

/// Fields of the log as JSON: what webhooks carry.
pub fn to_json(fields: &Struct) -> Json {
    Json::Object(fields.fields.iter().map(|(name, value)| (name.clone(), value_json(value))).collect())
}

fn value_json(value: &prost_types::Value) -> Json {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Json::Null,
        Some(Kind::BoolValue(value)) => Json::Bool(*value),
        Some(Kind::NumberValue(number)) => number_json(*number),
        Some(Kind::StringValue(text)) => Json::String(text.clone()),
        Some(Kind::ListValue(list)) => Json::Array(list.values.iter().map(value_json).collect()),
        Some(Kind::StructValue(fields)) => to_json(fields),
    }
}

/// Whole numbers without a point, as their users wrote them.
fn number_json(number: f64) -> Json {
    if number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0 { Json::from(number as i64) } else { Json::from(number) }
}
