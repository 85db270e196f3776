//! TLS for the TCP listeners: certificates from files, read again when they change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use super::dispatch::Plane;
use super::secrets::read_private;
use super::{ServeError, TlsFiles};

/// The certificates of a server.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    files: Vec<Option<Fingerprint>>,
    looked: Instant,
}

/// Device, number, length and time of change of a file.
type Fingerprint = (u64, u64, u64, i64, i64);

impl Tls {
    /// How often files are looked at, at most.
    const LOOK: Duration = Duration::from_secs(1);

    /// Reads the files.
    pub(super) fn read(files: &TlsFiles) -> Result<Self, ServeError> {
        // Looked at before they are read: a change in between is found by the next look.
        let seen = fingerprints(files);
        let current = Current { config: configure(files)?, files: seen, looked: Instant::now() };
        Ok(Tls { files: files.clone(), current: Mutex::new(current) })
    }

    /// What the next connection is accepted with. Files that have changed are read again; those that cannot be used leave what
    /// was there.
    pub(super) fn acceptor(&self, plane: Plane) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.looked.elapsed() >= Self::LOOK {
            current.looked = Instant::now();
            let seen = fingerprints(&self.files);
            if seen != current.files {
                match configure(&self.files) {
                    Ok(config) => {
                        current.config = config;
                        tracing::info!("the certificates were read again");
                    }
                    Err(error) => tracing::warn!(%error, "the certificates have changed and cannot be used"),
                }
                current.files = seen;
            }
        }
        match plane {
            Plane::Data | Plane::Admin => TlsAcceptor::from(Arc::clone(&current.config)),
            Plane::Http => {
                // What is behind it is shared, so a copy costs little beside a handshake.
                let mut config = ServerConfig::clone(&current.config);
                config.alpn_protocols = vec![b"http/1.1".to_vec()];
                TlsAcceptor::from(Arc::new(config))
            }
        }
    }
}

fn fingerprints(files: &TlsFiles) -> Vec<Option<Fingerprint>> {
    let look = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.len(), file.mtime(), file.mtime_nsec()))
    };
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    paths.into_iter().flatten().map(|path| look(path)).collect()
}

fn configure(files: &TlsFiles) -> Result<Arc<ServerConfig>, ServeError> {
    let chain = certificates(&files.certificate)?;
    let refused = |path: &Path, error: &dyn std::fmt::Display| ServeError::File {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let key = PrivateKeyDer::from_pem_slice(&read_private(&files.key)?)
        .map_err(|error| refused(&files.key, &format!("no private key in PEM: {error}")))?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&files.certificate, &error))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(path)? {
                roots.add(authority).map_err(|error| refused(path, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| refused(path, &error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| refused(&files.certificate, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let refused = |reason: String| ServeError::File { path: path.to_owned(), reason };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| refused(error.to_string()))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| refused(error.to_string()))?;
    if found.is_empty() {
        return Err(refused("no certificate in PEM".to_owned()));
    }
    Ok(found)
}
