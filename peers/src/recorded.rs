//! States from a file: JSON lines, `{"state": [...], "mask": [...]}`.

use std::path::Path;

use bellwether_artifact::JsonLinesReader;

use crate::{PeerError, StateRecord};

/// All states of a file.
///
/// # Errors
/// A file that cannot be read, a line that is no state (with its number), a last line that is cut off, or no state at all.
pub fn states(path: &Path) -> Result<Vec<StateRecord>, PeerError> {
    let mut reader = JsonLinesReader::open(path)?;
    let states: Vec<StateRecord> = reader.read_all()?;
    if let Some(torn) = reader.torn() {
        return Err(PeerError::TornStates { line: torn.line });
    }
    if states.is_empty() { Err(PeerError::NoStates) } else { Ok(states) }
}
