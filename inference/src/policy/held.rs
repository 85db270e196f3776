//! One model, held while several things are asked of it.

use std::sync::atomic::AtomicBool;

use bellwether_artifact::OperatingPoint;

use super::decider::Notes;
use super::served::{Model, Serving};
use super::{Answer, ModelId, Role};
use crate::engine::{Backend, DecideError, Scratch};

/// Champion and canary as they stood at one moment: see [`Decider::hold_all`](super::Decider::hold_all).
#[derive(Debug)]
pub struct HeldAll<'a> {
    serving: &'a Serving,
    scratch: &'a mut Scratch,
    notes: &'a mut Notes,
    listening: &'a AtomicBool,
}

/// The model that decides for one request: see [`Decider::hold`](super::Decider::hold).
#[derive(Debug)]
pub struct Held<'a> {
    model: &'a Model,
    role: Role,
    scratch: &'a mut Scratch,
    notes: &'a mut Notes,
    listening: &'a AtomicBool,
}

impl<'a> HeldAll<'a> {
    pub(super) fn new(
        serving: &'a Serving,
        scratch: &'a mut Scratch,
        notes: &'a mut Notes,
        listening: &'a AtomicBool,
    ) -> Self {
        HeldAll { serving, scratch, notes, listening }
    }

    /// The model among them that decides for `episode`, the champion without one.
    pub fn choose(&mut self, episode: Option<u64>) -> Held<'_> {
        let HeldAll { serving, scratch, notes, listening } = self;
        let (model, role) = serving.choose(episode);
        Held { model, role, scratch, notes, listening }
    }
}

impl Held<'_> {
    /// Which model it is.
    pub fn id(&self) -> ModelId {
        self.model.id
    }

    /// What evaluates it.
    pub fn backend(&self) -> Backend {
        self.model.engine.backend()
    }

    /// Why it decides.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The rows of its table of operating points, by ascending target.
    pub fn operating_points(&self) -> &[OperatingPoint] {
        &self.model.operating_points
    }

    /// Its action for `state` among those that `mask` allows, as [`Decider::decide`](super::Decider::decide).
    ///
    /// # Errors
    /// As that one. Refusals are counted.
    pub fn decide(&mut self, state: &[f32], mask: &[bool]) -> Result<Answer<'_>, DecideError> {
        let start = self.notes.start();
        self.notes.decide((self.model, self.role), self.scratch, self.listening, start, state, mask)
    }
}
