//! What the host changes in a local reply, put right when the response's headers are on their way.

use std::cell::RefCell;
use std::rc::Rc;

use super::worker::{READ_THROUGH, loaded, loaded_with, sent, statuses};
use crate::wasm::fake::host;
use crate::wasm::root::Root;
use crate::wasm::stream::{Next, Stream};

#[test]
fn the_answer_to_head_has_its_type_and_others_keep_theirs() {
    let worker = loaded();
    for (id, method, expected) in [(10, &b"HEAD"[..], 1), (11, b"GET", 0)] {
        let headers: [(&str, &[u8]); 2] = [(":method", method), (":path", b"/flags/definitions")];
        let (mut stream, _) = worker.request(id, &headers);
        stream.on_response_headers();
        let fields = host(|host| host.responses.remove(&id).unwrap_or_default());
        assert_eq!(fields.len(), expected);
        let json = b"application/json";
        assert!(
            fields
                .iter()
                .all(|(name, value)| name == "content-type" && value == json)
        );
    }
}

#[test]
fn a_refusal_of_grpc_gets_back_the_status_that_the_host_took() {
    const FORWARD: &str = r#"{"upstream":"forward","snapshot":{"buckets":16}}"#;
    let headers: [(&str, &[u8]); 5] = [
        (":method", b"GET"),
        (":path", b"/flags/definitions?token=phc_a"),
        ("authorization", b"Bearer phs_a"),
        ("if-none-match", b"*"),
        ("content-type", b"application/grpc"),
    ];
    // As Envoy makes it of a local reply.
    let grpc = || -> Vec<(String, Vec<u8>)> {
        let fields = [
            (":status", "200"),
            ("content-type", "application/grpc"),
            ("grpc-status", "2"),
            ("vary", "origin"),
        ];
        let field = |(name, value): (&str, &str)| (name.to_owned(), value.into());
        fields.map(field).into()
    };
    let worker = loaded_with(FORWARD);
    let (mut stream, next) = worker.request(10, &headers);
    assert_eq!((next, statuses()), (Next::Pause, vec![(10, 415)]));
    host(|host| host.responses.insert(10, grpc()));
    stream.on_response_headers();
    let mut fields = host(|host| host.responses.remove(&10).unwrap());
    fields.sort();
    let expected: [(&str, &[u8]); 2] = [(":status", b"415"), ("vary", b"origin")];
    assert_eq!(
        fields,
        expected.map(|(name, value)| (name.to_owned(), value.to_vec()))
    );

    // What could not be sent is the upstream's to answer.
    host(|host| host.broken.insert("proxy_send_local_response", 10));
    let (mut stream, next) = worker.request(11, &headers);
    assert_eq!(next, Next::Continue);
    host(|host| host.responses.insert(11, grpc()));
    stream.on_response_headers();
    assert_eq!(host(|host| host.responses.remove(&11)), Some(grpc()));
    // Where the status cannot be set, the host's word stays.
    host(|host| host.broken.clear());
    let (mut stream, _) = worker.request(12, &headers);
    host(|host| host.broken.insert("proxy_replace_header_map_value", 2));
    host(|host| host.responses.insert(12, grpc()));
    stream.on_response_headers();
    assert_eq!(host(|host| host.responses.remove(&12)), Some(grpc()));
    host(|host| host.broken.clear());
}

#[test]
fn a_probe_that_says_it_is_grpc_is_refused_as_well() {
    let health = Rc::new(RefCell::new(Root::new(2)));
    let configuration = br#"{"role":"health","snapshot":{"buckets":16}}"#;
    host(|host| host.configuration = configuration.to_vec());
    assert!(health.borrow_mut().configure(configuration.len()));
    for (id, content_type, expected) in [(20, "application/grpc", 415), (21, "text/plain", 503)] {
        host(|host| {
            let field = |name: &str, value: &str| (name.to_owned(), value.into());
            let headers = vec![
                field(":path", "/ready"),
                field("content-type", content_type),
            ];
            host.requests.insert(id, headers);
            host.context = id;
            host.active = id;
        });
        let mut stream = Stream::new(id, Rc::clone(&health));
        assert_eq!(stream.on_request_headers(true), Next::Pause);
        assert_eq!(statuses().last(), Some(&(id, expected)));
        stream.on_response_headers();
        let restored = host(|host| host.responses.remove(&id));
        let status = restored.map(|fields| fields[0].1.clone());
        assert_eq!(status.as_deref(), (expected == 415).then_some(&b"415"[..]));
    }
}

#[test]
fn problems_are_logged_once_a_second_at_most() {
    let mut worker = loaded_with(READ_THROUGH);
    crate::wasm::logger::install();
    worker.payload = "no JSON".to_owned();
    for id in 10..60 {
        let team = format!("x{id}");
        let _look_up = worker.get_as(&team, id, None);
        let _definitions = worker.get(100 + id, None);
        worker.answer_callouts();
    }
    let logs = host(|host| std::mem::take(&mut host.logs));
    let lines = |what: &str| logs.iter().filter(|line| line.contains(what)).count();
    assert_eq!(lines("a looked-up team or credential cannot be read"), 1);
    assert_eq!(lines("team 1: the stored value is malformed"), 1);
    host(|host| host.broken.extend([("proxy_send_local_response", 10)]));
    for id in 200..210 {
        worker.get(id, None);
    }
    let logs = host(|host| host.logs.clone());
    let unsent = |line: &&String| line.contains("could not be sent");
    assert_eq!(logs.iter().filter(unsent).count(), 1);
}

#[test]
fn the_filter_answers_the_health_paths_that_it_is_told_to_before_any_surface() {
    let config = r#"{"snapshot":{"buckets":16},"health":{"paths":["/ready","/proxy/health"]}}"#;
    let worker = loaded_with(config);
    let ask = |id, method: &str, path: &str| {
        let headers: [(&str, &[u8]); 2] =
            [(":method", method.as_bytes()), (":path", path.as_bytes())];
        let (_stream, next) = worker.request(id, &headers);
        (next, statuses())
    };
    let passed = (Next::Continue, vec![]);
    for round in 0..30 {
        assert_eq!(ask(10, "GET", "/ready"), (Next::Pause, vec![(10, 200)]));
        assert_eq!(ask(11, "HEAD", "/ready?x"), (Next::Pause, vec![(11, 200)]));
        assert_eq!(ask(12, "POST", "/ready"), passed, "{round}");
        assert_eq!(ask(13, "GET", "/health"), passed);
        assert_eq!(
            ask(14, "GET", "/proxy/health"),
            passed,
            "the surface is off"
        );
        // From then on all header fields are read at once.
        worker.get(15, Some("\"e1\""));
        sent();
    }
}

#[test]
fn the_body_of_a_request_that_waits_is_not_kept_where_nothing_is_forwarded() {
    for (config, dropped) in [
        (r#"{"snapshot":{"buckets":16}}"#, 300_000),
        (r#"{"upstream":"forward","snapshot":{"buckets":16}}"#, 0),
        // What another surface does with its requests counts for nothing.
        (
            r#"{"flagsmith":{"enabled":true,"upstream":"forward"},"snapshot":{"buckets":16}}"#,
            300_000,
        ),
        (
            r#"{"upstream":"forward","flagsmith":{"enabled":true},"snapshot":{"buckets":16}}"#,
            0,
        ),
    ] {
        let mut worker = loaded_with(config);
        let (mut stream, _) = worker.get(10, None);
        for ends in [false, false, true] {
            assert_eq!(stream.on_body(100_000, ends), Next::Pause);
        }
        assert_eq!(host(|host| host.dropped), dropped, "{config}");
        worker.answer_callouts();
        assert_eq!(statuses(), [(10, 200)]);
    }
}
