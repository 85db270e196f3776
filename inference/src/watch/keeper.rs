//! What a watcher knows and does, one step at a time.

use std::collections::VecDeque;
use std::mem;
use std::time::Instant;

use bellwether_artifact::ModelVersion;

use super::memory::{Diary, Memory};
use super::reading::{Folder, Mark, Marks};
use super::reason::Problem;
use super::trial::{Counted, Found, Judgement, Shadow, Window, is_operators};
use super::{Counts, Pending, Reason, Refusal, Source, VersionPolicy, Wanted, WatchError, WatchOptions, WatchStatus};
use crate::engine::Scratch;
use crate::policy::{Candidate, ModelId, Policy};
use crate::release::LoadedRelease;

/// Refused releases that are remembered.
const REMEMBERED: usize = 64;

/// The state of a watcher.
pub(super) struct Keeper {
    policy: Policy,
    source: Box<dyn Source>,
    options: WatchOptions,
    /// For asking models about states.
    scratch: Scratch,
    marks: Marks,
    /// What was dealt with last: nothing is done while it is wanted and its files stay as they are.
    settled: Option<Mark>,
    /// What was served last of what is wanted: it is not brought again because its files were touched or signed anew, so that what an
    /// operator put in its place stays.
    brought: Option<(Wanted, ModelVersion)>,
    /// The version of that before the program started, until the source says what it wants now.
    brought_before: Option<ModelVersion>,
    diary: Option<Diary>,
    /// What seemed unfinished at the last look, and since when it has looked like that.
    unfinished: Option<(Mark, Instant)>,
    refused: VecDeque<(Mark, Refusal)>,
    phase: Phase,
    /// What an operator put on trial, what had been counted for it before, and where it lies.
    trial: Option<(ModelId, Counted, Wanted)>,
    wanted: Option<Wanted>,
    pending: Option<Pending>,
    last_refusal: Option<Refusal>,
    counts: Counts,
}

/// What a watcher is in the midst of.
enum Phase {
    Idle,
    Shadow(Box<Shadow>),
    Window(Box<Window>),
}

/// What a look into a release folder gave.
enum Opened {
    /// It is what is served, or what an operator replaced.
    Served(ModelVersion),
    /// It passed every check.
    Sound(Box<LoadedRelease>),
}

impl Keeper {
    /// With what was known when the program before ended.
    pub(super) fn new(
        policy: Policy,
        source: Box<dyn Source>,
        options: WatchOptions,
        memory: Option<Memory>,
    ) -> Keeper {
        let brought_before = memory.and_then(|Memory { served, pinned, brought, rolled_back, .. }| {
            policy.remember_rolled_back(&rolled_back);
            if pinned && policy.status().champion.version == served.version {
                policy.pin();
            }
            brought
        });
        Keeper {
            brought_before,
            diary: options.memory.clone().map(Diary::new),
            scratch: policy.scratch(),
            policy,
            source,
            options,
            marks: Marks::default(),
            settled: None,
            brought: None,
            unfinished: None,
            refused: VecDeque::new(),
            phase: Phase::Idle,
            trial: None,
            wanted: None,
            pending: None,
            last_refusal: None,
            counts: Counts::default(),
        }
    }

    /// Asks the source what is wanted, and deals with it unless that was done.
    pub(super) fn look(&mut self, now: Instant) {
        self.look_after_trial();
        self.pending = None;
        let wanted = match self.source.wanted() {
            Ok(wanted) => wanted,
            Err(error) => {
                let nowhere = Wanted { folder: Default::default(), number: None, within: None };
                let mark = Mark::of(&nowhere);
                return self.refuse(mark, Problem::new(Reason::Source, error.to_string()));
            }
        };
        // A source that fails again later is told of again.
        self.refused.retain(|(_, refusal)| refusal.reason != Reason::Source);
        self.wanted.clone_from(&wanted);
        let Some(wanted) = wanted else {
            self.pending = Some(Pending::Nothing);
            return;
        };
        self.brought.take_if(|(from, _)| *from != wanted);
        if let Some(version) = self.brought_before.take() {
            self.brought = Some((wanted.clone(), version));
        }
        let mark = self.marks.of(&wanted, self.options.max_bytes);
        if self.settled.as_ref() == Some(&mark) {
            return;
        }
        if self.policy.status().pinned {
            self.pending = Some(Pending::Pinned);
            return;
        }
        self.abandon_candidate();
        if let Some((_, refusal)) =
            self.refused.iter().find(|(known, refusal)| *known == mark && !refusal.reason.may_pass())
        {
            self.last_refusal = Some(refusal.clone());
            self.settled = Some(mark);
            return;
        }
        let opened = self.open(&wanted);
        if self.marks.of(&wanted, self.options.max_bytes) != mark {
            // Whatever it was, it is not that any more.
            self.pending = Some(Pending::Incomplete("its files change while they are read".to_owned()));
            return;
        }
        let candidate = match opened {
            Ok(Opened::Served(version)) => {
                self.unfinished = None;
                self.brought = Some((wanted, version));
                self.settled = Some(mark);
                return;
            }
            Ok(Opened::Sound(release)) => self.policy.prepare(*release, wanted.number).map_err(Problem::from),
            Err(problem) if problem.reason == Reason::Missing => {
                self.pending = Some(Pending::Incomplete(problem.text));
                return;
            }
            Err(problem) if problem.reason.may_be_unfinished() && !self.is_at_rest(&mark, now) => {
                self.pending = Some(Pending::Incomplete(problem.text));
                return;
            }
            Err(problem) => Err(problem),
        };
        self.unfinished = None;
        match candidate {
            Ok(candidate) => self.admit(candidate, mark, now),
            Err(problem) => self.refuse(mark, problem),
        }
    }

    /// Goes on with a comparison under way.
    pub(super) fn compare(&mut self, now: Instant) {
        match mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Idle => {}
            Phase::Shadow(shadow) => self.compare_before(shadow, now),
            Phase::Window(window) => self.compare_after(window, now),
        }
        self.policy.listen(self.is_comparing());
        // What a comparison held may have been retired meanwhile.
        self.policy.reap();
    }

    /// Whether states are being compared.
    pub(super) fn is_comparing(&self) -> bool {
        !matches!(self.phase, Phase::Idle)
    }

    /// Puts a release on trial that passes every check.
    pub(super) fn try_out(&mut self, which: &VersionPolicy, share: f64) -> Result<ModelId, WatchError> {
        Policy::check_share(share)?;
        let Some(wanted) = self.source.find(which)? else {
            return Err(WatchError::Absent { source_name: self.source.describe(), which: which.clone() });
        };
        let tried = match self.read_for_trial(&wanted) {
            Ok(candidate) => {
                let champion = self.policy.status().champion;
                if champion.version == candidate.id().version {
                    return Err(WatchError::Champion(champion));
                }
                let before = Counted::of(&self.policy, candidate.id());
                let version = candidate.id().version;
                candidate.try_out(share).map(|id| (id, before)).map_err(|error| Problem::from(error).of(version))
            }
            Err(problem) => Err(problem),
        };
        match tried {
            Ok((id, before)) => {
                tracing::info!(version = %id.version, number = id.number, share, "model put on trial");
                self.counts.tried += 1;
                self.trial = Some((id, before, wanted));
                Ok(id)
            }
            // It is not remembered as refused: the operator may ask again, and what is wanted is another matter.
            Err(problem) => {
                let refusal = problem.refusal(&wanted);
                self.tell_refused(&refusal);
                self.last_refusal = Some(refusal.clone());
                Err(WatchError::Refused(Box::new(refusal)))
            }
        }
    }

    fn read_for_trial(&self, wanted: &Wanted) -> Result<Candidate, Problem> {
        let folder = Folder::open(wanted)?;
        let manifest = folder.manifest(self.options.trusted.as_ref())?;
        let version = manifest.version;
        let release = folder.release(manifest, &self.policy.contract(), &self.options)?;
        self.policy.prepare(release, wanted.number).map_err(|error| Problem::from(error).of(version))
    }

    /// Ends a trial whose model computes what is no number.
    fn look_after_trial(&mut self) {
        let Some((id, before, wanted)) = self.trial.take() else { return };
        // It may have been promoted, withdrawn or replaced.
        if self.policy.status().canary.is_none_or(|(canary, _)| canary != id) {
            return;
        }
        let Some(problem) = Counted::of(&self.policy, id).failure_since(&before) else {
            self.trial = Some((id, before, wanted));
            return;
        };
        // Otherwise the operator was faster.
        if self.policy.withdraw_expected(id).is_ok() {
            let refusal = problem.of(id.version).refusal(&wanted);
            tracing::warn!(version = %id.version, reason = %refusal.reason, text = %refusal.text, "canary withdrawn");
            self.counts.roll_back(refusal.reason);
            self.last_refusal = Some(refusal);
        }
    }

    /// Forgets what was refused and rolled back.
    pub(super) fn forgive(&mut self) {
        self.refused.clear();
        self.policy.forgive();
        self.last_refusal = None;
        self.settled = None;
        self.brought = None;
        self.brought_before = None;
    }

    /// Writes down what a restart must know, where that is asked for and it changed.
    pub(super) fn write_down(&mut self) {
        let Some(diary) = &mut self.diary else { return };
        let brought = self.brought.as_ref().map(|(_, version)| *version).or(self.brought_before);
        diary.keep(Memory::of(&self.policy, brought));
    }

    /// Fails where that could not be done.
    pub(super) fn check_written(&self) -> Result<(), WatchError> {
        self.diary.as_ref().map_or(Ok(()), Diary::check)
    }

    /// Leaves the policy as it is.
    pub(super) fn end(mut self) {
        self.phase = Phase::Idle;
        self.policy.listen(false);
        self.policy.reap();
    }

    /// What there is to see.
    pub(super) fn show(&self, now: Instant) -> (WatchStatus, Counts) {
        let (shadow, window) = match &self.phase {
            Phase::Idle => (None, None),
            Phase::Shadow(shadow) => (Some(shadow.status(now)), None),
            Phase::Window(window) => (None, Some(window.status(now))),
        };
        let status = WatchStatus {
            source: self.source.describe(),
            wanted: self.wanted.clone(),
            serving: self.policy.status().champion,
            pending: self.pending.clone(),
            last_refusal: self.last_refusal.clone(),
            shadow,
            window,
            unwritten: self.diary.as_ref().and_then(Diary::failure).map(str::to_owned),
        };
        (status, self.counts.clone())
    }

    fn open(&self, wanted: &Wanted) -> Result<Opened, Problem> {
        let folder = Folder::open(wanted)?;
        let manifest = folder.manifest(self.options.trusted.as_ref())?;
        let version = manifest.version;
        if version == self.policy.status().champion.version {
            return Ok(Opened::Served(version));
        }
        if self.policy.was_rolled_back(version) {
            return Err(Problem::rolled_back().of(version));
        }
        if self.brought.as_ref().is_some_and(|(_, brought)| *brought == version) {
            return Ok(Opened::Served(version));
        }
        let release = folder.release(manifest, &self.policy.contract(), &self.options)?;
        Ok(Opened::Sound(Box::new(release)))
    }

    /// Whether what seems unfinished has stayed as it is for long enough to be taken for what it is.
    fn is_at_rest(&mut self, mark: &Mark, now: Instant) -> bool {
        let since = match &self.unfinished {
            Some((known, since)) if known == mark => *since,
            _ => now,
        };
        self.unfinished = Some((mark.clone(), since));
        now.saturating_duration_since(since) >= self.options.settle
    }

    /// Compares a sound model with the champion, or swaps it in.
    fn admit(&mut self, candidate: Candidate, mark: Mark, now: Instant) {
        let (against, _) = self.policy.kept();
        let Some(options) = self.options.shadow else {
            let expected = against.id();
            drop(against);
            return self.swap(candidate, expected, mark, now);
        };
        tracing::info!(version = %candidate.id().version, number = candidate.id().number, "comparing before a swap");
        self.settled = Some(mark.clone());
        self.end_window();
        self.start_listening();
        let found = Found::default();
        self.phase = Phase::Shadow(Box::new(Shadow { options, candidate, against, mark, since: now, found }));
    }

    fn compare_before(&mut self, mut shadow: Box<Shadow>, now: Instant) {
        if self.policy.status().champion != shadow.against.id() {
            // Somebody changed the champion, so the comparison is with the wrong one: it begins anew at the next look.
            self.counts.superseded += 1;
            self.settled = None;
            return;
        }
        let before = shadow.found;
        let judgement = shadow.judge(&self.policy, &mut self.scratch, now);
        self.counts.shadow_states += shadow.found.states - before.states;
        self.counts.shadow_disagreements += shadow.found.disagreements - before.disagreements;
        match judgement {
            Judgement::Open => self.phase = Phase::Shadow(shadow),
            Judgement::Passed => {
                let Shadow { candidate, against, mark, .. } = *shadow;
                self.swap(candidate, against.id(), mark, now);
            }
            Judgement::Failed(problem) => {
                let version = shadow.candidate.id().version;
                self.refuse(shadow.mark, problem.of(version));
            }
        }
    }

    /// Makes a model the champion and begins to watch it.
    fn swap(&mut self, candidate: Candidate, expected: ModelId, mark: Mark, now: Instant) {
        let id = candidate.id();
        let before = Counted::of(&self.policy, id);
        match candidate.swap_in(expected) {
            Ok(replaced) => {
                tracing::info!(version = %id.version, number = id.number, replaced = %replaced.version, "model swapped in");
                self.end_window();
                self.counts.swapped += 1;
                self.last_refusal = None;
                self.settled = Some(mark.clone());
                self.brought = Some((mark.wanted.clone(), id.version));
                self.watch(id, before, mark, now);
            }
            // It is tried again when the operator lets go.
            Err(error) if is_operators(&error) => {
                self.settled = None;
                self.counts.superseded += 1;
            }
            Err(error) => self.refuse(mark, Problem::from(error).of(id.version)),
        }
    }

    fn watch(&mut self, id: ModelId, before: Counted, mark: Mark, now: Instant) {
        let (model, previous) = self.policy.kept();
        // Nobody waits for us: the operator may have changed the champion already.
        let (Some(options), Some(previous)) = (self.options.window.filter(|_| model.id() == id), previous) else {
            return;
        };
        self.start_listening();
        let found = Found::default();
        self.phase = Phase::Window(Box::new(Window { options, model, previous, mark, since: now, found, before }));
    }

    fn compare_after(&mut self, mut window: Box<Window>, now: Instant) {
        let id = window.model.id();
        if self.policy.status().champion != id {
            // The operator was faster.
            self.counts.superseded += 1;
            return;
        }
        let before = window.found;
        let judgement = window.judge(&self.policy, &mut self.scratch, now);
        self.counts.window_states += window.found.states - before.states;
        self.counts.window_disagreements += window.found.disagreements - before.disagreements;
        match judgement {
            Judgement::Open => self.phase = Phase::Window(window),
            Judgement::Passed => tracing::info!(version = %id.version, "model proved itself"),
            Judgement::Failed(problem) => match self.policy.roll_back_from(id) {
                Ok(back) => {
                    let Window { mark, .. } = *window;
                    let refusal = problem.of(id.version).refusal(&mark.wanted);
                    let (reason, text) = (refusal.reason, &refusal.text);
                    // What a restart forgets is told while somebody can still act on it.
                    let advice = self.diary.is_none().then_some(
                        "a restart without a memory serves what the source wants: move the name, or take the release out",
                    );
                    tracing::warn!(version = %id.version, back_to = %back.version, %reason, %text, advice, "model rolled back");
                    self.counts.roll_back(reason);
                    self.remember(mark, refusal);
                }
                Err(error) => {
                    tracing::warn!(version = %id.version, reason = %problem.reason, %error, "model not rolled back");
                    self.counts.superseded += 1;
                }
            },
        }
    }

    /// Throws away what deciders set aside before, and has them set aside more.
    fn start_listening(&self) {
        self.policy.drain_samples(|_, _| ());
        self.policy.listen(true);
    }

    /// Ends the comparison of a candidate because something else is wanted. A champion is watched on: it decides until another
    /// takes its place, whatever is wanted and refused meanwhile.
    fn abandon_candidate(&mut self) {
        if let Phase::Shadow(_) = self.phase {
            self.phase = Phase::Idle;
            // It was not swapped in, so it is new if it is wanted again.
            self.settled = None;
            self.counts.superseded += 1;
        }
    }

    /// Ends the watch of a champion because another model takes its place, or is compared with it.
    fn end_window(&mut self) {
        if let Phase::Window(_) = self.phase {
            self.phase = Phase::Idle;
            self.counts.superseded += 1;
        }
    }

    /// Keeps what is served, and says so once.
    fn refuse(&mut self, mark: Mark, problem: Problem) {
        let refusal = problem.refusal(&mark.wanted);
        // What may pass is tried at every look, and told when it is new.
        let told = self.refused.iter().any(|(known, before)| *known == mark && before.reason == refusal.reason);
        if !told {
            self.tell_refused(&refusal);
        }
        self.remember(mark, refusal);
    }

    fn tell_refused(&mut self, Refusal { folder, number, reason, text, .. }: &Refusal) {
        tracing::warn!(folder = %folder.display(), number, %reason, %text, "release refused");
        self.counts.refuse(*reason);
    }

    fn remember(&mut self, mark: Mark, refusal: Refusal) {
        // A source that has no answer says nothing about the release that was dealt with last.
        if refusal.reason != Reason::Source {
            self.settled = (!refusal.reason.may_pass()).then(|| mark.clone());
        }
        self.last_refusal = Some(refusal.clone());
        self.refused.retain(|(known, _)| *known != mark);
        if self.refused.len() == REMEMBERED {
            self.refused.pop_front();
        }
        self.refused.push_back((mark, refusal));
    }
}
