//! The dependency rule of `src/`, checked: a room imports from rooms on its left, or from itself.
//!
//! A room is a module of the crate root, or one of `surfaces`. Every path that begins with `crate` or `super` counts,
//! in tests and macros as well; a re-export counts as the room that defines the item. Left of `surfaces` no word names a
//! product. The publisher has floors of its own. No public type name is defined twice in one crate.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "floors/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use source::{Crate, Path};

/// The floors, left to right. A room of a floor imports from floors on its left, from no room beside it.
const FLOORS: &[&[&str]] = &[
    &["time", "tenant", "hash", "json", "labels"],
    &["faults"],
    &["redis"],
    &["shared", "recent"],
    &["http"],
    &["records"],
    &["limits", "usage", "snapshot"],
    &["documents"],
    &["surfaces"],
    // A floor of its own for the surfaces themselves, see `floor`.
    &[],
    &["config", "metrics", "shadow"],
    &["worker"],
    &["wasm", "dynamic_module"],
];

/// The floors of the publisher, each of one room.
const PUBLISHER_FLOORS: &[&str] = &[
    "progress", "logging", "redis", "sources", "watch", "error", "commands", "cli",
];

static SOURCE: LazyLock<Crate> = LazyLock::new(|| Crate::read(""));
static PUBLISHER: LazyLock<Crate> = LazyLock::new(|| Crate::read("publisher"));

/// Products and their words, which only `surfaces` and what is right of it may say.
const PRODUCT_WORDS: &[&str] = &[
    "posthog",
    "flagsmith",
    "flagd",
    "team",
    "environment",
    "phc",
    "phs",
];

/// The products among them.
const PRODUCTS: &[&str] = &["posthog", "flagsmith", "flagd"];

/// Files of the contract that all surfaces share.
const CONTRACT: &[&str] = &["either", "reason"];

/// The room of a module: its first name, below `surfaces` the first two but for files of the contract. The crate root is no room.
fn room(module: &[String]) -> Option<String> {
    match module {
        [] => None,
        [first, second, ..] if first == "surfaces" && !CONTRACT.contains(&second.as_str()) => {
            Some(format!("{first}::{second}"))
        }
        [first, ..] => Some(first.clone()),
    }
}

/// The number of a room's floor. A surface stands right of the contract that all surfaces share.
fn floor(room: &str) -> Option<usize> {
    let place = |name: &str| FLOORS.iter().position(|rooms| rooms.contains(&name));
    match room.strip_prefix("surfaces::") {
        Some(_) => place("surfaces").map(|contract| contract + 1),
        None => place(room),
    }
}

fn assert_none(what: &str, found: BTreeSet<String>) {
    assert!(found.is_empty(), "{what}:\n{found:#?}");
}

#[test]
fn every_room_has_a_floor() {
    let rooms: BTreeSet<String> = SOURCE.modules().filter_map(room).collect();
    let homeless: Vec<_> = rooms.iter().filter(|room| floor(room).is_none()).collect();
    assert!(homeless.is_empty(), "not in FLOORS: {homeless:?}");
}

#[test]
fn imports_go_to_the_left() {
    let mut found = BTreeSet::new();
    for Path {
        file,
        module,
        names,
    } in SOURCE.paths()
    {
        let Some(from) = room(module) else { continue };
        let Some(to) = room(&SOURCE.defining_module(names)) else {
            continue;
        };
        let (Some(here), Some(there)) = (floor(&from), floor(&to)) else {
            panic!("{file}: no floor for {from} or {to}");
        };
        if from != to && there >= here {
            found.insert(format!("{file} -> {to}"));
        }
    }
    assert_none("imports to the right", found);
}

#[test]
fn left_of_the_surfaces_no_word_names_a_product() {
    let contract = floor("surfaces").unwrap();
    let mut found = BTreeSet::new();
    for file in SOURCE.files() {
        let left = room(&file.module).and_then(|room| floor(&room));
        if left.is_none_or(|floor| floor >= contract) {
            continue;
        }
        for word in words(&file.text) {
            let singular = word.strip_suffix('s').unwrap_or(&word);
            if PRODUCT_WORDS.contains(&word.as_str()) || PRODUCT_WORDS.contains(&singular) {
                found.insert(file.name.clone());
            }
        }
    }
    assert_none("names of products", found);
}

#[test]
fn no_public_type_name_is_defined_twice() {
    for (of, source) in [
        ("of the filter", &*SOURCE),
        ("of the publisher", &*PUBLISHER),
    ] {
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for name in source.public_types() {
            *places.entry(name).or_default() += 1;
        }
        let twice = places.into_iter().filter(|(_, count)| *count > 1);
        assert_none(
            &format!("public type names {of} defined twice"),
            twice.map(|(name, _)| name).collect(),
        );
    }
}

#[test]
fn rooms_of_the_publisher_import_to_the_left() {
    let floor = |module: &[String]| {
        let room = module.first()?;
        let place = PUBLISHER_FLOORS.iter().position(|name| name == room);
        Some(place.unwrap_or_else(|| panic!("not in PUBLISHER_FLOORS: {room}")))
    };
    let mut found = BTreeSet::new();
    for Path {
        file,
        module,
        names,
    } in PUBLISHER.paths()
    {
        let Some(here) = floor(module) else { continue };
        let there = floor(&PUBLISHER.defining_module(names));
        if there.is_some_and(|there| there > here) {
            found.insert(format!("{file} -> {}", names.join("::")));
        }
    }
    assert_none("imports to the right in the publisher", found);
}

#[test]
fn the_watcher_of_the_publisher_knows_the_contract_of_sources_alone() {
    let mut found = BTreeSet::new();
    for path in PUBLISHER.paths() {
        let to = PUBLISHER.defining_module(&path.names);
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let is_product = matches!(
            to.as_slice(),
            [
                "sources",
                "posthog" | "flagsmith" | "file" | "combined" | "options",
                ..
            ] | ["sources", "kinds", _, ..]
        );
        if path.module.first().is_some_and(|room| room == "watch") && is_product {
            found.insert(format!("{} -> {}", path.file, to.join("::")));
        }
    }
    assert_none("imports of a source", found);
}

#[test]
fn the_watcher_of_the_publisher_names_no_product() {
    let mut found = BTreeSet::new();
    for file in PUBLISHER.files() {
        // Its unit tests need records of somebody.
        let code = file.text.split("#[cfg(test)]").next().unwrap_or_default();
        let named = words(code);
        let is_named = PRODUCTS.iter().any(|product| named.contains(*product));
        if is_named && file.module.first().is_some_and(|room| room == "watch") {
            found.insert(file.name.clone());
        }
    }
    assert_none("names of products", found);
}

/// The words of a text in lower case; `Tenant` and `team_id` are two each.
fn words(text: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut word = String::new();
    let mut lower_before = false;
    for character in text.chars().chain([' ']) {
        let begins = character.is_ascii_uppercase() && lower_before;
        if (begins || !character.is_ascii_alphabetic()) && !word.is_empty() {
            words.insert(std::mem::take(&mut word));
        }
        if character.is_ascii_alphabetic() {
            word.push(character.to_ascii_lowercase());
        }
        lower_before = character.is_ascii_lowercase();
    }
    words
}

#[test]
fn words_are_told_apart() {
    let expected = ["id", "phc", "team", "teams", "token"].map(str::to_owned);
    assert_eq!(words("TeamId team_id: TEAMS, phc_token"), expected.into());
}
