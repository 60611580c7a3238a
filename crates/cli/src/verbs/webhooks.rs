//! `gureum webhooks`: events to URLs.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    gateway::v1::{
        CreateWebhookRequest, DeadLetter, DeleteWebhookRequest, DescribeDeadLettersRequest, DescribeWebhooksRequest, EventFilter,
        RedriveDeadLettersRequest, RedriveDeadLettersResponse, Webhook,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    message,
    output::Output,
    pages, parse,
    table::{Cell, Show},
    time::Timestamp,
};

/// The longest secret, and a line's end.
const MAX_SECRET_BYTES: u64 = 257;

/// Webhooks: events delivered to URLs
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  GUREUM_WEBHOOK_SECRET=$(openssl rand -hex 16) gureum webhooks create https://example.com/hook
  gureum webhooks create http://127.0.0.1:8080/ --type 'gureum.compute.v1.*' --secret @secret.txt
  gureum webhooks dead-letters wh-00000000000000001
  gureum webhooks redrive wh-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List webhooks
    #[command(visible_alias = "list", after_help = "Examples:\n  gureum webhooks ls\n  gureum webhooks ls --filter url='*example.com*'")]
    Ls(ListArgs),
    /// Have events delivered to a URL
    #[command(after_help = "Examples:\n  gureum webhooks create http://127.0.0.1:8080/ --type 'gureum.compute.v1.*' --secret @secret.txt")]
    Create(CreateArgs),
    /// Delete webhooks with their dead letters
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum webhooks delete wh-00000000000000001")]
    Delete {
        /// Webhooks
        #[arg(value_name = "WEBHOOK", required = true)]
        webhooks: Vec<String>,
    },
    /// List the events that a webhook did not take
    #[command(after_help = "Examples:\n  gureum webhooks dead-letters wh-00000000000000001")]
    DeadLetters {
        /// Webhook
        webhook: String,
        /// At most so many
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Deliver the events again that a webhook did not take
    #[command(after_help = "Examples:\n  gureum webhooks redrive wh-00000000000000001")]
    Redrive {
        /// Webhook
        webhook: String,
    },
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Where events go
    url: String,
    /// Signs deliveries: 16 to 256 characters, or better @FILE, @- or the variable, which no other user sees
    #[arg(long, value_name = "TEXT|@FILE", env = "GUREUM_WEBHOOK_SECRET", hide_env_values = true)]
    secret: String,
    /// Only of this type, or with * at its end all that begin so; may be given again
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only of this resource; may be given again
    #[arg(long = "subject", value_name = "ID")]
    subjects: Vec<String>,
    /// Only from this source, such as /gureum/compute; may be given again
    #[arg(long = "source", value_name = "SOURCE")]
    sources: Vec<String>,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeWebhooksRequest { filters: list.filters, ..Default::default() };
            let webhooks: Vec<Webhook> = pages!(client.events().describe_webhooks(request).webhooks, list.limit)?;
            out.list(client, &webhooks).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Delete { webhooks } => {
            for webhook_id in webhooks {
                call!(client.events().delete_webhook(DeleteWebhookRequest { webhook_id: webhook_id.clone(), ..Default::default() }))?;
                out.done(&webhook_id, "deleted")?;
            }
            Ok(())
        }
        Verb::DeadLetters { webhook, limit } => {
            let request = DescribeDeadLettersRequest { webhook_id: webhook, ..Default::default() };
            let letters: Vec<DeadLetter> = pages!(client.events().describe_dead_letters(request).dead_letters, limit)?;
            out.list(client, &letters).await
        }
        Verb::Redrive { webhook } => {
            let request = RedriveDeadLettersRequest { webhook_id: webhook.clone(), ..Default::default() };
            let answer = call!(client.events().redrive_dead_letters(request))?;
            if out.is_json() {
                return out.write(&format!("{:#}\n", message::to_json(&answer)?));
            }
            out.done(&webhook, &format!("delivers {} events again", answer.redriven))
        }
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let secret = String::from_utf8(parse::content(&args.secret, MAX_SECRET_BYTES)?)
        .map_err(|_| Failure::usage("the secret is not text"))?
        .trim_end_matches(['\r', '\n'])
        .to_owned();
    let request = CreateWebhookRequest {
        url: args.url,
        filter: Some(EventFilter { types: args.types, subjects: args.subjects, sources: args.sources }),
        secret,
        tags: args.tags,
        ..Default::default()
    };
    match call!(client.events().create_webhook(request))?.webhook {
        Some(webhook) => out.one(client, &webhook).await,
        None => Ok(()),
    }
}

impl Show for Webhook {
    const NAME: &'static str = "gureum.gateway.v1.Webhook";
    const COLUMNS: &'static [&'static str] = &["ID", "URL", "TYPES", "DELIVERED TO", "DEAD", "LAST ERROR", "CREATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.webhook_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            (&self.url).into(),
            Cell::join(self.filter.iter().flat_map(|filter| &filter.types)),
            self.delivered_to_place.to_string().into(),
            Cell::number(self.dead_letters),
            (&self.last_error).into(),
            Cell::ago(self.create_time.as_ref(), now),
        ]
    }
}

impl Show for DeadLetter {
    const NAME: &'static str = "gureum.gateway.v1.DeadLetter";
    const COLUMNS: &'static [&'static str] = &["EVENT", "TYPE", "SUBJECT", "GIVEN UP", "ERROR"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        self.event.as_ref().map_or("", |event| &event.id)
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        let event = self.event.as_ref();
        vec![
            self.id().into(),
            event.map_or("", |event| event.r#type.as_str()).into(),
            event.map_or("", |event| event.subject.as_str()).into(),
            Cell::ago(self.time.as_ref(), now),
            (&self.error).into(),
        ]
    }
}

impl Show for RedriveDeadLettersResponse {
    const NAME: &'static str = "gureum.gateway.v1.RedriveDeadLettersResponse";
    const COLUMNS: &'static [&'static str] = &["EVENTS"];

    fn id(&self) -> &str {
        ""
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.redriven.to_string().into()]
    }
}
