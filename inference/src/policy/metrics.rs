//! What deciders count: each in a shard of its own, summed when somebody asks.
//!
//! A shard has one writer, so a count is a relaxed load and a relaxed store, on cache lines that no other thread writes.

use std::iter;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::ModelId;
use super::samples::{Ring, SampleCounts, Sampling};
use crate::engine::DecideError;

/// Why a state was not decided, as a label: [`DecideError`] without its particulars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// The state has another width than the model.
    StateWidth,
    /// The mask has another width than the model has actions.
    MaskWidth,
    /// The mask allows no action.
    EmptyMask,
    /// A value of the state is infinite or not a number.
    NonFiniteState,
    /// A value of the state is outside the range of the features.
    StateOutOfRange,
    /// The columns of a batch do not fit each other.
    BatchShape,
    /// The model's own values overflowed; [`Tally::overflows`] tells which model's.
    Overflow,
    /// The decider's memory is too small for the model, which a policy never lets happen.
    Scratch,
    /// ONNX Runtime failed.
    OnnxRuntime,
}

/// What one model did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Decisions by action.
    pub decisions: Vec<u64>,
    /// How many of them had a certificate.
    pub certified: u64,
    /// States that were refused because the model's values overflowed: a reason to take it back.
    pub overflows: u64,
    /// Time of those decisions that were timed.
    pub latency: Latency,
}

/// How long single decisions took, refusals and batches left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Decisions by time: at most [`Latency::bound`] of their position, and more than that of the one before. The last
    /// takes all that is longer.
    pub counts: [u64; Latency::BOUNDS + 1],
    /// Sum of the times.
    pub total: Duration,
}

/// What a policy has counted since it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// By model, in the order of installation: those resident, and before them the last 32 that are gone.
    pub models: Vec<(ModelId, Tally)>,
    /// All models before those together.
    pub earlier: Tally,
    /// Refused states by reason, each reason once.
    pub refusals: Vec<(Refusal, u64)>,
    /// Time of those decisions of all models that were timed: see [`Options::time_every`](super::Options::time_every).
    pub latency: Latency,
    /// What became of states that were to be set aside: see [`Options::sampling`](super::Options::sampling).
    pub samples: SampleCounts,
    /// Models in memory now.
    pub models_resident: usize,
}

/// Models that can be in memory at a time: each has a row of counters in every shard.
pub(super) const SLOTS: usize = 8;

/// Cells on a line. Two cache lines, since processors fetch them in pairs.
const LINE: usize = 16;

/// Cells of a row before those of the actions: the buckets of the latency and its sum come first.
const TOTAL_NS: usize = Latency::BOUNDS + 1;
const CERTIFIED: usize = TOTAL_NS + 1;
const OVERFLOWS: usize = CERTIFIED + 1;
const ACTIONS: usize = OVERFLOWS + 1;

/// Cells after those of the refusals.
const TAKEN: usize = Refusal::ALL.len();
const DROPPED: usize = TAKEN + 1;

#[derive(Debug, Default)]
#[repr(align(128))]
struct Line([AtomicU64; LINE]);

/// The counters of one decider: a row for each slot, then the refusals, then the samples. And what it has set aside.
#[derive(Debug)]
pub(super) struct Shard {
    lines: Vec<Line>,
    layout: Layout,
    ring: Option<Ring>,
}

/// Where the counters lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    actions: usize,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Refusal; 9] = [
        Refusal::StateWidth,
        Refusal::MaskWidth,
        Refusal::EmptyMask,
        Refusal::NonFiniteState,
        Refusal::StateOutOfRange,
        Refusal::BatchShape,
        Refusal::Overflow,
        Refusal::Scratch,
        Refusal::OnnxRuntime,
    ];

    /// Its name as a label.
    pub const fn name(self) -> &'static str {
        match self {
            Refusal::StateWidth => "state_width",
            Refusal::MaskWidth => "mask_width",
            Refusal::EmptyMask => "empty_mask",
            Refusal::NonFiniteState => "non_finite_state",
            Refusal::StateOutOfRange => "state_out_of_range",
            Refusal::BatchShape => "batch_shape",
            Refusal::Overflow => "overflow",
            Refusal::Scratch => "scratch",
            Refusal::OnnxRuntime => "onnx_runtime",
        }
    }
}

impl From<&DecideError> for Refusal {
    fn from(error: &DecideError) -> Self {
        match error {
            DecideError::StateWidth { .. } => Refusal::StateWidth,
            DecideError::MaskWidth { .. } => Refusal::MaskWidth,
            DecideError::EmptyMask => Refusal::EmptyMask,
            DecideError::NonFiniteState { .. } => Refusal::NonFiniteState,
            DecideError::StateOutOfRange { .. } => Refusal::StateOutOfRange,
            DecideError::BatchShape { .. } => Refusal::BatchShape,
            DecideError::Overflow { .. } | DecideError::NonFiniteValue { .. } => Refusal::Overflow,
            DecideError::ScratchTooSmall => Refusal::Scratch,
            DecideError::OnnxRuntime { .. } => Refusal::OnnxRuntime,
        }
    }
}

impl Tally {
    /// Decisions of all actions together.
    pub fn total(&self) -> u64 {
        self.decisions.iter().sum()
    }

    pub(crate) fn add(&mut self, other: &Tally) {
        self.decisions.resize(self.decisions.len().max(other.decisions.len()), 0);
        for (sum, count) in self.decisions.iter_mut().zip(&other.decisions) {
            *sum += count;
        }
        self.certified += other.certified;
        self.overflows += other.overflows;
        self.latency.add(&other.latency);
    }
}

impl Latency {
    /// Number of buckets with a bound.
    pub const BOUNDS: usize = 20;

    /// The upper bound of a bucket, inclusive: 250 ns, doubled `index` times. The last one is 131 ms.
    pub const fn bound(index: usize) -> Duration {
        Duration::from_nanos(250 << index)
    }

    /// Decisions that were timed.
    pub fn timed(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// A time that the given share of the decisions, in [0, 1], took at least, less what a bucket hides: the lower bound of the
    /// bucket with that quantile. Zero where nothing was timed.
    pub fn at_least(&self, share: f64) -> Duration {
        let rank = (self.timed() as f64 * share).ceil().max(1.0);
        let mut below = 0_u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            below += count;
            if below as f64 >= rank {
                return if bucket == 0 { Duration::ZERO } else { Self::bound(bucket - 1) };
            }
        }
        Duration::ZERO
    }

    /// What was counted since `earlier`, a state of the same counts.
    #[must_use]
    pub fn since(&self, earlier: &Latency) -> Latency {
        let counts = std::array::from_fn(|bucket| self.counts[bucket].saturating_sub(earlier.counts[bucket]));
        Latency { counts, total: self.total.saturating_sub(earlier.total) }
    }

    fn add(&mut self, other: &Latency) {
        for (sum, count) in self.counts.iter_mut().zip(&other.counts) {
            *sum += count;
        }
        self.total = self.total.saturating_add(other.total);
    }

    fn of(row: &[u64]) -> Latency {
        let mut counts = [0; Latency::BOUNDS + 1];
        counts.copy_from_slice(&row[..TOTAL_NS]);
        Latency { counts, total: Duration::from_nanos(row[TOTAL_NS]) }
    }

    fn bucket(ns: u64) -> usize {
        let whole = ns.saturating_sub(1) / 250;
        ((u64::BITS - whole.leading_zeros()) as usize).min(Self::BOUNDS)
    }
}

impl Layout {
    pub(super) fn new(actions: usize) -> Self {
        Layout { actions }
    }

    /// First cell of a slot's row.
    fn slot(self, slot: usize) -> usize {
        slot * (ACTIONS + self.actions).next_multiple_of(LINE)
    }

    fn refusals(self) -> usize {
        self.slot(SLOTS)
    }

    /// Number of cells.
    pub(super) fn cells(self) -> usize {
        (self.refusals() + DROPPED + 1).next_multiple_of(LINE)
    }

    pub(super) fn tally(self, cells: &[u64], slot: usize) -> Tally {
        let row = &cells[self.slot(slot)..];
        Tally {
            decisions: row[ACTIONS..][..self.actions].to_vec(),
            certified: row[CERTIFIED],
            overflows: row[OVERFLOWS],
            latency: Latency::of(row),
        }
    }

    /// What was counted in a slot since `base` was the sum of the shards.
    pub(super) fn since(self, cells: &[u64], base: &[u64], slot: usize) -> Tally {
        let (now, then) = (self.tally(cells, slot), self.tally(base, slot));
        Tally {
            decisions: iter::zip(now.decisions, then.decisions).map(|(now, then)| now.saturating_sub(then)).collect(),
            certified: now.certified.saturating_sub(then.certified),
            overflows: now.overflows.saturating_sub(then.overflows),
            latency: now.latency.since(&then.latency),
        }
    }

    pub(super) fn refusal_counts(self, cells: &[u64]) -> Vec<(Refusal, u64)> {
        iter::zip(Refusal::ALL, cells[self.refusals()..].iter().copied()).collect()
    }

    /// Of all models together, those that are gone too: cells are never set back.
    pub(super) fn latency_of(self, cells: &[u64]) -> Latency {
        let mut sum = Latency::default();
        (0..SLOTS).for_each(|slot| sum.add(&Latency::of(&cells[self.slot(slot)..])));
        sum
    }

    pub(super) fn samples_of(self, cells: &[u64]) -> SampleCounts {
        let row = &cells[self.refusals()..];
        SampleCounts { taken: row[TAKEN], dropped: row[DROPPED] }
    }
}

impl Shard {
    /// Zeros, and an empty ring for states of this width.
    pub(super) fn new(layout: Layout, sampling: Sampling, width: usize) -> Self {
        let lines = iter::repeat_with(Line::default).take(layout.cells() / LINE).collect();
        Shard { lines, layout, ring: Ring::new(sampling, width, layout.actions) }
    }

    pub(super) fn ring(&self) -> Option<&Ring> {
        self.ring.as_ref()
    }

    /// Sets a state aside.
    pub(super) fn sample(&self, state: &[f32], mask: &[bool]) {
        if let Some(ring) = &self.ring {
            let cell = if ring.push(state, mask) { TAKEN } else { DROPPED };
            self.bump(self.layout.refusals() + cell, 1);
        }
    }

    /// Adds to a cell. Only the shard's decider calls this, so nothing is lost between the load and the store.
    fn bump(&self, cell: usize, by: u64) {
        let cell = &self.lines[cell / LINE].0[cell % LINE];
        cell.store(cell.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    pub(super) fn decided(&self, slot: usize, action: usize, certified: bool) {
        let row = self.layout.slot(slot);
        self.bump(row + ACTIONS + action, 1);
        if certified {
            self.bump(row + CERTIFIED, 1);
        }
    }

    pub(super) fn refused(&self, slot: usize, error: &DecideError) {
        let refusal = Refusal::from(error);
        self.bump(self.layout.refusals() + refusal as usize, 1);
        if refusal == Refusal::Overflow {
            self.bump(self.layout.slot(slot) + OVERFLOWS, 1);
        }
    }

    pub(super) fn timed(&self, slot: usize, time: Duration) {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let row = self.layout.slot(slot);
        self.bump(row + Latency::bucket(ns), 1);
        self.bump(row + TOTAL_NS, ns);
    }

    /// Adds the counts to `sums`, cell by cell.
    pub(super) fn add_to(&self, sums: &mut [u64]) {
        let cells = self.lines.iter().flat_map(|line| &line.0);
        for (sum, cell) in sums.iter_mut().zip(cells) {
            *sum = sum.wrapping_add(cell.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_begin_at_250_ns_and_double() {
        let check = |ns: u64, bucket: usize| assert_eq!(Latency::bucket(ns), bucket, "{ns}");
        check(0, 0);
        check(250, 0);
        check(251, 1);
        check(500, 1);
        check(501, 2);
        check(131_072_000, 19);
        check(131_072_001, 20);
        check(u64::MAX, 20);
        for bucket in 0..Latency::BOUNDS {
            let bound = Latency::bound(bucket).as_nanos() as u64;
            assert_eq!((Latency::bucket(bound), Latency::bucket(bound + 1)), (bucket, bucket + 1));
        }
    }

    #[test]
    fn counters_do_not_overlap() {
        for actions in [1, 5, 13, 14, 15, 64, 300] {
            let layout = Layout::new(actions);
            let shard = Shard::new(layout, Sampling { every: 1, capacity: 1 }, 1);
            for slot in 0..SLOTS {
                (0..actions).for_each(|action| shard.decided(slot, action, action == 0));
            }
            shard.refused(3, &DecideError::NonFiniteValue { action: 0 });
            shard.refused(3, &DecideError::ScratchTooSmall);
            shard.timed(2, Duration::from_nanos(300));
            shard.timed(5, Duration::from_secs(1));
            (0..3).for_each(|_| shard.sample(&[1.0], &vec![true; actions]));
            let mut cells = vec![0; layout.cells()];
            shard.add_to(&mut cells);
            for slot in 0..SLOTS {
                let found = layout.tally(&cells, slot);
                let timed = u64::from(slot == 2 || slot == 5);
                assert_eq!(found.latency.timed(), timed);
                let expected = (vec![1; actions], 1, u64::from(slot == 3));
                assert_eq!((found.decisions, found.certified, found.overflows), expected);
            }
            let counted = |refusal| matches!(refusal, Refusal::Overflow | Refusal::Scratch);
            assert!(layout.refusal_counts(&cells).iter().all(|&(refusal, count)| count == u64::from(counted(refusal))));
            let latency = layout.latency_of(&cells);
            assert_eq!((latency.counts[1], latency.counts[20], latency.counts.iter().sum::<u64>()), (1, 1, 2));
            assert_eq!(latency.total, Duration::from_nanos(1_000_000_300));
            assert_eq!((latency.at_least(0.5), latency.at_least(0.51)), (Latency::bound(0), Latency::bound(19)));
            assert_eq!(layout.samples_of(&cells), SampleCounts { taken: 1, dropped: 2 });
        }
    }
}
