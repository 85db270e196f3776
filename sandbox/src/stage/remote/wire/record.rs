//! Questions, commands and feedback.

use bellwether_artifact::Sha256;
use bellwether_env_adapter::reward::Toll;
use bellwether_env_adapter::spec::WIDTH;
use bellwether_env_adapter::{ACTION_COUNT, Action, EpisodeId, StateVector};

use super::{WireError, action, known, level, number, present, stage};
use crate::stage::remote::proto;
use crate::stage::{Came, Command, Context, DecisionId, Feedback, Grounds, Order, Question};

/// A state as it travels.
fn state_bytes(state: &StateVector) -> Vec<u8> {
    state.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// A question and the state that it is about.
pub(in super::super) fn question_message(question: &Question, state: &StateVector) -> proto::Question {
    let allowed = question.mask.iter().enumerate().filter(|(_, allowed)| **allowed);
    proto::Question {
        step: question.step,
        window: question.window,
        events: question.events,
        harm: question.toll.harm.to_vec(),
        breakage: question.toll.breakage.to_vec(),
        events_seen: question.events_seen,
        time_ns: question.time_ns,
        level: u32::from(question.level),
        close: proto::Close::from(question.close).into(),
        mask_bits: allowed.fold(0, |bits, (at, _)| bits | 1 << at),
        state: state_bytes(state),
    }
}

/// What a stage asks about the run of an order.
pub(in super::super) fn question(
    order: &Order,
    message: &proto::Question,
) -> Result<(Question, StateVector), WireError> {
    let four = |field, values: &[f32]| {
        let finite = values.iter().all(|value| value.is_finite());
        let values = <[f32; 4]>::try_from(values).ok().filter(|_| finite);
        values.ok_or_else(|| WireError::new(field, "give four numbers"))
    };
    let mask_bits = message.mask_bits;
    if mask_bits == 0 || mask_bits >> ACTION_COUNT != 0 {
        return Err(WireError::new("mask_bits", "allow at least one action, and none past the last"));
    }
    if message.state.len() != WIDTH * 4 {
        return Err(WireError::new("state", format!("{} bytes; give {}", message.state.len(), WIDTH * 4)));
    }
    let values = message.state.chunks_exact(4).map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
    let state = StateVector::from_slice(&values.collect::<Vec<_>>()).map_err(|error| WireError::new("state", error))?;
    let question = Question {
        episode: order.episode.clone(),
        stage: order.stage,
        step: message.step,
        window: message.window,
        events: message.events,
        toll: Toll { harm: four("harm", &message.harm)?, breakage: four("breakage", &message.breakage)? },
        events_seen: message.events_seen,
        time_ns: message.time_ns,
        level: level("level", message.level)?,
        close: known::<proto::Close, _>("close", message.close)?,
        mask: std::array::from_fn(|at| mask_bits & 1 << at != 0),
    };
    Ok((question, state))
}

/// A question that had no answer in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Overdue {
    /// The decision that was awaited.
    pub(in super::super) decision: DecisionId,
    /// What was done in its place.
    pub(in super::super) action: Action,
    /// How long the question could stand open, in milliseconds.
    pub(in super::super) limit_ms: u64,
    /// How long it stood open, in microseconds.
    pub(in super::super) open_us: u64,
}

/// What a stage did by the safe rule.
pub(in super::super) fn overdue_message(overdue: &Overdue) -> proto::Overdue {
    let Overdue { decision, action, limit_ms, open_us } = overdue;
    proto::Overdue { decision_id: decision.0.clone(), action: number(*action), limit_ms: *limit_ms, open_us: *open_us }
}

/// What a stage tells of the safe rule.
pub(in super::super) fn overdue(message: proto::Overdue) -> Result<Overdue, WireError> {
    let proto::Overdue { decision_id, action: number, limit_ms, open_us } = message;
    Ok(Overdue { decision: DecisionId(decision_id), action: action("overdue.action", number)?, limit_ms, open_us })
}

/// A command, with what it rests on.
pub(in super::super) fn act(command: &Command, state: Sha256, grounds: &Grounds) -> proto::ActRequest {
    let Command { decision, context, action } = command;
    proto::ActRequest {
        decision_id: decision.0.clone(),
        episode_id: context.episode.0.clone(),
        stage: u32::from(context.stage),
        step: context.step,
        window: context.window,
        level: u32::from(context.level),
        level_after: u32::from(context.level_after),
        action: number(*action),
        state_sha256: state.as_bytes().to_vec(),
        q_values: grounds.q_values.map(Vec::from).unwrap_or_default(),
        margin: grounds.margin,
        model_version: grounds.model_version.clone().unwrap_or_default(),
        safe_rule: grounds.safe_rule.clone().unwrap_or_default(),
    }
}

/// What is commanded.
pub(in super::super) fn command(message: &proto::ActRequest) -> Result<Command, WireError> {
    if !message.q_values.is_empty() && message.q_values.len() != ACTION_COUNT {
        return Err(WireError::new("q_values", format!("give none, or {ACTION_COUNT}")));
    }
    Ok(Command {
        decision: DecisionId(message.decision_id.clone()),
        context: Context {
            episode: EpisodeId(message.episode_id.clone()),
            stage: stage("stage", message.stage)?,
            step: message.step,
            window: message.window,
            level: level("level", message.level)?,
            level_after: level("level_after", message.level_after)?,
        },
        action: action("action", message.action)?,
    })
}

/// What came of a command.
pub(in super::super) fn feedback_message(feedback: &Feedback) -> proto::Feedback {
    use proto::feedback::Came as Theirs;
    proto::Feedback {
        decision_id: feedback.decision.as_ref().map(|decision| decision.0.clone()).unwrap_or_default(),
        stage: u32::from(feedback.stage),
        action: number(feedback.action),
        level: u32::from(feedback.level),
        came: Some(match &feedback.came {
            Came::Done { proof } => Theirs::Done(proto::Proof::from(*proof).into()),
            Came::Refused { why } => Theirs::Refused(proto::Refusal::from(*why).into()),
            Came::Failed { why } => Theirs::Failed(why.clone()),
        }),
        took_us: feedback.took_us,
    }
}

/// What a stage tells of a command.
pub(in super::super) fn feedback(message: &proto::Feedback) -> Result<Feedback, WireError> {
    use proto::feedback::Came as Theirs;
    let came = match present("came", message.came.as_ref())? {
        Theirs::Done(proof) => Came::Done { proof: known::<proto::Proof, _>("done", *proof)? },
        Theirs::Refused(why) => Came::Refused { why: known::<proto::Refusal, _>("refused", *why)? },
        Theirs::Failed(why) => Came::Failed { why: why.clone() },
    };
    Ok(Feedback {
        decision: (!message.decision_id.is_empty()).then(|| DecisionId(message.decision_id.clone())),
        stage: stage("stage", message.stage)?,
        action: action("action", message.action)?,
        level: level("level", message.level)?,
        came,
        took_us: message.took_us,
        // How often it was brought is known at the end that brought it.
        attempts: 1,
    })
}
