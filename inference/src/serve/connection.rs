//! One connection, from its first byte to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::sleep;

use super::config::ServeConfig;
use super::dispatch::{Dispatch, Plane};
use super::shared::Phase;
use super::stream::Stream;
use super::unread::Impatient;

/// The preface of HTTP/2 and the head of the settings that follow it.
pub(super) const GREETING_BYTES: usize = 24 + 9;

/// Whether a connection has anything to do.
#[derive(Debug)]
pub(super) struct Activity {
    since: Instant,
    requests: AtomicUsize,
    /// When the last request ended, in milliseconds since `since`.
    last_ms: AtomicU64,
}

impl Activity {
    pub(super) fn new() -> Self {
        Activity { since: Instant::now(), requests: AtomicUsize::new(0), last_ms: AtomicU64::new(0) }
    }

    pub(super) fn begins(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn ends(&self) {
        // A day fits 600 million times.
        self.last_ms.store(self.since.elapsed().as_millis() as u64, Ordering::Relaxed);
        self.requests.fetch_sub(1, Ordering::Relaxed);
    }

    /// For how long there has been no request.
    fn idle(&self) -> Duration {
        if self.requests.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        self.since.elapsed().saturating_sub(Duration::from_millis(self.last_ms.load(Ordering::Relaxed)))
    }
}

/// Speaks HTTP/2 on a connection until it ends: by its peer, because it was idle, because the server leaves.
pub(super) async fn speak(stream: Stream, dispatch: Dispatch, config: &ServeConfig) -> hyper::Result<()> {
    let (limits, times) = (&config.limits, &config.times);
    let streams = match dispatch.plane {
        Plane::Data | Plane::Http => limits.streams_per_connection,
        // Their requests have no gauge, so that a full server answers them.
        Plane::Admin => limits.streams_per_connection.min(ADMIN_STREAMS),
    };
    let activity = Arc::clone(&dispatch.activity);
    let phases = dispatch.shared.phase.subscribe();
    let mut http = http2::Builder::new(Impatient { shared: Arc::clone(&dispatch.shared) });
    http.timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(limits.header_bytes)
        .initial_stream_window_size(STREAM_BYTES)
        .initial_connection_window_size(CONNECTION_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .keep_alive_interval(times.keepalive())
        .keep_alive_timeout(times.keepalive_timeout())
        .auto_date_header(false);
    let connection = http.serve_connection(TokioIo::new(stream), dispatch);
    // Looked at now and then, so that a request does not have to touch a timer.
    let idle = async {
        while activity.idle() < times.idle() {
            sleep(times.idle() / 4 + Duration::from_millis(1)).await;
        }
    };
    until_it_ends(connection, phases, idle).await
}

/// Drives a connection until it ends by itself or the server is over. It is told to go where the server drains, and where it has
/// been `idle`.
pub(super) async fn until_it_ends<C: GracefulConnection>(
    connection: C,
    mut phases: watch::Receiver<Phase>,
    idle: impl Future<Output = ()>,
) -> Result<(), C::Error> {
    tokio::pin!(connection, idle);
    let mut leaving = *phases.borrow_and_update() >= Phase::Draining;
    if leaving {
        connection.as_mut().graceful_shutdown();
    }
    loop {
        tokio::select! {
            biased;
            result = connection.as_mut() => return result,
            _ = phases.changed() => match *phases.borrow_and_update() {
                Phase::Over => return Ok(()),
                Phase::Draining if !leaving => {
                    leaving = true;
                    connection.as_mut().graceful_shutdown();
                }
                _ => (),
            },
            () = &mut idle, if !leaving => {
                leaving = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// Requests of an operator at a time.
const ADMIN_STREAMS: u32 = 16;
/// What a peer may send of one stream before it is read: several states.
const STREAM_BYTES: u32 = 64 << 10;
/// The same over all streams. The HTTP/2 library also takes half of it as its budget for small frames that are not read yet, and
/// ends a connection beyond that: large enough for several streams that wait, each full of small messages.
const CONNECTION_BYTES: u32 = 4 << 20;
/// What is kept of one stream for a peer that does not read.
const SEND_BYTES: usize = 64 << 10;
