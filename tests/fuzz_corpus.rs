//! The corpora of the fuzz targets: what must hold for any bytes holds for these, without a fuzzer.
#![allow(clippy::unwrap_used, missing_docs)]
#![cfg(not(target_arch = "wasm32"))]

use std::path::Path;

#[path = "../fuzz/src/lib.rs"]
mod properties;

type Property = fn(&[u8]) -> bool;

/// Runs all files of a corpus. Each property must accept and refuse some of them: a corpus that is refused as a
/// whole has been left behind by its format.
fn replay(corpus: &str, properties: &[(&str, Property)]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(corpus);
    let (mut accepted, mut files) = (vec![0; properties.len()], 0);
    for file in folder.read_dir().unwrap() {
        let path = file.unwrap().path();
        // Shown when the test fails: the last one is it.
        println!("{}", path.display());
        let bytes = std::fs::read(&path).unwrap();
        for ((_, property), accepted) in properties.iter().zip(&mut accepted) {
            *accepted += usize::from(property(&bytes));
        }
        files += 1;
    }
    for ((name, _), accepted) in properties.iter().zip(accepted) {
        assert!(
            (1..files).contains(&accepted),
            "{name}: {accepted} of {files} accepted"
        );
    }
}

#[test]
fn values() {
    replay(
        "value",
        &[("value", properties::value), ("gzip", properties::gzip)],
    );
}

#[test]
fn replies() {
    replay("resp", &[("resp", properties::resp)]);
}

#[test]
fn requests() {
    replay("request", &[("request", properties::request)]);
}

#[test]
fn snapshots() {
    replay(
        "snapshot",
        &[
            ("manifest", properties::manifest),
            ("page", properties::page),
            ("bucket", properties::bucket),
            ("record", properties::record),
            ("change", properties::change),
        ],
    );
}

#[test]
fn documents() {
    replay("document", &[("document", properties::document)]);
}

#[test]
fn identities() {
    replay("identity", &[("identity", properties::identity)]);
}

#[test]
fn definitions() {
    replay("definitions", &[("definitions", properties::definitions)]);
}

#[test]
fn contexts() {
    replay("context", &[("context", properties::context)]);
}
