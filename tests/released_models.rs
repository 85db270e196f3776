//! The models that ship with the source are whole, decide as they promise, and fit the program they lie beside.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod program;

use std::convert::Infallible;
use std::path::{Path, PathBuf};

use bellwether_artifact::{Sha256, durable, release};
use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{
    EpisodeAttributes, FeatureSpec, RewardConfig, Window, WindowConfig, WindowSink, Windower,
};
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::{Engine, Isa, Precision, Scratch, load_release};
use program::bellwether;

/// The folders of the models.
fn models() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
    let mut models: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    models.retain(|path| path.is_dir());
    models.sort();
    models
}

#[test]
fn every_model_passes_the_gates_of_a_release_and_has_a_card() {
    let models = models();
    assert!(!models.is_empty());
    for model in models {
        let folder = tempfile::tempdir().unwrap();
        let at = folder.path();
        let path = model.to_str().unwrap();
        // Loading checks hashes, the feature specification of this program and the golden vectors, to the last bit.
        let promoted = bellwether(at, &["release", "--json", "promote", path]).expect(0).json();
        assert_eq!(promoted["moved"]["to"], 1, "{promoted}");
        bellwether(at, &["release", "verify"]).expect(0);
        let card = std::fs::read_to_string(model.join("card.md")).unwrap();
        let version = promoted["gates"]["version"].as_str().unwrap();
        assert!(card.contains(version), "the card of {path} speaks of another model than {version}");
    }
}

#[test]
fn a_model_that_was_changed_since_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let model = models().remove(0);
    std::fs::create_dir(at.join("model")).unwrap();
    for entry in std::fs::read_dir(&model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, at.join("model").join(path.file_name().unwrap())).unwrap();
    }
    let mut network = std::fs::read(at.join("model/model.onnx")).unwrap();
    let middle = network.len() / 2;
    network[middle] ^= 1;
    durable::write_bytes(at.join("model/model.onnx"), &network).unwrap();
    bellwether(at, &["release", "promote", "model"]).complains(1, &["model.onnx"]);
}

/// Decides every recorded window twice, under certificates and in f32.
struct Twice<'a> {
    exact: &'a Engine,
    certified: &'a Engine,
    scratch: [Scratch; 2],
    cost: f32,
    decided: u32,
    under_certificate: u32,
}

impl WindowSink for Twice<'_> {
    type Error = Infallible;

    fn begin(&mut self, _: &EpisodeAttributes) -> Result<(), Infallible> {
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let mut state = window.state.clone();
        state.set_cost(self.cost);
        let [ours, theirs] = &mut self.scratch;
        let mask = vec![true; self.exact.actions()];
        let found = self.certified.decide(ours, state.as_slice(), &mask).unwrap();
        let expected = self.exact.decide(theirs, state.as_slice(), &mask).unwrap();
        assert_eq!(found.action, expected.action, "window {} of an episode", window.index);
        for (found_q, expected_q) in found.q_values.iter().zip(expected.q_values) {
            let difference = f64::from(*found_q) - f64::from(*expected_q);
            assert!(difference.abs() <= f64::from(found.bound), "{found:?} {expected:?}");
        }
        self.decided += 1;
        self.under_certificate += u32::from(found.certified);
        Ok(())
    }

    fn end(&mut self, _: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

#[test]
fn recorded_states_are_decided_as_in_f32_and_nearly_all_under_certificates() {
    for model in models() {
        let manifest = release::read_manifest(&model).unwrap();
        let limits = &manifest.features.window;
        let window =
            WindowConfig { max_events: limits.max_events, max_ns: limits.max_ns, max_windows: limits.max_windows };
        let spec = FeatureSpec::v1(window.clone());
        let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
        let exact = load_release(&model, &Expectation::new(contract), Isa::best()).unwrap();
        let certified = Engine::new(exact.mlp.as_ref().unwrap(), Isa::best()).unwrap();
        let certified = certified.with_precision(Precision::Certified);
        for point in &manifest.operating_points {
            let scratch = [certified.scratch(), exact.engine.scratch()];
            let (exact, certified) = (&exact.engine, &certified);
            let sink = Twice { exact, certified, scratch, cost: point.cost, decided: 0, under_certificate: 0 };
            let mut windower = Windower::new(&window, &RewardConfig::default(), sink);
            TelemetryReader::from_bytes(bellwether_corpus::recordings()).unwrap().read(&mut windower).unwrap();
            let Twice { decided, under_certificate, .. } = windower.into_sink();
            assert!(decided > 10_000, "{decided}");
            let share = f64::from(under_certificate) / f64::from(decided);
            assert!(share >= 0.99, "{share} of the decisions of {} at {}", model.display(), point.target_fpr);
        }
    }
}
