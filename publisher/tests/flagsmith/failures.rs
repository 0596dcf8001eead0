//! What goes wrong with Flagsmith: the source lives on, and the last document stays.

use std::io::{self, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use flag_definitions_filter::surfaces::flagsmith::records::Condition;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::followed::{Followed, configuration, tenant};
use crate::stub::{Flagsmith, Reply, document, eventually};

/// What goes wrong, and what is told of it.
fn wrong() -> Vec<(Reply, Condition)> {
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let mut no_segments = document("none");
    no_segments["project"] = json!({"segments": "hunter2"});
    let mut long = document("long");
    long["more"] = json!("x".repeat(5 << 20));
    let mut bomb = GzEncoder::new(Vec::new(), Compression::fast());
    bomb.write_all(&vec![b' '; 10 << 20]).unwrap();
    let bomb = Reply::bytes(bomb.finish().unwrap());
    let failing = [
        Reply::status(500),
        Reply::status(401),
        Reply::status(204),
        Reply::json(&document("cut")).cut(),
        Reply::json(&document("cut")).gzip().cut(),
        Reply::text("<html>hunter2</html>"),
        Reply::text(""),
        Reply::json(&document("gzip")).with("Content-Encoding", "gzip"),
        Reply::json(&document("br")).with("Content-Encoding", "br"),
        Reply::json(&document("slow")).dripping(Duration::from_millis(10)),
        Reply::text(&"x".repeat(9 << 20)),
        Reply::silence(),
    ];
    let refused = [
        Reply::json(&json!([])),
        Reply::json(&no_segments),
        Reply::json(&long),
        Reply::text(&deep),
        bomb.with("Content-Encoding", "gzip"),
    ];
    let failing = failing.map(|reply| (reply, Condition::Failing));
    failing
        .into_iter()
        .chain(refused.map(|reply| (reply, Condition::Refused)))
        .collect()
}

/// What is logged in this process from now on.
fn logs() -> Arc<Mutex<Vec<u8>>> {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let events = tracing_subscriber::fmt().with_writer(move || writer.clone());
    let events = events
        .with_ansi(false)
        .with_max_level(tracing::Level::TRACE);
    tracing::subscriber::set_global_default(events.finish()).unwrap();
    log.0
}

/// Each environment has something else that goes wrong.
#[test]
fn whatever_goes_wrong_the_last_document_stays_and_no_key_is_logged() {
    let log = logs();
    let wrong = wrong();
    let environments = wrong.len();
    let flagsmith = Flagsmith::start(|_| Reply::json(&document("good")));
    let mut config = configuration(&flagsmith, environments, &json!({}));
    config.poll_frequency = Duration::from_millis(200);
    let followed = Followed::with(config);
    let all = |what: &str, condition: &dyn Fn(usize) -> Condition, documents: usize| {
        followed.wait(what, |told| {
            let is = |number| told.condition(&format!("client{number}")) == Some(condition(number));
            (0..environments).all(is).then_some(())
        });
        followed.told(|told| {
            assert_eq!(told.documents.len(), environments, "{what}");
            assert_eq!(told.documents_told, documents, "{what}");
        });
    };
    all("all are well", &|_| Condition::Polled, environments);
    let conditions: Vec<_> = wrong.iter().map(|(_, condition)| *condition).collect();
    flagsmith.answer(move |request| {
        let number: usize = request.key().trim_start_matches("ser.").parse().unwrap();
        wrong[number].0.clone()
    });
    all("all is wrong", &|number| conditions[number], environments);
    // Each of them lives on.
    flagsmith.answer(|_| Reply::json(&document("better")));
    all(
        "all are well again",
        &|_| Condition::Polled,
        2 * environments,
    );
    let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
    assert_eq!(log.matches("answered 500").count(), 1, "{log}");
    let name = format!("environment={} name=\"good\"", tenant("client0"));
    assert!(log.contains(&name), "{log}");
    for secret in ["hunter2", "ser.", "client1"] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

#[test]
fn patterns_that_match_nothing_are_told_of_once_for_each_version() {
    let log = logs();
    let with_pattern = |name: &str| {
        let mut document = document(name);
        document["project"]["segments"] = json!([{"id": 1, "name": "s", "feature_states": [], "rules": [
            {"type": "ALL", "rules": [], "conditions": [{"operator": "REGEX", "property_": "a", "value": "("}]}
        ]}]);
        Reply::json(&document)
    };
    let first = with_pattern("first");
    let flagsmith = Flagsmith::start(move |_| first.clone());
    let mut config = configuration(&flagsmith, 1, &json!({}));
    config.poll_frequency = Duration::from_millis(100);
    let followed = Followed::with(config);
    followed.wait_for_document("first");
    let polls = flagsmith.requests().len();
    eventually("it is polled again", || {
        (flagsmith.requests().len() > polls + 2).then_some(())
    });
    let told = || {
        let log = String::from_utf8(log.lock().unwrap().clone()).unwrap();
        log.matches("patterns of a document match nothing").count()
    };
    assert_eq!(told(), 1);
    flagsmith.answer(move |_| with_pattern("second"));
    followed.wait_for_document("second");
    assert_eq!(told(), 2);
}

#[test]
fn a_flagsmith_that_is_not_there_is_told_of() {
    // A port that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/api/v1", listener.local_addr().unwrap());
    drop(listener);
    let flagsmith = Flagsmith::start(|_| Reply::json(&document("here")));
    let config = configuration(&flagsmith, 1, &json!({"api_url": url}));
    let followed = Followed::with(config);
    followed.wait_for("client0", Condition::Failing);
    followed.told(|told| assert!(told.documents.is_empty()));
}

#[test]
fn all_threads_end_within_a_second_of_the_signal() {
    let flagsmith = Flagsmith::start(|request| match request.key() {
        "ser.0" => Reply::json(&document("a")),
        _ => Reply::silence(),
    });
    let mut config = configuration(&flagsmith, 8, &json!({}));
    config.poll_timeout = Duration::from_secs(60);
    let followed = Followed::with(config);
    followed.wait_for_document("a");
    let threads = || {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names = tasks
            .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "flagsmith").count()
    };
    // Each test runs in a process of its own.
    assert!(threads() >= 2, "{}", threads());
    let asked = Instant::now();
    followed.stop.store(true, Ordering::Relaxed);
    eventually("no thread is left", || (threads() == 0).then_some(()));
    assert!(
        asked.elapsed() < Duration::from_secs(1),
        "{:?}",
        asked.elapsed()
    );
    let polls = flagsmith.requests().len();
    sleep(Duration::from_millis(150));
    assert_eq!(flagsmith.requests().len(), polls);
}

#[test]
fn an_environment_that_fails_does_not_stop_the_others() {
    let flagsmith = Flagsmith::start(|request| match request.key() {
        "ser.0" => Reply::json(&document("a")),
        "ser.1" => Reply::status(500),
        _ => Reply::silence(),
    });
    let followed = Followed::with(configuration(&flagsmith, 3, &json!({})));
    followed.wait_for("client1", Condition::Failing);
    followed.wait_for("client2", Condition::Failing);
    followed.told(|told| assert_eq!(told.round().unwrap().completed_at, 0));
    flagsmith.answer(|request| match request.key() {
        "ser.2" => Reply::status(500),
        _ => Reply::json(&document("b")),
    });
    followed.wait_for_document("b");
    followed.wait_for("client1", Condition::Polled);
    followed.wait_for("client2", Condition::Failing);
    // A round needs all of them.
    followed.told(|told| assert_eq!(told.round().unwrap().completed_at, 0));
    flagsmith.answer(|_| Reply::json(&document("c")));
    followed.wait("a round", |told| {
        (told.round()?.completed_at > 0).then_some(())
    });
}
