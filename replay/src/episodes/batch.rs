//! A decoded batch of rows, whose columns are looked up once.

use super::{End, EpisodeFileHeader, PlayedParts, StepRow};
use crate::{ActionMask, Encoding};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float32Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, FixedSizeListArray, Float32Array, ListArray, RecordBatch, StringArray,
    UInt8Array, UInt32Array, UInt64Array,
};

/// The columns of a batch.
pub(super) struct Batch {
    rows: usize,
    episode_id: StringArray,
    step: UInt32Array,
    stage: UInt8Array,
    states: States,
    action_mask: UInt32Array,
    action: UInt8Array,
    r0: Float32Array,
    r1: Float32Array,
    behaviour_probability: Float32Array,
    terminated: BooleanArray,
    truncated: BooleanArray,
    partial: BooleanArray,
    label: StringArray,
    events_seen: UInt64Array,
    q_values: Option<FixedSizeListArray>,
    safe_rule: Option<BooleanArray>,
}

enum States {
    Dense(FixedSizeListArray),
    Sparse { indices: ListArray, values: ListArray },
}

impl Batch {
    /// The columns that a file of this header has.
    pub(super) fn new(header: &EpisodeFileHeader, batch: &RecordBatch) -> Result<Batch, String> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("column `{name}` is missing"));
        let u32s = |name: &str| Ok::<_, String>(column(name)?.as_primitive::<UInt32Type>().clone());
        let u8s = |name: &str| Ok::<_, String>(column(name)?.as_primitive::<UInt8Type>().clone());
        let floats = |name: &str| Ok::<_, String>(column(name)?.as_primitive::<Float32Type>().clone());
        let flags = |name: &str| Ok::<_, String>(column(name)?.as_boolean().clone());
        let texts = |name: &str| Ok::<_, String>(column(name)?.as_string::<i32>().clone());
        let states = match header.encoding {
            Encoding::Dense => States::Dense(column("state")?.as_fixed_size_list().clone()),
            Encoding::Sparse => States::Sparse {
                indices: column("state_index")?.as_list::<i32>().clone(),
                values: column("state_value")?.as_list::<i32>().clone(),
            },
        };
        let q_values = header.q_values.then(|| Ok::<_, String>(column("q_values")?.as_fixed_size_list().clone()));
        let safe_rule = header.safe_rule.then(|| flags("safe_rule"));
        Ok(Batch {
            rows: batch.num_rows(),
            episode_id: texts("episode_id")?,
            step: u32s("step")?,
            stage: u8s("stage")?,
            states,
            action_mask: u32s("action_mask")?,
            action: u8s("action")?,
            r0: floats("r0")?,
            r1: floats("r1")?,
            behaviour_probability: floats("behaviour_probability")?,
            terminated: flags("terminated")?,
            truncated: flags("truncated")?,
            partial: flags("partial")?,
            label: texts("label")?,
            events_seen: column("events_seen")?.as_primitive::<UInt64Type>().clone(),
            q_values: q_values.transpose()?,
            safe_rule: safe_rule.transpose()?,
        })
    }

    /// Number of rows.
    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Copies one row.
    pub(super) fn read(&self, header: &EpisodeFileHeader, at: usize, row: &mut StepRow) -> Result<(), String> {
        row.episode_id.clear();
        row.episode_id.push_str(self.episode_id.value(at));
        (row.step, row.stage) = (self.step.value(at), self.stage.value(at));
        row.action_mask = ActionMask::from_bits(self.action_mask.value(at));
        row.events_seen = self.events_seen.value(at);
        row.partial = self.partial.value(at);
        row.end = match (self.terminated.value(at), self.truncated.value(at)) {
            (false, false) => None,
            (true, false) => Some(End::Terminated),
            (false, true) => Some(End::Truncated),
            (true, true) => return Err("it is both terminated and truncated".into()),
        };
        if self.label.is_null(at) {
            row.label = None;
        } else {
            let label = row.label.get_or_insert_default();
            label.clear();
            label.push_str(self.label.value(at));
        }
        let floats = [&self.r0, &self.r1, &self.behaviour_probability];
        let nulls = floats.iter().filter(|part| part.is_null(at)).count() + usize::from(self.action.is_null(at));
        if self.safe_rule.as_ref().is_some_and(|flags| flags.is_null(at) != self.action.is_null(at)) {
            return Err("it says who decided where nothing was, or does not where something was".into());
        }
        row.played = match nulls {
            0 => Some(PlayedParts {
                action: u32::from(self.action.value(at)),
                r0: self.r0.value(at),
                r1: self.r1.value(at),
                behaviour_probability: self.behaviour_probability.value(at),
                safe_rule: self.safe_rule.as_ref().is_some_and(|flags| flags.value(at)),
            }),
            4 => None,
            _ => return Err("action, rewards and behaviour probability are present together or not at all".into()),
        };
        match &self.q_values {
            Some(list) => {
                let q_values = row.q_values.get_or_insert_default();
                q_values.clear();
                q_values.extend_from_slice(fixed(list, at));
            }
            None => row.q_values = None,
        }
        row.state.clear();
        match &self.states {
            States::Dense(list) => row.state.extend_from_slice(fixed(list, at)),
            States::Sparse { indices, values } => {
                row.state.resize(header.width, 0.0);
                let (from, to) = bounds(indices, at);
                let indices = &indices.values().as_primitive::<UInt16Type>().values()[from..to];
                let (from, to) = bounds(values, at);
                let values = &floats_of(values.values())[from..to];
                if indices.len() != values.len() || !indices.is_sorted_by(|a, b| a < b) {
                    return Err("its state has positions out of order or without a value".into());
                }
                for (index, value) in indices.iter().zip(values) {
                    let element = row.state.get_mut(usize::from(*index));
                    *element.ok_or_else(|| format!("element {index} of its state lies beyond the width"))? = *value;
                }
            }
        }
        Ok(())
    }
}

fn floats_of(values: &ArrayRef) -> &[f32] {
    values.as_primitive::<Float32Type>().values()
}

/// The values of one list of a column of lists of one length.
fn fixed(list: &FixedSizeListArray, at: usize) -> &[f32] {
    let from = list.value_offset_at(at);
    &floats_of(list.values())[from..from + list.value_length() as usize]
}

/// Where the values of one list lie.
fn bounds(list: &ListArray, at: usize) -> (usize, usize) {
    let offsets = list.value_offsets();
    (offsets[at] as usize, offsets[at + 1] as usize)
}
