//! Which commands were carried out, so that each is carried out once and in order.

use std::collections::BTreeMap;

use super::{Command, DecisionId, Feedback, Question, Refusal};

/// What has been commanded in one run. It grows by one entry for each action other than `continue`: by three raises and a
/// verdict at most.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    done: BTreeMap<DecisionId, (Command, Option<Feedback>)>,
    /// The question that was last answered.
    newest: Option<u32>,
    over: bool,
}

/// What is to become of a command that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is carried out.
    Apply,
    /// It has been, or is being, carried out; with what came of it, once that is known.
    Repeated(Option<Feedback>),
    /// It is not carried out.
    Refuse(Refusal),
}

impl Ledger {
    /// Judges a command that answers `question`, the one that stands open.
    pub fn admit(&mut self, command: &Command, question: &Question) -> Admission {
        let Command { decision, context, action } = command;
        if let Some((before, feedback)) = self.done.get(decision) {
            return match before == command {
                true => Admission::Repeated(feedback.clone()),
                false => Admission::Refuse(Refusal::Name),
            };
        }
        let place = (&context.episode, context.stage) == (&question.episode, question.stage);
        if !place || *decision != DecisionId::new(&context.episode, context.stage, context.step) {
            return Admission::Refuse(Refusal::Context);
        }
        if self.over {
            return Admission::Refuse(Refusal::Over);
        }
        if self.newest.is_some_and(|newest| context.step <= newest) {
            return Admission::Refuse(Refusal::Stale);
        }
        if *command != Command::to(question, *action) {
            return Admission::Refuse(Refusal::Context);
        }
        if !question.mask[action.index()] {
            return Admission::Refuse(Refusal::Masked);
        }
        self.newest = Some(context.step);
        self.over = action.is_verdict();
        if *action != bellwether_env_adapter::Action::Continue {
            self.done.insert(decision.clone(), (command.clone(), None));
        }
        Admission::Apply
    }

    /// Keeps what came of a command, for whoever sends it again.
    pub fn settle(&mut self, feedback: &Feedback) {
        if let Some(decision) = &feedback.decision
            && let Some((_, came)) = self.done.get_mut(decision)
        {
            *came = Some(feedback.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::Close;
    use bellwether_env_adapter::{Action, EpisodeId, action};
    use proptest::prelude::*;

    fn question(step: u32, level: u8) -> Question {
        Question {
            episode: EpisodeId("e".to_owned()),
            stage: 1,
            step,
            window: step,
            events: 16,
            toll: Default::default(),
            events_seen: 16 * u64::from(step + 1),
            time_ns: 0,
            level,
            close: Close::Window,
            mask: action::mask(false, level < 3),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        /// Commands arrive twice, late and out of order. Each decision takes hold at most once, decisions take hold in the
        /// order of their questions, and nothing does after a verdict.
        #[test]
        fn each_decision_takes_hold_at_most_once_and_in_order(
            actions in prop::collection::vec(0usize..5, 1..20),
            arrivals in prop::collection::vec((0usize..20, 0usize..20), 1..80),
        ) {
            let mut ledger = Ledger::default();
            let mut applied: Vec<(u32, Action)> = Vec::new();
            let mut level = 0;
            for (sent, open) in arrivals {
                let (sent, open) = (sent % actions.len(), open % actions.len());
                let action = Action::from_index(actions[sent]).unwrap();
                let command = Command::to(&question(sent as u32, level), action);
                let question = question(open as u32, level);
                match ledger.admit(&command, &question) {
                    Admission::Apply => {
                        prop_assert_eq!(sent, open, "a command answers the question that stands open");
                        prop_assert!(question.mask[action.index()]);
                        level += u8::from(action == Action::RaiseIsolation);
                        applied.push((sent as u32, action));
                        if action != Action::Continue {
                            prop_assert_eq!(ledger.admit(&command, &question), Admission::Repeated(None));
                        }
                    }
                    Admission::Repeated(_) => prop_assert!(applied.iter().any(|(step, _)| *step == sent as u32)),
                    Admission::Refuse(Refusal::Over) => prop_assert!(applied.iter().any(|(_, a)| a.is_verdict())),
                    Admission::Refuse(_) => {}
                }
            }
            prop_assert!(applied.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let verdict = applied.iter().position(|(_, action)| action.is_verdict());
            prop_assert!(verdict.is_none_or(|verdict| verdict + 1 == applied.len()));
            prop_assert!(level <= 3);
        }

        /// A command that lacks or forges any part of its context is refused.
        #[test]
        fn a_command_with_any_part_of_its_context_changed_is_refused(part in 0usize..6, action in 0usize..5) {
            let question = question(7, 1);
            let action = Action::from_index(action).unwrap();
            let mut command = Command::to(&question, action);
            match part {
                0 => command.context.episode = EpisodeId("other".to_owned()),
                1 => command.context.stage = 2,
                2 => command.context.step += 1,
                3 => command.context.window += 1,
                4 => command.context.level += 1,
                _ => command.context.level_after += 1,
            }
            prop_assert_eq!(Ledger::default().admit(&command, &question), Admission::Refuse(Refusal::Context));
        }
    }

    #[test]
    fn what_came_of_a_command_is_told_to_whoever_sends_it_again() {
        let mut ledger = Ledger::default();
        let question = question(0, 0);
        let command = Command::to(&question, Action::RaiseIsolation);
        assert_eq!(ledger.admit(&command, &question), Admission::Apply);
        let feedback = Feedback {
            decision: Some(command.decision.clone()),
            stage: 1,
            action: Action::RaiseIsolation,
            level: 1,
            came: crate::stage::Came::Done { proof: crate::stage::Proof::NetworkDown },
            took_us: 80,
            attempts: 1,
        };
        ledger.settle(&feedback);
        assert_eq!(ledger.admit(&command, &question), Admission::Repeated(Some(feedback)));
        let forged = Command { action: Action::Release, ..command };
        assert_eq!(ledger.admit(&forged, &question), Admission::Refuse(Refusal::Name));
    }
}
