//! The moves of names, and where they leave each name.

use std::collections::BTreeMap;
use std::path::Path;

use bellwether_artifact::{JsonLines, JsonLinesReader, ModelVersion, Sha256};
use serde::{Deserialize, Serialize};

use crate::RegistryError;

/// One line of `history.jsonl`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// Which way the name went.
    pub kind: MoveKind,
    /// The name that moved.
    pub name: String,
    /// The number it stood on before; null the first time.
    pub from: Option<u32>,
    /// The number it stands on since.
    pub to: u32,
    /// The version of the model behind that number.
    pub version: ModelVersion,
    /// SHA-256 of the gate report that let it pass; null for a rollback, whose model had passed before.
    pub gate_sha256: Option<Sha256>,
    /// When, in milliseconds since 1970.
    pub at_unix_ms: u64,
}

/// Which way a name moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MoveKind {
    /// To a model that passed its gates.
    Promote,
    /// Back to the model before.
    Rollback,
}

/// Reads all moves; a torn last line is a move that did not happen.
pub(super) fn read(path: &Path) -> Result<Vec<Move>, RegistryError> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    Ok(JsonLinesReader::open(path)?.read_all()?)
}

/// Appends a move and forces it to disk.
pub(super) fn append(path: &Path, one: &Move) -> Result<(), RegistryError> {
    let (mut log, _) = JsonLines::append_to(path)?;
    log.append(one)?;
    log.sync()?;
    Ok(())
}

/// For every name the numbers it was promoted to and not rolled back from, oldest first; it stands on the last.
pub(super) fn standings(moves: &[Move]) -> BTreeMap<String, Vec<u32>> {
    let mut standings: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for one in moves {
        let stack = standings.entry(one.name.clone()).or_default();
        match one.kind {
            // Promoting what stands there already leaves nothing to go back to.
            MoveKind::Promote if stack.last() == Some(&one.to) => {}
            MoveKind::Promote => stack.push(one.to),
            MoveKind::Rollback => {
                stack.pop();
            }
        }
    }
    standings
}
