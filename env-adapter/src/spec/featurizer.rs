//! Events to states, incrementally: a few table look-ups per event, the measures once per window.

use super::table::{EPISODE, Plan, WINDOW};
use super::tally::{Logs, Tally, share};
use super::{
    CALL_SLOTS, FeatureSpec, PAIR_SLOTS, STAGE_CEILING, StateVector, WINDOW_CALL_SLOTS, element, encode_cap_left,
    encode_level, group,
};
use crate::behaviour::{Facts, Tracker};
use crate::event::Event;

/// Salts of the hashed groups: digits of pi's fraction, as Blowfish's boxes use them.
const CALL_SALT: u64 = 0x9216_d5d9_8979_fb1b;
const PAIR_SALT: u64 = 0xd131_0ba6_98df_b5ac;
const WINDOW_CALL_SALT: u64 = 0x2ffd_72db_d01a_dfb7;

/// Threads whose last call is remembered; two that fall together forget each other's.
const THREADS: usize = 64;

/// Computes the state of a stage as its events arrive.
///
/// Call [`Featurizer::begin`] at the start of a stage, [`Featurizer::observe`] for each event and
/// [`Featurizer::close_window`] at the end of each window. Nothing is allocated per event once the table of what was
/// touched has grown to what the episodes need.
#[derive(Clone, Debug)]
pub struct Featurizer {
    spec: FeatureSpec,
    logs: &'static Logs,
    inverse_context: InverseContext,
    stage_logs: Box<[f32]>,
    window_logs: Box<[f32]>,
    episode_plan: Plan,
    window_plan: Plan,
    tracker: Tracker,
    state: StateVector,
    episode: Tally,
    window: Tally,
    calls: [u32; CALL_SLOTS],
    pairs: [u32; PAIR_SLOTS],
    window_calls: [u32; WINDOW_CALL_SLOTS],
    threads: [(u64, u64); THREADS],
    windows: u32,
    cap: u32,
    clock_ns: u64,
    window_open: bool,
    level: u8,
}

/// `1 / log1p(ceiling)` of the context elements that are logarithms.
#[derive(Clone, Debug)]
struct InverseContext {
    windows: f64,
    events: f64,
    elapsed_ms: f64,
    rate: f64,
}

impl Featurizer {
    /// A featurizer for states of this specification.
    pub fn new(spec: FeatureSpec) -> Featurizer {
        let inverse = |ceiling: u32| 1.0 / libm::log1p(f64::from(ceiling));
        let table = |ceiling: u32| -> Box<[f32]> {
            (0..=ceiling).map(|n| ((libm::log1p(f64::from(n)) * inverse(ceiling)) as f32).min(1.0)).collect()
        };
        // A window of more events than this cannot tell its counts apart any better.
        let window_ceiling = spec.window().max_events.clamp(1, 65_536);
        let mut featurizer = Featurizer {
            logs: Logs::get(),
            inverse_context: InverseContext {
                windows: inverse(4_096),
                events: inverse(262_144),
                elapsed_ms: inverse(600_000),
                rate: inverse(1_000_000),
            },
            stage_logs: table(STAGE_CEILING),
            window_logs: table(window_ceiling),
            episode_plan: Plan::new(EPISODE),
            window_plan: Plan::new(WINDOW),
            tracker: Tracker::default(),
            state: StateVector::default(),
            episode: Tally::default(),
            window: Tally::default(),
            calls: [0; CALL_SLOTS],
            pairs: [0; PAIR_SLOTS],
            window_calls: [0; WINDOW_CALL_SLOTS],
            threads: [(0, 0); THREADS],
            windows: 0,
            cap: 0,
            clock_ns: 0,
            window_open: false,
            level: 0,
            spec,
        };
        featurizer.begin(1, 0);
        featurizer
    }

    /// The specification of the states.
    pub fn spec(&self) -> &FeatureSpec {
        &self.spec
    }

    /// Begins stage `stage` (1 or 2) with a cap of `cap` windows, 0 for none. All counters start fresh.
    pub fn begin(&mut self, stage: u8, cap: u32) {
        self.tracker.clear();
        self.state.0.fill(0.0);
        self.episode = Tally::default();
        self.window = Tally::default();
        self.calls.fill(0);
        self.pairs.fill(0);
        self.window_calls.fill(0);
        self.threads.fill((0, 0));
        self.windows = 0;
        self.cap = cap;
        self.clock_ns = 0;
        self.window_open = false;
        self.level = 0;
        self.state.0[element::STAGE] = f32::from(u8::from(stage > 1));
        self.state.0[element::CAP_LEFT] = encode_cap_left(0, cap);
    }

    /// Takes the next event of the stage and says what it means.
    #[inline]
    pub fn observe(&mut self, event: &Event<'_>) -> Facts {
        if !self.window_open {
            self.open_window();
        }
        let facts = self.tracker.observe(event);
        self.window.add(&facts);
        if let Some(now) = event.time_ns {
            self.window.timed += 1;
            let passed = now.saturating_sub(self.clock_ns);
            self.window.passed_ns = self.window.passed_ns.max(passed);
        }
        self.window.located += u64::from(event.path.is_some() || event.peer_addr.is_some());
        if let Some(level) = event.isolation {
            self.level = level;
        }

        let hash = facts.name.hash;
        let slot = slot_of(hash ^ CALL_SALT, CALL_SLOTS);
        let count = bump(&mut self.calls[slot]);
        self.window.novel += u64::from(count == 1);
        self.state.0[group::CALLS + slot] = capped(&self.stage_logs, count);

        let slot = slot_of(hash ^ WINDOW_CALL_SALT, WINDOW_CALL_SLOTS);
        let count = bump(&mut self.window_calls[slot]);
        self.state.0[group::WINDOW_CALLS + slot] = capped(&self.window_logs, count);

        let thread = u64::from(event.tid.or(event.pid).unwrap_or(0)) + 1;
        let place = &mut self.threads[(thread.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 58) as usize];
        if place.0 == thread {
            let pair = place.1.rotate_left(23).wrapping_add(hash) ^ PAIR_SALT;
            let slot = slot_of(pair, PAIR_SLOTS);
            let count = bump(&mut self.pairs[slot]);
            self.state.0[group::PAIRS + slot] = capped(&self.stage_logs, count);
        }
        *place = (thread, hash);
        facts
    }

    /// Closes the window and gives the state. It stays as it is until the next event is observed.
    pub fn close_window(&mut self) -> &StateVector {
        if !self.window_open {
            self.open_window();
        }
        self.window_open = false;
        self.windows = self.windows.saturating_add(1);
        self.clock_ns = self.clock_ns.saturating_add(self.window.passed_ns);
        self.episode.merge(&self.window);
        let (state, found) = (&mut self.state.0, self.window.found);
        self.episode.measure(&self.episode_plan, found, &mut state[group::EPISODE..group::WINDOW]);
        let elements = &mut state[group::WINDOW..group::CALLS];
        elements.fill(0.0);
        self.window.measure(&self.window_plan, found, elements);
        self.context();
        &self.state
    }

    /// The state as of the last close; the play of an episode writes its own context into it.
    pub fn state_mut(&mut self) -> &mut StateVector {
        &mut self.state
    }

    /// The state as of the last close.
    pub fn state(&self) -> &StateVector {
        &self.state
    }

    /// Nanoseconds since the stage began, up to the last close.
    pub fn clock_ns(&self) -> u64 {
        self.clock_ns
    }

    fn open_window(&mut self) {
        self.window_open = true;
        self.window = Tally::default();
        self.window_calls.fill(0);
        self.state.0[group::WINDOW_CALLS..].fill(0.0);
    }

    fn context(&mut self) {
        let (window, episode, logs) = (&self.window, &self.episode, self.logs);
        let inverse = &self.inverse_context;
        let rate = |tally: &Tally| {
            let per_second = u128::from(tally.events) * 1_000_000_000;
            let rate = per_second.checked_div(u128::from(tally.passed_ns)).unwrap_or(0).min(1 << 40);
            logs.scaled(rate as u64, inverse.rate)
        };
        let state = &mut self.state.0;
        state[element::LEVEL] = encode_level(self.level);
        state[element::CAP_LEFT] = encode_cap_left(self.windows, self.cap);
        state[element::WINDOWS] = logs.scaled(u64::from(self.windows), inverse.windows);
        state[element::EVENTS] = logs.scaled(episode.events, inverse.events);
        state[element::ELAPSED] = logs.scaled(self.clock_ns / 1_000_000, inverse.elapsed_ms);
        state[element::WINDOW_RATE] = rate(window);
        state[element::EPISODE_RATE] = rate(episode);
        state[element::WINDOW_FILL] = share(window.events, u64::from(self.spec.window().max_events));
        state[element::WINDOW_TIME] = share(window.passed_ns, self.spec.window().max_ns);
        state[element::TIMED] = share(window.timed, window.events);
        state[element::LOCATED] = share(window.located, window.events);
        state[element::NOVELTY] = share(window.novel, window.events);
    }
}

/// `MurmurHash3`'s 64-bit finaliser, then the high half of the product with the number of slots.
#[inline]
fn slot_of(hash: u64, slots: usize) -> usize {
    let mut h = hash;
    h = (h ^ (h >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    h = (h ^ (h >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    h ^= h >> 33;
    ((u128::from(h) * slots as u128) >> 64) as usize
}

#[inline]
fn bump(count: &mut u32) -> u32 {
    *count = count.saturating_add(1);
    *count
}

#[inline]
fn capped(table: &[f32], count: u32) -> f32 {
    table.get(count as usize).copied().unwrap_or(1.0)
}
