//! `bellwether record`: what programs do in the sandbox, as telemetry to learn from.

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, anyhow};
use bellwether_artifact::durable::DurableFile;
use bellwether_env_adapter::ingest::telemetry::{TelemetryWriter, WriterOptions};
use bellwether_env_adapter::{EpisodeAttributes, EpisodeId, Label};
use bellwether_sandbox::Limits;
use bellwether_sandbox::abilities::Abilities;
use bellwether_sandbox::recording::{Recording, Take};
use bellwether_sandbox::stage::{Beside, Specimen};
use bellwether_sandbox::vault::Sample;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::terms::{self, Known};
use super::{Failure, Output, doctor, keep_inputs};

/// Records what programs do in the sandbox: telemetry to train on, with nothing decided and nothing done to them.
///
/// Each program runs as `detonate` runs it, to its end or until its time is up, in both stages: one episode of the file that is
/// written. Times are kept to the microsecond. Exit code 2 where a program is left out.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The program: for Linux on x86-64, or a script that names its interpreter.
    #[arg(required_unless_present = "list", conflicts_with = "list")]
    file: Option<PathBuf>,
    /// What it is started with.
    #[arg(last = true, conflicts_with = "list")]
    arguments: Vec<OsString>,
    /// Programs to record, a JSON object a line: `{"file": "a.out", "episode_id": "a-1", "label": "benign", "family": "a"}`, and as far
    /// as wanted `name` (what the file is called inside), `arguments`, `beside` (names of files in the working folder, and which they
    /// are), `stage`, `seed` and `marked_home`. Paths start at the list's folder.
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// The telemetry file to write; it appears when it is whole.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// What the program is.
    #[arg(long, value_enum, conflicts_with = "list")]
    label: Option<Known>,
    /// Its family: what a split keeps together.
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    family: Option<String>,
    /// Seed of the made-up home.
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "list")]
    seed: u64,
    /// Put markers into the home without which programs of the corpus refuse to run, and answer the ports of their peer.
    #[arg(long, conflicts_with = "list")]
    marked_home: bool,
    /// Record in one stage alone, 1 or 2; what the list says of a program goes first.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=2))]
    stage: Option<u8>,
    /// Seconds that a program has in stage 1 and in stage 2.
    #[arg(long, value_name = "S", num_args = 2, default_values_t = [60, 120])]
    time: Vec<u64>,
    /// Events of a stage that are kept. A program that goes on is killed, and its episode is marked incomplete.
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1..))]
    most_events: u32,
    /// Programs that run at once.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// Leave out what does not end with status 0, even when it is tried again.
    #[arg(long)]
    only_successful: bool,
}

/// A line of the list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    file: PathBuf,
    episode_id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Vec<String>,
    #[serde(default)]
    beside: BTreeMap<String, PathBuf>,
    #[serde(default)]
    label: Option<Label>,
    #[serde(default)]
    family: Option<String>,
    #[serde(default = "first_seed")]
    seed: u64,
    #[serde(default)]
    marked_home: bool,
    /// The one stage in which it runs.
    #[serde(default)]
    stage: Option<u8>,
}

const fn first_seed() -> u64 {
    1
}

/// What `record` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "RecordReport")]
pub(crate) struct Report {
    /// The telemetry file; null where nothing was recorded, so that nothing was written.
    out: Option<PathBuf>,
    /// Episodes in it.
    episodes: u64,
    /// Events in it.
    events: u64,
    /// Episodes among them that are not complete: cut, or something went wrong.
    incomplete: u64,
    /// Programs that are not in it.
    left_out: Vec<LeftOut>,
    /// What this host could not give to the programs, and why.
    lacking: Vec<String>,
}

/// A program that was not recorded.
#[derive(Serialize, JsonSchema)]
struct LeftOut {
    /// The episode that it was to be.
    episode_id: String,
    /// Why it is not.
    why: String,
}

/// How far what is recorded may be ahead of what is written, in episodes: what bounds the memory.
const AHEAD: usize = 64;
/// Programs after which progress is told where there is no terminal.
const TOLD_EVERY: usize = 100;
/// zstd level of what is written: recordings are written once and read often.
const ZSTD_LEVEL: i32 = 19;

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let limits = terms::limits(&self.time)?;
        let (entries, folder) = self.entries()?;
        let inputs = entries.iter().flat_map(|entry| entry.beside.values().chain([&entry.file]));
        let inputs: Vec<PathBuf> = inputs.map(|path| folder.join(path)).chain(self.list.clone()).collect();
        keep_inputs(inputs.iter().map(PathBuf::as_path), &self.out)?;
        let abilities = Abilities::of_this_host();
        if !abilities.detonates {
            return Err(Failure::Failed(anyhow!(
                "this host cannot record:\n{}",
                doctor::lacking(&abilities).join("\n")
            )));
        }
        let mut file = DurableFile::create(&self.out)?;
        let options = WriterOptions { zstd_level: ZSTD_LEVEL, ..WriterOptions::default() };
        let mut writer = TelemetryWriter::with_options(&mut file, options)?;
        let terms = Terms {
            folder: &folder,
            limits,
            stages: self.stage.map_or(1..=2, |stage| stage..=stage),
            most_events: self.most_events as usize,
            only_successful: self.only_successful,
        };
        let mut report =
            Report { out: None, episodes: 0, events: 0, incomplete: 0, left_out: Vec::new(), lacking: Vec::new() };
        let bar = output.progress("programs", entries.len() as u64);
        in_order(
            &entries,
            usize::from(self.jobs),
            |entry| terms.record(entry),
            |number, entry, recorded| {
                bar.set_position(number as u64 + 1);
                if bar.is_hidden() && number > 0 && number.is_multiple_of(TOLD_EVERY) {
                    output.say(format_args!("{number} of {} programs", entries.len()));
                }
                let (attributes, recording) = match recorded {
                    Ok(recorded) => recorded,
                    Err(why) => {
                        report.left_out.push(LeftOut { episode_id: entry.episode_id.clone(), why: format!("{why:#}") });
                        return Ok(());
                    }
                };
                report.incomplete += u64::from(!recording.is_complete());
                for what in recording.outcomes.iter().flat_map(|outcome| &outcome.lacking) {
                    if !report.lacking.contains(what) {
                        report.lacking.push(what.clone());
                    }
                }
                recording.replay(&attributes, &mut writer)
            },
        )?;
        bar.finish_and_clear();
        let (_, summary) = writer.finish()?;
        (report.episodes, report.events) = (summary.episodes, summary.events);
        if summary.episodes > 0 {
            file.commit()?;
            report.out = Some(self.out);
        }
        output.report(&report, || report.describe())?;
        match report.left_out.len() {
            0 => Ok(()),
            count => Err(Failure::NotMet(format!("{count} programs were left out"))),
        }
    }

    /// What is to be recorded, and the folder at which paths start.
    fn entries(&self) -> Result<(Vec<Entry>, PathBuf), Failure> {
        if let Some(file) = &self.file {
            let texts = self.arguments.iter().map(|text| text.to_str().map(str::to_owned));
            let arguments: Option<Vec<String>> = texts.collect();
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let entry = Entry {
                file: std::path::absolute(file)?,
                episode_id: format!("{name}-{}", self.seed),
                name: None,
                arguments: arguments.ok_or_else(|| Failure::usage(anyhow!("an argument of the file is no UTF-8")))?,
                beside: BTreeMap::new(),
                label: self.label.map(Known::label),
                family: self.family.clone(),
                seed: self.seed,
                marked_home: self.marked_home,
                stage: None,
            };
            return Ok((vec![entry], PathBuf::new()));
        }
        let list = self.list.as_deref().unwrap_or(Path::new("-"));
        let text = fs::read_to_string(list).with_context(|| format!("cannot read {}", list.display()))?;
        let mut names = std::collections::BTreeSet::new();
        let mut entries = Vec::new();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |why: String| Failure::usage(anyhow!("{} line {}: {why}", list.display(), number + 1));
            let entry: Entry = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            if let Some(name) =
                entry.beside.keys().find(|name| matches!(name.as_str(), "" | "." | "..") || name.contains('/'))
            {
                return Err(wrong(format!("{name:?} lies beside the program: give a name without a slash")));
            }
            if let Some(stage) = entry.stage.filter(|stage| !(1..=2).contains(stage)) {
                return Err(wrong(format!("there is no stage {stage}: give 1 or 2")));
            }
            if !names.insert(entry.episode_id.clone()) {
                return Err(wrong(format!("the episode {:?} is listed twice", entry.episode_id)));
            }
            entries.push(entry);
        }
        let folder = list.parent().map(Path::to_path_buf).unwrap_or_default();
        Ok((entries, folder))
    }
}

/// On what terms programs are recorded.
struct Terms<'a> {
    folder: &'a Path,
    limits: [Limits; 2],
    stages: RangeInclusive<u8>,
    most_events: usize,
    only_successful: bool,
}

impl Terms<'_> {
    fn record(&self, entry: &Entry) -> anyhow::Result<(EpisodeAttributes, Recording)> {
        let sample = Sample::open(&self.folder.join(&entry.file), terms::MOST_BYTES)?;
        let read = |(name, path): (&String, &PathBuf)| {
            let path = self.folder.join(path);
            let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            anyhow::Ok(Beside { name: name.clone(), bytes })
        };
        let arguments = entry.arguments.iter().map(|text| CString::new(text.as_str()));
        let name =
            entry.name.clone().map_or_else(|| entry.file.file_name().unwrap_or_default().to_owned(), OsString::from);
        let take = Take {
            episode: EpisodeId(entry.episode_id.clone()),
            sample: Arc::new(Specimen {
                memory: sample.memory().as_fd().try_clone_to_owned()?,
                name: terms::shown(name.as_encoded_bytes()),
                arguments: arguments.collect::<Result<_, _>>().context("an argument holds a zero byte")?,
                marked_home: entry.marked_home,
            }),
            beside: entry.beside.iter().map(read).collect::<Result<_, _>>()?,
            stages: entry.stage.map_or_else(|| self.stages.clone(), |stage| stage..=stage),
            limits: self.limits.clone(),
            seed: entry.seed,
            most_events: self.most_events,
        };
        let mut recording = Recording::make(&take);
        let failed = |recording: &Result<Recording, _>| match recording {
            Ok(recording) => self.only_successful && recording.failure().is_some(),
            Err(_) => true,
        };
        if failed(&recording) {
            // Once more: a busy host may have kept it from ending in time.
            recording = Recording::make(&take);
        }
        let recording = recording?;
        if let Some(why) = recording.failure().filter(|_| self.only_successful) {
            return Err(anyhow!(why));
        }
        let attributes = EpisodeAttributes {
            episode_id: take.episode,
            label: entry.label,
            family: entry.family.clone(),
            source: Some("sandbox".to_owned()),
            sample_sha256: Some(sample.identity().sha256.to_string()),
            complete: recording.is_complete(),
        };
        Ok((attributes, recording))
    }
}

/// What the threads of [`in_order`] share.
struct Shared<T> {
    /// The next to be worked on.
    next: usize,
    /// The next to be taken.
    taken: usize,
    /// What is done and waits for its turn.
    done: BTreeMap<usize, T>,
    /// Nothing is begun any more.
    over: bool,
}

/// Works on items with several threads and takes the results in the order of the items, in this one.
///
/// # Errors
/// The first that taking gives; what is being worked on then is finished and dropped.
fn in_order<I: Sync, T: Send, E>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> T + Sync,
    mut take: impl FnMut(usize, &I, T) -> Result<(), E>,
) -> Result<(), E> {
    let shared = Mutex::new(Shared { next: 0, taken: 0, done: BTreeMap::new(), over: false });
    let changed = Condvar::new();
    // Every statement behind the lock leaves it whole.
    let lock = || -> MutexGuard<'_, Shared<T>> { shared.lock().unwrap_or_else(PoisonError::into_inner) };
    let wait = |held| changed.wait(held).unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..threads.min(items.len()) {
            scope.spawn(|| {
                loop {
                    let mut held = lock();
                    while !held.over && held.next < items.len() && held.next >= held.taken + AHEAD {
                        held = wait(held);
                    }
                    let number = held.next;
                    let Some(item) = items.get(number).filter(|_| !held.over) else { break };
                    held.next += 1;
                    drop(held);
                    let result = work(item);
                    lock().done.insert(number, result);
                    changed.notify_all();
                }
            });
        }
        for (number, item) in items.iter().enumerate() {
            let mut held = lock();
            let result = loop {
                match held.done.remove(&number) {
                    Some(result) => break result,
                    None => held = wait(held),
                }
            };
            held.taken = number + 1;
            drop(held);
            changed.notify_all();
            if let Err(error) = take(number, item, result) {
                lock().over = true;
                changed.notify_all();
                return Err(error);
            }
        }
        Ok(())
    })
}

impl Report {
    fn describe(&self) -> String {
        let mut lines = vec![format!(
            "{} episodes with {} events, {} of them incomplete; {} programs left out",
            self.episodes,
            self.events,
            self.incomplete,
            self.left_out.len()
        )];
        lines.extend(self.lacking.iter().map(|what| format!("without {what}")));
        lines.extend(self.left_out.iter().map(|program| format!("left out {}: {}", program.episode_id, program.why)));
        match &self.out {
            Some(out) => lines.push(format!("wrote {}", out.display())),
            None => lines.push("nothing was written".to_owned()),
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_taken_in_order_whatever_order_they_come_in() {
        let items: Vec<u64> = (0..300).collect();
        for threads in [1, 3, 8] {
            let mut taken = Vec::new();
            let work = |item: &u64| {
                // The even ones are done late.
                thread::sleep(std::time::Duration::from_micros((item + 1) % 2 * 300));
                item * 2
            };
            let ended: Result<(), ()> = in_order(&items, threads, work, |number, item, result| {
                assert_eq!(result, item * 2);
                taken.push(number);
                Ok(())
            });
            assert_eq!(ended, Ok(()));
            assert_eq!(taken, (0..300).collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_error_ends_the_work_soon() {
        let items: Vec<usize> = (0..10_000).collect();
        let begun = std::sync::atomic::AtomicUsize::new(0);
        let work = |_: &usize| begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let ended = in_order(&items, 4, work, |number, _, _| if number == 5 { Err("full") } else { Ok(()) });
        assert_eq!(ended, Err("full"));
        assert!(begun.into_inner() <= 5 + AHEAD + 4);
    }
}
