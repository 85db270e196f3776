//! What a program that is killed leaves of an episode, and what is made of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use bellwether_env_adapter::Action;
use bellwether_replay::episodes::End;
use bellwether_sandbox::episode::{Episode, EpisodeFolder, Listener, Partial, Transition, run};
use bellwether_sandbox::report::write_episode;
use bellwether_sandbox::stage::Question;
use proptest::prelude::*;

use super::scripted::{Script, Scripted, read_events, read_steps};
use super::{Paused, Rule, sealed, setup};

/// Copies what lies in the folder of an episode when it has come so far, as a program leaves it that is killed there.
struct Killed {
    at: u64,
    folder: PathBuf,
    to: PathBuf,
}

impl Listener for Killed {
    fn transition(&mut self, transition: &Transition) -> Result<(), String> {
        if transition.number == self.at {
            for name in left(&self.folder) {
                std::fs::copy(self.folder.join(&name), self.to.join(&name)).unwrap();
            }
        }
        Ok(())
    }
}

fn left(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn nothing() -> std::os::fd::OwnedFd {
    std::io::pipe().unwrap().0.into()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whenever a program is killed, every event before the last decision that was told, every decision and what came of them is
    /// kept, in the files of an episode that says that it was cut off; a line that was torn spoils nothing.
    #[test]
    fn what_was_told_outlives_whoever_was_told(
        windows in prop::collection::vec(1u32..30, 1..8),
        actions in prop::collection::vec(0usize..2, 8),
        at in 0u64..24,
        torn in any::<bool>(),
        seedless in any::<bool>(),
    ) {
        let root = tempfile::tempdir().unwrap();
        let (folder, copy) = (root.path().join("e1"), root.path().join("copy"));
        std::fs::create_dir(&copy).unwrap();
        let setup = setup(&folder, nothing(), 2);
        let stage = Scripted::new(Script { windows, ..Script::default() });
        let mut judge = Rule(|question: &Question| {
            let action = Action::from_index(actions[question.step as usize]).unwrap();
            Ok(match question.close.is_last() {
                true => Action::Release,
                false if question.mask[action.index()] => action,
                false => Action::Continue,
            })
        });
        let killed = Killed { at, folder: folder.clone(), to: copy.clone() };
        let whole = run(&setup, Episode {
            stages: [&stage, &stage],
            judge: &mut judge,
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: vec![Box::new(killed)],
            clock: &Paused::default(),
            stop: &std::sync::atomic::AtomicBool::new(false),
        }).unwrap();
        prop_assert!(whole.partial.is_empty());
        // Killed while reports were made of it, it comes to the same.
        prop_assert_eq!(setup.folder.recover().unwrap(), Some(whole.clone()));
        setup.folder.settle().unwrap();
        prop_assert!(left(&folder).iter().all(|name| !name.starts_with('.')), "{:?}", left(&folder));
        prop_assert_eq!(setup.folder.recover().unwrap(), None, "what is settled is not recovered");
        let copied = EpisodeFolder::take(&copy).unwrap();
        if seedless {
            // As journals were before they told the seed.
            for name in left(&copy) {
                let text = std::fs::read_to_string(copy.join(&name)).unwrap();
                let text = text.replace(&format!(",\"seed\":{}", setup.seed), "");
                let file = std::fs::OpenOptions::new().write(true).truncate(true).open(copy.join(name));
                file.unwrap().write_all(text.as_bytes()).unwrap();
            }
        }
        if torn {
            for name in left(&copy) {
                let file = std::fs::File::options().append(true).open(copy.join(name));
                file.unwrap().write_all(b"{\"transition\":{\"episode\":").unwrap();
            }
        }
        let Some(report) = copied.recover().unwrap() else {
            // It ended before it came so far.
            prop_assert!(left(&copy).is_empty());
            return Ok(());
        };
        prop_assert_eq!(report.seed, (!seedless).then_some(setup.seed));
        let decided = report.decisions.len();
        prop_assert_eq!(&report.decisions[..], &whole.decisions[..decided]);
        prop_assert_eq!(&report.feedback[..], &whole.feedback[..report.feedback.len()]);
        let cut_off = |partial: &Partial| matches!(partial, Partial::Record { why } if why.contains("was killed"));
        prop_assert!(report.partial.last().is_some_and(cut_off));
        let (found, told) = (read_events(&report), read_events(&whole).events);
        prop_assert_eq!(&found.events[..], &told[..found.events.len()]);
        prop_assert!(found.events.is_empty() || found.complete == Some(false));
        if let Some(last) = report.decisions.last() {
            let before = told.iter().filter(|(stage, _)| *stage < last.stage).count();
            prop_assert!(found.events.len() as u64 >= before as u64 + last.events_seen);
        }
        let (rows, all) = (read_steps(&report), read_steps(&whole));
        prop_assert_eq!(rows.len(), decided);
        for (number, (row, same)) in rows.iter().zip(&all).enumerate() {
            prop_assert_eq!((&row.state, row.played.map(|played| played.action)), (&same.state, same.played.map(|played| played.action)));
            let end = match number + 1 == decided {
                false => None,
                true if report.verdict.is_some() => Some(End::Terminated),
                true => Some(End::Truncated),
            };
            prop_assert_eq!((row.end, row.partial), (end, end.is_some()));
        }
        let reports = write_episode(&copy, &report, "0").unwrap();
        prop_assert_eq!(reports.events, found.events.len() as u64);
        let cape: serde_json::Value = serde_json::from_slice(&std::fs::read(reports.cape).unwrap()).unwrap();
        prop_assert_eq!(cape["bellwether_windows"].as_array().unwrap().len(), decided, "every decision is told of");
        prop_assert_eq!(cape["bellwether"]["partial"].as_array().unwrap().len(), report.partial.len());
        prop_assert_eq!(cape.get("malscore").is_some(), report.verdict.is_some());
        copied.settle().unwrap();
        prop_assert!(left(&copy).iter().all(|name| !name.starts_with('.')));
    }
}
