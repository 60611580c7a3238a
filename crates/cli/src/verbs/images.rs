//! `gureum images`: what instances are launched from.

use clap::{Args as ClapArgs, Subcommand};
use gureum_proto::{
    common::v1::Tag,
    compute::v1::{
        AcceptMarketplaceTermsRequest, CreateImageRequest, DeregisterImageRequest, DescribeImagesRequest,
        DescribeMarketplaceListingsRequest, Image, LaunchPermissionChange, MarketplaceListing, ModifyImageAttributeRequest, Permission,
        TagSpecification, modify_image_attribute_request::Change,
    },
};

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
        Verb::Marketplace(list) => {
            let request = DescribeMarketplaceListingsRequest { filters: list.filters, ..Default::default() };
            let listings: Vec<MarketplaceListing> = pages!(client.compute().describe_marketplace_listings(request).listings, list.limit)?;
            out.list(client, &listings).await
        }
        Verb::Accept { product } => {
            let request = AcceptMarketplaceTermsRequest { product_code: product, ..Default::default() };
            match call!(client.compute().accept_marketplace_terms(request))?.listing {
                Some(listing) => out.one(client, &listing).await,
                None => Ok(()),
            }
        }
    }
}

async fn create(args: CreateArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let tag_specifications =
        if args.tags.is_empty() { Vec::new() } else { vec![TagSpecification { resource_type: "image".to_owned(), tags: args.tags }] };
    let request = CreateImageRequest {
        instance_id: resolve::instance(client, &args.instance).await?,
        name: args.name,
        description: args.description,
        no_reboot: args.no_reboot,
        tag_specifications,
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

impl Show for MarketplaceListing {
    const NAME: &'static str = "gureum.compute.v1.MarketplaceListing";
    const COLUMNS: &'static [&'static str] = &["PRODUCT", "TITLE", "IMAGE", "SELLER", "PRICE", "ACCEPTED"];

    fn id(&self) -> &str {
        &self.product_code
    }

    fn row(&self, _now: Option<Timestamp>) -> Vec<Cell> {
        let price = if self.price.is_empty() { "free" } else { &self.price };
        vec![
            self.id().into(),
            (&self.title).into(),
            (&self.image_id).into(),
            (&self.seller_id).into(),
            price.into(),
            Cell::flag(self.accepted),
        ]
    }
}
