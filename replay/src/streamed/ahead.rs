//! The thread that decodes rows before they are needed.

use super::EpisodeSource;
use super::plan::{Place, Plan};
use crate::episodes::{End, StepRow};
use crate::{ActionMask, Played, ReplayError};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Blocks that go round between the two threads.
pub(super) const BLOCKS: usize = 4;

/// Some rows, one after the other.
pub(super) struct Block {
    pub(super) rows: Vec<Row>,
    /// Row-major.
    pub(super) states: Vec<f32>,
}

/// What stands beside a state.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) mask: ActionMask,
    pub(super) played: Option<Played>,
    pub(super) end: Option<End>,
}

/// A thread under way, and the two channels on which blocks go round.
pub(super) struct ReadAhead {
    full: Receiver<Result<Block, ReplayError>>,
    empty: SyncSender<Block>,
    thread: JoinHandle<Vec<EpisodeSource>>,
}

impl ReadAhead {
    /// Begins to read at a place of the plan, in blocks of so many rows.
    pub(super) fn start(
        plan: Arc<Plan>,
        sources: Vec<EpisodeSource>,
        place: Place,
        (block_rows, width): (usize, usize),
    ) -> Result<ReadAhead, ReplayError> {
        // Both have room for all blocks from the beginning: handing one on allocates nothing.
        let (give, full) = sync_channel(BLOCKS);
        let (empty, take) = sync_channel(BLOCKS);
        for _ in 0..BLOCKS {
            let block = Block { rows: Vec::with_capacity(block_rows), states: Vec::with_capacity(block_rows * width) };
            // There is room for it, and the receiver stands above.
            let _ = empty.send(block);
        }
        let reading = move || {
            let mut reading = Reading { plan, sources, block_rows, give, take };
            if let Err(Some(error)) = reading.run(place) {
                let _ = reading.give.send(Err(error));
            }
            reading.sources
        };
        let thread = std::thread::Builder::new().name("read ahead".into()).spawn(reading);
        let thread = thread.map_err(|cause| ReplayError::Io { action: "start the thread that reads ahead", cause })?;
        Ok(ReadAhead { full, empty, thread })
    }

    /// The next block; the one before it goes back.
    pub(super) fn next(&self, before: Option<Block>) -> Result<Block, ReplayError> {
        if let Some(before) = before {
            // Where the thread has ended, what it left to be received says why.
            let _ = self.empty.send(before);
        }
        match self.full.recv() {
            Ok(block) => block,
            Err(_) => Err(ReplayError::EpisodeFile { reason: "the thread that reads ahead has ended early".into() }),
        }
    }

    /// Ends the thread, and gives back what it read from; `None` if it failed beyond what it could tell.
    pub(super) fn stop(self) -> Option<Vec<EpisodeSource>> {
        let ReadAhead { full, empty, thread } = self;
        drop((full, empty));
        thread.join().ok()
    }
}

/// What the thread works with.
struct Reading {
    plan: Arc<Plan>,
    sources: Vec<EpisodeSource>,
    block_rows: usize,
    give: SyncSender<Result<Block, ReplayError>>,
    take: Receiver<Block>,
}

/// An error to tell, or none where nobody takes any more blocks.
type Stopped = Option<ReplayError>;

impl Reading {
    fn run(&mut self, place: Place) -> Result<(), Stopped> {
        let plan = self.plan.clone();
        let (mut block, mut row) = (self.take.recv().map_err(|_| None)?, StepRow::default());
        let mut skip = place.shard;
        for pass in place.pass.. {
            for shard in plan.pass(pass).skip(std::mem::take(&mut skip)) {
                let EpisodeSource { name, reader, .. } = &mut self.sources[shard.file];
                let failed = |cause| Some(ReplayError::Streamed { name: name.clone(), cause: Box::new(cause) });
                reader.go_to_group(shard.groups.start);
                for _ in 0..shard.rows {
                    if !reader.next(&mut row).map_err(failed)? {
                        let reason = "it has fewer rows than when it was first read".into();
                        return Err(failed(ReplayError::EpisodeFile { reason }));
                    }
                    let reward = (plan.reward)(&row);
                    let (played, end) = reader.learned(&row);
                    let played = played.map(|parts| parts.with_reward(reward));
                    block.rows.push(Row { mask: row.action_mask, played, end });
                    block.states.extend_from_slice(&row.state);
                    if block.rows.len() == self.block_rows {
                        self.give.send(Ok(block)).map_err(|_| None)?;
                        block = self.take.recv().map_err(|_| None)?;
                        block.rows.clear();
                        block.states.clear();
                    }
                }
            }
        }
        Ok(())
    }
}
