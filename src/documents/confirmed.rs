//! Which ETag is current, as confirmed a short time ago.
//!
//! One slot of shared data holds the tenants that fall into it, each with its number. Layout of an entry,
//! little-endian: `u32` tenant, `u64` when it was confirmed ([`Monotonic`] milliseconds), `u8` length, the tag.

use std::time::Duration;

use super::current::Rule;
use crate::http::{ETag, IfNoneMatch};
use crate::recent::Recent;
use crate::records::{Buckets, CorruptRecord, Reader};
use crate::shared::{Store, StoreError, Table, Update, drop_oldest, update};
use crate::tenant::Tenant;
use crate::time::Monotonic;

/// Most tenants in one slot. With the default number of slots two rarely meet; beyond the bound the
/// one confirmed longest ago gives way, and costs a callout when it is asked for again.
const MAX_ENTRIES: usize = 32;

/// A tenant's ETag and as of when Redis held it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    /// The entity tag.
    pub etag: ETag,
    /// When the question was sent: the tag was current then or later.
    pub at: Monotonic,
}

/// Most entries of shared data that hold confirmed ETags: with 100 000 tenants 12 to an entry.
pub const MOST_SLOTS: u32 = 8_192;

/// Those entries beside these buckets: no more than there are of them.
pub fn slots(buckets: &Buckets) -> Table {
    Table::new(buckets.scope(), "e:", buckets.count().min(MOST_SLOTS))
}

/// How long this worker's memory of a slot counts.
const REMEMBERED: Duration = Duration::from_millis(10);

/// Most tenants of which this worker remembers that.
const PLACES: usize = 4_096;

/// What callouts confirmed, those of other workers among them; with a memory of what was found a moment ago.
pub struct Confirmations {
    slots: Table,
    remembered: Recent<Tenant, Option<Confirmed>>,
}

impl Confirmations {
    /// Those in these entries of shared data.
    pub fn new(slots: Table) -> Self {
        Self {
            slots,
            remembered: Recent::new(PLACES, REMEMBERED),
        }
    }

    /// What is known of a tenant's ETag, for a client that holds this. A client that holds something else than what is
    /// remembered may have it from another worker, a moment ago: then shared data is looked at.
    ///
    /// # Errors
    /// When shared data fails.
    pub fn find(
        &mut self,
        store: &impl Store,
        tenant: Tenant,
        held: &IfNoneMatch<'_>,
        rule: &Rule,
    ) -> Result<Option<Confirmed>, StoreError> {
        let suits = |known: &Option<Confirmed>| {
            let matches = |known: &Confirmed| held.matches(&known.etag) && rule.counts(known.at);
            !held.is_present() || known.as_ref().is_some_and(matches)
        };
        let remembered = self.remembered.get(&tenant, rule.now);
        if let Some(known) = remembered.filter(|known| suits(known)) {
            return Ok(known.clone());
        }
        let known = self.read(store, tenant)?;
        self.remembered.note(tenant, known.clone(), rule.now);
        Ok(known)
    }

    /// What shared data says of a tenant's ETag.
    ///
    /// # Errors
    /// When shared data fails. Unreadable bytes are nothing known.
    pub fn read(
        &self,
        store: &impl Store,
        tenant: Tenant,
    ) -> Result<Option<Confirmed>, StoreError> {
        read(store, &self.slots, tenant)
    }

    /// Notes what a callout brought ([`store`]).
    pub fn note(
        &mut self,
        store: &impl Store,
        tenant: Tenant,
        before: Option<&Confirmed>,
        confirmed: &Confirmed,
    ) {
        self.remembered.forget(&tenant);
        // If shared data fails, the next request asks again.
        let _ = self::store(store, &self.slots, tenant, before, confirmed);
    }
}

/// Reads what is known of a tenant's ETag.
///
/// # Errors
/// When shared data fails. Unreadable bytes are nothing known.
pub fn read(
    store: &impl Store,
    slots: &Table,
    tenant: Tenant,
) -> Result<Option<Confirmed>, StoreError> {
    let slot = store.read(&slots.of(tenant.0))?.value;
    Ok(find(&slot, tenant))
}

/// Stores what a callout brought, if nothing was stored for the tenant since it was sent: then a later
/// callout, or the publisher, knows better. `before` is what was known when the callout was sent.
///
/// # Errors
/// When shared data fails.
pub fn store(
    store: &impl Store,
    slots: &Table,
    tenant: Tenant,
    before: Option<&Confirmed>,
    confirmed: &Confirmed,
) -> Result<Update, StoreError> {
    update(store, &slots.of(tenant.0), |slot| {
        if find(slot, tenant).as_ref() != before {
            return None;
        }
        let mut entries: Vec<(Tenant, Confirmed)> = parse(slot).unwrap_or_default();
        entries.retain(|(id, _)| *id != tenant);
        drop_oldest(
            &mut entries,
            |(_, entry)| entry.at,
            |entries| entries.len() < MAX_ENTRIES,
        );
        entries.push((tenant, confirmed.clone()));
        Some(encode(&entries))
    })
}

fn find(slot: &[u8], tenant: Tenant) -> Option<Confirmed> {
    let mut input = Reader(slot);
    while !input.is_empty() {
        let (id, at, tag) = entry(&mut input).ok()?;
        if id == tenant {
            let etag = ETag::new(tag)?;
            return Some(Confirmed { etag, at });
        }
    }
    None
}

fn parse(slot: &[u8]) -> Option<Vec<(Tenant, Confirmed)>> {
    let mut input = Reader(slot);
    let mut entries = Vec::new();
    while !input.is_empty() {
        let (id, at, tag) = entry(&mut input).ok()?;
        let etag = ETag::new(tag)?;
        entries.push((id, Confirmed { etag, at }));
    }
    Some(entries)
}

fn entry<'a>(input: &mut Reader<'a>) -> Result<(Tenant, Monotonic, &'a [u8]), CorruptRecord> {
    let tenant = Tenant(input.u32()?);
    let at = Monotonic::from_millis(input.u64()?);
    let length = usize::from(input.byte()?);
    Ok((tenant, at, input.take(length)?))
}

fn encode(entries: &[(Tenant, Confirmed)]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(entries.len() * 32);
    for (tenant, confirmed) in entries {
        let tag = confirmed.etag.as_bytes();
        bytes.extend_from_slice(&tenant.0.to_le_bytes());
        bytes.extend_from_slice(&confirmed.at.as_millis().to_le_bytes());
        // Lossless: an ETag has at most 64 bytes.
        bytes.push(tag.len() as u8);
        bytes.extend_from_slice(tag);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::store as put;
    use super::*;
    use crate::shared::{Cas, MemoryStore, Scope};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn setup() -> (MemoryStore, Table) {
        let buckets = Buckets::new(&Scope::new("", &[]), 1);
        (MemoryStore::default(), slots(&buckets))
    }

    fn confirmed(tag: &str, at: u64) -> Confirmed {
        Confirmed {
            etag: ETag::new(tag.as_bytes()).unwrap(),
            at: Monotonic::from_millis(at),
        }
    }

    #[test]
    fn a_late_reply_does_not_overwrite_newer_knowledge() {
        let (store, keys) = setup();
        let tenant = Tenant(1);
        let (a, b, late) = (confirmed("a", 1), confirmed("b", 2), confirmed("late", 3));
        assert_eq!(put(&store, &keys, tenant, None, &a), Ok(Update::Written));
        assert_eq!(
            put(&store, &keys, tenant, Some(&a), &b),
            Ok(Update::Written)
        );
        assert_eq!(
            put(&store, &keys, tenant, Some(&a), &late),
            Ok(Update::Unchanged)
        );
        assert_eq!(read(&store, &keys, tenant), Ok(Some(b)));
    }

    #[test]
    fn tenants_share_a_slot_and_the_slot_stays_bounded() {
        let (store, keys) = setup();
        for tenant in 1..=100 {
            let entry = confirmed(&format!("t{tenant}"), u64::from(tenant));
            put(&store, &keys, Tenant(tenant), None, &entry).unwrap();
        }
        assert_eq!(read(&store, &keys, Tenant(1)), Ok(None));
        for tenant in 69..=100 {
            let found = read(&store, &keys, Tenant(tenant)).unwrap().unwrap();
            assert_eq!(found, confirmed(&format!("t{tenant}"), u64::from(tenant)));
        }
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn unreadable_bytes_are_nothing_known_and_are_replaced() {
        let (store, keys) = setup();
        store
            .replace(&keys.of(1), b"\x01nonsense", Cas::ABSENT)
            .unwrap();
        assert_eq!(read(&store, &keys, Tenant(1)), Ok(None));
        let entry = confirmed("a", 1);
        put(&store, &keys, Tenant(1), None, &entry).unwrap();
        assert_eq!(read(&store, &keys, Tenant(1)), Ok(Some(entry)));
    }
}
