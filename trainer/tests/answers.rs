//! The decision process is written twice: as an environment that is played, and as answers that are learnt from. Both say
//! the same about every action in every window.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod cases;

use bellwether_env_adapter::recorded::Collector;
use bellwether_env_adapter::{Action, Windower};
use bellwether_trainer::evaluate::{Stop, Verdict};
use bellwether_trainer::recorded::answers::{AnswerModel, Place};
use bellwether_trainer::recorded::playback::stop_at;
use cases::{config, record, recorded, tell};
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_learnt_is_what_is_played(
        episodes in vec(recorded(), 1..8), z in 0.0_f32..1.0, isolation: bool, harm in 0.0_f32..2.0,
    ) {
        let mut config = config(isolation);
        // The calls name no file, so what is sent is the harm that they do.
        config.reward.harm.kib_sent = harm;
        let learnt = record(&episodes, &config);
        let mut windower = Windower::new(&config.window, &config.reward, Collector::new());
        tell(&episodes, &mut windower).unwrap();
        let played = windower.into_sink().into_recordings();
        let rows: usize = learnt.episodes().map(|episode| learnt.store().episode(episode).len as usize).sum();
        prop_assert_eq!(rows, played.window_count());

        let model = AnswerModel::new(&learnt, &config.reward, isolation);
        for episode in learnt.episodes() {
            let stored = learnt.store().episode(episode);
            for row in stored.first_row..stored.first_row + stored.len {
                for level in 0..if isolation { 4 } else { 1 } {
                    let (place, window) = (Place { episode, row, level }, row as usize);
                    let mask = model.mask(place);
                    prop_assert_eq!(mask, played.mask(window, level, isolation));
                    for (action, _) in mask.iter().enumerate().filter(|(_, allowed)| **allowed) {
                        let ours = model.outcome(place, action, z);
                        let theirs = played.answer(&config.reward, window, level, Action::ALL[action]).unwrap();
                        let next = theirs.next.map(|next| (next as u32, theirs.next_level));
                        prop_assert_eq!(ours.next.map(|next| (next.row, next.level)), next);
                        // One adds up the harm to come from the end, the other takes it from the whole.
                        prop_assert!((ours.parts.r0 - theirs.parts.r0).abs() < 1e-5, "{ours:?} {theirs:?}");
                        prop_assert_eq!(ours.parts.r1, theirs.parts.r1);
                        prop_assert_eq!(ours.reward, ours.parts.at(z));
                    }
                }
            }
        }
    }
    #[test]
    fn a_rule_stops_where_it_says_in_either_stage(
        episodes in vec(recorded(), 1..8), share in 0.0_f64..1.0, verdict in prop_oneof![Just(Verdict::Benign), Just(Verdict::Malicious)],
    ) {
        let config = config(false);
        let recordings = record(&episodes, &config);
        let model = AnswerModel::new(&recordings, &config.reward, false);
        for episode in recordings.episodes() {
            let stored = recordings.store().episode(episode);
            let Some(last) = stored.len.checked_sub(1) else { continue };
            let window = (share * f64::from(stored.len)) as u32;
            let outcome = stop_at(&model, episode, Stop { window, verdict }, Action::Terminate, 0.5);
            prop_assert_eq!(outcome.verdict(), verdict);
            let released_before = |row: u32| recordings.window(row).costs.stage < recordings.window(stored.first_row + last).costs.stage;
            let row = stored.first_row + window;
            // What is released in the first stage is released again in the first window of the second.
            let expected = match verdict {
                Verdict::Benign if released_before(row) => outcome.windows,
                _ => window + 1,
            };
            prop_assert_eq!(outcome.windows, expected);
            if expected == window + 1 {
                prop_assert_eq!(outcome.events, recordings.window(row).events_seen);
            }
        }
    }
}
