//! Where stages and policies are served, and how a client shows who it is.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use bellwether_inference::serve::{ServeError, read_private};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// Between two questions whether the other end of a connection is still there, and how long the answer may take.
pub(crate) const KEEPALIVE: Duration = Duration::from_secs(5);

/// Where something is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A port of this host, in plain text. Policies alone are asked so: who may run files shows a certificate.
    Loopback(SocketAddr),
    /// A host and its port, over TLS.
    Tls(String),
}

/// Files that a client knows servers by, and those that it shows. All are PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientTls {
    /// Authorities of servers.
    pub authority: PathBuf,
    /// Who the client is; stages want to know it.
    pub identity: Option<ClientIdentity>,
}

/// Who a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// Its certificate chain.
    pub certificate: PathBuf,
    /// Its private key; readable by its owner alone.
    pub key: PathBuf,
}

/// Why nobody can be asked there.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// It is no address.
    #[error(
        "{text:?} is no address: give unix:PATH or https://HOST:PORT, or for a policy service of this host http://127.0.0.1:PORT"
    )]
    Address {
        /// What was given.
        text: String,
    },
    /// Certificates are needed for it.
    #[error(
        "{address} is asked over TLS: give https:// with an authority, and for a stage a certificate and its key too"
    )]
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
    /// A file with a secret cannot be used.
    #[error(transparent)]
    Private(#[from] ServeError),
    /// The system gives no threads for it.
    #[error("cannot start the threads of a client: {0}")]
    Threads(std::io::Error),
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Address, AddressError> {
        let refused = || AddressError::Address { text: text.to_owned() };
        match (text.strip_prefix("unix:"), text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(path), _, _) if !path.is_empty() => Ok(Address::Unix(PathBuf::from(path))),
            (_, _, Some(host)) => {
                let address = host.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
                address.filter(|address| address.port() > 0).map(Address::Loopback).ok_or_else(refused)
            }
            (_, Some(host), _) => {
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
            Address::Loopback(address) => write!(f, "http://{address}"),
            Address::Tls(host) => write!(f, "https://{host}"),
        }
    }
}

impl Address {
    /// A thread of this name for a client, and its channel, which connects when it is used and gives up after `within`.
    pub(crate) fn channel(
        &self,
        tls: Option<&ClientTls>,
        thread: &str,
        within: Duration,
    ) -> Result<(Runtime, Channel), AddressError> {
        let mut runtime = Builder::new_multi_thread();
        runtime.worker_threads(1).thread_name(thread).enable_io().enable_time();
        let runtime = runtime.build().map_err(AddressError::Threads)?;
        let endpoint = self
            .endpoint(tls)?
            .connect_timeout(within)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let channel = {
            let _inside = runtime.enter();
            endpoint.connect_lazy()
        };
        Ok((runtime, channel))
    }

    fn endpoint(&self, tls: Option<&ClientTls>) -> Result<Endpoint, AddressError> {
        let refused = |_| AddressError::Address { text: self.to_string() };
        let endpoint = Endpoint::from_shared(self.to_string()).map_err(refused)?;
        match (self, tls) {
            (Address::Unix(_) | Address::Loopback(_), _) => Ok(endpoint),
            (Address::Tls(_), None) => Err(AddressError::Tls { address: self.to_string() }),
            (Address::Tls(_), Some(tls)) => {
                let why = |error: tonic::transport::Error| AddressError::File {
                    path: tls.identity.as_ref().map_or(&tls.authority, |identity| &identity.certificate).clone(),
                    why: std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string),
                };
                endpoint.tls_config(tls.config()?).map_err(why)
            }
        }
    }
}

impl ClientTls {
    fn config(&self) -> Result<ClientTlsConfig, AddressError> {
        let config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&self.authority)?));
        let Some(ClientIdentity { certificate, key }) = &self.identity else { return Ok(config) };
        Ok(config.identity(Identity::from_pem(read(certificate)?, read_private(key)?)))
    }
}

fn read(path: &Path) -> Result<Vec<u8>, AddressError> {
    std::fs::read(path).map_err(|error| AddressError::File { path: path.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_sockets_hosts_over_tls_or_ports_of_this_host() {
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
            ("http://127.0.0.1:50051", true),
            ("http://[::1]:50051", true),
            ("http://127.0.0.1:0", false),
            ("http://10.0.0.7:50051", false),
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
