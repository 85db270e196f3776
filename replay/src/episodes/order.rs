//! The rules that the rows of an episode file follow, held by one piece of code for writer and reader.

use super::{End, EpisodeFileHeader, PlayedParts, Step};
use crate::ReplayError;

/// What must be known of the rows so far to judge the next.
#[derive(Clone, Debug, Default)]
pub(super) struct Order {
    rows: u64,
    episodes: u64,
    /// Whether the last row leaves its episode open.
    open: bool,
    episode_id: String,
    step: u32,
    stage: u8,
    events_seen: u64,
    label: Option<String>,
}

impl Order {
    /// Between two episodes, after so many rows that were not looked at.
    pub(super) fn after(rows: u64) -> Order {
        Order { rows, ..Order::default() }
    }

    /// Rows taken.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Episodes begun.
    pub(super) fn episodes(&self) -> u64 {
        self.episodes
    }

    /// Whether an episode is under way.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The episode that is under way is over.
    pub(super) fn close(&mut self) {
        self.open = false;
    }

    /// Whether `step` goes on with the episode under way.
    pub(super) fn continues(&self, step: &Step<'_>) -> bool {
        self.open && self.episode_id == step.episode_id
    }

    /// Takes the next row, or says what is wrong with it; then nothing has changed.
    pub(super) fn take(&mut self, header: &EpisodeFileHeader, step: &Step<'_>) -> Result<(), ReplayError> {
        self.judge(header, step).map_err(|reason| ReplayError::Step {
            row: self.rows,
            episode: step.episode_id.to_owned(),
            step: step.step,
            reason,
        })?;
        if !self.open {
            self.episodes += 1;
            self.episode_id.clear();
            self.episode_id.push_str(step.episode_id);
            self.label = step.label.map(str::to_owned);
        }
        self.rows += 1;
        self.open = step.end.is_none();
        self.step = step.step;
        self.stage = step.stage;
        self.events_seen = step.events_seen;
        Ok(())
    }

    fn judge(&self, header: &EpisodeFileHeader, step: &Step<'_>) -> Result<(), String> {
        if self.open {
            if self.episode_id != step.episode_id {
                return Err(format!("episode `{}` has not ended; end it or break it off first", self.episode_id));
            }
            if step.step != self.step + 1 {
                return Err(format!("step {} comes next", self.step + 1));
            }
            if step.stage < self.stage {
                return Err(format!("stage {} follows stage {}; stages never fall", step.stage, self.stage));
            }
            if step.events_seen < self.events_seen {
                return Err(format!("{} events seen after {}; they never fall", step.events_seen, self.events_seen));
            }
            if step.label != self.label.as_deref() {
                return Err("the label changes within the episode".into());
            }
        } else {
            if step.episode_id.is_empty() {
                return Err("an episode has a name".into());
            }
            if self.rows > 0 && step.episode_id == self.episode_id {
                return Err("the episode has ended".into());
            }
            if step.step != 0 {
                return Err("an episode begins with step 0".into());
            }
        }
        if step.state.len() != header.width {
            return Err(format!("its state has {} elements where {} are needed", step.state.len(), header.width));
        }
        crate::error::all_finite("the state", step.state).map_err(|error| error.to_string())?;
        step.action_mask.check(header.actions).map_err(|error| error.to_string())?;
        if let Some(PlayedParts { action, r0, r1, behaviour_probability, safe_rule }) = step.played {
            if !step.action_mask.allows(action) {
                return Err(format!("the mask forbids action {action}"));
            }
            if !(r0.is_finite() && r1.is_finite()) {
                return Err(format!("a reward of {r0} and {r1} is not finite"));
            }
            if !(behaviour_probability > 0.0 && behaviour_probability <= 1.0) {
                return Err(format!("a behaviour probability of {behaviour_probability} is not above 0 and at most 1"));
            }
            if safe_rule && !header.safe_rule {
                return Err("the safe rule decided it, in a file whose rows do not say who decided".into());
            }
        } else if step.end != Some(End::Truncated) {
            return Err("only the final state of an episode that was cut off has no action".into());
        }
        match (header.q_values, step.q_values) {
            (true, Some(q_values)) if q_values.len() == header.actions as usize => {
                crate::error::all_finite("the q-values", q_values).map_err(|error| error.to_string())?;
            }
            (true, Some(q_values)) => {
                return Err(format!("{} q-values stand beside {} actions", q_values.len(), header.actions));
            }
            (true, None) => return Err("it has no q-values, in a file whose rows have them".into()),
            (false, Some(_)) => return Err("it has q-values, in a file whose rows have none".into()),
            (false, None) => {}
        }
        if step.partial && step.end.is_none() {
            return Err("only the last row of an episode is flagged partial".into());
        }
        Ok(())
    }
}
