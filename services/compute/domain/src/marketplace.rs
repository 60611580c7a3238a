//! The marketplace: images that an account offers to all others, under terms to accept first.
//!
//! A listing makes its image visible to every account of the region. Launching it, or an image made of one of its
//! instances, is refused with `OptInRequired` until the account has accepted the terms.

use std::{borrow::Cow, fmt, str::FromStr};

use gureum_model::{AccountId, Filterable, IdSource, Refusal, RefusalKind, Scope, Tags, Timestamp, id::ImageId, refusal::Violations};
use serde::{Deserialize, Serialize};

use crate::{
    image::{Image, ImageError, ImageState, check_owner},
    volume::Decision,
};

/// Characters of a product code, as EC2's have.
const CODE_CHARS: usize = 25;
/// Characters of a title at most.
pub const MAX_TITLE_CHARS: usize = 128;
/// Characters of a description at most.
pub const MAX_DESCRIPTION_CHARS: usize = 1024;
/// Characters of the terms at most: enough for a licence, small enough for a message.
pub const MAX_TERMS_CHARS: usize = 16_384;
/// Characters of the price in words at most.
pub const MAX_PRICE_CHARS: usize = 255;

/// Which product: 25 lower-case letters and digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProductCode(String);

impl ProductCode {
    /// A new one that nobody has.
    pub fn new(ids: &IdSource) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut number = ids.next_number();
        let code = (0..CODE_CHARS).map(|_| {
            // The remainder is below 36.
            let digit = usize::try_from(number % 36).unwrap_or_default();
            number /= 36;
            char::from(DIGITS[digit])
        });
        Self(code.collect())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProductCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ProductCode {
    type Err = MarketplaceError;

    fn from_str(text: &str) -> Result<Self, MarketplaceError> {
        let plain = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
        if text.len() == CODE_CHARS && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(MarketplaceError::Malformed { text: text.to_owned() })
        }
    }
}

/// What an account offers. Stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// The seller's.
    pub scope: Scope,
    pub product_code: ProductCode,
    pub title: String,
    pub description: String,
    /// What a buyer has to accept.
    pub terms: String,
    pub image_id: ImageId,
    /// In words; empty if it is free.
    pub price: String,
    pub create_time: Timestamp,
    pub tags: Tags,
}

/// An account's acceptance of a listing's terms. Stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptance {
    /// The buyer's.
    pub scope: Scope,
    pub product_code: ProductCode,
    pub since: Timestamp,
}

/// What a seller says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewListing {
    pub title: String,
    pub description: String,
    pub terms: String,
    pub price: String,
    pub tags: Tags,
}

/// Lists an image; the image's next record comes with it.
///
/// Errors: `InvalidAMIID.NotFound`, `AuthFailure` (another account's, or shipped), `InvalidAMIID.Unavailable` (not
/// available), `OperationNotPermitted` (listed already, or another's product in it), `MissingParameter`,
/// `InvalidParameterValue`.
pub fn list(image: &Image, seller: &Scope, new: &NewListing, code: ProductCode, now: Timestamp) -> Result<(Listing, Image), Refusal> {
    check_owner(image, seller)?;
    match &image.state {
        ImageState::Available { .. } => {}
        ImageState::Pending { .. } | ImageState::Failed { .. } | ImageState::Deregistered { .. } => {
            return Err(ImageError::NotAvailable { id: image.id, state: image.state.as_str() }.into());
        }
    }
    if let Some(other) = image.product_codes.first() {
        return Err(MarketplaceError::Taken { image: image.id, code: other.clone() }.into());
    }
    check_texts(new)?;
    let listing = Listing {
        scope: seller.clone(),
        product_code: code.clone(),
        title: new.title.clone(),
        description: new.description.clone(),
        terms: new.terms.clone(),
        image_id: image.id,
        price: new.price.clone(),
        create_time: now,
        tags: new.tags.clone(),
    };
    Ok((listing, Image { listed: true, product_codes: vec![code.0], ..image.clone() }))
}

fn check_texts(new: &NewListing) -> Result<(), Refusal> {
    let mut violations = Violations::new();
    let texts = [
        ("title", &new.title, MAX_TITLE_CHARS),
        ("description", &new.description, MAX_DESCRIPTION_CHARS),
        ("terms", &new.terms, MAX_TERMS_CHARS),
        ("price", &new.price, MAX_PRICE_CHARS),
    ];
    for (field, text, most) in texts {
        let chars = text.chars().count();
        if chars > most {
            violations.add(field, format!("the {field} has {chars} characters, more than {most}"));
        }
    }
    for (field, text) in [("title", &new.title), ("terms", &new.terms)] {
        if text.trim().is_empty() {
            violations.check("", Err::<(), _>(Refusal::missing(field)));
        }
    }
    violations.finish()
}

impl Listing {
    /// Whether this account in this region sees it: every one does.
    pub fn visible_to(&self, viewer: &Scope) -> bool {
        self.scope.region == viewer.region
    }

    /// Whether this account may launch it: the seller may, and whoever has accepted the terms.
    pub fn accepted_by(&self, account: AccountId, acceptance: Option<&Acceptance>) -> bool {
        self.scope.account == account || acceptance.is_some_and(|it| it.product_code == self.product_code && it.scope.account == account)
    }
}

/// Accepts the terms of a listing. Who has accepted them, or sells it, has nothing to do.
///
/// `found` is the listing, `existing` the caller's acceptance. Errors: `InvalidProductInfo`.
pub fn accept(
    code: &ProductCode,
    found: Option<&Listing>,
    buyer: &Scope,
    existing: Option<&Acceptance>,
    now: Timestamp,
) -> Result<Decision<Acceptance>, MarketplaceError> {
    let listing = found.filter(|listing| listing.visible_to(buyer)).ok_or_else(|| MarketplaceError::NotFound { code: code.clone() })?;
    if listing.accepted_by(buyer.account, existing) {
        return Ok(Decision::Unchanged);
    }
    Ok(Decision::Change(Acceptance { scope: buyer.clone(), product_code: listing.product_code.clone(), since: now }))
}

/// The first product in an image whose terms this account has still to accept.
///
/// `listing` and `acceptance` look up by product code, the latter for this account. A product whose listing is gone
/// asks for nothing.
pub fn terms_missing<'a>(
    image: &Image,
    account: AccountId,
    listing: impl Fn(&str) -> Option<&'a Listing>,
    acceptance: impl Fn(&str) -> Option<&'a Acceptance>,
) -> Option<String> {
    let open = |code: &&String| listing(code).is_some_and(|listing| !listing.accepted_by(account, acceptance(code)));
    image.product_codes.iter().find(open).cloned()
}

impl Filterable for Listing {
    const FILTER_NAMES: &'static [&'static str] = &["image-id", "product-code", "seller-id", "title"];

    fn filter_values(&self, name: &str) -> Vec<Cow<'_, str>> {
        match name {
            "image-id" => vec![self.image_id.to_string().into()],
            "product-code" => vec![self.product_code.as_str().into()],
            "seller-id" => vec![self.scope.account.to_string().into()],
            "title" => vec![self.title.as_str().into()],
            _ => Vec::new(),
        }
    }

    fn filter_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

/// Why a call on the marketplace was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MarketplaceError {
    #[error("the product code '{code}' is not valid; DescribeMarketplaceListings lists all")]
    NotFound { code: ProductCode },
    #[error("\"{text}\" is no product code: expected {CODE_CHARS} lower-case letters and digits")]
    Malformed { text: String },
    #[error("the image '{image}' has the product '{code}' in it already and cannot be listed again")]
    Taken { image: ImageId, code: String },
}

impl From<MarketplaceError> for Refusal {
    fn from(error: MarketplaceError) -> Self {
        let text = error.to_string();
        match error {
            MarketplaceError::NotFound { .. } => Self::new(RefusalKind::NotFound, "InvalidProductInfo", text),
            MarketplaceError::Malformed { .. } => Self::invalid_as("InvalidProductInfo", "product_code", text),
            MarketplaceError::Taken { .. } => Self::wrong_state("OperationNotPermitted", text).of_field("image_id"),
        }
    }
}
