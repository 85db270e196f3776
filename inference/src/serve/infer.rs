//! Inference on tensors: what the Open Inference Protocol asks, whichever transport brings it.

use std::borrow::Cow;

use super::answer::{self, Refused, Terms, prepare, shortened};
use super::shared::Shared;
use crate::policy::{Held, ModelId, Role};

/// Name of the input with the states.
pub(super) const STATE: &str = "state";
/// Name of the optional input that says which actions are allowed.
pub(super) const ACTION_MASK: &str = "action_mask";
/// Name of the output with the values of all actions.
pub(super) const Q_VALUES: &str = "q_values";
/// Name of the output with the action.
pub(super) const ACTION: &str = "action";

/// A tensor of a request.
#[derive(Debug)]
pub(super) struct Input<'a> {
    pub(super) name: &'a str,
    pub(super) datatype: &'a str,
    pub(super) shape: &'a [i64],
    pub(super) data: Data<'a>,
}

/// What a tensor holds.
#[derive(Debug)]
pub(super) enum Data<'a> {
    /// 32-bit floats.
    Fp32(Cow<'a, [f32]>),
    /// Booleans.
    Bool(Cow<'a, [bool]>),
    /// Bytes: little-endian floats, or booleans of a byte each.
    Raw(&'a [u8]),
    /// Nothing, or values of another type.
    None,
}

/// The states and masks of a request: at least one row.
#[derive(Debug, PartialEq)]
pub(super) struct Batch {
    /// Row-major.
    pub(super) states: Vec<f32>,
    /// Row-major; empty: every action is allowed in every row.
    pub(super) masks: Vec<bool>,
    pub(super) rows: usize,
}

/// What one model says of a batch.
#[derive(Debug, PartialEq)]
pub(super) struct Inferred {
    pub(super) model: ModelId,
    pub(super) role: Role,
    /// Row-major.
    pub(super) q_values: Vec<f32>,
    /// One a row.
    pub(super) actions: Vec<i64>,
}

/// Which outputs are wanted, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted(pub(super) Vec<&'static str>);

impl Wanted {
    /// The outputs that a request names; all of them where it names none.
    pub(super) fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, Refused> {
        let mut wanted = Vec::new();
        for name in names {
            let Some(known) = [Q_VALUES, ACTION].into_iter().find(|known| *known == name) else {
                let name = shortened(name);
                return Err(Refused::Malformed(format!("there is no output {name:?}; there are q_values and action")));
            };
            if wanted.contains(&known) {
                return Err(Refused::Malformed(format!("output {known} is asked for twice; ask once")));
            }
            wanted.push(known);
        }
        Ok(Wanted(if wanted.is_empty() { vec![Q_VALUES, ACTION] } else { wanted }))
    }
}

impl Batch {
    /// Gathers the tensors of a request.
    pub(super) fn gather<'a>(shared: &Shared, inputs: impl IntoIterator<Item = Input<'a>>) -> Result<Batch, Refused> {
        let (width, actions) = (shared.policy.width(), shared.policy.actions().len());
        let (mut states, mut masks) = (None, None);
        for input in inputs {
            match input.name {
                STATE if states.is_none() => states = Some(floats(shared, &input, width)?),
                ACTION_MASK if masks.is_none() => masks = Some(booleans(shared, &input, actions)?),
                STATE | ACTION_MASK => return Err(malformed(&input, "is given twice; give it once")),
                _ => return Err(malformed(&input, "is not known; there are state and action_mask")),
            }
        }
        let Some((rows, states)) = states else {
            return Err(Refused::Malformed("input state is missing; give it, FP32, a row per question".to_owned()));
        };
        let masks = match masks {
            Some((found, _)) if found != rows => {
                return Err(Refused::Malformed(format!(
                    "state has {rows} rows, action_mask has {found}; give a row of it for each state"
                )));
            }
            Some((_, masks)) => masks,
            None => Vec::new(),
        };
        Ok(Batch { states, masks, rows })
    }
}

/// Asks the model that decides for the episode, or the champion, about every row; one bad row refuses them all. Says which model
/// that is in either case.
pub(super) fn infer(shared: &Shared, terms: Terms<'_>, mut batch: Batch) -> (ModelId, Result<Inferred, Refused>) {
    shared.with_decider(|decider| {
        decider.hold(terms.episode, |held| (held.id(), decide_rows(shared, held, terms, &mut batch)))
    })
}

fn decide_rows(shared: &Shared, held: &mut Held<'_>, terms: Terms<'_>, batch: &mut Batch) -> Result<Inferred, Refused> {
    let (width, actions) = (shared.policy.width(), shared.policy.actions().len());
    let cost = prepare(held, terms)?;
    let (mut q_values, mut chosen) = (Vec::with_capacity(batch.rows * actions), Vec::with_capacity(batch.rows));
    for (row, state) in batch.states.chunks_exact_mut(width).enumerate() {
        let mask = batch.masks.get(row * actions..(row + 1) * actions).unwrap_or_default();
        let answer = answer::decide(shared, held, cost, terms, state, mask).map_err(|refused| refused.in_row(row))?;
        q_values.extend_from_slice(answer.decision.q_values);
        // The number of actions is bounded by the model format.
        chosen.push(answer.decision.action as i64);
    }
    Ok(Inferred { model: held.id(), role: held.role(), q_values, actions: chosen })
}

fn malformed(input: &Input<'_>, what: &str) -> Refused {
    Refused::Malformed(format!("input {:?} {what}", shortened(input.name)))
}

/// The rows of a tensor of this type whose rows have `width` values.
fn rows(shared: &Shared, input: &Input<'_>, datatype: &str, width: usize) -> Result<usize, Refused> {
    if input.datatype != datatype {
        return Err(malformed(input, &format!("has datatype {:?}, not {datatype}", shortened(input.datatype))));
    }
    let shape = || malformed(input, &format!("has shape {:?}, not [rows, {width}]", Shown(input.shape)));
    let [rows, columns] = input.shape else { return Err(shape()) };
    if usize::try_from(*columns) != Ok(width) {
        return Err(shape());
    }
    let (found, limit) = (usize::try_from(*rows).map_err(|_| shape())?, shared.config.limits.batch);
    match found {
        0 => Err(shape()),
        found if found > limit => Err(Refused::TooMany { what: "rows of a request", found, limit }),
        found => Ok(found),
    }
}

fn floats(shared: &Shared, input: &Input<'_>, width: usize) -> Result<(usize, Vec<f32>), Refused> {
    let rows = rows(shared, input, "FP32", width)?;
    let values = match &input.data {
        Data::Fp32(values) if values.len() == rows * width => values.to_vec(),
        Data::Raw(bytes) if bytes.len() == rows * width * 4 => {
            bytes.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)).collect()
        }
        data => return Err(length(input, data, rows * width)),
    };
    Ok((rows, values))
}

fn booleans(shared: &Shared, input: &Input<'_>, actions: usize) -> Result<(usize, Vec<bool>), Refused> {
    let rows = rows(shared, input, "BOOL", actions)?;
    let values = match &input.data {
        Data::Bool(values) if values.len() == rows * actions => values.to_vec(),
        Data::Raw(bytes) if bytes.len() == rows * actions => {
            if let Some((index, byte)) = bytes.iter().enumerate().find(|(_, byte)| **byte > 1) {
                return Err(malformed(input, &format!("has byte {byte} at {index}; a boolean is 0 or 1")));
            }
            bytes.iter().map(|byte| *byte == 1).collect()
        }
        data => return Err(length(input, data, rows * actions)),
    };
    Ok((rows, values))
}

fn length(input: &Input<'_>, data: &Data<'_>, expected: usize) -> Refused {
    let found = match data {
        Data::Fp32(values) => format!("{} floats", values.len()),
        Data::Bool(values) => format!("{} booleans", values.len()),
        Data::Raw(bytes) => format!("{} bytes", bytes.len()),
        Data::None => "no values of its type".to_owned(),
    };
    malformed(input, &format!("has {found}, but its shape {:?} wants {expected} values", Shown(input.shape)))
}

/// A shape in a length that an error can repeat.
struct Shown<'a>(&'a [i64]);

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_list().entries(self.0.iter().take(8)).finish()
    }
}
