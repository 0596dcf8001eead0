//! Entity tags: of content alone.

use serde_json::json;

use super::support::{Defined, NOW, context, recorded};
use crate::surfaces::ofrep::flagd::{Fractional, Selector};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn mobile() -> Selector {
    Selector::FlagSet("mobile".to_owned())
}

/// Documents with other sets come in any order, and flags of a document, too.
#[test]
fn tags_do_not_depend_on_an_order_of_arrival() {
    let documents = recorded()["documents"].as_array().unwrap().clone();
    let asked = context(&json!({"targetingKey": "ann", "os": "ios"}));
    let tags = |list: Vec<serde_json::Value>| {
        let flags = Defined::new(&json!(list), Fractional::V2);
        let selectors = [
            mobile(),
            Selector::FlagSet("shop".to_owned()),
            Selector::FlagSet(String::new()),
            Selector::Source("plain.json".into()),
        ];
        selectors.map(|selector| flags.tag(&selector, &asked, NOW))
    };
    let [shop, other, plain] = documents.as_slice() else {
        panic!("three documents")
    };
    let first = tags(documents.clone());
    assert_eq!(
        tags(vec![plain.clone(), other.clone(), shop.clone()]),
        first
    );
    let mut reversed = other.clone();
    reversed["document"]["flags"]
        .as_array_mut()
        .unwrap()
        .reverse();
    assert_eq!(tags(vec![shop.clone(), reversed, plain.clone()]), first);
}

#[test]
fn tags_name_all_that_an_answer_rests_on() {
    let flags = Defined::recorded();
    let asked = context(&json!({"targetingKey": "ann"}));
    let tag = flags.tag(&mobile(), &asked, NOW);
    assert_eq!(tag.as_bytes().len(), 32);
    let newer = Defined::new(&recorded()["documents"], Fractional::V3);
    let source = Selector::Source("mobile.json".to_owned());
    for other in [
        newer.tag(&mobile(), &asked, NOW),
        flags.tag(&source, &asked, NOW),
        flags.tag(&mobile(), &context(&json!({"targetingKey": "bob"})), NOW),
        flags.tag(&mobile(), &context(&json!({})), NOW),
    ] {
        assert_ne!(other, tag);
    }
    // Unknown selections are all empty, and are told apart by what was asked.
    let unknown = |id: &str| flags.tag(&Selector::FlagSet(id.to_owned()), &asked, NOW);
    assert_ne!(unknown("x"), unknown("y"));
}

#[test]
fn what_reads_the_time_is_tagged_by_its_answer() {
    let flag = |timestamp: &str| {
        let targeting = json!({"if": [{">": [{"var": timestamp}, NOW]}, "late", "early"]});
        let document =
            json!({"flags": {"k": {"variants": {"late": 1, "early": 2}, "targeting": targeting}}});
        Defined::new(
            &json!([{"source": "s", "document": document}]),
            Fractional::V2,
        )
    };
    let asked = context(&json!({}));
    let tags =
        |flags: &Defined| [NOW - 1, NOW, NOW + 1].map(|now| flags.tag(&Selector::All, &asked, now));
    let marked = flag("$flagd.timestamp");
    assert!(marked.selection(&Selector::All).reads_time());
    let [before, at, after] = tags(&marked);
    assert_eq!(before, at, "equal answers have equal tags");
    assert_ne!(at, after);
    let unmarked = flag("timestamp");
    assert!(!unmarked.selection(&Selector::All).reads_time());
    let [before, _, after] = tags(&unmarked);
    assert_eq!(before, after);
}
