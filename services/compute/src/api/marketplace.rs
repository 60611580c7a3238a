//! The marketplace.

use std::sync::Arc;

use gureum_proto::compute::v1 as proto;
use gureum_service::Error;

use crate::core::Core;

not_offered! {
    describe_marketplace_listings(DescribeMarketplaceListingsRequest) -> DescribeMarketplaceListingsResponse;
    create_marketplace_listing(CreateMarketplaceListingRequest) -> CreateMarketplaceListingResponse;
    accept_marketplace_terms(AcceptMarketplaceTermsRequest) -> AcceptMarketplaceTermsResponse;
}
