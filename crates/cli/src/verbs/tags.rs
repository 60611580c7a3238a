//! `gureum tags`: tags of the resources of all services.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::{Filter, Tag, TagDescription, TagSelector},
    gateway::v1::{CreateTagsRequest, DeleteTagsRequest, DescribeTagsRequest},
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show},
    time::Timestamp,
};

/// Tags of resources
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum tags set i-00000000000000001 Name=web stage=test
  gureum tags set web stage=live
  gureum tags unset web stage
  gureum tags ls --key stage")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List tags
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum tags ls\n  gureum tags ls web\n  gureum tags ls --key stage\n  gureum tags ls --filter resource-type=volume"
    )]
    Ls(LsArgs),
    /// Add tags, or change their values
    #[command(
        after_help = "Examples:\n  gureum tags set i-00000000000000001 Name=web stage=test\n  gureum tags set vol-00000000000000001 backup=daily"
    )]
    Set {
        /// Resource, by id; an instance also by name
        resource: String,
        /// Tags
        #[arg(value_name = "KEY=VALUE", value_parser = parse::tag, required = true)]
        tags: Vec<Tag>,
    },
    /// Remove tags
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  gureum tags unset web stage\n  gureum tags unset web stage=test\n  gureum tags unset web --all"
    )]
    Unset {
        /// Resource, by id; an instance also by name
        resource: String,
        /// Tags; with a value only if they have it
        #[arg(value_name = "KEY[=VALUE]", required_unless_present = "all")]
        keys: Vec<String>,
        /// All tags
        #[arg(long, conflicts_with = "keys")]
        all: bool,
    },
}

#[derive(Debug, Default, ClapArgs)]
struct LsArgs {
    /// Only of these resources, by id; instances also by name
    #[arg(value_name = "RESOURCE")]
    resources: Vec<String>,
    /// Only with this key; may be given again
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(LsArgs::default())) {
        Verb::Ls(args) => list(args, client, out).await,
        Verb::Set { resource, tags } => {
            let id = resource_id(&resource, client).await?;
            let request = CreateTagsRequest { resource_ids: vec![id.clone()], tags, ..Default::default() };
            call!(client.tagging().create_tags(request))?;
            out.done(&id, "tagged")
        }
        Verb::Unset { resource, keys, all: _ } => {
            let id = resource_id(&resource, client).await?;
            let tags = keys.iter().map(|key| selector(key)).collect();
            let request = DeleteTagsRequest { resource_ids: vec![id.clone()], tags, ..Default::default() };
            call!(client.tagging().delete_tags(request))?;
            out.done(&id, "untagged")
        }
    }
}

async fn list(args: LsArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut filters = args.list.filters;
    let mut ids = Vec::with_capacity(args.resources.len());
    for resource in &args.resources {
        ids.push(resource_id(resource, client).await?);
    }
    for (name, values) in [("resource-id", ids), ("key", args.keys)] {
        if !values.is_empty() {
            filters.push(Filter { name: name.to_owned(), values });
        }
    }
    let request = DescribeTagsRequest { filters, ..Default::default() };
    let tags: Vec<TagDescription> = pages!(client.tagging().describe_tags(request).tags, args.list.limit)?;
    out.list(client, &tags).await
}

/// Any id as it is; everything else is an instance's name.
async fn resource_id(text: &str, client: &Client) -> Result<String, Failure> {
    let is_id = text.rsplit_once('-').is_some_and(|(kind, digits)| is_kind(kind) && is_digits(digits));
    if is_id { Ok(text.to_owned()) } else { resolve::instance(client, text).await }
}

fn is_kind(kind: &str) -> bool {
    !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
}

/// EC2's digits, new and old; fewer are more likely the end of a name.
fn is_digits(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn selector(text: &str) -> TagSelector {
    match text.split_once('=') {
        Some((key, value)) => TagSelector { key: key.to_owned(), value: Some(value.to_owned()) },
        None => TagSelector { key: text.to_owned(), value: None },
    }
}

impl Show for TagDescription {
    const NAME: &'static str = "gureum.common.v1.TagDescription";
    const COLUMNS: &'static [&'static str] = &["RESOURCE", "KIND", "KEY", "VALUE"];

    fn id(&self) -> &str {
        &self.resource_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![self.id().into(), (&self.resource_type).into(), (&self.key).into(), (&self.value).into()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_may_name_a_value() {
        assert_eq!(selector("a"), TagSelector { key: "a".into(), value: None });
        assert_eq!(selector("a="), TagSelector { key: "a".into(), value: Some(String::new()) });
        assert_eq!(selector("a=b=c").value.as_deref(), Some("b=c"));
    }

    #[test]
    fn ids_of_all_kinds_are_told_from_names() {
        assert!(is_kind("eni-attach") && is_digits("00000000000000001"));
        assert!(!is_digits("1") && !is_digits("frontend") && !is_kind(""));
    }
}
