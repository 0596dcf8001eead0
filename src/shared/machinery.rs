//! What the rooms work with for the time of one call, whatever the shell: shared data, time, chance, and counters.

use std::time::Duration;

use crate::time::{Monotonic, UnixMillis};

/// The clocks and the chance of a host. Each may fail; then it says `None`.
pub trait Ambient {
    /// A clock that never goes back, in full precision; its zero is the host's.
    fn clock(&self) -> Option<Duration>;

    /// The wall clock.
    fn unix(&self) -> Option<UnixMillis>;

    /// Eight unpredictable bytes.
    fn random(&self) -> u64;

    /// The same clock as [`Ambient::clock`], in the precision of what is stored.
    fn monotonic(&self) -> Option<Monotonic> {
        let millis = self.clock()?.as_millis();
        Some(Monotonic::from_millis(
            u64::try_from(millis).unwrap_or(u64::MAX),
        ))
    }

    /// Sixteen unpredictable bytes.
    fn random_bytes(&self) -> [u8; 16] {
        (u128::from(self.random()) << 64 | u128::from(self.random())).to_le_bytes()
    }
}

/// Takes counts of `C`.
pub trait CountSink<C> {
    /// Adds to a count.
    fn add(&mut self, what: C, times: u64);
}

/// What a call may use. `S` is shared data, `C` is what is counted.
pub struct Machinery<'a, S, C> {
    /// Shared data.
    pub store: &'a S,
    /// The time when the callback began; when the clock fails, the last time that it did not.
    pub now: Monotonic,
    /// Clocks and chance.
    pub ambient: &'a dyn Ambient,
    /// Counters.
    pub counts: &'a mut dyn CountSink<C>,
}

/// Takes counts of one kind for a sink of another.
struct Narrow<'a, D, F> {
    sink: &'a mut dyn CountSink<D>,
    made: F,
}

impl<C, D, F: Fn(C) -> D> CountSink<C> for Narrow<'_, D, F> {
    fn add(&mut self, what: C, times: u64) {
        self.sink.add((self.made)(what), times);
    }
}

impl<S, C> Machinery<'_, S, C> {
    /// The same for a part that counts something else, of which `made` makes a count of the whole.
    pub fn narrowed<B, R>(
        &mut self,
        made: impl Fn(B) -> C,
        act: impl FnOnce(&mut Machinery<'_, S, B>) -> R,
    ) -> R {
        act(&mut Machinery {
            store: self.store,
            now: self.now,
            ambient: self.ambient,
            counts: &mut Narrow {
                sink: self.counts,
                made,
            },
        })
    }

    /// Counts one.
    pub fn count(&mut self, what: impl Into<C>) {
        self.counts.add(what.into(), 1);
    }

    /// Counts several at once.
    pub fn count_many(&mut self, what: impl Into<C>, times: u64) {
        self.counts.add(what.into(), times);
    }
}
