//! Messages by their descriptors, so that one piece of code shows them all.

use std::sync::OnceLock;

use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Number, Value as Json};

use crate::{failure::Failure, table::Show};

static CONTRACTS: OnceLock<DescriptorPool> = OnceLock::new();

/// All contracts.
pub fn contracts() -> Result<&'static DescriptorPool, Failure> {
    if let Some(pool) = CONTRACTS.get() {
        return Ok(pool);
    }
    let pool = DescriptorPool::decode(gureum_proto::DESCRIPTORS).map_err(|error| Failure::Broken(format!("the contracts: {error}")))?;
    Ok(CONTRACTS.get_or_init(|| pool))
}

/// A message with its descriptor.
pub fn dynamic<T: Show>(item: &T) -> Result<DynamicMessage, Failure> {
    let name = T::NAME;
    let descriptor =
        contracts()?.get_message_by_name(name).ok_or_else(|| Failure::Broken(format!("the contracts have no message {name}")))?;
    DynamicMessage::decode(descriptor, item.encode_to_vec().as_slice()).map_err(|error| Failure::Broken(format!("{name}: {error}")))
}

/// A message in its proto3 JSON form.
pub fn to_json<T: Show>(item: &T) -> Result<Json, Failure> {
    let value = dynamic(item)?
        .serialize_with_options(serde_json::value::Serializer, &SerializeOptions::new())
        .map_err(|error| Failure::Broken(format!("{}: {error}", T::NAME)))?;
    Ok(T::json(whole_numbers(value)))
}

/// Numbers of an event's data are all floating; whole ones are written without a point, as everywhere else.
fn whole_numbers(value: Json) -> Json {
    match value {
        Json::Number(number) => Json::Number(whole(number)),
        Json::Array(values) => values.into_iter().map(whole_numbers).collect(),
        Json::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole_numbers(value))).collect(),
        Json::Null | Json::Bool(_) | Json::String(_) => value,
    }
}

fn whole(number: Number) -> Number {
    /// Beyond it a double skips whole numbers.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match number.as_f64() {
        Some(value) if number.is_f64() && value.fract() == 0.0 && value.abs() < EXACT => Number::from(value as i64),
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use gureum_proto::{common::v1::Tag, compute::v1::Instance};

    use super::*;

    #[test]
    fn messages_have_their_proto3_json_form() {
        let instance = Instance {
            instance_id: "i-00000000000000001".into(),
            state: 2,
            launch_time: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            tags: vec![Tag { key: "Name".into(), value: "web".into() }],
            generation: 3,
            ..Default::default()
        };
        let expected = serde_json::json!({
            "instanceId": "i-00000000000000001",
            "state": "INSTANCE_STATE_RUNNING",
            "launchTime": "2026-01-01T00:00:00Z",
            "generation": "3",
            "tags": [{ "key": "Name", "value": "web" }],
        });
        assert_eq!(to_json(&instance).unwrap(), expected);
    }

    #[test]
    fn whole_numbers_have_no_point() {
        assert_eq!(whole_numbers(serde_json::json!([8.0, 0.5, 3])).to_string(), "[8,0.5,3]");
    }
}
