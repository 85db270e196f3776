//! States that deciders set aside for whoever compares models: a bounded ring for each decider.
//!
//! A ring has one writer, the decider, and one reader, [`Policy::drain_samples`](super::Policy::drain_samples). Neither waits
//! for the other: a full ring drops the new state and counts it.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Which decisions are set aside while somebody listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    /// Each decider sets aside the state and the mask of one decision of so many; 0 for none, and then it has no ring.
    pub every: u32,
    /// States that a decider's ring holds, at least 1; more are dropped until the ring is read. Each takes four bytes for
    /// every value of a state.
    pub capacity: usize,
}

/// What became of states that were to be set aside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SampleCounts {
    /// They went into a ring.
    pub taken: u64,
    /// The ring was full.
    pub dropped: u64,
}

/// The ring of one decider.
#[derive(Debug)]
pub(super) struct Ring {
    width: usize,
    actions: usize,
    capacity: usize,
    /// By sample: the values of the state as bits, then a word for each action of the mask.
    cells: Vec<AtomicU32>,
    written: End,
    read: End,
    /// Readers take turns.
    reader: Mutex<()>,
}

/// How many samples passed one end of a ring, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
struct End(AtomicUsize);

impl Sampling {
    /// No decision is set aside.
    pub const OFF: Sampling = Sampling { every: 0, capacity: 1 };
}

impl Default for Sampling {
    /// One decision of 64, and rings of 32 states.
    fn default() -> Self {
        Sampling { every: 64, capacity: 32 }
    }
}

impl Ring {
    /// An empty ring; `None` where nothing is set aside.
    pub(super) fn new(sampling: Sampling, width: usize, actions: usize) -> Option<Self> {
        if sampling.every == 0 {
            return None;
        }
        let capacity = sampling.capacity.max(1);
        let cells = (0..capacity * (width + actions)).map(|_| AtomicU32::new(0)).collect();
        let (written, read) = (End::default(), End::default());
        Some(Ring { width, actions, capacity, cells, written, read, reader: Mutex::new(()) })
    }

    /// Appends a state with its mask, of the widths of the ring; `false` where it is full. Only the ring's decider calls this.
    pub(super) fn push(&self, state: &[f32], mask: &[bool]) -> bool {
        let written = self.written.0.load(Ordering::Relaxed);
        // Acquire: what the reader did with a place is over before it is written again.
        if written.wrapping_sub(self.read.0.load(Ordering::Acquire)) >= self.capacity {
            return false;
        }
        let bits = state.iter().map(|value| value.to_bits()).chain(mask.iter().map(|allowed| u32::from(*allowed)));
        for (cell, bits) in self.place(written).iter().zip(bits) {
            cell.store(bits, Ordering::Relaxed);
        }
        // Release: whoever sees the count sees the cells.
        self.written.0.store(written.wrapping_add(1), Ordering::Release);
        true
    }

    /// Takes out everything that is there, oldest first.
    pub(super) fn drain(&self, sample: &mut Sample, mut each: impl FnMut(&[f32], &[bool])) {
        // A reader that panicked had not yet counted its sample as read.
        let _turn = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let written = self.written.0.load(Ordering::Acquire);
        let mut read = self.read.0.load(Ordering::Relaxed);
        while read != written {
            let (state, mask) = self.place(read).split_at(self.width);
            sample.state.clear();
            sample.state.extend(state.iter().map(|cell| f32::from_bits(cell.load(Ordering::Relaxed))));
            sample.mask.clear();
            sample.mask.extend(mask.iter().map(|cell| cell.load(Ordering::Relaxed) != 0));
            read = read.wrapping_add(1);
            self.read.0.store(read, Ordering::Release);
            each(&sample.state, &sample.mask);
        }
    }

    fn place(&self, number: usize) -> &[AtomicU32] {
        let stride = self.width + self.actions;
        // A count that wraps around would jump within the ring, after 2^64 samples.
        &self.cells[number % self.capacity * stride..][..stride]
    }
}

/// Memory of a reader.
#[derive(Debug, Default)]
pub(super) struct Sample {
    state: Vec<f32>,
    mask: Vec<bool>,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    fn taken(ring: &Ring) -> Vec<(Vec<f32>, Vec<bool>)> {
        let mut all = Vec::new();
        ring.drain(&mut Sample::default(), |state, mask| all.push((state.to_vec(), mask.to_vec())));
        all
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_ring_is_a_queue_that_refuses_what_it_cannot_hold(
            capacity in 1_usize..6,
            steps in proptest::collection::vec(proptest::option::of((any::<[f32; 3]>(), any::<[bool; 2]>())), 0..40),
        ) {
            let ring = Ring::new(Sampling { every: 1, capacity }, 3, 2).unwrap();
            let mut model = Vec::<(Vec<u32>, Vec<bool>)>::new();
            let bits = |state: &[f32]| state.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            for step in steps {
                match step {
                    Some((state, mask)) => {
                        let fits = model.len() < capacity;
                        prop_assert_eq!(ring.push(&state, &mask), fits);
                        if fits {
                            model.push((bits(&state), mask.to_vec()));
                        }
                    }
                    None => {
                        let found: Vec<_> = taken(&ring).into_iter().map(|(state, mask)| (bits(&state), mask)).collect();
                        prop_assert_eq!(found, std::mem::take(&mut model));
                    }
                }
            }
        }
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_samples_in_order() {
        const SAMPLES: u32 = 20_000;
        let ring = Ring::new(Sampling { every: 1, capacity: 4 }, 8, 3).unwrap();
        let done = AtomicBool::new(false);
        let read = thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let (mut sample, mut read) = (Sample::default(), Vec::new());
                loop {
                    let last = done.load(Ordering::Acquire);
                    ring.drain(&mut sample, |state, mask| {
                        assert!(state.iter().all(|value| value.to_bits() == state[0].to_bits()), "{state:?}");
                        assert_eq!(mask, [(state[0] as u32).is_multiple_of(2); 3]);
                        read.push(state[0] as u32);
                    });
                    if last {
                        return read;
                    }
                }
            });
            let mut pushed = 0;
            for number in 0..SAMPLES {
                pushed += u32::from(ring.push(&[number as f32; 8], &[number.is_multiple_of(2); 3]));
            }
            done.store(true, Ordering::Release);
            let read = reader.join().unwrap();
            assert_eq!(read.len() as u32, pushed);
            read
        });
        assert!(read.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn nothing_is_held_where_nothing_is_set_aside() {
        assert!(Ring::new(Sampling::OFF, 3, 2).is_none());
    }
}
