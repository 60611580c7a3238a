//! `gureum eip`: elastic IPs, public addresses that stay.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    network::v1::{
        Address, AllocateAddressRequest, AssociateAddressRequest, DescribeAddressesRequest, DisassociateAddressRequest,
        ReleaseAddressRequest,
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
    wait::{self, WaitArgs},
};

/// Elastic IPs: public addresses that stay
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum eip allocate --name web
  gureum eip associate 127.2.0.7 web
  gureum eip associate 127.2.0.7 web-2 --move --wait
  gureum eip disassociate 127.2.0.7
  gureum eip release 127.2.0.7")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List elastic IPs
    #[command(visible_alias = "list", after_help = "Examples:\n  gureum eip ls\n  gureum eip ls --filter instance-id=i-00000000000000001")]
    Ls(ListArgs),
    /// Get an elastic IP
    #[command(after_help = "Examples:\n  gureum eip allocate\n  IP=$(gureum eip allocate --name web -o json | jq -r .publicIp)")]
    Allocate {
        /// Name, which is the tag Name
        #[arg(long)]
        name: Option<String>,
        /// Tag; may be given again
        #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
        tags: Vec<Tag>,
    },
    /// Point an elastic IP at an instance or an interface
    #[command(
        after_help = "Examples:\n  gureum eip associate 127.2.0.7 web\n  gureum eip associate eipalloc-00000000000000001 eni-00000000000000001 --move --wait"
    )]
    Associate(AssociateArgs),
    /// Take an elastic IP off what it points at
    #[command(after_help = "Examples:\n  gureum eip disassociate 127.2.0.7")]
    Disassociate {
        /// Address, or id of its allocation or association
        #[arg(value_name = "EIP")]
        address: String,
    },
    /// Give elastic IPs back
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  gureum eip release 127.2.0.7\n  gureum eip release eipalloc-00000000000000001"
    )]
    Release {
        /// Addresses, or ids of their allocations
        #[arg(value_name = "EIP", required = true)]
        addresses: Vec<String>,
    },
}

#[derive(Debug, ClapArgs)]
struct AssociateArgs {
    /// Address, or id of its allocation
    #[arg(value_name = "EIP")]
    address: String,
    /// Instance, by id or name, or interface by id
    target: String,
    /// Which private address of the target
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true)]
    private_ip: String,
    /// Also if it points elsewhere now, or the target has another one
    #[arg(long = "move")]
    take: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(ListArgs::default())) {
        Verb::Ls(list) => {
            let request = DescribeAddressesRequest { filters: list.filters, ..Default::default() };
            let addresses: Vec<Address> = pages!(client.network().describe_addresses(request).addresses, list.limit)?;
            out.list(client, &addresses).await
        }
        Verb::Allocate { name, mut tags } => {
            tags.extend(name.map(|value| Tag { key: "Name".to_owned(), value }));
            address(call!(client.network().allocate_address(AllocateAddressRequest { tags, ..Default::default() }))?.address, client, out)
                .await
        }
        Verb::Associate(args) => associate(args, client, out).await,
        Verb::Disassociate { address: text } => {
            let association_id = association(text, client).await?;
            let request = DisassociateAddressRequest { association_id, ..Default::default() };
            address(call!(client.network().disassociate_address(request))?.address, client, out).await
        }
        Verb::Release { addresses } => {
            for text in addresses {
                let request = ReleaseAddressRequest { allocation_id: find(&text, client).await?.allocation_id, ..Default::default() };
                call!(client.network().release_address(request))?;
                out.done(&text, "released")?;
            }
            Ok(())
        }
    }
}

async fn address(address: Option<Address>, client: &Client, out: &Output) -> Result<(), Failure> {
    match address {
        Some(address) => out.one(client, &address).await,
        None => Ok(()),
    }
}

/// An elastic IP by its address, the id of its allocation, or a name that it alone has.
async fn find(text: &str, client: &Client) -> Result<Address, Failure> {
    let mut request = DescribeAddressesRequest::default();
    if resolve::is_id(text, "eipalloc-") {
        request.allocation_ids.push(text.to_owned());
    } else if text.parse::<std::net::IpAddr>().is_ok() {
        request.public_ips.push(text.to_owned());
    } else {
        request.filters.push(parse::exact("tag:Name", text));
    }
    let mut found: Vec<Address> = pages!(client.network().describe_addresses(request).addresses, None)?;
    match (found.pop(), found.len()) {
        (Some(address), 0) => Ok(address),
        (Some(_), others) => Err(Failure::usage(format!("{} elastic IPs are named \"{text}\"; give the address", others + 1))),
        (None, _) => {
            Err(Failure::NotFound { reason: "InvalidAllocationID.NotFound", message: format!("there is no elastic IP \"{text}\"") })
        }
    }
}

async fn association(text: String, client: &Client) -> Result<String, Failure> {
    if resolve::is_id(&text, "eipassoc-") {
        return Ok(text);
    }
    let found = find(&text, client).await?.association;
    found.map(|association| association.association_id).ok_or_else(|| Failure::NotFound {
        reason: "InvalidAssociationID.NotFound",
        message: format!("the elastic IP {text} points at nothing"),
    })
}

async fn associate(args: AssociateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let mut request = AssociateAddressRequest {
        allocation_id: find(&args.address, client).await?.allocation_id,
        private_ip_address: args.private_ip,
        allow_reassociation: args.take,
        ..Default::default()
    };
    if resolve::is_id(&args.target, "eni-") {
        request.network_interface_id = args.target;
    } else {
        request.instance_id = resolve::instance(client, &args.target).await?;
    }
    let answer = call!(client.network().associate_address(request))?;
    let associated = match answer.address {
        Some(associated) if args.wait.wait => associated,
        shown => return address(shown, client, out).await,
    };
    let waited = wait::for_association(client, out, &associated.allocation_id, &answer.association_id, args.wait.timeout).await;
    out.one(client, waited.items.first().unwrap_or(&associated)).await?;
    waited.outcome
}

impl Show for Address {
    const NAME: &'static str = "gureum.network.v1.Address";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "ADDRESS", "INSTANCE", "INTERFACE", "PRIVATE", "STATE"];

    fn id(&self) -> &str {
        &self.allocation_id
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let association = self.association.clone().unwrap_or_default();
        let state = word(association.state().as_str_name(), "ADDRESS_ASSOCIATION_STATE_");
        vec![
            self.id().into(),
            name_of(&self.tags).into(),
            (&self.public_ip).into(),
            association.instance_id.into(),
            association.network_interface_id.into(),
            association.private_ip_address.into(),
            Cell::state(&state),
        ]
    }
}
