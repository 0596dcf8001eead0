//! A CA of one test, and a Redis with a certificate of it.

use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

use crate::support::{Redis, free_port};

/// A CA, and what a server with a certificate of it needs, as files.
pub struct Certificates {
    directory: tempfile::TempDir,
}

impl Certificates {
    /// For a server that is reached under this name.
    pub fn of(name: &str) -> Self {
        let mut ca = CertificateParams::default();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let server = server.signed_by(&key, &ca).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let files = Self { directory };
        std::fs::write(files.path("ca.pem"), ca.pem()).unwrap();
        std::fs::write(files.path("server.pem"), server.pem()).unwrap();
        std::fs::write(files.path("server.key"), key.serialize_pem()).unwrap();
        files
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A Redis with this certificate, and its port for TLS.
    pub fn redis(&self) -> (Redis, u16) {
        let port = free_port();
        let file = |name| self.path(name).to_str().unwrap().to_owned();
        let redis = Redis::start_with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-auth-clients",
            "no",
        ]);
        (redis, port)
    }
}
