//! What all threads of a server have in common.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::watch;

use super::decision_log::DecisionLog;
use super::http_api;
use super::method::Method;
use super::requests::{GRPC_CODES, RequestCounts};
use super::statistics::Statistics;
use super::tls::Tls;
use super::trace::Traces;
use super::{Secrets, ServeConfig, ServiceLog};
use crate::policy::{Decider, Policy};
use crate::watch::Watcher;

/// What all threads of a server have in common.
#[derive(Debug)]
pub struct Shared {
    /// Tells the deciders of one server from those of another on the same thread.
    id: u64,
    /// What decides.
    pub policy: Policy,
    /// Brings new models, where there are any.
    pub watcher: Option<Watcher>,
    /// What the model is called by clients.
    pub model_name: String,
    /// What the operator said.
    pub config: ServeConfig,
    /// Credentials, read at the start.
    pub(super) secrets: Secrets,
    /// Certificates of the TCP listeners.
    pub(super) tls: Option<Tls>,
    /// Requests for decisions that are being answered, sessions left out.
    pub in_flight: Gauge,
    /// Sessions that are open.
    pub sessions: Gauge,
    /// Questions after health that are being answered, those of operators left out.
    pub checks: Gauge,
    /// Streams of health and reflection, those of operators left out.
    pub watches: Gauge,
    /// Requests that were answered, and whose clients do not take the answer.
    pub unread: Gauge,
    /// Connections of clients of gRPC that are open, those that still shake hands too.
    pub connections: Gauge,
    /// The same of the HTTP listener.
    pub http_connections: Gauge,
    /// The same of operators.
    pub admin_connections: Gauge,
    /// Episodes that are open on streams.
    pub episodes: Gauge,
    /// Requests of gRPC that have ended.
    pub requests: RequestCounts,
    /// Requests of HTTP that have ended.
    pub http_requests: RequestCounts,
    /// What was asked of each model through the Open Inference Protocol.
    pub(super) statistics: Statistics,
    /// Where the service logs, once that is told.
    pub(super) service_log: OnceLock<Arc<ServiceLog>>,
    /// Where decisions are logged.
    pub(super) decision_log: Option<DecisionLog>,
    /// Where spans of requests are made.
    pub(super) traces: Option<Traces>,
    /// How far the server is on its way out.
    pub(super) phase: watch::Sender<Phase>,
}

/// What a server has read and opened before it answers.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) secrets: Secrets,
    pub(super) tls: Option<Tls>,
    pub(super) decision_log: Option<DecisionLog>,
    pub(super) traces: Option<Traces>,
}

/// How far a server is on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// It answers.
    Serving,
    /// It answers, and says that it will not for long.
    Leaving,
    /// It takes no more connections and ends what it has begun.
    Draining,
    /// It lets go of whatever is left.
    Over,
}

/// How many of something there are, with a limit.
#[derive(Debug)]
pub struct Gauge {
    now: AtomicUsize,
    limit: usize,
    refused: AtomicU64,
}

/// One of what a gauge counts, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    shared: Arc<Shared>,
    gauge: fn(&Shared) -> &Gauge,
}

impl Gauge {
    fn new(limit: usize) -> Self {
        Gauge { now: AtomicUsize::new(0), limit, refused: AtomicU64::new(0) }
    }

    /// How many there are.
    pub fn now(&self) -> usize {
        self.now.load(Ordering::Relaxed)
    }

    /// How many there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How many were refused because there were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(super) fn new(
        policy: Policy,
        model_name: String,
        config: ServeConfig,
        means: Means,
        watcher: Option<Watcher>,
    ) -> Self {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        let Means { secrets, tls, decision_log, traces } = means;
        Shared {
            id: SERVERS.fetch_add(1, Ordering::Relaxed),
            policy,
            watcher,
            model_name,
            secrets,
            tls,
            in_flight: Gauge::new(config.limits.in_flight),
            sessions: Gauge::new(config.limits.sessions),
            checks: Gauge::new(config.limits.probes),
            watches: Gauge::new(config.limits.probes),
            // As many as there can be answers: whoever reads slowly is waited for, and a crowd of them is not.
            unread: Gauge::new(config.limits.in_flight),
            connections: Gauge::new(config.limits.connections),
            http_connections: Gauge::new(config.limits.http_connections),
            admin_connections: Gauge::new(config.limits.admin_connections),
            episodes: Gauge::new(config.limits.episodes),
            requests: RequestCounts::new("grpc", Method::ALL.map(Method::path), &GRPC_CODES),
            http_requests: http_api::counts(),
            statistics: Statistics::default(),
            service_log: OnceLock::new(),
            decision_log,
            traces,
            phase: watch::Sender::new(Phase::Serving),
            config,
        }
    }

    /// How far the server is on its way out.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Moves on towards the end, never back.
    pub(super) fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = to.max(*phase);
            later
        });
    }

    /// Takes one of what `gauge` counts; `None` where there are as many as there may be, which is counted.
    pub(super) fn take(self: &Arc<Self>, gauge: fn(&Shared) -> &Gauge) -> Option<Slot> {
        let Gauge { now, limit, refused } = gauge(self);
        if now.fetch_add(1, Ordering::Relaxed) < *limit {
            return Some(Slot { shared: Arc::clone(self), gauge });
        }
        now.fetch_sub(1, Ordering::Relaxed);
        refused.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Runs `work` with this thread's own decider, which is made at the first call and stays until the thread ends.
    pub fn with_decider<R>(&self, work: impl FnOnce(&mut Decider) -> R) -> R {
        thread_local! {
            static DECIDERS: RefCell<Vec<(u64, Decider)>> = const { RefCell::new(Vec::new()) };
        }
        DECIDERS.with(|deciders| {
            // It is taken only where `work` itself decides, which then has another one for as long as that lasts.
            let Ok(mut deciders) = deciders.try_borrow_mut() else { return work(&mut self.policy.decider()) };
            let at = deciders.iter().position(|(id, _)| *id == self.id).unwrap_or_else(|| {
                deciders.push((self.id, self.policy.decider()));
                deciders.len() - 1
            });
            work(&mut deciders[at].1)
        })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        (self.gauge)(&self.shared).now.fetch_sub(1, Ordering::Relaxed);
    }
}
