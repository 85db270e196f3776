//! How a model does live on families that it never saw: each program of them in a list goes through the two-stage sandbox.
//!
//! `cargo xtask record-corpus --list-only --seed 2 --out LIST`, then `cargo run --release --example live_trial -- MODEL LIST/list.jsonl
//! [FALSE-POSITIVE RATE]`, as root or with user namespaces. With a seed of its own, the list has runs that were not recorded. The families
//! that the model never saw are those of its `evaluation.json`. Verdicts, and the decoys of the home that are whole afterwards, are
//! printed as tables; intervals are by bootstrap over families, for runs of one family are alike. A sample that is released early leaves its
//! decoys whole in the sandbox, and would not outside: the last line counts none of them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a trial fails loudly")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a trial prints")]
#![allow(clippy::disallowed_methods, reason = "programs of a trial are scratch")]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use bellwether_artifact::{Sha256, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::{Action, EpisodeId, Label, RewardConfig, WindowConfig};
use bellwether_inference::model::{Contract, Expectation};
use bellwether_inference::policy::{Options, Policy};
use bellwether_inference::{Isa, load_release};
use bellwether_sandbox::Limits;
use bellwether_sandbox::cage::{Home, LeftOut};
use bellwether_sandbox::episode::{self, Episode, EpisodeFolder, Monotonic, Report, Schedule, Setup, window_of};
use bellwether_sandbox::stage::{Beside, Course, LocalStage, Order, Outcome, Specimen, Stage, StageError, identity};
use bellwether_sandbox::vault::Sample;

/// False-positive rate that is asked of the model unless another is given.
const TARGET_FPR: f64 = 0.05;
/// Milliseconds until a verdict must fall, in each stage.
const TIME_MS: u64 = 20_000;
/// Resamples of the bootstrap.
const RESAMPLES: usize = 10_000;

/// A line of the list.
#[derive(serde::Deserialize)]
struct Entry {
    episode_id: String,
    file: PathBuf,
    name: String,
    arguments: Vec<String>,
    label: Label,
    family: String,
    seed: u64,
    beside: BTreeMap<String, PathBuf>,
}

/// The sandbox of this host, with further files in the folder of the program.
struct Furnished(Vec<Beside>);

impl Stage for Furnished {
    fn run(&self, order: &Order, course: &mut dyn Course) -> Result<Outcome, StageError> {
        LocalStage.run_beside(order, &self.0, course)
    }
}

/// What came of the runs of a family.
#[derive(Default)]
struct Tally {
    runs: usize,
    convicted: usize,
    released: usize,
    /// Decoys that are whole after each run, as a share.
    intact: Vec<f64>,
    /// The same, and none where the sample was released: outside it goes on.
    saved: Vec<f64>,
    /// Events of both stages until the verdict.
    events: u64,
    /// Decisions that the policy did not make.
    by_rule: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, list] = [0, 1].map(|at| Path::new(arguments.get(at).expect("give the folder of a model, and a list")));
    let target_fpr = arguments.get(2).map_or(TARGET_FPR, |word| word.parse().expect("a rate"));
    let policy = policy(folder);
    let evaluation: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join("evaluation.json")).unwrap()).unwrap();
    let unseen = evaluation["per_family"].as_object().expect("families in evaluation.json");
    let encrypting: BTreeSet<&str> = bellwether_corpus::jobs()
        .lines()
        .filter(|line| line.contains("T1486"))
        .filter_map(|line| line.split(',').next())
        .collect();
    let text = std::fs::read_to_string(list).unwrap();
    let entries = text.lines().map(|line| serde_json::from_str::<Entry>(line).unwrap());
    let entries: Vec<Entry> = entries.filter(|entry| unseen.contains_key(&entry.family)).collect();
    let [mut families, mut kinds] = [(); 2].map(|()| <[BTreeMap<String, Tally>; 2]>::default());
    for (number, entry) in entries.iter().enumerate() {
        let (kind, report) = detonate((&policy, target_fpr), list.parent().unwrap(), entry);
        let class = usize::from(entry.label == Label::Malicious);
        for tally in
            [families[class].entry(entry.family.clone()).or_default(), kinds[class].entry(kind.to_owned()).or_default()]
        {
            tally.add(&report, entry.seed);
        }
        if (number + 1) % 50 == 0 {
            eprintln!("{} of {}", number + 1, entries.len());
        }
    }
    print(&families, &kinds, &encrypting);
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

/// What language a program is in, and what came of it.
fn detonate((policy, target_fpr): (&Policy, f64), folder: &Path, entry: &Entry) -> (&'static str, Report) {
    let scratch = tempfile::tempdir().unwrap();
    let sample = Sample::open(&folder.join(&entry.file), 1 << 24).unwrap();
    let beside = |(name, path): (&String, &PathBuf)| -> io::Result<Beside> {
        Ok(Beside { name: name.clone(), bytes: std::fs::read(folder.join(path))? })
    };
    let stage = Furnished(entry.beside.iter().map(beside).collect::<io::Result<_>>().unwrap());
    let kind = if stage.0.iter().any(|file| !file.bytes.is_empty()) {
        "shell"
    } else if entry.name.ends_with(".py") {
        "Python"
    } else if entry.file.starts_with(folder.canonicalize().unwrap()) && is_elf(&entry.file) {
        "C"
    } else {
        "single commands"
    };
    let setup = Setup {
        episode: EpisodeId(entry.episode_id.clone()),
        sample: Arc::new(Specimen {
            memory: sample.memory().as_fd().try_clone_to_owned().unwrap(),
            name: entry.name.clone(),
            arguments: entry.arguments.iter().map(|text| CString::new(text.as_str()).unwrap()).collect(),
            marked_home: true,
        }),
        identity: sample.identity().clone(),
        label: Some(entry.label),
        family: Some(entry.family.clone()),
        stages: 2,
        window: window_of(policy),
        reward: RewardConfig::default(),
        limits: [(); 2].map(|()| Limits { time_ms: TIME_MS, ..Limits::default() }),
        seed: entry.seed,
        policy: None,
        schedule: Schedule::default(),
        folder: EpisodeFolder::take(scratch.path().join("episode")).unwrap(),
        now_ms: || 0,
    };
    let mut judge = episode::in_process(policy, &setup.episode, target_fpr, Duration::from_millis(5)).unwrap();
    let report = episode::run(
        &setup,
        Episode {
            stages: [&stage, &stage],
            judge: &mut *judge,
            seal: &mut |_| Err("a trial keeps nothing".to_owned()),
            listeners: Vec::new(),
            clock: &Monotonic,
            stop: &AtomicBool::new(false),
        },
    );
    (kind, report.expect("a sandbox: `bellwether doctor` says more"))
}

fn is_elf(file: &Path) -> bool {
    std::fs::read(file).unwrap().starts_with(b"\x7fELF")
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
        let intact = report.outcomes.iter().map(|outcome| intact(outcome, seed)).fold(1.0, f64::min);
        self.intact.push(intact);
        self.saved.push(if report.verdict == Some(Action::Release) { 0.0 } else { intact });
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

fn print(families: &[BTreeMap<String, Tally>; 2], kinds: &[BTreeMap<String, Tally>; 2], encrypting: &BTreeSet<&str>) {
    for (heading, [jobs, emulations]) in [("family", families), ("language", kinds)] {
        println!(
            "| {heading} | class | runs | released | convicted | decoys intact, mean | least | mean events |\n\
             |---|---|---|---|---|---|---|---|"
        );
        let rows = |class: &'static str, all: &BTreeMap<String, Tally>| {
            for (name, tally) in all {
                let least = tally.intact.iter().copied().fold(1.0, f64::min);
                println!(
                    "| {name} | {class} | {} | {} | {} | {:.3} | {least:.3} | {:.0} |",
                    tally.runs,
                    tally.released,
                    tally.convicted,
                    mean(&tally.intact),
                    tally.events as f64 / tally.runs.max(1) as f64
                );
            }
        };
        rows("job", jobs);
        rows("emulation", emulations);
        println!();
    }
    let [jobs, emulations] = families;
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
    print_decoys(emulations, encrypting, "at the end of a run", |tally| &tally.intact);
    print_decoys(emulations, encrypting, "what is released having none", |tally| &tally.saved);
    let by_rule: u64 = jobs.values().chain(emulations.values()).map(|tally| tally.by_rule).sum();
    println!("\ndecisions of the safe rule: {by_rule}");
}

/// Of the emulations that encrypt, the share of decoys by `of`.
fn print_decoys(
    emulations: &BTreeMap<String, Tally>,
    encrypting: &BTreeSet<&str>,
    when: &str,
    of: fn(&Tally) -> &Vec<f64>,
) {
    let tallies = encrypting.iter().filter_map(|name| emulations.get(*name));
    let shares: Vec<f64> = tallies.map(|tally| mean(of(tally))).collect();
    let [low, high] = bootstrap(&shares);
    let (mean, families) = (mean(&shares), shares.len());
    println!(
        "\nemulations that encrypt: {mean:.4} of the decoys intact [{low:.4}, {high:.4}] over {families} families, {when}"
    );
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
