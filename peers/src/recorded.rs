//! States from a file: JSON lines, `{"state": [...], "mask": [...]}`, or the rows of an episode file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bellwether_artifact::{ArtifactError, JsonLinesReader};
use bellwether_inference::model::Contract;
use bellwether_replay::episodes::{EpisodeReader, Expect, StepRow};

use crate::{PeerError, StateRecord};

/// How every Parquet file begins, and no line of JSON.
const PARQUET: &[u8; 4] = b"PAR1";

/// All states of a file, whichever of the two it is.
///
/// # Errors
/// A file that cannot be read; a line that is no state (with its number), or a last line that is cut off; an episode file that
/// is damaged, or whose states or actions are not those of the `contract`; no state at all.
pub fn states(path: &Path, contract: &Contract) -> Result<Vec<StateRecord>, PeerError> {
    let states = if is_parquet(path)? { of_episodes(path, contract)? } else { of_lines(path)? };
    if states.is_empty() { Err(PeerError::NoStates) } else { Ok(states) }
}

fn is_parquet(path: &Path) -> Result<bool, PeerError> {
    let mut start = Vec::new();
    open(path)?.take(PARQUET.len() as u64).read_to_end(&mut start).map_err(|source| unreadable(path, source))?;
    Ok(start == PARQUET)
}

fn of_lines(path: &Path) -> Result<Vec<StateRecord>, PeerError> {
    let mut reader = JsonLinesReader::open(path)?;
    let states: Vec<StateRecord> = reader.read_all()?;
    match reader.torn() {
        Some(torn) => Err(PeerError::TornStates { line: torn.line }),
        None => Ok(states),
    }
}

fn of_episodes(path: &Path, contract: &Contract) -> Result<Vec<StateRecord>, PeerError> {
    let (spec_hash, action_set) = (contract.feature_spec.to_string(), contract.action_set.to_string());
    let expect = Expect { spec_hash: &spec_hash, action_set: &action_set };
    let mut reader = EpisodeReader::open(open(path)?, Some(expect))?;
    let actions = reader.header().actions as usize;
    let (mut states, mut row) = (Vec::new(), StepRow::default());
    while reader.next(&mut row)? {
        let mut mask = vec![false; actions];
        row.action_mask.write(&mut mask);
        states.push(StateRecord { state: row.state.clone(), mask });
    }
    Ok(states)
}

fn open(path: &Path) -> Result<File, PeerError> {
    File::open(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: std::io::Error) -> PeerError {
    ArtifactError::io("read", path, source).into()
}
