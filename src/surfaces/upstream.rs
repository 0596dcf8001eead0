//! Whether there is somebody behind the filter.

use serde::Deserialize;

/// Where a surface's requests go that the filter may not decide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Upstream {
    /// There is a service that can answer; forward to it.
    Forward,
    /// There is none: answer here.
    #[default]
    None,
}
