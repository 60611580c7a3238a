//! Following this service's changes.

use std::sync::Arc;

use futures::StreamExt;
use gureum_model::{Scope, Timestamp};
use gureum_proto::compute::v1::{self as proto, event::Resource, watch_response::Message};
use gureum_service::watch::{SnapshotItem, WatchStream, watch as follow};
use gureum_store::State;
use tonic::Status;

use crate::{convert, core::Core, store::Schema};

/// Follows one scope. Nodes belong to none: what is told of them in the default scope is passed over.
pub fn watch(core: &Arc<Core>, request: proto::WatchRequest) -> Result<WatchStream<proto::WatchResponse>, Status> {
    let scope = gureum_service::scope();
    let of_scope = scope.clone();
    let clock = core.clock.clone();
    let snapshot = move |state: &State<Schema>| snapshot(state, Some(&of_scope), clock.now());
    let stream = follow(core.store.clone(), Some(scope), request.after_sequence, snapshot, core.shutdown.clone())?;
    Ok(Box::pin(stream.map(|message: Result<proto::WatchResponse, Status>| message.map(without_node))))
}

/// Follows all scopes.
pub fn watch_all(core: &Arc<Core>, request: proto::WatchAllRequest) -> Result<WatchStream<proto::WatchAllResponse>, Status> {
    let clock = core.clock.clone();
    let snapshot = move |state: &State<Schema>| snapshot(state, None, clock.now());
    follow(core.store.clone(), None, request.after_sequence, snapshot, core.shutdown.clone())
}

/// In place of a node's event, how far the stream has come.
fn without_node(message: proto::WatchResponse) -> proto::WatchResponse {
    match message.message {
        Some(Message::Event(proto::Event { metadata, resource: Some(Resource::Node(_)) })) => {
            let sequence = metadata.map(|metadata| metadata.sequence).unwrap_or_default();
            proto::WatchResponse { message: Some(Message::CaughtUpToSequence(sequence)) }
        }
        message => proto::WatchResponse { message },
    }
}

fn item(kind: &'static str, scope: &Scope, resource_id: String, resource: Resource) -> SnapshotItem<proto::Event> {
    let event = proto::Event { metadata: None, resource: Some(resource) };
    SnapshotItem { kind, scope: scope.clone(), resource_id, event }
}

/// Every resource as it is now.
fn snapshot(state: &State<Schema>, scope: Option<&Scope>, now: Timestamp) -> Vec<SnapshotItem<proto::Event>> {
    let prefix = scope.map(|scope| format!("{scope}/")).unwrap_or_default();
    let mut items = Vec::new();
    for row in state.instances.scan(&prefix, None) {
        items.push(item("InstanceState", &row.scope, row.id.to_string(), Resource::Instance(convert::instance::told(row))));
    }
    for row in state.launch_templates.scan(&prefix, None) {
        let resource = Resource::LaunchTemplate(convert::template::template(row));
        items.push(item("LaunchTemplateState", &row.scope, row.id.to_string(), resource));
    }
    for row in state.versions.scan(&prefix, None) {
        let key = <crate::store::LaunchTemplateRow as gureum_store::Listed>::list_key(&row.scope, row.template_id);
        let Some(template) = state.launch_templates.get(&key) else { continue };
        let resource = Resource::LaunchTemplateVersion(convert::template::version(template, row));
        items.push(item("LaunchTemplateVersionState", &row.scope, format!("{}/{}", row.template_id, row.number), resource));
    }
    for row in state.volumes.scan(&prefix, None) {
        items.push(item("VolumeState", &row.scope, row.id.to_string(), Resource::Volume(convert::volume::shown(row))));
    }
    for row in state.snapshots.scan(&prefix, None) {
        let resource = Resource::Snapshot(convert::snapshot::shown(row, now));
        items.push(item("SnapshotState", &row.scope, row.id.to_string(), resource));
    }
    for row in state.images.scan(&prefix, None) {
        items.push(item("ImageState", &row.scope, row.id.to_string(), Resource::Image(convert::image::shown(row))));
    }
    for row in state.listings.scan(&prefix, None) {
        let resource = Resource::MarketplaceListing(convert::listing::shown(row, true));
        items.push(item("MarketplaceListingState", &row.scope, row.product_code.to_string(), resource));
    }
    if scope.is_none() {
        for row in state.nodes.iter() {
            items.push(item("NodeState", &Scope::default(), row.id.to_string(), Resource::Node(convert::node::node(row, None))));
        }
    }
    items
}
