//! What stands behind a policy's lock: everything but decisions.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bellwether_artifact::ModelVersion;

use super::metrics::{Layout, Metrics, SLOTS, Shard, Tally};
use super::samples::Sampling;
use super::served::{Admitted, Canary, Model, Serving, Share};
use super::{ModelId, PolicyError, Status};

/// Models whose counts are kept one by one after they are gone.
const REMEMBERED: usize = 32;

/// Versions that are remembered as rolled back.
const ROLLED_BACK: usize = 64;

/// The one owner of what is served, kept and retired.
#[derive(Debug)]
pub(super) struct Control {
    champion: Arc<Model>,
    previous: Option<Arc<Model>>,
    canary: Option<Canary>,
    pinned: bool,
    swaps: u64,
    rollbacks: u64,
    /// No longer served, but a decision that began before may still read it.
    retired: Vec<Arc<Serving>>,
    /// All models in memory, by age. This reference is the last one to go.
    models: Vec<Arc<Model>>,
    /// By slot: the sums of all shards when its model came.
    bases: [Vec<u64>; SLOTS],
    layout: Layout,
    shards: Vec<Arc<Shard>>,
    /// Counts of the deciders that are gone.
    departed: Vec<u64>,
    gone: VecDeque<(ModelId, Tally)>,
    earlier: Tally,
    /// Versions that were taken back and not brought again since, oldest first.
    rolled_back: VecDeque<ModelVersion>,
}

impl Control {
    /// Serves a first model.
    pub(super) fn new(admitted: Admitted, id: ModelId) -> (Self, ArcSwap<Serving>) {
        let layout = Layout::new(admitted.engine.actions());
        let zeros = vec![0; layout.cells()];
        let champion = Arc::new(admitted.into_model(id, 0));
        let serving = Serving { champion: Arc::clone(&champion), canary: None };
        let control = Control {
            models: vec![Arc::clone(&champion)],
            champion,
            previous: None,
            canary: None,
            pinned: false,
            swaps: 0,
            rollbacks: 0,
            retired: Vec::new(),
            bases: std::array::from_fn(|_| zeros.clone()),
            layout,
            shards: Vec::new(),
            earlier: layout.tally(&zeros, 0),
            departed: zeros,
            gone: VecDeque::new(),
            rolled_back: VecDeque::new(),
        };
        (control, ArcSwap::from_pointee(serving))
    }

    /// Serves what the fields say, and retires what was served. No decision that begins later sees the old.
    fn publish(&mut self, current: &ArcSwap<Serving>) {
        let serving = Serving { champion: Arc::clone(&self.champion), canary: self.canary.clone() };
        self.retired.push(current.swap(Arc::new(serving)));
    }

    /// A slot that no model in memory has.
    pub(super) fn free_slot(&self) -> Option<usize> {
        (0..SLOTS).find(|slot| self.models.iter().all(|model| model.slot != *slot))
    }

    /// Takes a model into memory, with the counters of a free slot.
    fn install(&mut self, model: Model) -> Arc<Model> {
        self.bases[model.slot] = self.sums();
        let model = Arc::new(model);
        self.models.push(Arc::clone(&model));
        model
    }

    /// Makes a model the champion and keeps the one before it.
    pub(super) fn swap(&mut self, current: &ArcSwap<Serving>, model: Model) -> Result<ModelId, PolicyError> {
        self.check_unpinned()?;
        // Whoever brings a version by hand means it.
        self.forgive(model.id.version);
        // What is on trial and becomes the champion is on trial no more.
        self.canary.take_if(|canary| canary.model.id.version == model.id.version);
        let model = self.install(model);
        let before = mem::replace(&mut self.champion, model);
        let id = before.id;
        self.previous = Some(before);
        self.swaps += 1;
        self.publish(current);
        Ok(id)
    }

    /// Serves a model to a share of the episodes, in the place of the canary before.
    pub(super) fn try_out(&mut self, current: &ArcSwap<Serving>, model: Model, share: Share) {
        let model = self.install(model);
        self.canary = Some(Canary { model, share });
        self.publish(current);
    }

    pub(super) fn set_share(&mut self, current: &ArcSwap<Serving>, share: f64) -> Result<(), PolicyError> {
        let canary = self.canary.as_mut().ok_or(PolicyError::NoCanary)?;
        canary.share = canary.share.resized(share)?;
        self.publish(current);
        Ok(())
    }

    /// Refuses where another model is on trial than somebody judged, or none.
    pub(super) fn check_canary(&self, expected: ModelId) -> Result<(), PolicyError> {
        let found = self.canary.as_ref().map(|canary| canary.model.id);
        if found == Some(expected) { Ok(()) } else { Err(PolicyError::NoCanary) }
    }

    pub(super) fn withdraw(&mut self, current: &ArcSwap<Serving>) -> Result<ModelId, PolicyError> {
        let canary = self.canary.take().ok_or(PolicyError::NoCanary)?;
        self.publish(current);
        Ok(canary.model.id)
    }

    pub(super) fn promote(&mut self, current: &ArcSwap<Serving>) -> Result<ModelId, PolicyError> {
        self.check_unpinned()?;
        let canary = self.canary.take().ok_or(PolicyError::NoCanary)?;
        let id = canary.model.id;
        self.forgive(id.version);
        self.previous = Some(mem::replace(&mut self.champion, canary.model));
        self.swaps += 1;
        self.publish(current);
        Ok(id)
    }

    pub(super) fn roll_back(&mut self, current: &ArcSwap<Serving>) -> Result<ModelId, PolicyError> {
        self.check_unpinned()?;
        let back = self.previous.take().ok_or(PolicyError::NoPrevious)?;
        let bad = mem::replace(&mut self.champion, back);
        // The same version may come back, where it was swapped in beside itself.
        if bad.id.version != self.champion.id.version {
            self.remember_rolled_back(bad.id.version);
        }
        drop(bad);
        self.rollbacks += 1;
        self.publish(current);
        Ok(self.champion.id)
    }

    pub(super) fn was_rolled_back(&self, version: ModelVersion) -> bool {
        self.rolled_back.contains(&version)
    }

    pub(super) fn rolled_back(&self) -> Vec<ModelVersion> {
        self.rolled_back.iter().copied().collect()
    }

    /// Remembers a version as rolled back, and forgets the oldest one where there are too many.
    pub(super) fn remember_rolled_back(&mut self, version: ModelVersion) {
        self.forgive(version);
        if self.rolled_back.len() == ROLLED_BACK {
            self.rolled_back.pop_front();
        }
        self.rolled_back.push_back(version);
    }

    pub(super) fn forgive(&mut self, version: ModelVersion) {
        self.rolled_back.retain(|known| *known != version);
    }

    pub(super) fn forgive_all(&mut self) {
        self.rolled_back.clear();
    }

    /// Refuses where another model became the champion since somebody looked.
    pub(super) fn check_champion(&self, expected: ModelId) -> Result<(), PolicyError> {
        let found = self.champion.id;
        if found == expected { Ok(()) } else { Err(PolicyError::Changed { found, expected }) }
    }

    /// The champion, and what a rollback returns to.
    pub(super) fn pair(&self) -> (Arc<Model>, Option<Arc<Model>>) {
        (Arc::clone(&self.champion), self.previous.clone())
    }

    pub(super) fn shards(&self) -> Vec<Arc<Shard>> {
        self.shards.clone()
    }

    pub(super) fn pin(&mut self, pinned: bool) {
        self.pinned = pinned;
    }

    pub(super) fn check_unpinned(&self) -> Result<(), PolicyError> {
        if self.pinned { Err(PolicyError::Pinned) } else { Ok(()) }
    }

    /// Takes out every model that nothing reads any more, to be dropped by the caller, after the lock.
    #[must_use]
    pub(super) fn reap(&mut self) -> Vec<Model> {
        // A guard that was out when its set was retired counts as a reference since, and no new one can be had. So a set
        // with one reference is nobody's, and its last reference is dropped here and not in a decision.
        self.retired = mem::take(&mut self.retired).into_iter().filter_map(|set| Arc::try_unwrap(set).err()).collect();
        let mut dead = Vec::new();
        for model in mem::take(&mut self.models) {
            match Arc::try_unwrap(model) {
                Ok(model) => dead.push(model),
                Err(model) => self.models.push(model),
            }
        }
        if !dead.is_empty() {
            let sums = self.sums();
            for model in &dead {
                let tally = self.layout.since(&sums, &self.bases[model.slot], model.slot);
                self.remember(model.id, tally);
            }
        }
        dead
    }

    fn remember(&mut self, id: ModelId, tally: Tally) {
        // The same model can come again, and goes on counting.
        match self.gone.iter_mut().find(|(gone, _)| *gone == id) {
            Some((_, sum)) => sum.add(&tally),
            None => self.gone.push_back((id, tally)),
        }
        if self.gone.len() > REMEMBERED
            && let Some((_, tally)) = self.gone.pop_front()
        {
            self.earlier.add(&tally);
        }
    }

    pub(super) fn arrive(&mut self, sampling: Sampling) -> Arc<Shard> {
        let shard = Arc::new(Shard::new(self.layout, sampling, self.champion.engine.width()));
        self.shards.push(Arc::clone(&shard));
        shard
    }

    /// Keeps the counts of a decider that ends.
    pub(super) fn depart(&mut self, shard: &Arc<Shard>) {
        if let Some(index) = self.shards.iter().position(|known| Arc::ptr_eq(known, shard)) {
            self.shards.swap_remove(index).add_to(&mut self.departed);
        }
    }

    fn sums(&self) -> Vec<u64> {
        let mut sums = self.departed.clone();
        self.shards.iter().for_each(|shard| shard.add_to(&mut sums));
        sums
    }

    pub(super) fn metrics(&self) -> Metrics {
        let sums = self.sums();
        let mut models: Vec<(ModelId, Tally)> = self.gone.iter().cloned().collect();
        for model in &self.models {
            let tally = self.layout.since(&sums, &self.bases[model.slot], model.slot);
            match models.iter_mut().find(|(id, _)| *id == model.id) {
                Some((_, sum)) => sum.add(&tally),
                None => models.push((model.id, tally)),
            }
        }
        Metrics {
            models,
            earlier: self.earlier.clone(),
            refusals: self.layout.refusal_counts(&sums),
            latency: self.layout.latency_of(&sums),
            samples: self.layout.samples_of(&sums),
            models_resident: self.models.len(),
        }
    }

    pub(super) fn status(&self) -> Status {
        Status {
            champion: self.champion.id,
            previous: self.previous.as_ref().map(|model| model.id),
            canary: self.canary.as_ref().map(|canary| (canary.model.id, canary.share.get())),
            pinned: self.pinned,
            swaps: self.swaps,
            rollbacks: self.rollbacks,
            models_resident: self.models.len(),
            deciders: self.shards.len(),
        }
    }
}
