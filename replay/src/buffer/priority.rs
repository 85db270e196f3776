//! Priorities of steps in a tree of sums, so that a step is found by its share of the whole in one walk from the root.
//!
//! Schaul, Quan, Antonoglou and Silver 2016, *Prioritized Experience Replay*. Sums are in double precision, and every change
//! computes the nodes above it anew from their two children: no rounding adds up, and the same priorities give the same tree
//! whatever came before.

use super::power::raise;
use crate::draw::unit;
use crate::error::ReplayError;
use rand::Rng;

/// How errors become priorities.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PriorityConfig {
    /// Power to which errors are raised, 0 to 1: 0 makes every step as likely.
    pub exponent: f64,
    /// Added to the size of an error, above 0, so that no step is left out for good.
    pub floor: f64,
}

impl Default for PriorityConfig {
    /// The settings of the paper's proportional variant.
    fn default() -> Self {
        PriorityConfig { exponent: 0.6, floor: 1e-6 }
    }
}

impl PriorityConfig {
    fn check(&self) -> Result<(), ReplayError> {
        let refuse = |key, value: f64, reason| Err(ReplayError::Setting { key, value: value.to_string(), reason });
        if !(0.0..=1.0).contains(&self.exponent) {
            return refuse("exponent", self.exponent, "choose a power from 0 to 1");
        }
        if !(self.floor > 0.0 && self.floor <= 1e6) {
            return refuse("floor", self.floor, "choose a value above 0, at most a million");
        }
        Ok(())
    }

    fn priority(&self, error: f64) -> f64 {
        libm::pow(error.abs() + self.floor, self.exponent)
    }
}

/// A node: the sum of the priorities below it, and the smallest of them that is above 0.
#[derive(Clone, Copy, Debug)]
struct Node {
    sum: f64,
    smallest: f64,
}

/// Walks from the root that go down together; they stay in registers.
const WALKS: usize = 8;

const NOTHING: Node = Node { sum: 0.0, smallest: f64::INFINITY };

/// The priorities of all slots; 0 for those that cannot be drawn.
#[derive(Clone, Debug)]
pub(super) struct Priorities {
    config: PriorityConfig,
    /// Slots, rounded up to a power of two.
    leaves: usize,
    /// The root is node 1, the children of node `i` are `2 i` and `2 i + 1`, the leaf of slot `s` is `leaves + s`.
    nodes: Vec<Node>,
    /// The largest priority that was ever set; new steps get it.
    highest: f64,
}

impl Priorities {
    /// Priorities of `slots` slots that hold nothing yet.
    pub(super) fn new(config: PriorityConfig, slots: usize) -> Result<Self, ReplayError> {
        config.check()?;
        let (leaves, bytes) = (slots.next_power_of_two(), Self::bytes(slots));
        let mut nodes = Vec::new();
        nodes.try_reserve_exact(2 * leaves).map_err(|_| ReplayError::Memory { what: "the priorities", bytes })?;
        nodes.resize(2 * leaves, NOTHING);
        Ok(Priorities { config, leaves, nodes, highest: 1.0 })
    }

    /// Bytes that the tree of so many slots takes.
    pub(super) fn bytes(slots: usize) -> u64 {
        2 * slots.next_power_of_two() as u64 * size_of::<Node>() as u64
    }

    /// The same from what was saved: the largest priority, and that of each slot in use.
    pub(super) fn restored(
        config: PriorityConfig,
        slots: usize,
        highest: f64,
        priorities: &[f64],
    ) -> Result<Self, ReplayError> {
        let mut restored = Priorities::new(config, slots)?;
        let sound = |priority: &f64| (0.0..=highest).contains(priority);
        if !(highest > 0.0 && highest.is_finite() && priorities.iter().all(sound)) {
            return Err(ReplayError::Saved { reason: "a priority is out of range".into() });
        }
        restored.highest = highest;
        for (leaf, priority) in restored.nodes[restored.leaves..].iter_mut().zip(priorities) {
            *leaf = Node::leaf(*priority);
        }
        for at in (1..restored.leaves).rev() {
            restored.join(at);
        }
        Ok(restored)
    }

    pub(super) fn config(&self) -> &PriorityConfig {
        &self.config
    }

    pub(super) fn highest(&self) -> f64 {
        self.highest
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.nodes.capacity() * size_of::<Node>()
    }

    pub(super) fn of(&self, slot: usize) -> f64 {
        self.nodes[self.leaves + slot].sum
    }

    /// A step that was never learned from: as likely as the likeliest that there was.
    pub(super) fn add(&mut self, slot: usize) {
        self.set(slot, self.highest);
    }

    /// The slot can no longer be drawn.
    pub(super) fn remove(&mut self, slot: usize) {
        if self.of(slot) > 0.0 {
            self.set(slot, 0.0);
        }
    }

    /// The error of a step is now known.
    pub(super) fn learn(&mut self, slot: usize, error: f32) {
        let priority = self.config.priority(f64::from(error));
        self.highest = self.highest.max(priority);
        self.set(slot, priority);
    }

    fn set(&mut self, slot: usize, priority: f64) {
        let mut at = self.leaves + slot;
        self.nodes[at] = Node::leaf(priority);
        while at > 1 {
            at /= 2;
            self.join(at);
        }
    }

    fn join(&mut self, at: usize) {
        let (left, right) = (self.nodes[2 * at], self.nodes[2 * at + 1]);
        let smallest = if left.smallest < right.smallest { left.smallest } else { right.smallest };
        self.nodes[at] = Node { sum: left.sum + right.sum, smallest };
    }

    /// Draws `rows.len()` slots: the sum of all priorities is cut into as many equal parts, and a point is drawn in each (section
    /// 3.3 of the paper). `points` is memory of the caller.
    pub(super) fn draw(&self, rng: &mut impl Rng, rows: &mut [u32], points: &mut Vec<f64>) {
        let part = self.nodes[1].sum / rows.len() as f64;
        points.clear();
        points.extend((0..rows.len()).map(|i| (i as f64 + unit(rng)) * part));
        for (rows, points) in rows.chunks_mut(WALKS).zip(points.chunks(WALKS)) {
            let mut walks = [0.0; WALKS];
            walks[..points.len()].copy_from_slice(points);
            let slots = self.walk(walks);
            rows.copy_from_slice(&slots[..rows.len()]);
        }
    }

    /// The slots in which these points lie. All walks go down together, so that their reads overlap.
    fn walk(&self, mut points: [f64; WALKS]) -> [u32; WALKS] {
        // There is a power of two of nodes, and masking with the last one's number takes the place of a check of bounds.
        let (last, mut at) = (self.nodes.len() - 1, [1u32; WALKS]);
        let mut width = 1;
        while width < self.leaves {
            for (at, point) in at.iter_mut().zip(&mut points) {
                let left = 2 * *at as usize;
                let (here, there) = (self.nodes[left & last].sum, self.nodes[(left + 1) & last].sum);
                // A point that rounding moved past the end stays where something can be drawn.
                let right = (*point >= here) & (there > 0.0);
                *point -= if right { here } else { 0.0 };
                *at = 2 * *at + u32::from(right);
            }
            width *= 2;
        }
        at.map(|at| at - self.leaves as u32)
    }

    /// The weights in the loss that make up for the uneven draw of some slots, relative to the largest there can be:
    /// `(N P)^-correction / max`, which is `(smallest / priority)^correction` (section 3.4).
    pub(super) fn weigh(&self, slots: &[u32], correction: f64, weights: &mut [f32]) {
        let smallest = self.nodes[1].smallest;
        for (weight, slot) in weights.iter_mut().zip(slots) {
            *weight = (smallest / self.of(*slot as usize)) as f32;
        }
        raise(weights, correction as f32);
    }
}

impl Node {
    fn leaf(priority: f64) -> Node {
        if priority > 0.0 { Node { sum: priority, smallest: priority } } else { NOTHING }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng as _};

    #[derive(Clone, Copy, Debug)]
    enum Change {
        Add(usize),
        Remove(usize),
        Learn(usize, f32),
    }

    fn change(slots: usize) -> impl Strategy<Value = Change> {
        prop_oneof![
            (0..slots).prop_map(Change::Add),
            (0..slots).prop_map(Change::Remove),
            (0..slots, 0.0f32..10.0).prop_map(|(slot, error)| Change::Learn(slot, error)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever happened before, the tree is that of the priorities it holds: its nodes are the sums and minima of what is
        /// below, its draws come from slots that can be drawn, and it can be restored from its leaves.
        #[test]
        fn the_tree_is_a_function_of_the_priorities(
            (slots, changes) in (1..40usize).prop_flat_map(|slots| (Just(slots), prop::collection::vec(change(slots), 1..80))),
            count in 1..20usize, seed: u64,
        ) {
            let config = PriorityConfig::default();
            let mut tree = Priorities::new(config, slots).unwrap();
            let (mut held, mut highest) = (vec![0.0; slots], 1.0f64);
            for change in changes {
                match change {
                    Change::Add(slot) => (tree.add(slot), held[slot] = highest).0,
                    Change::Remove(slot) => (tree.remove(slot), held[slot] = 0.0).0,
                    Change::Learn(slot, error) => {
                        tree.learn(slot, error);
                        held[slot] = (f64::from(error) + 1e-6).powf(0.6);
                        highest = highest.max(held[slot]);
                    }
                }
            }
            for (slot, held) in held.iter().enumerate() {
                prop_assert!((tree.of(slot) - held).abs() <= 1e-12 * held);
            }
            let sum: f64 = held.iter().sum();
            prop_assert!((tree.nodes[1].sum - sum).abs() <= 1e-12 * sum);
            let leaves: Vec<f64> = (0..slots).map(|slot| tree.of(slot)).collect();
            let restored = Priorities::restored(config, slots, tree.highest(), &leaves).unwrap();
            let bits = |tree: &Priorities| -> Vec<u64> { tree.nodes.iter().skip(1).map(|node| node.sum.to_bits()).collect() };
            prop_assert_eq!(bits(&restored), bits(&tree));
            if sum > 0.0 {
                let mut rows = vec![0; count];
                tree.draw(&mut ChaCha8Rng::seed_from_u64(seed), &mut rows, &mut Vec::new());
                prop_assert!(rows.iter().all(|row| held[*row as usize] > 0.0), "{:?} of {:?}", rows, held);
                let smallest = held.iter().copied().filter(|held| *held > 0.0).fold(f64::INFINITY, f64::min);
                let mut weights = vec![0.0; count];
                tree.weigh(&rows, 0.4, &mut weights);
                for (row, weight) in rows.iter().zip(weights.into_iter().map(f64::from)) {
                    let expected = (smallest / held[*row as usize]).powf(0.4);
                    prop_assert!((weight - expected).abs() < 1e-5 && weight <= 1.0);
                }
            }
        }
    }

    #[test]
    fn steps_are_drawn_in_proportion_to_their_priorities() {
        let mut tree = Priorities::new(PriorityConfig { exponent: 1.0, floor: 1e-9 }, 5).unwrap();
        let errors = [1.0, 0.0, 3.0, 0.5, 2.0];
        for (slot, error) in errors.iter().enumerate() {
            tree.learn(slot, *error);
        }
        tree.remove(3);
        let (mut counts, mut rng, mut rows) = ([0u32; 5], ChaCha8Rng::seed_from_u64(1), [0; 10]);
        for _ in 0..6000 {
            tree.draw(&mut rng, &mut rows, &mut Vec::new());
            rows.iter().for_each(|row| counts[*row as usize] += 1);
        }
        // 60,000 draws, of each share 10,000 per unit of error; cut into parts they vary less than freely.
        assert_eq!((counts[1], counts[3]), (0, 0));
        for (slot, expected) in [(0, 10_000), (2, 30_000), (4, 20_000)] {
            assert!(counts[slot].abs_diff(expected) < 300, "{counts:?}");
        }
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        for (config, key) in [
            (PriorityConfig { exponent: 1.5, floor: 1e-6 }, "exponent"),
            (PriorityConfig { exponent: f64::NAN, floor: 1e-6 }, "exponent"),
            (PriorityConfig { exponent: 0.5, floor: 0.0 }, "floor"),
        ] {
            match Priorities::new(config, 4) {
                Err(ReplayError::Setting { key: refused, .. }) => assert_eq!(refused, key),
                other => panic!("{other:?}"),
            }
        }
    }
}
