//! `If-None-Match: *` is about what there is (RFC 9110 §13.1.2): where there is nothing, it changes nothing.

use super::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const FEATURE: &str = "/api/v1/flags?feature=nope";
const IDENTITY: &str = "/api/v1/identities?identifier=a";

fn any(world: &mut World, path: &str) -> Became {
    world.ask("GET", path, "ser.one", &[("if-none-match", "*")])
}

#[test]
fn whatever_there_is_matches() {
    let mut world = World::new("{}");
    world.version("v1");
    let waits = Became::Waits(read(None));
    for path in [FLAGS, FEATURE, IDENTITY, WHOLE] {
        assert_eq!(any(&mut world, path), waits, "what there is is not known");
    }
    world.land(Ok([b"full", b"v1", &zipped(DOCUMENT)]));
    let not_modified = Became::Answered(304, "not_modified");
    for path in [FLAGS, "/api/v1/flags?feature=ratio", IDENTITY, WHOLE] {
        assert_eq!(any(&mut world, path), not_modified, "{path}");
    }
    let missing = Became::Answered(404, "feature_not_found");
    assert_eq!(any(&mut world, FEATURE), missing);
}

#[test]
fn of_a_document_that_is_of_no_use_nothing_matches() {
    let not_loaded = Became::Answered(503, "environment_not_loaded");
    for (text, whole) in [
        (b"no gzip".to_vec(), not_loaded),
        (zipped(b"{}"), Became::Answered(304, "not_modified")),
    ] {
        let mut world = World::new("{}");
        world.land(Ok([b"full", b"v1", &text]));
        world.version("v1");
        for path in [FLAGS, FEATURE, IDENTITY] {
            let found = any(&mut world, path);
            assert_eq!(found, world.get(path, "ser.one"), "{path}");
            assert_eq!(found, Became::Answered(503, "environment_not_loaded"));
        }
        assert_eq!(any(&mut world, WHOLE), whole);
    }
}
