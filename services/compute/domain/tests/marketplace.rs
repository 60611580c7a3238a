//! The marketplace: listing, accepting, and launching.

mod common;

use std::collections::BTreeSet;

use common::{NOW, lookups, planned, spec};
use gureum_compute_domain::{
    image::{Change, Image, ImageSource, modify, permission, permission::Grantee, shipped},
    launch_check::Lookups,
    marketplace::{Acceptance, Listing, NewListing, ProductCode, accept, list, terms_missing},
    volume::Decision,
};
use gureum_model::{
    AccountId, Filter, Filterable, Filters, IdSource, Refusal, RefusalKind, Region, Scope,
    id::{ImageId, ResourceId},
};
use proptest::prelude::*;

fn scope(account: u64) -> Scope {
    Scope { account: AccountId::from_number(account).expect("an account"), ..Scope::default() }
}

/// Account 1's own.
fn image() -> Image {
    let ships = shipped::images(&Region::default()).remove(0);
    Image {
        scope: scope(1),
        id: ImageId::from_number(1),
        source: ImageSource::Registered,
        permissions: permission::Permissions::default(),
        ..ships
    }
}

fn words() -> NewListing {
    NewListing { title: "Shop".to_owned(), terms: "Be kind.".to_owned(), ..NewListing::default() }
}

fn new_code(seed: u64) -> ProductCode {
    ProductCode::new(&IdSource::seeded(seed))
}

fn listed() -> (Listing, Image) {
    list(&image(), &scope(1), &words(), new_code(1), NOW).expect("the owner may")
}

fn code(refusal: impl Into<Refusal>) -> (RefusalKind, &'static str) {
    let refusal = refusal.into();
    (refusal.kind, refusal.reason)
}

#[test]
fn a_listing_shows_its_image_to_all() {
    let (listing, image) = listed();
    assert_eq!(
        (image.owner_alias(), image.product_codes.as_slice()),
        (Some("aws-marketplace"), [listing.product_code.to_string()].as_slice())
    );
    assert!(image.visible_to(&scope(9)));
    let elsewhere = Scope { region: "eu-west-1".parse().expect("a region"), ..scope(9) };
    assert!(!image.visible_to(&elsewhere) && !listing.visible_to(&elsewhere));
    assert_eq!(
        list(&image, &scope(1), &words(), new_code(2), NOW).map_err(code).err(),
        Some((RefusalKind::WrongState, "OperationNotPermitted"))
    );
}

#[test]
fn listing_is_refused_with_ec2s_codes() {
    let refused = |image: &Image, seller: u64, new: &NewListing| list(image, &scope(seller), new, new_code(1), NOW).map_err(code).err();
    assert_eq!(refused(&image(), 2, &words()), Some((RefusalKind::NotFound, "InvalidAMIID.NotFound")));
    let public = permission::Change { add: vec![Grantee::All], remove: Vec::new() };
    let public = modify(&image(), &scope(1), &Change::Permissions(public)).expect("the owner may").after(&image()).expect("kept");
    assert_eq!(refused(&public, 2, &words()), Some((RefusalKind::Denied, "AuthFailure")));
    let bad = NewListing { title: " ".to_owned(), terms: "x".repeat(16_385), price: "x".repeat(256), ..NewListing::default() };
    let refusal = list(&image(), &scope(1), &bad, new_code(1), NOW).expect_err("three are bad");
    let fields: Vec<_> = refusal.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["terms", "price", "title"]);
}

#[test]
fn a_launch_needs_the_terms_accepted() {
    let (listing, image) = listed();
    let missing =
        |account: u64, acceptance: Option<&Acceptance>| terms_missing(&image, scope(account).account, |_| Some(&listing), |_| acceptance);
    assert_eq!((missing(1, None), missing(2, None)), (None, Some(listing.product_code.to_string())));
    let launch = |terms| planned(&spec(), 1, 1, Lookups { image: Some(image.facts(terms)), ..lookups() }).map_err(code);
    assert_eq!(launch(missing(2, None)).err(), Some((RefusalKind::Denied, "OptInRequired")));
    let Ok(Decision::Change(acceptance)) = accept(&listing.product_code, Some(&listing), &scope(2), None, NOW) else { panic!("it is new") };
    assert!(launch(missing(2, Some(&acceptance))).is_ok());
    assert_eq!(accept(&listing.product_code, Some(&listing), &scope(2), Some(&acceptance), NOW), Ok(Decision::Unchanged));
    assert_eq!(accept(&listing.product_code, Some(&listing), &scope(1), None, NOW), Ok(Decision::Unchanged));
    assert_eq!(
        accept(&listing.product_code, None, &scope(2), None, NOW).map_err(code).err(),
        Some((RefusalKind::NotFound, "InvalidProductInfo"))
    );
    let copy = Image { listed: false, scope: scope(2), ..image.clone() };
    assert!(terms_missing(&copy, scope(2).account, |_| Some(&listing), |_| None).is_some(), "a copy carries the product");
}

#[test]
fn filters_and_stored_form() {
    let (listing, _) = listed();
    let pass = |name: &str, value: &str| {
        let filters = Filters::for_kind::<Listing>(vec![Filter { name: name.to_owned(), values: vec![value.to_owned()] }]);
        filters.expect("a known filter").pass(&listing)
    };
    assert!(pass("title", "Sh*") && pass("seller-id", "000000000001") && !pass("product-code", "x"));
    assert!(Listing::FILTER_NAMES.iter().all(|name| !listing.filter_values(name).is_empty()));
    let bytes = rmp_serde::to_vec_named(&listing).expect("a listing is stored");
    assert_eq!(rmp_serde::from_slice::<Listing>(&bytes).ok(), Some(listing));
}

proptest! {
    #[test]
    fn codes_are_read_as_they_are_written(seed in any::<u64>(), text in ".{0,30}") {
        let fresh = new_code(seed);
        prop_assert_eq!(fresh.to_string().parse::<ProductCode>(), Ok(fresh));
        if let Ok(read) = text.parse::<ProductCode>() {
            prop_assert_eq!(read.to_string(), text);
        }
    }

    /// Who has accepted, and the seller, may launch; a set is the model.
    #[test]
    fn acceptances_are_each_accounts_own(buyers in prop::collection::vec(1u64..6, 0..12)) {
        let (listing, image) = listed();
        let (mut acceptances, mut model): (Vec<Acceptance>, _) = (Vec::new(), BTreeSet::from([1]));
        for buyer in buyers {
            let existing = acceptances.iter().find(|it| it.scope == scope(buyer)).cloned();
            let decision = accept(&listing.product_code, Some(&listing), &scope(buyer), existing.as_ref(), NOW);
            match decision.map_err(|error| TestCaseError::fail(error.to_string()))? {
                Decision::Change(acceptance) => {
                    prop_assert!(model.insert(buyer));
                    acceptances.push(acceptance);
                }
                Decision::Unchanged => prop_assert!(model.contains(&buyer)),
                Decision::Remove => prop_assert!(false, "nothing is removed"),
            }
            for account in 1..6 {
                let own = acceptances.iter().find(|it| it.scope == scope(account));
                let missing = terms_missing(&image, scope(account).account, |_| Some(&listing), |_| own);
                prop_assert_eq!(missing.is_none(), model.contains(&account));
            }
        }
    }
}
