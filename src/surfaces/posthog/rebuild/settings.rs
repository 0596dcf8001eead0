//! The section `rebuild` of a plugin configuration.

use std::time::Duration;

use serde::Deserialize;

use super::{Celery, Signal};
use crate::json::check::{ConfigError, duration, name, range};
use crate::json::optional_object;

const DAY: Duration = Duration::from_secs(86_400);

/// How PostHog is told that a payload is missing, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RebuildKind {
    #[default]
    SortedSet,
    Celery,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RebuildDocument {
    kind: RebuildKind,
    #[serde(deserialize_with = "duration")]
    repeat_after: Duration,
    #[serde(deserialize_with = "optional_object")]
    celery: Option<Celery>,
}

impl Default for RebuildDocument {
    fn default() -> Self {
        Self {
            kind: RebuildKind::default(),
            repeat_after: Duration::from_secs(60),
            celery: None,
        }
    }
}

/// How PostHog is told that a payload is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Rebuild {
    /// What is sent.
    pub signal: Signal,
    /// For how long a team is not signalled again: 1 s to 24 h.
    pub repeat_after: Duration,
}

impl Default for Rebuild {
    fn default() -> Self {
        Self {
            signal: Signal::default(),
            repeat_after: RebuildDocument::default().repeat_after,
        }
    }
}

impl RebuildDocument {
    pub(crate) fn settle(self) -> Result<Rebuild, ConfigError> {
        range(
            "rebuild.repeat_after",
            self.repeat_after,
            Duration::from_secs(1),
            DAY,
        )?;
        let signal = match (self.kind, self.celery) {
            (RebuildKind::Off, _) => Signal::Off,
            (RebuildKind::SortedSet, _) => Signal::default(),
            (RebuildKind::Celery, Some(celery)) => {
                name("rebuild.celery.task", &celery.task)?;
                name("rebuild.celery.queue", &celery.queue)?;
                Signal::Celery(celery)
            }
            (RebuildKind::Celery, None) => {
                return Err(ConfigError::new(
                    "rebuild.celery",
                    "is needed for the kind \"celery\": set rebuild.celery.task",
                ));
            }
        };
        Ok(Rebuild {
            signal,
            repeat_after: self.repeat_after,
        })
    }
}
