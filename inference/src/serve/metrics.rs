//! The numbers of a service, for Prometheus: `OpenMetrics` text, made when somebody asks.
//!
//! Nothing is counted here. Deciders, listeners and logs count where they work; a scrape sums them up.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bellwether_artifact::ModelVersion;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::decision_log::DecisionLogCounts;
use super::process::Process;
use super::requests::RequestCounts;
use super::service_log::ServiceLogCounts;
use super::shared::{Gauge, Shared};
use crate::Policy;
use crate::policy::{Latency, ModelId, Role, Tally};
use crate::watch::Watcher;

/// What the text is to be served as.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that a service tells of itself.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
}

/// A part of a service that has numbers to tell.
pub(super) trait Source: fmt::Debug + Send + Sync + 'static {
    /// Tells them.
    fn tell(&self, page: &mut Page<'_>) -> fmt::Result;
}

/// How often something took how long.
pub(super) struct Histogram<'a> {
    /// Upper bounds of all buckets but the last, inclusive, ascending.
    pub(super) bounds_ns: &'a [u64],
    /// By bucket; the last takes all that is longer.
    pub(super) counts: Vec<u64>,
    /// Sum of the times.
    pub(super) total: Duration,
}

/// Where metrics are written, one family after the other.
pub(super) struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

#[derive(Debug)]
struct Told<S>(S);

impl<S: Source> Collector for Told<S> {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.0.tell(&mut Page { encoder })
    }
}

impl Metrics {
    /// The metrics of this build, of a server and of its policy.
    pub fn new(shared: &Arc<Shared>) -> Self {
        let mut metrics = Metrics::of_policy(&shared.policy);
        metrics.add(Service(Arc::clone(shared)));
        metrics
    }

    /// The metrics of this build and of a policy that is served by other means.
    pub fn of_policy(policy: &Policy) -> Self {
        let mut metrics = Metrics { registry: Registry::default() };
        metrics.add(Build);
        metrics.add(Process);
        metrics.add(Served(policy.clone()));
        metrics
    }

    /// Adds the numbers of another part. Parts must not share names of families.
    pub(super) fn add(&mut self, source: impl Source) {
        self.registry.register_collector(Box::new(Told(source)));
    }

    /// All metrics, as [`CONTENT_TYPE`] says.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Memory does not refuse text, so the only error there is cannot arise; half a page would have no end mark.
        match text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(fmt::Error) => String::new(),
        }
    }
}

impl Page<'_> {
    /// A family of counters; `name` is without the ending `_total`, which is added.
    pub(super) fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, u64, f64>(&value, None)?;
        }
        Ok(())
    }

    /// A counter without labels.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let mut counter = self.encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, u64, f64>(&value, None)
    }

    /// A counter of seconds without labels; `name` is without the ending `_seconds_total`, which is added.
    pub(super) fn seconds(&mut self, name: &str, help: &str, value: Duration) -> fmt::Result {
        let mut counter = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Counter)?;
        counter.encode_counter::<NoLabelSet, f64, f64>(&value.as_secs_f64(), None)
    }

    /// A family of gauges.
    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// A gauge without labels.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: f64) -> fmt::Result {
        self.encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// A family of histograms of times; `name` is without the ending `_seconds`, which is added.
    pub(super) fn times<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, Histogram<'static>)>,
    ) -> fmt::Result {
        let mut family = self.encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for (labels, histogram) in rows {
            histogram.write(&mut family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    /// A histogram of times without labels; `name` as in [`Page::times`].
    pub(super) fn time(&mut self, name: &str, help: &str, histogram: &Histogram<'_>) -> fmt::Result {
        let unit = Some(&Unit::Seconds);
        histogram.write(&mut self.encoder.encode_descriptor(name, help, unit, MetricType::Histogram)?)
    }
}

impl Histogram<'_> {
    fn write(&self, out: &mut MetricEncoder<'_>) -> fmt::Result {
        // Nanoseconds are whole numbers, so that their decimals are short.
        let bounds = self.bounds_ns.iter().map(|ns| *ns as f64 / 1e9).chain([f64::INFINITY]);
        let rows: Vec<(f64, u64)> = bounds.zip(self.counts.iter().copied()).collect();
        let count = self.counts.iter().sum();
        out.encode_histogram::<NoLabelSet>(self.total.as_secs_f64(), count, &rows, None)
    }
}

/// Which build this is.
#[derive(Debug)]
struct Build;

impl Source for Build {
    fn tell(&self, page: &mut Page<'_>) -> fmt::Result {
        let labels = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauges("bellwether_build_info", "1, with what this build is", [(labels, 1.0)])
    }
}

/// What a policy serves and has decided.
#[derive(Debug)]
struct Served(Policy);

impl Source for Served {
    fn tell(&self, page: &mut Page<'_>) -> fmt::Result {
        let Served(policy) = self;
        let (metrics, status) = (policy.metrics(), policy.status());
        let models = by_version(&metrics.models);
        let decisions = models.iter().flat_map(|(version, tally)| {
            let named = policy.actions().iter().zip(&tally.decisions);
            named.map(move |(action, count)| ([("model_version", version.as_str()), ("action", action)], *count))
        });
        page.counters("bellwether_decisions", "Decisions by model and action", decisions)?;
        let each = |value: fn(&Tally) -> u64| {
            models.iter().map(move |(version, tally)| ([("model_version", version.as_str())], value(tally)))
        };
        page.counters(
            "bellwether_decisions_certified",
            "Decisions for which a certificate stood, so that the f32 kernel was not run",
            each(|tally| tally.certified),
        )?;
        page.counters(
            "bellwether_model_overflows",
            "States on which the model's values overflowed, so that nothing was decided",
            each(|tally| tally.overflows),
        )?;
        let refusals = metrics.refusals.iter().map(|(refusal, count)| ([("reason", refusal.name())], *count));
        page.counters("bellwether_decision_refusals", "States that were not decided, by reason", refusals)?;
        let Latency { counts, total } = metrics.latency;
        let bounds_ns: Vec<u64> = (0..Latency::BOUNDS).map(|bucket| Latency::bound(bucket).as_nanos() as u64).collect();
        page.time(
            "bellwether_decision_duration",
            "Time of single decisions in the engine; of each decider, one in so many is timed",
            &Histogram { bounds_ns: &bounds_ns, counts: counts.to_vec(), total },
        )?;
        page.gauge("bellwether_models_resident", "Models in memory", metrics.models_resident as f64)?;
        page.gauge("bellwether_deciders", "Deciders that exist", status.deciders as f64)?;
        page.counter("bellwether_model_swaps", "How often another model became the champion", status.swaps)?;
        page.counter("bellwether_model_rollbacks", "How often the previous model came back", status.rollbacks)?;
        page.gauge(
            "bellwether_model_pinned",
            "1 while the champion may not be replaced",
            f64::from(u8::from(status.pinned)),
        )?;
        page.gauge(
            "bellwether_canary_share",
            "Share of the episodes that the canary decides; 0 without one",
            status.canary.map_or(0.0, |(_, share)| share),
        )?;
        let roles = [
            (Some(status.champion), role_name(Role::Champion)),
            (status.canary.map(|(id, _)| id), role_name(Role::Canary)),
            (status.previous, "previous"),
        ];
        let models = roles.into_iter().filter_map(|(id, role)| {
            let ModelId { version, number } = id?;
            let number = number.map_or(String::new(), |number| number.to_string());
            Some(([("model_version", version.to_string()), ("model_number", number), ("role", role.to_owned())], 1.0))
        });
        page.gauges("bellwether_model_info", "1 for each model that is served or kept, with its role", models)
    }
}

/// What a server has answered.
#[derive(Debug)]
struct Service(Arc<Shared>);

impl Source for Service {
    fn tell(&self, page: &mut Page<'_>) -> fmt::Result {
        let Service(shared) = self;
        RequestCounts::tell(&[&shared.requests, &shared.http_requests], page)?;
        let gauges = [
            ("connections", &shared.connections),
            ("http_connections", &shared.http_connections),
            ("admin_connections", &shared.admin_connections),
            ("requests", &shared.in_flight),
            ("sessions", &shared.sessions),
            ("checks", &shared.checks),
            ("watches", &shared.watches),
            ("unread", &shared.unread),
            ("episodes", &shared.episodes),
        ];
        let each = |value: fn(&Gauge) -> f64| gauges.map(|(what, gauge)| ([("what", what)], value(gauge)));
        let help = "What is in flight: connections, requests that are being answered, streams and episodes on them";
        page.gauges("bellwether_in_flight", help, each(|gauge| gauge.now() as f64))?;
        page.gauges(
            "bellwether_in_flight_limit",
            "How much may be in flight at a time",
            each(|gauge| gauge.limit() as f64),
        )?;
        let refused = gauges.map(|(what, gauge)| ([("what", what)], gauge.refused()));
        page.counters("bellwether_in_flight_refused", "What was refused because too much was in flight", refused)?;
        if let Some(watcher) = &shared.watcher {
            tell_watch(watcher, page)?;
        }
        if let Some(log) = &shared.decision_log {
            let DecisionLogCounts { written, dropped, failed } = log.counts();
            let fates = [("written", written), ("dropped", dropped), ("failed", failed)];
            let help =
                "Decisions that were to be logged: written, dropped since the queue was full, refused by the disk";
            page.counters("bellwether_decision_log", help, fates.map(|(fate, count)| ([("fate", fate)], count)))?;
        }
        if let Some(log) = shared.service_log.get() {
            let ServiceLogCounts { written, dropped, failed, stuck } = log.counts();
            let fates = [("written", written), ("dropped", dropped), ("failed", failed)];
            let help = "Lines for the service log: written, dropped since the queue was full, refused by the disk";
            page.counters("bellwether_service_log", help, fates.map(|(fate, count)| ([("fate", fate)], count)))?;
            let help = "1 while the file of the service log cannot be put aside, and grows";
            page.gauge("bellwether_service_log_stuck", help, f64::from(u8::from(stuck)))?;
        }
        Ok(())
    }
}

/// What became of releases that a watcher saw.
fn tell_watch(watcher: &Watcher, page: &mut Page<'_>) -> fmt::Result {
    let counts = watcher.counts();
    let alive = f64::from(u8::from(watcher.is_alive()));
    page.gauge("bellwether_watcher_alive", "1 while the thread that watches for new models is there", alive)?;
    let unwritten = f64::from(u8::from(watcher.status().unwritten.is_some()));
    let help = "1 while what a restart must know cannot be written down";
    page.gauge("bellwether_watch_memory_unwritten", help, unwritten)?;
    let reloads = counts.reloads().into_iter();
    page.counters(
        "bellwether_model_reloads",
        "What became of releases: swapped, superseded, refused or rolled back, with the reason",
        reloads.map(|(result, reason, count)| ([("result", result), ("reason", reason)], count)),
    )?;
    let states = [("before", counts.shadow_states), ("after", counts.window_states)];
    let when = |(when, count)| ([("swap", when)], count);
    let help = "States on which two models were compared, before a swap and after it";
    page.counters("bellwether_shadow_states", help, states.map(when))?;
    let disagreements = [("before", counts.shadow_disagreements), ("after", counts.window_disagreements)];
    let help = "States on which the two models that were compared chose different actions";
    page.counters("bellwether_shadow_disagreements", help, disagreements.map(when))
}

/// Counts by version: one model can come under several numbers, and a page must not name a row twice.
///
/// What [`Metrics::earlier`](crate::policy::Metrics::earlier) holds is left out. It takes over counts whose rows end, so it
/// would show as decisions that nobody made.
fn by_version(models: &[(ModelId, Tally)]) -> Vec<(String, Tally)> {
    let mut sums: BTreeMap<ModelVersion, Tally> = BTreeMap::new();
    for (id, tally) in models {
        sums.entry(id.version).or_default().add(tally);
    }
    sums.into_iter().map(|(version, tally)| (version.to_string(), tally)).collect()
}

/// A role as a label and in logs.
pub(super) fn role_name(role: Role) -> &'static str {
    match role {
        Role::Champion => "champion",
        Role::Canary => "canary",
    }
}
