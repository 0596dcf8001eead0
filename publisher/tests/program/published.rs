//! The published state as the library reads it.

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::http::ETag;
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::change::Watermark;
use flag_definitions_filter::surfaces::posthog::directory::{Record, etag_hash};
use flag_definitions_filter::tenant::Tenant;
use flag_definitions_publisher::redis::lock::LockToken;
use flag_definitions_publisher::redis::published::{self, Fault, PublishedSnapshot};
use flag_definitions_publisher::redis::server::Server;
use flag_definitions_publisher::redis::store::SnapshotStore;

use crate::support::{Redis, change, large_document, publish, small_document};

fn read(redis: &Redis) -> PublishedSnapshot {
    let server = Server::parse(&redis.url()).unwrap();
    let mut store =
        SnapshotStore::connect(&server, "flag_definitions:", &LockToken::random().unwrap())
            .unwrap();
    published::read(&mut store, |_| Ok(())).unwrap()
}

fn token(text: &str) -> Sha256Hash {
    Sha256Hash::of(text.as_bytes())
}

fn etag(text: &str) -> Record {
    Record::ETag(ETag::new(text.as_bytes()).unwrap())
}

#[test]
fn a_snapshot_and_the_changes_after_it() {
    let mut redis = Redis::start();
    assert_eq!(read(&redis).fault, Some(Fault::NoManifest));
    publish(&redis.url(), &small_document()).expect(0);
    let snapshot = read(&redis);
    assert_eq!((snapshot.fault, snapshot.records.len()), (None, 2));
    assert_eq!(snapshot.last, redis.manifest().stream_id);

    let start = redis.begin_lineage();
    let watermark = Watermark {
        etags_at: 5,
        records_at: None,
    };
    let mut changes = vec![
        change(etag_hash(Tenant(7)), &etag("aa")),
        change(token("phs_a"), &Record::Tombstone),
        change(token("phs_b"), &Record::TeamSecret(Tenant(7))),
        watermark.written(),
    ];
    // More than one command brings.
    changes.extend((0..1_100).map(|_| change(etag_hash(Tenant(7)), &etag("bb"))));
    let last = redis.add_changes(start, &changes);
    let published = read(&redis);
    assert_eq!(published.fault, None);
    assert_eq!((published.last, published.changes), (last, 1_104));
    assert_eq!(published.watermark, Some(watermark));
    assert_eq!(published.fence, 1);
    assert_eq!(published.records.len(), 3);
    let after = |count| StreamId {
        sequence: start.sequence + count,
        ..start
    };
    for (hash, expected) in [
        (token("phs_a"), Some((Record::Tombstone, after(2)))),
        (
            token("phs_b"),
            Some((Record::TeamSecret(Tenant(7)), after(3))),
        ),
        (etag_hash(Tenant(7)), Some((etag("bb"), last))),
        (token("phs_c"), None),
    ] {
        assert_eq!(published.find(&hash), expected);
    }
    assert_eq!(published.find(&token("phc_a")).unwrap().1, start);
}

#[test]
fn changes_of_another_snapshot_are_not_taken() {
    let mut redis = Redis::start();
    publish(&redis.url(), &small_document()).expect(0);
    let start = redis.begin_lineage();
    let mut manifest = redis.manifest();
    redis.add_changes(start, &[change(token("phs_a"), &Record::Tombstone)]);
    manifest.lineage = 0;
    redis.set_manifest(&manifest);
    assert_eq!(read(&redis).records.len(), 2);
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    let mut redis = Redis::start();
    publish(&redis.url(), &large_document()).expect(0);
    let start = redis.begin_lineage();
    let secret = |n: u32| {
        change(
            token(&format!("phs_new_{n}")),
            &Record::TeamSecret(Tenant(7)),
        )
    };
    let last = redis.add_changes(start, &[secret(1)]);
    let later = StreamId {
        millis: last.millis + 10,
        ..last
    };
    redis.add_changes(later, &[secret(2)]);
    let published = read(&redis);
    assert_eq!(published.fault, Some(Fault::Gap(last)));
    assert_eq!(published.last, last);
    assert_eq!(published.records.len(), 20_002);

    let () = redis.command("SET", &["flag_definitions:snapshot:1:1", "FDP1"]);
    assert_eq!(read(&redis).fault, Some(Fault::PageBad(1)));
    let () = redis.command("DEL", &["flag_definitions:snapshot:1:0"]);
    let published = read(&redis);
    assert_eq!(published.fault, Some(Fault::PageMissing(0)));
    // What can be read is there.
    assert!((1..20_000).contains(&published.records.len()));

    let () = redis.command("SET", &["flag_definitions:snapshot", "{}"]);
    assert!(matches!(read(&redis).fault, Some(Fault::Manifest(_))));
}

#[test]
fn a_change_that_cannot_be_used_ends_the_changes() {
    for fields in [
        &["p", "START", "f", "0", "k", "w", "v", "1:1"][..],
        &["p", "START", "f", "9", "k", "w", "v", "x"],
        &["p", "START", "f", "9", "k", "w"],
        &["x", "START", "f", "9", "k", "w", "v", "1:1"],
    ] {
        let mut redis = Redis::start();
        publish(&redis.url(), &small_document()).expect(0);
        let start = redis.begin_lineage();
        let mark = Watermark {
            etags_at: 5,
            records_at: Some(5),
        };
        let last = redis.add_changes(start, &[mark.written()]);
        let id = StreamId {
            sequence: last.sequence + 1,
            ..last
        };
        let (id, last) = (id.to_string(), last.to_string());
        let mut arguments = vec!["flag_definitions:changes", &id];
        arguments.extend(fields.iter().map(|field| match *field {
            "START" => last.as_str(),
            field => field,
        }));
        let _: String = redis.command("XADD", &arguments);
        let published = read(&redis);
        assert_eq!(published.fault, Some(Fault::ChangeBad(id.parse().unwrap())));
        assert_eq!(published.watermark, Some(mark));
    }
}
