//! Keyspace notifications: Redis itself says that an ETag was written. They make a change known sooner; whether Redis
//! sends them is its own setting (`notify-keyspace-events`), and none that is lost does harm.

use std::sync::mpsc::Sender;
use std::time::Duration;

use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;
use flag_definitions_filter::tenant::Tenant;
use tracing::{debug, info};

use crate::redis::server::Server;
use crate::sources::{ETagNews, Order, Tell};

/// Between two attempts to subscribe.
const RETRY: Duration = Duration::from_secs(10);

/// After this long without a word it is subscribed anew: a connection that broke silently says nothing either.
const QUIET: Duration = Duration::from_secs(60);

/// Why a subscription ended.
enum Ended {
    Quiet,
    /// The sweeper is gone.
    Gone,
}

/// Listens until the sweeper is gone.
pub fn listen(server: &Server, settings: &Definitions, orders: &Sender<Order>, tell: &Tell) {
    let mut is_told = false;
    loop {
        match subscribe(server, settings, orders, tell) {
            Ok(Ended::Gone) => return,
            Ok(Ended::Quiet) => continue,
            Err(problem) if is_told => debug!(problem, "no keyspace notifications"),
            Err(problem) => {
                is_told = true;
                info!(
                    problem,
                    "no keyspace notifications; new ETags are found by looking"
                );
            }
        }
        std::thread::sleep(RETRY);
    }
}

/// What keys of ETags look like in the names of channels.
fn pattern(settings: &Definitions, database: i64) -> String {
    let prefix = format!("{}{}", settings.key_prefix, settings.cache_version);
    let mut escaped = String::new();
    for character in prefix.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    format!("__keyspace@{database}__:{escaped}:cache/teams/*:etag")
}

fn team(channel: &str) -> Option<Tenant> {
    let (_, rest) = channel.rsplit_once(":cache/teams/")?;
    let (team, _) = rest.split_once('/')?;
    team.parse().ok().map(Tenant)
}

fn subscribe(
    server: &Server,
    settings: &Definitions,
    orders: &Sender<Order>,
    tell: &Tell,
) -> Result<Ended, String> {
    let mut connection = server.connect().map_err(|error| error.to_string())?;
    let failed = |error| server.command_problem(&error).to_string();
    connection.set_read_timeout(Some(QUIET)).map_err(failed)?;
    let mut subscription = connection.as_pubsub();
    subscription
        .psubscribe(pattern(settings, server.database()))
        .map_err(failed)?;
    loop {
        let message = match subscription.get_message() {
            Err(error) if error.is_timeout() => return Ok(Ended::Quiet),
            message => message.map_err(failed)?,
        };
        if let Some(team) = team(message.get_channel_name()) {
            let told = tell(ETagNews::Hinted);
            if told.is_err() || orders.send(Order::Hint(team)).is_err() {
                return Ok(Ended::Gone);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_name_teams() {
        let settings = Definitions::default();
        assert_eq!(
            pattern(&settings, 3),
            "__keyspace@3__:posthog:1:cache/teams/*:etag"
        );
        let channel =
            "__keyspace@0__:posthog:1:cache/teams/42/feature_flags/flags_with_cohorts.json:etag";
        assert_eq!(team(channel), Some(Tenant(42)));
        for other in [
            "",
            "__keyspace@0__:posthog:1:cache/teams/x/a:etag",
            "cache/teams/4",
        ] {
            assert_eq!(team(other), None);
        }
    }
}
