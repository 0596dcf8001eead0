//! Which requests are counted for the report.

use super::*;
use crate::surfaces::flagsmith::usage::UsageResource;
use crate::usage::{State, ledger};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

impl World {
    /// Asks, and has the answer sent: its status, if there is one.
    fn served(&mut self, method: &str, path: &str, key: &str, more: &[(&str, &str)]) -> u16 {
        let mut fields = vec![
            (":method", method),
            (":path", path),
            ("x-environment-key", key),
        ];
        fields.extend_from_slice(more);
        let fields = fields
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let request = self.surface.parse(path.as_bytes(), fields);
        let mut machinery = Machinery {
            store: &self.store,
            now: Monotonic::from_millis(NOW),
            ambient: &self.ambient,
            counts: &mut self.counted,
        };
        match self.surface.start(&request, &mut machinery).step {
            Step::Reply(response, receipt) => {
                self.surface.sent(&receipt, &request, &mut machinery);
                response.status
            }
            _ => 0,
        }
    }

    /// What is counted: by environment, resource and hour.
    fn counted_requests(&self) -> Vec<(u32, UsageResource, u32, u32)> {
        let slots = usage::slots(&Scope::new("r", &[]));
        let slot = slots.slot_of(ENVIRONMENT);
        let look = ledger::freeze(&self.store, &slots, slot).unwrap();
        let counters = look.batch.map(|batch| batch.counters).unwrap_or_default();
        let counters = counters.into_iter().map(|counter| {
            let resource = UsageResource::from_code(counter.source).unwrap();
            (counter.tenant.0, resource, counter.field, counter.count)
        });
        counters.collect()
    }
}

/// A world with a document that is kept.
fn loaded() -> World {
    let mut world = World::new(r#"{"rate_limit":"1000/minute"}"#);
    world.version("v1");
    let landed = world.land(Ok([b"full", b"v1", &zipped(DOCUMENT)]));
    assert!(matches!(landed, FlagsmithLanded::Read(_)));
    world
}

const IDENTITY: &str = "/api/v1/identities/?identifier=one";

#[test]
fn every_served_request_of_a_reported_environment_is_counted_once() {
    let mut world = loaded();
    assert_eq!(world.served("GET", FLAGS, "counted", &[]), 200);
    assert_eq!(world.served("HEAD", FLAGS, "ser.counted", &[]), 200);
    assert_eq!(world.served("GET", IDENTITY, "counted", &[]), 200);
    assert_eq!(world.served("GET", WHOLE, "ser.counted", &[]), 200);
    let held = [("if-none-match", "\"v1\"")];
    assert_eq!(world.served("GET", WHOLE, "ser.counted", &held), 304);
    let hour = (UNIX / 3_600) as u32;
    let counted = [
        (9, UsageResource::Flags, hour, 2),
        (9, UsageResource::Identities, hour, 1),
        (9, UsageResource::EnvironmentDocument, hour, 2),
    ];
    assert_eq!(world.counted_requests(), counted);
    let is_counted = |count: &&FlagsmithCount| **count == FlagsmithCount::Usage(State::Counted);
    assert_eq!(world.counted.0.iter().filter(is_counted).count(), 5);
}

#[test]
fn what_is_refused_or_not_reported_is_not_counted() {
    let mut world = loaded();
    for (method, path, key, status) in [
        ("GET", FLAGS, "client", 200),
        ("GET", WHOLE, "ser.one", 200),
        ("OPTIONS", FLAGS, "counted", 200),
        ("DELETE", FLAGS, "counted", 405),
        ("GET", FLAGS, "nobody", 401),
        ("GET", WHOLE, "counted", 401),
        ("GET", "/api/v1/flags?feature=nothing", "counted", 404),
        ("GET", "/api/v1/identities", "counted", 400),
    ] {
        assert_eq!(world.served(method, path, key, &[]), status, "{path} {key}");
    }
    assert_eq!(world.counted_requests(), []);
}

#[test]
fn without_a_job_or_a_surface_nothing_is_counted() {
    let mut world = loaded();
    world.surface.usage = None;
    assert_eq!(world.served("GET", FLAGS, "counted", &[]), 200);
    assert_eq!(world.counted_requests(), []);
    let jobs = |world: &mut World| {
        let mut jobs = 0;
        world.surface.each_job::<MemoryStore>(&mut |_| jobs += 1);
        jobs
    };
    assert_eq!((jobs(&mut world), jobs(&mut loaded())), (0, 1));
}
