//! The documents that were read last, so that a 200 need not read its own.
//!
//! Of each tenant one version is kept, under the ETag that clients see. What is kept says nothing about what is
//! current: a surface answers with it only when exactly this ETag is known to be current ([`super::current`]). A text that
//! was read with the ETag of another is not kept ([`super::proof`]).
//!
//! All that is kept is bounded in bytes; the tenant whose document was not used for longest gives way. Making room drops
//! as many small bodies as the new one has kilobytes at most, which takes less than reading it did.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use rustc_hash::FxHashMap;

use super::Document;
use super::gzip::{Compression, CompressionStep, LONGEST};
use super::proof::{Proof, ProofStep};
use crate::http::ETag;
use crate::tenant::Tenant;

/// What keeping a document costs beyond its bytes: map entries, the ETag, and the allocator's share.
const OVERHEAD: usize = 1 << 10;

/// Most tenants whose texts wait to be compressed. Others ask again with their next request.
const MAX_WANTED: usize = 64;

/// Most long texts at a time of which it is not known yet whether they may be kept, and their part of all bytes.
const MAX_UNPROVEN: usize = 64;
const UNPROVEN_PART: usize = 4;

/// Documents of one worker.
pub struct Kept<D> {
    limit: usize,
    bytes: usize,
    entries: FxHashMap<Tenant, Entry<D>>,
    /// Who was used when: the first is who gives way.
    by_use: BTreeMap<u64, Tenant>,
    uses: u64,
    /// What is kept once its text was hashed.
    unproven: VecDeque<(Tenant, Proof<D>)>,
    /// Whose gzip form was asked for and is not there yet.
    wanted: VecDeque<Tenant>,
    compressing: Option<(Tenant, Compression)>,
}

struct Entry<D> {
    document: Rc<D>,
    gzip: Gzip,
    used: u64,
}

/// The gzip form of a text.
enum Gzip {
    /// Nobody asked for it.
    Unasked,
    /// Somebody did.
    Wanted,
    /// There it is.
    Made(Rc<Vec<u8>>),
    /// It would be no gain.
    Useless,
}

impl<D: Document> Entry<D> {
    fn bytes(&self) -> usize {
        let gzip = match &self.gzip {
            Gzip::Made(gzip) => gzip.len(),
            _ => 0,
        };
        cost(self.document.as_ref()).saturating_add(gzip)
    }
}

fn cost(document: &impl Document) -> usize {
    document.weight().saturating_add(OVERHEAD)
}

impl<D: Document + PartialEq> Kept<D> {
    /// Keeps at most so many bytes; with 0 nothing at all.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            bytes: 0,
            entries: FxHashMap::default(),
            by_use: BTreeMap::new(),
            uses: 0,
            unproven: VecDeque::new(),
            wanted: VecDeque::new(),
            compressing: None,
        }
    }

    /// Which version of a tenant's document is kept.
    pub fn etag(&self, tenant: Tenant) -> Option<&ETag> {
        self.entries.get(&tenant).map(|entry| entry.document.etag())
    }

    /// A tenant's body, if exactly this version is kept.
    pub fn get(&mut self, tenant: Tenant, etag: &ETag) -> Option<Rc<D>> {
        let entry = self.entries.get_mut(&tenant)?;
        if entry.document.etag() != etag {
            return None;
        }
        if entry.used != self.uses {
            self.by_use.remove(&entry.used);
            self.uses += 1;
            entry.used = self.uses;
            self.by_use.insert(self.uses, tenant);
        }
        Some(Rc::clone(&entry.document))
    }

    /// Whether a document is not larger than all that is kept may be.
    pub fn has_room(&self, document: &Rc<D>) -> bool {
        cost(document.as_ref()) <= self.limit
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Keeps what was read, in place of what was kept of the tenant; a long text not before some calls of
    /// [`Kept::work`].
    pub fn put(&mut self, tenant: Tenant, document: &Rc<D>) {
        let same = self.entries.get(&tenant).is_some_and(|entry| {
            // Read anew, because the ETag had to be computed, or was asked for by who holds another.
            entry.document.etag() == document.etag() && entry.document == *document
        });
        if same {
            self.get(tenant, document.etag());
            return;
        }
        // While it is hashed it may be read again and again: that must not begin anew each time.
        let is_hashed =
            |(other, proof): &(Tenant, Proof<D>)| *other == tenant && proof.document() == document;
        if self.unproven.iter().any(is_hashed) {
            return;
        }
        self.remove(tenant);
        if !self.has_room(document) {
            return;
        }
        match Proof::begin(document) {
            ProofStep::Done(Some(document)) => self.keep(tenant, &document),
            ProofStep::Done(None) => {}
            ProofStep::More(proof) => {
                let lengths = self
                    .unproven
                    .iter()
                    .map(|(_, proof)| proof.document().text().len());
                let held = lengths.sum::<usize>().saturating_add(document.text().len());
                let fits = held <= self.limit / UNPROVEN_PART;
                // The next read brings it again.
                if fits && self.unproven.len() < MAX_UNPROVEN {
                    self.unproven.push_back((tenant, proof));
                }
            }
        }
    }

    fn keep(&mut self, tenant: Tenant, document: &Rc<D>) {
        self.remove(tenant);
        self.make_room(cost(document.as_ref()));
        self.uses += 1;
        let entry = Entry {
            document: Rc::clone(document),
            gzip: Gzip::Unasked,
            used: self.uses,
        };
        self.bytes += entry.bytes();
        self.by_use.insert(entry.used, tenant);
        self.entries.insert(tenant, entry);
    }

    /// The gzip form of a text, if it is there. Otherwise it is made in later calls of [`Kept::work`].
    pub fn gzip(&mut self, tenant: Tenant, etag: &ETag) -> Option<Rc<Vec<u8>>> {
        let entry = self.entries.get_mut(&tenant)?;
        if entry.document.etag() != etag {
            return None;
        }
        match &entry.gzip {
            Gzip::Made(gzip) => return Some(Rc::clone(gzip)),
            Gzip::Unasked if entry.document.text().len() > LONGEST => entry.gzip = Gzip::Useless,
            Gzip::Unasked if self.wanted.len() < MAX_WANTED => {
                entry.gzip = Gzip::Wanted;
                self.wanted.push_back(tenant);
            }
            _ => {}
        }
        None
    }

    /// Length of what a client gets of a body that is kept in this version.
    pub fn length(&self, tenant: Tenant, etag: &ETag, accepts_gzip: bool) -> Option<usize> {
        let entry = self.entries.get(&tenant)?;
        if entry.document.etag() != etag {
            return None;
        }
        Some(match &entry.gzip {
            Gzip::Made(gzip) if accepts_gzip => gzip.len(),
            _ => entry.document.text().len(),
        })
    }

    /// Whether [`Kept::work`] has something to do.
    pub fn is_busy(&self) -> bool {
        !self.unproven.is_empty() || self.compressing.is_some() || !self.wanted.is_empty()
    }

    /// Does a slice of what takes longer: hashes a part of a long body, or compresses one that is wanted in gzip
    /// form. About 2 ms.
    pub fn work(&mut self) {
        let Some((tenant, proof)) = self.unproven.pop_front() else {
            return self.compress();
        };
        match proof.step() {
            ProofStep::More(proof) => self.unproven.push_front((tenant, proof)),
            ProofStep::Done(Some(document)) => self.keep(tenant, &document),
            ProofStep::Done(None) => {}
        }
    }

    fn compress(&mut self) {
        let Some((tenant, work)) = self.compressing.take().or_else(|| self.next_wanted()) else {
            return;
        };
        // It may have given way to another, or to a newer version.
        let kept = self.entries.get(&tenant);
        if !kept.is_some_and(|entry| Rc::ptr_eq(entry.document.text(), work.text())) {
            return;
        }
        match work.step() {
            CompressionStep::More(work) => self.compressing = Some((tenant, work)),
            CompressionStep::Done(gzip) => self.keep_gzip(tenant, gzip),
        }
    }

    fn next_wanted(&mut self) -> Option<(Tenant, Compression)> {
        while let Some(tenant) = self.wanted.pop_front() {
            let Some(entry) = self.entries.get_mut(&tenant) else {
                continue;
            };
            if !matches!(entry.gzip, Gzip::Wanted) {
                continue;
            }
            match Compression::begin(Rc::clone(entry.document.text())) {
                Some(work) => return Some((tenant, work)),
                None => entry.gzip = Gzip::Useless,
            }
        }
        None
    }

    fn keep_gzip(&mut self, tenant: Tenant, gzip: Option<Vec<u8>>) {
        // Taken out meanwhile, so that it does not give way to its own gzip form.
        let Some(mut entry) = self.take(tenant) else {
            return;
        };
        entry.gzip = match gzip {
            Some(gzip)
                if cost(entry.document.as_ref()).saturating_add(gzip.len()) <= self.limit =>
            {
                Gzip::Made(Rc::new(gzip))
            }
            _ => Gzip::Useless,
        };
        self.make_room(entry.bytes());
        self.bytes += entry.bytes();
        self.by_use.insert(entry.used, tenant);
        self.entries.insert(tenant, entry);
    }

    /// Drops a tenant's document.
    pub fn remove(&mut self, tenant: Tenant) {
        self.unproven.retain(|(other, _)| *other != tenant);
        self.take(tenant);
    }

    fn take(&mut self, tenant: Tenant) -> Option<Entry<D>> {
        let entry = self.entries.remove(&tenant)?;
        self.by_use.remove(&entry.used);
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        Some(entry)
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes.saturating_add(bytes) > self.limit
            && let Some((_, tenant)) = self.by_use.pop_first()
        {
            self.take(tenant);
        }
    }
}

#[cfg(test)]
mod tests;
