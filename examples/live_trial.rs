//! How a model does live on families that it never saw: each C program of them with several seeds through the two-stage sandbox.
//!
//! `cargo run --release --example live_trial -- MODEL [SEEDS OF A JOB] [SEEDS OF AN EMULATION] [FALSE-POSITIVE RATE]`, as root or with
//! user namespaces. The families that the model never saw are those of its `evaluation.json`. Verdicts, and the decoys of the home that are whole
//! afterwards, are printed as a table; intervals are by bootstrap over families, for runs of one family are alike.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a trial fails loudly")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a trial prints")]
#![allow(clippy::disallowed_methods, reason = "programs of a trial are scratch")]

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bellwether_artifact::{Sha256, release};
use bellwether_corpus::programs::{self, Run};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::{Action, EpisodeId, Label, RewardConfig, WindowConfig};
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::policy::{Options, Policy};
use bellwether_inference::{Isa, load_release};
use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::{Home, LeftOut};
use bellwether_sandbox::episode::{self, Episode, EpisodeFolder, Monotonic, Report, Schedule, Setup, window_of};
use bellwether_sandbox::stage::{LocalStage, Outcome, Specimen, identity};
use bellwether_sandbox::vault::Sample;

/// False-positive rate that is asked of the model unless another is given.
const TARGET_FPR: f64 = 0.05;
/// Milliseconds until a verdict must fall, in each stage.
const TIME_MS: u64 = 20_000;
/// How far apart the first seeds of two families are; no family is tried with more.
const SEEDS_OF_A_FAMILY: u64 = 1_000;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// What came of the runs of a family.
#[derive(Default)]
struct Tally {
    runs: usize,
    convicted: usize,
    released: usize,
    /// Decoys that are whole after each run, as a share.
    intact: Vec<f64>,
    /// Events of both stages until the verdict.
    events: u64,
    /// Decisions that the policy did not make.
    by_rule: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let folder = Path::new(arguments.first().expect("give the folder of a model"));
    let number = |at: usize, otherwise| {
        arguments.get(at).map_or(otherwise, |word| word.parse::<u64>().expect("a number of seeds"))
    };
    let seeds = [number(1, 25), number(2, 10)];
    assert!(seeds.iter().all(|seeds| *seeds <= SEEDS_OF_A_FAMILY), "at most {SEEDS_OF_A_FAMILY} seeds");
    let target_fpr = arguments.get(3).map_or(TARGET_FPR, |word| word.parse().expect("a rate"));
    let policy = policy(folder);
    let compiled = compile();
    let evaluation: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("evaluation.json")).unwrap()).unwrap();
    let unseen = evaluation["per_family"].as_object().expect("families in evaluation.json");
    let mut tallies: [BTreeMap<&str, Tally>; 2] = Default::default();
    let mut encrypting = Vec::new();
    for (line_number, line) in bellwether_corpus::jobs().lines().enumerate().skip(1) {
        let fields: Vec<&str> = line.split(',').collect();
        let (name, benign, techniques, languages) = (fields[0], fields[1] == "benign", fields[2], fields[3]);
        if !unseen.contains_key(name) || !languages.split('+').any(|language| language == "c") {
            continue;
        }
        let class = usize::from(!benign);
        let tally = tallies[class].entry(name).or_default();
        // A run begins with what its seed alone draws, so that families with the same seeds would be convicted together for it. Seeds of
        // the recordings are far greater numbers.
        let first = line_number as u64 * SEEDS_OF_A_FAMILY;
        for seed in first..first + seeds[class] {
            let report = detonate((&policy, target_fpr), &compiled, Run { job: name, seed, rounds: 1 }, benign);
            tally.add(&report, seed);
        }
        if techniques.contains("T1486") {
            encrypting.push(name);
        }
        eprintln!("{name}: {} of {} convicted", tally.convicted, tally.runs);
    }
    print(&tallies, &encrypting);
}

fn policy(folder: &Path) -> Policy {
    let manifest = release::read_manifest(folder).unwrap();
    let limits = &manifest.features.window;
    let window = WindowConfig { max_events: limits.max_events, max_ns: limits.max_ns, max_windows: limits.max_windows };
    let spec = FeatureSpec::v1(window);
    let contract = Contract::sandbox(spec.width(), Sha256::from_bytes(spec.hash()));
    let release = load_release(folder, &Expectation::new(contract), Isa::best()).unwrap();
    Policy::new(release, None, Options::default()).unwrap()
}

fn compile() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("programs");
    let mut compiler = Command::new("cc");
    compiler.args(["-O1", "-x", "c", "-", "-o"]).arg(&out).stdin(Stdio::piped());
    let mut child = compiler.spawn().expect("a C compiler, cc");
    child.stdin.take().unwrap().write_all(programs::c_source().as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::read(&out).unwrap()
}

fn detonate((policy, target_fpr): (&Policy, f64), compiled: &[u8], run: Run<'_>, benign: bool) -> Report {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tool");
    std::fs::write(&path, programs::with_parameters(compiled, run).unwrap()).unwrap();
    let sample = Sample::open(&path, 1 << 24).unwrap();
    let setup = Setup {
        episode: EpisodeId(format!("{}-{}", run.job, run.seed)),
        sample: Arc::new(Specimen {
            memory: sample.memory().as_fd().try_clone_to_owned().unwrap(),
            name: "tool".to_owned(),
            arguments: Vec::new(),
            marked_home: true,
        }),
        identity: sample.identity().clone(),
        label: Some(if benign { Label::Benign } else { Label::Malicious }),
        family: Some(run.job.to_owned()),
        stages: 2,
        window: window_of(policy),
        reward: RewardConfig::default(),
        limits: [(); 2].map(|()| Limits { time_ms: TIME_MS, ..Limits::default() }),
        seed: run.seed,
        policy: None,
        schedule: Schedule::default(),
        folder: EpisodeFolder::take(folder.path().join("episode")).unwrap(),
        now_ms: || 0,
    };
    let mut judge = episode::in_process(policy, &setup.episode, target_fpr, Duration::from_millis(5)).unwrap();
    episode::run(
        &setup,
        Episode {
            stages: [&LocalStage, &LocalStage],
            judge: &mut *judge,
            seal: &mut |_| Err("a trial keeps nothing".to_owned()),
            listeners: Vec::new(),
            clock: &Monotonic,
            stop: &AtomicBool::new(false),
        },
    )
    .expect("a sandbox: `bellwether doctor` says more")
}

impl Tally {
    fn add(&mut self, report: &Report, seed: u64) {
        assert!(!report.outcomes.is_empty(), "no run: {:?}", report.partial);
        self.runs += 1;
        match report.verdict {
            Some(Action::Release) => self.released += 1,
            Some(_) => self.convicted += 1,
            None => {}
        }
        // Each stage has a home of its own; the one that fared worse counts.
        self.intact.push(report.outcomes.iter().map(|outcome| intact(outcome, seed)).fold(1.0, f64::min));
        self.events += report.outcomes.iter().map(|outcome| outcome.events).sum::<u64>();
        self.by_rule += report.safe_rule;
    }
}

/// The share of decoys that are whole after a run.
fn intact(outcome: &Outcome, seed: u64) -> f64 {
    let decoys = Home::draw(seed, &identity(outcome.stage)).decoys;
    let changes = outcome.changes.as_ref().expect("what is left of the home");
    assert_eq!(changes.left_out, LeftOut::default(), "what was not looked at may be lost");
    let lost =
        |path: &&String| changes.deleted.contains(path) || changes.changed.iter().any(|found| found.path == **path);
    1.0 - decoys.iter().filter(lost).count() as f64 / decoys.len() as f64
}

fn print(tallies: &[BTreeMap<&str, Tally>; 2], encrypting: &[&str]) {
    let [jobs, emulations] = tallies;
    println!(
        "| family | runs | released | convicted | decoys intact, mean | least | mean events |\n|---|---|---|---|---|---|---|"
    );
    for (name, tally) in jobs.iter().chain(emulations) {
        let least = tally.intact.iter().copied().fold(1.0, f64::min);
        println!(
            "| `{name}` | {} | {} | {} | {:.3} | {least:.3} | {:.0} |",
            tally.runs,
            tally.released,
            tally.convicted,
            mean(&tally.intact),
            tally.events as f64 / tally.runs.max(1) as f64
        );
    }
    for (what, all) in [("jobs", jobs), ("emulations", emulations)] {
        let sum = |of: fn(&Tally) -> usize| all.values().map(of).sum::<usize>();
        let shares: Vec<f64> = all.values().map(|tally| tally.convicted as f64 / tally.runs.max(1) as f64).collect();
        let ([low, high], runs) = (bootstrap(&shares), sum(|tally| tally.runs));
        println!(
            "\n{what}: {} of {runs} convicted, {:.4} [{low:.4}, {high:.4}] over {} families, {} without a verdict",
            sum(|tally| tally.convicted),
            mean(&shares),
            shares.len(),
            runs - sum(|tally| tally.convicted) - sum(|tally| tally.released)
        );
    }
    let shares: Vec<f64> =
        encrypting.iter().filter_map(|name| emulations.get(name)).map(|tally| mean(&tally.intact)).collect();
    let [low, high] = bootstrap(&shares);
    println!(
        "\nemulations that encrypt: {:.4} of the decoys intact [{low:.4}, {high:.4}] over {} families",
        mean(&shares),
        shares.len()
    );
    let by_rule: u64 = jobs.values().chain(emulations.values()).map(|tally| tally.by_rule).sum();
    println!("\ndecisions of the safe rule: {by_rule}");
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The 95 % interval of a mean by resampling its parts, with a fixed seed.
fn bootstrap(values: &[f64]) -> [f64; 2] {
    let mut state = 1_u64;
    let mut below = |bound: usize| {
        // splitmix64 (Steele, Lea, Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    };
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| (0..values.len()).map(|_| values[below(values.len())]).sum::<f64>() / values.len().max(1) as f64)
        .collect();
    means.sort_by(f64::total_cmp);
    [means[RESAMPLES / 40], means[RESAMPLES - RESAMPLES / 40 - 1]]
}
