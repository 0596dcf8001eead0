//! What a filter would know: pages, and all changes after them. Fails where a filter could not go on.

use std::collections::BTreeMap;

use flag_definitions_filter::hash::Sha256Hash;
use flag_definitions_filter::records::StreamId;
use flag_definitions_filter::snapshot::change::{self, Change, Content, Watermark};
use flag_definitions_filter::snapshot::manifest::Manifest;
use flag_definitions_filter::surfaces::posthog::directory::{Record, RecordCounts};

use crate::instance::Instance;
use crate::support::Redis;

/// What is published.
pub struct Published {
    pub manifest: Manifest,
    pub records: BTreeMap<Sha256Hash, Record>,
    /// After the snapshot.
    pub changes: Vec<Change>,
}

impl Published {
    /// Reads all of it at one moment.
    pub fn read(redis: &mut Redis) -> Self {
        type Entry = (Vec<u8>, Vec<Vec<u8>>);
        // One transaction, so that no watcher replaces the snapshot meanwhile.
        let script = "local m=redis.call('GET','flag_definitions:snapshot') local o={m}
            local d=cjson.decode(m) for i=0,#d.pages-1 do
            o[#o+1]=redis.call('GET',string.format('flag_definitions:snapshot:%.0f:%d',d.generation,i)) or '' end
            return {o,redis.call('XRANGE','flag_definitions:changes','('..d.stream_id,'+')}";
        let (stored, entries): (Vec<Vec<u8>>, Vec<Entry>) = redis.command("EVAL", &[script, "0"]);
        let manifest = Manifest::parse(&stored[0]).unwrap();
        let mut records = BTreeMap::new();
        for (index, digest) in manifest.pages.iter().enumerate() {
            let bytes = stored[index + 1].clone();
            assert!(
                digest.matches(&bytes),
                "page {index} of {}",
                manifest.generation
            );
            let mut cursor = flag_definitions_filter::snapshot::page::Cursor::new(bytes).unwrap();
            while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
                records.insert(hash, Record::decode(record).unwrap());
                cursor.seek(next);
            }
        }
        let changes: Vec<Change> = entries
            .iter()
            .map(|(id, fields)| parse(id, fields))
            .collect();
        if manifest.lineage != 0 {
            follow(&manifest.stream_id, &changes, &mut records);
        }
        Self {
            manifest,
            records,
            changes,
        }
    }

    /// Reads it as soon as there is a watermark.
    pub fn read_when_live(redis: &mut Redis, instance: &Instance) -> Self {
        instance.wait_until_live();
        Self::read(redis)
    }

    pub fn last_id(&self) -> StreamId {
        self.changes
            .last()
            .map_or(self.manifest.stream_id, |change| change.id)
    }

    /// What the manifest counts.
    pub fn counts(&self) -> RecordCounts {
        RecordCounts::of(&self.manifest.records)
    }

    pub fn watermarks(&self) -> Vec<Watermark> {
        let watermark = |change: &Change| match change.content {
            Content::Watermark(watermark) => Some(watermark),
            Content::Records(_) => None,
        };
        self.changes.iter().filter_map(watermark).collect()
    }

    /// Records that came as changes.
    pub fn changed(&self) -> usize {
        let count = |change: &Change| match &change.content {
            Content::Records(bytes) => {
                let (mut count, mut cursor) =
                    (0, change::records(bytes.clone(), Record::check).unwrap());
                while let Some((_, _, next)) = cursor.record_at(cursor.position()).unwrap() {
                    count += 1;
                    cursor.seek(next);
                }
                count
            }
            Content::Watermark(_) => 0,
        };
        self.changes.iter().map(count).sum()
    }

    pub fn get(&self, token: &str) -> Option<&Record> {
        self.records.get(&Sha256Hash::of(token.as_bytes()))
    }
}

fn parse(id: &[u8], fields: &[Vec<u8>]) -> Change {
    let names: Vec<&[u8]> = fields.iter().step_by(2).map(Vec::as_slice).collect();
    assert_eq!(names, [b"p", b"f", b"k", b"v"]);
    Change::parse(id, &fields[1], &fields[3], &fields[5], &fields[7]).unwrap()
}

fn follow(since: &StreamId, changes: &[Change], records: &mut BTreeMap<Sha256Hash, Record>) {
    let (mut last, mut fence) = (*since, 0);
    for change in changes {
        assert_eq!(change.previous, last, "a gap before {}", change.id);
        assert!(change.id > last && change.fence >= fence);
        (last, fence) = (change.id, change.fence);
        let Content::Records(bytes) = change.content.clone() else {
            continue;
        };
        let mut cursor = change::records(bytes, Record::check).unwrap();
        while let Some((hash, record, next)) = cursor.record_at(cursor.position()).unwrap() {
            match Record::decode(record).unwrap() {
                Record::Tombstone => records.remove(&hash),
                record => records.insert(hash, record),
            };
            cursor.seek(next);
        }
    }
}
