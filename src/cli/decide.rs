//! `bellwether decide`: states on standard input to decisions on standard output.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use anyhow::{Context, anyhow, bail};
use bellwether_env_adapter::spec::{element, encode_cost};
use bellwether_inference::{LoadedRelease, Precision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Failure, Output, model, output};

/// Longest line of input that is read, in bytes.
const MAX_LINE_BYTES: u64 = 1 << 20;

/// Decides states: a JSON object with `state` and optionally `mask` per line in, a decision per line out.
///
/// `state` is the list of all elements, or of pairs `[index, value]` of those that are not 0; `mask` says of each action whether
/// it is allowed. Answers are JSON with or without --json, and each is written before the next question is waited for.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the model: `model.onnx` and `model.json`.
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// False-positive rate to serve: its cost is written into every state. Without it a state's own cost counts.
    #[arg(long, value_name = "RATE")]
    target_fpr: Option<f64>,
    /// How decisions are computed; the action is the same.
    #[arg(long, value_enum, default_value_t = Computed::Exact)]
    precision: Computed,
    #[command(flatten)]
    engine: model::EngineFlags,
}

/// How decisions are computed.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Computed {
    /// By the canonical f32 kernel.
    Exact,
    /// In 16-bit integers where they prove that the canonical kernel would choose the same, by that kernel elsewhere.
    Certified,
}

/// One line of input.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// The state: all elements, or pairs of index and value for those that are not 0.
    state: State,
    /// Allowed actions; absent: all.
    mask: Option<Vec<bool>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum State {
    Dense(Vec<f32>),
    Sparse(Vec<(usize, f32)>),
}

/// One line of output.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "Decision")]
pub(crate) struct Answer<'a> {
    /// Name of the action: the allowed one with the largest q-value, the lowest number on a tie.
    action: &'a str,
    /// What each action is worth, by its number; those that are not allowed too.
    q_values: &'a [f32],
    /// Lead over the next best allowed action; null where nothing else is allowed.
    margin: Option<f32>,
    /// Whether 16-bit integers decided, under a certificate that the canonical f32 kernel, which was not run, chooses the same
    /// action.
    certified: bool,
    /// How far each q-value can be from that of the canonical f32 kernel: 0 where that kernel, or ONNX Runtime, gave them.
    bound: f32,
    /// Version of the model that decided.
    model_version: &'a str,
}

impl Arguments {
    pub(crate) fn run(self, _: &Output) -> Result<(), Failure> {
        let mut release = self.engine.load(&self.model, 1)?;
        release.engine = release.engine.with_precision(match self.precision {
            Computed::Exact => Precision::Exact,
            Computed::Certified => Precision::Certified,
        });
        let z = self.target_fpr.map(|target| model::cost_of(&release.manifest, target)).transpose()?;
        let version = release.manifest.version.to_string();
        let mut scratch = release.engine.scratch();
        let mut input = BufReader::new(io::stdin().lock());
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut line = Vec::new();
        for number in 1_u64.. {
            // Whoever asks for one decision at a time waits for it before asking again.
            if !input.buffer().contains(&b'\n') && !output::unless_closed(out.flush())? {
                return Ok(());
            }
            line.clear();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let (state, mask) = request(&line, &release, z).with_context(|| format!("line {number}"))?;
            let decision =
                release.engine.decide(&mut scratch, &state, &mask).with_context(|| format!("line {number}"))?;
            let answer = Answer {
                action: &release.manifest.actions.names[decision.action],
                q_values: decision.q_values,
                margin: decision.margin,
                certified: decision.certified,
                bound: decision.bound,
                model_version: &version,
            };
            let written = serde_json::to_writer(&mut out, &answer).map_err(io::Error::from);
            if !output::unless_closed(written.and_then(|()| writeln!(out)))? {
                return Ok(());
            }
        }
        output::unless_closed(out.flush())?;
        Ok(())
    }
}

/// The state and the mask that a line asks for.
fn request(line: &[u8], release: &LoadedRelease, z: Option<f32>) -> anyhow::Result<(Vec<f32>, Vec<bool>)> {
    let request: Request = serde_json::from_slice(line).map_err(|error| {
        anyhow!("{error}; give {{\"state\": [...], \"mask\": [...]}}, at most {MAX_LINE_BYTES} bytes")
    })?;
    let width = release.engine.width();
    let mut state = match request.state {
        State::Dense(values) => values,
        State::Sparse(mut pairs) => {
            let mut state = vec![0.0; width];
            pairs.sort_by_key(|(index, _)| *index);
            if let Some([(index, _), _]) = pairs.array_windows().find(|[one, other]| one.0 == other.0) {
                bail!("element {index} is given twice")
            }
            for (index, value) in pairs {
                let Some(element) = state.get_mut(index) else {
                    bail!("element {index} lies beyond the width {width}")
                };
                *element = value;
            }
            state
        }
    };
    if let (Some(z), Some(element)) = (z, state.get_mut(element::COST)) {
        *element = encode_cost(z);
    }
    Ok((state, request.mask.unwrap_or_else(|| vec![true; release.engine.actions()])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_and_sparse_states_are_told_apart() {
        let dense: Request = serde_json::from_str(r#"{"state":[0.5,0.0]}"#).unwrap();
        let sparse: Request = serde_json::from_str(r#"{"state":[[1,0.5]],"mask":[true]}"#).unwrap();
        assert!(matches!(dense.state, State::Dense(values) if values == [0.5, 0.0]));
        assert!(matches!(sparse.state, State::Sparse(pairs) if pairs == [(1, 0.5)]));
        assert!(serde_json::from_str::<Request>(r#"{"state":[],"extra":1}"#).is_err());
    }
}
