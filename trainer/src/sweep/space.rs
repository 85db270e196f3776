//! What a sweep tries: which keys of a configuration take which values.

use std::collections::BTreeMap;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::{ConfigError, TrainConfig};

/// The values that one key takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// Any of these, each as likely.
    Choice(Vec<Value>),
    /// Any number from the first to the second.
    Uniform([f64; 2]),
    /// The same on a logarithmic scale; both above 0.
    Log([f64; 2]),
    /// Any whole number from the first to the second.
    Integer([i64; 2]),
}

/// Settings of a trial by their dotted keys.
pub type Settings = BTreeMap<String, Value>;

impl Dimension {
    fn validate(&self, key: &str) -> Result<(), ConfigError> {
        let refuse = |reason: &str| Err(ConfigError::new(format!("space.{key}"), self, reason));
        match self {
            Dimension::Choice(values) if values.is_empty() => refuse("give at least one value to choose from"),
            Dimension::Uniform([low, high]) if !(low < high && high.is_finite()) => {
                refuse("the first must lie below the second, and both be finite")
            }
            Dimension::Log([low, high]) if !(*low > 0.0 && low < high && high.is_finite()) => {
                refuse("the first must lie above 0 and below the second, and both be finite")
            }
            Dimension::Integer([low, high]) if low >= high => refuse("the first must lie below the second"),
            _ => Ok(()),
        }
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Value {
        match self {
            Dimension::Choice(values) => values[rng.random_range(0..values.len())].clone(),
            Dimension::Uniform([low, high]) => rounded(low + (high - low) * rng.random::<f64>()),
            Dimension::Log([low, high]) => {
                let (low, high) = (libm::log(*low), libm::log(*high));
                rounded(libm::exp(low + (high - low) * rng.random::<f64>()))
            }
            Dimension::Integer([low, high]) => rng.random_range(*low..=*high).into(),
        }
    }
}

/// A number with three digits, which a person can read and give again; nobody tunes to more.
fn rounded(value: f64) -> Value {
    let text = format!("{value:.2e}");
    text.parse::<f64>().map_or(Value::Null, Value::from)
}

/// Refuses a space that cannot be searched.
pub(super) fn validate(space: &BTreeMap<String, Dimension>, grid: bool) -> Result<(), ConfigError> {
    if space.is_empty() {
        let reason = "give at least one key of the training configuration with the values to try";
        return Err(ConfigError::new("space", "{}", reason));
    }
    for (key, dimension) in space {
        dimension.validate(key)?;
        if key == "seed" || key.starts_with("reward") {
            let reason = match key.as_str() {
                "seed" => "seeds are a dimension of their own: set `seeds`",
                _ => "what is earned under different rewards cannot be compared: sweep under each of them apart",
            };
            return Err(ConfigError::new(format!("space.{key}"), dimension, reason));
        }
        if grid && !matches!(dimension, Dimension::Choice(_)) {
            let reason = "a grid takes every value of each key: give a `choice`, or search at `random`";
            return Err(ConfigError::new(format!("space.{key}"), dimension, reason));
        }
    }
    Ok(())
}

/// All combinations, the last key's values changing first.
pub(super) fn grid(space: &BTreeMap<String, Dimension>) -> Vec<Settings> {
    let mut all = vec![Settings::new()];
    for (key, dimension) in space {
        let Dimension::Choice(values) = dimension else { continue };
        let with = |settings: &Settings, value: &Value| {
            let mut settings = settings.clone();
            settings.insert(key.clone(), value.clone());
            settings
        };
        all = all.iter().flat_map(|settings| values.iter().map(move |value| with(settings, value))).collect();
    }
    all
}

/// So many draws; a combination that comes up again is left out.
pub(super) fn draws(space: &BTreeMap<String, Dimension>, count: usize, rng: &mut ChaCha8Rng) -> Vec<Settings> {
    let mut all: Vec<Settings> = Vec::new();
    for _ in 0..count {
        let settings: Settings = space.iter().map(|(key, dimension)| (key.clone(), dimension.draw(rng))).collect();
        if !all.contains(&settings) {
            all.push(settings);
        }
    }
    all
}

/// A configuration with these settings.
pub(super) fn configured(base: &TrainConfig, settings: &Settings) -> Result<TrainConfig, ConfigError> {
    let unreadable = |error: serde_json::Error| ConfigError::new("space", settings, error.to_string());
    let mut config = serde_json::to_value(base).map_err(unreadable)?;
    for (key, value) in settings {
        let place = config.pointer_mut(&format!("/{}", key.replace('.', "/")));
        let Some(place) = place else {
            return Err(ConfigError::new(
                format!("space.{key}"),
                value,
                "there is no such key; `train --print-config` has all",
            ));
        };
        place.clone_from(value);
    }
    let config: TrainConfig = serde_json::from_value(config).map_err(unreadable)?;
    config.validate()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::stream;
    use proptest::prelude::*;
    use serde_json::json;

    fn dimension() -> impl Strategy<Value = Dimension> {
        prop_oneof![
            prop::collection::vec(0..9i64, 1..4)
                .prop_map(|values| Dimension::Choice(values.into_iter().map(Value::from).collect())),
            (-5.0_f64..0.0, 0.1_f64..5.0).prop_map(|(low, high)| Dimension::Uniform([low, high])),
            (1e-6_f64..1e-3, 1e-2_f64..10.0).prop_map(|(low, high)| Dimension::Log([low, high])),
            (-9i64..0, 1..9i64).prop_map(|(low, high)| Dimension::Integer([low, high])),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_drawn_lies_in_the_space(space in prop::collection::btree_map("[a-z]{1,4}", dimension(), 1..4), seed: u64) {
            prop_assume!(!space.contains_key("seed"));
            prop_assert!(validate(&space, false).is_ok());
            let all = draws(&space, 20, &mut stream(seed, "sweep"));
            prop_assert!((1..=20).contains(&all.len()));
            for settings in &all {
                for (key, dimension) in &space {
                    let value = &settings[key];
                    let within = |low: f64, high: f64| {
                        let value = value.as_f64().unwrap();
                        // Three digits may round beyond an end.
                        value >= low - low.abs() * 0.006 && value <= high + high.abs() * 0.006
                    };
                    prop_assert!(match dimension {
                        Dimension::Choice(values) => values.contains(value),
                        Dimension::Uniform([low, high]) | Dimension::Log([low, high]) => within(*low, *high),
                        Dimension::Integer([low, high]) => (*low..=*high).contains(&value.as_i64().unwrap()),
                    }, "{key}: {value} of {dimension:?}");
                }
            }
            prop_assert_eq!(draws(&space, 20, &mut stream(seed, "sweep")), all, "the same seed gives the same trials");
        }
    }

    #[test]
    fn a_grid_holds_every_combination_once() {
        let space = BTreeMap::from([
            ("a".to_owned(), Dimension::Choice(vec![json!(1), json!(2)])),
            ("b".to_owned(), Dimension::Choice(vec![json!("x"), json!("y"), json!([3])])),
        ]);
        let all = grid(&space);
        assert_eq!(all.len(), 6);
        assert_eq!(all[1], Settings::from([("a".to_owned(), json!(1)), ("b".to_owned(), json!("y"))]));
        let distinct: std::collections::BTreeSet<String> = all.iter().map(|settings| format!("{settings:?}")).collect();
        assert_eq!(distinct.len(), 6);
    }

    #[test]
    fn what_cannot_be_searched_is_refused_by_its_key() {
        let one = |key: &str, dimension: Dimension| BTreeMap::from([(key.to_owned(), dimension)]);
        for (space, key) in [
            (BTreeMap::new(), "space"),
            (one("a", Dimension::Choice(vec![])), "space.a"),
            (one("a", Dimension::Uniform([1.0, 1.0])), "space.a"),
            (one("a", Dimension::Uniform([0.0, f64::NAN])), "space.a"),
            (one("a", Dimension::Log([0.0, 1.0])), "space.a"),
            (one("a", Dimension::Integer([3, 2])), "space.a"),
            (one("seed", Dimension::Integer([1, 2])), "space.seed"),
            (one("reward.window_cost", Dimension::Log([0.1, 1.0])), "space.reward.window_cost"),
        ] {
            assert_eq!(validate(&space, false).unwrap_err().key, key);
        }
        assert_eq!(validate(&one("a", Dimension::Integer([1, 2])), true).unwrap_err().key, "space.a");
        let base = TrainConfig::default();
        let settings = |key: &str, value: Value| Settings::from([(key.to_owned(), value)]);
        let unknown = configured(&base, &settings("trainer.learning_rat", json!(1))).unwrap_err();
        assert_eq!(unknown.key, "space.trainer.learning_rat");
        assert_eq!(configured(&base, &settings("trainer.tau", json!(0.0))).unwrap_err().key, "trainer.tau");
        let config = configured(&base, &settings("network.hidden", json!([7, 9]))).unwrap();
        assert_eq!(config.network.hidden, [7, 9]);
    }
}
