//! Who is at the other end of a connection, for the log of what operators do.

use std::fmt;
use std::io;
use std::sync::Arc;

use bellwether_artifact::Sha256;
use tokio::net::TcpStream;

use super::stream::Carrier;

/// Who calls, in words: the address of a TCP connection and the SHA-256 of its client certificate, or the user and the process
/// behind a Unix socket.
#[derive(Clone, Debug)]
pub(super) struct Caller(Arc<str>);

impl Caller {
    /// Who is behind a connection.
    pub(super) fn of(carrier: &Carrier) -> Caller {
        let told = match carrier {
            Carrier::Tcp(stream) => address(stream),
            Carrier::Tls(stream) => {
                let (stream, session) = stream.get_ref();
                match session.peer_certificates().and_then(|chain| chain.first()) {
                    Some(leaf) => format!("{}, certificate {}", address(stream), Sha256::of(leaf)),
                    None => address(stream),
                }
            }
            Carrier::Unix(stream) => match stream.peer_cred() {
                Ok(cred) => {
                    let process = cred.pid().map(|pid| format!(", process {pid}")).unwrap_or_default();
                    format!("user {}{process}", cred.uid())
                }
                Err(error) => unknown(&error),
            },
        };
        Caller(told.into())
    }

    /// Of a request that came without a connection of ours.
    pub(super) fn nobody() -> Caller {
        Caller("unknown".into())
    }
}

fn address(stream: &TcpStream) -> String {
    stream.peer_addr().map_or_else(|error| unknown(&error), |address| address.to_string())
}

/// The peer is gone already.
fn unknown(error: &io::Error) -> String {
    format!("unknown ({error})")
}

impl fmt::Display for Caller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}
