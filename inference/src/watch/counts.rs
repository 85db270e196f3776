//! What came of reloads, for metrics.

use super::Reason;

/// What a watcher has counted since it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Models that were swapped in.
    pub swapped: u64,
    /// Releases that were refused, by reason; see [`Counts::refused`].
    refused: [u64; Reason::ALL.len()],
    /// Models that were taken back, by reason; see [`Counts::rolled_back`].
    rolled_back: [u64; Reason::ALL.len()],
    /// Models that operators put on trial as canaries.
    pub tried: u64,
    /// Comparisons that ended because something else was wanted or done meanwhile.
    pub superseded: u64,
    /// States that a candidate and the champion were compared on before a swap.
    pub shadow_states: u64,
    /// In how many of them the two chose different actions.
    pub shadow_disagreements: u64,
    /// States that a champion and the model before it were compared on after a swap.
    pub window_states: u64,
    /// In how many of them the two chose different actions.
    pub window_disagreements: u64,
}

impl Default for Counts {
    fn default() -> Self {
        let none = [0; Reason::ALL.len()];
        Counts {
            swapped: 0,
            refused: none,
            rolled_back: none,
            tried: 0,
            superseded: 0,
            shadow_states: 0,
            shadow_disagreements: 0,
            window_states: 0,
            window_disagreements: 0,
        }
    }
}

impl Counts {
    /// Releases that were refused for this reason.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize]
    }

    /// Models that were taken back by the watcher for this reason.
    pub fn rolled_back(&self, reason: Reason) -> u64 {
        self.rolled_back[reason as usize]
    }

    /// Every reload that happened, as labels `result` and `reason` with a count: `swapped` and `superseded` with the reason
    /// `none`, so too `on_trial` where there was one, `refused` and `rolled_back` with theirs where it occurred.
    pub fn reloads(&self) -> Vec<(&'static str, &'static str, u64)> {
        let mut rows = vec![("swapped", "none", self.swapped), ("superseded", "none", self.superseded)];
        rows.extend((self.tried > 0).then_some(("on_trial", "none", self.tried)));
        for (result, counts) in [("refused", &self.refused), ("rolled_back", &self.rolled_back)] {
            let reasons = Reason::ALL.into_iter().zip(counts).filter(|(_, count)| **count > 0);
            rows.extend(reasons.map(|(reason, count)| (result, reason.name(), *count)));
        }
        rows
    }

    pub(super) fn refuse(&mut self, reason: Reason) {
        self.refused[reason as usize] += 1;
    }

    pub(super) fn roll_back(&mut self, reason: Reason) {
        self.rolled_back[reason as usize] += 1;
    }
}
