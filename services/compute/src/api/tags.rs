//! Tags of compute's resources.

use std::{borrow::Cow, sync::Arc};

use gureum_compute_domain::{
    image::{Image, ImageError},
    instance::{Decision, InstanceError},
    launch_template::{LaunchTemplate, LaunchTemplateError},
    modify,
    snapshot::{Snapshot, SnapshotError},
    volume::{Volume, VolumeError},
};
use gureum_model::{
    Filterable, Filters, PageRequest, Refusal, Scope, Tags, Timestamp,
    id::{ImageId, InstanceId, LaunchTemplateId, ResourceId, SnapshotId, VolumeId},
    refusal::Violations,
};
use gureum_proto::{common::v1::TagDescription, compute::v1 as proto};
use gureum_service::{Error, mutate, scope, wire};
use gureum_store::{Listed, Record, Table};

use super::instances::find;
use crate::{
    core::Core,
    places::Places,
    store::{
        ImageRow, InstanceRow, LaunchTemplateRow, Schema, SnapshotRow, Tx, VolumeRow, put_image, put_instance, put_snapshot, put_template,
        put_volume,
    },
};

/// A resource that carries tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Taggable {
    Image(ImageId),
    Instance(InstanceId),
    LaunchTemplate(LaunchTemplateId),
    Snapshot(SnapshotId),
    Volume(VolumeId),
}

impl Taggable {
    /// Errors: `InvalidID` for an id of another service or of what carries no tags; malformed ids.
    fn parse(text: &str) -> Result<Self, Refusal> {
        let is = |prefix: &str| text.starts_with(prefix);
        if is(InstanceId::PREFIX) {
            Ok(Self::Instance(text.parse()?))
        } else if is(LaunchTemplateId::PREFIX) {
            Ok(Self::LaunchTemplate(text.parse()?))
        } else if is(VolumeId::PREFIX) {
            Ok(Self::Volume(text.parse()?))
        } else if is(ImageId::PREFIX) {
            Ok(Self::Image(text.parse()?))
        } else if is(SnapshotId::PREFIX) {
            Ok(Self::Snapshot(text.parse()?))
        } else {
            let words = format!("the ID '{text}' is not valid: it is of no resource of compute that carries tags");
            Err(Refusal::invalid_as("InvalidID", "resource_ids", words))
        }
    }

    /// The tags that it has. Errors: it does not exist.
    fn tags<'a>(&self, tables: &'a Schema, scope: &Scope, now: Timestamp) -> Result<&'a Tags, Refusal> {
        match *self {
            Self::Image(id) => {
                let row = tables.images.get(&ImageRow::key_of(scope, id)).filter(|row| row.holds_snapshots());
                Ok(&row.ok_or(ImageError::NotFound { ids: vec![id] })?.record.0.tags)
            }
            Self::Snapshot(id) => {
                let row = tables.snapshots.get(&SnapshotRow::key_of(scope, id));
                Ok(&row.ok_or(SnapshotError::NotFound { id })?.record.0.tags)
            }
            Self::Instance(id) => {
                let it = find(tables, scope, id, now).ok_or(InstanceError::NotFound { id })?;
                Ok(&it.tags)
            }
            Self::LaunchTemplate(id) => {
                let row = tables.launch_templates.get(&LaunchTemplateRow::list_key(scope, id));
                Ok(&row.ok_or(LaunchTemplateError::NotFound { id })?.record.0.tags)
            }
            Self::Volume(id) => {
                let row = tables.volumes.get(&VolumeRow::list_key(scope, id)).filter(|row| row.visible());
                Ok(&row.ok_or(VolumeError::NotFound { id })?.record.0.tags)
            }
        }
    }

    /// Gives it other tags. It exists.
    fn set(&self, tx: &mut Tx<'_>, places: &Places, scope: &Scope, tags: Tags) {
        match *self {
            Self::Image(id) => {
                let row = tx.images.get(&ImageRow::key_of(scope, id)).cloned();
                if let Some(row) = row.filter(|row| row.tags != tags) {
                    put_image(tx, "ImageChanged", Image { tags, ..row.record.0.clone() });
                }
            }
            Self::Snapshot(id) => {
                let row = tx.snapshots.get(&SnapshotRow::key_of(scope, id)).cloned();
                if let Some(row) = row.filter(|row| row.tags != tags) {
                    put_snapshot(tx, "SnapshotChanged", Snapshot { tags, ..row.record.0.clone() });
                }
            }
            Self::Instance(id) => {
                let row = tx.instances.get(&InstanceRow::list_key(scope, id)).cloned();
                if let Some(Decision::Change(next)) = row.map(|row| modify::tags(&row, tags)) {
                    put_instance(tx, places, *next, "");
                }
            }
            Self::LaunchTemplate(id) => {
                let row = tx.launch_templates.get(&LaunchTemplateRow::list_key(scope, id)).cloned();
                if let Some(row) = row.filter(|row| row.tags != tags) {
                    put_template(tx, "LaunchTemplateChanged", LaunchTemplate { tags, ..row.record.0.clone() });
                }
            }
            Self::Volume(id) => {
                let row = tx.volumes.get(&VolumeRow::list_key(scope, id)).cloned();
                if let Some(row) = row.filter(|row| row.tags != tags) {
                    put_volume(tx, "VolumeChanged", Volume { tags, ..row.record.0.clone() });
                }
            }
        }
    }
}

fn parse_all(texts: &[String]) -> Result<Vec<Taggable>, Refusal> {
    let mut violations = Violations::new();
    let mut resources = Vec::with_capacity(texts.len());
    for (place, text) in texts.iter().enumerate() {
        resources.extend(violations.check(format!("resource_ids[{place}]"), Taggable::parse(text)));
    }
    violations.finish()?;
    resources.sort_unstable();
    resources.dedup();
    Ok(resources)
}

/// The resources with the tags that they are to have. All are checked before any is written.
fn decide(
    tables: &Schema,
    scope: &Scope,
    now: Timestamp,
    (texts, resources): (&[String], &[Taggable]),
    next: impl Fn(&Tags) -> Result<Tags, Refusal>,
) -> Result<Vec<(Taggable, Tags)>, Refusal> {
    let place = |resource: Taggable| texts.iter().position(|text| Taggable::parse(text) == Ok(resource)).unwrap_or_default();
    let decided = resources.iter().map(|resource| {
        let tags = resource.tags(tables, scope, now);
        let tags = tags.map_err(|absent| absent.of_field(format!("resource_ids[{}]", place(*resource))))?;
        Ok((*resource, next(tags)?))
    });
    Refusal::all(decided)
}

/// Adds or overwrites tags.
pub async fn create_tags(core: &Arc<Core>, request: proto::CreateTagsRequest) -> Result<proto::CreateTagsResponse, Error> {
    let (scope, places) = (scope(), core.places.clone());
    let resources = parse_all(&request.resource_ids)?;
    let texts = request.resource_ids.clone();
    let added = Tags::from_user("tags", wire::tag_pairs(request.tags.clone()))?;
    let caller = scope.clone();
    let written = mutate(&core.store, &caller, &request, move |tx| {
        for (resource, tags) in decide(tx, &scope, tx.now(), (&texts, &resources), |tags| tags.with(&added))? {
            resource.set(tx, &places, &scope, tags);
        }
        Ok(proto::CreateTagsResponse {})
    });
    written.await
}

/// Removes tags.
pub async fn delete_tags(core: &Arc<Core>, request: proto::DeleteTagsRequest) -> Result<proto::DeleteTagsResponse, Error> {
    let (scope, places) = (scope(), core.places.clone());
    let resources = parse_all(&request.resource_ids)?;
    let texts = request.resource_ids.clone();
    let removed = wire::tag_selectors(request.tags.clone());
    let caller = scope.clone();
    let written = mutate(&core.store, &caller, &request, move |tx| {
        for (resource, tags) in decide(tx, &scope, tx.now(), (&texts, &resources), |tags| Ok(tags.without(&removed)))? {
            resource.set(tx, &places, &scope, tags);
        }
        Ok(proto::DeleteTagsResponse {})
    });
    written.await
}

/// A tag as it stands on a resource.
#[derive(Debug, Clone, PartialEq)]
struct TagOf {
    resource_id: String,
    resource_type: &'static str,
    key: String,
    value: String,
}

impl TagOf {
    /// Where it stands in the list. Nothing in an id is below the separator.
    fn place(&self) -> String {
        format!("{}/{}", self.resource_id, self.key)
    }
}

impl Filterable for TagOf {
    const FILTER_NAMES: &'static [&'static str] = &["key", "resource-id", "resource-type", "value"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        let value = match name {
            "key" | "tag-key" => self.key.as_str(),
            "resource-id" => self.resource_id.as_str(),
            "resource-type" => self.resource_type,
            "value" => self.value.as_str(),
            _ => return Vec::new(),
        };
        vec![Cow::from(value)]
    }

    /// A row is of one tag.
    fn filter_tag(&self, key: &str) -> Option<&str> {
        (key == self.key).then_some(self.value.as_str())
    }
}

/// One page of tags, by resource id and key.
pub async fn describe_tags(core: &Arc<Core>, request: proto::DescribeTagsRequest) -> Result<proto::DescribeTagsResponse, Error> {
    let (scope, state, now) = (scope(), core.read(), core.clock.now());
    let filters = Filters::for_kind::<TagOf>(wire::filters(request.filters))?;
    let page = PageRequest::new(request.page_size, &request.page_token, &("tags", &scope, &filters))?;
    let mut gathered = Gathered { prefix: format!("{scope}/"), filters: &filters, page: &page, tags: Vec::new() };
    // The kinds in the order of their ids' prefixes.
    gathered.take("image", &state.images, |row| row.holds_snapshots(), |row| &row.tags);
    gathered.take("instance", &state.instances, |row| row.visible(now), |row| &row.tags);
    gathered.take("launch-template", &state.launch_templates, |_| true, |row| &row.tags);
    gathered.take("snapshot", &state.snapshots, |_| true, |row| &row.tags);
    gathered.take("volume", &state.volumes, |row| row.visible(), |row| &row.tags);
    let (tags, next_page_token) = page.cut(gathered.tags, TagOf::place);
    let shown = |tag: TagOf| TagDescription {
        resource_id: tag.resource_id,
        resource_type: tag.resource_type.to_owned(),
        key: tag.key,
        value: tag.value,
    };
    Ok(proto::DescribeTagsResponse { tags: tags.into_iter().map(shown).collect(), next_page_token })
}

/// The tags of a page in the making: one more than the page has, so that the next page is known of.
struct Gathered<'a> {
    prefix: String,
    filters: &'a Filters,
    page: &'a PageRequest,
    tags: Vec<TagOf>,
}

impl Gathered<'_> {
    fn is_full(&self) -> bool {
        self.tags.len() > self.page.size
    }

    /// Takes the tags of one kind of resource.
    fn take<R: Record>(&mut self, kind: &'static str, table: &Table<R>, visible: impl Fn(&R) -> bool, tags: impl Fn(&R) -> &Tags) {
        if let Some(ids) = self.filters.exact("resource-id") {
            let mut ids: Vec<&String> = ids.iter().collect();
            ids.sort();
            for id in ids {
                if let Some(row) = table.get(&format!("{}{id}", self.prefix)).filter(|row| visible(&row.record)) {
                    self.add(kind, &row.record.key(), tags(&row.record));
                }
            }
            return;
        }
        // The page before may have ended in the midst of a resource.
        let begun = self.page.after.as_deref().and_then(|after| after.split_once('/')).map(|(id, _)| format!("{}{id}", self.prefix));
        let prefix = self.prefix.clone();
        let first = begun.as_deref().and_then(|key| table.get(key));
        for row in first.into_iter().chain(table.scan(&prefix, begun.as_deref())).filter(|row| visible(&row.record)) {
            if self.is_full() {
                return;
            }
            self.add(kind, &row.record.key(), tags(&row.record));
        }
    }

    fn add(&mut self, resource_type: &'static str, key: &str, tags: &Tags) {
        let resource_id = key.strip_prefix(&self.prefix).unwrap_or(key);
        for (key, value) in &tags.0 {
            let tag = TagOf { resource_id: resource_id.to_owned(), resource_type, key: key.clone(), value: value.clone() };
            let later = self.page.after.as_ref().is_none_or(|after| tag.place() > *after);
            if later && self.filters.pass(&tag) {
                self.tags.push(tag);
            }
        }
    }
}
