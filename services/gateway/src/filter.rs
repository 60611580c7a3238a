//! Which events someone wants.

use gureum_proto::gateway::v1 as proto;
use serde::{Deserialize, Serialize};

/// Passes an event if every part that is not empty does.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EventFilter {
    /// Types; a `*` at the end stands for anything.
    pub types: Vec<String>,
    pub subjects: Vec<String>,
    pub sources: Vec<String>,
}

impl EventFilter {
    pub fn passes(&self, event: &proto::CloudEvent) -> bool {
        let any = |wanted: &[String], actual: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == actual);
        let matches = |wanted: &String| wanted.strip_suffix('*').map_or(*wanted == event.r#type, |start| event.r#type.starts_with(start));
        (self.types.is_empty() || self.types.iter().any(matches))
            && any(&self.subjects, &event.subject)
            && any(&self.sources, &event.source)
    }
}

impl From<proto::EventFilter> for EventFilter {
    fn from(filter: proto::EventFilter) -> Self {
        Self { types: filter.types, subjects: filter.subjects, sources: filter.sources }
    }
}

impl From<EventFilter> for proto::EventFilter {
    fn from(filter: EventFilter) -> Self {
        Self { types: filter.types, subjects: filter.subjects, sources: filter.sources }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_parts_pass_everything() {
        let event = proto::CloudEvent {
            r#type: "gureum.compute.v1.InstanceStateChanged".into(),
            subject: "i-1".into(),
            source: "/gureum/compute".into(),
            ..Default::default()
        };
        let types = |pattern: &str| EventFilter { types: vec![pattern.into()], ..EventFilter::default() };
        assert!(EventFilter::default().passes(&event));
        assert!(types("gureum.compute.*").passes(&event));
        assert!(!types("gureum.compute").passes(&event));
        assert!(!EventFilter { subjects: vec!["i-2".into()], ..types("*") }.passes(&event));
    }
}
