//! Texts that Redis refuses to keep take nothing away.

use std::collections::BTreeMap;
use std::sync::Arc;

use flag_definitions_publisher::redis::documents::Kept;
use flag_definitions_publisher::redis::lock::LockToken;
use flag_definitions_publisher::redis::server::Server;
use flag_definitions_publisher::redis::store::SnapshotStore;

use crate::document_source::PREFIX;
use crate::instance::settings;
use crate::support::Redis;

const KEY: &str = "flag_definitions:texts";

#[test]
fn what_redis_refuses_to_keep_takes_nothing_away_that_is_kept() {
    let mut redis = Redis::start_with_users();
    let here = settings(&redis.url());
    let server: &Server = &here.redis;
    let token = LockToken::random().unwrap();
    let mut store = SnapshotStore::connect(server, PREFIX, &token).unwrap();
    store.take_lock(0).unwrap();
    let set = |fields: &[(&str, &str)]| -> Vec<(String, Arc<[u8]>)> {
        let fields = fields.iter();
        fields
            .map(|(name, text)| ((*name).to_owned(), text.as_bytes().into()))
            .collect()
    };
    let there =
        |redis: &mut Redis| -> BTreeMap<String, String> { redis.command("HGETALL", &[KEY]) };
    let mut keep = |fields: &[(&str, &str)], gone: &[&str]| {
        let gone: Vec<String> = gone.iter().map(|name| (*name).to_owned()).collect();
        store.keep_texts(KEY, &set(fields), &gone).unwrap()
    };
    assert_eq!(
        keep(&[("list", "a")], &[]),
        Kept::Gone,
        "no list without texts"
    );
    assert_eq!(keep(&[("a", "1"), ("list", "a")], &[]), Kept::Written);
    assert_eq!(keep(&[("b", "1"), ("list", "a b")], &[]), Kept::Written);
    let before = there(&mut redis);
    assert_eq!(before.len(), 3);
    let () = redis.command("CONFIG", &["SET", "maxmemory", "1"]);
    let refused = keep(&[("a", "2"), ("list", "a b")], &[]);
    assert!(matches!(refused, Kept::Refused(_)), "{refused:?}");
    assert_eq!(there(&mut redis), before);
    let () = redis.command("CONFIG", &["SET", "maxmemory", "0"]);
    assert_eq!(keep(&[("a", "2"), ("list", "a")], &["b"]), Kept::Written);
    let left = [("a", "2"), ("list", "a")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(there(&mut redis), left.into());
}
