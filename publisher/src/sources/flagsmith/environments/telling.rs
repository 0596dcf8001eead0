//! What is to be told, and in which order.

use std::time::Instant;

use flag_definitions_filter::tenant::Tenant;

use super::one::Environment;
use crate::sources::documents::DocumentNews;

/// What is to be told.
#[derive(Debug)]
pub(super) struct Telling {
    /// Before this moment nothing is told of records while some environment was never polled: what a publisher before this
    /// one told stays meanwhile.
    pub waits_until: Instant,
    pub is_due: bool,
    /// Whether a key changed: that never waits.
    pub is_urgent: bool,
    pub last: Option<Instant>,
    pub documents: Vec<DocumentNews>,
    /// Numbers that are another environment's now: their documents go first.
    pub reused: Vec<Tenant>,
    /// Numbers that are nobody's any more: their documents go after their keys.
    pub gone: Vec<Tenant>,
}

impl Telling {
    /// Takes back what is not told yet of numbers that were left, and tells that they were. Who has one of them now waits with
    /// its keys for its own document: until then another one's may be in Redis.
    pub fn leave<'a>(
        &mut self,
        mut left: Vec<Tenant>,
        environments: impl Iterator<Item = &'a mut Environment>,
    ) {
        self.documents.retain(|news| match news {
            DocumentNews::Document(document) => !left.contains(&document.tenant),
            _ => true,
        });
        left.append(&mut self.gone);
        for environment in environments {
            let tenant = environment.followed.tenant;
            if left.contains(&tenant) {
                left.retain(|other| *other != tenant);
                self.reused.push(tenant);
                environment.is_withheld = true;
            }
        }
        self.gone = left;
    }
}
