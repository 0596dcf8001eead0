//! A directory that tests fill.

use super::Record;
use crate::hash::Sha256Hash;
use crate::records::bucket::{self, Entry};
use crate::records::{Buckets, Revision, StreamId, Touched};
use crate::shared::Store;

/// Puts a record into its bucket, as of this millisecond of the stream, and tells that something changed.
pub fn put(store: &impl Store, buckets: &Buckets, hash: Sha256Hash, millis: u64, record: &Record) {
    let key = buckets.name(buckets.of(&hash));
    let current = store.read(&key).unwrap();
    let record = record.encode().unwrap();
    let entry = Entry {
        hash,
        id: StreamId {
            millis,
            sequence: 0,
        },
        record: &record,
    };
    let next = bucket::merge(&current.value, &[entry], StreamId::default()).unwrap();
    assert!(store.replace(&key, &next, current.cas).unwrap());
    Revision::raise(store, buckets.scope(), Touched::ALL).unwrap();
}
