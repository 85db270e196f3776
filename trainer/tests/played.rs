//! What is played is what is written: the rows of an episode file say what the network saw, chose and earned.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;

use bellwether_artifact::ModelVersion;
use bellwether_env_adapter::{ACTION_COUNT, Action, spec};
use bellwether_inference::Engine;
use bellwether_replay::episodes::{End, EpisodeReader, Expect, StepRow};
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::evaluate::{Outcome, Verdict};
use bellwether_trainer::learner::fused::Isa;
use bellwether_trainer::network::NetworkShape;
use bellwether_trainer::recorded::answers::AnswerModel;
use bellwether_trainer::recorded::playback::{Course, Learnt, Policy, play};
use bellwether_trainer::recorded::played::{PlayedFile, Player, Playing, write_played};
use bellwether_trainer::recorded::recordings::Recordings;
use cases::{config, record, recorded};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const SOURCE: &str = "sha256:00";

/// A file as it is read back.
struct Written {
    bytes: Vec<u8>,
    file: PlayedFile,
    policy: String,
    episodes: Vec<Vec<StepRow>>,
}

fn written(recordings: &Recordings, config: &TrainConfig, policy: Policy<'_>, cost: f32, course: Course) -> Written {
    let episodes: Vec<u32> = recordings.episodes().collect();
    let player = Player { model_version: ModelVersion::UNSEALED, target_fpr: 0.05, cost, course };
    let sources = [SOURCE.to_owned()];
    let playing = Playing { recordings, episodes: &episodes, policy, player, config, sources: &sources };
    let (bytes, file) = write_played(&playing, Vec::new()).unwrap();
    let spec_hash = spec::FeatureSpec::v1(config.window.clone()).hash_hex();
    let expect = Expect { spec_hash: &spec_hash, action_set: "1" };
    let mut reader = EpisodeReader::from_bytes(bytes.clone(), Some(expect)).unwrap();
    assert_eq!(reader.header().sources, sources);
    let policy = reader.header().policy.clone().unwrap();
    let (mut episodes, mut row) = (Vec::new(), StepRow::default());
    while reader.next(&mut row).unwrap() {
        if row.step == 0 {
            episodes.push(Vec::new());
        }
        episodes.last_mut().unwrap().push(row.clone());
    }
    Written { bytes, file, policy, episodes }
}

/// What the rows of an episode say became of it: verdict, events, windows and return.
fn reached(rows: &[StepRow], z: f32) -> (Verdict, u64, u32, f64) {
    let last = rows.last().unwrap();
    let convicted = Action::ALL[last.played.unwrap().action as usize].is_conviction();
    let reward = |row: &StepRow| {
        let played = row.played.unwrap();
        f64::from((1.0 - z) * played.r0 + z * played.r1)
    };
    let verdict = if convicted { Verdict::Malicious } else { Verdict::Benign };
    (verdict, last.events_seen, rows.len() as u32, rows.iter().map(reward).sum())
}

fn summary(outcome: &Outcome) -> (Verdict, u64, u32, f64) {
    (outcome.verdict(), outcome.events, outcome.windows, outcome.ret)
}

fn course() -> impl Strategy<Value = Course> {
    let soft = (0.01_f32..=1.0, any::<u64>()).prop_map(|(epsilon, seed)| Course::Soft { epsilon, seed });
    prop_oneof![Just(Course::Greedy), Just(Course::ToTheEnd), soft]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_rows_are_what_was_played(
        episodes in vec(recorded(), 1..8), seed in any::<u64>(), z in 0.0_f32..1.0, isolation in any::<bool>(),
        course in course(),
    ) {
        let config = config(isolation);
        let recordings = record(&episodes, &config);
        let shape = NetworkShape::new(vec![recordings.width(), 8, ACTION_COUNT]).unwrap();
        let parameters = shape.initial_parameters(&mut ChaCha8Rng::seed_from_u64(seed));
        let learnt = Learnt { shape: &shape, parameters: &parameters, isa: Isa::best() };
        let held = written(&recordings, &config, learnt.into(), z, course);
        let again = written(&recordings, &config, Learnt { isa: Isa::Scalar, ..learnt }.into(), z, course);
        prop_assert_eq!(&held.bytes, &again.bytes, "the same rows give the same bytes");
        let released = Engine::new(&shape.to_mlp(&parameters).unwrap(), Isa::best()).unwrap();
        let again = written(&recordings, &config, Policy::Released(&released), z, course);
        prop_assert_eq!(&held.bytes, &again.bytes, "a released model is played by the same numbers");
        let name = match course { Course::Greedy => "greedy", Course::ToTheEnd => "to_the_end", Course::Soft { .. } => "soft" };
        prop_assert!(held.policy.contains(name), "{}", held.policy);

        // Everything that could be played is there, under its name, and what could not is counted.
        let seen: Vec<u32> = recordings.episodes().filter(|e| recordings.store().episode(*e).len > 0).collect();
        let names: Vec<&str> = held.episodes.iter().map(|rows| rows[0].episode_id.as_str()).collect();
        prop_assert_eq!(names, seen.iter().map(|e| recordings.facts(*e).id.as_str()).collect::<Vec<_>>());
        let PlayedFile { written, without_window } = held.file;
        prop_assert_eq!(written.episodes, seen.len() as u64);
        prop_assert_eq!(written.steps, held.episodes.iter().flatten().count() as u64);
        prop_assert_eq!(written.episodes + without_window, recordings.episodes().len() as u64);

        let mut engine_scratch = None;
        let engine = Engine::new(&shape.to_mlp(&parameters).unwrap(), Isa::Scalar).unwrap();
        for (episode, rows) in seen.iter().zip(&held.episodes) {
            let facts = recordings.facts(*episode);
            for row in rows {
                let mut mask = [false; ACTION_COUNT];
                row.action_mask.write(&mut mask);
                // The state is the one that the network saw: another implementation gives the same q-values for it.
                prop_assert_eq!(row.state[spec::element::COST], spec::encode_cost(z));
                let scratch = engine_scratch.get_or_insert_with(|| engine.scratch());
                let decision = engine.decide(scratch, &row.state, &mask).unwrap();
                prop_assert_eq!(row.q_values.as_deref(), Some(decision.q_values));
                let waits = course == Course::ToTheEnd && mask[Action::Continue.index()];
                let action = if waits { Action::Continue.index() } else { decision.action };
                let played = row.played.unwrap();
                if let Course::Soft { epsilon, .. } = course {
                    let share = f64::from(epsilon) / mask.iter().filter(|allowed| **allowed).count() as f64;
                    let best = if played.action as usize == action { 1.0 - f64::from(epsilon) } else { 0.0 };
                    prop_assert!((f64::from(played.behaviour_probability) - share - best).abs() < 1e-6);
                } else {
                    prop_assert_eq!((played.action as usize, played.behaviour_probability), (action, 1.0));
                }
                prop_assert_eq!(row.label.as_deref(), Some(facts.label.name()));
            }
            let last = rows.last().unwrap();
            prop_assert_eq!((last.end, last.partial), (Some(End::Terminated), !facts.complete));
            if course == Course::ToTheEnd && rows.len() < recordings.store().episode(*episode).len as usize {
                let action = Action::ALL[last.played.unwrap().action as usize];
                prop_assert!(action.is_conviction(), "only a conviction leaves windows unseen");
            }
        }

        if course == Course::Greedy {
            let model = AnswerModel::new(&recordings, &config.reward, isolation);
            let outcomes = play(&model, learnt.into(), &seen, z).unwrap();
            let reached: Vec<_> = held.episodes.iter().map(|rows| reached(rows, z)).collect();
            prop_assert_eq!(reached, outcomes.iter().map(summary).collect::<Vec<_>>());
        }
    }
}
