//! Threads decide while a watcher swaps a thousand released models in: no decision fails, and each is that of a known model.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failed set-up is a failed test, and its files need not outlive a power cut"
)]

mod manifests;
mod nets;
mod over;
mod released;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use bellwether_artifact::ModelVersion;
use bellwether_inference::model::Mlp;
use bellwether_inference::policy::{ModelId, Options, Sampling};
use bellwether_inference::watch::{FolderSource, VersionPolicy, WatchOptions, Watcher, WindowOptions, open};
use bellwether_inference::{Decider, Engine, Isa, Policy};
use nets::{Draw, state_for};
use over::Over;
use released::{ALL, Releases, WIDTH, contract, patient, trust};

const SWAPS: u32 = 1_000;
const THREADS: usize = 4;

/// What each model answers in each state: action and q-values, as bits, of the certified and of the exact kernel.
type Expected = BTreeMap<ModelVersion, Vec<(usize, [Vec<u32>; 2])>>;

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn answers(mlp: &Mlp, states: &[Vec<f32>]) -> Vec<(usize, [Vec<u32>; 2])> {
    let engine = Engine::new(mlp, Isa::best()).unwrap().with_precision(Options::default().precision);
    let mut scratch = engine.scratch();
    let mut answer = |state: &Vec<f32>| {
        let exact = bits(engine.decide_exactly(&mut scratch, state, &ALL).unwrap().q_values);
        let decision = engine.decide(&mut scratch, state, &ALL).unwrap();
        (decision.action, [bits(decision.q_values), exact])
    };
    states.iter().map(&mut answer).collect()
}

/// Decides until told to stop. Returns how many decisions there were, and how often another model decided than before.
fn work(decider: &mut Decider, states: &[Vec<f32>], expected: &Expected, done: &AtomicBool) -> (u64, u64) {
    let (mut decisions, mut seen, mut last) = (0_u64, 0, None::<ModelId>);
    while !done.load(Ordering::Relaxed) {
        let index = decisions as usize % states.len();
        let answer = decider.decide(&states[index], &ALL).unwrap();
        let (action, q_values) = &expected[&answer.model.version][index];
        let found = bits(answer.decision.q_values);
        assert!(answer.decision.action == *action && q_values.contains(&found), "{:?}", answer.model);
        seen += u64::from(last.replace(answer.model) != Some(answer.model));
        decisions += 1;
    }
    (decisions, seen)
}

#[test]
fn a_thousand_reloads_under_load_fail_no_decision_and_leave_no_model_behind() {
    let hidden: [&[usize]; 4] = [&[20], &[33], &[20, 20], &[7, 7, 7]];
    let networks: Vec<Mlp> =
        hidden.iter().zip(1..).map(|(hidden, seed)| Draw(seed).mlp(&[&[WIDTH], *hidden, &[5]].concat())).collect();
    let states: Vec<Vec<f32>> = (0..16).map(|seed| state_for(&networks[0], seed)).collect();
    let releases = Releases(tempfile::tempdir().unwrap());
    let mut expected = Expected::new();
    for (number, mlp) in (1..).zip(&networks) {
        expected.insert(releases.add(number, mlp), answers(mlp, &states));
    }
    assert_eq!(expected.len(), networks.len());
    // A name moves from release to release.
    let point_to = |number: u32| {
        let (new, name) = (releases.root().join("new"), releases.root().join("champion"));
        symlink(releases.folder(number).file_name().unwrap(), &new).unwrap();
        fs::rename(new, name).unwrap();
    };
    point_to(1);
    let mut source = FolderSource::releases(releases.root(), VersionPolicy::Name("champion".to_owned()));
    // With everything on: signatures, states set aside, and each model watched after its swap; any disagreement is fine.
    let window = WindowOptions { max_disagreement: 1.0, ..WindowOptions::default() };
    let options = WatchOptions { trusted: Some(trust(&[1])), window: Some(window), ..patient() };
    let (release, number) = open(&mut source, |_| contract(), &options).unwrap();
    let sampling = Sampling { every: 16, capacity: 8 };
    let policy = Policy::new(release, number, Options { sampling, ..Options::default() }).unwrap();
    let watcher = Watcher::start(policy.clone(), source, options).unwrap();
    let done = AtomicBool::new(false);

    let (decisions, seen) = thread::scope(|scope| {
        let over = Over(&done);
        let workers: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut decider = policy.decider();
                let (states, expected, done) = (&states, &expected, &done);
                scope.spawn(move || work(&mut decider, states, expected, done))
            })
            .collect();
        for swap in 1..=SWAPS {
            let number = swap % networks.len() as u32 + 1;
            point_to(number);
            assert_eq!(watcher.check_now().serving.number, Some(number));
        }
        drop(over);
        let results = workers.into_iter().map(|worker| worker.join().unwrap());
        results.fold((0, 0), |(decisions, seen), (more, models)| (decisions + more, seen + models))
    });

    let counts = watcher.counts();
    assert_eq!(counts.swapped, u64::from(SWAPS));
    assert_eq!(counts.reloads()[2..], [], "{counts:?}");
    assert!(counts.window_states > 0 && seen > THREADS as u64, "{counts:?}, {seen} models seen");
    drop(watcher);
    policy.reap();
    let (status, metrics) = (policy.status(), policy.metrics());
    // The champion and the one before it.
    assert_eq!((status.models_resident, status.deciders, status.swaps), (2, 0, u64::from(SWAPS)));
    let counted: u64 = metrics.models.iter().map(|(_, tally)| tally.total()).sum();
    assert_eq!(counted + metrics.earlier.total(), decisions);
    assert!(metrics.refusals.iter().all(|(_, count)| *count == 0), "{metrics:?}");
}
