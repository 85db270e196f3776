//! The decision log as a file: what is in it, who may read it, what is left out and counted.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;

use std::fs;
use std::num::NonZeroU32;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use bellwether_inference::Policy;
use bellwether_inference::policy::Options;
use bellwether_inference::serve::{DecisionLog, DecisionLogConfig, DecisionLogError, Place, Rotation, put_aside};
use manifests::release;
use nets::{Draw, state_for};
use proptest::prelude::*;
use serde::Serialize;
use serde_json::Value;

const WIDTHS: [usize; 3] = [12, 16, 5];

/// Numbers as 32 bits write them.
fn shortest(value: &impl Serialize) -> Value {
    serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_line_is_the_decision_that_was_made(
        decisions in 0_usize..40,
        one_in in 1_u32..5,
        states in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let network = Draw(seed).mlp(&WIDTHS);
        let policy = Policy::new(release(&network), Some(3), Options::default()).unwrap();
        let config = DecisionLogConfig {
            one_in: NonZeroU32::new(one_in).unwrap(),
            states,
            rotation: Rotation { max_bytes: 4_096, keep: 100, ..Rotation::default() },
            ..DecisionLogConfig::new(folder.path().join("decisions.jsonl"))
        };
        let (log, writer) = DecisionLog::start(&config, policy.actions()).unwrap();
        let mut decider = policy.decider();
        let mut expected = Vec::new();
        for number in 0..decisions {
            let state = state_for(&network, seed ^ number as u64);
            let answer = decider.decide(&state, &[true; 5]).unwrap();
            let place = Place { episode: Some("sample \"7\""), window: Some(number as u64), ..Place::default() };
            log.record(place, &state, &answer);
            let decision = answer.decision;
            let line = serde_json::json!({
                "episode": "sample \"7\"",
                "window": number,
                "action": policy.actions()[decision.action],
                "action_number": decision.action,
                "q_values": shortest(&decision.q_values),
                "margin": shortest(&decision.margin),
                "certified": decision.certified,
                "bound": shortest(&decision.bound),
                "model_version": answer.model.version.to_string(),
                "model_number": 3,
                "role": "champion",
            });
            if number % one_in as usize == 0 {
                expected.push((line, states.then_some(state)));
            }
        }
        let counts = writer.finish(Duration::from_secs(60));
        prop_assert_eq!((counts.written, counts.dropped, counts.failed), (expected.len() as u64, 0, 0));
        let mut files = put_aside(&config.path).unwrap();
        files.push(config.path.clone());
        let mut lines = Vec::new();
        for file in &files {
            let data = fs::metadata(file).unwrap();
            prop_assert_eq!(data.permissions().mode() & 0o777, 0o600);
            let text = fs::read_to_string(file).unwrap();
            lines.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
        }
        prop_assert_eq!(lines.len(), expected.len());
        let mut before = String::new();
        for (mut line, (decision, state)) in lines.into_iter().zip(expected) {
            let object = line.as_object_mut().unwrap();
            let time = object.remove("time").unwrap().as_str().unwrap().to_owned();
            prop_assert!(time.ends_with('Z') && time.len() == "2026-11-21T10:15:00.000000Z".len() && time >= before);
            before = time;
            let logged = object.remove("state").map(|state| serde_json::from_value::<Vec<f32>>(state).unwrap());
            prop_assert_eq!(logged, state);
            prop_assert_eq!(line, decision);
        }
    }
}

/// A queue of one is full as soon as two decisions fall while the thread writes.
#[test]
fn a_full_queue_drops_and_counts_and_never_waits() {
    let folder = tempfile::tempdir().unwrap();
    let network = Draw(1).mlp(&WIDTHS);
    let policy = Policy::new(release(&network), None, Options::default()).unwrap();
    let config = DecisionLogConfig { queue: 1, states: true, ..DecisionLogConfig::new(folder.path().join("log")) };
    let (log, writer) = DecisionLog::start(&config, policy.actions()).unwrap();
    let mut decider = policy.decider();
    let state = state_for(&network, 1);
    let (mut recorded, started) = (0, Instant::now());
    while log.counts().dropped == 0 {
        assert!(started.elapsed() < Duration::from_secs(60), "a queue of one was never full");
        log.record(Place::default(), &state, &decider.decide(&state, &[true; 5]).unwrap());
        recorded += 1;
    }
    let counts = writer.finish(Duration::from_secs(60));
    assert_eq!(counts.written + counts.dropped + counts.failed, recorded);
    // After the end everything is dropped.
    log.record(Place::default(), &state, &decider.decide(&state, &[true; 5]).unwrap());
    assert_eq!(log.counts().dropped, counts.dropped + 1);
}

#[test]
fn limits_are_refused_before_a_file_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let config = DecisionLogConfig::new(folder.path().join("log"));
    for queue in [0, DecisionLogConfig::MAX_QUEUE + 1] {
        let refused = DecisionLog::start(&DecisionLogConfig { queue, ..config.clone() }, &[]);
        assert!(matches!(refused, Err(DecisionLogError::Queue { .. })));
    }
    let rotation = Rotation { keep: 0, ..Rotation::default() };
    assert!(matches!(
        DecisionLog::start(&DecisionLogConfig { rotation, ..config }, &[]),
        Err(DecisionLogError::File(_))
    ));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
