//! The workers of this VM: which jobs each of them does.
//!
//! A configuration update creates a second worker in the same VM, and both tick until the old listener has drained. The
//! older one then leaves its jobs to the newer one.

use std::cell::RefCell;

thread_local! {
    static WORKERS: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
}

/// Registers a worker that does a job for all, by the name of the job's lease.
pub fn enter(worker: u32, lease: &str) {
    with(|workers| {
        let entry = (worker, lease.to_owned());
        if !workers.contains(&entry) {
            workers.push(entry);
        }
    });
}

/// Forgets a worker.
pub fn leave(worker: u32) {
    with(|workers| workers.retain(|(id, _)| *id != worker));
}

/// Whether a newer worker does the same job.
pub fn is_superseded(worker: u32, lease: &str) -> bool {
    let mut superseded = false;
    with(|workers| {
        superseded = workers
            .iter()
            .any(|(id, other)| *id > worker && other == lease);
    });
    superseded
}

fn with(f: impl FnOnce(&mut Vec<(u32, String)>)) {
    WORKERS.with(|workers| {
        if let Ok(mut workers) = workers.try_borrow_mut() {
            f(&mut workers);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn only_the_newest_worker_does_a_job() {
        enter(1, "a");
        enter(2, "a");
        enter(3, "b");
        assert!(is_superseded(1, "a"));
        assert!(!is_superseded(2, "a") && !is_superseded(3, "b"));
        leave(2);
        assert!(!is_superseded(1, "a"));
        leave(1);
        leave(3);
    }
}
