//! In which order the rows of many files come: pass after pass, each over all shards in an order of its own.

use super::EpisodeSource;
use crate::draw::below;
use crate::episodes::StepRow;
use rand::Rng;
use std::ops::Range;

/// The generator that shuffles a pass, by its number.
pub type PassRng = Box<dyn Fn(u64) -> Box<dyn Rng> + Send + Sync>;
/// The reward that a row earns; what it says of one in which nothing was played is left aside.
pub type RowReward = Box<dyn Fn(&StepRow) -> f32 + Send + Sync>;

/// The endless sequence of rows.
pub(super) struct Plan {
    shards: Vec<Placed>,
    /// Rows of a pass.
    rows: u64,
    rng: PassRng,
    pub(super) reward: RowReward,
}

/// A shard of one of the files.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub(super) file: usize,
    pub(super) groups: Range<usize>,
    pub(super) rows: u64,
}

/// A place in the sequence at which a shard begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Number of the pass.
    pub(super) pass: u64,
    /// Shards of the pass that come before.
    pub(super) shard: usize,
    /// Rows of the whole sequence that come before.
    pub(super) rows: u64,
}

impl Plan {
    pub(super) fn new(sources: &[EpisodeSource], rng: PassRng, reward: RowReward) -> Plan {
        let placed = sources.iter().enumerate().flat_map(|(file, source)| {
            let shards = source.survey.shards.iter();
            shards.map(move |shard| Placed { file, groups: shard.groups.clone(), rows: shard.rows })
        });
        let shards: Vec<Placed> = placed.collect();
        Plan { rows: shards.iter().map(|shard| shard.rows).sum(), shards, rng, reward }
    }

    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// The shards of a pass in their order (Fisher and Yates, in Durstenfeld's form).
    pub(super) fn pass(&self, pass: u64) -> impl Iterator<Item = &Placed> + use<'_> {
        let mut order: Vec<u32> = (0..self.shards.len() as u32).collect();
        let mut rng = (self.rng)(pass);
        for at in (1..order.len()).rev() {
            order.swap(at, below(&mut *rng, at as u32 + 1) as usize);
        }
        order.into_iter().map(|shard| &self.shards[shard as usize])
    }

    /// Where the shard begins that has row number `row` of the whole sequence.
    pub(super) fn find(&self, row: u64) -> Place {
        let pass = row / self.rows;
        let mut place = Place { pass, shard: 0, rows: pass * self.rows };
        for shard in self.pass(pass) {
            if place.rows + shard.rows > row {
                break;
            }
            (place.shard, place.rows) = (place.shard + 1, place.rows + shard.rows);
        }
        place
    }
}
