//! The configuration file of Flagsmith's Edge Proxy, as people have it already.
//!
//! The fields are those of `src/config/settings.rs` of edge-proxy-rs and of `src/edge_proxy/settings.py` of edge-proxy, the
//! defaults those of edge-proxy-rs. What concerns the old proxy's own server is let be, and what is not known is warned of.
//! Environment variables are not read: those of the Python proxy are called `API_URL` and the like, which may be anybody's.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use reqwest::Url;
use serde_json::Value;

use super::fields::{self, FieldProblem, Fields, key, key_of, list, number, object, text};
use super::secret::FlagsmithKey;

/// Where Flagsmith's own Edge API is.
const API_URL: &str = "https://edge.api.flagsmith.com/api/v1";

/// Shortest and longest time between two polls, in seconds.
const POLL_FREQUENCY: RangeInclusive<u64> = 1..=86_400;

/// Shortest and longest time for one request, in seconds.
const POLL_TIMEOUT: RangeInclusive<u64> = 1..=300;

/// Shortest and longest time for which a round counts as fresh, in seconds.
const GRACE: RangeInclusive<u64> = 0..=u32::MAX as u64 - 1;

/// Fields of the old proxy's own server.
const OLD_SERVER: [&str; 4] = ["server", "logging", "allow_origins", "endpoint_caches"];

/// What is followed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlagsmithConfig {
    /// Environments that are named in the file. No key is in two of them.
    pub pairs: Vec<KeyPair>,
    /// Where the API is.
    pub api_url: ApiUrl,
    /// Time between the beginnings of two polls of one environment, 1 s to a day.
    pub poll_frequency: Duration,
    /// Time for one request with its answer, 1 s to 5 min.
    pub poll_timeout: Duration,
    /// For how many seconds a round counts as fresh; `None`: for ever.
    pub grace: Option<u32>,
    /// With it, Flagsmith is asked which environments there are.
    pub proxy_key: Option<FlagsmithKey>,
    /// Time between two reports of usage, 1 s to a day.
    pub usage_flush_interval: Duration,
}

/// Where Flagsmith's API is, with a slash at its end. It may hold a user and a password, which `Debug` and `Display` leave out.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiUrl(pub(super) Url);

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.0.origin().ascii_serialization(),
            self.0.path()
        )
    }
}

impl fmt::Debug for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiUrl({self})")
    }
}

/// The two keys of an environment that is named in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPair {
    /// Of servers. Documents are fetched with it.
    pub server_side: FlagsmithKey,
    /// Of clients.
    pub client_side: FlagsmithKey,
}

/// A field that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnusedField {
    /// It says how the old proxy's own server works.
    OldServer(&'static str),
    /// Nobody knows it; its path.
    Unknown(String),
}

/// Reads a configuration file. The fields that are not used come with it.
///
/// # Errors
/// When it is no JSON object, or a field that is used is refused.
pub fn parse(json: &[u8]) -> Result<(FlagsmithConfig, Vec<UnusedField>), FieldProblem> {
    let mut fields = object("", fields::json(json)?)?;
    let health_check = fields.take(&["health_check"]);
    let (grace, mut unknown) = match health_check {
        None | Some((_, Value::Null)) => (Some(GRACE_UNLESS_SAID), Vec::new()),
        Some((path, value)) => {
            let mut fields = object(&path, value)?;
            (grace(&mut fields)?, fields.unknown())
        }
    };
    let pairs = match fields.take(&["environment_key_pairs"]) {
        None | Some((_, Value::Null)) => Vec::new(),
        Some((path, value)) => pairs(&path, value, &mut unknown)?,
    };
    let proxy_key = match fields.take(&["proxy_key"]) {
        None | Some((_, Value::Null)) => None,
        Some((path, value)) => Some(key(&path, value)?),
    };
    if pairs.is_empty() && proxy_key.is_none() {
        let problem = "is empty, and there is no proxy_key: no environment is named";
        return Err(FieldProblem::new("environment_key_pairs", problem));
    }
    let config = FlagsmithConfig {
        pairs,
        api_url: api_url(&mut fields)?,
        poll_frequency: seconds(
            &mut fields,
            &["api_poll_frequency_seconds", "api_poll_frequency"],
            60,
            POLL_FREQUENCY,
        )?,
        poll_timeout: seconds(
            &mut fields,
            &["api_poll_timeout_seconds", "api_poll_timeout"],
            5,
            POLL_TIMEOUT,
        )?,
        grace,
        proxy_key,
        usage_flush_interval: seconds(
            &mut fields,
            &["usage_flush_interval_seconds"],
            60,
            POLL_FREQUENCY,
        )?,
    };
    let old_server: Vec<_> = OLD_SERVER
        .into_iter()
        .filter(|name| fields.take(&[name]).is_some())
        .map(UnusedField::OldServer)
        .collect();
    unknown.extend(fields.unknown());
    unknown.sort_unstable();
    unknown.dedup();
    let unknown = unknown.into_iter().map(UnusedField::Unknown);
    Ok((config, old_server.into_iter().chain(unknown).collect()))
}

/// For how long a round counts as fresh, in seconds, when the file does not say.
const GRACE_UNLESS_SAID: u32 = 120;

/// Only a `null` that somebody wrote means for ever.
fn grace(fields: &mut Fields) -> Result<Option<u32>, FieldProblem> {
    match fields.take(&["environment_update_grace_period_seconds"]) {
        None => Ok(Some(GRACE_UNLESS_SAID)),
        Some((_, Value::Null)) => Ok(None),
        Some((path, value)) => {
            let seconds = number(&path, &value, GRACE)?;
            Ok(u32::try_from(seconds).ok())
        }
    }
}

fn pairs(
    path: &str,
    value: Value,
    unknown: &mut Vec<String>,
) -> Result<Vec<KeyPair>, FieldProblem> {
    let mut seen = BTreeSet::new();
    let mut pairs = Vec::new();
    for (index, value) in list(path, value)?.into_iter().enumerate() {
        let path = format!("{path}[{index}]");
        let mut fields = object(&path, value)?;
        let mut taken = |name: &'static str, is_server_side: bool| {
            let (path, value) = fields.required(name)?;
            let key = key_of(&path, value, is_server_side)?;
            match seen.insert(key.clone()) {
                true => Ok(key),
                false => Err(FieldProblem::new(&path, "is there twice")),
            }
        };
        pairs.push(KeyPair {
            server_side: taken("server_side_key", true)?,
            client_side: taken("client_side_key", false)?,
        });
        // What all pairs have is one line in a log.
        let names = fields.unknown().into_iter();
        unknown.extend(names.map(|name| name.replace(&format!("[{index}]"), "[]")));
    }
    Ok(pairs)
}

/// With a slash at its end, so that paths can be joined to it.
fn api_url(fields: &mut Fields) -> Result<ApiUrl, FieldProblem> {
    let (path, text) = match fields.take(&["api_url"]) {
        None => ("api_url".to_owned(), API_URL.to_owned()),
        Some((path, value)) => (path.clone(), text(&path, value)?),
    };
    let refused = |problem: &str| FieldProblem::new(&path, problem);
    let mut url = Url::parse(text.trim())
        .map_err(|_| refused("is not a URL, use https://flagsmith.example.com/api/v1"))?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return Err(refused("must begin with https:// or http://"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(refused("must end with its path"));
    }
    let path = format!("{}/", url.path().trim_end_matches('/'));
    url.set_path(&path);
    Ok(ApiUrl(url))
}

fn seconds(
    fields: &mut Fields,
    names: &[&'static str],
    unless_said: u64,
    range: RangeInclusive<u64>,
) -> Result<Duration, FieldProblem> {
    let seconds = match fields.take(names) {
        None => unless_said,
        Some((path, value)) => number(&path, &value, range)?,
    };
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests;
