//! Connections of a stage: so many at a time, greeted in time, over TLS by certificates that are read again when they change.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bellwether_inference::serve::{Carrier, Stream, Tls, is_the_peers};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;

/// Where connections come from.
#[derive(Debug)]
pub(super) enum Door {
    /// A Unix socket.
    Unix(tokio::net::UnixListener),
    /// TCP, and the certificates of this side.
    Tcp(tokio::net::TcpListener, Arc<Tls>),
}

/// A connection that was let in.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    _slot: OwnedSemaphorePermit,
}

/// How long TLS and the first bytes of HTTP/2 may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a peer may take nothing of what it is sent.
const WRITE: Duration = Duration::from_secs(60);
/// After a failure, such as too many open files, which the next attempt would meet again.
const PAUSE: Duration = Duration::from_millis(50);
/// Connections that were let in and that nobody speaks on yet.
const WAITING: usize = 16;

impl Door {
    pub(super) fn unix(listener: UnixListener) -> io::Result<Door> {
        tokio::net::UnixListener::from_std(listener).map(Door::Unix)
    }

    pub(super) fn tcp(listener: TcpListener, tls: Tls) -> io::Result<Door> {
        listener.set_nonblocking(true)?;
        Ok(Door::Tcp(tokio::net::TcpListener::from_std(listener)?, Arc::new(tls)))
    }

    /// Lets so many in at a time, those that still shake hands too, until nobody wants them any more. One too many is closed at once.
    pub(super) fn open(self, most: usize) -> ReceiverStream<io::Result<Connection>> {
        let (give, come) = mpsc::channel(WAITING);
        let slots = Arc::new(Semaphore::new(most));
        tokio::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    () = give.closed() => return,
                    accepted = self.accept() => accepted,
                };
                let (carrier, tls) = match accepted {
                    Ok(accepted) => accepted,
                    Err(error) if is_the_peers(&error) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                };
                let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else {
                    tracing::warn!(most, "a connection too many was closed");
                    continue;
                };
                let give = give.clone();
                tokio::spawn(async move {
                    let Some(carrier) = greet(carrier, tls).await else { return };
                    let stream = Stream::http2(carrier, HANDSHAKE, WRITE);
                    // Where the server has ended meanwhile, so has the connection.
                    _ = give.send(Ok(Connection { stream, _slot: slot })).await;
                });
            }
        });
        ReceiverStream::new(come)
    }

    async fn accept(&self) -> io::Result<(Carrier, Option<Arc<Tls>>)> {
        Ok(match self {
            Door::Unix(listener) => (Carrier::Unix(listener.accept().await?.0), None),
            Door::Tcp(listener, tls) => {
                let (stream, _) = listener.accept().await?;
                // An answer is small and waited for.
                stream.set_nodelay(true)?;
                (Carrier::Tcp(stream), Some(Arc::clone(tls)))
            }
        })
    }
}

/// Shakes hands, where that is wanted.
async fn greet(carrier: Carrier, tls: Option<Arc<Tls>>) -> Option<Carrier> {
    let (stream, tls) = match (carrier, tls) {
        (Carrier::Tcp(stream), Some(tls)) => (stream, tls),
        (carrier, _) => return Some(carrier),
    };
    match tokio::time::timeout(HANDSHAKE, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => Some(Carrier::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
