//! Traces: one span for each request, sent to a collector, where a server is built and told to.
//!
//! Spans are made here and not by a subscriber of the log, so that what is not sampled costs a look at a header.

use serde::{Deserialize, Serialize};

use super::ServeError;

#[cfg(feature = "otel")]
mod exported;
#[cfg(not(feature = "otel"))]
mod missing;

#[cfg(feature = "otel")]
pub(super) use exported::{RequestSpan, Traces};
#[cfg(not(feature = "otel"))]
pub(super) use missing::{RequestSpan, Traces};

/// Where spans go, and how many. They go by OTLP over gRPC.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TraceConfig {
    /// Address of the collector, `http://HOST:PORT`. Collectors beyond the host are reached through one on it.
    pub endpoint: String,
    /// Share of the requests that get a span, 0 to 1. A request that comes with a sampled `traceparent` gets one anyway.
    #[serde(default = "ratio")]
    pub ratio: f64,
    /// Name of the service in its spans.
    #[serde(default = "service_name")]
    pub service_name: String,
    /// Time for a collector to take a batch, in milliseconds. What it does not take is dropped.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// Which model answered a request, from the service that knows to the span that says so.
#[derive(Clone, Debug)]
pub(super) struct AnsweredBy(pub(super) String);

fn ratio() -> f64 {
    0.01
}

fn service_name() -> String {
    "bellwether".to_owned()
}

fn timeout_ms() -> u64 {
    5_000
}

impl TraceConfig {
    /// One span for every hundredth request to a collector at `endpoint`.
    pub fn new(endpoint: &str) -> Self {
        let endpoint = endpoint.to_owned();
        TraceConfig { endpoint, ratio: ratio(), service_name: service_name(), timeout_ms: timeout_ms() }
    }

    /// Refuses what cannot be, and traces in a server that was built without them.
    pub(super) fn validate(&self) -> Result<(), ServeError> {
        let refused = |key, reason: String| Err(ServeError::Config { key, reason });
        if !cfg!(feature = "otel") {
            let reason = "this server was built without traces; build it with the feature otel";
            return refused("traces", reason.to_owned());
        }
        let TraceConfig { endpoint, ratio, service_name, timeout_ms } = self;
        let authority = endpoint.strip_prefix("http://");
        if authority.is_none_or(|authority| authority.parse::<http::uri::Authority>().is_err()) {
            let reason = format!("it is {endpoint:?}: give the address of a collector as http://HOST:PORT");
            return refused("traces.endpoint", reason);
        }
        if !(0.0..=1.0).contains(ratio) {
            return refused("traces.ratio", format!("it is {ratio}: give a share from 0 to 1"));
        }
        let bytes = service_name.len();
        if bytes == 0 || bytes > 255 {
            return refused("traces.service_name", format!("it has {bytes} bytes: give a name of 1 to 255"));
        }
        if !(1..=60_000).contains(timeout_ms) {
            return refused("traces.timeout_ms", format!("it is {timeout_ms}: give milliseconds from 1 to 60000"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_is_refused_by_key() {
        let refused = |change: fn(&mut TraceConfig)| {
            let mut config = TraceConfig::new("http://127.0.0.1:4317");
            change(&mut config);
            config.validate().err().map(|error| error.to_string())
        };
        if !cfg!(feature = "otel") {
            assert!(refused(|_| ()).unwrap().contains("build it with the feature otel"));
            return;
        }
        assert_eq!(refused(|_| ()), None);
        let check = |change: fn(&mut TraceConfig), key: &str| {
            let text = refused(change).unwrap();
            assert!(text.starts_with(key) && text.contains(": it ") && text.contains(": give "), "{text}");
        };
        check(|config| config.endpoint = "127.0.0.1:4317".to_owned(), "traces.endpoint");
        check(|config| config.endpoint = "https://collector:4317".to_owned(), "traces.endpoint");
        check(|config| config.endpoint = "http://collector:4317/v1/traces".to_owned(), "traces.endpoint");
        check(|config| config.ratio = 1.1, "traces.ratio");
        check(|config| config.ratio = f64::NAN, "traces.ratio");
        check(|config| config.service_name = String::new(), "traces.service_name");
        check(|config| config.timeout_ms = 0, "traces.timeout_ms");
    }
}
