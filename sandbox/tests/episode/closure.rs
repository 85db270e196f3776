//! From a decision to its action, to what came of it, and into the report.

use std::collections::BTreeMap;

use bellwether_env_adapter::Action;
use bellwether_sandbox::episode::{Happening, Partial};
use bellwether_sandbox::stage::{Came, Command, Proof, Question};
use proptest::prelude::*;

use super::scripted::{Script, Scripted};
use super::{Rule, play, setup};

fn nothing() -> std::os::fd::OwnedFd {
    std::io::pipe().unwrap().0.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Every decision goes out once, as a command that carries its whole context. What came of every action is heard, once however
    /// often it is told, and joined with its decision; where it is not heard the episode says of how many.
    #[test]
    fn every_action_is_answered_for_or_missed_by_number(
        windows in prop::collection::vec(1u32..5, 1..10),
        choices in prop::collection::vec(0usize..5, 10),
        silent in prop::bool::weighted(0.3),
        twice in any::<bool>(),
        stages in 1u8..=2,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let setup = setup(folder.path(), nothing(), stages);
        let script = Script { windows, silent, twice, ..Script::default() };
        let stage = Scripted::new(script);
        let mut asked: Vec<Question> = Vec::new();
        let mut judge = Rule(|question: &Question| {
            asked.push(question.clone());
            let action = Action::from_index(choices[question.step as usize]).unwrap();
            Ok(if question.mask[action.index()] { action } else { Action::Release })
        });
        let (report, transitions, _) = play(&setup, [&stage, &stage], &mut judge);

        // One command for each question, with all that it is about.
        let commands: Vec<&Command> = transitions
            .iter()
            .filter_map(|transition| match &transition.happening {
                Happening::Decided { command, .. } if !transition.stray => Some(command),
                _ => None,
            })
            .collect();
        prop_assert_eq!(commands.len(), asked.len());
        for (command, question) in commands.iter().zip(&asked) {
            prop_assert_eq!(*command, &Command::to(question, command.action));
            prop_assert_eq!(&command.decision, &question.decision());
            prop_assert!(question.mask[command.action.index()]);
        }
        prop_assert_eq!(report.decisions.len(), asked.len());

        // One answer that counts for each action.
        let mut heard: BTreeMap<_, u32> = BTreeMap::new();
        for transition in &transitions {
            if let (Happening::Fed { feedback }, false) = (&transition.happening, transition.stray) {
                *heard.entry(feedback.decision.clone().unwrap()).or_default() += 1;
            }
        }
        let acted: Vec<_> = commands.iter().filter(|command| command.action != Action::Continue).collect();
        if silent {
            let missed: usize = report.partial.iter().map(|partial| match partial {
                Partial::Feedback { commands } => *commands,
                _ => 0,
            }).sum();
            prop_assert!(heard.is_empty());
            prop_assert_eq!(missed, acted.len());
        } else {
            prop_assert_eq!(heard.len(), acted.len());
            prop_assert!(report.partial.is_empty(), "{:?}", report.partial);
            for command in &acted {
                prop_assert_eq!(heard[&command.decision], 1);
                let mut came = report.feedback.iter().filter(|feedback| feedback.decision.as_ref() == Some(&command.decision));
                let feedback = came.next().unwrap();
                prop_assert_eq!((feedback.stage, feedback.action), (command.context.stage, command.action));
                prop_assert_eq!(feedback.level, command.context.level_after);
                prop_assert_eq!(&feedback.came, &Came::Done { proof: if feedback.action.is_verdict() { Proof::EmptyCgroup } else { Proof::NetworkDown } });
                prop_assert_eq!(came.count(), usize::from(twice));
            }
            prop_assert_eq!(report.strays, if twice { acted.len() as u64 } else { 0 });
        }
    }
}
