//! The five actions of a policy and the masks over them.

use serde::{Deserialize, Serialize};

/// Number of actions in set version 1.
pub const ACTION_COUNT: usize = 5;

/// What a policy may do at the close of a window. The numbers are stable and part of every model and episode file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Action {
    /// Let the sample run for one more window.
    Continue = 0,
    /// Raise the isolation level by one and let the sample run.
    RaiseIsolation = 1,
    /// Call the sample benign: the end of the last stage, the hand-over to the next one before it.
    Release = 2,
    /// Kill the sample.
    Terminate = 3,
    /// Kill the sample and move it into the vault.
    Quarantine = 4,
}

impl Action {
    /// Version of the action set; a model with another set is refused.
    pub const SET_VERSION: u32 = 1;
    /// All actions, by number.
    pub const ALL: [Action; ACTION_COUNT] =
        [Action::Continue, Action::RaiseIsolation, Action::Release, Action::Terminate, Action::Quarantine];

    /// The action's stable number.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The action with this number, if there is one.
    pub fn from_index(index: usize) -> Option<Action> {
        Self::ALL.get(index).copied()
    }

    /// Where the action leads from isolation level `level`, and the level there: into the next window of the stage, into the
    /// first of the next stage, or (`None`) to the end of the episode.
    pub fn leads_to<W>(self, level: u8, next: Option<W>, next_stage: Option<W>) -> Option<(W, u8)> {
        match self {
            Action::Continue => next.map(|window| (window, level)),
            Action::RaiseIsolation => next.map(|window| (window, level + 1)),
            Action::Release => next_stage.map(|window| (window, 0)),
            Action::Terminate | Action::Quarantine => None,
        }
    }

    /// The name used in files, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Action::Continue => "continue",
            Action::RaiseIsolation => "raise_isolation",
            Action::Release => "release",
            Action::Terminate => "terminate",
            Action::Quarantine => "quarantine",
        }
    }

    /// Whether the action calls the sample malicious.
    pub const fn is_conviction(self) -> bool {
        matches!(self, Action::Terminate | Action::Quarantine)
    }

    /// Whether the action ends a stage.
    pub const fn is_verdict(self) -> bool {
        matches!(self, Action::Release | Action::Terminate | Action::Quarantine)
    }
}

/// Which actions are allowed, by number.
pub type ActionMask = [bool; ACTION_COUNT];

/// The mask of a window: `continue` and `raise_isolation` fall away where a decision must fall (`last_window`), and
/// `raise_isolation` at the top level or where isolation cannot be raised at all (`can_raise` false).
pub fn mask(last_window: bool, can_raise: bool) -> ActionMask {
    [!last_window, !last_window && can_raise, true, true, true]
}
