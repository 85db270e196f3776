//! Who vanishes, and what becomes of the sample.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwether_env_adapter::Action;
use bellwether_sandbox::episode::{Clock, Partial};
use bellwether_sandbox::stage::{Fault, LocalStage, Question};

use super::super::{Paused, Rule, play, sealed};
use super::stages::{Busy, client, serve, setup, until};

fn on(question: &Question) -> Action {
    if question.close.is_last() { Action::Release } else { Action::Continue }
}

#[test]
fn a_stage_that_never_answers_is_tried_after_one_two_and_four_seconds() {
    let folder = tempfile::tempdir().unwrap();
    let remote = client(&folder.path().join("nobody.sock"), Arc::new(Paused::default()));
    let (report, _, pauses) =
        play(&setup(folder.path(), b"x"), [&remote, &remote], &mut Rule(|question: &Question| Ok(on(question))));
    assert_eq!(pauses, [1_000, 2_000, 4_000]);
    assert!(matches!(&report.partial[..], [Partial::Unstarted { attempts: 4, .. }]), "{:?}", report.partial);
}

/// Ends a server at the first pause, and so on: something happens each time somebody waits.
struct At<F>(Mutex<F>);

impl<F: FnMut() + Send> Clock for At<F> {
    fn sleep(&self, _: Duration) {
        (self.0.lock().unwrap())();
    }
}

#[test]
fn a_stage_that_dies_in_mid_run_is_lost_and_what_it_told_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![10; 50], ..Busy::default() });
    let (server, path) = serve(folder.path(), stage.clone(), |_| {});
    let clock = Arc::new(Paused::default());
    let remote = client(&path, clock.clone());
    let setup = setup(folder.path(), b"x");
    let mut server = Some(server);
    let mut judge = Rule(|question: &Question| {
        if question.step == 20 {
            drop(server.take());
        }
        Ok(on(question))
    });
    let (report, _, _) = play(&setup, [&remote, &remote], &mut judge);
    assert_eq!(report.verdict, None, "nobody has seen the end");
    assert!(report.partial.contains(&Partial::Stage { stage: 1 }), "{:?}", report.partial);
    assert_eq!(report.files.unwrap().events, 21 * 10);
    assert_eq!(stage.ended.load(Ordering::Relaxed), 1, "the sample does not run on");
}

#[test]
fn a_sample_whose_controller_vanishes_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    // One that waits for an answer, one that makes events without end, one that does nothing.
    for (case, stage) in [
        ("waits", Busy { windows: vec![1; 100_000], ..Busy::default() }),
        ("fills", Busy { windows: vec![100_000_000], ..Busy::default() }),
        ("sleeps", Busy { windows: vec![5], lingers: true, ..Busy::default() }),
    ] {
        let (stage, folder) = (Arc::new(stage), folder.path().join(case));
        std::fs::create_dir(&folder).unwrap();
        let (server, path) = serve(&folder, stage.clone(), |config| config.lease = Duration::from_millis(200));
        vanishing(&path);
        until("the end of the sample", || stage.ended.load(Ordering::Relaxed) == 1);
        assert_eq!(server.runs().0, 0, "{case}");
        assert!(stage.told.load(Ordering::Relaxed) <= 20_000, "{case}: it was held back until then");
    }
}

/// Orders a run, follows it for a moment without acknowledging anything, and is gone.
fn vanishing(path: &std::path::Path) {
    use super::protocol::{Raw, announce};
    let raw = Raw::connect(path);
    raw.detonate(announce(b"x"), &[b"x"]).unwrap();
}

#[test]
fn a_real_sample_whose_controller_vanishes_is_killed() {
    let name = "a_real_sample_whose_controller_vanishes_is_killed";
    let folder = tempfile::tempdir().unwrap();
    let (server, path) = serve(folder.path(), Arc::new(LocalStage), |config| {
        config.lease = Duration::from_millis(500);
    });
    use super::protocol::{Raw, announce};
    let raw = Raw::connect(&path);
    let script = b"#!/bin/sh\nsleep 1000\n";
    raw.detonate(announce(script), &[script]).unwrap();
    until("the end of the sample", || server.runs().0 == 0);
    // Whoever comes late is told how it ended.
    let last = raw.last();
    if let Err(why) = last {
        eprintln!("skipped {name}: {why}");
        return;
    }
    let outcome = last.unwrap();
    assert!(outcome.dead != 0, "it is shown that nothing lives");
    let fault = outcome.faults[0].fault.clone();
    use bellwether_sandbox::stage::remote::proto::fault::Fault as Told;
    assert!(matches!(fault, Some(Told::Abandoned(_))), "{fault:?}");
}

#[test]
fn a_policy_that_goes_and_comes_back_leaves_its_windows_to_the_safe_rule() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![4; 12], ..Busy::default() });
    let (_server, path) = serve(folder.path(), stage, |_| {});
    let remote = client(&path, Arc::new(Paused::default()));
    let mut judge = Rule(|question: &Question| match question.step {
        3..6 => Err(bellwether_sandbox::episode::Away::Gone),
        _ => Ok(on(question)),
    });
    let (report, _, _) = play(&setup(folder.path(), b"x"), [&remote, &remote], &mut judge);
    assert_eq!((report.safe_rule, report.verdict), (3, Some(Action::Release)));
    let levels: Vec<_> = report.decisions.iter().map(|decision| decision.level_after).collect();
    assert_eq!(levels, [0, 0, 0, 1, 2, 3, 3, 3, 3, 3, 3, 3]);
    assert!(report.partial.is_empty());
}

#[test]
fn an_order_waits_for_its_stage_to_come_up() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![4; 3], ..Busy::default() });
    let remote = client(&folder.path().join("stage.sock"), Arc::new(Paused::default()));
    let servers = Mutex::new(Vec::new());
    let (at, path) = (stage.clone(), folder.path());
    let clock = At(Mutex::new(|| servers.lock().unwrap().push(serve(path, at.clone(), |_| {}).0)));
    let report = bellwether_sandbox::episode::run(
        &setup(folder.path(), b"x"),
        bellwether_sandbox::episode::Episode {
            stages: [&remote, &remote],
            judge: &mut Rule(|question: &Question| Ok(on(question))),
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: Vec::new(),
            clock: &clock,
            stop: &std::sync::atomic::AtomicBool::new(false),
        },
    )
    .unwrap();
    assert_eq!((report.verdict, servers.lock().unwrap().len()), (Some(Action::Release), 1));
    assert_eq!(stage.files.lock().unwrap()[..], [b"x".to_vec()]);
}

#[test]
fn an_episode_that_is_told_to_stop_has_its_sample_killed() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![5], lingers: true, ..Busy::default() });
    let (_server, path) = serve(folder.path(), stage.clone(), |_| {});
    let remote = client(&path, Arc::new(Paused::default()));
    let stop = std::sync::atomic::AtomicBool::new(false);
    let report = bellwether_sandbox::episode::run(
        &setup(folder.path(), b"x"),
        bellwether_sandbox::episode::Episode {
            stages: [&remote, &remote],
            judge: &mut Rule(|question: &Question| {
                stop.store(true, Ordering::Relaxed);
                Ok(on(question))
            }),
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: Vec::new(),
            clock: &Paused::default(),
            stop: &stop,
        },
    )
    .unwrap();
    assert_eq!((report.verdict, stage.ended.load(Ordering::Relaxed)), (None, 1));
    let faults = &report.outcomes[0].faults;
    assert!(matches!(&faults[..], [Fault::Abandoned { why }] if why.contains("told to stop")), "{faults:?}");
    assert_eq!(report.files.unwrap().events, 5);
}
