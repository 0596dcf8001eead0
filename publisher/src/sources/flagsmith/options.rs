//! What `watch` is told of Flagsmith.

use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use tracing::{info, warn};

use super::config::{self, UnusedField};
use super::follower::FlagsmithSource;
use super::upstream::Upstream;
use crate::sources::authorities::authorities;
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
    #[arg(
        long,
        env = "FLAGSMITH_ALLOW_EMPTY",
        value_parser = BoolishValueParser::new(),
        requires = "flagsmith_config"
    )]
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
        let roots = authorities(ca_file).map_err(|problem| OptionError {
            option: "--flagsmith-ca-file",
            problem: match ca_file {
                Some(file) => format!("the CA file {} {problem}", file.display()),
                None => problem,
            },
        })?;
        let upstream =
            Upstream::new(&config, roots).map_err(|problem| refused(problem.to_string()))?;
        let source = FlagsmithSource::new(config, upstream, self.flagsmith_allow_empty);
        Ok(Some(Box::new(source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tempfile::NamedTempFile;

    fn open(file: &Value, ca_file: Option<PathBuf>) -> Result<&'static str, String> {
        let written = NamedTempFile::new().unwrap();
        std::fs::write(&written, file.to_string()).unwrap();
        let options = FlagsmithOptions {
            flagsmith_config: Some(written.path().to_owned()),
            flagsmith_ca_file: ca_file,
            flagsmith_allow_empty: false,
        };
        let path = written.path().display().to_string();
        let source = options
            .open()
            .map_err(|error| error.to_string().replace(&path, "FILE"));
        source.map(|source| source.unwrap().surface())
    }

    #[test]
    fn without_a_file_no_flagsmith_is_followed() {
        assert!(FlagsmithOptions::default().open().unwrap().is_none());
    }

    #[test]
    fn a_file_is_taken_or_refused_by_name_and_field() {
        assert_eq!(open(&json!({"proxy_key": "pk.a"}), None), Ok("flagsmith"));
        let refused = open(&json!({"proxy_key": "hunter 2"}), None).unwrap_err();
        let expected = "--flagsmith-config: FILE: proxy_key: must be 1 to 1024 characters of ASCII without spaces \
                        (nothing was written)";
        assert_eq!(refused, expected);
        let options = FlagsmithOptions {
            flagsmith_config: Some(PathBuf::from("/nowhere.json")),
            ..FlagsmithOptions::default()
        };
        let missing = options.open().err().unwrap().to_string();
        assert!(
            missing.starts_with("--flagsmith-config: /nowhere.json: "),
            "{missing}"
        );
    }

    #[test]
    fn a_ca_file_without_certificates_is_refused() {
        let empty = NamedTempFile::new().unwrap();
        let ca_file = Some(empty.path().to_owned());
        let refused = open(&json!({"proxy_key": "pk.a"}), ca_file).unwrap_err();
        let expected = format!(
            "--flagsmith-ca-file: the CA file {} has no certificate",
            empty.path().display()
        );
        assert_eq!(refused, expected);
    }
}
