//! Which runs are made: a function of the table of jobs and a seed.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// One line of `corpus/programs/jobs.csv`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Job {
    /// Name of the job or emulation, and its family.
    pub(crate) name: String,
    /// `benign` or `malicious`.
    pub(crate) label: String,
    /// ATT&CK techniques of an emulation, parted by blanks.
    pub(crate) technique: String,
    /// `c`, `python`, `sh` and `line`: the programs that there are for it.
    pub(crate) languages: Vec<String>,
    /// A run repeats the job between once and this often.
    pub(crate) rounds: u64,
    /// Runs in the corpus.
    pub(crate) runs: usize,
}

impl Job {
    /// The folder of its programs.
    pub(crate) fn folder(&self) -> &'static str {
        if self.label == "malicious" { "emulations" } else { "benign" }
    }
}

/// One run to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Name of the recording, which tells nothing of its class.
    pub(crate) name: String,
    /// What is run.
    pub(crate) job: Job,
    /// Program that runs it: `c`, `python`, `sh` for a shell script by itself and `sh-c` and `sh-python` for one under either, or
    /// `line` for a single command.
    pub(crate) language: String,
    /// Seed of the home, the prologue and the job.
    pub(crate) seed: u64,
    /// Stage in which it runs, 1 or 2.
    pub(crate) stage: u64,
    /// Repetitions.
    pub(crate) rounds: u64,
    /// Loopback address of the peer.
    pub(crate) peer: String,
    /// Ports where the peer listens; the first is the one that programs use.
    pub(crate) ports: [u16; 3],
    /// File name of the program.
    pub(crate) program: String,
    /// Which run of its job it is, from 0.
    pub(crate) number: usize,
}

/// All runs in the order of recording.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The runs, shuffled, so that neighbours in the file are of no common job.
    pub(crate) runs: Vec<Run>,
}

/// Ports and names are drawn for all runs alike, so neither tells the class.
const PORTS: &[u16] = &[80, 443, 2525, 3000, 4000, 5000, 5222, 6667, 8000, 8080, 8443, 9000, 9200];
const NAMES: &[&str] =
    &["agent", "daemon", "helper", "manager", "job", "runner", "session", "sync", "task", "tool", "update", "worker"];

/// Reads the table of jobs.
pub(crate) fn read_jobs(path: &Path) -> Result<Vec<Job>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut jobs = Vec::new();
    for (number, line) in text.lines().enumerate().skip(1) {
        let job = parse_job(line).with_context(|| format!("{} line {}", path.display(), number + 1))?;
        ensure!(jobs.iter().all(|other: &Job| other.name != job.name), "{} is listed twice", job.name);
        jobs.push(job);
    }
    Ok(jobs)
}

fn parse_job(line: &str) -> Result<Job> {
    let fields: Vec<_> = line.split(',').collect();
    let [name, label, technique, languages, rounds, runs] = fields[..] else {
        bail!("expected name,label,technique,languages,rounds,runs");
    };
    ensure!(matches!(label, "benign" | "malicious"), "label is {label:?}, not benign or malicious");
    ensure!(technique.is_empty() == (label == "benign"), "an emulation names its techniques, a job has none");
    let languages: Vec<_> = languages.split('+').map(str::to_owned).collect();
    ensure!(
        languages.iter().all(|l| matches!(l.as_str(), "c" | "python" | "sh" | "line")),
        "unknown language in {languages:?}"
    );
    let rounds = rounds.parse().context("rounds")?;
    ensure!(rounds >= 1, "rounds must be at least 1");
    Ok(Job {
        name: name.to_owned(),
        label: label.to_owned(),
        technique: technique.to_owned(),
        languages,
        rounds,
        runs: runs.parse().context("runs")?,
    })
}

impl Plan {
    /// The runs of all jobs, or of `only` one, with `runs` of each instead of the table's number.
    pub(crate) fn new(jobs: &[Job], seed: u64, runs: Option<usize>, only: Option<&str>) -> Result<Plan> {
        if let Some(name) = only {
            ensure!(jobs.iter().any(|job| job.name == name), "no job is called {name}; see corpus/programs/jobs.csv");
        }
        let mut random = SplitMix(seed);
        let mut planned = Vec::new();
        for job in jobs {
            let chosen = only.is_none_or(|name| name == job.name);
            for number in 0..runs.unwrap_or(job.runs) {
                let run = draw(job, number, &mut random);
                if chosen {
                    planned.push(run);
                }
            }
        }
        for last in (1..planned.len()).rev() {
            planned.swap(last, random.below(last as u64 + 1) as usize);
        }
        for (number, run) in planned.iter_mut().enumerate() {
            run.name = format!("run-{number:05}");
        }
        Ok(Plan { runs: planned })
    }
}

/// Everything of one run but its name.
fn draw(job: &Job, number: usize, random: &mut SplitMix) -> Run {
    let mut language = job.languages[number % job.languages.len()].clone();
    if language == "sh" {
        // Both runtimes start the shell scripts of both classes, and scripts run by themselves, in turn.
        language = ["sh-c", "sh-python", "sh"][number / job.languages.len() % 3].to_owned();
    }
    let mut ports = [0; 3];
    for at in 0..ports.len() {
        ports[at] = loop {
            let port = PORTS[random.below(PORTS.len() as u64) as usize];
            if !ports.contains(&port) {
                break port;
            }
        };
    }
    // Programs keep seeds in signed numbers, and JSON readers in doubles.
    let seed = random.next() >> 12;
    Run {
        name: String::new(),
        job: job.clone(),
        language,
        seed,
        stage: 1 + (seed & 1),
        rounds: 1 + random.below(job.rounds),
        peer: format!("127.{}.{}.{}", random.below(256), random.below(256), 1 + random.below(254)),
        ports,
        program: NAMES[random.below(NAMES.len() as u64) as usize].to_owned(),
        number,
    }
}

/// The splitmix64 generator (Steele, Lea, Flood, 2014): small, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; the bias of the remainder is far below what a plan could show.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs() -> Vec<Job> {
        read_jobs(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/programs/jobs.csv")).unwrap()
    }

    #[test]
    fn the_table_promises_the_corpus_that_the_card_describes() {
        let count = |label: &str| {
            let of_label: Vec<_> = jobs().into_iter().filter(|job| job.label == label).collect();
            (of_label.len(), of_label.iter().map(|job| job.runs).sum::<usize>())
        };
        let (benign_families, benign_runs) = count("benign");
        let (malicious_families, malicious_runs) = count("malicious");
        assert!(benign_families >= 50 && benign_runs >= 1_000, "{benign_families} {benign_runs}");
        assert!(malicious_families >= 25 && malicious_runs >= 500, "{malicious_families} {malicious_runs}");
    }

    #[test]
    fn every_listed_job_has_a_program_in_each_of_its_languages() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus/programs");
        let sources = |class: &str, extension: &str| {
            let mut text = String::new();
            for entry in fs::read_dir(folder.join(class)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|found| found == extension) {
                    text += &fs::read_to_string(path).unwrap();
                }
            }
            text
        };
        for job in jobs() {
            let class = job.folder();
            for language in &job.languages {
                let found = match language.as_str() {
                    "c" => sources(class, "c").contains(&format!("JOB({})", job.name)),
                    "python" => sources(class, "py").contains(&format!("@job\ndef {}():", job.name)),
                    "line" => folder.join(class).join("lines").join(&job.name).is_file(),
                    _ => folder.join(class).join("steps").join(format!("{}.sh", job.name)).is_file(),
                };
                assert!(found, "{} has no {language} program", job.name);
            }
        }
    }

    #[test]
    fn a_plan_is_a_function_of_its_seed() {
        let jobs = jobs();
        let plan = |seed| Plan::new(&jobs, seed, Some(2), None).unwrap().runs;
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
    }

    #[test]
    fn seeds_stages_names_ports_and_peers_do_not_depend_on_the_class() {
        // Relabelling every job changes nothing of what is drawn.
        let jobs = jobs();
        let mut relabelled = jobs.clone();
        for job in &mut relabelled {
            job.label = "benign".to_owned();
        }
        let drawn = |jobs: &[Job]| {
            let runs = Plan::new(jobs, 3, None, None).unwrap().runs;
            runs.into_iter()
                .map(|r| (r.seed, r.stage, r.ports, r.peer, r.program, r.rounds, r.name))
                .collect::<Vec<_>>()
        };
        assert_eq!(drawn(&jobs), drawn(&relabelled));
    }

    #[test]
    fn broken_lines_are_refused() {
        for line in [
            "",
            "a,b",
            "a,good,,c,1,1",
            "a,benign,T1,c,1,1",
            "a,malicious,,c,1,1",
            "a,benign,,rust,1,1",
            "a,benign,,c,0,1",
        ] {
            assert!(parse_job(line).is_err(), "{line}");
        }
    }
}
