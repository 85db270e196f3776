//! Properties of the reward.

use bellwether_env_adapter::reward::{HarmWeights, RewardConfig, RewardError, Situation, WindowCosts};
use bellwether_env_adapter::{Action, Label};
use proptest::prelude::*;

fn config() -> impl Strategy<Value = RewardConfig> {
    let charges = prop::array::uniform8(0.0_f32..0.1);
    let verdicts = prop::array::uniform5(0.1_f32..2.0);
    (charges, verdicts).prop_map(|(charges, verdicts)| RewardConfig {
        window_cost: charges[0],
        time_share_r1: charges[6] * 10.0,
        stage2_window_cost: charges[0] + charges[1],
        isolation_window_cost: charges[2],
        raise_cost: charges[3],
        breakage_per_event: charges[4],
        breakage_ceiling: charges[5],
        quarantine_bonus: charges[6],
        quarantine_cost: charges[7],
        true_positive: verdicts[0],
        true_negative: verdicts[1],
        false_positive: verdicts[2],
        false_negative: verdicts[3],
        harm_ceiling: verdicts[4],
        harm: HarmWeights::default(),
    })
}

/// What one more window costs where a false positive costs nothing.
fn charge(config: &RewardConfig, label: Label, level: u8, window: &WindowCosts) -> f32 {
    -config.window_parts(label, level, window).r0
}

fn costs() -> impl Strategy<Value = WindowCosts> {
    (1_u8..3, prop::array::uniform4(0.0_f32..3.0), 0.0_f32..10.0, prop::array::uniform4(0.0_f32..1.0)).prop_map(
        |(stage, mut harm, harm_before, mut breakage)| {
            harm.sort_by(|a, b| b.total_cmp(a));
            breakage.sort_by(f32::total_cmp);
            WindowCosts { stage, harm, harm_before, breakage }
        },
    )
}

fn label() -> impl Strategy<Value = Label> {
    prop::sample::select(vec![Label::Benign, Label::Malicious])
}

fn situation<'a>(label: Label, level: u8, next: Option<&'a WindowCosts>, harm: (f32, f32)) -> Situation<'a> {
    Situation { label, level, next, next_stage: None, harm_so_far: harm.0, harm_to_come: harm.1 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_right_verdict_earns_and_a_wrong_one_is_charged(
        config in config(), label in label(), level in 0_u8..4, harm in (0.0_f32..9.0, 0.0_f32..9.0), z in 0.001_f32..0.999,
    ) {
        prop_assert_eq!(config.validate(), Ok(()));
        let situation = situation(label, level, None, harm);
        for action in [Action::Release, Action::Terminate, Action::Quarantine] {
            let reward = config.answer(&situation, action).unwrap().at(z);
            prop_assert!(reward.is_finite());
            if action.is_conviction() == (label == Label::Malicious) {
                prop_assert!(reward > 0.0, "{action:?} of {label:?} earns {reward}");
            } else {
                prop_assert!(reward < 0.0, "{action:?} of {label:?} earns {reward}");
            }
        }
        prop_assert_eq!(config.answer(&situation, Action::Continue), None);
        prop_assert_eq!(config.answer(&situation, Action::RaiseIsolation), None);
    }

    #[test]
    fn r1_holds_false_positives_and_time_alone(
        config in config(), label in label(), level in 0_u8..4, next in costs(), harm in (0.0_f32..9.0, 0.0_f32..9.0),
    ) {
        let situation = situation(label, level, Some(&next), harm);
        for action in Action::ALL {
            let Some(parts) = config.answer(&situation, action) else {
                prop_assert!(action == Action::RaiseIsolation && level == 3);
                continue;
            };
            let false_positive = label == Label::Benign && action.is_conviction();
            if action.is_verdict() {
                prop_assert_eq!(parts.r1 < 0.0, false_positive);
            } else {
                let time = config.window_cost.max(config.stage2_window_cost) + 3.0 * config.isolation_window_cost;
                prop_assert!((-time..=0.0).contains(&parts.r1), "time alone: {}", parts.r1);
            }
            prop_assert!(!false_positive || parts.r0 == 0.0);
            prop_assert_eq!(parts.at(0.0), parts.r0);
            prop_assert_eq!(parts.at(1.0), parts.r1);
        }
    }

    #[test]
    fn more_harm_never_pays(
        config in config(), level in 0_u8..4, next in costs(), more in 0.0_f32..5.0, harm in (0.0_f32..9.0, 0.0_f32..9.0),
    ) {
        let worse = WindowCosts { harm: next.harm.map(|harm| harm + more), ..next };
        for action in [Action::Continue, Action::RaiseIsolation, Action::Release] {
            let mild = config.answer(&situation(Label::Malicious, level, Some(&next), harm), action);
            let bad = config.answer(&situation(Label::Malicious, level, Some(&worse), (harm.0, harm.1 + more)), action);
            if let (Some(mild), Some(bad)) = (mild, bad) {
                prop_assert!(bad.r0 <= mild.r0 + 1e-6, "{action:?}: {} after {}", bad.r0, mild.r0);
            }
        }
        let higher = charge(&config, Label::Malicious, 3, &next) - 3.0 * config.isolation_window_cost;
        let lower = charge(&config, Label::Malicious, 0, &next);
        prop_assert!(higher <= lower + 1e-5);
    }

    #[test]
    fn the_harm_of_an_episode_is_bounded_however_it_is_cut(config in config(), harms in prop::collection::vec(0.0_f32..1.0, 0..60)) {
        let mut before = 0.0;
        let mut charged = 0.0;
        for harm in &harms {
            let window = WindowCosts { stage: 1, harm: [*harm; 4], harm_before: before, breakage: [0.0; 4] };
            charged += charge(&config, Label::Malicious, 0, &window) - config.window_cost;
            before += harm;
        }
        prop_assert!((charged - config.charged_harm(before)).abs() < 1e-3);
        prop_assert!(charged <= config.harm_ceiling + 1e-3);
    }
}

#[test]
fn a_missed_sample_at_the_end_is_the_worst_that_can_happen() {
    let config = RewardConfig::default();
    let harm = [0.3_f32; 10];
    let window = |at: usize| WindowCosts { stage: 1, harm: [0.3; 4], harm_before: 0.3 * at as f32, breakage: [0.0; 4] };
    let play = |steps: usize, action: Action| {
        let waited: f32 = (1..=steps).map(|at| -charge(&config, Label::Malicious, 0, &window(at))).sum();
        let so_far: f32 = harm[..=steps].iter().sum();
        let rest: f32 = harm[steps + 1..].iter().sum();
        waited + config.answer(&situation(Label::Malicious, 0, None, (so_far, rest)), action).unwrap().at(0.0)
    };
    let worst = play(9, Action::Release);
    for steps in 0..9 {
        assert!(play(steps, Action::Terminate) > play(steps + 1, Action::Terminate), "stopping earlier pays");
        assert!(play(steps, Action::Release) > worst, "an early miss costs less time than a late one");
    }
    assert!(play(9, Action::Terminate) > play(0, Action::Release), "late is better than never");
    assert!((-4.5..0.0).contains(&worst), "{worst}");
}

#[test]
fn a_release_into_the_next_stage_is_no_verdict() {
    let config = RewardConfig::default();
    let next = WindowCosts { stage: 2, ..WindowCosts::default() };
    for label in [Label::Benign, Label::Malicious] {
        let situation = Situation { next_stage: Some(&next), ..situation(label, 2, None, (1.0, 1.0)) };
        let parts = config.answer(&situation, Action::Release).unwrap();
        assert_eq!(parts.r0, -config.stage2_window_cost);
    }
}

#[test]
fn wrong_weights_are_named() {
    let cases: [(&str, RewardConfig); 5] = [
        ("window_cost", RewardConfig { window_cost: -0.1, ..RewardConfig::default() }),
        ("true_positive", RewardConfig { true_positive: 0.0, ..RewardConfig::default() }),
        ("harm_ceiling", RewardConfig { harm_ceiling: f32::NAN, ..RewardConfig::default() }),
        ("stage2_window_cost", RewardConfig { stage2_window_cost: 0.0, ..RewardConfig::default() }),
        (
            "harm.kib_sent",
            RewardConfig {
                harm: HarmWeights { kib_sent: f32::INFINITY, ..HarmWeights::default() },
                ..RewardConfig::default()
            },
        ),
    ];
    assert_eq!(RewardConfig::default().validate(), Ok(()));
    for (expected, config) in cases {
        let Err(RewardError::Weight { key, .. }) = config.validate() else { panic!("{expected} is accepted") };
        assert_eq!(key, expected);
    }
}
