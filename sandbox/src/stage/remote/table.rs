//! The runs of a server, by episode and stage.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::EpisodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::run::Run;

/// Names a run.
pub(super) type Name = (EpisodeId, u8);

/// What runs, or ran and is not fetched yet.
#[derive(Debug)]
pub(super) struct Table {
    runs: Mutex<BTreeMap<Name, Arc<Run>>>,
    slots: Arc<Semaphore>,
    leaving: AtomicBool,
    /// How long an outcome waits to be fetched.
    keep: Duration,
}

/// What the table knows of an order.
#[derive(Debug)]
pub(super) enum Found {
    /// The same order.
    Same,
    /// Another order under the same name.
    Other,
    /// Nothing, or one whose sample did not start.
    Nothing,
}

impl Table {
    pub(super) fn new(slots: usize, keep: Duration) -> Table {
        Table { runs: Mutex::default(), slots: Arc::new(Semaphore::new(slots)), leaving: AtomicBool::new(false), keep }
    }

    /// Room for one more run, if there is some.
    pub(super) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    pub(super) fn look(&self, name: &Name, order: Sha256) -> Found {
        found(&self.runs(), name, order)
    }

    /// Enters a run, unless one has been entered meanwhile.
    pub(super) fn enter(&self, name: Name, run: &Arc<Run>) -> Found {
        let mut runs = self.runs();
        runs.retain(|_, run| run.over().is_none_or(|(since, _)| since < self.keep));
        let found = found(&runs, &name, run.order);
        if matches!(found, Found::Nothing) {
            runs.insert(name, Arc::clone(run));
        }
        found
    }

    pub(super) fn find(&self, name: &Name) -> Option<Arc<Run>> {
        self.runs().get(name).cloned()
    }

    /// Forgets a run that was fetched in full.
    pub(super) fn forget(&self, name: &Name, run: &Arc<Run>) {
        let mut runs = self.runs();
        if runs.get(name).is_some_and(|there| Arc::ptr_eq(there, run)) {
            runs.remove(name);
        }
    }

    /// Takes no more runs.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// Runs whose sample may live, and all that are entered.
    pub(super) fn count(&self) -> (usize, usize) {
        let runs = self.runs();
        (runs.values().filter(|run| run.over().is_none()).count(), runs.len())
    }

    /// Has every sample killed.
    pub(super) fn stop(&self, why: &str) {
        self.runs().values().for_each(|run| run.stop(why));
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn found(runs: &BTreeMap<Name, Arc<Run>>, name: &Name, order: Sha256) -> Found {
    match runs.get(name) {
        Some(run) if run.over().is_some_and(|(_, started)| !started) => Found::Nothing,
        Some(run) if run.order == order => Found::Same,
        Some(_) => Found::Other,
        None => Found::Nothing,
    }
}
