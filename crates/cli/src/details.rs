//! Everything about one resource: a line for each field that says something, of any message.

use std::fmt::Write as _;

use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

use crate::{
    table::{one_line, word},
    time::{Timestamp, ago},
};

/// Blanks for each level.
const INDENT: usize = 2;

/// The message, a field a line.
pub fn render(message: &DynamicMessage, now: Option<Timestamp>) -> String {
    let mut page = Page { text: String::new(), now };
    page.message(message, 0);
    page.text
}

struct Page {
    text: String,
    now: Option<Timestamp>,
}

impl Page {
    fn message(&mut self, message: &DynamicMessage, level: usize) {
        for (field, value) in message.fields() {
            let name = field.name().replace('_', " ");
            match value {
                Value::List(values) if name == "tags" => {
                    for tag in values {
                        let (key, value) = (part(tag, "key"), part(tag, "value"));
                        self.line(level, &name, &format!("{key}={value}"));
                    }
                }
                Value::List(values) => {
                    for value in values {
                        self.value(&field, &name, value, level);
                    }
                }
                Value::Map(values) => {
                    for (key, value) in values {
                        let key = map_key(key);
                        self.value(&field, &format!("{name} {key}"), value, level);
                    }
                }
                value => self.value(&field, &name, value, level),
            }
        }
    }

    fn value(&mut self, field: &FieldDescriptor, name: &str, value: &Value, level: usize) {
        match value {
            Value::Message(message) if message.descriptor().full_name() == "google.protobuf.Timestamp" => {
                let time = message.transcode_to::<prost_types::Timestamp>().unwrap_or_default();
                let absolute = ago(Some(&time), None);
                let text = if self.now.is_some() { format!("{absolute} ({})", ago(Some(&time), self.now)) } else { absolute };
                self.line(level, name, &text);
            }
            Value::Message(message) if message.fields().next().is_none() => {}
            Value::Message(message) => {
                self.line(level, name, "");
                self.message(message, level + 1);
            }
            value => self.line(level, name, &scalar(field, value)),
        }
    }

    fn line(&mut self, level: usize, name: &str, text: &str) {
        let blanks = level * INDENT;
        // Writing to a String cannot fail.
        let _ = match text {
            "" => writeln!(self.text, "{:blanks$}{name}:", ""),
            text => writeln!(self.text, "{:blanks$}{name}: {}", "", one_line(text)),
        };
    }
}

fn part(message: &Value, field: &str) -> String {
    let value = message.as_message().and_then(|message| message.get_field_by_name(field));
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn scalar(field: &FieldDescriptor, value: &Value) -> String {
    match value {
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::I32(number) => number.to_string(),
        Value::I64(number) => number.to_string(),
        Value::U32(number) => number.to_string(),
        Value::U64(number) => number.to_string(),
        Value::F32(number) => number.to_string(),
        Value::F64(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => format!("{} bytes", bytes.len()),
        },
        Value::EnumNumber(number) => match field.kind() {
            Kind::Enum(names) => enum_word(&names, *number),
            _ => number.to_string(),
        },
        Value::Message(_) | Value::List(_) | Value::Map(_) => String::new(),
    }
}

/// The word of a value; the prefix is the enum's own name in capitals, as buf's rules have it.
fn enum_word(names: &EnumDescriptor, number: i32) -> String {
    let Some(value) = names.get_value(number) else { return number.to_string() };
    let zero = names.get_value(0).map_or_else(String::new, |zero| zero.name().to_owned());
    word(value.name(), zero.strip_suffix("UNSPECIFIED").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use gureum_proto::{
        common::v1::Tag,
        compute::v1::{Instance, Placement, StateReason},
    };

    use super::*;
    use crate::message::dynamic;

    #[test]
    fn every_field_that_says_something_has_a_line() {
        let instance = Instance {
            instance_id: "i-00000000000000001".into(),
            state: 5,
            state_reason: Some(StateReason::default()),
            launch_time: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            placement: Some(Placement { availability_zone: "us-east-1a".into(), tenancy: 1, group_name: String::new() }),
            ebs_optimized: true,
            tags: vec![Tag { key: "Name".into(), value: "web\n1".into() }],
            ..Default::default()
        };
        let expected = "instance id: i-00000000000000001
state: shutting-down
launch time: 2026-01-01T00:00:00.000Z (2m ago)
placement:
  availability zone: us-east-1a
  tenancy: default
ebs optimized: yes
tags: Name=web 1
";
        assert_eq!(render(&dynamic(&instance).unwrap(), Some(Timestamp::from_secs(1_767_225_720))), expected);
    }
}
