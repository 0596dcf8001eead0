//! What documents define together.

use std::collections::BTreeMap;

use super::FlagdDocument;
use super::flag::{DefinedFlag, json};
use crate::surfaces::ofrep::flagd::selector::Selector;
use crate::surfaces::ofrep::flagd::value::JsonValue;

/// The text of each selection that has a flag, and that of all flags in any case. Of documents with the same flag (set and key)
/// the last one counts. Flags come by set and key in the order of their bytes, those of no set first. A text depends on what it
/// says alone; its SHA-256 is its version. It begins with the selector's own text, so no selection passes for another one.
///
/// Where a selection has a key in several sets, it has one of them: of all flags that of the last document, and of its last set;
/// of the flags of a source that of its first set.
pub fn selections(documents: &[FlagdDocument]) -> BTreeMap<Selector, String> {
    let mut winners: BTreeMap<(&str, &str), (usize, &DefinedFlag)> = BTreeMap::new();
    for (priority, document) in documents.iter().enumerate() {
        for flag in &document.flags {
            winners.insert((&flag.flag_set, &flag.key), (priority, flag));
        }
    }
    let source = |priority: usize| {
        documents
            .get(priority)
            .map_or("", |document| &document.source)
    };
    let mut chosen: BTreeMap<Selector, BTreeMap<&str, (usize, &DefinedFlag)>> = BTreeMap::new();
    chosen.insert(Selector::All, BTreeMap::new());
    for (priority, flag) in winners.into_values() {
        let key = flag.key.as_str();
        let all = chosen.entry(Selector::All).or_default();
        let own = all.entry(key).or_insert((priority, flag));
        if own.0 <= priority {
            *own = (priority, flag);
        }
        let set = Selector::FlagSet(flag.flag_set.clone());
        chosen.entry(set).or_default().insert(key, (priority, flag));
        let of_source = Selector::Source(source(priority).to_owned());
        chosen
            .entry(of_source)
            .or_default()
            .entry(key)
            .or_insert((priority, flag));
    }
    let written = |(selector, flags): (Selector, BTreeMap<&str, (usize, &DefinedFlag)>)| {
        let mut flags: Vec<&DefinedFlag> = flags.into_values().map(|(_, flag)| flag).collect();
        flags.sort_by_key(|flag| (&flag.flag_set, &flag.key));
        let source = match &selector {
            Selector::Source(source) => Some(source.as_str()),
            _ => None,
        };
        let flags: Vec<String> = flags.iter().map(|flag| flag.text(source)).collect();
        let name = json(&JsonValue::text(&selector.text()));
        let text = format!("{{\"selector\":{name},\"flags\":[{}]}}", flags.join(","));
        (selector, text)
    };
    chosen.into_iter().map(written).collect()
}
