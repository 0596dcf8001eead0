//! What `watch` is told of Flagsmith.

use std::path::PathBuf;

use clap::Args;
use tracing::{info, warn};

use super::config::{self, UnusedField};
use super::follower::FlagsmithSource;
use super::upstream::Upstream;
use crate::sources::documents::DocumentSource;
use crate::sources::options::OptionError;

/// Options of Flagsmith as a source that is followed.
#[derive(Clone, Debug, Default, Args)]
pub struct FlagsmithOptions {
    /// Configuration file of Flagsmith's Edge Proxy: its environments are followed as well
    #[arg(long, value_name = "FILE", env = "FLAGSMITH_CONFIG")]
    pub flagsmith_config: Option<PathBuf>,
    /// CA of the certificate of Flagsmith's API (PEM) [default: those that browsers accept]
    #[arg(
        long,
        value_name = "FILE",
        env = "FLAGSMITH_CA_FILE",
        requires = "flagsmith_config"
    )]
    pub flagsmith_ca_file: Option<PathBuf>,
    /// Take an empty list of environments as it is, rather than keep those that were known
    #[arg(long, env = "FLAGSMITH_ALLOW_EMPTY", requires = "flagsmith_config")]
    pub flagsmith_allow_empty: bool,
}

impl FlagsmithOptions {
    /// Reads the configuration file; `None`: no Flagsmith is followed.
    ///
    /// # Errors
    /// When a file is refused.
    pub fn open(&self) -> Result<Option<Box<dyn DocumentSource>>, OptionError> {
        let Some(file) = &self.flagsmith_config else {
            return Ok(None);
        };
        let refused = |problem: String| OptionError {
            option: "--flagsmith-config",
            problem: format!("{}: {problem} (nothing was written)", file.display()),
        };
        let json = std::fs::read(file).map_err(|error| refused(error.to_string()))?;
        let (config, unused) =
            config::parse(&json).map_err(|problem| refused(problem.to_string()))?;
        for field in unused {
            match field {
                UnusedField::OldServer(field) => info!(
                    field,
                    "not used: it says how the Edge Proxy's own server works, which is not run"
                ),
                UnusedField::Unknown(field) => warn!(field, "not used: this field is not known"),
            }
        }
        let ca_file = self.flagsmith_ca_file.as_deref();
        let upstream = Upstream::new(&config, ca_file).map_err(|problem| {
            let path = ca_file.unwrap_or(file).display();
            OptionError {
                option: "--flagsmith-ca-file",
                problem: format!("{path}: {problem}"),
            }
        })?;
        let source = FlagsmithSource::new(config, upstream, self.flagsmith_allow_empty);
        Ok(Some(Box::new(source)))
    }
}
