//! Small conversions between the contract's common messages and the model.

use gureum_model::{Filter, Tags, Timestamp};
use gureum_proto::common::v1 as proto;

/// A point in domain time as the well-known type.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    let micros = time.as_micros();
    prost_types::Timestamp { seconds: (micros / 1_000_000) as i64, nanos: (micros % 1_000_000 * 1_000) as i32 }
}

/// The well-known type as a point in domain time; before 1970 becomes 1970.
pub fn from_timestamp(time: &prost_types::Timestamp) -> Timestamp {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    let micros = u64::try_from(time.nanos).unwrap_or(0) / 1_000;
    Timestamp::from_micros(seconds.saturating_mul(1_000_000).saturating_add(micros))
}

/// Tags as the contract has them.
pub fn tags(tags: &Tags) -> Vec<proto::Tag> {
    tags.0.iter().map(|(key, value)| proto::Tag { key: key.clone(), value: value.clone() }).collect()
}

/// Pairs as [`Tags::from_user`] takes them.
pub fn tag_pairs(tags: Vec<proto::Tag>) -> impl Iterator<Item = (String, String)> {
    tags.into_iter().map(|tag| (tag.key, tag.value))
}

/// Pairs as [`Tags::without`] takes them.
pub fn tag_selectors(selectors: Vec<proto::TagSelector>) -> Vec<(String, Option<String>)> {
    selectors.into_iter().map(|selector| (selector.key, selector.value)).collect()
}

/// Filters as the model has them.
pub fn filters(filters: Vec<proto::Filter>) -> Vec<Filter> {
    filters.into_iter().map(|filter| Filter { name: filter.name, values: filter.values }).collect()
}
