//! The supervised classifier: boosted trees over the states of prefixes (crate `forust-ml`).

use bellwether_env_adapter::Label;
use forust_ml::{GradientBooster, Matrix};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BaselineError, PrefixScorer, Recordings, read_state, require_both_classes};

/// How the boosted trees are grown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClassifierConfig {
    /// Trees; 1 to 10,000.
    pub trees: u32,
    /// Shrinkage of each tree; above 0, at most 1.
    pub learning_rate: f32,
    /// Depth of a tree; 1 to 16.
    pub max_depth: u32,
    /// Bins per element; 2 to 1,024.
    pub bins: u16,
    /// Share of the elements that each tree may use; above 0, at most 1.
    pub column_share: f64,
    /// Share of the rows that each tree sees; above 0, at most 1.
    pub row_share: f32,
    /// Rows to train on; at least 100. More are thinned out ([`prefix_rows`]).
    pub max_rows: u32,
    /// Seed of the choice of rows and elements per tree.
    pub seed: u64,
}

impl Default for ClassifierConfig {
    fn default() -> Self {
        ClassifierConfig {
            trees: 200,
            learning_rate: 0.1,
            max_depth: 6,
            bins: 64,
            column_share: 0.3,
            row_share: 0.8,
            max_rows: 20_000,
            seed: 0,
        }
    }
}

impl ClassifierConfig {
    /// Refuses settings out of range.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`] with the key.
    pub fn validate(&self) -> Result<(), BaselineError> {
        let share = |value: f64| value > 0.0 && value <= 1.0;
        let checks: [(&'static str, String, bool, &'static str); 7] = [
            ("trees", self.trees.to_string(), (1..=10_000).contains(&self.trees), "between 1 and 10,000"),
            (
                "learning_rate",
                self.learning_rate.to_string(),
                share(f64::from(self.learning_rate)),
                "above 0 and at most 1",
            ),
            ("max_depth", self.max_depth.to_string(), (1..=16).contains(&self.max_depth), "between 1 and 16"),
            ("bins", self.bins.to_string(), (2..=1024).contains(&self.bins), "between 2 and 1,024"),
            ("column_share", self.column_share.to_string(), share(self.column_share), "above 0 and at most 1"),
            ("row_share", self.row_share.to_string(), share(f64::from(self.row_share)), "above 0 and at most 1"),
            ("max_rows", self.max_rows.to_string(), self.max_rows >= 100, "at least 100"),
        ];
        match checks.into_iter().find(|check| !check.2) {
            Some((key, value, _, expected)) => Err(BaselineError::Parameter { key, value, expected }),
            None => Ok(()),
        }
    }
}

/// Boosted trees with logistic loss; a score is the log-odds of the positive target under the chosen weighting.
pub struct BoostedTrees {
    /// `None` where no element varied: even odds for everything.
    booster: Option<GradientBooster>,
    columns: Vec<u32>,
}

/// One row to train on: an episode and one of its windows.
pub type PrefixRow = (u32, u32);

/// How rows count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weighting {
    /// Both classes weigh the same, and so do the episodes within a class, however many rows they have.
    Balanced,
    /// Every row weighs the same.
    Rows,
}

/// The rows that a classifier of all prefixes trains on, at most about `max_rows`.
///
/// Every episode gets the same number of rows, `max_rows / episodes` and at least 1, at windows spaced geometrically from
/// the first to the last, so that early prefixes are as frequent as late ones and long traces do not drown the rest. With
/// more episodes than rows an even stride over the episodes is used.
pub fn prefix_rows(recordings: &dyn Recordings, max_rows: u32) -> Vec<PrefixRow> {
    let episodes = recordings.len();
    let used = episodes.min(max_rows.max(1) as usize);
    let per_episode = (max_rows as usize / used.max(1)).max(1);
    let mut rows = Vec::new();
    for i in 0..used {
        let episode = i * episodes / used;
        let windows = recordings.windows(episode);
        let mut previous = None;
        for k in 0..per_episode.min(windows as usize) {
            let window = if windows as usize <= per_episode {
                k as u32
            } else if per_episode == 1 {
                windows - 1
            } else {
                let position = libm::pow(f64::from(windows), k as f64 / (per_episode - 1) as f64);
                (libm::round(position) as u32).clamp(1, windows) - 1
            };
            if previous != Some(window) {
                rows.push((episode as u32, window));
                previous = Some(window);
            }
        }
    }
    rows
}

impl BoostedTrees {
    /// Trains on `rows`; `target` says what a row is to be told as (for the verdict: whether its episode is malicious).
    ///
    /// The result is a function of the rows and the configuration: one thread, seeded.
    ///
    /// # Errors
    /// [`BaselineError::Parameter`], [`BaselineError::NoEpisodes`] without rows, [`BaselineError::OneClass`] where the
    /// target is the same in all rows, [`BaselineError::NotFinite`] on a bad state, [`BaselineError::Classifier`] where the
    /// library refuses.
    pub fn fit(
        recordings: &dyn Recordings,
        rows: &[PrefixRow],
        target: impl Fn(PrefixRow) -> bool,
        weighting: Weighting,
        config: &ClassifierConfig,
    ) -> Result<Self, BaselineError> {
        config.validate()?;
        if rows.is_empty() {
            return Err(BaselineError::NoEpisodes);
        }
        let y: Vec<f64> = rows.iter().map(|&row| f64::from(u8::from(target(row)))).collect();
        let balanced = balanced_weights(rows, &y)?;
        let weights = match weighting {
            Weighting::Balanced => balanced,
            Weighting::Rows => vec![1.0; rows.len()],
        };

        // The library wants f64 by column. Elements without variance carry nothing and are left out.
        let width = recordings.width();
        let mut by_column = vec![0.0f64; width * rows.len()];
        let mut state = vec![0.0f32; width];
        for (i, &(episode, window)) in rows.iter().enumerate() {
            read_state(recordings, episode as usize, window, &mut state)?;
            for (column, &value) in state.iter().enumerate() {
                by_column[column * rows.len() + i] = f64::from(value);
            }
        }
        let column = |j: u32| &by_column[j as usize * rows.len()..(j as usize + 1) * rows.len()];
        let columns: Vec<u32> =
            (0..width as u32).filter(|&j| column(j).iter().any(|&value| value != column(j)[0])).collect();
        if columns.is_empty() {
            return Ok(BoostedTrees { booster: None, columns });
        }
        let data: Vec<f64> = columns.iter().flat_map(|&j| column(j).iter().copied()).collect();

        let mut booster = GradientBooster::default()
            .set_iterations(config.trees as usize)
            .set_learning_rate(config.learning_rate)
            .set_max_depth(config.max_depth as usize)
            .set_nbins(config.bins)
            .set_colsample_bytree(config.column_share)
            .set_subsample(config.row_share)
            .set_seed(config.seed)
            .set_initialize_base_score(true)
            // States are mostly zeros. As missing values they get a branch of their own and leave all bins to the rest, so
            // that an element which is rarely set is not lost between two quantiles.
            .set_missing(0.0)
            .set_parallel(false)
            .set_num_threads(Some(1));
        booster
            .fit(&Matrix::new(&data, rows.len(), columns.len()), &y, &weights, None)
            .map_err(|error| BaselineError::Classifier(error.to_string()))?;
        Ok(BoostedTrees { booster: Some(booster), columns })
    }

    /// Trains on all prefixes ([`prefix_rows`]) to tell malicious episodes from benign ones.
    ///
    /// # Errors
    /// As [`BoostedTrees::fit`].
    pub fn of_prefixes(recordings: &dyn Recordings, config: &ClassifierConfig) -> Result<Self, BaselineError> {
        config.validate()?;
        require_both_classes(recordings)?;
        let rows = prefix_rows(recordings, config.max_rows);
        Self::fit(
            recordings,
            &rows,
            |row| recordings.label(row.0 as usize) == Label::Malicious,
            Weighting::Balanced,
            config,
        )
    }

    /// Trains on one prefix of each episode, of `windows` windows or all of a shorter one.
    ///
    /// # Errors
    /// As [`BoostedTrees::fit`].
    pub fn of_prefix(
        recordings: &dyn Recordings,
        windows: u32,
        config: &ClassifierConfig,
    ) -> Result<Self, BaselineError> {
        config.validate()?;
        require_both_classes(recordings)?;
        let rows: Vec<PrefixRow> = prefix_rows(recordings, recordings.len().min(config.max_rows as usize) as u32)
            .into_iter()
            .map(|(episode, last)| (episode, last.min(windows.max(1) - 1)))
            .collect();
        Self::fit(
            recordings,
            &rows,
            |row| recordings.label(row.0 as usize) == Label::Malicious,
            Weighting::Balanced,
            config,
        )
    }
}

impl PrefixScorer for BoostedTrees {
    fn score(&self, state: &[f32]) -> f32 {
        let Some(booster) = &self.booster else { return 0.0 };
        let row: Vec<f64> = self.columns.iter().map(|&column| f64::from(state[column as usize])).collect();
        booster.predict(&Matrix::new(&row, 1, row.len()), false)[0] as f32
    }
}

/// One weight per row, 1 on average: classes alike, episodes of a class alike.
fn balanced_weights(rows: &[PrefixRow], y: &[f64]) -> Result<Vec<f64>, BaselineError> {
    let mut rows_of = std::collections::BTreeMap::new();
    for (row, &y) in rows.iter().zip(y) {
        *rows_of.entry((y > 0.5, row.0)).or_insert(0u32) += 1;
    }
    let episodes = [false, true].map(|class| rows_of.keys().filter(|key| key.0 == class).count() as f64);
    for (class, missing) in [(0, "negative"), (1, "positive")] {
        if episodes[class] == 0.0 {
            return Err(BaselineError::OneClass { missing });
        }
    }
    let half = rows.len() as f64 / 2.0;
    Ok(rows
        .iter()
        .zip(y)
        .map(|(row, &y)| {
            let class = y > 0.5;
            half / (episodes[usize::from(class)] * f64::from(rows_of[&(class, row.0)]))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::Toy;
    use super::*;

    fn small() -> ClassifierConfig {
        ClassifierConfig { trees: 30, max_depth: 4, max_rows: 2000, ..ClassifierConfig::default() }
    }

    #[test]
    fn it_tells_the_classes_apart_and_repeats_itself() {
        let train = Toy::new(60, 60, 1);
        let trees = BoostedTrees::of_prefixes(&train, &small()).unwrap();
        let again = BoostedTrees::of_prefixes(&train, &small()).unwrap();
        let test = Toy::new(40, 40, 2);
        let mut right = 0;
        for (label, states) in &test.episodes {
            let score = trees.score(&states[states.len() - 1]);
            assert_eq!(score.to_bits(), again.score(&states[states.len() - 1]).to_bits());
            right += u32::from((score > 0.0) == (*label == Label::Malicious));
        }
        assert!(right >= 76, "{right} of 80");
    }

    #[test]
    fn refusals() {
        let benign = Toy::new(5, 0, 1);
        assert!(matches!(
            BoostedTrees::of_prefixes(&benign, &small()),
            Err(BaselineError::OneClass { missing: "malicious" })
        ));
        assert!(matches!(BoostedTrees::of_prefixes(&Toy::new(0, 0, 1), &small()), Err(BaselineError::NoEpisodes)));
        let mut toy = Toy::new(3, 3, 1);
        toy.episodes[4].1[1][3] = f32::NAN;
        assert!(matches!(
            BoostedTrees::of_prefixes(&toy, &small()),
            Err(BaselineError::NotFinite { episode: 4, window: 1, element: 3, .. })
        ));
        let bad = ClassifierConfig { learning_rate: f32::NAN, ..small() };
        assert!(matches!(
            BoostedTrees::of_prefixes(&Toy::new(3, 3, 1), &bad),
            Err(BaselineError::Parameter { key: "learning_rate", .. })
        ));
    }

    #[test]
    fn states_without_variance_give_even_odds() {
        let mut toy = Toy::new(10, 10, 1);
        for state in toy.episodes.iter_mut().flat_map(|(_, states)| states) {
            *state = [0.0; 6];
        }
        let trees = BoostedTrees::of_prefixes(&toy, &small()).unwrap();
        assert_eq!(trees.score(&[0.3; 6]), 0.0);
    }

    #[test]
    fn classes_and_episodes_weigh_the_same() {
        let rows = [(0, 0), (0, 1), (1, 0), (2, 0)];
        let weights = balanced_weights(&rows, &[0.0, 0.0, 0.0, 1.0]).unwrap();
        assert_eq!(weights, [0.5, 0.5, 1.0, 2.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn rows_are_distinct_in_range_and_as_many_as_asked(
            benign in 1usize..30, malicious in 1usize..30, max_rows in 1u32..500, seed: u64,
        ) {
            let toy = Toy::new(benign, malicious, seed);
            let rows = prefix_rows(&toy, max_rows);
            prop_assert!(!rows.is_empty() && rows.len() <= max_rows as usize);
            prop_assert!(rows.windows(2).all(|pair| pair[0] < pair[1]), "sorted and distinct");
            prop_assert!(rows.iter().all(|&(episode, window)| window < toy.windows(episode as usize)));
            if max_rows as usize >= toy.len() {
                for episode in 0..toy.len() {
                    let last = toy.windows(episode) - 1;
                    prop_assert!(rows.contains(&(episode as u32, last)), "the last window is always there");
                }
            }
        }
    }
}
