//! What a source of documents says becomes documents in Redis, and records beside those of other sources.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use flag_definitions_filter::surfaces::flagsmith::records::{
    FlagsmithRecord, round_hash, version_hash,
};
use flag_definitions_filter::surfaces::posthog::directory::etag_hash;
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::redis::error::SnapshotStoreError;
use flag_definitions_publisher::redis::lock::LockToken;
use flag_definitions_publisher::redis::server::Server;
use flag_definitions_publisher::redis::store::SnapshotStore;
use flag_definitions_publisher::sources::WatchedSources;
use flag_definitions_publisher::watch::WatchSettings;

use crate::document_source::{
    PREFIX, Upstream, alone, changes_of, entries, etag, key, of_version, place, published, record,
    stored, unsure, version,
};
use crate::instance::{Instance, Memory, a_team, etags, eventually, settings};
use crate::support::{PUBLISHER_PASSWORD, Redis, publish, small_document};

/// With PostHog's database beside a source of documents.
fn both(settings: &WatchSettings, memory: &Arc<Memory>) -> (Upstream, WatchedSources) {
    let (upstream, mut sources) = alone();
    sources.records = Some(Arc::clone(memory) as _);
    sources.etags = Some(etags(settings));
    (upstream, sources)
}

/// With the publisher's permissions alone.
fn as_publisher(redis: &Redis) -> String {
    let port = redis.port;
    format!("redis://publisher:{PUBLISHER_PASSWORD}@127.0.0.1:{port}")
}

#[test]
fn a_source_of_documents_alone_needs_no_other() {
    let mut redis = Redis::start_with_users();
    let here = settings(&as_publisher(&redis));
    let (upstream, sources) = alone();
    upstream.keys(&[1, 2]);
    upstream.document(1, "v1");
    let instance = Instance::of(here, sources);
    instance.wait_until_live();
    eventually("a version", || version(&redis, 1).as_deref() == Some("v1"));
    assert_eq!(stored(&mut redis, 1), of_version("v1"));
    let manifest = redis.manifest();
    assert_eq!(manifest.surfaces, ["flagsmith"]);
    assert!(!manifest.etags_watched && manifest.lineage > 0);
    assert_eq!(
        record(&redis, &key(2)),
        Some(FlagsmithRecord::ClientKey(Tenant(2)))
    );
    // Everything is known as of now, again and again.
    let marks = || published(&redis).watermark.unwrap();
    let first = marks();
    assert_eq!(first.records_at, Some(first.etags_at));
    eventually("the next watermark", || marks().etags_at > first.etags_at);

    // A change, and a key that went, in no time.
    let began = Instant::now();
    upstream.document(1, "v2");
    upstream.keys(&[1]);
    eventually("both", || {
        version(&redis, 1).as_deref() == Some("v2") && record(&redis, &key(2)).is_none()
    });
    assert!(began.elapsed() < Duration::from_secs(2));
    assert!(changes_of(&mut redis, &key(2)).last().unwrap().1);
    assert_eq!(stored(&mut redis, 1), of_version("v2"));
    let counts = redis.manifest().records;
    assert_eq!((counts.of("teams"), counts.of("client_keys")), (0, 2));
    instance.stop();
    let refused: Vec<redis::Value> = redis.command("ACL", &["LOG"]);
    assert_eq!(refused, [], "a command was refused");
}

#[test]
fn a_document_is_in_redis_before_its_version_is_in_the_stream() {
    let mut redis = Redis::start_with_users();
    let (upstream, sources) = alone();
    upstream.keys(&[1]);
    let instance = Instance::of(settings(&as_publisher(&redis)), sources);
    instance.wait_until_live();
    // It may write everything but documents.
    let () = redis.command("ACL", &["SETUSER", "publisher", "-hset"]);
    upstream.document(1, "v1");
    upstream.keys(&[1, 2]);
    instance.wait("refusals", |figures| figures.errors.redis > 1);
    eventually("all else", || record(&redis, &key(2)).is_some());
    assert_eq!(version(&redis, 1), None);
    let mark = published(&redis).watermark;
    eventually("more watermarks", || published(&redis).watermark != mark);
    assert!(instance.status.figures().active);
    let () = redis.command("ACL", &["SETUSER", "publisher", "+hset"]);
    eventually("the version", || version(&redis, 1).is_some());
    assert_eq!(stored(&mut redis, 1), of_version("v1"));
    // Something else in its place is not overwritten.
    let () = redis.command("SET", &[&*place(1), "in the way"]);
    upstream.document(1, "v2");
    let errors = instance.status.figures().errors.redis;
    instance.wait("another refusal", |figures| figures.errors.redis > errors);
    assert_eq!(version(&redis, 1).as_deref(), Some("v1"));
    let () = redis.command("DEL", &[place(1)]);
    eventually("the next", || version(&redis, 1).as_deref() == Some("v2"));
}

#[test]
fn a_tenant_that_is_gone_leaves_nothing_and_its_keys_go_first() {
    let mut redis = Redis::start();
    let (upstream, sources) = alone();
    upstream.keys(&[1, 2]);
    upstream.document(1, "v1");
    upstream.document(2, "v2");
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait_until_live();
    eventually("both versions", || {
        version(&redis, 1).is_some() && version(&redis, 2).is_some()
    });
    // Whichever is said first.
    upstream.keys(&[1]);
    upstream.gone(2);
    eventually("the document's end", || stored(&mut redis, 2).is_empty());
    upstream.gone(1);
    upstream.keys(&[]);
    eventually("the other's", || stored(&mut redis, 1).is_empty());
    for tenant in [1, 2] {
        assert_eq!(version(&redis, tenant), None);
        let key = changes_of(&mut redis, &key(tenant));
        let version = changes_of(&mut redis, &version_hash(Tenant(tenant)));
        let (key, version) = (key.last().unwrap(), version.last().unwrap());
        assert!(key.1 && version.1 && key.0 < version.0, "{tenant}");
    }
    assert!(record(&redis, &round_hash()).is_some());
}

#[test]
fn a_restart_keeps_what_is_published_until_the_source_speaks_and_writes_only_what_differs() {
    let mut redis = Redis::start();
    let (upstream, sources) = alone();
    upstream.keys(&[1, 2, 3]);
    for tenant in [1, 2, 3] {
        upstream.document(tenant, "v1");
    }
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait("documents", |figures| figures.documents == 3);
    eventually("the last version", || version(&redis, 3).is_some());
    instance.stop();
    let before = (unsure(published(&redis).records), redis.manifest());
    let told = changes_of(&mut redis, &version_hash(Tenant(1))).len();

    let (upstream, sources) = alone();
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait_until_live();
    assert_eq!((published(&redis).records, redis.manifest()), before);
    // One is as it was, one is new, and one was removed meanwhile.
    upstream.document(1, "v1");
    upstream.document(2, "v2");
    upstream.keys(&[1, 2]);
    eventually("the end of the third", || stored(&mut redis, 3).is_empty());
    assert_eq!(version(&redis, 3), None);
    assert_eq!(version(&redis, 2).as_deref(), Some("v2"));
    assert_eq!(version(&redis, 1).as_deref(), Some("v1"));
    assert_eq!(instance.status.figures().documents, 1);
    assert_eq!(changes_of(&mut redis, &version_hash(Tenant(1))).len(), told);
    assert_eq!(redis.manifest().lineage, before.1.lineage);
}

#[test]
fn a_document_that_does_not_fit_takes_the_place_of_none_that_may_fit() {
    let mut redis = Redis::start();
    let (upstream, sources) = alone();
    upstream.keys(&[1]);
    upstream.document(1, "v1");
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait_until_live();
    eventually("the version", || version(&redis, 1).is_some());
    instance.stop();

    let (upstream, sources) = alone();
    upstream.keys(&[1, 2]);
    upstream.unfit(1, "v2");
    upstream.unfit(2, "w1");
    let _instance = Instance::of(settings(&redis.url()), sources);
    let mut are = |first: &str, second: &str| {
        let expected = [first, second];
        eventually(second, || version(&redis, 2).as_deref() == Some(second));
        for (tenant, expected) in [1, 2].into_iter().zip(expected) {
            assert_eq!(version(&redis, tenant).as_deref(), Some(expected));
            assert_eq!(stored(&mut redis, tenant), of_version(expected));
        }
    };
    are("v1", "w1");
    upstream.unfit(1, "v3");
    upstream.unfit(2, "w2");
    are("v1", "w2");
    upstream.document(1, "v4");
    upstream.document(2, "w3");
    are("v4", "w3");
    // No more after those that fit.
    upstream.unfit(1, "v5");
    upstream.unfit(2, "w4");
    upstream.keys(&[1, 2, 3]);
    eventually("what came later", || record(&redis, &key(3)).is_some());
    assert_eq!(version(&redis, 1).as_deref(), Some("v4"));
    assert_eq!(version(&redis, 2).as_deref(), Some("w3"));
}

#[test]
fn whoever_takes_the_lock_publishes_what_its_source_said_while_it_waited() {
    let mut redis = Redis::start();
    let (upstream, sources) = alone();
    upstream.keys(&[1]);
    upstream.document(1, "v1");
    let first = Instance::of(settings(&redis.url()), sources);
    first.wait_until_live();
    eventually("the first's version", || version(&redis, 1).is_some());

    let (waiting, sources) = alone();
    let second = Instance::of(settings(&redis.url()), sources);
    waiting.keys(&[1, 2]);
    for version in ["v1", "v2", "v3"] {
        waiting.document(1, version);
    }
    waiting.document(2, "other");
    std::thread::sleep(Duration::from_millis(700));
    assert!(!second.status.figures().active);
    assert_eq!(stored(&mut redis, 1), of_version("v1"));
    assert!(stored(&mut redis, 2).is_empty());
    first.stop();
    second.wait("its documents", |figures| figures.documents == 2);
    eventually("all of it", || {
        version(&redis, 1).as_deref() == Some("v3") && version(&redis, 2).is_some()
    });
    assert_eq!(stored(&mut redis, 1), of_version("v3"));
    assert!(record(&redis, &key(2)).is_some());
    assert_eq!(second.status.figures().lineages, 0);
    // The first one's source has nobody to listen any more.
    drop(upstream);
}

#[test]
fn what_redis_lost_is_written_again() {
    let mut redis = Redis::start();
    let (upstream, sources) = alone();
    upstream.keys(&[1, 2]);
    upstream.document(1, "v1");
    upstream.document(2, "v2");
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait("documents", |figures| {
        figures.documents == 2 && figures.watermark.is_some()
    });
    // One alone, evicted; then one of another time; then everything.
    let () = redis.command("DEL", &[place(1)]);
    eventually("the evicted one", || {
        stored(&mut redis, 1) == of_version("v1")
    });
    let () = redis.command("HSET", &[&*place(2), "version", "older", "text", "older"]);
    eventually("the right one", || {
        stored(&mut redis, 2) == of_version("v2")
    });
    let changes = changes_of(&mut redis, &version_hash(Tenant(1))).len();
    assert!(changes <= 1, "the version is what it was");
    let () = redis.command("FLUSHALL", &[""; 0]);
    instance.wait("a second lineage", |figures| {
        figures.lineages == 2 && figures.active
    });
    assert_eq!(stored(&mut redis, 1), of_version("v1"));
    assert_eq!(stored(&mut redis, 2), of_version("v2"));
    assert_eq!(version(&redis, 1).as_deref(), Some("v1"));
    assert!(record(&redis, &key(2)).is_some());
}

#[test]
fn sources_leave_each_others_records_alone() {
    let mut redis = Redis::start();
    let memory = Memory::with_teams(300);
    let here = settings(&redis.url());
    let (upstream, sources) = both(&here, &memory);
    // So many that they would hide any share of the database's.
    let tenants: Vec<u32> = (1..=5_000).collect();
    upstream.keys(&tenants);
    upstream.document(7, "v1");
    let tag = "posthog:1:cache/teams/7/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[tag, "abc"]);
    let instance = Instance::of(here, sources);
    instance.wait_until_live();
    eventually("the version", || version(&redis, 7).is_some());
    assert_eq!(redis.manifest().surfaces, ["posthog", "flagsmith"]);
    assert!(redis.manifest().etags_watched);
    let counts = redis.manifest().records;
    assert_eq!(counts.of("teams"), 300);

    for team in 1..=200 {
        memory.put(&format!("phs_{team}"), None);
    }
    instance.wait("the alarm", |figures| figures.held_back == 200);
    assert_eq!(published(&redis).records.len(), 600 + 5_001 + 2);
    // No doubt about the other's, and the database's stay.
    upstream.keys(&[7]);
    eventually("all but one key", || {
        published(&redis).records.len() == 600 + 2 + 2
    });
    // A team and an environment of the same number have nothing to do with each other.
    memory.put("phc_7", None);
    memory.announce("phc_7");
    eventually("the team's end", || {
        !published(&redis)
            .records
            .contains_key(&etag_hash(Tenant(7)))
    });
    assert_eq!(version(&redis, 7).as_deref(), Some("v1"));
    assert_eq!(stored(&mut redis, 7), of_version("v1"));
}

#[test]
fn records_without_a_source_stay_and_etags_that_nobody_watches_go() {
    let mut redis = Redis::start();
    let memory = Memory::with_teams(3);
    let tag = "posthog:1:cache/teams/3/feature_flags/flags_with_cohorts.json:etag";
    let () = redis.command("SET", &[tag, "abc"]);
    let here = settings(&redis.url());
    let (upstream, sources) = both(&here, &memory);
    upstream.keys(&[1]);
    upstream.document(1, "v1");
    let instance = Instance::of(here, sources);
    instance.wait_until_live();
    eventually("the version", || version(&redis, 1).is_some());
    instance.stop();
    let before = published(&redis).records;
    assert!(before.contains_key(&etag_hash(Tenant(3))));
    let lineage = redis.manifest().lineage;

    // The database's publisher alone.
    let instance = Instance::start(settings(&redis.url()), &memory);
    instance.wait("a snapshot of the database alone", |figures| {
        figures.snapshots == 1
    });
    assert_eq!(redis.manifest().surfaces, ["posthog"]);
    assert_eq!(published(&redis).records, unsure(before.clone()));
    instance.stop();

    // The other's alone: its watermarks must not confirm an ETag that nobody looks at.
    let begin = entries(&mut redis).len();
    let (_upstream, sources) = alone();
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait("a snapshot of the other", |figures| figures.snapshots == 1);
    let manifest = redis.manifest();
    assert_eq!((manifest.lineage, manifest.etags_watched), (lineage, false));
    assert_eq!(manifest.surfaces, ["flagsmith"]);
    let now = published(&redis).records;
    assert!(!now.contains_key(&etag_hash(Tenant(3))));
    assert_eq!(now.len(), before.len() - 1);
    let entries = entries(&mut redis);
    let removal = (etag_hash(Tenant(3)), vec![0]);
    assert_eq!(
        entries[begin].as_deref(),
        Some(&[removal][..]),
        "before a watermark"
    );
}

/// As of when whoever is not published may be refused.
fn records_at(redis: &Redis) -> Option<u64> {
    published(redis).watermark.unwrap().records_at
}

#[test]
fn a_source_that_does_not_speak_keeps_nobody_waiting_for_ever() {
    // Documents alone; the database alone; and the database alone where a file is published.
    let mut redis = [(); 3].map(|()| Redis::start());
    publish(&redis[2].url(), &small_document()).expect(0);
    let memory = [(); 3].map(|()| Memory::with_teams(3));
    memory[1].is_away.store(true, Ordering::SeqCst);
    memory[2].is_away.store(true, Ordering::SeqCst);
    let began = Instant::now();
    let mut running = Vec::new();
    for (redis, memory) in redis.iter().zip(&memory) {
        let here = settings(&redis.url());
        let (upstream, sources) = both(&here, memory);
        running.push((upstream, Instance::of(here, sources)));
    }
    running[1].0.keys(&[1]);
    running[2].0.keys(&[1]);
    running[0].1.wait_until_live();
    running[1].1.wait_until_live();
    let waited = began.elapsed();
    assert!(waited > Duration::from_secs(25), "{waited:?}");
    assert_eq!(published(&redis[0]).records.len(), 6);
    assert!(records_at(&redis[0]).is_some());
    assert_eq!(redis[0].manifest().surfaces, ["posthog", "flagsmith"]);
    // Nobody knows whom PostHog knows.
    assert!(record(&redis[1], &key(1)).is_some());
    assert_eq!(records_at(&redis[1]), None);
    assert_eq!(redis[2].manifest().lineage, 0, "what is published stays");

    for (place, memory) in memory.iter().enumerate().skip(1) {
        memory.put("phc_a", Some(&a_team(7)));
        memory.is_away.store(false, Ordering::SeqCst);
        eventually("all of it", || {
            let records = published(&redis[place]).records;
            records.len() == 7 + 2 && records.contains_key(&key(1))
        });
    }
    eventually("refusals", || records_at(&redis[1]).is_some());
}

#[test]
fn whoever_lost_the_lock_writes_no_document() {
    let mut redis = Redis::start();
    let server = Server::parse(&redis.url()).unwrap();
    let connect = || {
        let token = LockToken::random().unwrap();
        SnapshotStore::connect(&server, PREFIX, &token).unwrap()
    };
    let (mut former, mut holder) = (connect(), connect());
    former.take_lock(0).unwrap();
    let () = redis.command("DEL", &["flag_definitions:lock"]);
    holder.take_lock(0).unwrap();
    let write = |store: &mut SnapshotStore<'_>, text: &str| {
        let text = format!("text of {text}");
        let version = ("version", &etag("v1"));
        store.write_document(&place(1), version, ("text", text.as_bytes()))
    };
    assert_eq!(write(&mut holder, "v1").unwrap(), None);
    let lost = write(&mut former, "older").unwrap_err();
    assert!(matches!(lost, SnapshotStoreError::LockLost), "{lost}");
    let lost = former.remove_document(&place(1)).unwrap_err();
    assert!(matches!(lost, SnapshotStoreError::LockLost), "{lost}");
    assert_eq!(stored(&mut redis, 1), of_version("v1"));
}
