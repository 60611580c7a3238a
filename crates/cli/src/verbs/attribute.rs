//! `gureum protect`, `unprotect` and `resize`: attributes of instances.

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::{ModifyInstanceAttributeRequest, modify_instance_attribute_request::Change};

use crate::{call, client::Client, failure::Failure, output::Output, resolve};

/// Refuse to terminate instances, or to stop them
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum protect web
  gureum protect --from stop web")]
pub struct ProtectArgs {
    /// Instances: ids, names, or KEY=VALUE for all that have the tag
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
    /// From what
    #[arg(long, value_enum, default_value = "terminate")]
    from: Deed,
}

/// Allow again to terminate instances, or to stop them
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum unprotect web
  gureum unprotect --from stop web")]
pub struct UnprotectArgs {
    /// Instances: ids, names, or KEY=VALUE for all that have the tag
    #[arg(value_name = "INSTANCE", required = true)]
    instances: Vec<String>,
    /// From what
    #[arg(long, value_enum, default_value = "terminate")]
    from: Deed,
}

/// From what an instance is protected.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Deed {
    /// terminate, by call
    Terminate,
    /// stop and terminate, by call
    Stop,
}

impl Deed {
    fn change(self, protected: bool) -> Change {
        match self {
            Self::Terminate => Change::DisableApiTermination(protected),
            Self::Stop => Change::DisableApiStop(protected),
        }
    }
}

/// Change the type of a stopped instance
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum stop web --wait && gureum resize web m5.large && gureum start web")]
pub struct ResizeArgs {
    /// Instance, by id or name
    instance: String,
    /// The new type
    #[arg(value_name = "TYPE")]
    instance_type: String,
}

/// Protects.
pub async fn protect(args: ProtectArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    for instance_id in resolve::instances(client, &args.instances).await? {
        modify(client, &instance_id, args.from.change(true)).await?;
        out.done(&instance_id, "protected")?;
    }
    Ok(())
}

/// Protects no longer.
pub async fn unprotect(args: UnprotectArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    for instance_id in resolve::instances(client, &args.instances).await? {
        modify(client, &instance_id, args.from.change(false)).await?;
        out.done(&instance_id, "no longer protected")?;
    }
    Ok(())
}

/// Changes the type.
pub async fn resize(args: ResizeArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let instance_id = resolve::instance(client, &args.instance).await?;
    let changed = modify(client, &instance_id, Change::InstanceType(args.instance_type)).await?;
    match changed.instance {
        Some(instance) => out.one(client, &instance).await,
        None => out.done(&instance_id, "changed"),
    }
}

async fn modify(
    client: &Client,
    instance_id: &str,
    change: Change,
) -> Result<gureum_proto::compute::v1::ModifyInstanceAttributeResponse, Failure> {
    let request = ModifyInstanceAttributeRequest { instance_id: instance_id.to_owned(), change: Some(change), ..Default::default() };
    call!(client.compute().modify_instance_attribute(request))
}
