//! Networks that tell quantiles, trained on recordings.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use bellwether_env_adapter::{ACTION_COUNT, Action, EpisodeAttributes, EpisodeId, Event, EventKind, EventSink, Label};
use bellwether_replay::SampledRows;
use bellwether_trainer::config::TrainConfig;
use bellwether_trainer::learner::fused::{Forward, FusedOptions, Isa};
use bellwether_trainer::network::{NetworkShape, Returns};
use bellwether_trainer::recorded::answers::AnswerModel;
use bellwether_trainer::recorded::playback::{Doubting, Learnt, Policy, play};
use bellwether_trainer::recorded::recordings::{Recorder, Recordings};
use bellwether_trainer::recorded::training::Training;

const QUANTILES: usize = 8;
/// The cost as the network sees it, of `c = 1`.
const Z: f32 = 0.5;

fn config(returns: Returns) -> TrainConfig {
    let mut config = TrainConfig { seed: 7, ..TrainConfig::default() };
    config.window.max_events = 4;
    config.network.hidden = vec![16];
    config.network.returns = returns;
    let trainer = &mut config.trainer;
    (trainer.updates, trainer.batch_size, trainer.learning_rate) = (800, 64, 3e-3);
    (trainer.huber, trainer.l2, trainer.dropout) = (0.05, 0.0, Vec::new());
    (trainer.call_dropout, trainer.bare_dropout) = (0.0, 0.0);
    (config.cost.minimum, config.cost.maximum, config.cost.grid_points) = (0.999, 1.001, 2);
    config.calibration.folds = 2;
    config
}

/// Runs whose first window is always the same, one in four of them malicious; the second window tells each from all others, and
/// of the class nothing.
fn coins(config: &TrainConfig) -> Recordings {
    let mut recorder = Recorder::new(&config.window, &config.reward, 1 << 20).unwrap();
    for number in 0..64_u32 {
        recorder
            .begin(&EpisodeAttributes {
                episode_id: EpisodeId(format!("episode-{number}")),
                label: Some(if number % 4 == 3 { Label::Malicious } else { Label::Benign }),
                family: Some(format!("family-{number}")),
                source: None,
                sample_sha256: None,
                complete: true,
            })
            .unwrap();
        for seq in 0..8_u32 {
            let mixed = number.wrapping_mul(2_654_435_761) >> (seq * 2);
            let call = if seq < 4 { "read" } else { ["openat", "write", "lseek", "mmap"][mixed as usize % 4] };
            recorder.event(&Event::named(u64::from(seq), EventKind::Syscall, call)).unwrap();
        }
        recorder.end(true).unwrap();
    }
    recorder.finish()
}

fn trained(recordings: &Recordings, config: &TrainConfig) -> (NetworkShape, Vec<f32>) {
    config.validate().unwrap();
    let episodes: Vec<u32> = recordings.episodes().collect();
    let mut training =
        Training::new(recordings, &episodes, config, Isa::best(), FusedOptions::default().into()).unwrap();
    while !training.is_finished() {
        training.round().unwrap();
    }
    let shape = config.network.shape(recordings.width(), ACTION_COUNT).unwrap();
    (shape, training.released().to_vec())
}

#[test]
fn quantiles_are_those_of_what_the_recordings_answer() {
    let config = config(Returns::Quantiles(QUANTILES));
    let recordings = coins(&config);
    let (shape, parameters) = trained(&recordings, &config);
    let model = AnswerModel::new(&recordings, &config.reward, false);
    let first = model.start(0).unwrap();
    let states = SampledRows::new(recordings.store().states(), std::slice::from_ref(&first.row));
    let z = [bellwether_env_adapter::spec::encode_cost(Z)];
    let element = [bellwether_env_adapter::spec::element::COST as u16];
    let states = states.with_overlay(&element, &z);
    let (mut q, mut atoms) = (Vec::new(), Vec::new());
    let mut forward = Forward::new(shape.clone(), Isa::best()).unwrap();
    forward.q_values_and_atoms(&parameters, &states, &mut q, &mut atoms).unwrap();

    let convict = Action::Terminate.index();
    let earned = |malicious: bool| {
        let label = if malicious { Label::Malicious } else { Label::Benign };
        let episode = recordings.episodes().find(|episode| recordings.facts(*episode).label == label).unwrap();
        model.outcome(model.start(episode).unwrap(), convict, Z).reward
    };
    for (k, told) in atoms[convict * QUANTILES..(convict + 1) * QUANTILES].iter().enumerate() {
        // Both classes are drawn alike, however many episodes each has: the lower half are wrong convictions.
        let exact = earned(2 * k >= QUANTILES);
        assert!((told - exact).abs() < 0.1, "quantile {k}: {told}, not {exact}");
    }
    let mut before = f32::NEG_INFINITY;
    for lowest in 1..=QUANTILES {
        let (shape, parameters) = NetworkShape::from_mlp(&shape.to_cautious_mlp(&parameters, lowest).unwrap()).unwrap();
        Forward::new(shape, Isa::best()).unwrap().q_values(&parameters, &states, &mut q).unwrap();
        assert!(q[convict] >= before - 1e-5, "the mean of the lowest {lowest} is below that of fewer");
        before = q[convict];
    }
}

#[test]
fn doubt_takes_off_what_networks_disagree_by() {
    let config = config(Returns::Mean);
    let recordings = coins(&config);
    let episodes: Vec<u32> = recordings.episodes().collect();
    let model = AnswerModel::new(&recordings, &config.reward, false);
    let shape = NetworkShape::new(vec![recordings.width(), ACTION_COUNT]).unwrap();
    // Networks of constants: whatever the state, an action is worth so much by each of the two.
    let network = |of: [(Action, f32); 2]| {
        let mut parameters = vec![0.0; shape.parameter_count()];
        let bias = shape.layers().last().unwrap().bias.start;
        parameters[bias..].fill(-9.0);
        of.iter().for_each(|(action, value)| parameters[bias + action.index()] = *value);
        parameters
    };
    // `terminate` is better in the mean, 1.5 to 1, and doubtful by 1.
    let members = [
        network([(Action::Terminate, 2.5), (Action::Release, 1.0)]),
        network([(Action::Terminate, 0.5), (Action::Release, 1.0)]),
    ];
    let convicted = |policy: Policy<'_>| {
        play(&model, policy, &episodes, Z).unwrap().iter().filter(|outcome| outcome.is_convicted()).count()
    };
    let doubting =
        |doubt| convicted(Policy::Doubting(Doubting { shape: &shape, members: &members, doubt, isa: Isa::best() }));
    assert_eq!((doubting(0.0), doubting(0.4), doubting(0.6)), (64, 64, 0));
    let alone = |parameters: &[f32]| convicted(Learnt { shape: &shape, parameters, isa: Isa::best() }.into());
    assert_eq!((alone(&members[0]), alone(&members[1])), (64, 0));
}
