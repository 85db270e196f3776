//! One episode of a session: its windows, and what is asked at the close of each.

use std::sync::Arc;

use bellwether_env_adapter::live::{LiveWindow, LiveWindows};
use bellwether_env_adapter::spec::{FeatureSpec, StateVector, WIDTH, element};
use bellwether_env_adapter::{ACTION_COUNT, WindowConfig, action};
use tonic::Code;

use super::answer::{Refused, Terms, answer, prepare};
use super::decide::{floats, mask_of, response};
use super::decision_log::Place;
use super::oip::episode_number;
use super::proto::policy::{DecideResponse, Open, ReadyState, WindowDecision};
use super::proto::telemetry::Event;
use super::session::{Declined, declined};
use super::shared::{Shared, Slot};
use crate::policy::HeldAll;

/// What came of a window: a decision, or why there is none.
pub(super) type Told = Result<WindowDecision, Declined>;

/// One open episode.
#[derive(Debug)]
pub(super) struct Episode {
    shared: Arc<Shared>,
    whose: Whose,
    terms: StageTerms,
    fed: Fed,
    /// The last event of the stage.
    seq: Option<u64>,
    windows: u64,
    /// Events, and those past the cap, of the stages before.
    earlier: (u64, u64),
    _slot: Slot,
}

/// What an episode is called.
#[derive(Debug)]
struct Whose {
    id: String,
    /// Chooses the model while a canary is on trial.
    number: u64,
}

/// What holds for a stage.
#[derive(Debug)]
struct StageTerms {
    stage: u8,
    cap: u32,
    can_raise: bool,
    target_fpr: Option<f64>,
    cost: Option<f32>,
    with_q_values: bool,
}

/// How a stage is fed.
#[derive(Debug)]
enum Fed {
    /// Nothing came yet.
    Not,
    /// By events.
    Events(Box<LiveWindows>),
    /// By states; the number of those that came.
    States(u32),
}

impl Episode {
    pub(super) fn open(shared: &Arc<Shared>, slot: Slot, open: &Open) -> Result<Self, Declined> {
        if shared.policy.actions().len() != ACTION_COUNT {
            let what =
                "the model chooses among other actions than a sandbox has: ask with Decide, which takes any model";
            return Err(declined(Code::FailedPrecondition, what));
        }
        let number = open.episode.unwrap_or_else(|| episode_number(&open.episode_id));
        Ok(Episode {
            shared: Arc::clone(shared),
            whose: Whose { id: open.episode_id.clone(), number },
            terms: StageTerms::of(shared, open, number)?,
            fed: Fed::Not,
            seq: None,
            windows: 0,
            earlier: (0, 0),
            _slot: slot,
        })
    }

    /// Stage 2 of an episode that is in stage 1. A window that is open is left undecided: the release that ended the stage was
    /// the answer to one before.
    pub(super) fn next_stage(&mut self, open: &Open) -> Result<(), Declined> {
        let terms = StageTerms::of(&self.shared, open, self.whose.number)?;
        if terms.stage <= self.terms.stage {
            let StageTerms { stage, .. } = self.terms;
            let what = format!("the episode is open in stage {stage}: open the stage after it, or end it first");
            return Err(Declined(Code::AlreadyExists, what));
        }
        let own = self.whose.number;
        if let Some(other) = open.episode.filter(|number| *number != own) {
            let what = format!("episode is {other}, and was {own} in the stage before: give the same, or leave it out");
            return Err(Declined(Code::InvalidArgument, what));
        }
        let (events, unseen) = self.fed.counts();
        self.earlier = (self.earlier.0 + events, self.earlier.1 + unseen);
        (self.terms, self.fed, self.seq) = (terms, Fed::Not, None);
        Ok(())
    }

    /// Whether all of these events may come next. Nothing is taken.
    pub(super) fn check(&mut self, events: &[Event]) -> Result<(), Declined> {
        let mut seq = self.seq;
        for (index, event) in events.iter().enumerate() {
            let refused = |what: String| Declined(Code::InvalidArgument, format!("event {index}: {what}"));
            let record = event.record().map_err(|error| refused(error.to_string()))?;
            if record.stage != self.terms.stage {
                let (found, open) = (record.stage, self.terms.stage);
                return Err(refused(format!("stage is {found}, and stage {open} is open: send events of that one")));
            }
            if seq.is_some_and(|before| record.seq <= before) {
                let (found, before) = (record.seq, seq.unwrap_or(0));
                return Err(refused(format!(
                    "seq is {found} after {before}: give each event a higher one than the last"
                )));
            }
            seq = Some(record.seq);
        }
        // Last, since it says how the stage is fed: events that are refused leave it open to states.
        self.feed_events()
    }

    /// Takes an event that was checked.
    pub(super) fn event(&mut self, event: &Event) -> Vec<Told> {
        let Episode { shared, whose, terms, fed, seq, windows, .. } = self;
        let (Fed::Events(live), Ok(record)) = (fed, event.record()) else { return Vec::new() };
        *seq = Some(record.seq);
        let mut told = Vec::new();
        live.event(&record, |window| told.push(terms.close(shared, whose, window, windows)));
        told
    }

    /// Says what time it is.
    pub(super) fn tick(&mut self, now_ns: u64) -> Result<Vec<Told>, Declined> {
        self.feed_events()?;
        Ok(self.close_with(|live, told| live.tick(now_ns, told)))
    }

    /// Closes the window that is open.
    pub(super) fn end(&mut self) -> Vec<Told> {
        self.close_with(|live, told| live.end(told))
    }

    /// Answers a state that the client computed.
    pub(super) fn state(&mut self, message: ReadyState) -> Result<Told, Declined> {
        let window = match self.fed {
            Fed::Not => 0,
            Fed::States(window) => window,
            Fed::Events(_) => {
                let what = "this stage is fed by events: send events, or open an episode for states";
                return Err(declined(Code::FailedPrecondition, what));
            }
        };
        if self.terms.cap > 0 && window >= self.terms.cap {
            let what = format!("the stage has had its {} windows: end it", self.terms.cap);
            return Err(Declined(Code::FailedPrecondition, what));
        }
        let last = self.terms.cap > 0 && window + 1 >= self.terms.cap;
        let mut state = floats(message.state, &message.state_bytes)?;
        let given = mask_of(message.mask, message.mask_bits, ACTION_COUNT)?;
        // The level as the state encodes it, in thirds.
        let level = state.get(element::LEVEL).map_or(0, |level| (level * 3.0).round().clamp(0.0, 3.0) as u8);
        let follows = action::mask(last, self.terms.can_raise && level < 3);
        let mask = if given.is_empty() { &follows[..] } else { &given };
        let decision = self.terms.ask(&self.shared, &self.whose, window, &mut state, mask)?;
        self.fed = Fed::States(window + 1);
        self.windows += 1;
        Ok(Ok(self.terms.told(window, 0, last, decision)))
    }

    /// Windows that were answered, events that were taken, events past a cap.
    pub(super) fn counts(&self) -> (u64, u64, u64) {
        let (events, unseen) = self.fed.counts();
        (self.windows, self.earlier.0 + events, self.earlier.1 + unseen)
    }

    fn close_with(&mut self, close: impl FnOnce(&mut LiveWindows, &mut dyn FnMut(LiveWindow<'_>))) -> Vec<Told> {
        let Episode { shared, whose, terms, fed, windows, .. } = self;
        let mut told = Vec::new();
        if let Fed::Events(live) = fed {
            close(live, &mut |window| told.push(terms.close(shared, whose, window, windows)));
        }
        told
    }

    /// Makes ready for events, where the stage may have some.
    fn feed_events(&mut self) -> Result<(), Declined> {
        match self.fed {
            Fed::Events(_) => return Ok(()),
            Fed::States(_) => {
                let what = "this stage is fed by states: send states, or open an episode for events";
                return Err(declined(Code::FailedPrecondition, what));
            }
            Fed::Not => (),
        }
        if self.terms.target_fpr.is_none() && self.terms.cost.is_none() {
            let what = "events do not say what a false positive costs: open the stage with target_fpr or cost";
            return Err(declined(Code::FailedPrecondition, what));
        }
        let trained = self.shared.policy.window();
        let config =
            WindowConfig { max_events: trained.max_events, max_ns: trained.max_ns, max_windows: self.terms.cap };
        let contract = self.shared.policy.contract();
        let spec = FeatureSpec::v1(config.clone());
        if contract.width != WIDTH || contract.feature_spec.as_bytes() != &spec.hash() {
            let what = "the model reads other states than are computed from events here: send states";
            return Err(declined(Code::FailedPrecondition, what));
        }
        let mut live = LiveWindows::new(&config);
        live.begin(self.terms.stage);
        self.fed = Fed::Events(Box::new(live));
        Ok(())
    }
}

impl Fed {
    fn counts(&self) -> (u64, u64) {
        match self {
            Fed::Events(live) => (live.seen(), live.unseen()),
            Fed::Not | Fed::States(_) => (0, 0),
        }
    }
}

impl StageTerms {
    /// The terms of an episode with this number.
    fn of(shared: &Shared, open: &Open, number: u64) -> Result<Self, Declined> {
        let refused = |what: String| Declined(Code::InvalidArgument, what);
        let stage = match open.stage {
            0 | 1 => 1,
            2 => 2,
            other => return Err(refused(format!("stage is {other}: give 1 or 2"))),
        };
        if open.target_fpr.is_some() && open.cost.is_some() {
            return Err(refused("both target_fpr and cost are given: give one of them".to_owned()));
        }
        if let Some(cost) = open.cost.filter(|cost| !(0.0..1.0).contains(cost)) {
            return Err(refused(format!("cost is {cost}: give a number from 0, and below 1")));
        }
        if open.target_fpr.is_some() {
            // Now, before anything is asked: every window would be lost for it. A later model may know the rate no more.
            let terms = Terms { episode: Some(number), target_fpr: open.target_fpr, ..Terms::default() };
            let known = |all: &mut HeldAll<'_>| prepare(&all.choose(terms.episode), terms).map(drop);
            shared.with_decider(|decider| decider.hold_all(known))?;
        }
        Ok(StageTerms {
            stage,
            cap: open.max_windows.unwrap_or(shared.policy.window().max_windows),
            can_raise: open.can_raise_isolation,
            target_fpr: open.target_fpr,
            cost: open.cost,
            with_q_values: open.with_q_values,
        })
    }

    /// Asks about a window that has closed.
    fn close(&self, shared: &Shared, whose: &Whose, window: LiveWindow<'_>, answered: &mut u64) -> Told {
        let LiveWindow { index, events, last, level, state, .. } = window;
        let mask = action::mask(last, self.can_raise && level < 3);
        // A copy: the counts in it go on without the cost.
        let mut state = StateVector::clone(state);
        if let Some(cost) = self.cost {
            state.set_cost(cost);
        }
        let mut state = state.as_slice().to_vec();
        let decision = self.ask(shared, whose, index, &mut state, &mask).map_err(|refused| {
            Declined(refused.code(), format!("window {index} of stage {}: {refused}", self.stage))
        })?;
        *answered += 1;
        Ok(self.told(index, events, last, decision))
    }

    fn ask(
        &self,
        shared: &Shared,
        whose: &Whose,
        window: u32,
        state: &mut [f32],
        mask: &[bool],
    ) -> Result<DecideResponse, Refused> {
        let place = Place {
            episode: Some(&whose.id),
            stage: Some(u32::from(self.stage)),
            window: Some(u64::from(window)),
            ..Place::default()
        };
        let terms = Terms { episode: Some(whose.number), target_fpr: self.target_fpr, model_version: "", place };
        shared.with_decider(|decider| {
            decider.hold_all(|all| {
                answer(shared, all, terms, state, mask, |answer, cost| DecideResponse {
                    cost,
                    ..response(shared, answer, self.with_q_values)
                })
            })
        })
    }

    fn told(&self, window: u32, events: u32, last: bool, decision: DecideResponse) -> WindowDecision {
        WindowDecision {
            episode_id: String::new(),
            stage: u32::from(self.stage),
            window,
            events,
            last,
            decision: Some(decision),
        }
    }
}

impl From<Refused> for Declined {
    fn from(refused: Refused) -> Self {
        Declined(refused.code(), refused.to_string())
    }
}
