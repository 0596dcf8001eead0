//! What `watch` is told of PostHog: its database, and its cache of flag definitions.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use flag_definitions_filter::surfaces::posthog::definitions::settings::Definitions;

use super::database::Database;
use super::etags::{ETags, Places};
use crate::redis::options::{ConnectionOptions, prefix};
use crate::redis::server::Server;
use crate::sources::ETagSource;
use crate::sources::options::OptionError;

/// Options of PostHog as a source that is watched.
#[derive(Debug, Args)]
pub struct PostHogOptions {
    /// PostHog's database: postgres://user:password@host:port/database
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    pub postgres_url: Option<String>,
    /// The same database without a pooler before it, for LISTEN [default: --postgres-url]
    #[arg(
        long,
        value_name = "URL",
        env = "LISTEN_DATABASE_URL",
        hide_env_values = true
    )]
    pub listen_url: Option<String>,
    /// CA of Postgres' certificate (PEM) [default: those that browsers accept]
    #[arg(long, value_name = "FILE", env = "POSTGRES_CA_FILE")]
    pub postgres_ca_file: Option<PathBuf>,
    /// The Redis that holds PostHog's flag definitions [default: --redis-url, and with --file alone none is watched]
    #[arg(
        long,
        value_name = "URL",
        env = "DEFINITIONS_REDIS_URL",
        hide_env_values = true
    )]
    pub definitions_redis_url: Option<String>,
    /// CA of that Redis' certificate (PEM) [default: --redis-ca-file]
    #[arg(long, value_name = "FILE", env = "DEFINITIONS_REDIS_CA_FILE")]
    pub definitions_redis_ca_file: Option<PathBuf>,
    /// What PostHog's keys begin with: definitions.key_prefix of the plugin configuration
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FLAG_DEFINITIONS_KEY_PREFIX",
        default_value = "posthog:",
        value_parser = prefix
    )]
    pub key_prefix: String,
    /// Version in PostHog's keys: definitions.cache_version of the plugin configuration
    #[arg(
        long,
        value_name = "VERSION",
        env = "FLAG_DEFINITIONS_CACHE_VERSION",
        default_value = "1",
        value_parser = prefix
    )]
    pub cache_version: String,
}

impl PostHogOptions {
    /// The cache of flag definitions. It is watched where the database is (`has_database`), or where its Redis is named.
    /// `connection` and `redis` are of the Redis that holds the snapshot.
    ///
    /// # Errors
    /// When an option is refused.
    pub fn etags(
        &self,
        connection: &ConnectionOptions,
        redis: &Arc<Server>,
        has_database: bool,
    ) -> Result<Option<Box<dyn ETagSource>>, OptionError> {
        let definitions = self.definitions_redis(connection)?.map(Arc::new);
        if !has_database && definitions.is_none() {
            return Ok(None);
        }
        Ok(Some(Box::new(ETags::new(Places {
            clock: definitions.as_ref().map(|_| Arc::clone(redis)),
            definitions: definitions.unwrap_or_else(|| Arc::clone(redis)),
            settings: Definitions {
                key_prefix: self.key_prefix.clone(),
                cache_version: self.cache_version.clone(),
                ..Definitions::default()
            },
            prefix: connection.prefix.clone(),
        }))))
    }

    /// The database, if one is named.
    ///
    /// # Errors
    /// When an option is refused.
    pub fn database(&self) -> Result<Option<Database>, OptionError> {
        let listen_url = self.listen_url.as_deref();
        let ca_file = self.postgres_ca_file.as_deref();
        let parse = |url: &String| Database::parse(url, listen_url, ca_file);
        self.postgres_url.as_ref().map(parse).transpose()
    }

    /// `None`: the one that holds the snapshot.
    fn definitions_redis(
        &self,
        connection: &ConnectionOptions,
    ) -> Result<Option<Server>, OptionError> {
        let refused = |option, problem| OptionError { option, problem };
        let Some(url) = &self.definitions_redis_url else {
            return Ok(None);
        };
        let server = Server::parse(url)
            .map_err(|problem| refused("--definitions-redis-url", problem.to_string()))?;
        let inherited = connection.redis_ca_file.as_ref();
        let ca_file = self.definitions_redis_ca_file.as_ref();
        match ca_file.or(inherited.filter(|_| server.is_tls())) {
            None => Ok(Some(server)),
            Some(file) => server.trusting(file).map(Some).map_err(|error| {
                let problem = format!("{} {error}", file.display());
                refused("--definitions-redis-ca-file", problem)
            }),
        }
    }
}
