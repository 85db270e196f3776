//! `FeatureSpec` v1: what the elements of a state are, and the state itself.
//!
//! Every element lies in [0, 1] and has one place for ever; what a source does not tell is 0 and shifts nothing. The
//! specification is text first: [`FeatureSpec::text`] lists every element with its formula, and the hash of that text
//! is the identity that travels with episode files and models.

mod featurizer;
mod table;
mod tally;

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

pub use featurizer::Featurizer;

use crate::window::WindowConfig;
use table::{CONTEXT, EPISODE, WINDOW};

/// Elements of a state.
pub const WIDTH: usize = 512;

/// First element of each group.
pub mod group {
    use super::table;

    /// What does not come from single events: see [`super::element`].
    pub const CONTEXT: usize = 0;
    /// Measures of the stage so far.
    pub const EPISODE: usize = CONTEXT + table::CONTEXT.len();
    /// Measures of the window.
    pub const WINDOW: usize = EPISODE + table::elements(table::EPISODE);
    /// Hashed counts of calls in the stage so far.
    pub const CALLS: usize = WINDOW + table::elements(table::WINDOW);
    /// Hashed counts of pairs of calls, one after the other in one thread, in the stage so far.
    pub const PAIRS: usize = CALLS + super::CALL_SLOTS;
    /// Hashed counts of calls in the window.
    pub const WINDOW_CALLS: usize = PAIRS + super::PAIR_SLOTS;
}

/// Slots of the hashed calls of the stage.
pub(crate) const CALL_SLOTS: usize = 72;
/// Slots of the hashed pairs of the stage.
pub(crate) const PAIR_SLOTS: usize = 152;
/// Slots of the hashed calls of the window.
pub(crate) const WINDOW_CALL_SLOTS: usize = 32;
/// Ceiling of hashed counts in the stage.
const STAGE_CEILING: u32 = 1_000;

const _: () = assert!(group::WINDOW_CALLS + WINDOW_CALL_SLOTS == WIDTH, "the groups fill the state");

/// Places of the context elements. Those that depend on how a recording is played are written over a recorded state.
pub mod element {
    /// Stage: 0 in stage 1, 1 in stage 2.
    pub const STAGE: usize = 0;
    /// Isolation level in force: [`super::encode_level`].
    pub const LEVEL: usize = 1;
    /// Cost of a false positive: [`super::encode_cost`].
    pub const COST: usize = 2;
    /// Share of the cap of windows that is left: [`super::encode_cap_left`].
    pub const CAP_LEFT: usize = 3;
    /// Anomaly score in [0, 1].
    pub const ANOMALY: usize = 4;
    /// Threat-intelligence score in [0, 1].
    pub const INTELLIGENCE: usize = 5;
    pub(crate) const WINDOWS: usize = 6;
    pub(crate) const EVENTS: usize = 7;
    pub(crate) const ELAPSED: usize = 8;
    pub(crate) const WINDOW_RATE: usize = 9;
    pub(crate) const EPISODE_RATE: usize = 10;
    pub(crate) const WINDOW_FILL: usize = 11;
    pub(crate) const WINDOW_TIME: usize = 12;
    pub(crate) const TIMED: usize = 13;
    /// Share of the window's events that have a path or a peer.
    pub const LOCATED: usize = 14;
    pub(crate) const NOVELTY: usize = 15;
}

/// Smallest cost that a state tells from smaller ones.
pub const MIN_COST: f32 = 0.1;
/// Largest cost that a state tells from larger ones.
pub const MAX_COST: f32 = 1000.0;

/// The cost element of a state: `(log10(c) + 1) / 4` of the cost `c = z / (1 - z)`, in [0, 1], so that 0.1 is 0, 10 is a half
/// and 1000 is 1; a `z` that is not finite becomes 0.
///
/// Costs that matter lie between a fifth and some hundred times the other rewards; `z` itself would press the upper half of
/// them into its last tenth.
pub fn encode_cost(z: f32) -> f32 {
    let z = f64::from(unit(z));
    unit(((libm::log10(z / (1.0 - z)).clamp(-1.0, 3.0) + 1.0) / 4.0) as f32)
}

/// The cost that a state was made for, as `z`: what [`encode_cost`] gives back for it is the element, to a rounding.
pub fn decode_cost(element: f32) -> f32 {
    let cost = libm::pow(10.0, 4.0 * f64::from(unit(element)) - 1.0);
    (cost / (1.0 + cost)) as f32
}

/// `z = c / (1 + c)` of a cost `c >= 0`; the reward is `(1 - z) * r0 + z * r1`.
pub fn z_of_cost(cost: f32) -> f32 {
    if cost.is_infinite() { 1.0 } else { unit(cost / (1.0 + cost)) }
}

/// The level element of a state: `level / 3`, at most 1.
pub fn encode_level(level: u8) -> f32 {
    f32::from(level.min(3)) / 3.0
}

/// The share of a cap of `cap` windows that is left after `windows` of them; 1 where there is no cap (0).
pub fn encode_cap_left(windows: u32, cap: u32) -> f32 {
    if cap == 0 { 1.0 } else { (f64::from(cap.saturating_sub(windows)) / f64::from(cap)) as f32 }
}

fn unit(value: f32) -> f32 {
    if value.is_finite() { value.clamp(0.0, 1.0) } else { 0.0 }
}

/// The specification of a state: version 1 and the window limits that its counts belong to.
///
/// The limits of a window are part of the identity, because a count of a window means nothing without them; the cap of
/// windows per stage is not, because the state says how much of it is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureSpec {
    window: WindowConfig,
    hash: [u8; 32],
}

impl FeatureSpec {
    /// Version of the specification.
    pub const VERSION: u32 = 1;

    /// Version 1 for windows of these limits.
    pub fn v1(window: WindowConfig) -> FeatureSpec {
        let window = WindowConfig { max_windows: 0, ..window };
        let hash = Sha256::digest(text(&window).as_bytes()).into();
        FeatureSpec { window, hash }
    }

    /// The limits of a window; its cap of windows is always 0 here.
    pub fn window(&self) -> &WindowConfig {
        &self.window
    }

    /// Elements of a state.
    pub const fn width(&self) -> usize {
        WIDTH
    }

    /// SHA-256 of [`FeatureSpec::text`].
    pub fn hash(&self) -> [u8; 32] {
        self.hash
    }

    /// [`FeatureSpec::hash`] in lower-case hex.
    pub fn hash_hex(&self) -> String {
        self.hash.iter().fold(String::with_capacity(64), |mut out, byte| {
            // Writing to a string cannot fail.
            let _ = write!(out, "{byte:02x}");
            out
        })
    }

    /// The canonical text: version, limits of a window, hash functions, classes of paths, operations of calls, then one
    /// line for each element or, for the hashed groups, for each group.
    pub fn text(&self) -> String {
        text(&self.window)
    }

    /// The name of an element, such as `episode.overwrite` or `pairs[17]`.
    pub fn name(&self, index: usize) -> Option<String> {
        element_rows().into_iter().find_map(|row| {
            if row.slots == 1 {
                (row.first == index).then_some(row.name)
            } else {
                let at = index.checked_sub(row.first).filter(|at| *at < row.slots)?;
                Some(format!("{}[{at}]", row.name))
            }
        })
    }

    /// The table of elements as Markdown, for the page of the format.
    pub fn markdown_table(&self) -> String {
        let mut out = String::from("| index | name | value |\n|---|---|---|\n");
        for row in element_rows() {
            let last = row.first + row.slots - 1;
            let place = if row.slots == 1 { row.first.to_string() } else { format!("{} to {last}", row.first) };
            let _ = writeln!(out, "| {place} | `{}` | {} |", row.name, row.formula);
        }
        out
    }
}

struct Row {
    first: usize,
    slots: usize,
    name: String,
    formula: String,
}

fn element_rows() -> Vec<Row> {
    let mut rows = Vec::with_capacity(WIDTH);
    let mut push = |slots: usize, name: String, formula: String| {
        let first = rows.last().map_or(0, |row: &Row| row.first + row.slots);
        rows.push(Row { first, slots, name, formula });
    };
    for (name, formula) in CONTEXT {
        push(1, format!("context.{name}"), formula.to_owned());
    }
    for (group, measures) in [("episode", EPISODE), ("window", WINDOW)] {
        for (name, formula) in measures.iter().flat_map(|measure| measure.describe()) {
            push(1, format!("{group}.{name}"), formula);
        }
    }
    let counts = |what: &str, slots: usize, ceiling: &str| {
        format!("log1p(n) / log1p({ceiling}); n: {what} whose hash falls into this slot of {slots}")
    };
    let ceiling = STAGE_CEILING.to_string();
    push(CALL_SLOTS, "calls".to_owned(), counts("events of the stage", CALL_SLOTS, &ceiling));
    push(PAIR_SLOTS, "pairs".to_owned(), counts("pairs of events of one thread", PAIR_SLOTS, &ceiling));
    push(
        WINDOW_CALL_SLOTS,
        "window_calls".to_owned(),
        counts("events of the window", WINDOW_CALL_SLOTS, "most events of a window"),
    );
    rows
}

fn text(window: &WindowConfig) -> String {
    let mut out = format!(
        "bellwether feature specification {}\nwidth {WIDTH}\nwindow.max_events {}\nwindow.max_ns {}\n",
        FeatureSpec::VERSION,
        window.max_events,
        window.max_ns
    );
    out.push_str(
        "hash FNV-1a 64 over the name, basis XOR 0x62656c6c77657468; slot(h, n) = high 64 bits of fmix64(h) * n\n\
         calls slot(hash XOR 0x9216d5d98979fb1b, n)\n\
         pairs slot((rotate_left(hash of the first, 23) + hash of the second) XOR 0xd1310ba698dfb5ac, n)\n\
         window_calls slot(hash XOR 0x2ffd72dbd01adfb7, n)\n",
    );
    out.push_str(&crate::behaviour::path_rules());
    out.push_str(&crate::calls::names_text());
    for row in element_rows() {
        let _ = writeln!(out, "{} {} {}: {}", row.first, row.slots, row.name, row.formula);
    }
    out
}

/// A state that cannot be one.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum StateError {
    /// It has another number of elements.
    #[error("a state has {WIDTH} elements, this one has {found}; compute it with the same feature specification")]
    Width {
        /// Elements given.
        found: usize,
    },
    /// An element lies outside [0, 1] or is not a number.
    #[error("element {index} of the state is {value}, which does not lie in [0, 1]")]
    Range {
        /// Place of the element.
        index: usize,
        /// Its value.
        value: f32,
    },
}

/// The state of an episode at the close of a window: [`WIDTH`] values, each in [0, 1].
#[derive(Clone, Debug, PartialEq)]
pub struct StateVector(Box<[f32; WIDTH]>);

impl Default for StateVector {
    fn default() -> Self {
        StateVector(Box::new([0.0; WIDTH]))
    }
}

impl StateVector {
    /// Takes over values from elsewhere.
    ///
    /// # Errors
    /// [`StateError`] on a wrong width and on the first value outside [0, 1].
    pub fn from_slice(values: &[f32]) -> Result<StateVector, StateError> {
        if values.len() != WIDTH {
            return Err(StateError::Width { found: values.len() });
        }
        if let Some((index, &value)) = values.iter().enumerate().find(|(_, value)| !(0.0..=1.0).contains(*value)) {
            return Err(StateError::Range { index, value });
        }
        let mut state = StateVector::default();
        state.0.copy_from_slice(values);
        Ok(state)
    }

    /// The values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0[..]
    }

    /// Sets the cost element from `z` in [0, 1].
    pub fn set_cost(&mut self, z: f32) {
        self.0[element::COST] = encode_cost(z);
    }

    /// Sets the isolation level, 0 to 3.
    pub fn set_level(&mut self, level: u8) {
        self.0[element::LEVEL] = encode_level(level);
    }

    /// Sets the share of the cap that is left after `windows` of `cap` windows; a cap of 0 is none.
    pub fn set_cap_left(&mut self, windows: u32, cap: u32) {
        self.0[element::CAP_LEFT] = encode_cap_left(windows, cap);
    }

    /// Sets the score of an anomaly detector, clamped to [0, 1].
    pub fn set_anomaly(&mut self, score: f32) {
        self.0[element::ANOMALY] = unit(score);
    }

    /// Sets the score of threat intelligence, clamped to [0, 1].
    pub fn set_intelligence(&mut self, score: f32) {
        self.0[element::INTELLIGENCE] = unit(score);
    }
}

impl AsRef<[f32]> for StateVector {
    fn as_ref(&self) -> &[f32] {
        self.as_slice()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_is_stable_and_depends_on_the_window_alone() {
        let spec = FeatureSpec::v1(WindowConfig::default());
        let capped = FeatureSpec::v1(WindowConfig { max_windows: 9, ..WindowConfig::default() });
        let shorter = FeatureSpec::v1(WindowConfig { max_events: 10, ..WindowConfig::default() });
        assert_eq!(spec, capped);
        assert_ne!(spec.hash(), shorter.hash());
        // A new value here means that every model and episode file of before is refused: make it version 2.
        assert_eq!(spec.hash_hex(), "d9c90ae7d8c779231f6c95832358a171aa0e6ec02e655a2c7ad2a94dc188ecb4");
    }

    #[test]
    fn every_element_has_its_own_name() {
        let spec = FeatureSpec::v1(WindowConfig::default());
        let names: std::collections::BTreeSet<_> = (0..WIDTH).filter_map(|index| spec.name(index)).collect();
        assert_eq!(names.len(), WIDTH);
        assert_eq!(spec.name(WIDTH), None);
        assert_eq!(spec.name(element::COST).as_deref(), Some("context.cost"));
        assert_eq!(spec.name(group::PAIRS + 17).as_deref(), Some("pairs[17]"));
        assert_eq!(spec.name(group::WINDOW_CALLS).as_deref(), Some("window_calls[0]"));
        assert_eq!(spec.name(element::NOVELTY).as_deref(), Some("context.novelty"));
    }

    #[test]
    fn a_cost_comes_back_from_its_element() {
        for step in 0..1000 {
            // Between the costs 0.1 and 1000.
            let z = 0.091 + 0.907 * step as f32 / 1000.0;
            let (there, back) = (encode_cost(z), decode_cost(encode_cost(z)));
            assert!((back - z).abs() < 1e-6 && (encode_cost(back) - there).abs() < 1e-6, "{z} {there} {back}");
        }
    }

    #[test]
    fn context_encoders_stay_in_range() {
        for value in [f32::NAN, f32::INFINITY, -1.0, 0.0, 0.4, 2.0] {
            assert!((0.0..=1.0).contains(&encode_cost(value)), "{value}");
            assert!((0.0..=1.0).contains(&z_of_cost(value)), "{value}");
            assert!((0.0..=1.0).contains(&decode_cost(value)), "{value}");
        }
        assert_eq!(z_of_cost(1.0), 0.5);
        assert_eq!(encode_level(3), 1.0);
        assert_eq!(encode_level(200), 1.0);
        assert_eq!((encode_cap_left(0, 0), encode_cap_left(1, 4), encode_cap_left(9, 4)), (1.0, 0.75, 0.0));
    }

    #[test]
    fn a_foreign_vector_is_checked() {
        assert_eq!(StateVector::from_slice(&[0.0; 3]), Err(StateError::Width { found: 3 }));
        let mut values = [0.5; WIDTH];
        assert!(StateVector::from_slice(&values).is_ok());
        values[7] = f32::NAN;
        assert!(matches!(StateVector::from_slice(&values), Err(StateError::Range { index: 7, .. })));
    }
}
