//! One connection of HTTP/1.1, from its first byte to its last.

use std::future::pending;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Http;
use crate::serve::config::ServeConfig;
use crate::serve::connection::until_it_ends;
use crate::serve::stream::Stream;

/// Longest time without a request. Whoever asks now and then, such as a scraper, comes again within it.
const LONGEST_IDLE: Duration = Duration::from_secs(60);

/// The shortest request line there is.
pub(in crate::serve) const GREETING_BYTES: usize = b"GET / HTTP/1.1".len();

/// Smallest buffer for the head of a request that hyper works with.
const LEAST_HEAD_BYTES: usize = 8_192;

/// Speaks HTTP/1.1 on a connection until it ends: by its peer, because it was idle or slow, because the server leaves.
pub(in crate::serve) async fn speak(stream: Stream, http: Http, config: &ServeConfig) -> hyper::Result<()> {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // It runs from the end of the answer before, so it bounds idleness and slow heads alike.
        .header_read_timeout(config.times.idle().min(LONGEST_IDLE))
        .max_buf_size((config.limits.header_bytes as usize).max(LEAST_HEAD_BYTES));
    let phases = http.shared.phase.subscribe();
    until_it_ends(builder.serve_connection(TokioIo::new(stream), http), phases, pending()).await
}
