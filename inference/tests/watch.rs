//! A watcher brings what its source wants, compares it, takes it back when it fails, and leaves the operator the last word.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test, and its files need not outlive a power cut"
)]

mod manifests;
mod nets;
mod released;

use std::fs;
use std::time::Duration;

use bellwether_artifact::release::{MANIFEST_FILE, ONNX_FILE, SIGNATURE_FILE};
use bellwether_inference::model::Contract;
use bellwether_inference::policy::{Limits, Options};
use bellwether_inference::watch::{
    FolderSource, Pending, Reason, ShadowOptions, Source, SourceError, VersionPolicy, Wanted, WatchError, WatchOptions,
    Watcher, WindowOptions, open,
};
use bellwether_inference::{Policy, PolicyError};
use released::{
    ALL, Releases, WIDTH, contract, contrary, decide, network, overflowing, patient, sampling_all, trust, until,
};

fn shadow(states: u64) -> WatchOptions {
    let shadow = ShadowOptions { states, time: Duration::from_secs(3_600), ..ShadowOptions::default() };
    WatchOptions { shadow: Some(shadow), ..patient() }
}

fn window(options: WindowOptions) -> WatchOptions {
    WatchOptions { window: Some(WindowOptions { time: Duration::from_secs(3_600), ..options }), ..patient() }
}

#[test]
fn the_latest_release_is_served_and_told_of() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, patient());
    let status = watcher.status();
    assert_eq!((status.serving.number, status.wanted.unwrap().number), (Some(1), Some(1)));
    assert_eq!((status.pending, status.last_refusal), (None, None));
    assert!(status.source.contains("latest"), "{}", status.source);
    let version = releases.add(2, &network(2));
    let status = watcher.check_now();
    assert_eq!((status.serving.version, status.serving.number), (version, Some(2)));
    assert_eq!(policy.status().previous.unwrap().number, Some(1));
    assert_eq!(watcher.counts().reloads(), [("swapped", "none", 1), ("superseded", "none", 0)]);
    assert!(watcher.is_alive());
    // What is served already is not loaded again.
    watcher.check_now();
    assert_eq!((watcher.counts().swapped, policy.status().swaps), (1, 1));
}

#[test]
fn a_watcher_looks_by_itself() {
    let releases = Releases::new();
    let policy = releases.policy();
    let options = WatchOptions { poll: Duration::from_millis(5), ..patient() };
    let watcher = releases.watch(&policy, options);
    releases.add(2, &network(2));
    until(&watcher, |status| status.serving.number == Some(2));
}

#[test]
fn an_older_release_is_served_again_when_it_is_wanted() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, patient());
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().serving.number, Some(2));
    fs::remove_dir_all(releases.folder(2)).unwrap();
    assert_eq!(watcher.check_now().serving.number, Some(1));
    assert_eq!(watcher.counts().swapped, 2);
}

#[test]
fn a_release_in_one_folder_may_be_replaced() {
    let releases = Releases::new();
    let mut source = FolderSource::release(releases.folder(1));
    let (release, number) = open(&mut source, |_| contract(), &patient()).unwrap();
    assert_eq!(number, None);
    let policy = Policy::new(release, number, Options::default()).unwrap();
    let watcher = Watcher::start(policy.clone(), source, patient()).unwrap();
    watcher.check_now();
    let version = releases.add(2, &network(2));
    for file in [ONNX_FILE, MANIFEST_FILE] {
        fs::rename(releases.folder(2).join(file), releases.folder(1).join(file)).unwrap();
    }
    assert_eq!(watcher.check_now().serving.version, version);
}

#[test]
fn a_refused_release_is_told_once_and_tried_again_when_it_changes() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, patient());
    releases.add(2, &network(2));
    let onnx = releases.folder(2).join(ONNX_FILE);
    let sound = fs::read(&onnx).unwrap();
    let mut damaged = sound.clone();
    damaged[200] ^= 1;
    fs::write(&onnx, &damaged).unwrap();
    for _ in 0..3 {
        let refusal = watcher.check_now().last_refusal.unwrap();
        assert_eq!((refusal.reason, refusal.number), (Reason::NetworkHash, Some(2)));
    }
    assert_eq!(watcher.counts().refused(Reason::NetworkHash), 1);
    assert!(watcher.counts().reloads().contains(&("refused", "network_hash", 1)));
    assert_eq!(policy.status().champion.number, Some(1));
    fs::write(&onnx, &sound).unwrap();
    let status = watcher.check_now();
    assert_eq!((status.serving.number, status.last_refusal), (Some(2), None));
}

#[test]
fn what_is_being_written_is_waited_for() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, WatchOptions { settle: Duration::from_secs(3_600), ..patient() });
    let version = releases.add(2, &network(2));
    let (onnx, manifest) = (releases.folder(2).join(ONNX_FILE), releases.folder(2).join(MANIFEST_FILE));
    let (weights, json) = (fs::read(&onnx).unwrap(), fs::read(&manifest).unwrap());
    // The manifest first, byte after byte, then the network: as an unlucky copy would have it.
    for bytes in [1, 40, json.len() / 2, json.len() - 2] {
        fs::write(&manifest, &json[..bytes]).unwrap();
        let status = watcher.check_now();
        assert!(matches!(status.pending, Some(Pending::Incomplete(_))), "{bytes}: {status:?}");
    }
    fs::write(&manifest, &json).unwrap();
    for bytes in [0, 1, 1_000, weights.len() - 1] {
        fs::write(&onnx, &weights[..bytes]).unwrap();
        let status = watcher.check_now();
        assert!(matches!(status.pending, Some(Pending::Incomplete(_))), "{bytes}: {status:?}");
    }
    assert_eq!(watcher.counts(), Default::default());
    fs::write(&onnx, &weights).unwrap();
    let status = watcher.check_now();
    assert_eq!((status.serving.version, status.pending), (version, None));
}

#[test]
fn what_stays_unfinished_is_refused_after_a_while() {
    let releases = Releases::new();
    let policy = releases.policy();
    let settle = Duration::from_millis(20);
    let watcher = releases.watch(&policy, WatchOptions { settle, ..patient() });
    releases.add(2, &network(2));
    let manifest = releases.folder(2).join(MANIFEST_FILE);
    let json = fs::read(&manifest).unwrap();
    for bytes in [100, 200] {
        // Each change starts the wait anew.
        fs::write(&manifest, &json[..bytes]).unwrap();
        let status = watcher.check_now();
        assert!(matches!(status.pending, Some(Pending::Incomplete(_))) && status.last_refusal.is_none(), "{status:?}");
        std::thread::sleep(2 * settle);
    }
    let status = watcher.check_now();
    assert_eq!((status.pending, status.last_refusal.unwrap().reason), (None, Reason::Manifest));
}

#[test]
fn a_candidate_that_agrees_is_swapped_in_after_the_comparison() {
    let releases = Releases::new();
    let policy = releases.policy();
    let mut decider = policy.decider();
    let watcher = releases.watch(&policy, shadow(500));
    releases.add_again(2);
    let status = watcher.check_now();
    let trial = status.shadow.unwrap();
    assert_eq!((trial.model.number, trial.against.number, status.serving.number), (Some(2), Some(1), Some(1)));
    until(&watcher, |status| {
        decide(&mut decider, 50);
        status.serving.number != Some(1)
    });
    let counts = watcher.counts();
    assert!(counts.shadow_states >= 500 && counts.shadow_disagreements == 0, "{counts:?}");
    assert_eq!(counts.swapped, 1);
    assert_eq!(watcher.check_now().shadow, None);
}

#[test]
fn a_candidate_that_disagrees_is_refused_with_the_figures() {
    let releases = Releases::new();
    let policy = releases.policy();
    let mut decider = policy.decider();
    let watcher = releases.watch(&policy, shadow(200));
    releases.add(2, &contrary(&network(1)));
    watcher.check_now();
    until(&watcher, |status| {
        decide(&mut decider, 50);
        status.last_refusal.is_some()
    });
    let refusal = watcher.status().last_refusal.unwrap();
    assert_eq!((refusal.reason, refusal.number), (Reason::Disagreement, Some(2)));
    assert!(refusal.text.contains("states") && refusal.version.is_some(), "{}", refusal.text);
    assert_eq!((policy.status().champion.number, policy.status().swaps), (Some(1), 0));
    // And it is not compared again.
    assert_eq!(watcher.check_now().shadow, None);
    assert_eq!(watcher.counts().refused(Reason::Disagreement), 1);
}

#[test]
fn without_traffic_a_comparison_ends_by_time() {
    let check = |demand_states: bool| {
        let releases = Releases::new();
        let policy = releases.policy();
        let shadow = ShadowOptions { time: Duration::from_millis(1), demand_states, ..ShadowOptions::default() };
        let watcher = releases.watch(&policy, WatchOptions { shadow: Some(shadow), ..patient() });
        releases.add(2, &network(2));
        watcher.check_now();
        let status = until(&watcher, |status| status.shadow.is_none());
        (status.serving.number, status.last_refusal.map(|refusal| refusal.reason))
    };
    assert_eq!(check(false), (Some(2), None));
    assert_eq!(check(true), (Some(1), Some(Reason::TooFewStates)));
}

#[test]
fn a_comparison_ends_when_something_else_is_wanted() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, shadow(1_000_000));
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().shadow.unwrap().model.number, Some(2));
    fs::remove_dir_all(releases.folder(2)).unwrap();
    let status = watcher.check_now();
    assert_eq!((status.shadow, status.serving.number), (None, Some(1)));
    assert_eq!(watcher.counts().superseded, 1);
    // It is new again when it comes back.
    releases.add(2, &network(2));
    assert!(watcher.check_now().shadow.is_some());
    drop(watcher);
    policy.reap();
    assert_eq!(policy.status().models_resident, 1);
}

#[test]
fn a_model_that_decides_otherwise_is_taken_back_and_not_brought_again() {
    let releases = Releases::new();
    let policy = releases.policy();
    let mut decider = policy.decider();
    let watcher = releases.watch(&policy, window(WindowOptions { min_states: 100, ..WindowOptions::default() }));
    let version = releases.add(2, &contrary(&network(1)));
    let status = watcher.check_now();
    assert_eq!((status.serving.version, status.window.unwrap().against.number), (version, Some(1)));
    until(&watcher, |status| {
        decide(&mut decider, 50);
        status.serving.number != Some(2)
    });
    until(&watcher, |status| status.last_refusal.is_some());
    let refusal = watcher.status().last_refusal.unwrap();
    assert_eq!((refusal.reason, refusal.version), (Reason::Disagreement, Some(version)));
    assert_eq!(watcher.counts().rolled_back(Reason::Disagreement), 1);
    // Not at the next look, and not under other files of the same content.
    assert_eq!(watcher.check_now().serving.number, Some(1));
    fs::rename(releases.folder(2), releases.folder(3)).unwrap();
    let status = watcher.check_now();
    assert_eq!((status.serving.number, status.last_refusal.unwrap().reason), (Some(1), Reason::RolledBack));
    // Unless somebody says so.
    assert_eq!(watcher.forgive().serving.version, version);
}

#[test]
fn a_model_that_overflows_is_taken_back() {
    let releases = Releases::new();
    // Nothing is set aside, so it is the decisions that tell.
    let (release, number) = open(&mut releases.source(), |_| contract(), &patient()).unwrap();
    let sampling = bellwether_inference::policy::Sampling::OFF;
    let policy = Policy::new(release, number, Options { sampling, ..Options::default() }).unwrap();
    let mut decider = policy.decider();
    let watcher = releases.watch(&policy, window(WindowOptions::default()));
    releases.add(2, &overflowing());
    assert_eq!(watcher.check_now().serving.number, Some(2));
    assert!(decider.decide(&[1.0; WIDTH], &ALL).is_err());
    let status = until(&watcher, |status| status.last_refusal.is_some());
    assert_eq!((status.serving.number, status.last_refusal.unwrap().reason), (Some(1), Reason::NonFinite));
    assert!(decider.decide(&[1.0; WIDTH], &ALL).is_ok());
}

#[test]
fn a_model_past_its_time_is_taken_back() {
    let releases = Releases::new();
    let (release, number) = open(&mut releases.source(), |_| contract(), &patient()).unwrap();
    let policy = Policy::new(release, number, Options { time_every: 1, ..Options::default() }).unwrap();
    let mut decider = policy.decider();
    // Nothing is that fast, so that the limit is exceeded on any machine.
    let limit = WindowOptions { latency_p99: Some(Duration::from_nanos(1)), min_timed: 20, ..WindowOptions::default() };
    let watcher = releases.watch(&policy, window(limit));
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().serving.number, Some(2));
    decide(&mut decider, 19);
    assert!(watcher.check_now().last_refusal.is_none());
    decide(&mut decider, 1);
    let status = watcher.check_now();
    assert_eq!((status.serving.number, status.last_refusal.unwrap().reason), (Some(1), Reason::Latency));
}

#[test]
fn a_model_that_proves_itself_stays() {
    let releases = Releases::new();
    let policy = releases.policy();
    let options = WindowOptions { time: Duration::from_millis(1), ..WindowOptions::default() };
    let watcher = releases.watch(&policy, WatchOptions { window: Some(options), ..patient() });
    releases.add(2, &network(2));
    watcher.check_now();
    let status = until(&watcher, |status| status.window.is_none());
    assert_eq!((status.serving.number, watcher.counts().superseded), (Some(2), 0));
}

#[test]
fn a_champion_is_watched_whatever_sources_and_other_releases_do() {
    let releases = Releases::new();
    let policy = releases.policy();
    let mut decider = policy.decider();
    let fail = || Err(SourceError { text: "the disk is away".to_owned() });
    let want = |number: u32| Ok(Some(Wanted { folder: releases.folder(number), number: Some(number), within: None }));
    releases.add(2, &overflowing());
    releases.add(3, &network(3));
    fs::write(releases.folder(3).join(ONNX_FILE), "damaged").unwrap();
    // The first look is the thread's own and finds what is served.
    let script = vec![want(1), want(2), fail(), want(2), want(2), want(3), want(3), Ok(None)];
    let watcher = Watcher::start(policy.clone(), Scripted(script), window(WindowOptions::default())).unwrap();
    until(&watcher, |status| status.wanted.is_some());
    assert_eq!(watcher.check_now().serving.number, Some(2));
    assert!(watcher.check_now().window.is_some());
    assert!(watcher.check_now().window.is_some());
    // Its files are touched.
    fs::write(releases.folder(2).join(SIGNATURE_FILE), "another").unwrap();
    assert!(watcher.check_now().window.is_some());
    // Another is wanted and refused.
    let status = watcher.check_now();
    assert_eq!(status.last_refusal.unwrap().reason, Reason::NetworkBytes);
    assert!(status.window.is_some() && watcher.counts().superseded == 0);
    assert!(decider.decide(&[1.0; WIDTH], &ALL).is_err());
    let status = until(&watcher, |status| status.window.is_none());
    assert_eq!((status.serving.number, watcher.counts().rolled_back(Reason::NonFinite)), (Some(1), 1));
}

#[test]
fn a_model_is_not_taken_back_for_deciding_where_the_one_before_it_could_not() {
    let releases = Releases::new();
    releases.add(2, &overflowing());
    let policy = releases.policy();
    let mut decider = policy.decider();
    let watcher = releases.watch(&policy, window(WindowOptions { min_states: 1, ..WindowOptions::default() }));
    assert_eq!(policy.status().champion.number, Some(2));
    releases.add(3, &network(3));
    assert_eq!(watcher.check_now().serving.number, Some(3));
    // The one before it overflows in this state.
    (0..100).for_each(|_| assert!(decider.decide(&[1.0; WIDTH], &ALL).is_ok()));
    until(&watcher, |status| status.window.is_none_or(|window| window.states >= 100));
    let window = watcher.check_now().window.unwrap();
    assert_eq!((window.model.number, window.states, window.disagreements), (Some(3), 100, 0));
}

#[test]
fn what_the_operator_rolled_back_does_not_come_back() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, window(WindowOptions::default()));
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().serving.number, Some(2));
    policy.roll_back().unwrap();
    for _ in 0..3 {
        let status = watcher.check_now();
        assert_eq!((status.serving.number, status.window), (Some(1), None));
    }
    releases.add(3, &network(3));
    assert_eq!(watcher.check_now().serving.number, Some(3));
}

#[test]
fn a_pinned_champion_stays_until_it_is_unpinned() {
    for options in [patient(), shadow(1)] {
        let comparing = options.shadow.is_some();
        let releases = Releases::new();
        let policy = releases.policy();
        let mut decider = policy.decider();
        let watcher = releases.watch(&policy, options);
        policy.pin();
        releases.add_again(2);
        let status = watcher.check_now();
        assert_eq!((status.serving.number, status.pending), (Some(1), Some(Pending::Pinned)));
        policy.unpin();
        watcher.check_now();
        if comparing {
            // Pinned in the midst of a comparison.
            policy.pin();
            decide(&mut decider, 10);
            until(&watcher, |status| status.shadow.is_none());
            let status = watcher.check_now();
            assert_eq!((status.serving.number, status.pending), (Some(1), Some(Pending::Pinned)));
            policy.unpin();
            watcher.check_now();
            until(&watcher, |status| {
                decide(&mut decider, 10);
                status.serving.number != Some(1)
            });
        }
        assert_eq!(watcher.status().serving.number, Some(2));
        assert!(watcher.status().last_refusal.is_none());
    }
}

#[test]
fn a_model_that_was_swapped_in_by_hand_stays_until_something_new_is_wanted() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, patient());
    policy.swap(manifests::release(&network(9)), None).unwrap();
    let by_hand = policy.status().champion;
    assert_eq!(watcher.check_now().serving, by_hand);
    // What is wanted is still the same after it was signed anew, and after a source that did not answer.
    fs::copy(releases.folder(1).join(SIGNATURE_FILE), releases.folder(1).join("new")).unwrap();
    fs::rename(releases.folder(1).join("new"), releases.folder(1).join(SIGNATURE_FILE)).unwrap();
    assert_eq!(watcher.check_now().serving, by_hand);
    let aside = releases.root().with_extension("aside");
    fs::rename(releases.root(), &aside).unwrap();
    assert_eq!(watcher.check_now().last_refusal.unwrap().reason, Reason::Source);
    fs::rename(&aside, releases.root()).unwrap();
    assert_eq!(watcher.check_now().serving, by_hand);
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().serving.number, Some(2));
}

#[test]
fn a_champion_that_changes_during_a_comparison_starts_it_anew() {
    let releases = Releases::new();
    let policy = releases.policy();
    let mut decider = policy.decider();
    let watcher = releases.watch(&policy, shadow(100));
    releases.add_again(2);
    assert!(watcher.check_now().shadow.is_some());
    let by_hand = manifests::release(&contrary(&network(1)));
    policy.swap(by_hand, Some(77)).unwrap();
    until(&watcher, |status| status.shadow.is_none());
    assert_eq!(watcher.check_now().shadow.unwrap().against.number, Some(77));
    until(&watcher, |status| {
        decide(&mut decider, 50);
        status.last_refusal.is_some()
    });
    assert_eq!(policy.status().champion.number, Some(77));
}

#[test]
fn signed_releases_are_believed_by_any_of_several_keys() {
    let releases = Releases::new();
    let policy = releases.policy();
    let watcher = releases.watch(&policy, WatchOptions { trusted: Some(trust(&[3, 1])), ..patient() });
    releases.add(2, &network(2));
    assert_eq!(watcher.check_now().serving.number, Some(2));
    let missing =
        open(&mut releases.source(), |_| contract(), &WatchOptions { trusted: Some(trust(&[3])), ..patient() });
    match missing.unwrap_err() {
        WatchError::Refused(refusal) => assert_eq!(refusal.reason, Reason::SignatureUntrusted),
        other => panic!("{other}"),
    }
}

#[test]
fn a_first_model_passes_the_same_checks() {
    let releases = Releases::new();
    let refuse =
        |contract: &Contract, options: &WatchOptions| match open(&mut releases.source(), |_| contract.clone(), options)
        {
            Err(WatchError::Refused(refusal)) => refusal.reason,
            other => panic!("{other:?}"),
        };
    let other = Contract { feature_spec: bellwether_artifact::Sha256::of(b"other"), ..contract() };
    assert_eq!(refuse(&other, &patient()), Reason::Features);
    assert_eq!(refuse(&contract(), &WatchOptions { max_bytes: 100, ..patient() }), Reason::TooLarge);
    let empty = tempfile::tempdir().unwrap();
    let mut source = FolderSource::releases(empty.path(), VersionPolicy::Latest);
    assert!(matches!(open(&mut source, |_| contract(), &patient()), Err(WatchError::Nothing { .. })));
}

/// Says what it is told to say.
struct Scripted(Vec<Result<Option<Wanted>, SourceError>>);

impl Source for Scripted {
    fn describe(&self) -> String {
        "a script".to_owned()
    }

    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError> {
        if self.0.len() > 1 { self.0.remove(0) } else { Ok(None) }
    }
}

#[test]
fn a_source_that_fails_is_asked_again() {
    let releases = Releases::new();
    let policy = releases.policy();
    let fail = || Err(SourceError { text: "the disk is away".to_owned() });
    let wanted = Wanted { folder: releases.folder(2), number: Some(2), within: None };
    releases.add(2, &network(2));
    let script = Scripted(vec![fail(), fail(), Ok(Some(wanted)), fail(), Ok(None)]);
    let watcher = Watcher::start(policy, script, patient()).unwrap();
    // The first look is the thread's own; whether it is over does not matter.
    until(&watcher, |status| status.last_refusal.is_some());
    let refusal = watcher.check_now().last_refusal.unwrap();
    assert_eq!((refusal.reason, refusal.text.as_str()), (Reason::Source, "the disk is away"));
    assert_eq!(watcher.counts().refused(Reason::Source), 1);
    assert_eq!(watcher.check_now().serving.number, Some(2));
    watcher.check_now();
    assert_eq!(watcher.counts().refused(Reason::Source), 2);
    assert_eq!(watcher.check_now().pending, Some(Pending::Nothing));
}

#[test]
fn models_beyond_the_limits_are_refused() {
    let releases = Releases::new();
    let (release, number) = open(&mut releases.source(), |_| contract(), &patient()).unwrap();
    let options = Options { limits: Limits { hidden_width: 16 }, ..sampling_all() };
    let policy = Policy::new(release, number, options).unwrap();
    let watcher = releases.watch(&policy, patient());
    releases.add(2, &nets::Draw(4).mlp(&[WIDTH, 17, 5]));
    assert_eq!(watcher.check_now().last_refusal.unwrap().reason, Reason::Limits);
    assert_eq!(policy.roll_back(), Err(PolicyError::NoPrevious));
}
