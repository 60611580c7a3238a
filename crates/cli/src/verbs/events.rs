//! `gureum events`: what happened and what happens.

use std::time::Duration;

use clap::Args as ClapArgs;
use gureum_proto::gateway::v1::{CloudEvent, EventFilter, SubscribeRequest, SubscribeResponse, subscribe_response::Message};
use prost_types::value::Kind;
use serde_json::Value as Json;
use tonic::{Code, Status, Streaming};

use crate::{
    client::Client,
    failure::Failure,
    output::Output,
    table::{Cell, Show, Table},
    time::{Timestamp, stamp},
};

/// How often a stream that broke is opened again before that is given up; the count begins anew with each
/// message. A region starts again well within the pauses' sum.
const ATTEMPTS: u32 = 8;

/// The first pause; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Show what happened, or follow what happens
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum events                              what the region still knows
  gureum events --follow                     from now on, until Ctrl-C
  gureum events --follow --after 1200        what happened behind that place, then on
  gureum events --type 'gureum.compute.v1.*' --subject i-00000000000000001
  gureum events --follow -o json | jq .type")]
pub struct Args {
    /// Go on until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only behind this place; 0 is everything that is kept
    #[arg(long, value_name = "PLACE")]
    after: Option<u64>,
    /// Only of this type, or with * at its end all that begin so; may be given again
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only of this resource; may be given again
    #[arg(long = "subject", value_name = "ID")]
    subjects: Vec<String>,
    /// Only from this source, such as /gureum/compute; may be given again
    #[arg(long = "source", value_name = "SOURCE")]
    sources: Vec<String>,
    /// End after so many
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Prints events. A stream that breaks is taken up where it broke.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    let filter = EventFilter { types: args.types, subjects: args.subjects, sources: args.sources };
    let after = args.after.or(if args.follow { None } else { Some(0) });
    let mut told = Told { out, table: Table::new::<CloudEvent>(out.colour()), left: args.limit.unwrap_or(usize::MAX), place: after };
    let mut failures = 0;
    loop {
        let request = SubscribeRequest { filter: Some(filter.clone()), after_place: told.place };
        let broken = match client.events().subscribe(request).await {
            Ok(stream) => match told.read(stream.into_inner(), args.follow, &mut failures).await? {
                None => return Ok(()),
                Some(status) => status,
            },
            Err(status) => status,
        };
        // Without a place to go on from, what happened meanwhile would be lost without a word.
        if failures >= ATTEMPTS || told.place.is_none() || !is_passing(&broken) {
            return Err(client.failed(broken));
        }
        out.remark(&format!("the stream broke ({}); going on behind place {}", broken.message(), told.place.unwrap_or_default()));
        tokio::time::sleep(FIRST_PAUSE * 2u32.pow(failures)).await;
        failures += 1;
    }
}

/// Whether the same subscription may succeed a little later.
fn is_passing(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::Unknown | Code::ResourceExhausted | Code::Cancelled | Code::Internal)
}

struct Told<'a> {
    out: &'a Output,
    table: Table,
    left: usize,
    /// Everything up to here was told.
    place: Option<u64>,
}

impl Told<'_> {
    /// Tells what a stream carries. None if that is all; else why the stream ended.
    async fn read(
        &mut self,
        mut stream: Streaming<SubscribeResponse>,
        follow: bool,
        failures: &mut u32,
    ) -> Result<Option<Status>, Failure> {
        loop {
            if self.left == 0 {
                return Ok(None);
            }
            let message = match stream.message().await {
                Ok(Some(message)) => message.message,
                Ok(None) => return Ok(Some(Status::unavailable("the region ended the stream"))),
                Err(status) => return Ok(Some(status)),
            };
            *failures = 0;
            match message {
                Some(Message::Event(event)) => {
                    self.place = Some(event.place);
                    self.left -= 1;
                    self.out.next(&mut self.table, &event, None)?;
                }
                Some(Message::CaughtUpToPlace(place)) => {
                    self.place = Some(place);
                    if !follow {
                        return Ok(None);
                    }
                }
                None => {}
            }
        }
    }
}

/// The state that the event shows, in its own word: `INSTANCE_STATE_RUNNING` is `running`.
fn state(event: &CloudEvent) -> String {
    let value = event.data.as_ref().and_then(|data| data.fields.get("state"));
    match value.and_then(|value| value.kind.as_ref()) {
        Some(Kind::StringValue(text)) => {
            text.split_once("_STATE_").map_or_else(|| text.clone(), |(_, word)| word.to_lowercase().replace('_', "-"))
        }
        _ => String::new(),
    }
}

impl Show for CloudEvent {
    const NAME: &'static str = "gureum.gateway.v1.CloudEvent";
    const COLUMNS: &'static [&'static str] = &["PLACE", "TIME", "TYPE", "SUBJECT", "STATE"];
    // The longest usual type, and "eipalloc-" with its digits.
    const LEAST_WIDTHS: &'static [u16] = &[5, 24, 34, 26];

    fn id(&self) -> &str {
        &self.id
    }

    /// CloudEvents' own JSON, as webhooks get it: its names are in lower case, without separators.
    fn json(json: Json) -> Json {
        let Json::Object(fields) = json else { return json };
        let mut event: serde_json::Map<String, Json> = fields.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
        // Protobuf writes numbers of 64 bits as text.
        if let Some(place) = event.get("place").and_then(Json::as_str).and_then(|text| text.parse::<u64>().ok()) {
            event.insert("place".to_owned(), place.into());
        }
        event.insert("datacontenttype".to_owned(), "application/json".into());
        Json::Object(event)
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let kind = self.r#type.strip_prefix("gureum.").unwrap_or(&self.r#type);
        let state = if self.deleted { "deleted".to_owned() } else { state(self) };
        vec![
            self.place.to_string().into(),
            stamp(self.time.as_ref()).map(|time| time.to_string()).unwrap_or_default().into(),
            kind.into(),
            (&self.subject).into(),
            Cell::state(&state),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_as_they_are_shown() {
        let running = prost_types::Value { kind: Some(Kind::StringValue("INSTANCE_STATE_SHUTTING_DOWN".into())) };
        let event = CloudEvent {
            place: 7,
            r#type: "gureum.compute.v1.InstanceStateChanged".into(),
            subject: "i-00000000000000001".into(),
            time: Some(prost_types::Timestamp { seconds: 1_767_225_600, nanos: 0 }),
            data: Some(prost_types::Struct { fields: [("state".to_owned(), running)].into() }),
            ..Default::default()
        };
        let gone = CloudEvent { place: 8, deleted: true, ..event.clone() };
        let expected = "\
PLACE   TIME                       TYPE                                 SUBJECT                      STATE
7       2026-01-01T00:00:00.000Z   compute.v1.InstanceStateChanged      i-00000000000000001          shutting-down
8       2026-01-01T00:00:00.000Z   compute.v1.InstanceStateChanged      i-00000000000000001          deleted
";
        assert_eq!(Table::new::<CloudEvent>(false).render(&[event, gone], None), expected);
    }

    #[test]
    fn events_in_json_are_cloud_events() {
        let event = CloudEvent { place: 7, spec_version: "1.0".into(), account_id: "000000000001".into(), ..Default::default() };
        let expected = serde_json::json!({
            "place": 7, "specversion": "1.0", "accountid": "000000000001", "datacontenttype": "application/json",
        });
        assert_eq!(crate::message::to_json(&event).ok(), Some(expected));
    }
}
