//! A connection as bytes, whatever carries it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Sleep, sleep};
use tokio_rustls::server::TlsStream;

use super::connection::GREETING_BYTES;

/// What carries a connection.
#[derive(Debug)]
pub enum Carrier {
    /// TCP in plain text.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TCP behind TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection that has to say something within a time: the preface of HTTP/2 and its first frame, or a request line; and that
/// has to take what it is sent.
///
/// HTTP/2 asks a silent peer whether it is still there, but only one that has greeted.
#[derive(Debug)]
pub struct Stream {
    carrier: Carrier,
    greeting: Option<Greeting>,
    /// Longest time in which the peer takes nothing of what is to be sent.
    write_within: Duration,
    /// When that is over, while it takes nothing.
    write_due: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
struct Greeting {
    due: Pin<Box<Sleep>>,
    /// Bytes that are still missing.
    missing: usize,
}

impl Stream {
    /// A connection whose peer sends the first bytes of HTTP/2 within `handshake`, and takes something of what it is sent within
    /// `write`, or is let go.
    pub fn http2(carrier: Carrier, handshake: Duration, write: Duration) -> Self {
        Stream::new(carrier, handshake, write, GREETING_BYTES)
    }

    /// The same with so many first bytes.
    pub(super) fn new(carrier: Carrier, handshake: Duration, write: Duration, bytes: usize) -> Self {
        let greeting = Greeting { due: Box::pin(sleep(handshake)), missing: bytes };
        Stream { carrier, greeting: Some(greeting), write_within: write, write_due: None }
    }

    /// What writing came to, which fails where the peer has taken nothing for too long.
    fn written<T>(&mut self, result: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.write_due = None;
            return result;
        }
        let due = self.write_due.get_or_insert_with(|| Box::pin(sleep(self.write_within)));
        ready!(due.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Stream { carrier, greeting, .. } = &mut *self;
        let before = buf.filled().len();
        let result = match carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if let Some(waited) = greeting {
            if result.is_pending() {
                ready!(waited.due.as_mut().poll(cx));
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            waited.missing = waited.missing.saturating_sub(buf.filled().len() - before);
            if waited.missing == 0 {
                *greeting = None;
            }
        }
        result
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Carrier::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Carrier::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.written(result, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Carrier::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Carrier::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.written(result, cx)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.is_write_vectored(),
            Carrier::Unix(stream) => stream.is_write_vectored(),
            Carrier::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_flush(cx),
        };
        self.written(result, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        self.written(result, cx)
    }
}
