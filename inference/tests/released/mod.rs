//! Releases on disk, and watchers that look when they are told to.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use bellwether_artifact::keys::{PrivateKey, TrustedKeys};
use bellwether_artifact::release::{Companions, publish};
use bellwether_artifact::signature::ReleaseSignature;
use bellwether_artifact::{ModelManifest, ModelVersion, Sha256};
use bellwether_inference::model::{Contract, Mlp};
use bellwether_inference::policy::{Options, Sampling};
use bellwether_inference::watch::{FolderSource, VersionPolicy, WatchOptions, WatchStatus, Watcher, open};
use bellwether_inference::{Decider, Policy};

use crate::manifests::sealed;
use crate::nets::Draw;

pub(crate) const WIDTH: usize = 12;
pub(crate) const ALL: [bool; 5] = [true; 5];

pub(crate) fn contract() -> Contract {
    Contract::sandbox(WIDTH, Sha256::of(b"spec"))
}

pub(crate) fn network(seed: u64) -> Mlp {
    Draw(seed).mlp(&[WIDTH, 16, 5])
}

/// Negates all q-values, so that another action is the best one.
pub(crate) fn contrary(mlp: &Mlp) -> Mlp {
    let mut mlp = mlp.clone();
    let last = mlp.layers.last_mut().unwrap();
    last.weights.iter_mut().chain(&mut last.bias).for_each(|weight| *weight = -*weight);
    mlp
}

/// Overflows where all values of the state are large, which is so in no golden vector: a hidden unit is above zero there, and then
/// far too much.
pub(crate) fn overflowing() -> Mlp {
    let mut mlp = network(2);
    let [first, last] = mlp.layers.as_mut_slice() else { unreachable!("two layers") };
    first.weights.iter_mut().step_by(first.outputs).for_each(|weight| *weight = 1.0);
    first.bias[0] = 1.5 - WIDTH as f32;
    last.weights[..last.outputs].fill(3e38);
    mlp
}

pub(crate) fn key(seed: u8) -> PrivateKey {
    PrivateKey::from_seed(&[seed; 32])
}

pub(crate) fn trust(seeds: &[u8]) -> TrustedKeys {
    TrustedKeys::new(seeds.iter().map(|seed| key(*seed).public()))
}

/// A folder of releases.
pub(crate) struct Releases(pub(crate) tempfile::TempDir);

impl Releases {
    /// With the network of seed 1 as number 1.
    pub(crate) fn new() -> Self {
        let releases = Releases(tempfile::tempdir().unwrap());
        releases.add(1, &network(1));
        releases
    }

    pub(crate) fn root(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn folder(&self, number: u32) -> PathBuf {
        self.root().join(format!("{number:06}"))
    }

    /// Publishes a network, signed with key 1.
    pub(crate) fn add(&self, number: u32, mlp: &Mlp) -> ModelVersion {
        self.add_changed(number, mlp, &contract(), |_| {})
    }

    /// Publishes the first network again under another name: another version that decides the same.
    pub(crate) fn add_again(&self, number: u32) -> ModelVersion {
        self.add_changed(number, &network(1), &contract(), |manifest| manifest.name = "again".to_owned())
    }

    pub(crate) fn add_changed(
        &self,
        number: u32,
        mlp: &Mlp,
        contract: &Contract,
        change: impl FnOnce(&mut ModelManifest),
    ) -> ModelVersion {
        let (manifest, onnx) = sealed(mlp, contract, change);
        let json = manifest.to_json().unwrap();
        let signature = ReleaseSignature::sign(json.as_bytes(), &key(1)).to_json().unwrap();
        let companions = Companions { signature: Some(signature.as_bytes()), ..Companions::default() };
        publish(&self.folder(number), &manifest, &onnx, companions).unwrap();
        manifest.version
    }

    pub(crate) fn source(&self) -> FolderSource {
        FolderSource::releases(self.root(), VersionPolicy::Latest)
    }

    /// A policy that serves the latest.
    pub(crate) fn policy(&self) -> Policy {
        let (release, number) = open(&mut self.source(), |_| contract(), &patient()).unwrap();
        Policy::new(release, number, sampling_all()).unwrap()
    }

    pub(crate) fn watch(&self, policy: &Policy, options: WatchOptions) -> Watcher {
        let watcher = Watcher::start(policy.clone(), self.source(), options).unwrap();
        watcher.check_now();
        watcher
    }
}

/// Every state is set aside.
pub(crate) fn sampling_all() -> Options {
    Options { sampling: Sampling { every: 1, capacity: 256 }, ..Options::default() }
}

/// Looks when told to, and takes what seems unfinished for what it is.
pub(crate) fn patient() -> WatchOptions {
    WatchOptions {
        poll: Duration::from_secs(3_600),
        settle: Duration::ZERO,
        window: None,
        step: Duration::from_millis(1),
        ..WatchOptions::default()
    }
}

/// Decides `count` states, each of which must succeed.
pub(crate) fn decide(decider: &mut Decider, count: u64) {
    let mlp = network(1);
    for seed in 0..count {
        decider.decide(&crate::nets::state_for(&mlp, seed), &ALL).unwrap();
    }
}

/// Waits until a watcher's status is as wanted. A watcher that never gets there fails the test, after a time that says nothing
/// about how long it may take.
pub(crate) fn until(watcher: &Watcher, mut reached: impl FnMut(&WatchStatus) -> bool) -> WatchStatus {
    let start = Instant::now();
    loop {
        let status = watcher.status();
        if reached(&status) {
            return status;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "{status:?}");
        thread::sleep(Duration::from_millis(1));
    }
}
