//! What an earlier publisher left is not confirmed as it stands: what its source knew, and what it did not finish.

use std::time::Duration;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::surfaces::flagsmith::records::{
    FlagsmithRecord, round_hash, version_hash,
};
use flag_definitions_filter::surfaces::ofrep::records::OfrepRecord;
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::redis::lock::{LockToken, Taken};
use flag_definitions_publisher::redis::server::Server;
use flag_definitions_publisher::redis::store::SnapshotStore;

use crate::document_source::{
    PREFIX, alone, changes_of, entries, key, of_version, place, published, record, round, stored,
    version,
};
use crate::instance::{Instance, Memory, eventually, settings};
use crate::support::Redis;

/// Three tenants with a document each, of a publisher that has ended; the number of entries in its stream.
fn left(redis: &mut Redis) -> usize {
    let (upstream, sources) = alone();
    upstream.keys(&[1, 2, 3]);
    for tenant in [1, 2, 3] {
        upstream.document(tenant, "v1");
    }
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait_until_live();
    eventually("all of it", || {
        [1, 2, 3].map(|tenant| version(redis, tenant).is_some()) == [true; 3]
    });
    instance.stop();
    entries(redis).len()
}

/// The hashes of what changed after so many entries and before the next watermark.
fn changed_before_a_watermark(redis: &mut Redis, begin: usize) -> Vec<Sha256Hash> {
    let entries = entries(redis).into_iter().skip(begin);
    let changes: Vec<_> = entries.map_while(|entry| entry).flatten().collect();
    changes.into_iter().map(|(hash, _)| hash).collect()
}

#[test]
fn that_all_keys_are_known_counts_no_longer_than_the_source_that_said_so() {
    let mut redis = Redis::start();
    let begin = left(&mut redis);
    assert_eq!(record(&redis, &round_hash()), Some(round(true)));

    // Of a source that says nothing yet.
    let (upstream, sources) = alone();
    let instance = Instance::of(settings(&redis.url()), sources);
    instance.wait_until_live();
    assert_eq!(
        changed_before_a_watermark(&mut redis, begin),
        [round_hash()]
    );
    assert_eq!(record(&redis, &round_hash()), Some(round(false)));
    let first = FlagsmithRecord::ClientKey(Tenant(1));
    assert_eq!(record(&redis, &key(1)), Some(first));
    let tenants: Vec<u32> = (1..=20).collect();
    upstream.keys(&tenants);
    eventually("its word", || {
        record(&redis, &round_hash()) == Some(round(true))
    });
    instance.stop();
    let mut told = |hash| changes_of(&mut redis, &hash).last().map(|(at, _)| *at);
    let claimed = told(round_hash());
    assert!((4..=20).all(|tenant| told(key(tenant)).is_some_and(|at| Some(at) < claimed)));

    // Where there is none of that surface.
    let begin = entries(&mut redis).len();
    let memory = Memory::with_teams(3);
    let instance = Instance::start(settings(&redis.url()), &memory);
    instance.wait_until_live();
    let changed = changed_before_a_watermark(&mut redis, begin);
    assert!(changed.contains(&round_hash()), "{changed:?}");
    assert_eq!(record(&redis, &round_hash()), Some(round(false)));
    assert!(record(&redis, &key(1)).is_some());
}

#[test]
fn a_lineage_that_begins_with_what_others_left_does_not_know_all_keys() {
    let mut redis = Redis::start();
    left(&mut redis);
    // As a fencing counter that went back: what is published is whole, and cannot be continued.
    let () = redis.command("SET", &["flag_definitions:fence", "0"]);
    let memory = Memory::with_teams(3);
    let instance = Instance::start(settings(&redis.url()), &memory);
    instance.wait("a new lineage", |figures| figures.lineages == 1);
    instance.wait_until_live();
    assert_eq!(record(&redis, &round_hash()), Some(round(false)));
    assert!(record(&redis, &key(1)).is_some());
}

#[test]
fn a_version_that_a_killed_publisher_did_not_publish_is_published_before_a_watermark() {
    let mut redis = Redis::start();
    let begin = left(&mut redis);
    let server = Server::parse(&redis.url()).unwrap();
    let token = LockToken::random().unwrap();
    let mut killed = SnapshotStore::connect(&server, PREFIX, &token).unwrap();
    assert!(matches!(killed.take_lock(0).unwrap(), Taken::Fence(_)));
    let (upstream, sources) = alone();
    let instance = Instance::of(settings(&redis.url()), sources);
    // What does not fit is noted, and takes no place of what is published.
    upstream.unfit(3, "v3");
    std::thread::sleep(Duration::from_millis(700));
    assert!(!instance.status.figures().active);
    for tenant in [1, 3] {
        let document = [&*place(tenant), "version", "v2", "text", "text of v2"];
        let () = redis.command("HSET", &document);
    }
    let () = redis.command("DEL", &[place(2)]);
    killed.release_lock().unwrap();

    instance.wait_until_live();
    let changed = changed_before_a_watermark(&mut redis, begin);
    for (tenant, expected) in [(1, "v2"), (2, "v1"), (3, "v2")] {
        assert_eq!(version(&redis, tenant).as_deref(), Some(expected));
        let is_changed = changed.contains(&version_hash(Tenant(tenant)));
        assert_eq!(is_changed, expected == "v2", "{tenant}");
    }
    // Nothing was written for it.
    assert_eq!(stored(&mut redis, 1), of_version("v2"));
    assert!(stored(&mut redis, 2).is_empty());
    assert_eq!(instance.status.figures().documents, 0);
    // The source has the last word.
    upstream.document(1, "v4");
    eventually("its document", || {
        version(&redis, 1).as_deref() == Some("v4")
    });
    assert_eq!(stored(&mut redis, 1), of_version("v4"));
}

/// Filters see that keys have no source only after the changes that came before.
#[test]
fn keys_that_no_source_lists_any_more_stay_and_are_unlisted_with_the_next_snapshot() {
    let mut redis = Redis::start();
    let key = Sha256Hash::of(b"key");
    let with_keys = |has_key: bool| {
        let memory = Memory::with_teams(3);
        *memory.lists.lock().unwrap() = &["ofrep_keys"];
        if has_key {
            let record = OfrepRecord::Key(None).encode().into();
            memory.records.lock().unwrap().insert(key, record);
        }
        memory
    };
    let record = |redis: &Redis, hash: &Sha256Hash| published(redis).records.get(hash).cloned();
    let own: Box<[u8]> = OfrepRecord::Key(None).encode().into();
    let first = Instance::start(settings(&redis.url()), &with_keys(true));
    first.wait_until_live();
    first.stop();
    assert_eq!(redis.manifest().surfaces, ["posthog", "ofrep_keys"]);

    let alone = Instance::start(settings(&redis.url()), &Memory::with_teams(4));
    alone.wait_until_live();
    let fourth = Sha256Hash::of(b"phs_4");
    eventually("its reading", || record(&redis, &fourth).is_some());
    eventually("its snapshot", || redis.manifest().surfaces == ["posthog"]);
    assert_eq!(record(&redis, &key), Some(own));
    alone.stop();

    // Whoever lists them again takes it away.
    let listing = Instance::start(settings(&redis.url()), &with_keys(false));
    listing.wait_until_live();
    eventually("its removal", || record(&redis, &key).is_none());
}
