//! What a policy serves, and what a model has to show before it is.

use std::sync::Arc;

use bellwether_artifact::{ActionBinding, FeatureBinding, ModelManifest, ModelVersion, OperatingPoint};

use super::{Limits, ModelId, PolicyError, Role};
use crate::engine::{Engine, Isa, Precision, Scratch};
use crate::model::limits::MAX_WIDTH;
use crate::model::{Linear, Mlp};
use crate::release::{LoadedRelease, check_golden};

/// A model in memory.
#[derive(Debug)]
pub(super) struct Model {
    pub engine: Engine,
    /// From a target false-positive rate to the cost in the state.
    pub operating_points: Vec<OperatingPoint>,
    pub id: ModelId,
    /// Its row in every shard, its own until it is dropped.
    pub slot: usize,
}

/// What a model brings that was checked against the terms.
#[derive(Debug)]
pub(super) struct Admitted {
    pub engine: Engine,
    pub operating_points: Vec<OperatingPoint>,
}

impl Admitted {
    /// The model, under its name and with its row of counters.
    pub(super) fn into_model(self, id: ModelId, slot: usize) -> Model {
        let Admitted { engine, operating_points } = self;
        Model { engine, operating_points, id, slot }
    }
}

/// One consistent set of models. A decision reads it once.
#[derive(Debug)]
pub(super) struct Serving {
    pub champion: Arc<Model>,
    pub canary: Option<Canary>,
}

/// A model on trial.
#[derive(Clone, Debug)]
pub(super) struct Canary {
    pub model: Arc<Model>,
    pub share: Share,
}

/// Part of the episodes: those whose hash under a salt, of 53 bits, is below a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    limit: u64,
    salt: u64,
}

/// What every model of a policy has in common.
#[derive(Debug)]
pub(super) struct Terms {
    pub features: FeatureBinding,
    pub actions: ActionBinding,
    pub limits: Limits,
    pub precision: Precision,
    /// What deciders copy: large enough for every model within the limits.
    pub scratch: Scratch,
}

impl Serving {
    pub(super) fn choose(&self, episode: Option<u64>) -> (&Model, Role) {
        match (&self.canary, episode) {
            (Some(canary), Some(episode)) if canary.share.contains(episode) => (&canary.model, Role::Canary),
            _ => (&self.champion, Role::Champion),
        }
    }
}

impl Share {
    const BITS: u32 = 53;

    /// A number above 0 and at most 1, for the trial of a model.
    ///
    /// The salt is the model's own, so that it is not the same episodes that bear every trial, and yet the same ones on every
    /// machine that tries this model.
    pub(super) fn new(share: f64, model: ModelVersion) -> Result<Self, PolicyError> {
        Share { limit: 0, salt: mix(u64::from_be_bytes(*model.as_bytes())) }.resized(share)
    }

    /// Another share of episodes in the same order, so that the larger of two holds the smaller.
    pub(super) fn resized(self, share: f64) -> Result<Self, PolicyError> {
        Share::check(share)?;
        // Exact but for the part of a unit that is rounded up, so that no share is empty.
        Ok(Share { limit: (share * (1_u64 << Self::BITS) as f64).ceil() as u64, ..self })
    }

    /// Refuses what is not above 0 and at most 1.
    pub(super) fn check(share: f64) -> Result<(), PolicyError> {
        if share > 0.0 && share <= 1.0 { Ok(()) } else { Err(PolicyError::Share(share)) }
    }

    pub(super) fn get(self) -> f64 {
        self.limit as f64 / (1_u64 << Self::BITS) as f64
    }

    /// Whether an episode is in.
    fn contains(self, episode: u64) -> bool {
        mix(episode ^ self.salt) >> (u64::BITS - Self::BITS) < self.limit
    }
}

/// The finaliser of `SplitMix64` (Steele, Lea and Flood, 2014), under which numbers in sequence are as good as hashes.
fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Terms {
    /// The terms that a first model sets.
    pub(super) fn new(
        manifest: &ModelManifest,
        engine: &Engine,
        limits: Limits,
        precision: Precision,
    ) -> Result<Self, PolicyError> {
        let scratch = largest_scratch(engine, limits, precision)?;
        let (features, actions) = (manifest.features, manifest.actions.clone());
        Ok(Terms { features, actions, limits, precision, scratch })
    }

    /// Checks a model against the terms, prepares its engine and warms it up. Nothing that is served takes part in it.
    pub(super) fn admit(&self, release: LoadedRelease) -> Result<Admitted, PolicyError> {
        let LoadedRelease { manifest, mlp, engine } = release;
        self.check_contract(&manifest)?;
        let bindings = [
            ("a width of", manifest.features.width as usize, engine.width()),
            ("a number of actions of", manifest.actions.names.len(), engine.actions()),
        ];
        for (field, found, expected) in bindings {
            if found != expected {
                return Err(PolicyError::Binding { field, found, expected });
            }
        }
        let limit = self.limits.hidden_width;
        // A general graph has memory of its own.
        let layers = mlp.as_ref().map_or(&[][..], |mlp| mlp.layers.as_slice());
        let hidden = &layers[..layers.len().saturating_sub(1)];
        for (layer, width) in hidden.iter().map(|layer| layer.outputs).enumerate() {
            if width > limit {
                return Err(PolicyError::TooWide { layer, width, limit });
            }
        }
        let engine = engine.with_precision(self.precision);
        // In memory like a decider's: whatever fits here fits there.
        check_golden(&manifest.golden, &engine, &mut self.scratch.clone())?;
        Ok(Admitted { engine, operating_points: manifest.operating_points })
    }

    fn check_contract(&self, manifest: &ModelManifest) -> Result<(), PolicyError> {
        let (features, actions) = (&manifest.features, &manifest.actions);
        let facts = [
            ("features.spec_version", features.spec_version.to_string(), self.features.spec_version.to_string()),
            ("features.spec_sha256", features.spec_sha256.to_string(), self.features.spec_sha256.to_string()),
            ("features.width", features.width.to_string(), self.features.width.to_string()),
            // Who is served cuts windows one way; a model of other windows would read states it never saw.
            ("features.window", format!("{:?}", features.window), format!("{:?}", self.features.window)),
            ("actions.set_version", actions.set_version.to_string(), self.actions.set_version.to_string()),
            ("actions.names", actions.names.join(","), self.actions.names.join(",")),
        ];
        for (field, found, expected) in facts {
            if found != expected {
                return Err(PolicyError::Contract { field, found, expected });
            }
        }
        Ok(())
    }
}

/// Working memory for every network between these ends whose hidden layers keep the limits.
///
/// Memory grows with the largest of each width alone, so two networks that are narrow elsewhere stand for all.
fn largest_scratch(engine: &Engine, limits: Limits, precision: Precision) -> Result<Scratch, PolicyError> {
    let (width, actions, hidden) = (engine.width(), engine.actions(), limits.hidden_width);
    let refused = || PolicyError::Limits { hidden_width: hidden };
    if hidden == 0 || hidden > MAX_WIDTH {
        return Err(refused());
    }
    let mut scratch = engine.scratch();
    for widths in [[width, 1, actions], [1, hidden, actions]] {
        let linear = |inputs: usize, outputs: usize| {
            let (weights, bias) = (vec![1.0; inputs * outputs], vec![0.0; outputs]);
            Linear { inputs, outputs, weights, bias }
        };
        let layers = widths.windows(2).map(|pair| linear(pair[0], pair[1]));
        // A dueling head is the one that wants more.
        let mlp = Mlp::dueling(layers.collect(), linear(widths[1], 1));
        let engine = Engine::new(&mlp, Isa::Scalar).map_err(|_| refused())?;
        scratch.grow(&engine.with_precision(precision));
    }
    Ok(scratch)
}

#[cfg(test)]
mod tests {
    use bellwether_artifact::Sha256;

    use super::*;

    fn version(text: &str) -> ModelVersion {
        ModelVersion::of_digest(&Sha256::of(text.as_bytes()))
    }

    #[test]
    fn a_share_holds_its_part_of_the_episodes_and_grows_by_adding() {
        for share in [0.001, 0.01, 0.1, 0.5, 0.9, 1.0] {
            let large = Share::new(share, version("model")).unwrap();
            let small = large.resized(share * 0.5).unwrap();
            let episodes = 100_000_u64;
            let count = (0..episodes).filter(|episode| large.contains(*episode)).count() as f64;
            let (mean, spread) = (share * 1e5, (share * (1.0 - share) * 1e5).sqrt());
            assert!((count - mean).abs() <= 5.0 * spread, "{share}: {count}");
            assert!((0..episodes).all(|episode| large.contains(episode) || !small.contains(episode)));
            assert!(large.get() >= share);
        }
        assert!(Share::new(f64::MIN_POSITIVE, version("model")).is_ok_and(|share| share.get() > 0.0));
        for share in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(Share::new(share, version("model")).is_err());
        }
    }

    #[test]
    fn trials_of_two_models_are_independent_and_those_of_one_the_same() {
        let shares = ["one", "two", "three"].map(|text| Share::new(0.5, version(text)).unwrap());
        assert_eq!(shares[0], Share::new(0.5, version("one")).unwrap());
        for (index, one) in shares.iter().enumerate() {
            for other in &shares[..index] {
                let both =
                    (0..100_000).filter(|episode| one.contains(*episode) && other.contains(*episode)).count() as f64;
                // A quarter, with a standard deviation of 137.
                assert!((both - 25_000.0).abs() <= 5.0 * 137.0, "{both}");
            }
        }
    }
}
