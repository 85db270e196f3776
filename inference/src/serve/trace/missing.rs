//! No traces: what a server that was built without them has in their place.

use http::HeaderMap;

use super::TraceConfig;
use crate::serve::ServeError;

/// There are none.
#[derive(Debug)]
pub(in crate::serve) enum Traces {}

/// There is none.
#[derive(Debug)]
pub(in crate::serve) enum RequestSpan {}

impl Traces {
    pub(in crate::serve) fn start(config: &TraceConfig) -> Result<Self, ServeError> {
        config.validate()?;
        Err(ServeError::Config { key: "traces", reason: "this server was built without traces".to_owned() })
    }

    pub(in crate::serve) fn begin(&self, _: &'static str, _: &'static str, _: &HeaderMap) -> Option<RequestSpan> {
        match *self {}
    }
}

impl RequestSpan {
    pub(in crate::serve) fn answered_by(&mut self, _: &str) {
        match *self {}
    }

    pub(in crate::serve) fn end(self, _: &'static str, _: bool) {
        match self {}
    }
}
