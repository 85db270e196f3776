//! Exact replay: what a policy does on recordings, and what that earns.

use bellwether_env_adapter::{ACTION_COUNT, Action};
use bellwether_replay::SampledRows;
use rayon::prelude::*;

use super::answers::{AnswerModel, Place, greedy};
use super::{OVERLAY, TrainingError, overlay};
use crate::evaluate::outcome::{Outcome, Stop, Verdict};
use crate::learner::fused::{Forward, Isa};
use crate::network::NetworkShape;

/// Episodes that are walked together: enough rows to fill the kernels.
const TOGETHER: usize = 256;

/// A policy: a network in canonical layout.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// Widths of the network.
    pub shape: &'a NetworkShape,
    /// Its parameters.
    pub parameters: &'a [f32],
    /// Instruction set to compute with; it does not change a byte.
    pub isa: Isa,
}

/// Where an episode stands while it is played.
struct Walk {
    place: Place,
    ret: f64,
    harm_let: f64,
    windows: u32,
}

/// Plays a policy on episodes at one cost `z`, and gives what it reached in each, in their order.
///
/// # Errors
/// If the states cannot be read or the network does not fit them.
pub fn play(
    model: &AnswerModel<'_>,
    policy: Policy<'_>,
    episodes: &[u32],
    z: f32,
) -> Result<Vec<Outcome>, TrainingError> {
    let parts: Result<Vec<Vec<Outcome>>, TrainingError> =
        episodes.par_chunks(TOGETHER).map(|chunk| play_together(model, policy, chunk, z)).collect();
    match model.recordings().store().states().failure() {
        Some(failure) => Err(TrainingError::States(failure.to_string())),
        None => Ok(parts?.into_iter().flatten().collect()),
    }
}

fn play_together(
    model: &AnswerModel<'_>,
    policy: Policy<'_>,
    episodes: &[u32],
    z: f32,
) -> Result<Vec<Outcome>, TrainingError> {
    let mut forward = Forward::new(policy.shape.clone(), policy.isa)?;
    let mut outcomes: Vec<Option<Outcome>> = vec![None; episodes.len()];
    let mut walks: Vec<(usize, Walk)> = Vec::new();
    for (i, episode) in episodes.iter().enumerate() {
        match model.start(*episode) {
            Some(place) => walks.push((i, Walk::new(model, place))),
            None => outcomes[i] = Some(unseen(model, *episode)),
        }
    }
    let store = model.recordings().store();
    let (mut rows, mut overlays, mut q) = (Vec::new(), Vec::new(), Vec::new());
    while !walks.is_empty() {
        rows.clear();
        overlays.clear();
        for (_, walk) in &walks {
            rows.push(walk.place.row);
            overlays.extend(overlay(z, walk.place.level));
        }
        let states = SampledRows::new(store.states(), &rows).with_overlay(&OVERLAY, &overlays);
        forward.q_values(policy.parameters, &states, &mut q)?;
        let mut q = q.chunks_exact(ACTION_COUNT);
        walks.retain_mut(|(i, walk)| {
            let choice = q.next().map_or(Action::Release.index(), |q| greedy(q, &model.mask(walk.place)));
            outcomes[*i] = walk.act(model, choice, z);
            outcomes[*i].is_none()
        });
    }
    Ok(outcomes.into_iter().flatten().collect())
}

/// What a stopping rule reaches that gives its verdict at a window of its own choice, at this cost `z`.
pub fn stop_at(model: &AnswerModel<'_>, episode: u32, stop: Stop, z: f32) -> Outcome {
    let Some(start) = model.start(episode) else { return unseen(model, episode) };
    let mut walk = Walk::new(model, start);
    loop {
        let last = !model.mask(walk.place)[Action::Continue.index()];
        let choice = match stop.verdict {
            _ if walk.windows <= stop.window && !last => Action::Continue,
            Verdict::Benign => Action::Release,
            Verdict::Malicious => Action::Quarantine,
        };
        if let Some(outcome) = walk.act(model, choice.index(), z) {
            return outcome;
        }
    }
}

impl Walk {
    fn new(model: &AnswerModel<'_>, place: Place) -> Walk {
        let harm_let = f64::from(model.recordings().window(place.row).costs.harm[0]);
        Walk { place, ret: 0.0, harm_let, windows: 1 }
    }

    /// Takes an action; gives the outcome where it ends the episode.
    fn act(&mut self, model: &AnswerModel<'_>, choice: usize, z: f32) -> Option<Outcome> {
        let outcome = model.outcome(self.place, choice, z);
        self.ret += f64::from(outcome.reward);
        let recordings = model.recordings();
        if let Some(next) = outcome.next {
            self.place = next;
            self.windows += 1;
            self.harm_let += f64::from(recordings.window(next.row).costs.harm[usize::from(next.level)]);
            return None;
        }
        let convicted = Action::ALL[choice].is_conviction();
        let facts = recordings.facts(self.place.episode);
        let episode = recordings.store().episode(self.place.episode);
        if !convicted {
            // What is released goes on, at no isolation.
            let rest = self.place.row + 1..episode.first_row + episode.len;
            self.harm_let += rest.map(|row| f64::from(recordings.window(row).costs.harm[0])).sum::<f64>();
        }
        Some(Outcome {
            episode: self.place.episode,
            label: facts.label,
            group: episode.group,
            verdict: if convicted { Verdict::Malicious } else { Verdict::Benign },
            events: recordings.window(self.place.row).events_seen,
            windows: self.windows,
            total_events: facts.events,
            harm_let: (self.harm_let as f32).min(facts.stage_harm.iter().sum()),
            harm_total: facts.stage_harm.iter().sum(),
            ret: self.ret,
        })
    }
}

/// The outcome of a recording without a window: nothing was seen, and nothing can be convicted.
fn unseen(model: &AnswerModel<'_>, episode: u32) -> Outcome {
    let facts = model.recordings().facts(episode);
    Outcome {
        episode,
        label: facts.label,
        group: model.recordings().store().episode(episode).group,
        verdict: Verdict::Benign,
        events: 0,
        windows: 0,
        total_events: 0,
        harm_let: 0.0,
        harm_total: 0.0,
        ret: 0.0,
    }
}
