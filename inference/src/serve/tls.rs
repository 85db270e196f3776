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

/// The certificates of a server, read again when their files change.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    current: Mutex<Current>,
}

#[derive(Debug)]
struct Current {
    config: Arc<ServerConfig>,
    files: Vec<Option<Fingerprint>>,
    looked: Instant,
}

/// Device, number, length and time of change of a file, also of its mode and owner.
type Fingerprint = (u64, u64, u64, i64, i64);

impl Tls {
    /// How often files are looked at, at most.
    const LOOK: Duration = Duration::from_secs(1);

    /// Reads the files.
    ///
    /// # Errors
    /// [`ServeError::File`]: one cannot be read or used, or others may read the key.
    pub fn read(files: &TlsFiles) -> Result<Self, ServeError> {
        // Looked at before they are read: a change in between is found by the next look.
        let seen = fingerprints(files);
        let current = Current { config: configure(files)?, files: seen, looked: Instant::now() };
        Ok(Tls { files: files.clone(), current: Mutex::new(current) })
    }

    /// What the next connection of HTTP/2 is accepted with. Files that have changed are read again; those that cannot be used leave
    /// what was there.
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor_of(Plane::Data)
    }

    /// The same for a listener of this kind.
    pub(super) fn acceptor_of(&self, plane: Plane) -> TlsAcceptor {
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
        Some((file.dev(), file.ino(), file.len(), file.ctime(), file.ctime_nsec()))
    };
    let paths = [Some(&files.certificate), Some(&files.key), files.client_ca.as_ref()];
    paths.into_iter().flatten().map(|path| look(path)).collect()
}

fn configure(files: &TlsFiles) -> Result<Arc<ServerConfig>, ServeError> {
    let chain = certificates("tls.certificate", &files.certificate)?;
    let refused = |path: &Path, reason: String| ServeError::File { path: path.to_owned(), reason };
    let key = PrivateKeyDer::from_pem_slice(&read_private(&files.key)?).map_err(|error| {
        refused(&files.key, format!("it is no tls.key: {error}; give a private key in PEM, without a passphrase"))
    })?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| refused(&files.certificate, format!("TLS cannot be spoken: {error}; report this")))?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            let unfit = |error: &dyn std::fmt::Display| {
                refused(path, format!("it is no tls.client_ca: {error}; give the certificates of authorities, in PEM"))
            };
            for authority in certificates("tls.client_ca", path)? {
                roots.add(authority).map_err(|error| unfit(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(|error| unfit(&error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|error| {
        let key = files.key.display();
        let reason = format!(
            "tls.certificate and tls.key ({key}) are no pair: {error}; give the server's own certificate first in the chain, \
             and the key of that one"
        );
        refused(&files.certificate, reason)
    })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(key: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    let refused = |why: &dyn std::fmt::Display| ServeError::File {
        path: path.to_owned(),
        reason: format!("it is no {key}: {why}; give certificates in PEM"),
    };
    let found = CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(|error| refused(&error))?;
    if found.is_empty() {
        return Err(refused(&"it holds none"));
    }
    Ok(found)
}
