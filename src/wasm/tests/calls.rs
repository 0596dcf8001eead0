//! What each kind of answer costs in host calls, which are what a request costs beside Envoy's own work.

use super::worker::{EnvoyVm, sent, watched_worker};
use super::{loaded, loaded_with};
use crate::wasm::fake::host;
use std::time::Duration;

/// Rates at which a worker takes cells in batches, as one does for a busy team.
const BUSY: &str = r#"{
    "snapshot": {"buckets": 16},
    "rate_limit": {"full": "60000/minute", "conditional": "60000/minute"}
}"#;
const NO_BODIES: &str = r#"{"snapshot": {"buckets": 16}, "definitions": {"body_cache_bytes": 0}, "rate_limit": {"enabled": false}}"#;

type Headers<'a> = &'a [(&'a str, &'a [u8])];

/// Host calls of the last of some equal requests, and its status; what they wait for is answered.
fn cost(worker: &mut EnvoyVm, ids: u32, headers: Headers<'_>) -> (u32, String) {
    let mut calls = Vec::new();
    let mut status = 0;
    // Enough of them for what is remembered, taken in batches, or expected.
    for id in ids..ids + 40 {
        host(|host| host.calls.clear());
        let (stream, _) = worker.request(id, headers);
        worker.answer_callouts();
        let now: Vec<_> = host(|host| host.calls.clone()).into_iter().collect();
        // The cheapest: once in a while a batch of cells is taken.
        let sum = |calls: &[(&str, u32)]| calls.iter().map(|(_, times)| times).sum::<u32>();
        if calls.is_empty() || sum(&now) <= sum(&calls) {
            calls = now;
        }
        status = sent().last().map_or(0, |sent| sent.status);
        worker.end(stream);
    }
    let calls = calls.iter().map(|(name, times)| {
        let name = name.trim_start_matches("proxy_");
        format!("{name} {times}")
    });
    (status, calls.collect::<Vec<_>>().join(", "))
}

#[test]
fn the_host_calls_of_each_kind_of_answer() {
    const REPLY: &str = "clock_time_get 1, get_header_map_pairs 1, send_local_response 1";
    let path: (&str, &[u8]) = (":path", b"/flags/definitions?token=phc_a");
    let secret: (&str, &[u8]) = ("authorization", b"Bearer phs_a");
    let get: (&str, &[u8]) = (":method", b"GET");
    let current: (&str, &[u8]) = ("if-none-match", b"W/\"e1\"");
    let watched = || {
        let mut worker = watched_worker(BUSY);
        assert!(worker.configure());
        worker.run(Duration::from_secs(3));
        worker
    };
    let busy = || loaded_with(BUSY);
    let cases: [(&str, EnvoyVm, Headers<'_>, u32, &str); 8] = [
        (
            "304, confirmed by a callout",
            busy(),
            &[get, path, secret, current],
            304,
            REPLY,
        ),
        (
            "304, confirmed by a watermark",
            watched(),
            &[get, path, secret, current],
            304,
            REPLY,
        ),
        (
            "200 out of memory, billed",
            busy(),
            &[get, path, secret],
            200,
            "clock_time_get 1, get_header_map_pairs 1, get_shared_data 1, send_local_response 1, set_shared_data 1",
        ),
        (
            "200 by callout, billed",
            loaded_with(NO_BODIES),
            &[get, path, secret],
            200,
            "clock_time_get 2, get_buffer_bytes 1, get_header_map_pairs 1, get_header_map_value 1, get_shared_data 3, http_call 1, send_local_response 1, set_effective_context 4, set_shared_data 2",
        ),
        (
            "401, no credential",
            busy(),
            &[get, path],
            401,
            "clock_time_get 1, get_header_map_pairs 1, get_shared_data 1, send_local_response 1",
        ),
        (
            "401, a wrong credential",
            busy(),
            &[get, path, ("authorization", b"Bearer phs_d")],
            401,
            "clock_time_get 2, get_header_map_pairs 1, get_shared_data 6, send_local_response 1",
        ),
        (
            "OPTIONS",
            busy(),
            &[(":method", b"OPTIONS"), path],
            200,
            REPLY,
        ),
        (
            "another path",
            loaded(),
            &[get, (":path", b"/other")],
            0,
            "get_header_map_value 1",
        ),
    ];
    let mut wrong = Vec::new();
    for (kind, mut worker, headers, expected, calls) in cases {
        let (status, is) = cost(&mut worker, 100, headers);
        println!("{kind}: {is}");
        if (status, is.as_str()) != (expected, calls) {
            wrong.push(format!(
                "{kind}: {status}, {is}; should be {expected}, {calls}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[cfg(feature = "flagsmith")]
#[test]
fn flags_that_are_kept_cost_what_any_answer_does() {
    use crate::hash::Sha256Hash;
    use crate::http::ETag;
    use crate::surfaces::flagsmith::records::{FlagsmithRecord, version_hash};
    use crate::tenant::Tenant;

    let mut worker = watched_worker(r#"{"snapshot":{"buckets":16},"flagsmith":{"enabled":true}}"#);
    let (key, environment) = (b"pub.client", Tenant(7));
    let client = FlagsmithRecord::ClientKey(environment).encode();
    worker.published.change(Sha256Hash::of(key), Some(client));
    let version = FlagsmithRecord::Version(ETag::new(b"v1").unwrap()).encode();
    let hash = version_hash(environment);
    worker.published.change(hash, Some(version));
    assert!(worker.configure());
    worker.run(Duration::from_secs(3));
    let headers: [(&str, &[u8]); 3] = [
        (":method", b"GET"),
        (":path", b"/api/v1/flags/"),
        ("x-environment-key", key),
    ];
    let expected = "clock_time_get 1, get_header_map_pairs 1, send_local_response 1";
    assert_eq!(cost(&mut worker, 100, &headers), (200, expected.to_owned()));
}

#[test]
fn the_path_is_read_first_where_other_paths_are_asked_for_as_well() {
    let worker = loaded();
    let calls = |id: u32, path: &[u8]| {
        host(|host| host.calls.clear());
        let (_stream, _) = worker.request(id, &[(":method", b"OPTIONS"), (":path", path)]);
        let of = |name| host(|host| host.calls.get(name).copied().unwrap_or(0));
        (
            of("proxy_get_header_map_value"),
            of("proxy_get_header_map_pairs"),
        )
    };
    let ours = b"/flags/definitions?token=phc_a";
    for id in 100..116 {
        assert_eq!(calls(id, ours), (1, 1));
    }
    assert_eq!(calls(116, ours), (0, 1), "expected");
    assert_eq!(calls(117, b"/other"), (0, 1), "not expected");
    assert_eq!(calls(118, b"/other"), (1, 0));
    assert_eq!(calls(119, ours), (1, 1));
}
