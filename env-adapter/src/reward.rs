//! Rewards: what a window costs, what harm and breakage weigh, and what a verdict is worth.
//!
//! Every reward has two parts: `r1` holds what convicting a benign sample costs, `r0` everything else; the time that a
//! window takes is charged in `r0`, and in part in `r1` too, so that no cost `c` of a false positive makes it free. The
//! reward at `c` is `(r0 + c * r1) / (1 + c)`, that is `(1 - z) * r0 + z * r1` with `z = c / (1 + c)`.
//! The default of every weight has its reason in `docs/decision-process.md`.

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::behaviour::{Facts, Sign, Signs};
use crate::event::Label;
use crate::window::{LEVELS, Window};

/// The two parts of a reward.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Parts {
    /// Everything but false positives.
    pub r0: f32,
    /// The charge for a false positive, or for time; at most 0.
    pub r1: f32,
}

impl Parts {
    /// The reward at the operating point `z` in [0, 1].
    pub fn at(self, z: f32) -> f32 {
        (1.0 - z) * self.r0 + z * self.r1
    }
}

/// Weights of the harm that single events do, each at least 0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct HarmWeights {
    /// A decoy is read for the first time.
    pub decoy_read: f32,
    /// A decoy is overwritten or emptied.
    pub decoy_changed: f32,
    /// A decoy is renamed or deleted.
    pub decoy_removed: f32,
    /// A file that the sample did not create is overwritten, deleted, or renamed to another extension.
    pub file_destroyed: f32,
    /// A credential file is read for the first time.
    pub credential_read: f32,
    /// 1,024 bytes are sent to a peer.
    pub kib_sent: f32,
    /// A place from which programs are started again is written.
    pub persistence_written: f32,
    /// A log is deleted or emptied.
    pub log_removed: f32,
    /// The times of a file that the sample did not create are set.
    pub timestamps_forged: f32,
    /// A file of the sample's own becomes a program.
    pub executable_dropped: f32,
    /// Another process is traced or its memory written.
    pub process_injected: f32,
    /// The sample removes its own program.
    pub self_deleted: f32,
}

impl Default for HarmWeights {
    fn default() -> Self {
        HarmWeights {
            decoy_read: 0.01,
            decoy_changed: 0.05,
            decoy_removed: 0.05,
            file_destroyed: 0.02,
            credential_read: 0.05,
            kib_sent: 0.001,
            persistence_written: 0.2,
            log_removed: 0.1,
            timestamps_forged: 0.02,
            executable_dropped: 0.1,
            process_injected: 0.2,
            self_deleted: 0.1,
        }
    }
}

const DECOY: Signs = Signs::NONE.with(Sign::DecoyRead).with(Sign::DecoyChanged).with(Sign::DecoyRemoved);
const DESTROYED: Signs = Signs::NONE.with(Sign::Overwrite).with(Sign::ForeignDelete);
const HARMFUL: Signs = Signs::NONE
    .with(Sign::DecoyRead)
    .with(Sign::DecoyChanged)
    .with(Sign::DecoyRemoved)
    .with(Sign::Overwrite)
    .with(Sign::ForeignDelete)
    .with(Sign::ForeignRename)
    .with(Sign::CredentialRead)
    .with(Sign::Send)
    .with(Sign::PersistenceWritten)
    .with(Sign::LogRemoved)
    .with(Sign::ForeignTimes)
    .with(Sign::ExecutableDropped)
    .with(Sign::Inject)
    .with(Sign::SelfDeleted);

impl HarmWeights {
    /// The harm of one event, whatever the isolation level. What happens to a decoy or a log is not charged a second
    /// time as a destroyed file.
    #[inline]
    pub fn of(&self, facts: &Facts) -> f32 {
        if !facts.signs.meets(HARMFUL) { 0.0 } else { self.sum(facts) }
    }

    fn sum(&self, facts: &Facts) -> f32 {
        let signs = facts.signs;
        let renamed_away = signs.has(Sign::ForeignRename) && signs.has(Sign::ChangeExtension);
        let destroyed = signs.meets(DESTROYED) || renamed_away;
        let named = signs.meets(DECOY) || signs.has(Sign::LogRemoved);
        let kib = facts.bytes_sent as f32 / 1_024.0;
        let charges = [
            (signs.has(Sign::DecoyRead), self.decoy_read),
            (signs.has(Sign::DecoyChanged), self.decoy_changed),
            (signs.has(Sign::DecoyRemoved), self.decoy_removed),
            (destroyed && !named, self.file_destroyed),
            (signs.has(Sign::CredentialRead), self.credential_read),
            (signs.has(Sign::Send), self.kib_sent * kib),
            (signs.has(Sign::PersistenceWritten), self.persistence_written),
            (signs.has(Sign::LogRemoved), self.log_removed),
            (signs.has(Sign::ForeignTimes), self.timestamps_forged),
            (signs.has(Sign::ExecutableDropped), self.executable_dropped),
            (signs.has(Sign::Inject), self.process_injected),
            (signs.has(Sign::SelfDeleted), self.self_deleted),
        ];
        charges.iter().map(|&(charged, weight)| if charged { weight } else { 0.0 }).sum()
    }

    fn weights(&self) -> [(&'static str, f32); 12] {
        [
            ("harm.decoy_read", self.decoy_read),
            ("harm.decoy_changed", self.decoy_changed),
            ("harm.decoy_removed", self.decoy_removed),
            ("harm.file_destroyed", self.file_destroyed),
            ("harm.credential_read", self.credential_read),
            ("harm.kib_sent", self.kib_sent),
            ("harm.persistence_written", self.persistence_written),
            ("harm.log_removed", self.log_removed),
            ("harm.timestamps_forged", self.timestamps_forged),
            ("harm.executable_dropped", self.executable_dropped),
            ("harm.process_injected", self.process_injected),
            ("harm.self_deleted", self.self_deleted),
        ]
    }
}

/// Every weight of the reward, as a size: the signs are fixed, what is a charge stays a charge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct RewardConfig {
    /// Charge for each window in stage 1.
    pub window_cost: f32,
    /// Charge for each window in stage 2, at least `window_cost`.
    pub stage2_window_cost: f32,
    /// Share of the charge for time that `r1` repeats, 0 to 1. At 0 waiting is free where a false positive is all that counts;
    /// at 1 time costs the same whichever error is feared.
    pub time_share_r1: f32,
    /// Further charge for each window and isolation level above 0.
    pub isolation_window_cost: f32,
    /// Charge for raising the isolation of a benign sample.
    pub raise_cost: f32,
    /// Charge for each event of a benign sample that the isolation level would have denied.
    pub breakage_per_event: f32,
    /// Largest charge for the breakage of one window.
    pub breakage_ceiling: f32,
    /// The harm of an episode is charged as `ceiling * (1 - exp(-harm / ceiling))`, so that it never exceeds this.
    pub harm_ceiling: f32,
    /// Weights of harmful events.
    pub harm: HarmWeights,
    /// Reward for convicting a malicious sample.
    pub true_positive: f32,
    /// Reward for releasing a benign sample from the last stage.
    pub true_negative: f32,
    /// Charge for convicting a benign sample, in `r1` alone.
    pub false_positive: f32,
    /// Charge for releasing a malicious sample from the last stage, beside the harm that it goes on to do.
    pub false_negative: f32,
    /// What quarantine earns beyond terminate where it is right.
    pub quarantine_bonus: f32,
    /// What quarantine is charged beyond terminate where it is wrong, in `r1` alone.
    pub quarantine_cost: f32,
}

impl Default for RewardConfig {
    fn default() -> Self {
        RewardConfig {
            window_cost: 0.0025,
            stage2_window_cost: 0.004,
            time_share_r1: 0.03,
            isolation_window_cost: 0.0005,
            raise_cost: 0.02,
            breakage_per_event: 0.005,
            breakage_ceiling: 0.05,
            harm_ceiling: 3.0,
            harm: HarmWeights::default(),
            true_positive: 1.0,
            true_negative: 1.0,
            false_positive: 1.0,
            false_negative: 1.0,
            quarantine_bonus: 0.02,
            quarantine_cost: 0.5,
        }
    }
}

/// A weight that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum RewardError {
    /// A weight is out of its range.
    #[error("reward.{key} is {value}: {reason}")]
    Weight {
        /// Name of the key below `reward`.
        key: &'static str,
        /// Its value.
        value: f32,
        /// What it must be, and why.
        reason: &'static str,
    },
}

impl RewardConfig {
    /// Checks every weight.
    ///
    /// # Errors
    /// [`RewardError::Weight`] with the first key that is wrong, its value and the reason.
    pub fn validate(&self) -> Result<(), RewardError> {
        let charges = [
            ("window_cost", self.window_cost),
            ("stage2_window_cost", self.stage2_window_cost),
            ("isolation_window_cost", self.isolation_window_cost),
            ("raise_cost", self.raise_cost),
            ("breakage_per_event", self.breakage_per_event),
            ("breakage_ceiling", self.breakage_ceiling),
            ("quarantine_bonus", self.quarantine_bonus),
            ("quarantine_cost", self.quarantine_cost),
        ];
        let error = |key, value, reason| Err(RewardError::Weight { key, value, reason });
        for (key, value) in charges.into_iter().chain(self.harm.weights()) {
            if !(0.0..=1_000.0).contains(&value) {
                return error(key, value, "it must be a number from 0 to 1000; charges are given as sizes");
            }
        }
        let verdicts = [
            ("true_positive", self.true_positive),
            ("true_negative", self.true_negative),
            ("false_positive", self.false_positive),
            ("false_negative", self.false_negative),
            ("harm_ceiling", self.harm_ceiling),
        ];
        for (key, value) in verdicts {
            if !(value > 0.0 && value <= 1_000.0) {
                return error(key, value, "it must be above 0 and at most 1000; without it a verdict means nothing");
            }
        }
        if !(0.0..=1.0).contains(&self.time_share_r1) {
            return error("time_share_r1", self.time_share_r1, "it is a share: a number from 0 to 1");
        }
        if self.stage2_window_cost < self.window_cost {
            return error(
                "stage2_window_cost",
                self.stage2_window_cost,
                "a window in stage 2 must not cost less than `window_cost`, one in stage 1",
            );
        }
        Ok(())
    }

    /// The harm charged for an episode that did `harm` in all: monotone, and at most `harm_ceiling`.
    pub fn charged_harm(&self, harm: f32) -> f32 {
        let ceiling = f64::from(self.harm_ceiling);
        (-libm::expm1(-f64::from(harm) / ceiling) * ceiling) as f32
    }

    /// What letting one more window happen costs: the time that it takes, and what its events do; both at least 0.
    fn window_charges(&self, label: Label, level: u8, window: &WindowCosts) -> (f32, f32) {
        let level = usize::from(level).min(LEVELS - 1);
        let base = if window.stage > 1 { self.stage2_window_cost } else { self.window_cost };
        let effect = match label {
            Label::Malicious => {
                self.charged_harm(window.harm_before + window.harm[level]) - self.charged_harm(window.harm_before)
            }
            Label::Benign => window.breakage[level].min(self.breakage_ceiling),
        };
        (base + self.isolation_window_cost * level as f32, effect.max(0.0))
    }

    /// What letting one more window happen earns. Its time is charged in `r0` and in part in `r1`, so that no cost of a false
    /// positive makes waiting free; its events are charged in `r0`.
    pub fn window_parts(&self, label: Label, level: u8, window: &WindowCosts) -> Parts {
        let (time, effect) = self.window_charges(label, level, window);
        Parts { r0: -time - effect, r1: -time * self.time_share_r1 }
    }

    /// What a recording answers about one action in one of its states; `None` where it has no answer.
    ///
    /// `continue` and `raise_isolation` are charged for the window that follows, at the level then in force. `release`
    /// before the last stage is no verdict: it is charged for the first window of the next stage, at level 0.
    pub fn answer(&self, situation: &Situation<'_>, action: Action) -> Option<Parts> {
        let malicious = situation.label == Label::Malicious;
        match action {
            Action::Continue => Some(self.window_parts(situation.label, situation.level, situation.next?)),
            Action::RaiseIsolation => {
                let raised = situation.level.checked_add(1).filter(|level| usize::from(*level) < LEVELS)?;
                let raise = if malicious { 0.0 } else { self.raise_cost };
                let parts = self.window_parts(situation.label, raised, situation.next?);
                Some(Parts { r0: parts.r0 - raise, ..parts })
            }
            Action::Release => {
                if let Some(next_stage) = situation.next_stage {
                    return Some(self.window_parts(situation.label, 0, next_stage));
                }
                if !malicious {
                    return Some(Parts { r0: self.true_negative, r1: 0.0 });
                }
                let so_far = self.charged_harm(situation.harm_so_far);
                let rest = self.charged_harm(situation.harm_so_far + situation.harm_to_come) - so_far;
                Some(Parts { r0: -self.false_negative - rest.max(0.0), r1: 0.0 })
            }
            Action::Terminate if malicious => Some(Parts { r0: self.true_positive, r1: 0.0 }),
            Action::Terminate => Some(Parts { r0: 0.0, r1: -self.false_positive }),
            Action::Quarantine if malicious => Some(Parts { r0: self.true_positive + self.quarantine_bonus, r1: 0.0 }),
            Action::Quarantine => Some(Parts { r0: 0.0, r1: -self.false_positive - self.quarantine_cost }),
        }
    }
}

/// What the events of a window do at each isolation level: raw sums of weights.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Toll {
    /// Harm, if the sample is malicious.
    pub harm: [f32; LEVELS],
    /// Breakage, if the sample is benign.
    pub breakage: [f32; LEVELS],
}

impl Toll {
    /// Adds an event.
    #[inline]
    pub(crate) fn add(&mut self, reward: &RewardConfig, facts: &Facts) {
        if facts.failed {
            return;
        }
        let harm = reward.harm.of(facts);
        if harm > 0.0 {
            for (level, sum) in self.harm.iter_mut().enumerate() {
                *sum += if level < usize::from(facts.denied_at) { harm } else { 0.0 };
            }
        }
        for sum in self.breakage.iter_mut().skip(usize::from(facts.denied_at)) {
            *sum += reward.breakage_per_event;
        }
    }
}

/// What a recorded window costs the one who lets it happen.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WindowCosts {
    /// Stage, 1 or 2.
    pub stage: u8,
    /// [`Window::harm`].
    pub harm: [f32; LEVELS],
    /// Sum of `harm[0]` over the windows of this stage before it.
    pub harm_before: f32,
    /// [`Window::breakage`].
    pub breakage: [f32; LEVELS],
}

impl WindowCosts {
    /// The costs of a window that follows windows of its stage with a harm of `harm_before`.
    pub fn of(window: &Window<'_>, harm_before: f32) -> WindowCosts {
        WindowCosts { stage: window.stage, harm: window.harm, harm_before, breakage: window.breakage }
    }
}

/// A recorded state, as far as rewards go.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Situation<'a> {
    /// What the sample is.
    pub label: Label,
    /// Isolation level in force.
    pub level: u8,
    /// The window that follows in this stage, if one was recorded.
    pub next: Option<&'a WindowCosts>,
    /// The first window of the next stage, if a next stage was recorded.
    pub next_stage: Option<&'a WindowCosts>,
    /// Sum of `harm[0]` over the windows of this stage up to and including this one.
    pub harm_so_far: f32,
    /// Sum of `harm[0]` over the windows of this stage after this one: what a released sample goes on to do.
    pub harm_to_come: f32,
}
