//! `gureum images`: what instances are launched from.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        BlockDeviceMapping, CreateImageRequest, DeregisterImageRequest, DescribeImagesRequest, EbsBlockDevice, Image,
        LaunchPermissionChange, ModifyImageAttributeRequest, Permission, RegisterImageRequest, TagSpecification,
        block_device_mapping::Device, modify_image_attribute_request::Change,
    },
};

use super::{import, marketplace};
use crate::{
    call,
    client::Client,
    failure::Failure,
    list::ListArgs,
    output::Output,
    pages, parse, resolve,
    table::{Cell, Show, word},
    time::Timestamp,
    wait::{self, WaitArgs},
};

/// Images: what instances are launched from
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  gureum images ls
  gureum images ls --owner self
  gureum images create web web-2026-07 --wait
  gureum images import ./site --name site-1 --boot-script start.sh
  gureum images share web-2026-07 --with 000000000002
  gureum images deregister web-2026-07")]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List images that can be launched
    #[command(
        visible_alias = "list",
        after_help = "Examples:\n  gureum images ls\n  gureum images ls --owner self\n  gureum images ls --owner amazon --filter architecture=arm64 --filter name='al2023-*'"
    )]
    Ls(LsArgs),
    /// Make an image of an instance and its volumes
    #[command(
        after_help = "Examples:\n  gureum images create web web-2026-07 --wait\n  gureum images create i-00000000000000001 copy --no-reboot --description 'before the update'"
    )]
    Create(CreateArgs),
    /// Make an image of a snapshot of a root volume
    #[command(
        after_help = "Examples:\n  gureum images register restored --snapshot snap-00000000000000001\n  gureum images register arm --snapshot snap-00000000000000001 --arch arm64"
    )]
    Register(RegisterArgs),
    /// Make an image of a directory or a tar archive
    #[command(
        after_help = "Examples:\n  gureum images import ./site --name site-1 --boot-script start.sh\n  gureum images import alpine-minirootfs.tar.gz --name alpine --size 2\n\nA whole root file system has a shell of its own; else the host's programs are shown in it. Nodes of the\nsim driver keep no files."
    )]
    Import(import::Args),
    /// Remove images; their instances and snapshots stay
    #[command(
        visible_alias = "rm",
        after_help = "Examples:\n  gureum images deregister web-2026-07\n  gureum images deregister ami-00000000000000001"
    )]
    Deregister {
        /// Images, by id or name
        #[arg(value_name = "IMAGE", required = true)]
        images: Vec<String>,
    },
    /// Say who may launch an image
    #[command(
        after_help = "Examples:\n  gureum images share web-2026-07 --with 000000000002 --with 000000000003\n  gureum images share web-2026-07 --with all\n  gureum images share web-2026-07 --not-with all"
    )]
    Share(ShareArgs),
    /// List products of the marketplace
    #[command(after_help = "Examples:\n  gureum images marketplace\n  gureum images marketplace --filter title='*firewall*'")]
    Marketplace(ListArgs),
    /// Offer an image to all accounts, under terms to accept first
    #[command(
        after_help = "Examples:\n  gureum images sell web-2026-07 --title 'Web server' --terms @terms.txt\n  gureum images sell web-2026-07 --title 'Web server' --terms 'No warranty.' --price '$5 a month'"
    )]
    Sell(marketplace::SellArgs),
    /// Accept the terms of a product of the marketplace
    #[command(after_help = "Examples:\n  gureum images accept abcdefghijklmnopqrstuvwxy")]
    Accept {
        /// The product's code
        product: String,
    },
}

#[derive(Debug, Default, ClapArgs)]
struct LsArgs {
    /// Only of this owner: self, amazon, aws-marketplace or an account; may be given again
    #[arg(long = "owner", value_name = "OWNER")]
    owners: Vec<String>,
    /// Also those that their owners call outdated
    #[arg(long)]
    deprecated: bool,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, ClapArgs)]
struct CreateArgs {
    /// Instance, by id or name
    instance: String,
    /// Name of the image, unique among yours
    name: String,
    /// What it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Do not reboot the instance; its files may be inconsistent
    #[arg(long)]
    no_reboot: bool,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, ClapArgs)]
struct RegisterArgs {
    /// Name of the image, unique among yours
    name: String,
    /// Snapshot that its root volume has
    #[arg(long, value_name = "ID")]
    snapshot: String,
    /// x86_64 or arm64
    #[arg(long, default_value = "x86_64")]
    arch: String,
    /// Device of the root volume
    #[arg(long, default_value = "/dev/xvda")]
    root: String,
    /// What it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// Tag; may be given again
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = parse::tag)]
    tags: Vec<Tag>,
}

#[derive(Debug, ClapArgs)]
struct ShareArgs {
    /// Image, by id or name
    image: String,
    /// Account that may launch it, or all; may be given again
    #[arg(long = "with", value_name = "ACCOUNT", value_parser = parse::grantee, required_unless_present = "without")]
    with: Vec<Permission>,
    /// Account that may launch it no longer, or all; may be given again
    #[arg(long = "not-with", value_name = "ACCOUNT", value_parser = parse::grantee)]
    without: Vec<Permission>,
}

/// Carries the command out.
pub async fn run(args: Args, client: &Client, out: &Output) -> Result<(), Failure> {
    match args.verb.unwrap_or_else(|| Verb::Ls(LsArgs::default())) {
        Verb::Ls(args) => {
            let request = DescribeImagesRequest {
                filters: args.list.filters,
                owners: args.owners,
                include_deprecated: args.deprecated,
                ..Default::default()
            };
            let images: Vec<Image> = pages!(client.compute().describe_images(request).images, args.list.limit)?;
            out.list(client, &images).await
        }
        Verb::Create(args) => create(args, client, out).await,
        Verb::Deregister { images } => {
            for image in images {
                let image_id = resolve::image_id(client, &image).await?;
                call!(client.compute().deregister_image(DeregisterImageRequest { image_id: image_id.clone(), ..Default::default() }))?;
                out.done(&image_id, "deregistered")?;
            }
            Ok(())
        }
        Verb::Share(args) => share(args, client, out).await,
        Verb::Register(args) => register(args, client, out).await,
        Verb::Import(args) => import::run(args, client, out).await,
        Verb::Marketplace(list) => marketplace::list(list, client, out).await,
        Verb::Sell(args) => marketplace::sell(args, client, out).await,
        Verb::Accept { product } => marketplace::accept(product, client, out).await,
    }
}

pub fn image_tags(tags: Vec<Tag>) -> Vec<TagSpecification> {
    if tags.is_empty() { Vec::new() } else { vec![TagSpecification { resource_type: "image".to_owned(), tags }] }
}

async fn register(args: RegisterArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let ebs = EbsBlockDevice { snapshot_id: Some(args.snapshot), ..Default::default() };
    let request = RegisterImageRequest {
        name: args.name,
        description: args.description,
        architecture: args.arch,
        block_device_mappings: vec![BlockDeviceMapping { device_name: args.root.clone(), device: Some(Device::Ebs(ebs)) }],
        root_device_name: args.root,
        ena_support: true,
        tag_specifications: image_tags(args.tags),
        ..Default::default()
    };
    match call!(client.compute().register_image(request))?.image {
        Some(image) => out.one(client, &image).await,
        None => Ok(()),
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = CreateImageRequest {
        instance_id: resolve::instance(client, &args.instance).await?,
        name: args.name,
        description: args.description,
        no_reboot: args.no_reboot,
        tag_specifications: image_tags(args.tags),
        ..Default::default()
    };
    let Some(image) = call!(client.compute().create_image(request))?.image else { return Ok(()) };
    if !args.wait.wait {
        return out.one(client, &image).await;
    }
    let waited = wait::for_image(client, out, &image.image_id, args.wait.timeout).await;
    out.one(client, waited.items.first().unwrap_or(&image)).await?;
    waited.outcome
}

async fn share(args: ShareArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let change = LaunchPermissionChange { add: args.with, remove: args.without };
    let request = ModifyImageAttributeRequest {
        image_id: resolve::image_id(client, &args.image).await?,
        change: Some(Change::LaunchPermission(change)),
        ..Default::default()
    };
    match call!(client.compute().modify_image_attribute(request))?.image {
        Some(image) => out.one(client, &image).await,
        None => Ok(()),
    }
}

impl Show for Image {
    const NAME: &'static str = "gureum.compute.v1.Image";
    const COLUMNS: &'static [&'static str] = &["ID", "NAME", "STATE", "ARCH", "PLATFORM", "OWNER", "PUBLIC", "CREATED"];
    const TELLS_TIME: bool = true;

    fn id(&self) -> &str {
        &self.image_id
    }

    fn row(&self, now: Option<Timestamp>) -> Vec<Cell> {
        let owner = if self.owner_alias.is_empty() { &self.owner_id } else { &self.owner_alias };
        vec![
            self.id().into(),
            (&self.name).into(),
            Cell::state(&word(self.state().as_str_name(), "IMAGE_STATE_")),
            (&self.architecture).into(),
            (&self.platform_details).into(),
            owner.into(),
            Cell::flag(self.public),
            Cell::ago(self.creation_time.as_ref(), now),
        ]
    }
}
