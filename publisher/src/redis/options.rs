//! What commands are told of the Redis that holds the snapshot.
//!
//! The URL is checked where it is used, not by clap: clap's messages repeat a refused value, and the URL holds a
//! password.

use std::path::PathBuf;

use clap::Args;

use super::error::ConnectionError;
use super::server::Server;

/// Where the snapshot is.
#[derive(Debug, Args)]
pub struct ConnectionOptions {
    /// redis://user:password@host:port/database, rediss://… for TLS, or unix:///path
    // The value stays hidden: --help would show the password that is in the environment. The command line has it unless
    // a command says that it can do without.
    #[arg(
        long,
        value_name = "URL",
        env = "REDIS_URL",
        hide_env_values = true,
        required = true
    )]
    pub redis_url: Option<String>,
    /// CA of Redis' certificate (PEM), with rediss:// [default: those that browsers accept]
    #[arg(long, value_name = "FILE", env = "REDIS_CA_FILE")]
    pub redis_ca_file: Option<PathBuf>,
    /// What the keys begin with: snapshot.prefix of the plugin configuration
    #[arg(
        long,
        value_name = "PREFIX",
        env = "FLAG_DEFINITIONS_PREFIX",
        default_value = "flag_definitions:",
        value_parser = prefix
    )]
    pub prefix: String,
}

impl ConnectionOptions {
    /// The server. No URL is refused like an empty one.
    ///
    /// # Errors
    /// When the URL or the CA file is refused.
    pub fn server(&self) -> Result<Server, ConnectionError> {
        let url = self.redis_url.as_deref().unwrap_or_default();
        let server = Server::parse(url).map_err(ConnectionError::Url)?;
        match &self.redis_ca_file {
            None => Ok(server),
            Some(file) => server
                .trusting(file)
                .map_err(|error| ConnectionError::Ca(file.clone(), error)),
        }
    }
}

/// What the filter's configuration takes as `snapshot.prefix`.
///
/// # Errors
/// When it is empty, longer than 200 bytes, or has control characters.
pub fn prefix(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("must not be empty"),
        text if text.len() > 200 || text.chars().any(char::is_control) => {
            Err("must be at most 200 bytes, without control characters")
        }
        text => Ok(text.to_owned()),
    }
}
