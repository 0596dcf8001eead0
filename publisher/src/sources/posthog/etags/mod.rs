//! The ETags of all teams' flag definitions, in PostHog's cache.
//!
//! | room | job |
//! |---|---|
//! | `sweep` | looks at all of them, again and again |
//! | `keyspace` | Redis itself says that one was written |
//! | [`stored`] | the ETag as clients see it, from what Redis holds |

mod keyspace;
pub mod stored;
mod sweep;

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;

use crate::redis::server::Server;
use crate::sources::{ETagSource, Order, Tell};
use sweep::Sweeper;

/// Where everything is.
#[derive(Clone)]
pub struct Places {
    /// The Redis that holds ETags and latches.
    pub definitions: Arc<Server>,
    /// The Redis whose clock a watermark has; `None`: the same.
    pub clock: Option<Arc<Server>>,
    /// PostHog's keys.
    pub settings: Definitions,
    /// What the filter's own keys begin with.
    pub prefix: String,
}

/// PostHog's cache of flag definitions, as the source of ETags.
pub struct ETags {
    places: Places,
}

impl ETags {
    /// Connects nowhere yet.
    pub fn new(places: Places) -> Self {
        Self { places }
    }
}

impl ETagSource for ETags {
    fn start(self: Box<Self>, interval: Duration, tell: Tell) -> Sender<Order> {
        let (orders, ordered) = channel();
        let (listening, hints, hinted) = (self.places.clone(), orders.clone(), Arc::clone(&tell));
        std::thread::spawn(move || {
            keyspace::listen(&listening.definitions, &listening.settings, &hints, &hinted);
        });
        let sweeper = Sweeper::new(self.places, interval, ordered, tell);
        std::thread::spawn(move || sweeper.run());
        orders
    }
}
