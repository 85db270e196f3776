//! From a question to a decision: the one way, whatever protocol asked.

use bellwether_artifact::{OperatingPoint, Sha256};
use bellwether_env_adapter::spec::{element, encode_cost};
use thiserror::Error;
use tonic::Code;

use super::decision_log::Place;
use super::shared::Shared;
use crate::engine::DecideError;
use crate::policy::{Answer, Held, HeldAll, ModelId};

/// What is asked beside states and masks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Terms<'a> {
    /// Number of the episode, which chooses the model while a canary is on trial.
    pub(super) episode: Option<u64>,
    /// The false-positive rate to serve; its cost is written into every state.
    pub(super) target_fpr: Option<f64>,
    /// Version or number of the model that must decide; empty for whichever does.
    pub(super) model_version: &'a str,
    /// Where in its episode the question stands, for the log of decisions.
    pub(super) place: Place<'a>,
}

/// Why a question has no answer. Nothing of it was scored.
#[derive(Clone, Debug, PartialEq, Error)]
pub(super) enum Refused {
    /// The model refuses the state or the mask.
    #[error(transparent)]
    Decide(#[from] DecideError),
    /// The model was not calibrated for the rate that is to be served.
    #[error(
        "the model was not calibrated for a false-positive rate of {target}; it knows {known}: ask for a rate that it knows, or for none"
    )]
    OperatingPoint {
        /// What was asked.
        target: f64,
        /// The rates of its table.
        known: String,
    },
    /// A row of a batch is refused, and with it the batch.
    #[error("row {row}: {cause}")]
    Row {
        /// Number of the row, from 0.
        row: usize,
        /// Why.
        cause: DecideError,
    },
    /// Another model would decide.
    #[error(
        "model {asked} is not the one that decides here; {served} is: leave the version out, or ask a server of that model"
    )]
    NotServed {
        /// What was asked.
        asked: String,
        /// What decides.
        served: String,
    },
    /// The state was made by another specification than the model reads.
    #[error(
        "the state was made by the feature specification {asked}, and models read {read} here: ask for what they read (Describe)"
    )]
    Specification {
        /// What the client made states by.
        asked: String,
        /// What models read.
        read: Sha256,
    },
    /// Something is given twice, or in a form that cannot be read.
    #[error("{0}")]
    Malformed(String),
    /// More is asked at once than the server answers.
    #[error("{what}: {found} is more than the {limit} that are answered at once: send smaller ones")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How much.
        found: usize,
        /// How much there may be.
        limit: usize,
    },
}

impl Refused {
    /// The same, said of a row of a batch.
    pub(super) fn in_row(self, row: usize) -> Self {
        match self {
            Refused::Decide(cause) => Refused::Row { row, cause },
            other => other,
        }
    }

    /// The code of gRPC.
    pub(super) fn code(&self) -> Code {
        use DecideError::{NonFiniteValue, Overflow, ScratchTooSmall};
        match self {
            Refused::Decide(cause) | Refused::Row { cause, .. }
                if matches!(cause, Overflow { .. } | NonFiniteValue { .. } | ScratchTooSmall) =>
            {
                Code::Internal
            }
            Refused::NotServed { .. } => Code::NotFound,
            Refused::Specification { .. } => Code::FailedPrecondition,
            _ => Code::InvalidArgument,
        }
    }
}

impl From<Refused> for tonic::Status {
    fn from(refused: Refused) -> Self {
        tonic::Status::new(refused.code(), refused.to_string())
    }
}

/// Asks for one decision by one of the models that are held. A mask of no entries allows every action. `take` keeps of the answer
/// what it needs, and of the cost that was written into the state.
pub(super) fn answer<R>(
    shared: &Shared,
    all: &mut HeldAll<'_>,
    terms: Terms<'_>,
    state: &mut [f32],
    mask: &[bool],
    take: impl FnOnce(Answer<'_>, Option<f32>) -> R,
) -> Result<R, Refused> {
    let held = &mut all.choose(terms.episode);
    let cost = prepare(held, terms)?;
    decide(shared, held, cost, terms, state, mask).map(|answer| take(answer, cost))
}

/// What has to be so before a held model decides: the cost of the rate that it is to serve.
pub(super) fn prepare(held: &Held<'_>, terms: Terms<'_>) -> Result<Option<f32>, Refused> {
    if !names(terms.model_version, held.id()) {
        return Err(Refused::NotServed { asked: shortened(terms.model_version), served: called(held.id()) });
    }
    let Some(target) = terms.target_fpr else { return Ok(None) };
    let point = held.operating_points().iter().find(|point| point.target_fpr == target);
    let cost = point.ok_or_else(|| Refused::OperatingPoint { target, known: rates(held.operating_points()) })?.cost;
    Ok(Some(cost))
}

/// One decision by a held model, with this cost in the state; logged, where decisions are, with its place in the episode.
pub(super) fn decide<'h>(
    shared: &Shared,
    held: &'h mut Held<'_>,
    cost: Option<f32>,
    terms: Terms<'_>,
    state: &mut [f32],
    mask: &[bool],
) -> Result<Answer<'h>, Refused> {
    if let (Some(cost), Some(element)) = (cost, state.get_mut(element::COST)) {
        *element = encode_cost(cost);
    }
    const ALL: [bool; 64] = [true; 64];
    let actions = shared.policy.actions().len();
    let answer = match ALL.get(..actions) {
        Some(all) if mask.is_empty() => held.decide(state, all)?,
        None if mask.is_empty() => held.decide(state, &vec![true; actions])?,
        _ => held.decide(state, mask)?,
    };
    if let Some(log) = &shared.decision_log {
        log.record(Place { episode_number: terms.episode, ..terms.place }, state, &answer);
    }
    Ok(answer)
}

/// Whether a client that asks for `asked` means this model.
pub(super) fn names(asked: &str, id: ModelId) -> bool {
    asked.is_empty() || asked.parse() == Ok(id.version) || id.number.is_some_and(|number| asked.parse() == Ok(number))
}

fn called(id: ModelId) -> String {
    match id.number {
        Some(number) => format!("{} (number {number})", id.version),
        None => id.version.to_string(),
    }
}

fn rates(points: &[OperatingPoint]) -> String {
    if points.is_empty() {
        return "none".to_owned();
    }
    points.iter().map(|point| point.target_fpr.to_string()).collect::<Vec<_>>().join(", ")
}

/// What a client wrote, in a length that an error can repeat.
pub(super) fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
