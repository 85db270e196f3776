//! What became of one episode at one operating point.

use std::collections::BTreeMap;

use bellwether_env_adapter::{Action, Label};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a policy said about a sample in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// `release` in the last stage.
    Benign,
    /// `terminate` or `quarantine` in any stage.
    Malicious,
}

/// Where a policy or a rule ended an episode, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stop {
    /// Index of the last window that was seen, from 0.
    pub window: u32,
    /// The verdict at its close.
    pub verdict: Verdict,
}

/// What became of one episode at one operating point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// Position of the episode in the evaluated data: the same in every list over the same data.
    pub episode: u32,
    /// What the sample is.
    pub label: Label,
    /// Family or intrusion, a number of [`Groups`].
    pub group: u32,
    /// The action that ended the episode; `release` where nothing was seen.
    pub action: Action,
    /// Windows seen when isolation was raised for the first time; `None` where it never was.
    pub isolated_at: Option<u32>,
    /// Events seen up to the verdict.
    pub events: u64,
    /// Windows seen up to the verdict, at least 1.
    pub windows: u32,
    /// Events of the whole recording.
    pub total_events: u64,
    /// Harm of the events that were let through; 0 or more.
    pub harm_let: f32,
    /// Harm of the whole recording; at least `harm_let`.
    pub harm_total: f32,
    /// Return: the sum of the episode's rewards at this operating point, without discount.
    pub ret: f64,
}

impl Outcome {
    /// Whether the sample is malicious.
    pub fn is_malicious(&self) -> bool {
        self.label == Label::Malicious
    }

    /// What the policy said.
    pub fn verdict(&self) -> Verdict {
        if self.is_convicted() { Verdict::Malicious } else { Verdict::Benign }
    }

    /// Whether the verdict calls the sample malicious.
    pub fn is_convicted(&self) -> bool {
        self.action.is_conviction()
    }
}

/// The groups of a set of episodes: what is resampled and split as one.
///
/// A family is one group. An episode without a family is a group of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Groups {
    families: BTreeMap<String, u32>,
    names: Vec<Option<String>>,
}

impl Groups {
    /// No group yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The group of an episode with this family; without one (or with an empty name) a new group of its own.
    pub fn intern(&mut self, family: Option<&str>) -> u32 {
        let next = self.names.len() as u32;
        let Some(family) = family.filter(|name| !name.is_empty()) else {
            self.names.push(None);
            return next;
        };
        if let Some(&group) = self.families.get(family) {
            return group;
        }
        self.families.insert(family.to_owned(), next);
        self.names.push(Some(family.to_owned()));
        next
    }

    /// The family's name; `None` for an episode on its own and for a number that was never given out.
    pub fn name(&self, group: u32) -> Option<&str> {
        self.names.get(group as usize)?.as_deref()
    }

    /// Number of groups.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is no group.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_share_a_group_and_loners_do_not() {
        let mut groups = Groups::new();
        let numbers: Vec<u32> =
            [Some("a"), None, Some("b"), Some("a"), None, Some("")].map(|family| groups.intern(family)).to_vec();
        assert_eq!(numbers, [0, 1, 2, 0, 3, 4]);
        assert_eq!(
            (groups.name(0), groups.name(1), groups.name(2), groups.name(9)),
            (Some("a"), None, Some("b"), None)
        );
        assert_eq!(groups.len(), 5);
    }
}
