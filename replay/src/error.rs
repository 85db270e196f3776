//! What can go wrong with experience, and what to do about it.

use std::io;
use std::path::PathBuf;

/// Why experience was not taken, not drawn, or not read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// A setting is out of range.
    #[error("{key} = {value}: {reason}")]
    Setting {
        /// Name of the setting.
        key: &'static str,
        /// Its value.
        value: String,
        /// What would be right.
        reason: &'static str,
    },
    /// A row or a list of annotations has the wrong number of elements.
    #[error("{what} has {found} elements where {expected} are needed")]
    Width {
        /// What was given.
        what: &'static str,
        /// Elements needed.
        expected: usize,
        /// Elements given.
        found: usize,
    },
    /// A value is infinite or not a number.
    #[error("element {index} of {what} is {value}: only finite values are stored")]
    NotFinite {
        /// What was given.
        what: &'static str,
        /// Position in it.
        index: usize,
        /// The value.
        value: f32,
    },
    /// An action is unknown, or masked in the state that it was played in.
    #[error("action {action} cannot be played here: {reason}")]
    Action {
        /// Action number.
        action: u32,
        /// Why not.
        reason: &'static str,
    },
    /// The mask of a state allows nothing, or an action that does not exist.
    #[error("the mask {bits:#b} does not fit {actions} actions: allow at least one, and none beyond them")]
    Mask {
        /// The mask.
        bits: u32,
        /// Number of actions.
        actions: u32,
    },
    /// A stream was used out of turn.
    #[error("stream {stream}: {reason}")]
    Stream {
        /// Number of the stream.
        stream: u32,
        /// What should have come first.
        reason: &'static str,
    },
    /// The open state of a stream was overwritten while other streams wrote a whole capacity.
    #[error(
        "stream {stream}: its last state was overwritten by other streams before the next step came; \
         raise the capacity above the number of states that all streams write between two steps of one"
    )]
    Overwritten {
        /// Number of the stream.
        stream: u32,
    },
    /// There is nothing to draw.
    #[error("nothing can be drawn: {reason}")]
    Empty {
        /// What is missing.
        reason: String,
    },
    /// More rows than a 32-bit row number can name.
    #[error("the store holds 4,294,967,295 rows already, the most that it can name: split the data")]
    Full,
    /// The allocator refused.
    #[error("cannot allocate {bytes} bytes for {what}: lower the capacity or the memory budget")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// Size of the request.
        bytes: u64,
    },
    /// The spill file could not be made, written or read.
    #[error(
        "cannot {action} the spill file in {}: {cause}; free space there, name another folder, or raise the memory budget",
        folder.display()
    )]
    Spill {
        /// What was tried, as a verb.
        action: &'static str,
        /// Folder of the file, which has no name of its own.
        folder: PathBuf,
        /// What the operating system said.
        cause: io::Error,
    },
    /// A writer or reader of the caller failed.
    #[error("cannot {action}: {cause}")]
    Io {
        /// What was tried, as a verb and its object.
        action: &'static str,
        /// What the operating system said.
        cause: io::Error,
    },
    /// Saved experience is damaged, cut short, or of another version.
    #[error("the saved replay buffer cannot be restored: {reason}")]
    Saved {
        /// What is wrong with it.
        reason: String,
    },
    /// Saved experience would need more memory than the caller allows.
    #[error(
        "the saved replay buffer needs {bytes} bytes, more than the {limit} allowed: raise the limit to restore it"
    )]
    TooLarge {
        /// Memory that it needs.
        bytes: u64,
        /// Memory allowed.
        limit: u64,
    },
    /// A step does not fit into an episode file, written or read.
    #[error("row {row} (episode `{episode}`, step {step}): {reason}")]
    Step {
        /// Row of the file, from 0.
        row: u64,
        /// Episode that it claims to belong to.
        episode: String,
        /// Step that it claims to be.
        step: u32,
        /// What is wrong with it.
        reason: String,
    },
    /// An episode file is damaged, cut short, no episode file, or of another version.
    #[error("this episode file cannot be read: {reason}")]
    EpisodeFile {
        /// What is wrong with it.
        reason: String,
    },
    /// An episode file was recorded under another specification than the caller works with.
    #[error("the episode file has the {what} `{found}`, and `{expected}` is needed: use files of the same one")]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// What the caller needs.
        expected: String,
        /// What the file has.
        found: String,
    },
    /// A file that experience is streamed from cannot be read any more.
    #[error("cannot read {name}: {cause}")]
    Streamed {
        /// The file, as the caller calls it.
        name: String,
        /// Why.
        cause: Box<ReplayError>,
    },
    /// A thread panicked while it wrote, so what it left may be half a step.
    #[error("a thread failed while it wrote to the shared buffer: restore it from the last checkpoint")]
    Poisoned,
}

/// The checked refusal of values that are not finite.
pub(crate) fn all_finite(what: &'static str, values: &[f32]) -> Result<(), ReplayError> {
    // An exponent of all ones marks an infinity or what is not a number; unlike a search, asking all values vectorises.
    const EXPONENT: u32 = 0x7f80_0000;
    if !values.iter().fold(false, |odd, value| odd | (value.to_bits() & EXPONENT == EXPONENT)) {
        return Ok(());
    }
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        Some((index, value)) => Err(ReplayError::NotFinite { what, index, value: *value }),
        None => Ok(()),
    }
}
