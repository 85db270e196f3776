//! `bellwether detonate`: one sample through the sandbox, decided on while it runs.

use std::ffi::{CString, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, anyhow};
use bellwether_artifact::Visible;
use bellwether_artifact::secret::{Purpose, Secrets};
use bellwether_env_adapter::{Action, EpisodeId};
use bellwether_inference::policy::{Options, Policy};
use bellwether_registry::clock::unix_ms;
use bellwether_sandbox::episode::{self, Decision, Episode, Happening, Listener, Monotonic, Setup, Trail, Transition};
use bellwether_sandbox::stage::{Came, DecisionId, Feedback};
use bellwether_sandbox::vault::{Sample, Vault};

use super::audit::Witness;
use super::detonation::Report;
use super::judges::{Ground, Judges, ServiceFlags};
use super::stages::StageFlags;
use super::terms::{self, Known, Terms};
use super::{Failure, Output, model, output, played};

/// Runs a file in the sandbox, decides window by window whether it goes on, and prints what was decided and done.
///
/// A file that stage 1 releases runs again in stage 2, as another user on another host, for longer. What the file does stays in
/// the sandbox and is gone with it. Exit code 0 where the file was released, 2 where it was convicted, 1 where neither is certain.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The file: a program for Linux on x86-64, or a script that names its interpreter.
    file: PathBuf,
    /// What the file is started with.
    #[arg(last = true)]
    arguments: Vec<OsString>,
    /// Folder of the model: `model.onnx` and `model.json`.
    #[arg(long, value_name = "DIR", conflicts_with = "policy_service")]
    model: Option<PathBuf>,
    #[command(flatten)]
    engine: model::EngineFlags,
    #[command(flatten)]
    service: ServiceFlags,
    /// False-positive rate to serve.
    #[arg(long, value_name = "RATE", default_value_t = played::TARGET_FPR)]
    target_fpr: f64,
    /// Where the telemetry, the steps and the report of the episode go: into a folder of its own here.
    #[arg(long, value_name = "DIR", default_value = "episodes")]
    out: PathBuf,
    /// Let the verdict fall in stage 1.
    #[arg(long)]
    one_stage: bool,
    /// Seconds until a verdict must fall, in stage 1 and in stage 2.
    #[arg(long, value_name = "S", num_args = 2, default_values_t = [60, 120])]
    time: Vec<u64>,
    /// Milliseconds that a window waits for a policy service or a model that ONNX Runtime evaluates; then the safe rule raises the
    /// isolation, and the episode says so. The native engine is not waited for: it decides at once.
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    decide_within: u64,
    /// Seed of the made-up home; drawn unless given, and told in the report.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    stages: StageFlags,
    /// What the file is, where that is known: the rewards in the steps rest on it.
    #[arg(long, value_enum)]
    label: Option<Known>,
    /// Put markers into the home without which programs of the corpus refuse to run, and answer the ports of their peer; others
    /// could tell by them where they are.
    #[arg(long)]
    marked_home: bool,
    /// Folder of the vault into which `quarantine` moves the file. Without one the file is left where it is, and that is said.
    #[arg(long, value_name = "DIR", requires = "vault_key")]
    vault: Option<PathBuf>,
    /// The file of the vault's secrets.
    #[arg(long, value_name = "FILE", requires = "vault")]
    vault_key: Option<PathBuf>,
    #[command(flatten)]
    witness: Witness,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        let [first, second] = self.stages.open(self.decide_within)?;
        let ground = self.judges()?.now();
        let sample = Sample::open(&self.file, terms::MOST_BYTES)?;
        let episode = EpisodeId(format!("{}-{:.8}", terms::digits()?, sample.identity().sha256.to_string()));
        let limit = Duration::from_millis(self.decide_within);
        let mut judge = ground.judge(&episode, self.target_fpr, limit).map_err(Failure::usage)?;
        let vault = match (&self.vault, &self.vault_key) {
            (Some(folder), Some(key)) => Some(Vault::open(folder, Secrets::read(key, Purpose::Vault)?)?),
            _ => None,
        };
        let mut listeners: Vec<Box<dyn Listener>> = Vec::new();
        if let Some(log) = self.witness.open()? {
            listeners.push(Box::new(Trail::new(log, unix_ms)));
        }
        if !output.is_json() {
            listeners.push(Box::new(Lines(io::stdout())));
        }
        let setup = self.setup(&ground, &sample, episode)?;
        let mut seal = |decision: &DecisionId| terms::seal(vault.as_ref(), &sample, &setup.episode, decision);
        let report = episode::run(
            &setup,
            Episode {
                stages: [&*first, &*second],
                judge: &mut *judge,
                seal: &mut seal,
                listeners,
                clock: &Monotonic,
                stop: &AtomicBool::new(false),
            },
        )?;
        let report = Report::leave(&setup.folder, &report)?;
        output.report(&report, || report.describe())?;
        report.verdict_met()
    }

    fn judges(&self) -> Result<Judges, Failure> {
        let Some(model) = &self.model else {
            if self.engine.is_given() {
                return Err(Failure::usage(anyhow!("--engine and --onnx-runtime are for a model in this process")));
            }
            return self.service.find()?.ok_or_else(|| Failure::usage(anyhow!("give --model or --policy-service")));
        };
        let policy = Policy::new(self.engine.load(model, 1)?, None, Options::default());
        Ok(Judges::Here(policy.context("the model cannot decide here")?))
    }

    fn setup(&self, ground: &Ground, sample: &Sample, episode: EpisodeId) -> Result<Setup, Failure> {
        let zero = |_| Failure::usage(anyhow!("an argument of the file holds a zero byte"));
        let texts = self.arguments.iter().map(|text| CString::new(text.clone().into_vec()).map_err(zero));
        let terms = Terms {
            ground,
            target_fpr: self.target_fpr,
            stages: if self.one_stage { 1 } else { 2 },
            limits: terms::limits(&self.time)?,
            seed: self.seed,
            label: self.label.map(Known::label),
            marked_home: self.marked_home,
        };
        let name = self.file.file_name().unwrap_or_default();
        terms.setup(episode, sample, name, texts.collect::<Result<_, _>>()?, &self.out)
    }
}

/// Prints an episode line by line while it happens.
pub(crate) struct Lines<W>(pub(crate) W);

impl<W: Write> Lines<W> {
    /// Nothing that a sample or a stage elsewhere has chosen acts on the terminal.
    fn print(&mut self, line: &str) -> Result<(), String> {
        let printed = writeln!(self.0, "{}", Visible::new(line)).and_then(|()| self.0.flush());
        // Whoever looks away does not end the episode.
        output::unless_closed(printed).map(drop).map_err(|error| error.to_string())
    }
}

impl<W: Write + Send> Listener for Lines<W> {
    fn transition(&mut self, transition: &Transition) -> Result<(), String> {
        match &transition.happening {
            Happening::Started { stage } => {
                self.print(&format!("stage {stage}"))?;
                self.print(
                    "    time   window events level  action            continue    raise  release  termin.  quarant.",
                )
            }
            Happening::Fed { feedback } => self.print(&format!("             {}", done(feedback))),
            Happening::Unstarted { why, .. } => self.print(&format!("the sample did not start: {why}")),
            Happening::Sealed { quarantined } => self.print(&quarantined.to_string()),
            Happening::Unsealed { why } => self.print(&format!("not in the vault: {why}")),
            _ => Ok(()),
        }
    }

    fn decision(&mut self, decision: &Decision) {
        // That standard output takes nothing is for the report to say.
        _ = self.print(&line(decision));
    }
}

fn line(decision: &Decision) -> String {
    let Decision { window, events, level, action, .. } = decision;
    let values = match (&decision.q_values, &decision.safe_rule) {
        (Some(values), _) => values
            .iter()
            .zip(decision.mask)
            .map(|(value, allowed)| if allowed { format!("{value:>9.3}") } else { format!("{:>9}", "-") })
            .collect(),
        (None, why) => format!("  by the safe rule: {}", why.as_deref().unwrap_or("no answer")),
    };
    let seconds = decision.time_ns as f64 / 1e9;
    format!("{seconds:>8.3} s {window:>6} {events:>6} {level:>5}  {:<15}{values}", action.name())
}

fn done(feedback: &Feedback) -> String {
    let ms = feedback.took_us as f64 / 1e3;
    let what = match feedback.action {
        Action::RaiseIsolation => format!("level {}", feedback.level),
        action => action.name().to_owned(),
    };
    match &feedback.came {
        Came::Done { proof } => format!("{what} after {ms:.2} ms: {}", proof.text()),
        Came::Refused { .. } => format!("{what} was refused"),
        Came::Failed { why } => format!("{what} failed: {why}"),
    }
}

#[cfg(test)]
mod tests {
    use bellwether_sandbox::episode::Phase;
    use bellwether_sandbox::stage::Close;
    use bellwether_sandbox::vault::{QuarantineId, Quarantined, Removal};

    use super::*;

    const HOSTILE: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\n\u{9b}31m\u{202e}fdp.exe";

    #[test]
    fn no_text_from_elsewhere_acts_on_the_terminal() {
        let why = || HOSTILE.to_owned();
        let feedback = Feedback {
            decision: None,
            stage: 1,
            action: Action::RaiseIsolation,
            level: 0,
            came: Came::Failed { why: why() },
            took_us: 1,
            attempts: 1,
        };
        let happenings = [
            Happening::Started { stage: 1 },
            Happening::Unstarted { stage: 1, why: why(), passing: false },
            Happening::Fed { feedback },
            Happening::Unsealed { why: why() },
            Happening::Sealed {
                quarantined: Quarantined { id: QuarantineId::of_decision("d"), removal: Removal::Kept { why: why() } },
            },
        ];
        let mut lines = Lines(Vec::new());
        for happening in happenings {
            let (episode, phase) = (EpisodeId("e".to_owned()), Phase::New);
            lines
                .transition(&Transition { episode, number: 0, from: phase, happening, to: phase, stray: false })
                .unwrap();
        }
        lines.decision(&Decision {
            decision: DecisionId("d".to_owned()),
            stage: 1,
            window: 0,
            events: 1,
            events_seen: 1,
            time_ns: 1,
            close: Close::Window,
            mask: [true; 5],
            q_values: None,
            margin: None,
            model_version: None,
            safe_rule: Some(why()),
            action: Action::Continue,
            level: 0,
            level_after: 0,
            took_us: 1,
        });
        let text = String::from_utf8(lines.0).unwrap();
        assert_eq!(text.matches(r"\u{1b}[2J").count(), 5, "{text}");
        assert_eq!(text.lines().count(), 7);
        assert!(text.chars().all(|one| one == '\n' || !one.is_control() && one != '\u{202e}'), "{text:?}");
    }
}
