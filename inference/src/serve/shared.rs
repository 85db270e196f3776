//! What all threads of a server have in common.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::method::Method;
use super::tls::Tls;
use super::{Secrets, ServeConfig};
use crate::policy::{Decider, Policy};

/// What all threads of a server have in common.
#[derive(Debug)]
pub struct Shared {
    /// Tells the deciders of one server from those of another on the same thread.
    id: u64,
    /// What decides.
    pub policy: Policy,
    /// What the model is called by clients.
    pub model_name: String,
    /// What the operator said.
    pub config: ServeConfig,
    /// Credentials, read at the start.
    pub(super) secrets: Secrets,
    /// Certificates of the TCP listeners.
    pub(super) tls: Option<Tls>,
    /// Requests that are being answered, streams too.
    pub in_flight: Gauge,
    /// Connections that are open, those that still shake hands too.
    pub connections: Gauge,
    /// Episodes that are open on streams.
    pub episodes: Gauge,
    /// Requests by method and code.
    pub requests: RequestCounts,
    /// How far the server is on its way out.
    pub(super) phase: watch::Sender<Phase>,
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

/// Requests that have ended, by method and by code of gRPC.
#[derive(Debug)]
pub struct RequestCounts {
    cells: Vec<[AtomicU64; RequestCounts::CODES]>,
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

impl RequestCounts {
    /// Codes of gRPC, 0 to 16.
    pub const CODES: usize = 17;

    fn new() -> Self {
        RequestCounts { cells: Method::ALL.iter().map(|_| Default::default()).collect() }
    }

    /// Counts a request that took `_elapsed` from its headers to the end of its answer.
    pub(super) fn ended(&self, method: Method, code: tonic::Code, _elapsed: Duration) {
        if let Some(cell) = self.cells.get(method.index()).and_then(|codes| codes.get(code as usize)) {
            cell.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Every count that is not 0: path of the method, number of the code, count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, usize, u64)> {
        Method::ALL.iter().zip(&self.cells).flat_map(|(method, codes)| {
            let counts = codes.iter().map(|cell| cell.load(Ordering::Relaxed)).enumerate();
            counts.filter(|(_, count)| *count > 0).map(move |(code, count)| (method.path(), code, count))
        })
    }
}

impl Shared {
    pub(super) fn new(
        policy: Policy,
        model_name: String,
        config: ServeConfig,
        secrets: Secrets,
        tls: Option<Tls>,
    ) -> Self {
        static SERVERS: AtomicU64 = AtomicU64::new(0);
        Shared {
            id: SERVERS.fetch_add(1, Ordering::Relaxed),
            policy,
            model_name,
            secrets,
            tls,
            in_flight: Gauge::new(config.limits.in_flight),
            connections: Gauge::new(config.limits.connections),
            episodes: Gauge::new(config.limits.episodes),
            requests: RequestCounts::new(),
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
