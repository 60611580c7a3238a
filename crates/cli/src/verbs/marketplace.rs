//! The marketplace's part of `gureum images`.

use clap::Args as ClapArgs;
use gureum_proto::compute::v1::{
    AcceptMarketplaceTermsRequest, CreateMarketplaceListingRequest, DescribeMarketplaceListingsRequest, MarketplaceListing,
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

/// Bytes of the terms that are read from a file at most: what the contract takes.
const MAX_TERMS_BYTES: u64 = 64 << 10;

#[derive(Debug, ClapArgs)]
pub struct SellArgs {
    /// Image, by id or name
    image: String,
    /// Name of the product
    #[arg(long)]
    title: String,
    /// What a buyer has to accept: a text, or @FILE
    #[arg(long)]
    terms: String,
    /// What it is
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    description: String,
    /// The price in words; free if not given
    #[arg(long, default_value = "", hide_default_value = true)]
    price: String,
}

pub async fn list(list: ListArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = DescribeMarketplaceListingsRequest { filters: list.filters, ..Default::default() };
    let listings: Vec<MarketplaceListing> = pages!(client.compute().describe_marketplace_listings(request).listings, list.limit)?;
    out.list(client, &listings).await
}

pub async fn sell(args: SellArgs, client: &Client, out: &Output) -> Result<(), Failure> {
    let terms = String::from_utf8(parse::content(&args.terms, MAX_TERMS_BYTES)?);
    let request = CreateMarketplaceListingRequest {
        image_id: resolve::image_id(client, &args.image).await?,
        title: args.title,
        description: args.description,
        terms: terms.map_err(|_| Failure::usage("the terms are not UTF-8 text"))?,
        price: args.price,
        ..Default::default()
    };
    shown(call!(client.compute().create_marketplace_listing(request))?.listing, client, out).await
}

pub async fn accept(product_code: String, client: &Client, out: &Output) -> Result<(), Failure> {
    let request = AcceptMarketplaceTermsRequest { product_code, ..Default::default() };
    shown(call!(client.compute().accept_marketplace_terms(request))?.listing, client, out).await
}

async fn shown(listing: Option<MarketplaceListing>, client: &Client, out: &Output) -> Result<(), Failure> {
    match listing {
        Some(listing) => out.one(client, &listing).await,
        None => Ok(()),
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
