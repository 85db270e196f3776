//! How fast a run on played steps is whose steps are ten times as large as its memory, beside one that has all of them in memory.
//!
//! ```text
//! bellwether evaluate --model models/quickstart --data corpus/recordings.parquet --to-the-end --episodes played.parquet
//! E="cargo run --release -p bellwether-trainer --example larger_than_memory --"
//! $E make large.parquet 1280 played.parquet
//! $E make part.parquet 128 played.parquet
//! $E compare large.parquet part.parquet 128 128-64 128 7 5
//! ```
//!
//! `make FILE MIB [PLAYED]` writes a file of this size: the episodes of another one, over and over, or episodes of 64 random numbers a
//! state and 6 actions. `compare STREAMED RESIDENT MIB HIDDEN BATCH ROUNDS SECONDS` has two processes learn in turn: one from all steps
//! of the file RESIDENT, in memory, and one from those of STREAMED in a memory control group of so many MiB, page cache included, half of
//! which it gives to the steps. It needs Linux, and the right to make such a group.

use bellwether_artifact::durable::DurableFile;
use bellwether_replay::episodes::{End, EpisodeFileHeader, EpisodeReader, EpisodeWriter, PlayedParts, Step, StepRow};
use bellwether_replay::streamed::EpisodeSource;
use bellwether_replay::{ActionMask, BufferConfig, Encoding};
use bellwether_trainer::dqn::UpdateConfig;
use bellwether_trainer::learner::fused::FusedOptions;
use bellwether_trainer::network::NetworkConfig;
use bellwether_trainer::offline::{OfflineConfig, OfflineTrainer, Steps};
use bellwether_trainer::streams::stream;
use rand::Rng;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The variable that names the control group of a process that streams.
const GROUP: &str = "LARGER_THAN_MEMORY_GROUP";

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["make", file, mib] => make(Path::new(file), mib.parse()?, None),
        ["make", file, mib, played] => make(Path::new(file), mib.parse()?, Some(Path::new(played))),
        ["learn", file, bytes, hidden, batch] => learn(Path::new(file), bytes.parse()?, hidden, batch.parse()?),
        ["compare", streamed, resident, mib, hidden, batch, rounds, seconds] => compare(
            (Path::new(streamed), Path::new(resident)),
            mib.parse()?,
            [hidden, batch],
            (rounds.parse()?, seconds.parse()?),
        ),
        _ => Err("say make, compare or learn, and what the first lines of this example say".into()),
    }
}

/// A file, and how many bytes were written to it.
struct Counted {
    file: BufWriter<DurableFile>,
    bytes: Arc<AtomicU64>,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes.fetch_add(written as u64, Ordering::Relaxed);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

fn make(path: &Path, mib: u64, played: Option<&Path>) -> Result<(), Failure> {
    let header = match played {
        Some(played) => EpisodeReader::open(File::open(played)?, None)?.header().clone(),
        None => random_header(),
    };
    let bytes: Arc<AtomicU64> = Arc::default();
    let counted = Counted { file: BufWriter::new(DurableFile::create(path)?), bytes: bytes.clone() };
    let mut writer = EpisodeWriter::new(counted, header)?;
    let (mut round, mut rng) = (0, stream(1, "states"));
    while bytes.load(Ordering::Relaxed) < mib << 20 {
        match played {
            Some(played) => repeat(played, round, &mut writer)?,
            None => random(&mut rng, round, &mut writer)?,
        }
        round += 1;
    }
    let (counted, written) = writer.finish()?;
    counted.file.into_inner().map_err(|error| error.into_error())?.commit()?;
    writeln!(std::io::stdout(), "{} bytes, {} steps", bytes.load(Ordering::Relaxed), written.steps)?;
    Ok(())
}

fn repeat(played: &Path, round: u64, to: &mut EpisodeWriter<Counted>) -> Result<(), Failure> {
    let mut from = EpisodeReader::open(File::open(played)?, None)?;
    let mut row = StepRow::default();
    while from.next(&mut row)? {
        let name = format!("{round}-{}", row.episode_id);
        to.write(&Step { episode_id: &name, ..row.as_step() })?;
    }
    Ok(())
}

fn random_header() -> EpisodeFileHeader {
    EpisodeFileHeader {
        width: 64,
        actions: 6,
        encoding: Encoding::Dense,
        spec_hash: "random".into(),
        action_set: "random".into(),
        reward: "{}".into(),
        sources: Vec::new(),
        policy: None,
        q_values: false,
        safe_rule: false,
    }
}

/// An episode of 50 steps.
fn random(rng: &mut impl Rng, round: u64, to: &mut EpisodeWriter<Counted>) -> Result<(), Failure> {
    let name = format!("{round}");
    let mut state = [0.0; 64];
    for step in 0..50 {
        state.iter_mut().for_each(|value| *value = (rng.next_u32() >> 8) as f32 / (1 << 24) as f32);
        let action = rng.next_u32() % 6;
        to.write(&Step {
            episode_id: &name,
            step,
            stage: 1,
            state: &state,
            action_mask: ActionMask::all(6),
            played: Some(PlayedParts {
                action,
                r0: state[action as usize],
                r1: 0.0,
                behaviour_probability: 1.0 / 6.0,
                safe_rule: false,
            }),
            end: (step == 49).then_some(End::Terminated),
            partial: false,
            label: None,
            events_seen: u64::from(step),
            q_values: None,
        })?;
    }
    Ok(())
}

/// The steps of a file: in memory, or streamed through so many bytes of it.
fn steps(path: &Path, config: &OfflineConfig) -> Result<Steps, Failure> {
    let mut reader = EpisodeReader::open(File::open(path)?, None)?;
    let (width, actions, rows) = (reader.header().width, reader.header().actions, reader.rows() as usize);
    let reward = |row: &StepRow| row.played.map_or(0.0, |played| played.r0);
    if config.memory_bytes == 0 {
        let mut buffer = config.buffer(width, actions as usize, rows)?;
        let stream = buffer.add_stream();
        reader.load(&mut buffer, stream, reward)?;
        return Ok(buffer.into());
    }
    let survey = reader.survey(|_| ())?;
    let source = EpisodeSource { name: path.display().to_string(), reader, survey };
    Ok(config.streamed(vec![source], BufferConfig { width, actions, capacity: 2 }, Box::new(reward))?.into())
}

/// Learns for as many seconds as each line of the standard input says, and prints how many updates a second that were.
fn learn(path: &Path, memory_bytes: u64, hidden: &str, batch_size: usize) -> Result<(), Failure> {
    if let Some(group) = std::env::var_os(GROUP) {
        enter(Path::new(&group))?;
    }
    let hidden = hidden.split('-').map(str::parse).collect::<Result<_, _>>()?;
    let config = OfflineConfig {
        updates: u64::MAX >> 1,
        network: NetworkConfig { hidden, ..NetworkConfig::default() },
        update: UpdateConfig { batch_size, gamma: 0.9, learning_rate: 1e-4, ..UpdateConfig::default() },
        metrics_interval: 20,
        memory_bytes,
        ..OfflineConfig::default()
    };
    let mut run = OfflineTrainer::new(config.clone(), steps(path, &config)?, FusedOptions::default())?;
    run.round()?;
    let mut out = std::io::stdout();
    let (held, all) = (run.steps().buffer().states_held(), run.steps().transitions());
    writeln!(out, "{held} of {all}")?;
    for line in std::io::stdin().lock().lines() {
        let seconds: f64 = line?.parse()?;
        let (started, before) = (Instant::now(), run.updates());
        while started.elapsed().as_secs_f64() < seconds {
            run.round()?;
        }
        let rate = (run.updates() - before) as f64 / started.elapsed().as_secs_f64();
        writeln!(out, "{rate}")?;
    }
    let peak = std::fs::read_to_string("/proc/self/status")?;
    let peak = peak.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    let io = std::fs::read_to_string("/proc/self/io")?;
    let io = io.lines().find(|line| line.starts_with("read_bytes")).unwrap_or_default();
    writeln!(out, "{} updates, passes {:.2}, {peak}, {io} from the disk", run.updates(), run.steps().passes())?;
    Ok(())
}

/// A process that learns when it is told.
struct Learner {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Learner {
    fn start(path: &Path, bytes: u64, network: [&str; 2], group: Option<&Path>) -> Result<Learner, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("learn").arg(path).arg(bytes.to_string()).args(network);
        command.envs(group.map(|group| (GROUP, group))).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let (orders, answers) = pipes.ok_or("a process without pipes")?;
        Ok(Learner { child, orders, answers: BufReader::new(answers) })
    }

    fn answer(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            return Err(format!("a process has ended: {}", self.child.wait()?).into());
        }
        Ok(line.trim().to_owned())
    }

    fn rate(&mut self, seconds: f64) -> Result<f64, Failure> {
        writeln!(self.orders, "{seconds}")?;
        Ok(self.answer()?.parse()?)
    }

    fn end(mut self) -> Result<String, Failure> {
        drop(self.orders);
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        self.child.wait()?;
        Ok(line.trim().to_owned())
    }
}

fn compare(
    (streamed, resident): (&Path, &Path),
    mib: u64,
    network: [&str; 2],
    (rounds, seconds): (usize, f64),
) -> Result<(), Failure> {
    // Pages that somebody else has read are charged to nobody here, so none of the file may be in memory.
    let forgotten =
        Command::new("dd").arg(format!("if={}", streamed.display())).args(["iflag=nocache", "count=0"]).status()?;
    if !forgotten.success() {
        return Err("dd cannot drop the file from the page cache".into());
    }
    let group = Group::new(mib << 20)?;
    let mut out = std::io::stdout();
    let mut within = Learner::start(streamed, mib << 19, network, Some(&group.folder))?;
    let told = within.answer()?;
    writeln!(
        out,
        "streamed: {told} steps in memory, {} bytes in a file, {mib} MiB",
        std::fs::metadata(streamed)?.len()
    )?;
    let mut all = Learner::start(resident, 0, network, None)?;
    writeln!(out, "in memory: {} steps", all.answer()?)?;
    let mut ratios = Vec::new();
    for _ in 0..rounds {
        let (whole, part) = (all.rate(seconds)?, within.rate(seconds)?);
        writeln!(out, "{whole:.0} updates/s in memory, {part:.0} streamed: {:.3}", part / whole)?;
        ratios.push(part / whole);
    }
    writeln!(out, "peak of the group: {} bytes", group.peak()?)?;
    writeln!(out, "in memory: {}\nstreamed: {}", all.end()?, within.end()?)?;
    ratios.sort_by(f64::total_cmp);
    writeln!(out, "ratio {:.3} ({:.3} to {:.3})", ratios[rounds / 2], ratios[0], ratios[rounds - 1])?;
    Ok(())
}

/// A control group that bounds memory, removed in the end.
struct Group {
    folder: PathBuf,
    /// Whether it is of the first version of control groups.
    first: bool,
}

impl Group {
    fn new(bytes: u64) -> Result<Group, Failure> {
        let first = Path::new("/sys/fs/cgroup/memory").is_dir();
        let above = Path::new(if first { "/sys/fs/cgroup/memory" } else { "/sys/fs/cgroup" });
        let group = Group { folder: above.join(format!("larger-than-memory-{}", std::process::id())), first };
        std::fs::create_dir(&group.folder)?;
        order(&group.folder.join(if first { "memory.limit_in_bytes" } else { "memory.max" }), &bytes.to_string())?;
        Ok(group)
    }

    fn peak(&self) -> Result<String, Failure> {
        let name = if self.first { "memory.max_usage_in_bytes" } else { "memory.peak" };
        Ok(std::fs::read_to_string(self.folder.join(name))?.trim().to_owned())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is still in it has lost its pipes and is about to end.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

fn enter(group: &Path) -> Result<(), Failure> {
    order(&group.join("cgroup.procs"), &std::process::id().to_string())
}

/// Writes to a file of the kernel.
fn order(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(File::options().write(true).open(path)?.write_all(text.as_bytes())?)
}
