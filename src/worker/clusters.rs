//! Which clusters Envoy does not know: what the callouts of this VM found, and how everybody comes to know of it.
//!
//! A misspelt cluster looks like an outage of its Redis. So its name goes into the log, once, and into
//! [`Status::unknown_clusters`], where the health listener finds it. A cluster may come later, by CDS: the first callout
//! that Envoy takes, in whichever VM, strikes its name out again.

use std::cell::RefCell;

use crate::shared::{Scope, Store, Update};
use crate::snapshot::status::Status;

thread_local! {
    /// Those that were unknown once. All names come from the settings of root contexts, so they are few.
    static FOUND: RefCell<Vec<Found>> = const { RefCell::new(Vec::new()) };
}

/// What callouts to a cluster found.
struct Found {
    cluster: String,
    /// What the last one did. `None`: another VM did not know it, and there was none here since then.
    known: Option<bool>,
    /// How many times that was noted.
    times: u32,
}

impl Found {
    fn note(&mut self, known: bool) {
        self.known = Some(known);
        self.times = self.times.wrapping_add(1);
    }
}

/// Envoy took a callout to this cluster.
pub fn found_known(cluster: &str) {
    with(|all| {
        // Nearly always there are none.
        for found in all.iter_mut() {
            if found.known != Some(true) && found.cluster == cluster {
                found.note(true);
            }
        }
    });
}

/// Envoy does not know this cluster.
pub fn found_unknown(cluster: &str) {
    with(|all| entry(all, cluster, |found| found.note(false)));
}

/// How one worker tells of it: only of the clusters of its settings.
#[derive(Debug)]
pub struct Clusters {
    scope: Scope,
    names: Vec<String>,
    /// Of each name the times that were noted by then.
    told: Vec<(String, u32)>,
}

impl Clusters {
    /// Nothing told yet. `names`: the clusters of the settings; `scope`: that of their shared data.
    pub const fn new(scope: Scope, names: Vec<String>) -> Self {
        Self {
            scope,
            names,
            told: Vec::new(),
        }
    }

    /// Tells what was found since the last call, and writes a line to the log for each name that this adds or strikes out.
    pub fn tell(&mut self, store: &impl Store, status: &Status) {
        with(|all| {
            for cluster in &status.unknown_clusters {
                entry(all, cluster, |found| {
                    // Known here once, but unknown to another VM later: what comes next counts.
                    if found.known == Some(true) && self.has_told(found) {
                        found.known = None;
                    }
                });
            }
            for found in all.iter() {
                if let Some(known) = found.known
                    && !self.has_told(found)
                    && self.names.contains(&found.cluster)
                    && tell(store, &found.cluster, known, status, &self.scope)
                {
                    self.told.retain(|(cluster, _)| *cluster != found.cluster);
                    self.told.push((found.cluster.clone(), found.times));
                }
            }
        });
    }

    fn has_told(&self, found: &Found) -> bool {
        let mut told = self.told.iter();
        told.any(|(cluster, times)| *times == found.times && *cluster == found.cluster)
    }
}

/// `false` when shared data did not take it.
fn tell(store: &impl Store, cluster: &str, known: bool, status: &Status, scope: &Scope) -> bool {
    if status.unknown_clusters.iter().any(|name| name == cluster) != known {
        return true;
    }
    match Status::note_cluster(store, scope, cluster, known) {
        Ok(Update::Written) if known => log::info!("Envoy knows the cluster \"{cluster}\" now"),
        Ok(Update::Written) => log::warn!(
            "Envoy does not know the cluster \"{cluster}\", so nothing is sent to it: is it defined, and is this its name?"
        ),
        Ok(Update::Unchanged) => {}
        Ok(Update::Contended) | Err(_) => return false,
    }
    true
}

/// Changes what was found of a cluster, be it nothing so far.
fn entry(all: &mut Vec<Found>, cluster: &str, change: impl FnOnce(&mut Found)) {
    if !all.iter().any(|found| found.cluster == cluster) {
        all.push(Found {
            cluster: cluster.to_owned(),
            known: None,
            times: 0,
        });
    }
    if let Some(found) = all.iter_mut().find(|found| found.cluster == cluster) {
        change(found);
    }
}

fn with(f: impl FnOnce(&mut Vec<Found>)) {
    FOUND.with(|all| {
        if let Ok(mut all) = all.try_borrow_mut() {
            f(&mut all);
        }
    });
}
