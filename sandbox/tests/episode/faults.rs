//! What goes wrong around an episode: a full disk, a trail that cannot be written, a policy that is slow.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use bellwether_artifact::audit::{self, AuditLog};
use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_env_adapter::spec::WIDTH;
use bellwether_env_adapter::{Action, EpisodeId, Event, EventKind, StateVector, action};
use bellwether_sandbox::episode::{
    Away, Decision, Episode, EpisodeFolder, Judge, Listener, Partial, Patient, RecordError, Report, Setup, Trail,
    Transition, run,
};
use bellwether_sandbox::report::write_episode;
use bellwether_sandbox::stage::{Close, Course, Fault, Kept, Order, Outcome, Question, Stage, StageError};

use super::scripted::{Script, Scripted, read_events, read_steps};
use super::{Paused, Rule, sealed, setup};

fn nothing() -> OwnedFd {
    OwnedFd::from(std::io::pipe().unwrap().0)
}

/// A trail that fails at its third entry.
struct Failing(u32);

impl Listener for Failing {
    fn transition(&mut self, _: &Transition) -> Result<(), String> {
        self.0 += 1;
        if self.0 < 3 { Ok(()) } else { Err("the trail is full".to_owned()) }
    }
}

#[test]
fn what_cannot_be_kept_in_the_trail_ends_the_sample_and_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path(), nothing(), 1);
    let stage = Scripted::new(Script { windows: vec![50; 4_000], ..Script::default() });
    let mut judge = Rule(|_: &Question| Ok(Action::Continue));
    let report = run(
        &setup,
        Episode {
            stages: [&stage, &stage],
            judge: &mut judge,
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: vec![Box::new(Failing(0))],
            clock: &Paused::default(),
            stop: &AtomicBool::new(false),
        },
    )
    .unwrap();
    assert!(report.decisions.len() < 4_000, "the sample was stopped");
    let said = |partial: &Partial| matches!(partial, Partial::Record { why } if why == "the trail is full");
    assert!(report.partial.iter().any(said), "{:?}", report.partial);
    let files = report.files.unwrap();
    assert_eq!(files.events, report.outcomes[0].events, "what had happened is kept");
}

#[test]
fn nothing_is_locked_away_before_it_is_on_record_why() {
    let folder = tempfile::tempdir().unwrap();
    let setup = setup(folder.path(), nothing(), 1);
    let stage = Scripted::new(Script { windows: vec![4], ..Script::default() });
    let mut judge = Rule(|_: &Question| Ok(Action::Quarantine));
    let mut seals = 0;
    let report = run(
        &setup,
        Episode {
            stages: [&stage, &stage],
            judge: &mut judge,
            seal: &mut |decision| {
                seals += 1;
                Ok(sealed(decision))
            },
            listeners: vec![Box::new(Failing(0))],
            clock: &Paused::default(),
            stop: &AtomicBool::new(false),
        },
    )
    .unwrap();
    assert_eq!((report.verdict, seals, report.quarantine), (Some(Action::Quarantine), 0, None));
    let said = |partial: &Partial| matches!(partial, Partial::Record { why } if why == "the trail is full");
    assert!(report.partial.iter().any(said), "{:?}", report.partial);
}

#[test]
fn an_episode_is_in_the_audit_log_but_for_decisions_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("audit.jsonl");
    let key = folder.path().join("audit.key");
    Secrets::generate(&key, Purpose::Audit).unwrap();
    let secrets = || Secrets::read(&key, Purpose::Audit).unwrap();
    let trail = Trail::new(AuditLog::create(&path, secrets()).unwrap(), || 1_700_000_000_000);
    let setup = setup(&folder.path().join("e1"), nothing(), 1);
    let stage = Scripted::new(Script { windows: vec![4; 5], ..Script::default() });
    let mut judge = Rule(|question: &Question| {
        Ok(match question.step {
            1 => Action::RaiseIsolation,
            4 => Action::Release,
            _ => Action::Continue,
        })
    });
    run(
        &setup,
        Episode {
            stages: [&stage, &stage],
            judge: &mut judge,
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: vec![Box::new(trail)],
            clock: &Paused::default(),
            stop: &AtomicBool::new(false),
        },
    )
    .unwrap();
    let mut kinds = Vec::new();
    let verified = audit::examine(&path, &secrets(), &[], |entry, _| {
        kinds.push(entry.kind.clone());
        Ok(())
    });
    let verified = verified.unwrap();
    assert!(verified.intact, "{verified:?}");
    let wanted = [
        "episode.begun",
        "episode.started",
        "episode.decided",
        "episode.fed",
        "episode.decided",
        "episode.fed",
        "episode.ended",
    ];
    assert_eq!(kinds, wanted);
}

fn question(step: u32) -> Question {
    Question {
        episode: EpisodeId("e".to_owned()),
        stage: 1,
        step,
        window: step,
        events: 1,
        toll: Default::default(),
        events_seen: 1,
        time_ns: 0,
        level: 0,
        close: Close::Window,
        mask: action::mask(false, true),
    }
}

#[test]
fn an_answer_that_comes_too_late_is_no_answer_to_the_next_question() {
    let (go, wait) = mpsc::channel::<()>();
    let slow = Rule(move |question: &Question| {
        if question.step == 0 {
            wait.recv().unwrap();
            return Ok(Action::Quarantine);
        }
        Ok(Action::Release)
    });
    let mut state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
    let mut judge = Patient::new(slow, Duration::from_millis(30)).unwrap();
    assert_eq!(judge.judge(&question(0), &mut state), Err(Away::Late { limit_ms: 30 }));
    // It is still at the first question: the second waits in vain, and a third finds no room.
    assert!(judge.judge(&question(1), &mut state).is_err());
    assert!(judge.judge(&question(2), &mut state).is_err());
    go.send(()).unwrap();
    // By and by it has caught up. Whatever it says from then on is about the question that was asked.
    let answer = (3..2_000).find_map(|step| {
        std::thread::sleep(Duration::from_millis(1));
        judge.judge(&question(step), &mut state).ok()
    });
    assert_eq!(answer.unwrap().action, Action::Release);
}

#[test]
fn a_judge_that_dies_is_away() {
    let mut state = StateVector::from_slice(&[0.0; WIDTH]).unwrap();
    let dying = Rule(|_: &Question| -> Result<Action, Away> { panic!("the policy dies") });
    let mut judge = Patient::new(dying, Duration::from_secs(5)).unwrap();
    assert_eq!(judge.judge(&question(0), &mut state), Err(Away::Gone));
}

/// Runs an episode that may not be begun; nothing has run then.
fn attempt(setup: &Setup) -> Result<Report, RecordError> {
    let stage = Scripted::new(Script::default());
    let attempted = run(
        setup,
        Episode {
            stages: [&stage, &stage],
            judge: &mut Rule(|_: &Question| Ok(Action::Release)),
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: Vec::new(),
            clock: &Paused::default(),
            stop: &AtomicBool::new(false),
        },
    );
    assert!(attempted.is_ok() || stage.attempts.into_inner() == 0);
    attempted
}

/// Why an episode cannot be begun.
fn refused(setup: &Setup) -> String {
    attempt(setup).unwrap_err().to_string()
}

#[test]
fn nothing_runs_that_cannot_be_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let blocked = folder.path().join("file");
    bellwether_artifact::durable::write_bytes(&blocked, b"no folder").unwrap();
    assert!(EpisodeFolder::take(blocked.join("below")).is_err());
    // What an earlier episode left is not written over.
    let setup = setup(&folder.path().join("e1"), nothing(), 1);
    let journal = setup.folder.path().join(".tmp-events.jsonl");
    bellwether_artifact::durable::write_bytes(&journal, b"{}\n").unwrap();
    assert!(refused(&setup).contains("bellwether recover"));
    assert_eq!(std::fs::read(journal).unwrap(), b"{}\n");
}

/// A clock that jumps forth and back by years.
fn jumping_ms() -> u64 {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    let look = LOOKS.fetch_add(1, Ordering::Relaxed);
    JUMPS[look as usize % JUMPS.len()]
}

const JUMPS: [u64; 4] = [1_700_000_000_000, 4_000_000_000_000, 5, 1_700_000_000_001];

/// A clock that is set back by more than a century between the two stages.
fn set_back_ms() -> u64 {
    static LOOKS: AtomicU64 = AtomicU64::new(0);
    if LOOKS.fetch_add(1, Ordering::Relaxed) == 0 { 4_000_000_000_000 } else { 5 }
}

/// An episode by two clocks: that of its files, and that of its entry in the audit log. Its report, and kind, body and time of each entry.
fn by_clocks(folder: &Path, now_ms: fn() -> u64, trail_ms: fn() -> u64) -> (Report, Vec<(String, String, u64)>) {
    let (path, key) = (folder.join("audit.jsonl"), folder.join("audit.key"));
    Secrets::generate(&key, Purpose::Audit).unwrap();
    let secrets = || Secrets::read(&key, Purpose::Audit).unwrap();
    let trail = Trail::new(AuditLog::create(&path, secrets()).unwrap(), trail_ms);
    let setup = Setup { now_ms, ..setup(&folder.join("e1"), nothing(), 2) };
    let stage = Scripted::new(Script { away: 2, windows: vec![4; 5], ..Script::default() });
    let clock = Paused::default();
    let report = run(
        &setup,
        Episode {
            stages: [&stage, &stage],
            judge: &mut Rule(|question: &Question| {
                Ok(if question.close.is_last() { Action::Release } else { Action::RaiseIsolation })
                    .map(|action| if question.mask[action.index()] { action } else { Action::Continue })
            }),
            seal: &mut |decision| Ok(sealed(decision)),
            listeners: vec![Box::new(trail)],
            clock: &clock,
            stop: &AtomicBool::new(false),
        },
    )
    .unwrap();
    assert_eq!(clock.0.into_inner().unwrap(), [1_000, 2_000]);
    let mut entries = Vec::new();
    let verified = audit::examine(&path, &secrets(), &[], |entry, _| {
        entries.push((entry.kind.clone(), entry.body.to_string(), entry.time_ms));
        Ok(())
    });
    let verified = verified.unwrap();
    assert!(verified.intact && verified.entries > 10, "{verified:?}");
    (report, entries)
}

#[test]
fn a_clock_that_jumps_changes_nothing_but_what_is_told_of_it() {
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let steady: fn() -> u64 = || 1_700_000_000_000;
    let (wanted, entries) = by_clocks(folders[0].path(), steady, steady);
    let (report, jumped) = by_clocks(folders[1].path(), set_back_ms, jumping_ms);
    // Nothing waits for the clock, and no decision, step, event or entry rests on it.
    let decided = |report: &Report| {
        let decisions = report.decisions.iter().cloned().map(|decision| Decision { took_us: 0, ..decision });
        decisions.collect::<Vec<_>>()
    };
    assert_eq!((report.verdict, &report.partial[..]), (Some(Action::Release), &[][..]));
    assert_eq!(decided(&report), decided(&wanted));
    assert_eq!((&report.feedback, &report.outcomes), (&wanted.feedback, &wanted.outcomes));
    assert_eq!(read_steps(&report), read_steps(&wanted));
    assert_eq!(read_events(&report).events, read_events(&wanted).events);
    assert_eq!(jumped.len(), entries.len());
    for (number, (jumped, entry)) in jumped.iter().zip(&entries).enumerate() {
        assert_eq!((&jumped.0, &jumped.1), (&entry.0, &entry.1));
        assert_eq!(jumped.2, JUMPS[number % JUMPS.len()], "as the clock said");
    }
    // What is told of it is what it said, and no report lets anything end before it began.
    assert_eq!(report.began_ms, [Some(4_000_000_000_000), Some(5)]);
    let reports = write_episode(folders[1].path(), &report, "0.0.0").unwrap();
    let cape: serde_json::Value = serde_json::from_slice(&std::fs::read(&reports.cape).unwrap()).unwrap();
    let time = |key: &str| cape["info"][key].as_str().unwrap().to_owned();
    assert_eq!(time("started"), "2096-10-02 07:06:40");
    assert!(time("started") <= time("ended"), "{} {}", time("started"), time("ended"));
    let lines = std::fs::read_to_string(&reports.ocsf).unwrap();
    let mut spans = 0;
    for line in lines.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        for (of, from, to) in
            [(&event, "start_time", "end_time"), (&event["finding_info"], "first_seen_time", "last_seen_time")]
        {
            if let (Some(from), Some(to)) = (of[from].as_u64(), of[to].as_u64()) {
                assert!(from <= to, "{line}");
                spans += 1;
            }
        }
    }
    assert!(spans > 0);
    assert!(std::fs::read_to_string(&reports.page).unwrap().contains("2096-10-02"));
}

/// A stage whose sample makes events without end, as long as they are kept; then it copies what lies in the folder of the episode, as a
/// program leaves it that is killed there.
struct Flood<'a> {
    folder: &'a Path,
    copy: &'a Path,
}

impl Stage for Flood<'_> {
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError> {
        let mut outcome = Outcome::of_nothing(order.stage);
        let mut noise = 1_u64;
        for seq in 0..200_000 {
            // Text that does not compress to nothing.
            let mut text = String::new();
            while text.len() < 2_000 {
                noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text += &format!("{noise:x}");
            }
            let event =
                Event { stage: order.stage, args: Some(&text), ..Event::named(seq, EventKind::Syscall, "write") };
            outcome.events += 1;
            if course.event(&event) == Kept::No {
                outcome.faults.push(Fault::Recorder);
                break;
            }
        }
        for entry in std::fs::read_dir(self.folder).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), self.copy.join(entry.file_name())).unwrap();
        }
        Ok(outcome)
    }
}

/// A small disk under a folder, gone when it is dropped.
struct Disk<'a>(&'a Path);

impl Disk<'_> {
    /// Mounts it; nothing, and why on standard error, where that cannot be.
    fn mount<'a>(test: &str, folder: &'a Path, bytes: &str) -> Option<Disk<'a>> {
        let size = format!("size={bytes}");
        match Command::new("mount").args(["-t", "tmpfs", "-o", &size, "small"]).arg(folder).output() {
            Ok(done) if done.status.success() => Some(Disk(folder)),
            failed => {
                eprintln!("skipped {test}: no disk can be mounted: {failed:?}");
                None
            }
        }
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        _ = Command::new("umount").arg(self.0).status();
    }
}

#[test]
fn a_disk_that_fills_ends_the_sample_and_keeps_what_had_happened() {
    let test = "a_disk_that_fills_ends_the_sample_and_keeps_what_had_happened";
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let Some(_disk) = Disk::mount(test, folder.path(), "48m") else { return };
    let setup = setup(&folder.path().join("e1"), nothing(), 1);
    let flood = Flood { folder: setup.folder.path(), copy: copy.path() };
    let (report, _, _) = super::play(&setup, [&flood, &flood], &mut Rule(|_: &Question| Ok(Action::Continue)));
    let events = report.outcomes[0].events;
    assert!((1_000..200_000).contains(&events), "{events} events before the disk was full");
    let full = |partial: &Partial| matches!(partial, Partial::Record { why } if why.contains("disk was full"));
    assert!(report.partial.iter().any(full), "{:?}", report.partial);
    assert_eq!((report.verdict, report.files.as_ref().unwrap().events), (None, events), "what had happened is kept");
    // The journal filled the disk, and stays as far as it came: whoever is killed before the files are whole loses no more than the queue.
    let left = EpisodeFolder::take(copy.path()).unwrap();
    let recovered = left.recover().unwrap().unwrap();
    let kept = read_events(&recovered).events;
    assert_eq!(kept[..], read_events(&report).events[..kept.len()]);
    assert!(kept.len() > 1_000 && kept.len() as u64 + 2 * 4_096 > events, "{} of {events}", kept.len());
}

#[test]
fn without_room_for_a_journal_nothing_runs_and_nothing_is_left() {
    let test = "without_room_for_a_journal_nothing_runs_and_nothing_is_left";
    let folder = tempfile::tempdir().unwrap();
    // The reserve takes all of it but a page or two, which the files and folders themselves do not need.
    let Some(_disk) = Disk::mount(test, folder.path(), "24m") else { return };
    let setup = setup(&folder.path().join("e1"), nothing(), 1);
    let why = refused(&setup);
    assert!(why.contains("free some space"), "{why}");
    assert_eq!(std::fs::read_dir(setup.folder.path()).unwrap().count(), 0);
    // An inode for the folder, one for the reserve, and some for files: none for the journal.
    let mut refusals = 0;
    for inodes in 4..10 {
        let inodes = format!("48m,nr_inodes={inodes}");
        let small = tempfile::tempdir().unwrap();
        let Some(_disk) = Disk::mount(test, small.path(), &inodes) else { return };
        let setup = super::setup(&small.path().join("e1"), nothing(), 1);
        if attempt(&setup).is_err() {
            refusals += 1;
            assert_eq!(std::fs::read_dir(setup.folder.path()).unwrap().count(), 0, "{inodes}");
        }
    }
    assert!(refusals > 0, "there was room for a journal each time");
}
