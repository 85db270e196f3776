//! Between messages and what they stand for. What a peer sends is refused by the name of the field that cannot be right.

mod order;
mod outcome;
mod record;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::Action;

use super::proto;
use crate::stage::{Close, Proof, Refusal};

pub(super) use order::{Announced, announce, order};
pub(super) use outcome::{outcome, outcome_message};
pub(super) use record::{
    Overdue, act, command, feedback, feedback_message, overdue, overdue_message, question, question_message,
};

/// Why a message is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {why}")]
pub struct WireError {
    /// Name of the field.
    pub field: &'static str,
    /// What is wrong with it, and what is taken.
    pub why: String,
}

impl WireError {
    pub(super) fn new(field: &'static str, why: impl ToString) -> WireError {
        WireError { field, why: why.to_string() }
    }
}

/// A message within a message, which must be there.
fn present<T>(field: &'static str, part: Option<T>) -> Result<T, WireError> {
    part.ok_or_else(|| WireError::new(field, "it is missing"))
}

fn action(field: &'static str, number: u32) -> Result<Action, WireError> {
    let known = usize::try_from(number).ok().and_then(Action::from_index);
    known.ok_or_else(|| WireError::new(field, format!("{number} is no action; give 0 to 4")))
}

fn number(action: Action) -> u32 {
    action as u32
}

fn stage(field: &'static str, stage: u32) -> Result<u8, WireError> {
    match stage {
        1 => Ok(1),
        2 => Ok(2),
        other => Err(WireError::new(field, format!("{other} is no stage; give 1 or 2"))),
    }
}

fn level(field: &'static str, level: u32) -> Result<u8, WireError> {
    let known = u8::try_from(level).ok().filter(|level| *level <= 3);
    known.ok_or_else(|| WireError::new(field, format!("{level} is no isolation level; give 0 to 3")))
}

fn hash(field: &'static str, bytes: &[u8]) -> Result<Sha256, WireError> {
    let bytes = <[u8; 32]>::try_from(bytes);
    bytes.map(Sha256::from_bytes).map_err(|_| WireError::new(field, "give the 32 bytes of a SHA-256"))
}

/// Maps an enumeration of ours to one of the protocol and back.
macro_rules! same {
    ($ours:ident, $field:literal, $($name:ident),+) => {
        impl From<$ours> for proto::$ours {
            fn from(ours: $ours) -> proto::$ours {
                match ours { $($ours::$name => proto::$ours::$name),+ }
            }
        }

        impl TryFrom<proto::$ours> for $ours {
            type Error = WireError;

            fn try_from(theirs: proto::$ours) -> Result<$ours, WireError> {
                match theirs {
                    $(proto::$ours::$name => Ok($ours::$name),)+
                    proto::$ours::Unspecified => Err(WireError::new($field, "it is missing, or none that is known")),
                }
            }
        }
    };
}

same!(Close, "close", Window, Windows, Time, End);
same!(Proof, "proof", NetworkDown, MountsReadOnly, ProcessesRefused, EmptyCgroup, EndedInit);
same!(Refusal, "refusal", Context, Name, Stale, Over, Masked);

/// One of ours from the number of theirs.
fn known<Theirs, Ours>(field: &'static str, number: i32) -> Result<Ours, WireError>
where
    Theirs: TryFrom<i32>,
    Ours: TryFrom<Theirs, Error = WireError>,
{
    let theirs = Theirs::try_from(number).map_err(|_| WireError::new(field, format!("{number} is not known")))?;
    Ours::try_from(theirs).map_err(|error| WireError { field, ..error })
}
