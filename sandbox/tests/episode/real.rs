//! Real samples in real cages. Where this machine cannot cage anything, they are skipped by name.
#![allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]

use std::io::{Seek, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use bellwether_env_adapter::Action;
use bellwether_sandbox::Limits;
use bellwether_sandbox::episode::{Away, Partial, Report, Setup};
use bellwether_sandbox::stage::{Came, Close, Ended, LocalStage, Proof, Question};

use super::{Rule, play, setup};

/// One cage at a time: they share two cores with everything else.
static TURN: Mutex<()> = Mutex::new(());

fn script(text: &str) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(b"#!/bin/sh\n").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file.into()
}

/// Runs a script; `None`, and why on standard error, where this machine has no sandbox.
fn detonate(
    name: &str,
    text: &str,
    change: impl FnOnce(Setup) -> Setup,
    rule: impl FnMut(&Question) -> Result<Action, Away> + Send,
) -> Option<Report> {
    let folder = tempfile::tempdir().unwrap();
    detonate_file(name, change(setup(folder.path(), script(text), 1)), rule)
}

/// The same of any file.
pub(super) fn detonate_file(
    name: &str,
    setup: Setup,
    rule: impl FnMut(&Question) -> Result<Action, Away> + Send,
) -> Option<Report> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (report, _, _) = play(&setup, [&LocalStage, &LocalStage], &mut Rule(rule));
    if let [Partial::Unstarted { why, .. }] = &report.partial[..] {
        assert!(why.contains("doctor") || why.contains("namespaces") || why.contains("traced"), "{why}");
        eprintln!("skipped {name}: {why}");
        return None;
    }
    let events = report.outcomes.iter().map(|outcome| outcome.events).sum::<u64>();
    assert_eq!(report.files.as_ref().unwrap().events, events, "every event is in the file");
    assert!(Path::new("/proc/self").exists());
    Some(report)
}

pub(super) fn wait_then_release(question: &Question) -> Result<Action, Away> {
    Ok(if question.close.is_last() { Action::Release } else { Action::Continue })
}

#[test]
fn a_sample_that_ends_by_itself_gets_its_verdict_at_the_end() {
    let Some(report) = detonate(
        "a_sample_that_ends_by_itself_gets_its_verdict_at_the_end",
        "echo hello > note; rm -f Documents/none; exit 3\n",
        |setup| setup,
        wait_then_release,
    ) else {
        return;
    };
    let outcome = &report.outcomes[0];
    assert_eq!(report.partial, []);
    assert_eq!((report.verdict, outcome.verdict_at), (Some(Action::Release), Some(Close::End)));
    assert_eq!(outcome.ended, Ended::Exited { code: 3 });
    let created: Vec<_> = outcome.changes.as_ref().unwrap().created.iter().map(|found| found.path.as_str()).collect();
    assert!(created.contains(&"/home/user/work/note"), "{created:?}");
}

#[test]
fn both_stages_run_under_other_names() {
    let Some(report) = detonate(
        "both_stages_run_under_other_names",
        "echo x > \"$HOME/$(hostname)\"\n",
        |setup| Setup { stages: 2, ..setup },
        wait_then_release,
    ) else {
        return;
    };
    assert_eq!((report.verdict, report.stage, &report.partial[..]), (Some(Action::Release), 2, &[][..]));
    let created = |stage: usize| {
        let changes = report.outcomes[stage].changes.as_ref().unwrap();
        changes.created.iter().map(|found| found.path.clone()).collect::<Vec<_>>()
    };
    assert!(created(0).contains(&"/home/user/desk".to_owned()), "{:?}", created(0));
    assert!(!created(1).contains(&"/home/user/desk".to_owned()) && created(1).len() == created(0).len());
}

#[test]
fn time_runs_out_and_a_verdict_falls() {
    let Some(report) = detonate(
        "time_runs_out_and_a_verdict_falls",
        "while :; do sleep 0.01; done\n",
        |setup| Setup { limits: [Limits { time_ms: 400, ..Limits::default() }, Limits::default()], ..setup },
        wait_then_release,
    ) else {
        return;
    };
    let outcome = &report.outcomes[0];
    assert_eq!((report.verdict, outcome.verdict_at), (Some(Action::Release), Some(Close::Time)));
    assert!(report.partial.is_empty() && outcome.dead.is_some(), "{:?}", report.partial);
}

/// Processes that have this word among their arguments.
fn with_argument(word: &str) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of = |entry: std::fs::DirEntry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
    processes.map(of).filter(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())).count()
}

#[test]
fn time_runs_out_for_a_sample_whose_watch_waits_for_something_else() {
    let (mut before, mut died) = (0, false);
    let Some(report) = detonate(
        "time_runs_out_for_a_sample_whose_watch_waits_for_something_else",
        "sh -c 'while :; do :; done' 48151623 &\nwhile :; do sleep 0.01; done\n",
        |setup| Setup { limits: [Limits { time_ms: 400, ..Limits::default() }, Limits::default()], ..setup },
        |question| {
            before = before.max(with_argument("48151623"));
            if before > 0 && !died {
                let asked = std::time::Instant::now();
                while !died && asked.elapsed().as_secs() < 60 {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                    died = with_argument("48151623") == 0;
                }
            }
            wait_then_release(question)
        },
    ) else {
        return;
    };
    assert!(before > 0 && died, "it outlived its time: {before} {:?}", report.partial);
    assert!(report.outcomes[0].dead.is_some());
}

#[test]
fn a_verdict_kills_in_the_midst() {
    let Some(report) = detonate(
        "a_verdict_kills_in_the_midst",
        "while :; do echo x >> \"$HOME/filled\"; done & while :; do echo y >> \"$HOME/filled2\"; done\n",
        |setup| setup,
        |question| Ok(if question.step < 20 { Action::Continue } else { Action::Terminate }),
    ) else {
        return;
    };
    let outcome = &report.outcomes[0];
    assert_eq!(report.partial, []);
    assert_eq!((report.verdict, report.decisions.len()), (Some(Action::Terminate), 21));
    let last = report.feedback.last().unwrap();
    assert!(matches!(last.came, Came::Done { proof: Proof::EmptyCgroup | Proof::EndedInit }), "{last:?}");
    assert!(matches!(outcome.ended, Ended::Killed { signal: 9 }), "{:?}", outcome.ended);
}

#[test]
fn each_level_takes_hold_while_the_sample_runs() {
    let Some(report) = detonate(
        "each_level_takes_hold_while_the_sample_runs",
        "i=0; while [ $i -lt 400 ]; do echo $i > \"$HOME/written\"; ( : ); i=$((i+1)); done; exit 0\n",
        |setup| setup,
        |question| {
            Ok(match question.step {
                10 | 20 | 30 => Action::RaiseIsolation,
                step if step < 60 && !question.close.is_last() => Action::Continue,
                _ => Action::Terminate,
            })
        },
    ) else {
        return;
    };
    let proofs: Vec<_> = report
        .feedback
        .iter()
        .filter(|feedback| feedback.action == Action::RaiseIsolation)
        .map(|feedback| (feedback.level, feedback.came.clone()))
        .collect();
    let done = |proof| Came::Done { proof };
    let wanted = [(1, done(Proof::NetworkDown)), (2, done(Proof::MountsReadOnly)), (3, done(Proof::ProcessesRefused))];
    assert_eq!(proofs, wanted, "{:?} {:?}", report.partial, report.outcomes[0].faults);
    assert!(report.outcomes[0].denied > 0, "writes and processes are denied from then on");
    assert_eq!(report.partial, []);
}

#[test]
fn a_sample_that_cannot_run_is_no_verdict() {
    let Some(report) = detonate(
        "a_sample_that_cannot_run_is_no_verdict",
        "",
        |setup| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"neither a program nor a script").unwrap();
            file.rewind().unwrap();
            let sample = bellwether_sandbox::stage::Specimen {
                memory: file.into(),
                name: "data".to_owned(),
                arguments: Vec::new(),
                marked_home: false,
            };
            Setup { sample: sample.into(), ..setup }
        },
        wait_then_release,
    ) else {
        return;
    };
    assert_eq!(report.verdict, None);
    assert!(!report.partial.is_empty());
}

#[test]
fn a_second_stage_has_a_user_at_work_and_no_long_waits() {
    // Stage 1 has neither, and would take eleven hours.
    let text = "[ -e \"$HOME/.xsession-errors\" ] || exit 0\n\
        a=$(date +%s); sleep 40000; b=$(date +%s); [ $((b - a)) -ge 40000 ] && : > slept\n\
        cd \"$HOME\"; all=\"$(find . -type f | sort)\"; first=$(cat $all 2> /dev/null | cksum); i=0\n\
        while [ $i -lt 3000 ]; do [ \"$first\" = \"$(cat $all 2> /dev/null | cksum)\" ] || { : > work/seen; break; }; sleep 1; i=$((i+1)); done\n";
    let Some(report) = detonate(
        "a_second_stage_has_a_user_at_work_and_no_long_waits",
        text,
        |setup| Setup { stages: 2, ..setup },
        wait_then_release,
    ) else {
        return;
    };
    assert_eq!((report.verdict, &report.partial[..]), (Some(Action::Release), &[][..]));
    let [first, second] = &report.outcomes[..] else { unreachable!("{:?}", report.outcomes) };
    assert_eq!((first.host_name.as_str(), first.skipped_ms), ("desk", 0));
    // What is not skipped of a wait has passed.
    assert!(second.skipped_ms + second.run_ms >= 40_000_000 && second.run_ms < second.skipped_ms / 10, "{second:?}");
    let changes = second.changes.as_ref().unwrap();
    let created: Vec<_> = changes.created.iter().map(|found| found.path.as_str()).collect();
    assert_eq!(created, ["/home/anna/work/seen", "/home/anna/work/slept"]);
    assert_eq!(
        (&changes.changed[..], &changes.deleted[..]),
        (&[][..], &[][..]),
        "what the user does is not the sample's"
    );
}

#[test]
fn a_sample_talks_to_a_made_up_world() {
    const TEST: &str = "a_sample_talks_to_a_made_up_world";
    if !Path::new("/bin/bash").exists() {
        eprintln!("skipped {TEST}: no /bin/bash, which can connect");
        return;
    }
    // The port of the peer is answered where the home is marked, on the sample's own addresses; the world wherever it is.
    let text = "talk() { bash -c \"exec 3<>/dev/tcp/$1 && echo hello >&3 && read -r line <&3 && [ \\\"\\${line%% *}\\\" = OK ]\"; }\n\
        talk 127.5.6.7/8080 && : > peer\ntalk files.example/4444 && : > world\ntalk 127.5.6.7/8081 && : > closed\n";
    let marked = |setup: Setup| {
        let bellwether_sandbox::stage::Specimen { memory, name, .. } = &*setup.sample;
        let (memory, name) = (memory.try_clone().unwrap(), name.clone());
        let sample = bellwether_sandbox::stage::Specimen { memory, name, arguments: Vec::new(), marked_home: true };
        Setup { sample: sample.into(), ..setup }
    };
    let Some(report) = detonate(TEST, text, marked, wait_then_release) else { return };
    let outcome = &report.outcomes[0];
    let created: Vec<_> = outcome.changes.as_ref().unwrap().created.iter().map(|found| found.path.as_str()).collect();
    let contacts = outcome.traffic.as_ref().map(|traffic| traffic.contacts.len());
    match outcome.lacking.iter().find(|lacking| lacking.contains("decoy network")) {
        None => {
            assert_eq!(created, ["/home/user/work/peer", "/home/user/work/world"]);
            // A name is asked for by packets first.
            assert!(contacts >= Some(2), "{:?}", outcome.traffic);
        }
        Some(lacking) => {
            assert_eq!(created, ["/home/user/work/peer"]);
            eprintln!("skipped {TEST}: {lacking}");
        }
    }
}

/// The host's pattern for cores, which is what it was when this is gone.
struct Pattern(String);

const CORE_PATTERN: &str = "/proc/sys/kernel/core_pattern";

impl Drop for Pattern {
    fn drop(&mut self) {
        if let Err(error) = std::fs::write(CORE_PATTERN, &self.0) {
            eprintln!("{CORE_PATTERN} was {:?} and is left as it is: {error}", self.0);
        }
    }
}

#[test]
fn a_piped_core_pattern_hears_nothing_of_a_sample() {
    const TEST: &str = "a_piped_core_pattern_hears_nothing_of_a_sample";
    let folder = tempfile::tempdir().unwrap();
    let cores = || std::fs::read_dir(folder.path()).unwrap().count() - 1;
    let handler = folder.path().join("handler");
    std::fs::write(&handler, format!("#!/bin/sh\ncat > {}/core.$$\n", folder.path().display())).unwrap();
    std::fs::set_permissions(&handler, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let _before = Pattern(std::fs::read_to_string(CORE_PATTERN).unwrap());
    if let Err(error) = std::fs::write(CORE_PATTERN, format!("|{}", handler.display())) {
        eprintln!("skipped {TEST}: {CORE_PATTERN}: {error}");
        return;
    }
    // The kernel starts the program before the parent hears of the end, and waits for it to have read everything.
    let bare = std::process::Command::new("sh").args(["-c", "ulimit -c unlimited; kill -SEGV $$"]).status().unwrap();
    if bare.success() || cores() != 1 {
        eprintln!("skipped {TEST}: the program of a core pattern does not run in this mount namespace");
        return;
    }
    let text = "sh -c 'kill -SEGV $$'\nulimit -c 0; sh -c 'kill -ABRT $$'\nulimit -c unlimited; sh -c 'kill -QUIT $$'\nexit 7\n";
    let Some(report) = detonate(TEST, text, |setup| setup, wait_then_release) else { return };
    assert_eq!(report.outcomes[0].ended, Ended::Exited { code: 7 });
    assert!(report.outcomes[0].ends.contains_key("SIGSEGV"), "{:?}", report.outcomes[0].ends);
    assert_eq!(cores(), 1);
}
