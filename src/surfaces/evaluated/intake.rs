//! What becomes of documents that were read: compiled or inflated in slices, kept, or remembered as of no use.

use std::rc::Rc;

use super::CompiledRules;
use super::document::{Begun, Compiled, EvaluatedDocument, Unusable};
use super::library::Library;
use super::reads::{DocumentRead, LandedDocument};
use super::slices::Slices;
use crate::http::ETag;
use crate::redis::Failure;
use crate::tenant::Tenant;
use crate::time::Monotonic;

impl<R: CompiledRules> Library<R> {
    /// Takes a document that was read.
    pub(super) fn take_in(
        &mut self,
        tenant: Tenant,
        version: ETag,
        gzip: &[u8],
        now: Monotonic,
    ) -> LandedDocument<R> {
        let max_bytes = self.bounds.text as usize;
        let begun = self.workshop.begin(tenant, &version, gzip, max_bytes);
        self.taken_in(tenant, &version, begun, now)
    }

    /// What came of the first slices of this version.
    pub fn taken_in(
        &mut self,
        tenant: Tenant,
        version: &ETag,
        begun: Begun<R>,
        now: Monotonic,
    ) -> LandedDocument<R> {
        let landed = match begun {
            Begun::Done(compiled) => self.keep(tenant, version, compiled, now),
            Begun::Queued => LandedDocument::Compiling(version.clone()),
            Begun::Full => LandedDocument::Failed(Failure::TooBig),
        };
        // Who waited for an older version goes on with this one.
        for version in self.workshop.take_dropped() {
            let read = DocumentRead::Compiled { tenant, version };
            self.finished.push((read, landed.clone()));
        }
        landed
    }

    /// The version of a tenant's document that was read a short time ago and is of no use.
    pub fn unusable(&self, tenant: Tenant, now: Monotonic) -> Option<&ETag> {
        self.unusable.get(&tenant, now)
    }

    pub(super) fn keep(
        &mut self,
        tenant: Tenant,
        version: &ETag,
        compiled: Compiled<R>,
        now: Monotonic,
    ) -> LandedDocument<R> {
        match compiled {
            Ok(document) => {
                // A text for which there is no room is inflated anew; the rest of the document stays.
                let older = self.kept.etag(tenant).filter(|kept| *kept != version);
                if let Some(older) = older.cloned() {
                    let older = self.kept.get(tenant, &older);
                    self.kept.put(tenant, &document);
                    self.outgoing.extend(older);
                } else if self.kept.etag(tenant).is_none() || self.kept.has_room(&document) {
                    self.kept.put(tenant, &document);
                }
                LandedDocument::Read(document)
            }
            Err(problem) => {
                self.unusable.note(tenant, version.clone(), now);
                if self.problems.admits(now) {
                    let problem = match problem {
                        Unusable::TooLong => {
                            format!("is longer than {}.max_document_bytes", R::SECTION)
                        }
                        Unusable::Unreadable => "cannot be read".to_owned(),
                    };
                    log::warn!("{} {tenant}: the document {problem}", R::TENANT);
                }
                LandedDocument::Missing
            }
        }
    }

    /// Does the next slices of documents, as many as there is time for, and one in any case.
    pub fn work(&mut self, now: Monotonic, slices: &mut Slices<'_>) {
        while self.has_work() {
            if let Some((tenant, version, compiled)) = self.workshop.work() {
                let landed = self.keep(tenant, &version, compiled, now);
                let read = DocumentRead::Compiled { tenant, version };
                self.finished.push((read, landed));
            }
            if self.workshop.is_empty() {
                self.clear();
            }
            if !slices.goes_on() {
                break;
            }
        }
    }

    /// Takes documents that somebody used beside this library: who has one last would free all of it at once.
    pub fn release(&mut self, documents: Vec<Rc<EvaluatedDocument<R>>>) {
        self.outgoing.extend(documents);
    }

    /// Takes apart what newer versions took the place of: freeing all of a long one takes longer than compiling a slice.
    fn clear(&mut self) {
        let next = || Rc::into_inner(self.outgoing.pop()?)?.into_rules();
        let rules = self.clearing.take().or_else(next);
        self.clearing = rules.and_then(|mut rules| match rules.shrink() {
            true => None,
            false => Some(rules),
        });
    }

    /// Whether a tick has something to do.
    pub(super) fn has_work(&self) -> bool {
        !self.workshop.is_empty() || !self.outgoing.is_empty() || self.clearing.is_some()
    }
}
