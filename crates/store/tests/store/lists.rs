//! Lists against a plain model: pages, filters and indexes give the same rows in the same order.

use std::collections::BTreeMap;

use gureum_model::{AccountId, Filter, Filters, PageRequest, Region, Scope, Tags, id::ResourceId};
use gureum_store::{MemoryEngine, list, list::get_all};
use proptest::prelude::*;

use crate::support::{Item, ItemId, ItemRow, item, open};

const NAMES: [&str; 5] = ["web", "web-1", "db", "a*b", ""];
const COLORS: [&str; 3] = ["red", "green", "blue"];

fn scope(number: u8) -> Scope {
    let account = AccountId::from_number(number as u64 / 2).unwrap();
    // The second name begins with the first, and so would its rows in a careless scan.
    let region: Region = ["us-east-1", "us-east-11"][number as usize % 2].parse().unwrap();
    Scope { account, region }
}

fn any_item() -> impl Strategy<Value = Item> {
    let tags = prop::collection::btree_map("[ab=]{1,2}", "[ab=]{0,2}", 0..3);
    (0..4u8, 0..40u64, 0..NAMES.len(), prop::sample::subsequence(COLORS.to_vec(), 0..3), tags, 0..3usize).prop_map(
        |(place, number, name, colors, tags, size)| Item {
            scope: scope(place),
            name: NAMES[name].to_owned(),
            colors: colors.into_iter().map(str::to_owned).collect(),
            tags: Tags(tags),
            body: vec![b'x'; size],
            ..item(number)
        },
    )
}

fn any_filter() -> impl Strategy<Value = Filter> {
    let of = |name: &'static str, values: Vec<&'static str>| {
        prop::collection::vec(prop::sample::select(values), 1..4).prop_map(move |values| (name.to_owned(), values))
    };
    let fixed = prop_oneof![
        of("name", vec!["web", "web*", "db", "a\\*b", "a*b", "?b", "none"]),
        of("color", vec!["red", "green", "blue", "*", "gr?en", "none"]),
        of("size", vec!["0", "1", "2"]),
        of("tag-key", vec!["a", "b", "a*"]),
    ]
    .prop_map(|(name, values)| Filter { name, values: values.into_iter().map(str::to_owned).collect() });
    let tag =
        ("[ab=]{1,2}", prop::collection::vec("[ab=*]{0,2}", 1..3)).prop_map(|(key, values)| Filter { name: format!("tag:{key}"), values });
    prop_oneof![3 => fixed, 1 => tag]
}

async fn check(items: Vec<Item>, filters: Filters, size: i32, place: u8) {
    let store = open(MemoryEngine);
    let rows = items.clone();
    let put = store.write(move |transaction| {
        rows.into_iter().for_each(|item| transaction.put(ItemRow(item)));
        Ok::<_, ()>(())
    });
    put.await.unwrap();
    let model: BTreeMap<(Scope, ItemId), Item> = items.into_iter().map(|item| ((item.scope.clone(), item.id), item)).collect();
    let scope = scope(place);
    let expected: Vec<&Item> = model.values().filter(|item| item.scope == scope && filters.pass(*item)).collect();

    let state = store.read();
    let question = ("ListItems", &scope, &filters);
    let (mut found, mut token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = PageRequest::new(size, &token, &question).unwrap();
        let (rows, next) = list(&state.items, &scope, &filters, &page);
        assert!(rows.len() <= size as usize);
        assert!(rows.len() == size as usize || next.is_empty(), "a page that is not the last is not full");
        found.extend(rows.into_iter().map(|row| row.record.0.clone()));
        pages += 1;
        if next.is_empty() {
            break;
        }
        assert!(PageRequest::new(size, &next, &("ListItems", &scope, "other filters")).is_err());
        token = next;
    }
    assert!(found.iter().eq(expected));
    assert_eq!(pages, found.len().div_ceil(size as usize).max(1), "there was an empty page");
}

/// Between two pages rows come and go: what stays is listed once, whatever happens around it.
async fn check_while_changing(changes: Vec<(u64, bool)>, size: i32) {
    let store = open(MemoryEngine);
    let stays = |number: u64| number.is_multiple_of(2);
    let put = |numbers: Vec<(u64, bool)>| {
        store.write(move |transaction| {
            for (number, there) in numbers {
                if there {
                    transaction.put(ItemRow(Item { colors: vec!["red".into()], ..item(number) }));
                } else {
                    transaction.delete::<ItemRow>(&<ItemRow as gureum_store::Listed>::list_key(&Scope::default(), item(number).id));
                }
            }
            Ok::<_, ()>(())
        })
    };
    put((0..40).map(|number| (number, true)).collect()).await.unwrap();
    let filters = Filters::for_kind::<Item>(vec![Filter { name: "color".into(), values: vec!["red".into()] }]).unwrap();
    let (mut found, mut token, mut changes) = (Vec::new(), String::new(), changes.chunks(3));
    loop {
        let page = PageRequest::new(size, &token, &"question").unwrap();
        let (rows, next) = list(&store.read().items, &Scope::default(), &filters, &page);
        found.extend(rows.into_iter().map(|row| row.record.0.id.number() as u64));
        token = next;
        if token.is_empty() {
            break;
        }
        let some = changes.next().unwrap_or_default().iter().copied().filter(|(number, _)| !stays(*number));
        put(some.collect()).await.unwrap();
    }
    assert!(found.is_sorted_by(|one, other| one < other), "the order is not stable");
    assert!(found.into_iter().filter(|number| stays(*number)).eq((0..40).filter(|number| stays(*number))));
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_list_is_what_the_model_has(
        items in prop::collection::vec(any_item(), 0..60),
        filters in prop::collection::vec(any_filter(), 0..3),
        size in 1..9i32,
        place in 0..4u8,
    ) {
        block_on(check(items, Filters::for_kind::<Item>(filters).unwrap(), size, place));
    }

    #[test]
    fn a_list_is_stable_while_rows_come_and_go(changes in prop::collection::vec((0..50u64, any::<bool>()), 0..60), size in 1..9i32) {
        block_on(check_while_changing(changes, size));
    }
}

#[tokio::test]
async fn rows_by_id_are_in_order_and_a_missing_one_is_named() {
    let store = open(MemoryEngine);
    let put = store.write(|transaction| {
        [1, 2, 3].into_iter().for_each(|number| transaction.put(ItemRow(item(number))));
        Ok::<_, ()>(())
    });
    put.await.unwrap();
    let ids = |numbers: &[u64]| numbers.iter().map(|number| item(*number).id).collect::<Vec<_>>();
    let state = store.read();
    let found = get_all(&state.items, &Scope::default(), "item_ids", &ids(&[3, 1, 3])).unwrap();
    assert!(found.iter().map(|row| row.record.0.id).eq(ids(&[1, 3])));
    let refusal = get_all(&state.items, &Scope::default(), "item_ids", &ids(&[1, 9])).unwrap_err();
    assert_eq!(refusal.reason, "InvalidItem.NotFound");
    assert!(refusal.message.contains(&item(9).id.to_string()));
    assert_eq!(refusal.violations.iter().map(|it| it.field.as_str()).collect::<Vec<_>>(), ["item_ids[1]"]);
}
