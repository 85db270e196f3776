//! Where a stage is served, and how a client shows who it is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use bellwether_inference::serve::read_private;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Where a stage is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A host and its port, over TLS.
    Tls(String),
}

/// Files that a client shows, and those that it knows servers by. All are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities of servers.
    pub authority: PathBuf,
    /// The client's certificate chain.
    pub certificate: PathBuf,
    /// Its private key; readable by its owner alone.
    pub key: PathBuf,
}

/// Why a stage elsewhere cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is no address.
    #[error("{text:?} is no address of a stage: give unix:PATH or https://HOST:PORT")]
    Address {
        /// What was given.
        text: String,
    },
    /// Certificates are needed for it.
    #[error("{address} is reached over TLS: give an authority, a certificate and a key")]
    Tls {
        /// The address.
        address: String,
    },
    /// A file cannot be used.
    #[error("{}: {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The system gives no threads for it.
    #[error("cannot start the threads of a client: {0}")]
    Threads(std::io::Error),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let refused = || AddressError::Address { text: text.to_owned() };
        match (text.strip_prefix("unix:"), text.strip_prefix("https://")) {
            (Some(path), _) if !path.is_empty() => Ok(Address::Unix(PathBuf::from(path))),
            (_, Some(host)) => {
                let (name, port) = host.rsplit_once(':').ok_or_else(refused)?;
                let port = port.parse::<u16>().is_ok_and(|port| port > 0);
                let plain = !name.is_empty() && !name.contains(['/', '@', '?', '#', ' ']);
                if plain && port { Ok(Address::Tls(host.to_owned())) } else { Err(refused()) }
            }
            _ => Err(refused()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
            Address::Tls(host) => write!(f, "https://{host}"),
        }
    }
}

impl Address {
    pub(super) fn endpoint(&self, tls: Option<&ClientTls>) -> Result<Endpoint, AddressError> {
        let refused = |_| AddressError::Address { text: self.to_string() };
        let endpoint = Endpoint::from_shared(self.to_string()).map_err(refused)?;
        match (self, tls) {
            (Address::Unix(_), _) => Ok(endpoint),
            (Address::Tls(_), None) => Err(AddressError::Tls { address: self.to_string() }),
            (Address::Tls(_), Some(tls)) => {
                let why = |error: tonic::transport::Error| AddressError::File {
                    path: tls.certificate.clone(),
                    why: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
                };
                endpoint.tls_config(tls.config()?).map_err(why)
            }
        }
    }
}

impl ClientTls {
    fn config(&self) -> Result<ClientTlsConfig, AddressError> {
        let key = read_private(&self.key)
            .map_err(|error| AddressError::File { path: self.key.clone(), why: error.to_string() })?;
        let identity = Identity::from_pem(read(&self.certificate)?, key);
        let authority = Certificate::from_pem(read(&self.authority)?);
        Ok(ClientTlsConfig::new().ca_certificate(authority).identity(identity))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AddressError> {
    std::fs::read(path).map_err(|error| AddressError::File { path: path.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_or_hosts_over_tls() {
        for (text, good) in [
            ("unix:/run/stage-1.sock", true),
            ("unix:stage-1.sock", true),
            ("https://stage-1.example:4100", true),
            ("https://[::1]:4100", true),
            ("unix:", false),
            ("https://stage-1.example", false),
            ("https://:4100", false),
            ("https://a:0", false),
            ("https://a:99999", false),
            ("https://user@a:1", false),
            ("http://stage-1.example:4100", false),
            ("stage-1.example:4100", false),
            ("", false),
        ] {
            let address = text.parse::<Address>();
            assert_eq!(address.is_ok(), good, "{text}");
            assert!(address.map_or(true, |address| address.to_string() == text));
        }
    }

    #[test]
    fn a_host_is_never_asked_without_certificates() {
        let address: Address = "https://localhost:1".parse().unwrap();
        assert!(matches!(address.endpoint(None), Err(AddressError::Tls { .. })));
    }
}
