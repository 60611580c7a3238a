//! `gureum prefix-lists`: CIDRs that rules name together.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    security::v1::{
        CreateManagedPrefixListRequest, DeleteManagedPrefixListRequest, DescribeManagedPrefixListsRequest,
        GetManagedPrefixListEntriesRequest, ManagedPrefixList, ModifyManagedPrefixListRequest, PrefixListEntry, RemovePrefixListEntry,
    },
};

use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show, name_of, word},
    time::Timestamp,
};

/// Prefix lists: CIDRs that rules of security groups name together
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum prefix-lists create offices --max 10 203.0.113.0/24=Berlin 198.51.100.0/24=Seoul
  gureum prefix-lists add pl-00000000000000001 192.0.2.0/24
  gureum prefix-lists entries pl-00000000000000001
  gureum prefix-lists delete pl-00000000000000001")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List prefix lists
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum prefix-lists ls\n  gureum prefix-lists ls --filter prefix-list-name='office*'"
    )]
    Ls(ListArgs),
    /// Make a prefix list
    #[command(
        after_help = "Examples:\n  gureum prefix-lists create offices --max 10 203.0.113.0/24=Berlin\n  gureum prefix-lists create v6 --family IPv6 --max 5 2001:db8::/32"
    )]
    Create(CreateArgs),
    /// List the entries of a prefix list
    #[command(
        after_help = "Examples:\n  gureum prefix-lists entries pl-00000000000000001\n  gureum prefix-lists entries pl-00000000000000001 --at 1"
    )]
    Entries {
        /// Prefix list, by id or name
        list: String,
        /// An earlier version
        #[arg(long = "at", value_name = "VERSION")]
        version: Option<i64>,
    },
    /// Add entries, which makes a new version
    #[command(after_help = "Examples:\n  gureum prefix-lists add pl-00000000000000001 192.0.2.0/24=lab --at 1")]
    Add {
        /// Prefix list, by id or name
        list: String,
        /// Networks, each with a description if it has one
        #[arg(value_name = "CIDR[=DESCRIPTION]", value_parser = entry, required = true)]
        entries: Vec<PrefixListEntry>,
        /// Only if the list is at this version
        #[arg(long = "at", value_name = "VERSION")]
        version: Option<i64>,
    },
    /// Remove entries, which makes a new version
    #[command(after_help = "Examples:\n  gureum prefix-lists remove pl-00000000000000001 192.0.2.0/24")]
    Remove {
        /// Prefix list, by id or name
        list: String,
        /// Networks
        #[arg(value_name = "CIDR", required = true)]
        cidrs: Vec<String>,
        /// Only if the list is at this version
        #[arg(long = "at", value_name = "VERSION")]
        version: Option<i64>,
    },
    /// Change a prefix list's name or size
    #[command(
        after_help = "Examples:\n  gureum prefix-lists set pl-00000000000000001 --max 20\n  gureum prefix-lists set pl-00000000000000001 --name sites"
    )]
    Set {
        /// Prefix list, by id or name
        list: String,
        /// Another name
        #[arg(long, required_unless_present = "max")]
        name: Option<String>,
        /// Another size: what a rule that names it counts for
        #[arg(long, value_name = "ENTRIES")]
        max: Option<i32>,
    },
    /// Delete prefix lists that no rule names
    #[command(visible_alias = "rm", after_help = "Examples:\n  gureum prefix-lists delete pl-00000000000000001")]
    Delete {
        /// Prefix lists, by id or name
        #[arg(value_name = "LIST", required = true)]
        lists: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Name of the list
    name: String,
    /// Networks, each with a description if it has one
    #[arg(value_name = "CIDR[=DESCRIPTION]", value_parser = entry)]
    entries: Vec<PrefixListEntry>,
    /// Entries that it may have: what a rule that names it counts for
    #[arg(long, value_name = "ENTRIES")]
    max: i32,
    /// Kind of networks
    #[arg(long, default_value = "IPv4", value_parser = ["IPv4", "IPv6"])]
    family: String,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

/// `CIDR` or `CIDR=DESCRIPTION`. Whether it is a network the region says.
fn entry(text: &str) -> Result<PrefixListEntry, String> {
    let (cidr, description) = text.split_once('=').unwrap_or((text, ""));
    if cidr.is_empty() {
        return Err("an entry is written as CIDR or CIDR=DESCRIPTION".to_owned());
    }
    Ok(PrefixListEntry { cidr: cidr.to_owned(), description: description.to_owned() })
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeManagedPrefixListsRequest { filters: list.filters, ..Default::default() };
            let lists: Vec<ManagedPrefixList> = pages!(client.security().describe_managed_prefix_lists(request).prefix_lists, list.limit)?;
            out.list(client, &lists).await
        }
        Verb::Create(CreateArgs { name, entries, max, family, tags }) => {
            let request = CreateManagedPrefixListRequest {
                prefix_list_name: name,
                address_family: family,
                max_entries: max,
                entries,
                tags,
                ..Default::default()
            };
            shown(call!(client.security().create_managed_prefix_list(request))?.prefix_list, client, out).await
        }
        Verb::Entries { list, version } => {
            let prefix_list_id = resolve::prefix_list(client, &list).await?;
            let request = GetManagedPrefixListEntriesRequest { prefix_list_id, target_version: version, ..Default::default() };
            let entries: Vec<PrefixListEntry> = pages!(client.security().get_managed_prefix_list_entries(request).entries, None)?;
            out.list(client, &entries).await
        }
        Verb::Add { list, entries, version } => {
            let change = ModifyManagedPrefixListRequest { add_entries: entries, current_version: version, ..Default::default() };
            modify(list, change, client, out).await
        }
        Verb::Remove { list, cidrs, version } => {
            let remove_entries = cidrs.into_iter().map(|cidr| RemovePrefixListEntry { cidr }).collect();
            modify(list, ModifyManagedPrefixListRequest { remove_entries, current_version: version, ..Default::default() }, client, out)
                .await
        }
        Verb::Set { list, name, max } => {
            let change = ModifyManagedPrefixListRequest { prefix_list_name: name, max_entries: max, ..Default::default() };
            modify(list, change, client, out).await
        }
        Verb::Delete { lists } => {
            for list in lists {
                let id = resolve::prefix_list(client, &list).await?;
                let request = DeleteManagedPrefixListRequest { prefix_list_id: id.clone(), ..Default::default() };
                call!(client.security().delete_managed_prefix_list(request))?;
                out.done(&id, "deleted")?;
            }
            Ok(())
        }
    }
}

async fn modify(list: String, change: ModifyManagedPrefixListRequest, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = ModifyManagedPrefixListRequest { prefix_list_id: resolve::prefix_list(client, &list).await?, ..change };
    shown(call!(client.security().modify_managed_prefix_list(request))?.prefix_list, client, out).await
}

async fn shown(list: Option<ManagedPrefixList>, client: &Client, out: &Output) -> Result<(), Failure> {
    match list {
        Some(list) => out.one(client, &list).await,
        None => Ok(()),
    }
}

impl Show for ManagedPrefixList {
    const NAME: &'static str = "gureum.security.v1.ManagedPrefixList";
    const COLUMNS: &'static [&'static str] = &["ID", "LIST", "NAME", "FAMILY", "MAX", "VERSION", "STATE"];

    fn id(&self) -> &str {
        &self.prefix_list_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![
            self.id().into(),
            (&self.prefix_list_name).into(),
            name_of(&self.tags).into(),
            (&self.address_family).into(),
            Cell::number(self.max_entries),
            Cell::number(self.version),
            Cell::state(&word(self.state().as_str_name(), "PREFIX_LIST_STATE_")),
        ]
    }
}

impl Show for PrefixListEntry {
    const NAME: &'static str = "gureum.security.v1.PrefixListEntry";
    const COLUMNS: &'static [&'static str] = &["CIDR", "DESCRIPTION"];

    fn id(&self) -> &str {
        &self.cidr
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        vec![(&self.cidr).into(), (&self.description).into()]
    }
}
