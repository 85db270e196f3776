//! Questions that have no answer in time: how long they hold the sample, and what becomes of the answer.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bellwether_env_adapter::Action;
use bellwether_sandbox::episode::Happening;
use bellwether_sandbox::stage::remote::proto::{
    ActRequest, FollowRequest, Order, Overdue, Question as Asked, act_response, record::What,
};
use bellwether_sandbox::stage::{Came, Close, LocalStage, Question};

use super::super::scripted::read_steps;
use super::super::{Paused, Rule, play};
use super::protocol::{Followed, Raw, action, announce};
use super::stages::{Busy, client, serve, setup, until};

/// How much longer than it may something may take on a busy machine.
const SLACK: u64 = 100;

fn overdue(raw: &Raw, followed: &mut Followed) -> Overdue {
    raw.find(followed, |what| if let What::Overdue(overdue) = what { Some(overdue) } else { None })
}

#[test]
fn a_question_without_an_answer_stands_open_as_long_as_the_order_says() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![3; 6], last: Some(Close::Time), ..Busy::default() });
    let (_server, path) = serve(folder.path(), stage.clone(), |_| {});
    let raw = Raw::connect(&path);
    let limit_ms = 30;
    raw.detonate(Order { answer_within_ms: limit_ms, ..announce(b"x") }, &[b"x"]).unwrap();
    let mut followed = raw.follow(0).unwrap();
    let (mut asked, mut told): (Vec<Asked>, Vec<Overdue>) = (Vec::new(), Vec::new());
    while told.len() < 6 {
        for record in raw.next(&mut followed).unwrap() {
            match record.what.unwrap() {
                What::Question(question) => asked.push(question),
                What::Overdue(overdue) => told.push(overdue),
                _ => {}
            }
        }
    }
    use Action::{Continue, RaiseIsolation, Terminate};
    let safe = [RaiseIsolation, RaiseIsolation, RaiseIsolation, Continue, Continue, Terminate];
    for ((question, overdue), action) in asked.iter().zip(&told).zip(safe) {
        assert_eq!(overdue.decision_id, format!("e1:1:{}", question.step));
        assert_eq!((overdue.action, overdue.limit_ms), (action as u32, limit_ms));
        let open_us = limit_ms * 1_000..limit_ms * 1_000 * SLACK;
        assert!(open_us.contains(&overdue.open_us), "{overdue:?}");
    }
    until("the end", || stage.ended.load(Ordering::Relaxed) == 1);
    let done: Vec<_> = stage.done.lock().unwrap().iter().map(|command| command.action).collect();
    assert_eq!(done, safe);
    // Whatever comes now is told what was done, also where it is the same.
    for (question, overdue) in asked.iter().zip(&told) {
        for late in [Continue, Action::Release, Terminate, Action::from_index(overdue.action as usize).unwrap()] {
            let answer = raw.act(action(question, late)).unwrap();
            assert_eq!(answer, act_response::Result::Overdue(overdue.clone()));
        }
    }
    assert_eq!(stage.done.lock().unwrap().len(), 6, "and changes nothing");
}

#[test]
fn an_answer_that_comes_too_late_leaves_its_step_to_the_safe_rule() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![4; 6], ..Busy::default() });
    // Long enough for the answers that are to be in time.
    let (_server, path) =
        serve(folder.path(), stage.clone(), |config| config.answer_within = Duration::from_millis(2_000));
    let remote = client(&path, Arc::new(Paused::default()));
    let mut judge = Rule(|question: &Question| {
        if question.step == 2 {
            until("the safe rule", || stage.done.lock().unwrap().len() == 3);
        }
        Ok(if question.close.is_last() { Action::Release } else { Action::Continue })
    });
    let (report, transitions, _) = play(&setup(folder.path(), b"x"), [&remote, &remote], &mut judge);
    let by: Vec<_> = report.decisions.iter().map(|decision| decision.safe_rule.as_deref()).collect();
    assert_eq!(by, [None, None, Some("the stage had no answer within 2000 ms"), None, None, None]);
    let late = &report.decisions[2];
    assert_eq!((late.action, late.level, late.level_after), (Action::RaiseIsolation, 0, 1));
    assert_eq!((late.q_values, late.margin, &late.model_version), (None, None, &None));
    // Report, steps, audit log and stage tell of the same.
    let done: Vec<_> = stage.done.lock().unwrap().iter().map(|command| command.action).collect();
    assert_eq!(report.decisions.iter().map(|decision| decision.action).collect::<Vec<_>>(), done);
    let steps: Vec<_> = read_steps(&report).iter().map(|row| row.played.unwrap()).collect();
    assert!(steps.iter().map(|played| played.action).eq(done.iter().map(|action| *action as u32)));
    assert!(steps.iter().map(|played| played.safe_rule).eq(by.iter().map(Option::is_some)));
    let decided: Vec<_> = transitions
        .iter()
        .filter_map(|transition| match &transition.happening {
            Happening::Decided { command, safe_rule } => Some((command.action, safe_rule.as_deref())),
            _ => None,
        })
        .collect();
    assert!(decided.iter().copied().eq(done.iter().copied().zip(by)));
    assert!(report.feedback.iter().all(|feedback| matches!(feedback.came, Came::Done { .. })), "{:?}", report.feedback);
    assert_eq!((report.safe_rule, report.strays, report.verdict), (1, 0, Some(Action::Release)));
    assert_eq!(report.partial, []);
}

#[test]
fn a_verdict_that_comes_too_late_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Arc::new(Busy { windows: vec![4], last: Some(Close::Windows), ..Busy::default() });
    let (_server, path) =
        serve(folder.path(), stage.clone(), |config| config.answer_within = Duration::from_millis(20));
    let remote = client(&path, Arc::new(Paused::default()));
    let mut judge = Rule(|_: &Question| {
        until("the safe rule", || stage.ended.load(Ordering::Relaxed) == 1);
        Ok(Action::Release)
    });
    let (report, _, _) = play(&setup(folder.path(), b"x"), [&remote, &remote], &mut judge);
    assert_eq!((report.verdict, report.safe_rule), (Some(Action::Terminate), 1));
    assert_eq!(report.partial, []);
}

#[test]
fn a_question_about_a_sample_that_has_ended_stands_open_for_the_lease() {
    let folder = tempfile::tempdir().unwrap();
    for answered in [true, false] {
        let folder = folder.path().join(format!("{answered}"));
        std::fs::create_dir(&folder).unwrap();
        let stage = Arc::new(Busy { windows: vec![3], ..Busy::default() });
        let lease = Duration::from_millis(1_500);
        let (_server, path) = serve(&folder, stage.clone(), |config| config.lease = lease);
        let raw = Raw::connect(&path);
        raw.detonate(Order { answer_within_ms: 10, ..announce(b"x") }, &[b"x"]).unwrap();
        let mut followed = raw.follow(0).unwrap();
        let question = raw.question(&mut followed);
        // Somebody is there, and says nothing to the question.
        let requests = followed.requests.clone();
        let beats = raw.runtime.spawn(async move {
            while requests.send(FollowRequest::default()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        if answered {
            std::thread::sleep(Duration::from_millis(200));
            let answer = raw.act(action(&question, Action::Release)).unwrap();
            assert!(matches!(answer, act_response::Result::Applied(_)), "{answer:?}");
        } else {
            let overdue = overdue(&raw, &mut followed);
            assert_eq!((overdue.action, overdue.limit_ms), (Action::Terminate as u32, 1_500));
        }
        until("the end", || stage.ended.load(Ordering::Relaxed) == 1);
        beats.abort();
    }
}

#[test]
fn a_real_sample_is_held_no_longer_than_its_question_may_stand_open() {
    let name = "a_real_sample_is_held_no_longer_than_its_question_may_stand_open";
    let folder = tempfile::tempdir().unwrap();
    let (_server, path) = serve(folder.path(), Arc::new(LocalStage), |_| {});
    let raw = Raw::connect(&path);
    let limit_ms = 25;
    let script = b"#!/bin/sh\nwhile :; do : < /etc/passwd; done\n";
    raw.detonate(Order { answer_within_ms: limit_ms, ..announce(script) }, &[script]).unwrap();
    let mut followed = raw.follow(0).unwrap();
    // When each question was asked and the event after it came, by the clock of the run.
    let (mut open, mut held, mut overdue) = (None, Vec::new(), 0);
    while held.len() < 8 {
        for record in raw.next(&mut followed).unwrap() {
            match record.what.unwrap() {
                What::Unstarted(unstarted) => {
                    eprintln!("skipped {name}: {}", unstarted.why);
                    return;
                }
                What::Question(question) => open = Some(question.time_ns),
                What::Overdue(_) => overdue += 1,
                What::Event(event) => {
                    held.extend(open.take().map(|asked| event.time_ns.unwrap() - asked));
                }
                What::Outcome(outcome) => panic!("{outcome:?}"),
                What::Feedback(_) => {}
            }
        }
    }
    let bound = limit_ms * 1_000_000..limit_ms * 1_000_000 * SLACK;
    assert!(held.iter().all(|held| bound.contains(held)), "{held:?} ns");
    assert!(overdue >= held.len(), "{overdue}");
    let late = ActRequest { decision_id: "e1:1:0".to_owned(), state_sha256: vec![0; 32], ..ActRequest::default() };
    let late = ActRequest { episode_id: "e1".to_owned(), stage: 1, ..late };
    let answer = raw.act(late).unwrap();
    assert!(matches!(answer, act_response::Result::Overdue(_)), "{answer:?}");
}
