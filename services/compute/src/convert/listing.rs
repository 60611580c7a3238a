//! Marketplace listings as users see them.

use gureum_compute_domain::marketplace::Listing;
use gureum_proto::compute::v1 as proto;
use gureum_service::wire;

pub fn shown(it: &Listing, accepted: bool) -> proto::MarketplaceListing {
    proto::MarketplaceListing {
        product_code: it.product_code.to_string(),
        seller_id: it.scope.account.to_string(),
        title: it.title.clone(),
        description: it.description.clone(),
        terms: it.terms.clone(),
        image_id: it.image_id.to_string(),
        price: it.price.clone(),
        create_time: Some(wire::timestamp(it.create_time)),
        accepted,
    }
}
