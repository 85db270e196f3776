//! A program that starts anew goes on where the one before it ended, if it is told where that is written down.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test, and its files need not outlive a power cut"
)]

mod manifests;
mod nets;
mod released;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bellwether_artifact::release::{MANIFEST_FILE, ONNX_FILE};
use bellwether_artifact::{ModelManifest, Sha256};
use bellwether_inference::Policy;
use bellwether_inference::model::Contract;
use bellwether_inference::watch::{
    FolderSource, Pending, Reason, ShadowOptions, WatchError, WatchOptions, Watcher, WindowOptions, open,
};
use released::{Releases, contract, contrary, decide, network, patient, sampling_all, until};

/// Releases, and programs that watch them one after the other.
struct Host {
    releases: Releases,
    folder: tempfile::TempDir,
}

/// One program.
struct Running {
    policy: Policy,
    watcher: Watcher,
}

impl Host {
    fn new() -> Self {
        Host { releases: Releases::new(), folder: tempfile::tempdir().unwrap() }
    }

    fn memory(&self) -> PathBuf {
        self.folder.path().join("memory.json")
    }

    fn options(&self) -> WatchOptions {
        WatchOptions { memory: Some(self.memory()), ..patient() }
    }

    /// A program that has looked once.
    fn start(&self) -> Running {
        self.start_with(|_| contract(), self.options())
    }

    fn start_with(&self, contract: impl Fn(&ModelManifest) -> Contract, options: WatchOptions) -> Running {
        let (release, number) = open(&mut self.releases.source(), contract, &options).unwrap();
        let policy = Policy::new(release, number, sampling_all()).unwrap();
        let watcher = self.releases.watch(&policy, options);
        Running { policy, watcher }
    }
}

impl Running {
    fn serving(&self) -> Option<u32> {
        self.watcher.status().serving.number
    }

    /// Ends as by a signal that cannot be caught: nothing is done at the end, so all must stand before.
    fn kill(self) {
        self.watcher.write_down();
    }
}

#[test]
fn what_a_window_took_back_stays_back_after_a_restart() {
    let host = Host::new();
    let found = WindowOptions { time: Duration::from_secs(3_600), min_states: 32, ..WindowOptions::default() };
    let options = WatchOptions { window: Some(found), ..host.options() };
    let first = host.start_with(|_| contract(), options);
    let version = host.releases.add(2, &contrary(&network(1)));
    assert_eq!(first.watcher.check_now().serving.number, Some(2));
    let mut decider = first.policy.decider();
    decide(&mut decider, 64);
    until(&first.watcher, |status| status.serving.number == Some(1));
    drop((decider, first));
    let second = host.start();
    assert_eq!((second.serving(), second.policy.rolled_back()), (Some(1), vec![version]));
    assert_eq!(second.watcher.status().last_refusal.unwrap().reason, Reason::RolledBack);
    // Once forgiven it is forgiven in the next program too.
    assert_eq!(second.watcher.forgive().serving.number, Some(2));
    drop(second);
    assert_eq!(host.start().serving(), Some(2));
}

#[test]
fn what_operators_did_outlives_the_program() {
    let host = Host::new();
    host.releases.add(2, &network(2));
    let first = host.start();
    assert_eq!(first.serving(), Some(2));
    // Another model was put in the place of the one that is wanted.
    first.watcher.try_out(bellwether_inference::watch::VersionPolicy::Pinned(1), 0.5).unwrap();
    first.policy.promote().unwrap();
    first.kill();
    let second = host.start();
    assert_eq!((second.serving(), second.watcher.check_now().serving.number), (Some(1), Some(1)));
    second.policy.pin();
    second.kill();
    host.releases.add(3, &network(3));
    let third = host.start();
    assert!(third.policy.status().pinned);
    assert_eq!((third.serving(), third.watcher.status().pending), (Some(1), Some(Pending::Pinned)));
    third.policy.unpin();
    assert_eq!(third.watcher.check_now().serving.number, Some(3));
    third.kill();
    let fourth = host.start();
    assert!(!fourth.policy.status().pinned && fourth.serving() == Some(3));
}

#[test]
fn a_release_that_is_refused_at_a_start_leaves_what_was_served() {
    let host = Host::new();
    host.start().kill();
    host.releases.add(2, &network(2));
    let damaged = host.releases.folder(2).join(MANIFEST_FILE);
    fs::write(damaged, "{}").unwrap();
    let next = host.start();
    assert_eq!((next.serving(), next.watcher.status().last_refusal.unwrap().reason), (Some(1), Reason::Manifest));
    // Without a memory there is nothing to go on with.
    let forgetful = open(&mut host.releases.source(), |_| contract(), &patient());
    assert!(matches!(forgetful, Err(WatchError::Refused(refusal)) if refusal.reason == Reason::Manifest));
}

#[test]
fn a_restart_skips_no_comparison() {
    let host = Host::new();
    host.start().kill();
    host.releases.add(2, &network(2));
    let states = ShadowOptions { states: 64, time: Duration::from_secs(3_600), ..ShadowOptions::default() };
    let next = host.start_with(|_| contract(), WatchOptions { shadow: Some(states), ..host.options() });
    let status = next.watcher.status();
    assert_eq!((status.serving.number, status.shadow.unwrap().model.number), (Some(1), Some(2)));
}

#[test]
fn a_start_brings_another_contract_unless_a_model_is_pinned() {
    let host = Host::new();
    let other = Contract { feature_spec: Sha256::of(b"other"), ..contract() };
    let own = |manifest: &ModelManifest| Contract { feature_spec: manifest.features.spec_sha256, ..contract() };
    let first = host.start_with(own, host.options());
    host.releases.add_changed(2, &network(2), &other, |_| {});
    assert_eq!(first.watcher.check_now().last_refusal.unwrap().reason, Reason::Features);
    first.policy.pin();
    first.kill();
    let second = host.start_with(own, host.options());
    assert_eq!((second.serving(), second.policy.status().pinned), (Some(1), true));
    second.policy.unpin();
    second.kill();
    assert_eq!(host.start_with(own, host.options()).serving(), Some(2));
}

#[test]
fn a_model_that_is_gone_is_not_waited_for() {
    let host = Host::new();
    host.releases.add(2, &network(2));
    let first = host.start();
    first.policy.pin();
    first.kill();
    fs::remove_dir_all(host.releases.folder(2)).unwrap();
    let second = host.start();
    assert_eq!((second.serving(), second.policy.status().pinned), (Some(1), false));
    second.kill();
    // Nor taken for another one under its number.
    fs::remove_dir_all(host.releases.folder(1)).unwrap();
    let version = host.releases.add(1, &network(3));
    assert_eq!(host.start().watcher.status().serving.version, version);
}

#[test]
fn a_folder_whose_only_release_was_taken_back_is_refused_with_what_to_do() {
    let host = Host::new();
    let options = host.options();
    let mut source = FolderSource::release(host.releases.folder(1));
    let start = |source: &mut FolderSource| open(source, |_| contract(), &options);
    let (release, number) = start(&mut source).unwrap();
    let policy = Policy::new(release, number, sampling_all()).unwrap();
    let watcher = Watcher::start(policy.clone(), source.clone(), options.clone()).unwrap();
    let first = watcher.check_now().serving.version;
    host.releases.add(2, &network(2));
    for file in [ONNX_FILE, MANIFEST_FILE] {
        fs::rename(host.releases.folder(2).join(file), host.releases.folder(1).join(file)).unwrap();
    }
    assert_ne!(watcher.check_now().serving.version, first);
    policy.roll_back().unwrap();
    watcher.write_down();
    drop(watcher);
    let error = start(&mut source).unwrap_err();
    assert!(error.to_string().contains("release another"), "{error}");
    assert!(matches!(error, WatchError::Refused(refusal) if refusal.reason == Reason::RolledBack));
}

#[test]
fn a_memory_that_cannot_be_used_is_refused_by_its_path() {
    let host = Host::new();
    host.start().kill();
    let sound = fs::read_to_string(host.memory()).unwrap();
    let refused = |content: &str, expected: &str| {
        fs::write(host.memory(), content).unwrap();
        let error = open(&mut host.releases.source(), |_| contract(), &host.options()).unwrap_err();
        assert!(matches!(&error, WatchError::Memory { path, .. } if *path == host.memory()), "{error}");
        let text = error.to_string();
        assert!(text.contains(expected) && text.contains("take it away"), "{text}");
    };
    refused(&sound[..sound.len() / 2], "EOF");
    refused(&sound.replace("\"format_version\": 1", "\"format_version\": 2"), "version 2");
    refused(&sound.replace("pinned", "pined"), "pined");
    refused(&" ".repeat(70_000), "65536");
    // A folder that is not there is told of at the start, and not at the first change.
    fs::remove_file(host.memory()).unwrap();
    let memory = Some(host.folder.path().join("missing/memory.json"));
    let policy = host.releases.policy();
    let error = Watcher::start(policy, host.releases.source(), WatchOptions { memory, ..patient() }).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
}

#[test]
fn what_cannot_be_written_is_shown_until_it_can() {
    let host = Host::new();
    let running = host.start();
    assert_eq!(running.watcher.status().unwritten, None);
    // Nothing takes the place of a folder, for root neither.
    fs::remove_file(host.memory()).unwrap();
    fs::create_dir_all(host.memory().join("full")).unwrap();
    running.policy.pin();
    running.watcher.write_down();
    assert!(running.watcher.status().unwritten.unwrap().contains("memory.json"));
    fs::remove_dir_all(host.memory()).unwrap();
    running.watcher.write_down();
    assert_eq!(running.watcher.status().unwritten, None);
    assert!(fs::read_to_string(host.memory()).unwrap().contains("\"pinned\": true"));
}
