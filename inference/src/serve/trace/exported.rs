//! Spans that go to a collector.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use http::HeaderMap;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider, Span};
use tokio::sync::oneshot;

use super::TraceConfig;
use crate::serve::ServeError;
use crate::serve::chain::Chain;

/// Makes spans and sends them, from a thread of its own. Dropping it sends what waits.
#[derive(Debug)]
pub(in crate::serve) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
    timeout: Duration,
    /// The event loop of the exporter, which ends when the sender is dropped.
    network: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

/// The span of a request that is sampled.
#[derive(Debug)]
pub(in crate::serve) struct RequestSpan {
    span: Span,
    protocol: &'static str,
}

/// Headers as the propagator reads them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

impl Traces {
    /// Starts the exporter. Whether a collector is there shows later; a server does not wait for it.
    pub(in crate::serve) fn start(config: &TraceConfig) -> Result<Self, ServeError> {
        config.validate()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Thread)?;
        let timeout = Duration::from_millis(config.timeout_ms);
        let exporter = {
            let _entered = runtime.enter();
            SpanExporter::builder().with_tonic().with_endpoint(&config.endpoint).with_timeout(timeout).build()
        };
        let exporter = exporter.map_err(|error| ServeError::Config { key: "traces", reason: error.to_string() })?;
        let (stop, stopped) = oneshot::channel::<()>();
        let network = thread::Builder::new().name("bellwether-traces".to_owned());
        let network = network
            .spawn(move || {
                // It ends with an error when the sender is dropped, which is what it waits for.
                let _ = runtime.block_on(stopped);
            })
            .map_err(ServeError::Thread)?;
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.ratio))))
            .with_resource(Resource::builder().with_service_name(config.service_name.clone()).build())
            .with_batch_exporter(exporter)
            .build();
        let tracer = provider.tracer("bellwether");
        let propagator = TraceContextPropagator::new();
        Ok(Traces { provider, tracer, propagator, timeout, network: Some((stop, network)) })
    }

    /// Begins the span of a request, within the trace that its headers name; `None` where it is not sampled.
    pub(in crate::serve) fn begin(
        &self,
        protocol: &'static str,
        method: &'static str,
        headers: &HeaderMap,
    ) -> Option<RequestSpan> {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        // Names as the semantic conventions of OpenTelemetry have them.
        let attributes = match protocol {
            "grpc" => {
                vec![KeyValue::new("rpc.system", "grpc"), KeyValue::new("rpc.method", method.trim_start_matches('/'))]
            }
            _ => vec![KeyValue::new("http.route", method)],
        };
        let builder = self.tracer.span_builder(method).with_kind(SpanKind::Server).with_attributes(attributes);
        let span = builder.start_with_context(&self.tracer, &parent);
        span.is_recording().then_some(RequestSpan { span, protocol })
    }
}

impl RequestSpan {
    /// Says which model answered.
    pub(in crate::serve) fn answered_by(&mut self, model_version: &str) {
        self.span.set_attribute(KeyValue::new("bellwether.model_version", model_version.to_owned()));
    }

    /// Ends the span with the code that was answered.
    pub(in crate::serve) fn end(mut self, code: &'static str, failed: bool) {
        let key = if self.protocol == "grpc" { "rpc.response.status_code" } else { "http.response.status_code" };
        match code.parse::<i64>() {
            Ok(number) => self.span.set_attribute(KeyValue::new(key, number)),
            Err(_) => self.span.set_attribute(KeyValue::new(key, code)),
        }
        if failed {
            self.span.set_status(Status::error(code));
        }
        self.span.end();
    }
}

impl Drop for Traces {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(self.timeout) {
            tracing::warn!(error = %Chain(&error), "the last spans did not reach the collector");
        }
        if let Some((stop, network)) = self.network.take() {
            drop(stop);
            // A thread that panicked has said so.
            let _ = network.join();
        }
    }
}
