//! The root contexts of this VM: the only state that they share.
//!
//! A configuration update creates a second root context in the same VM, and both tick until the old
//! listener has drained. The older one then leaves loading to the newer one.

use std::cell::RefCell;

thread_local! {
    static LOADERS: RefCell<Vec<(u32, String)>> = const { RefCell::new(Vec::new()) };
}

/// Registers a root context that works for all; `scope` is the prefix of the keys in shared data that it
/// works on.
pub fn enter(context: u32, scope: &str) {
    with(|loaders| {
        let entry = (context, scope.to_owned());
        if !loaders.contains(&entry) {
            loaders.push(entry);
        }
    });
}

/// Forgets a root context.
pub fn leave(context: u32) {
    with(|loaders| loaders.retain(|(id, _)| *id != context));
}

/// Whether a newer root context does the same.
pub fn is_superseded(context: u32, scope: &str) -> bool {
    let mut superseded = false;
    with(|loaders| {
        superseded = loaders
            .iter()
            .any(|(id, other)| *id > context && other == scope);
    });
    superseded
}

fn with(f: impl FnOnce(&mut Vec<(u32, String)>)) {
    LOADERS.with(|loaders| {
        if let Ok(mut loaders) = loaders.try_borrow_mut() {
            f(&mut loaders);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_newest_of_a_scope_loads() {
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
