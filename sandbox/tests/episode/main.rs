//! Episodes: with stages that follow a script, and with real ones.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed set-up is a failed test")]
#![allow(clippy::print_stderr, reason = "a test that cannot run here says so")]

#[cfg(feature = "serve")]
#[path = "../../../inference/tests/manifests/mod.rs"]
mod manifests;
#[cfg(feature = "serve")]
#[path = "../../../inference/tests/nets/mod.rs"]
mod nets;

mod closure;
mod escapes;
mod faults;
mod journal;
#[path = "../launch/mod.rs"]
mod launch;
mod machine;
mod real;
#[cfg(feature = "serve")]
mod remote;
mod scripted;

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::{Action, EpisodeId, RewardConfig, StateVector, WindowConfig};
use bellwether_sandbox::Limits;
use bellwether_sandbox::episode::{
    Away, Clock, Episode, EpisodeFolder, Judge, Judgement, Listener, Report, Schedule, Setup, Transition, run,
};
use bellwether_sandbox::stage::{DecisionId, Question, Specimen, Stage};
use bellwether_sandbox::vault::{QuarantineId, Quarantined, Removal, SampleIdentity, Times};

/// Decides by a function of the question.
struct Rule<F>(F);

impl<F: FnMut(&Question) -> Result<Action, Away> + Send> Judge for Rule<F> {
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away> {
        state.set_cost(0.5);
        let action = (self.0)(question)?;
        Ok(Judgement { action, q_values: [0.0; 5], margin: Some(0.5), model_version: "m".to_owned() })
    }
}

/// Lets no time pass, and keeps how long it was asked to.
#[derive(Default)]
struct Paused(Mutex<Vec<u64>>);

impl Clock for Paused {
    fn sleep(&self, pause: Duration) {
        self.0.lock().unwrap().push(pause.as_millis() as u64);
    }
}

/// Keeps every step of an episode.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<Transition>>>);

impl Listener for Kept {
    fn transition(&mut self, transition: &Transition) -> Result<(), String> {
        self.0.lock().unwrap().push(transition.clone());
        Ok(())
    }
}

fn setup(folder: &Path, memory: OwnedFd, stages: u8) -> Setup {
    Setup {
        episode: EpisodeId("e1".to_owned()),
        sample: Arc::new(Specimen { memory, name: "sample".to_owned(), arguments: Vec::new(), marked_home: false }),
        identity: identity(),
        label: None,
        family: None,
        stages,
        window: WindowConfig { max_events: 4, ..WindowConfig::default() },
        reward: RewardConfig::default(),
        limits: [Limits::default(), Limits::default()],
        seed: 7,
        policy: None,
        schedule: Schedule::default(),
        folder: EpisodeFolder::take(folder).unwrap(),
        now_ms: || 1_700_000_000_000,
    }
}

fn identity() -> SampleIdentity {
    SampleIdentity {
        path: "/srv/in/sample".to_owned(),
        sha256: Sha256::of(b"sample"),
        md5: "0".repeat(32),
        sha1: "0".repeat(40),
        bytes: 6,
        kind: "data".to_owned(),
        device: 1,
        inode: 2,
        links: 1,
        mode: 0o755,
        uid: 0,
        gid: 0,
        times: Times { accessed: (0, 0), modified: (0, 0), born: None },
    }
}

/// What a vault says that has taken the sample.
fn sealed(decision: &DecisionId) -> Quarantined {
    Quarantined { id: QuarantineId::of_decision(&decision.0), removal: Removal::Removed { other_names: 0 } }
}

/// Runs an episode; returns its report, its steps and the pauses between attempts.
fn play(setup: &Setup, stages: [&dyn Stage; 2], judge: &mut dyn Judge) -> (Report, Vec<Transition>, Vec<u64>) {
    let (clock, kept) = (Paused::default(), Kept::default());
    let mut seals = 0;
    let report = run(
        setup,
        Episode {
            stages,
            judge,
            seal: &mut |decision| {
                seals += 1;
                Ok(sealed(decision))
            },
            listeners: vec![Box::new(kept.clone())],
            clock: &clock,
            stop: &AtomicBool::new(false),
        },
    )
    .unwrap();
    setup.folder.settle().unwrap();
    assert_eq!(seals, u32::from(report.verdict == Some(Action::Quarantine)));
    let transitions = kept.0.lock().unwrap().clone();
    (report, transitions, clock.0.into_inner().unwrap())
}
