//! Recordings: episodes of consecutive states with what the caller knows about them.
//!
//! A recording answers every verdict at every window without having been played, so nothing here has an action or a
//! reward: the caller keeps what it needs to derive its answers (costs, harm, what comes at the end) as annotations, and
//! derives them when a state is drawn.

use crate::draw::{below, unit};
use crate::error::{ReplayError, all_finite};
use crate::{StateStore, StoreConfig};
use rand::Rng;
use std::collections::BTreeMap;
use std::ops::Range;

/// What an [`EpisodeStore`] holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpisodeStoreConfig {
    /// Where the states go.
    pub states: StoreConfig,
    /// Names of the annotations of each state.
    pub state_columns: Vec<String>,
    /// Names of the annotations of each episode.
    pub episode_columns: Vec<String>,
}

/// Episodes of consecutive states, in the order in which they were added.
///
/// ```
/// use bellwether_replay::{Encoding, EpisodeStore, EpisodeStoreConfig, StoreConfig};
/// let mut store = EpisodeStore::new(EpisodeStoreConfig {
///     states: StoreConfig { width: 2, encoding: Encoding::Dense, memory_bytes: 1 << 24, spill_folder: None },
///     state_columns: vec!["harm".into()],
///     episode_columns: vec!["complete".into()],
/// })?;
/// store.begin(1, 7)?; // class 1, group 7
/// store.push(&[0.1, 0.2], &[0.0])?;
/// store.push(&[0.3, 0.4], &[2.5])?;
/// let episode = store.finish(&[1.0])?;
/// assert_eq!(store.episode(episode).rows(), 0..2);
/// assert_eq!(store.state_annotations(1), [2.5]);
/// # Ok::<(), bellwether_replay::ReplayError>(())
/// ```
#[derive(Debug)]
pub struct EpisodeStore {
    states: StateStore,
    state_columns: Vec<String>,
    episode_columns: Vec<String>,
    /// Row-major, one row per state.
    state_annotations: Vec<f32>,
    episodes: Vec<Span>,
    /// Row-major, one row per episode.
    episode_annotations: Vec<f32>,
    /// The episode that is being added.
    open: Option<Span>,
}

/// One episode of an [`EpisodeStore`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Episode<'a> {
    /// Its number: 0, 1, 2, ... in the order of adding.
    pub number: u32,
    /// Its class, as the caller numbers them.
    pub class: u32,
    /// What it must not be parted from in a split (a family, an intrusion), as the caller numbers them.
    pub group: u32,
    /// Row of its first state.
    pub first_row: u32,
    /// Number of its states; 0 for a recording without any.
    pub len: u32,
    /// Its annotations, in the order of [`EpisodeStoreConfig::episode_columns`].
    pub annotations: &'a [f32],
}

/// Draws states of some of the episodes: first a class, then an episode of it, then a state of that. So neither the
/// larger class nor the longer recording drowns the other.
#[derive(Clone, Debug)]
pub struct EpisodeSampler {
    /// Sum of the weights of this class and those before it, and its episodes; classes in ascending order.
    classes: Vec<(f64, Vec<Span>)>,
}

/// What was drawn: one entry per draw in every column.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrawnStates {
    /// Row of the state in [`EpisodeStore::states`]; the row after it is its successor, unless it is the last.
    pub rows: Vec<u32>,
    /// Number of its episode.
    pub episodes: Vec<u32>,
    /// Its place in the episode, from 0.
    pub steps: Vec<u32>,
    /// Whether it is the last state of its episode.
    pub last: Vec<bool>,
    /// Weight in the loss that makes up for an uneven draw; 1 for a uniform one.
    pub weights: Vec<f32>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    number: u32,
    class: u32,
    group: u32,
    first_row: u32,
    len: u32,
}

impl EpisodeStore {
    /// An empty store.
    ///
    /// # Errors
    /// [`ReplayError::Setting`] on a width out of range or a column that is named twice.
    pub fn new(config: EpisodeStoreConfig) -> Result<Self, ReplayError> {
        for (key, columns) in [("state_columns", &config.state_columns), ("episode_columns", &config.episode_columns)] {
            if let Some((_, twice)) = columns.iter().enumerate().find(|(i, name)| columns[..*i].contains(name)) {
                return Err(ReplayError::Setting {
                    key,
                    value: twice.clone(),
                    reason: "every column has its own name",
                });
            }
        }
        Ok(EpisodeStore {
            states: StateStore::new(config.states)?,
            state_columns: config.state_columns,
            episode_columns: config.episode_columns,
            state_annotations: Vec::new(),
            episodes: Vec::new(),
            episode_annotations: Vec::new(),
            open: None,
        })
    }

    /// Starts an episode.
    ///
    /// # Errors
    /// [`ReplayError::Stream`] if one is being added already.
    pub fn begin(&mut self, class: u32, group: u32) -> Result<(), ReplayError> {
        let number = self.episodes.len() as u32;
        if self.open.is_some() {
            return Err(ReplayError::Stream { stream: number, reason: "finish the episode before the next begins" });
        }
        let first_row = crate::StateRows::len(&self.states) as u32;
        self.open = Some(Span { number, class, group, first_row, len: 0 });
        Ok(())
    }

    /// Adds the next state of the episode with its annotations, and gives its row.
    ///
    /// # Errors
    /// If no episode was begun, on wrong widths, on values that are not finite, and where the spill file fails. Nothing
    /// is added then.
    pub fn push(&mut self, state: &[f32], annotations: &[f32]) -> Result<u32, ReplayError> {
        let Some(open) = &mut self.open else {
            let stream = self.episodes.len() as u32;
            return Err(ReplayError::Stream { stream, reason: "begin an episode before its states" });
        };
        check("the annotations of a state", self.state_columns.len(), annotations)?;
        let row = self.states.append(state)?;
        self.state_annotations.extend_from_slice(annotations);
        open.len += 1;
        Ok(row)
    }

    /// Ends the episode, and gives its number. An episode without states is kept, and never drawn.
    ///
    /// # Errors
    /// If none was begun, on a wrong number of annotations, on values that are not finite.
    pub fn finish(&mut self, annotations: &[f32]) -> Result<u32, ReplayError> {
        check("the annotations of an episode", self.episode_columns.len(), annotations)?;
        let Some(span) = self.open.take() else {
            let stream = self.episodes.len() as u32;
            return Err(ReplayError::Stream { stream, reason: "begin an episode before it is finished" });
        };
        self.episode_annotations.extend_from_slice(annotations);
        self.episodes.push(span);
        Ok(span.number)
    }

    /// Number of finished episodes.
    pub fn len(&self) -> usize {
        self.episodes.len()
    }

    /// Whether no episode was finished.
    pub fn is_empty(&self) -> bool {
        self.episodes.is_empty()
    }

    /// One finished episode.
    ///
    /// # Panics
    /// If there is none of that number.
    pub fn episode(&self, number: u32) -> Episode<'_> {
        let Span { number, class, group, first_row, len } = self.episodes[number as usize];
        let width = self.episode_columns.len();
        let at = number as usize * width;
        Episode { number, class, group, first_row, len, annotations: &self.episode_annotations[at..at + width] }
    }

    /// All finished episodes, in the order of adding.
    pub fn episodes(&self) -> impl ExactSizeIterator<Item = Episode<'_>> {
        (0..self.episodes.len() as u32).map(|number| self.episode(number))
    }

    /// The states of all episodes.
    pub fn states(&self) -> &StateStore {
        &self.states
    }

    /// The annotations of one state, in the order of [`EpisodeStoreConfig::state_columns`].
    ///
    /// # Panics
    /// If there is no such row.
    pub fn state_annotations(&self, row: u32) -> &[f32] {
        let width = self.state_columns.len();
        assert!((row as usize) < crate::StateRows::len(&self.states), "row {row} is not there");
        &self.state_annotations[row as usize * width..][..width]
    }

    /// Position of a named annotation of states.
    pub fn state_column(&self, name: &str) -> Option<usize> {
        self.state_columns.iter().position(|column| column == name)
    }

    /// Position of a named annotation of episodes.
    pub fn episode_column(&self, name: &str) -> Option<usize> {
        self.episode_columns.iter().position(|column| column == name)
    }

    /// Bytes of memory that everything takes now.
    pub fn memory_bytes(&self) -> usize {
        self.states.memory_bytes()
            + (self.state_annotations.capacity() + self.episode_annotations.capacity()) * 4
            + self.episodes.capacity() * size_of::<Span>()
    }
}

impl Episode<'_> {
    /// The rows of its states.
    pub fn rows(&self) -> Range<u32> {
        self.first_row..self.first_row + self.len
    }
}

impl EpisodeSampler {
    /// Draws from these episodes of `store`. `class_weights` says how often a class is drawn against the others, and
    /// leaves out the classes that it does not name; absent, every class that has states is drawn equally often.
    ///
    /// # Errors
    /// [`ReplayError::Empty`] if no state could be drawn, or a class with a weight has no state;
    /// [`ReplayError::Setting`] on weights that are negative, not finite, all zero, or given twice.
    ///
    /// # Panics
    /// If an episode is not in the store.
    pub fn new(
        store: &EpisodeStore,
        episodes: impl IntoIterator<Item = u32>,
        class_weights: Option<&[(u32, f64)]>,
    ) -> Result<Self, ReplayError> {
        let mut by_class: BTreeMap<u32, Vec<Span>> = BTreeMap::new();
        for number in episodes {
            let span = store.episodes[number as usize];
            if span.len > 0 {
                by_class.entry(span.class).or_default().push(span);
            }
        }
        let mut weights: BTreeMap<u32, f64> = BTreeMap::new();
        match class_weights {
            None => weights.extend(by_class.keys().map(|class| (*class, 1.0))),
            Some(given) => {
                for (class, weight) in given {
                    let reason = if !weight.is_finite() || *weight < 0.0 {
                        "the weight of a class is finite and not negative"
                    } else if weights.insert(*class, *weight).is_some() {
                        "the weight of a class is given once"
                    } else {
                        continue;
                    };
                    let value = format!("class {class}: {weight}");
                    return Err(ReplayError::Setting { key: "class_weights", value, reason });
                }
            }
        }
        let mut classes = Vec::new();
        let mut sum = 0.0;
        for (class, weight) in weights.into_iter().filter(|(_, weight)| *weight > 0.0) {
            let Some(spans) = by_class.remove(&class) else {
                return Err(ReplayError::Empty { reason: format!("class {class} has a weight and no state") });
            };
            sum += weight;
            classes.push((sum, spans));
        }
        if classes.is_empty() || !f64::is_finite(sum) {
            let reason = format!("{} classes have a state and a weight; at least one must", classes.len());
            return Err(ReplayError::Empty { reason });
        }
        Ok(EpisodeSampler { classes })
    }

    /// Draws `count` states, with replacement, into `out`; what was there is gone, its memory is used again.
    pub fn sample(&self, rng: &mut impl Rng, count: usize, out: &mut DrawnStates) {
        out.clear();
        let total = self.classes.last().map_or(0.0, |(sum, _)| *sum);
        for _ in 0..count {
            let at = unit(rng) * total;
            // Rounding may give `total` itself, which belongs to the last class.
            let class = self.classes.partition_point(|(sum, _)| *sum <= at).min(self.classes.len() - 1);
            let spans = &self.classes[class].1;
            let span = spans[below(rng, spans.len() as u32) as usize];
            let step = below(rng, span.len);
            out.rows.push(span.first_row + step);
            out.episodes.push(span.number);
            out.steps.push(step);
            out.last.push(step + 1 == span.len);
            out.weights.push(1.0);
        }
    }

    /// Number of states that can be drawn.
    pub fn states(&self) -> u64 {
        self.classes.iter().flat_map(|(_, spans)| spans).map(|span| u64::from(span.len)).sum()
    }
}

impl DrawnStates {
    /// Number of draws.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether nothing was drawn.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.episodes.clear();
        self.steps.clear();
        self.last.clear();
        self.weights.clear();
    }
}

fn check(what: &'static str, expected: usize, values: &[f32]) -> Result<(), ReplayError> {
    if values.len() != expected {
        return Err(ReplayError::Width { what, expected, found: values.len() });
    }
    all_finite(what, values)
}
