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
    /// Nothing, and nothing more is taken.
    Leaving,
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
        self.found(&self.runs(), name, order)
    }

    /// Enters a run, unless one has been entered meanwhile.
    pub(super) fn enter(&self, name: Name, run: &Arc<Run>) -> Found {
        let mut runs = self.runs();
        runs.retain(|_, run| run.over().is_none_or(|(since, _)| since < self.keep));
        let found = self.found(&runs, &name, run.order);
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

    /// Runs whose sample may live, and all that are entered.
    pub(super) fn count(&self) -> (usize, usize) {
        let runs = self.runs();
        (runs.values().filter(|run| run.over().is_none()).count(), runs.len())
    }

    /// Whether anybody waits for the end of a run.
    pub(super) fn is_awaited(&self) -> bool {
        self.runs().values().any(|run| run.is_awaited())
    }

    /// Has every sample killed.
    pub(super) fn stop(&self, why: &str) {
        self.runs().values().for_each(|run| run.stop(why));
    }

    fn runs(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Run>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn found(&self, runs: &BTreeMap<Name, Arc<Run>>, name: &Name, order: Sha256) -> Found {
        // What did not start may be ordered again.
        let run = runs.get(name).filter(|run| run.over().is_none_or(|(_, started)| started));
        match run {
            Some(run) if run.order == order => Found::Same,
            Some(_) => Found::Other,
            // Asked while the runs are locked: whoever leaves and then stops all of them misses none that came in between.
            None if self.leaving.load(Ordering::Relaxed) => Found::Leaving,
            None => Found::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::run::Bounds;
    use super::*;

    #[test]
    fn a_table_that_leaves_knows_its_runs_and_takes_no_more() {
        let bounds = Bounds { records: 1, bytes: 1, lease: Duration::from_secs(1), answer: Duration::from_secs(1) };
        let run = |order: &[u8]| Arc::new(Run::new(Sha256::of(order), bounds));
        let name = |episode: &str| (EpisodeId(episode.to_owned()), 1);
        let table = Table::new(2, Duration::from_secs(60));
        let first = run(b"first");
        assert!(matches!(table.enter(name("a"), &first), Found::Nothing));
        assert!(matches!(table.enter(name("a"), &run(b"other")), Found::Other));
        // An order whose file arrived while the stage left.
        table.leave();
        assert!(matches!(table.enter(name("b"), &run(b"second")), Found::Leaving));
        assert!(matches!(table.look(&name("a"), first.order), Found::Same));
        assert_eq!(table.count(), (1, 1));
    }
}
