//! Signals that wait for the worker's next tick, so that a miss is answered without a wait.

use std::collections::VecDeque;

use crate::tenant::Tenant;

/// Most teams that wait in one worker. A team that does not fit is signalled by its next miss.
pub const MAX_QUEUED: usize = 256;

/// Teams to signal, in the order of their misses, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SignalQueue(VecDeque<Tenant>);

impl SignalQueue {
    /// Adds a team; `false` when it waits already, or when there is no room.
    pub fn push(&mut self, team: Tenant) -> bool {
        if self.0.len() >= MAX_QUEUED || self.0.contains(&team) {
            return false;
        }
        self.0.push_back(team);
        true
    }

    /// Takes the team that waits longest.
    pub fn pop(&mut self) -> Option<Tenant> {
        self.0.pop_front()
    }

    /// Number of teams that wait.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn teams_leave_in_the_order_they_came_and_each_once() {
        let mut queue = SignalQueue::default();
        assert!(queue.push(Tenant(2)));
        assert!(queue.push(Tenant(1)));
        assert!(!queue.push(Tenant(2)));
        assert_eq!(queue.len(), 2);
        assert_eq!(queue.pop(), Some(Tenant(2)));
        assert!(queue.push(Tenant(2)), "it no longer waits");
        assert_eq!(queue.pop(), Some(Tenant(1)));
        assert_eq!(queue.pop(), Some(Tenant(2)));
        assert_eq!(queue.pop(), None);
        assert!(queue.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_dropped() {
        let mut queue = SignalQueue::default();
        for team in 0..1_000 {
            assert_eq!(queue.push(Tenant(team)), team < 256, "{team}");
        }
        assert_eq!(queue.len(), MAX_QUEUED);
        assert_eq!(queue.pop(), Some(Tenant(0)));
        assert!(queue.push(Tenant(999)));
    }
}
