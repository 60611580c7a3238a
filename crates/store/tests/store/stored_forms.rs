//! Files of stored forms: recorded from a store, read back, and what is said of rows that changed.

use std::convert::Infallible;

use gureum_store::stored_forms::{faults, record};

use crate::support::{Counter, ItemRow, Schema, engine, fast_folder, item, open};

/// The counter "a" with the value 1, of revision 1: format, revision, and a map of two fields.
const COUNTER: &str = "counter a 0100010000000000000082a46e616d65a161a576616c756501";

fn told(file: &str) -> String {
    faults::<Schema>(file).join("\n")
}

#[tokio::test]
async fn what_is_recorded_of_a_store_is_read_and_written_as_it_is() {
    let folder = fast_folder();
    let store = open(engine(folder.path(), 1 << 20));
    for number in [1, 2] {
        let written = store.write(move |transaction| -> Result<(), Infallible> {
            transaction.put(ItemRow(item(number * 1000)));
            transaction.put(Counter { name: "a".into(), value: number });
            Ok(())
        });
        written.await.unwrap();
    }
    // Also of rows that are gone.
    let gone = store.write(|transaction| -> Result<(), Infallible> {
        transaction.delete::<Counter>("a");
        Ok(())
    });
    gone.await.unwrap();
    drop(store);
    drop(engine(folder.path(), 1));
    let forms = record(folder.path()).unwrap();
    assert_eq!(forms.keys().collect::<Vec<_>>(), ["counter", "item"]);
    assert_eq!(told(&forms.into_values().collect::<Vec<_>>().join("\n")), "");
}

#[test]
fn a_row_that_is_no_longer_read_or_written_so_is_told_with_what_to_do() {
    let missing = told(COUNTER);
    assert!(missing.contains("no row of the table item") && !missing.contains("counter"), "{missing}");
    // Without the field "value".
    let unread = told("counter a 0100010000000000000081a46e616d65a161");
    assert!(unread.contains("missing field `value`") && unread.contains("Record::upgrade"), "{unread}");
    // With a field that is read over: three fields, the last "more" with the value 1.
    let other = "counter a 0100010000000000000083a46e616d65a161a576616c756501a46d6f726501";
    assert!(told(other).contains("the row a is read, but written in another form"), "{}", told(other));
    // Which is as it should be for a row that an earlier version wrote, if there is one of today too.
    assert!(!told(&format!("older {other}\n{COUNTER}")).contains("counter"));
    assert!(told(&format!("older {COUNTER}")).contains("no row of the table counter"));
    assert!(told("counter a 01zz").contains("is no row"));
    assert!(told("ham a 01").contains("table ham"));
}
