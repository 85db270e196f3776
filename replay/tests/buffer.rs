//! The ring against a naive model that owns every transition, and against damage.
#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use bellwether_replay::{
    ActionMask, BufferConfig, Draw, Outcome, Played, PriorityConfig, ReplayBuffer, ReplayError, SampleSpec, Sampled,
    SharedReplay, StateRows, StreamId, Transition, fuzz,
};
use proptest::collection::vec;
use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const ACTIONS: u32 = 5;

/// One thing that happens to a stream.
#[derive(Clone, Copy, Debug)]
struct Event {
    stream: usize,
    what: What,
    action: u32,
    mask: u32,
    reward: f32,
    probability: f32,
    /// An error that is told of the step, where it can be drawn.
    error: Option<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Continue,
    Terminate,
    TruncateObserved,
    TruncateBlind,
    Abandon,
}

fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
    let what = prop_oneof![
        6 => Just(What::Continue),
        2 => Just(What::Terminate),
        1 => Just(What::TruncateObserved),
        1 => Just(What::TruncateBlind),
        1 => Just(What::Abandon),
    ];
    let error = proptest::option::of(-3.0_f32..3.0);
    let event = (0_usize..3, what, 0..ACTIONS, 0_u32..32, -2.0_f32..2.0, 0.01_f32..=1.0, error);
    vec(
        event.prop_map(|(stream, what, action, mask, reward, probability, error)| Event {
            stream,
            what,
            action,
            mask,
            reward,
            probability,
            error,
        }),
        0..most,
    )
}

fn spec() -> impl Strategy<Value = SampleSpec> {
    let draw = prop_oneof![Just(Draw::Uniform), (0.0..=1.0).prop_map(|correction| Draw::Prioritised { correction })];
    (1_u32..6, prop_oneof![Just(1.0), Just(0.0), 0.0..1.0], draw).prop_map(|(n_step, gamma, draw)| SampleSpec {
        n_step,
        gamma,
        draw,
    })
}

/// A played step that owns all it needs. States are named by the order in which they came.
#[derive(Clone, Debug)]
struct Step {
    state: u64,
    mask: ActionMask,
    played: Played,
    /// The state it led to, where it was observed.
    next: Option<(u64, ActionMask)>,
    terminated: bool,
}

/// Every episode whole, nothing ever forgotten.
#[derive(Default)]
struct Model {
    written: u64,
    episodes: Vec<Vec<Step>>,
    /// Episode and open state by stream.
    open: [Option<(usize, u64, ActionMask)>; 3],
}

struct Harness {
    buffer: ReplayBuffer,
    streams: Vec<StreamId>,
    model: Model,
}

fn state(number: u64) -> [f32; 2] {
    [number as f32, 0.5]
}

impl Harness {
    fn new(capacity: usize) -> Self {
        let config = BufferConfig { width: 2, actions: ACTIONS, capacity };
        let mut buffer = ReplayBuffer::with_priorities(config, PriorityConfig::default()).unwrap();
        let streams = (0..3).map(|_| buffer.add_stream()).collect();
        Harness { buffer, streams, model: Model::default() }
    }

    fn happen(&mut self, event: Event) {
        let (stream, model) = (self.streams[event.stream], &mut self.model);
        // The mask always allows the action that will be played there: it is fixed by the number of the state.
        let mask = |number: u64| ActionMask::from_bits(event.mask | 1 << (number % u64::from(ACTIONS)));
        let Some((episode, open, open_mask)) = model.open[event.stream] else {
            if event.what != What::Abandon {
                self.buffer.begin(stream, &state(model.written), mask(model.written)).unwrap();
                model.episodes.push(Vec::new());
                model.open[event.stream] = Some((model.episodes.len() - 1, model.written, mask(model.written)));
                model.written += 1;
            } else {
                self.buffer.abandon(stream).unwrap();
            }
            return;
        };
        let action = if open_mask.allows(event.action) { event.action } else { (open % u64::from(ACTIONS)) as u32 };
        let played = Played { action, reward: event.reward, behaviour_probability: event.probability };
        let (next, next_mask) = (state(model.written), mask(model.written));
        let outcome = match event.what {
            What::Continue => Outcome::Continues { state: &next, mask: next_mask },
            What::Terminate => Outcome::Terminated,
            What::TruncateObserved => Outcome::Truncated { observed: Some((&next, next_mask)) },
            What::TruncateBlind => Outcome::Truncated { observed: None },
            What::Abandon => {
                self.buffer.abandon(stream).unwrap();
                model.open[event.stream] = None;
                return;
            }
        };
        let observes = matches!(event.what, What::Continue | What::TruncateObserved);
        let capacity = self.buffer.config().capacity as u64;
        if model.written + u64::from(observes) > open + capacity {
            let error = self.buffer.append(stream, played, outcome).unwrap_err();
            assert!(matches!(error, ReplayError::Overwritten { .. }), "{error}");
            self.buffer.abandon(stream).unwrap();
            model.open[event.stream] = None;
            return;
        }
        self.buffer.append(stream, played, outcome).unwrap();
        if let Some(error) = event.error.filter(|_| event.what != What::TruncateBlind) {
            self.buffer.learn(&[(open % capacity) as u32], &[error]).unwrap();
        }
        let next = observes.then_some((model.written, next_mask));
        let terminated = event.what == What::Terminate;
        model.episodes[episode].push(Step { state: open, mask: open_mask, played, next, terminated });
        model.open[event.stream] = (event.what == What::Continue).then_some((episode, model.written, next_mask));
        model.written += u64::from(observes);
    }

    /// What the model says can be drawn: number of the state, transition with rows that number states.
    fn expected(&self, spec: &SampleSpec) -> Vec<(u64, Transition)> {
        let forgotten = self.model.written.saturating_sub(self.buffer.config().capacity as u64);
        let mut expected = Vec::new();
        for episode in &self.model.episodes {
            // The steps that can be learned from: all but a last one of which nothing was observed.
            let usable: Vec<&Step> = episode.iter().filter(|step| step.terminated || step.next.is_some()).collect();
            for (i, step) in usable.iter().enumerate().filter(|(_, step)| step.state >= forgotten) {
                let span = &usable[i..usable.len().min(i + spec.n_step as usize)];
                let last = span[span.len() - 1];
                let mut reward = 0.0;
                let mut discount = 1.0;
                for step in span {
                    reward += discount * f64::from(step.played.reward);
                    discount *= spec.gamma;
                }
                let (next, next_mask) = last.next.unwrap_or((step.state, step.mask));
                let transition = Transition {
                    row: step.state as u32,
                    mask: step.mask,
                    action: step.played.action,
                    behaviour_probability: step.played.behaviour_probability,
                    reward: reward as f32,
                    discount: if last.terminated { 0.0 } else { discount as f32 },
                    steps: span.len() as u32,
                    next_row: next as u32,
                    next_mask,
                };
                expected.push((step.state, transition));
            }
        }
        expected.sort_by_key(|(state, _)| *state);
        expected
    }

    /// Names rows by the states in them, as the model does.
    fn by_state(&self, transition: Transition) -> Transition {
        let name = |row: u32| {
            let mut out = [0.0; 2];
            self.buffer.gather(row as usize, &mut out);
            assert_eq!(out[1], 0.5);
            out[0] as u32
        };
        Transition { row: name(transition.row), next_row: name(transition.next_row), ..transition }
    }

    /// All that can be drawn, oldest first.
    fn found(&self, spec: &SampleSpec) -> Vec<Transition> {
        let rows = self.buffer.oldest_first();
        rows.filter_map(|row| self.buffer.transition(row, spec).unwrap()).map(|t| self.by_state(t)).collect()
    }

    fn sampled(&self, spec: &SampleSpec, seed: u64) -> Option<Sampled> {
        let mut out = Sampled::default();
        let result = self.buffer.sample(&mut ChaCha8Rng::seed_from_u64(seed), 32, spec, &mut out);
        if self.buffer.transitions() == 0 {
            assert!(matches!(result, Err(ReplayError::Empty { .. })));
            return None;
        }
        result.unwrap();
        Some(out)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_added_is_what_can_be_drawn(
        events in events(120), capacity in 2_usize..50, spec in spec(), seed in any::<u64>(),
    ) {
        let mut harness = Harness::new(capacity);
        for event in events {
            harness.happen(event);
            prop_assert!(harness.buffer.states_held() <= capacity);
            prop_assert_eq!(harness.buffer.states_held() as u64, harness.model.written.min(capacity as u64));
            prop_assert_eq!(harness.buffer.states_written(), harness.model.written);
        }
        let expected = harness.expected(&spec);
        let expected: Vec<Transition> = expected.into_iter().map(|(_, transition)| transition).collect();
        prop_assert_eq!(harness.buffer.transitions(), expected.len());
        prop_assert_eq!(&harness.found(&spec), &expected);

        // What is drawn are those transitions, in columns, and the same again with the same seed.
        if let Some(sampled) = harness.sampled(&spec, seed) {
            prop_assert_eq!(harness.sampled(&spec, seed).unwrap(), sampled.clone());
            prop_assert_eq!(sampled.len(), 32);
            let mut masks = Vec::new();
            sampled.write_next_masks(ACTIONS as usize, &mut masks);
            for i in 0..sampled.len() {
                let drawn = harness.by_state(Transition {
                    row: sampled.rows[i],
                    mask: sampled.masks[i],
                    action: sampled.actions[i],
                    behaviour_probability: sampled.behaviour_probabilities[i],
                    reward: sampled.rewards[i],
                    discount: sampled.discounts[i],
                    steps: sampled.steps[i],
                    next_row: sampled.next_rows[i],
                    next_mask: sampled.next_masks[i],
                });
                prop_assert!(expected.contains(&drawn), "{:?}", drawn);
                let weight = sampled.weights[i];
                prop_assert!(weight > 0.0 && weight <= 1.0 && (spec.draw != Draw::Uniform || weight == 1.0));
                let row = &masks[i * ACTIONS as usize..(i + 1) * ACTIONS as usize];
                prop_assert_eq!(ActionMask::from_bools(row), drawn.next_mask);
            }
        }
    }

    #[test]
    fn a_restored_buffer_goes_on_byte_for_byte(
        before in events(80), after in events(40), capacity in 2_usize..40, spec in spec(), seed in any::<u64>(),
    ) {
        let mut harness = Harness::new(capacity);
        before.iter().for_each(|event| harness.happen(*event));
        let mut bytes = Vec::new();
        harness.buffer.save(&mut bytes).unwrap();
        let mut restored = ReplayBuffer::restore(&bytes[..], 1 << 20).unwrap();
        let mut again = Vec::new();
        restored.save(&mut again).unwrap();
        prop_assert_eq!(&again, &bytes);
        prop_assert_eq!(restored.streams().collect::<Vec<_>>(), harness.streams.clone());

        // The same events on both, by way of the same model, and then the same draws and the same bytes.
        let mut twin = Harness::new(capacity);
        before.iter().for_each(|event| twin.happen(*event));
        std::mem::swap(&mut twin.buffer, &mut restored);
        for event in after {
            harness.happen(event);
            twin.happen(event);
        }
        prop_assert_eq!(twin.sampled(&spec, seed), harness.sampled(&spec, seed));
        let (mut one, mut two) = (Vec::new(), Vec::new());
        harness.buffer.save(&mut one).unwrap();
        twin.buffer.save(&mut two).unwrap();
        prop_assert_eq!(one, two);
    }

    #[test]
    fn damage_is_refused(
        events in events(60), capacity in 2_usize..30, at in any::<proptest::sample::Index>(), bits in 1_u8..=255, cut in any::<bool>(),
    ) {
        let mut harness = Harness::new(capacity);
        events.iter().for_each(|event| harness.happen(*event));
        let mut bytes = Vec::new();
        harness.buffer.save(&mut bytes).unwrap();
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= bits;
        }
        prop_assert!(ReplayBuffer::restore(&bytes[..], 1 << 20).is_err());
    }

    /// With a checksum that matches, what was changed may still be a buffer; if it is taken, it can be used.
    #[test]
    fn forgery_is_refused_or_harmless(
        events in events(60), capacity in 2_usize..30, changes in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4), spec in spec(),
    ) {
        let mut harness = Harness::new(capacity);
        events.iter().for_each(|event| harness.happen(*event));
        let mut bytes = Vec::new();
        harness.buffer.save(&mut bytes).unwrap();
        let end = bytes.len() - 4;
        // The first bytes hold what there is most to break.
        changes.iter().enumerate().for_each(|(i, (at, byte))| bytes[at.index(if i == 0 { end } else { end.min(120) })] = *byte);
        fuzz::fuzz_saved_buffer(&bytes);
        let sum = crc32c::crc32c(&bytes[..end]).to_le_bytes();
        bytes[end..].copy_from_slice(&sum);
        if let Ok(mut buffer) = ReplayBuffer::restore(&bytes[..], 1 << 20) {
            for row in buffer.oldest_first().collect::<Vec<_>>() {
                buffer.transition(row, &spec).unwrap();
            }
            let mut out = Sampled::default();
            let drawn = buffer.sample(&mut ChaCha8Rng::seed_from_u64(1), 8, &spec, &mut out);
            prop_assert_eq!(drawn.is_ok(), buffer.transitions() > 0);
            let width = buffer.config().width;
            for stream in buffer.streams().take(100) {
                buffer.abandon(stream).unwrap();
                buffer.begin(stream, &vec![0.0; width], ActionMask::from_bits(1)).unwrap();
            }
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(ReplayBuffer::restore(&bytes[..], 1 << 20).is_err());
        fuzz::fuzz_saved_buffer(&bytes);
        let bytes = [&b"BWREPLAY\x01\0\0\0"[..], &bytes[..]].concat();
        if let Ok(buffer) = ReplayBuffer::restore(&bytes[..], 1 << 20) {
            prop_assert!(buffer.states_held() < 200);
        }
    }

    /// Collectors append from their own threads while another samples: every step of each arrives, whole and in order.
    #[test]
    fn nothing_is_lost_between_threads(lengths in vec(vec(1_usize..8, 0..6), 1..4)) {
        let states: usize = lengths.iter().flatten().sum();
        let shared = SharedReplay::new(
            ReplayBuffer::new(BufferConfig { width: 2, actions: 2, capacity: states.max(2) }).unwrap(),
        );
        let mask = ActionMask::all(2);
        std::thread::scope(|scope| {
            for (collector, lengths) in lengths.iter().enumerate() {
                let shared = shared.clone();
                scope.spawn(move || {
                    let stream = shared.add_stream().unwrap();
                    let mut name = collector as f32 * 1000.0;
                    for length in lengths {
                        shared.begin(stream, &[name, name], mask).unwrap();
                        for step in 0..*length {
                            let played = Played { action: 1, reward: name, behaviour_probability: 0.5 };
                            name += 1.0;
                            let next = [name, name];
                            let outcome = if step + 1 < *length {
                                Outcome::Continues { state: &next, mask }
                            } else {
                                Outcome::Terminated
                            };
                            shared.append(stream, played, outcome).unwrap();
                        }
                    }
                });
            }
            scope.spawn(|| {
                let (mut rng, mut out) = (ChaCha8Rng::seed_from_u64(3), Sampled::default());
                for _ in 0..20 {
                    let buffer = shared.read().unwrap();
                    if buffer.sample(&mut rng, 16, &SampleSpec::default(), &mut out).is_ok() {
                        let mut row = [0.0; 2];
                        for i in 0..out.len() {
                            buffer.gather(out.rows[i] as usize, &mut row);
                            assert_eq!(row, [out.rewards[i]; 2]);
                        }
                    }
                }
            });
        });
        let buffer = shared.read().unwrap();
        prop_assert_eq!(buffer.transitions(), states);
        let mut found = Vec::new();
        for row in buffer.oldest_first() {
            let transition = buffer.transition(row, &SampleSpec::default()).unwrap().unwrap();
            let mut next = [0.0; 2];
            buffer.gather(transition.next_row as usize, &mut next);
            prop_assert_eq!(next[0], if transition.discount == 0.0 { transition.reward } else { transition.reward + 1.0 });
            found.push(transition.reward as u64);
        }
        found.sort_unstable();
        let expected: Vec<u64> = lengths
            .iter()
            .enumerate()
            .flat_map(|(collector, lengths)| (0..lengths.iter().sum::<usize>() as u64).map(move |i| collector as u64 * 1000 + i))
            .collect();
        prop_assert_eq!(found, expected);
    }
}

fn one_stream(capacity: usize) -> (ReplayBuffer, StreamId) {
    let mut buffer = ReplayBuffer::new(BufferConfig { width: 2, actions: ACTIONS, capacity }).unwrap();
    let stream = buffer.add_stream();
    (buffer, stream)
}

/// However few of the slots can be drawn, each of them is as likely as any other.
#[test]
fn draws_are_uniform_even_where_few_slots_can_be_drawn() {
    for blind in [0, 1, 500] {
        let (mut buffer, stream) = one_stream(4096);
        let played = |reward| Played { action: 0, reward, behaviour_probability: 1.0 };
        for episode in 0..8 {
            for _ in 0..blind {
                buffer.begin(stream, &state(0), ActionMask::all(5)).unwrap();
                buffer.append(stream, played(0.0), Outcome::Truncated { observed: None }).unwrap();
            }
            buffer.begin(stream, &state(0), ActionMask::all(5)).unwrap();
            buffer.append(stream, played(episode as f32), Outcome::Terminated).unwrap();
        }
        assert_eq!(buffer.transitions(), 8);
        let mut out = Sampled::default();
        buffer.sample(&mut ChaCha8Rng::seed_from_u64(5), 8_000, &SampleSpec::default(), &mut out).unwrap();
        let mut counts = [0_u32; 8];
        out.rewards.iter().for_each(|reward| counts[*reward as usize] += 1);
        // Five standard deviations of a count with mean 1,000.
        assert!(counts.iter().all(|count| count.abs_diff(1000) < 150), "{blind} blind: {counts:?}");
    }
}

#[test]
fn misuse_is_refused_and_changes_nothing() {
    let (mut buffer, stream) = one_stream(8);
    let all = ActionMask::all(5);
    let played = Played { action: 1, reward: 0.5, behaviour_probability: 0.5 };
    assert!(matches!(buffer.append(stream, played, Outcome::Terminated), Err(ReplayError::Stream { .. })));
    assert!(matches!(buffer.begin(stream, &[0.0], all), Err(ReplayError::Width { .. })));
    assert!(matches!(buffer.begin(stream, &[0.0, f32::NAN], all), Err(ReplayError::NotFinite { index: 1, .. })));
    for bits in [0, 1 << 5] {
        let mask = ActionMask::from_bits(bits);
        assert!(matches!(buffer.begin(stream, &state(0), mask), Err(ReplayError::Mask { .. })));
    }
    assert_eq!(buffer.states_held(), 0);
    buffer.begin(stream, &state(0), ActionMask::from_bits(0b10)).unwrap();
    assert!(matches!(buffer.begin(stream, &state(1), all), Err(ReplayError::Stream { .. })));
    for wrong in [
        Played { action: 0, ..played },
        Played { action: 5, ..played },
        Played { action: u32::MAX, ..played },
        Played { reward: f32::INFINITY, ..played },
        Played { behaviour_probability: 0.0, ..played },
        Played { behaviour_probability: 1.1, ..played },
        Played { behaviour_probability: f32::NAN, ..played },
    ] {
        assert!(buffer.append(stream, wrong, Outcome::Terminated).is_err(), "{wrong:?}");
    }
    let short = Outcome::Continues { state: &[0.0], mask: all };
    assert!(buffer.append(stream, played, short).is_err());
    assert!(buffer.is_open(stream));
    assert_eq!((buffer.states_held(), buffer.transitions()), (1, 0));
    buffer.append(stream, played, Outcome::Terminated).unwrap();
    assert_eq!((buffer.states_held(), buffer.transitions(), buffer.is_open(stream)), (1, 1, false));

    let (mut other, _) = one_stream(8);
    let foreign = { (other.add_stream(), other.add_stream()).1 };
    assert!(matches!(buffer.begin(foreign, &state(0), all), Err(ReplayError::Stream { stream: 2, .. })));
    for (n_step, gamma) in [(0, 0.9), (1, -0.1), (1, 1.1), (1, f64::NAN)] {
        let spec = SampleSpec { n_step, gamma, draw: Draw::Uniform };
        assert!(matches!(buffer.transition(0, &spec), Err(ReplayError::Setting { .. })));
    }
    let prioritised = |correction| SampleSpec { draw: Draw::Prioritised { correction }, ..SampleSpec::default() };
    assert!(matches!(buffer.transition(0, &prioritised(f64::NAN)), Err(ReplayError::Setting { .. })));
    for (width, actions, capacity) in [(0, 2, 2), (70_000, 2, 2), (1, 0, 2), (1, 33, 2), (1, 2, 1), (1, 2, usize::MAX)]
    {
        assert!(matches!(
            ReplayBuffer::new(BufferConfig { width, actions, capacity }),
            Err(ReplayError::Setting { .. })
        ));
    }
}

#[test]
fn a_checkpoint_that_claims_much_takes_no_memory() {
    let (buffer, _) = one_stream(8);
    let mut bytes = Vec::new();
    buffer.save(&mut bytes).unwrap();
    // Capacity and states written are far beyond what follows.
    bytes[20..28].copy_from_slice(&4_000_000_000_u64.to_le_bytes());
    bytes[28..36].copy_from_slice(&4_000_000_000_u64.to_le_bytes());
    assert!(matches!(ReplayBuffer::restore(&bytes[..], 1 << 30), Err(ReplayError::TooLarge { .. })));
    assert!(matches!(ReplayBuffer::restore(&bytes[..], u64::MAX), Err(ReplayError::Saved { .. })));
}
