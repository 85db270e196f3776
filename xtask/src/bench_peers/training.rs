//! The trainer beside published ones: updates per second, and a whole run of a recipe.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Effort, Ratio};
use crate::python::{self, Purpose};
use crate::workspace::{Workspace, cargo, shown};

/// A program that answers one line with one line, and works only while it is asked.
struct Partner {
    child: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    name: String,
}

/// The two that take turns.
struct Partners {
    ours: Partner,
    peer: Partner,
}

/// Versions of the packages.
#[derive(Debug, Deserialize)]
struct Versions {
    #[serde(rename = "stable-baselines3")]
    stable_baselines: String,
    d3rlpy: String,
    torch: String,
}

/// What the processor can do at most.
#[derive(Debug, Deserialize)]
struct FmaPeak {
    isa: String,
    gflops: f64,
}

/// Updates in one round.
#[derive(Debug, Deserialize)]
struct Updates {
    updates_per_second: f64,
    /// Of the matrix products; the peers do not count theirs.
    #[serde(default)]
    gflops: f64,
}

/// One run of the recipe.
#[derive(Debug, Deserialize)]
struct CartPole {
    seconds: f64,
    updates: u64,
    last_return: f64,
    best_return: f64,
}

/// What both learn with.
struct Network {
    inputs: usize,
    hidden: [usize; 2],
    actions: usize,
}

/// One round in which both took a turn.
struct Round {
    ours: Updates,
    peer: Updates,
    peak: f64,
}

/// The shape that figures of peers were published for, and that of the model that ships.
const NETWORKS: [Network; 2] =
    [Network { inputs: 64, hidden: [256, 256], actions: 6 }, Network { inputs: 512, hidden: [128, 64], actions: 5 }];

/// Prints how many updates a second both make.
pub(super) fn print_updates(workspace: &Workspace, effort: Effort) -> anyhow::Result<()> {
    let mut partners = match Partners::start(workspace, effort)? {
        Ok(partners) => partners,
        Err(reason) => {
            println!("\nUpdates were left out: {reason}.");
            return Ok(());
        }
    };
    println!("\n## Updates on one thread, drawing included\n");
    println!(
        "| network | algorithm, batch | ours per second | of the FMA peak | peer | per second | ours / peer (of rounds) |"
    );
    println!("|---|---|---|---|---|---|---|");
    let (rounds, seconds) = effort.choose((7, 1.0), (2, 0.05));
    let mut isa = String::new();
    for network in &NETWORKS {
        for (double, batch) in [(false, 32), (false, 256), (true, 32), (true, 256)] {
            let Network { inputs, hidden, actions } = network;
            let question = json!({ "updates": {
                "inputs": inputs, "hidden": hidden, "actions": actions, "double": double, "batch": batch, "seconds": seconds,
            } });
            let round = |_| -> anyhow::Result<Round> {
                let peak: FmaPeak = partners.ours.ask(&json!({ "fma_peak": { "seconds": seconds / 5.0 } }))?;
                let (ours, peer) = (partners.ours.ask(&question)?, partners.peer.ask(&question)?);
                isa = peak.isa;
                Ok(Round { ours, peer, peak: peak.gflops })
            };
            let rounds = (0..rounds).map(round).collect::<anyhow::Result<Vec<Round>>>()?;
            println!("{}", updates_line(network, double, batch, &rounds));
        }
    }
    println!(
        "\nMedians of {rounds} rounds of {seconds} s, in which the peak ({isa}), ours and the peer take turns; the share is that of the matrix \
         products alone. {}.",
        partners.versions()?
    );
    partners.finish()
}

fn updates_line(network: &Network, double: bool, batch: u32, rounds: &[Round]) -> String {
    let Network { inputs, hidden: [first, second], actions } = network;
    let (algorithm, peer) = if double { ("Double DQN", "d3rlpy") } else { ("DQN", "Stable-Baselines3") };
    let median = |of: fn(&Round) -> f64| Ratio::of_rounds(rounds.iter().map(of)).whole;
    format!(
        "| {inputs}-{first}-{second}-{actions} | {algorithm}, {batch} | {:.0} | {:.0} % | {peer} | {:.0} | {} |",
        median(|round| round.ours.updates_per_second),
        median(|round| round.ours.gflops / round.peak) * 100.0,
        median(|round| round.peer.updates_per_second),
        Ratio::of_rounds(rounds.iter().map(|round| round.ours.updates_per_second / round.peer.updates_per_second))
            .text()
    )
}

/// Prints how long both take for the recipe, and what their networks reach.
pub(super) fn print_cart_pole(workspace: &Workspace, effort: Effort) -> anyhow::Result<()> {
    let mut partners = match Partners::start(workspace, effort)? {
        Ok(partners) => partners,
        Err(reason) => {
            println!("\nCartPole was left out: {reason}.");
            return Ok(());
        }
    };
    let (seeds, steps) = effort.choose((5, 50_000), (1, 3_000));
    println!("\n## The recipe of RL Baselines3 Zoo for CartPole, {steps} steps on one thread\n");
    println!("| seed | ours | best, last network | Stable-Baselines3 | best, last network | times as fast |");
    println!("|---|---|---|---|---|---|");
    let mut ratios = Vec::new();
    let mut updates = [0; 2];
    for seed in 1..=seeds {
        let question = json!({ "cart_pole": { "seed": seed, "steps": steps } });
        let (ours, peer): (CartPole, CartPole) = (partners.ours.ask(&question)?, partners.peer.ask(&question)?);
        println!("{}", cart_pole_line(seed, &ours, &peer));
        ratios.push(times_as_fast(&ours, &peer));
        updates = [ours.updates, peer.updates];
    }
    let [ours, theirs] = updates;
    println!(
        "\n{ours} updates and {theirs}, for Stable-Baselines3 ends with a whole rollout; by the time for an update {} times as fast. \
         Returns are means of 50 greedy episodes, for the network that did best in the evaluations every 2,500 steps and for the last \
         one; evaluations are not in the times. {}.",
        Ratio::of_rounds(ratios).text(),
        partners.versions()?
    );
    partners.finish()
}

/// By the time for an update, so that one more round of them counts for nothing.
fn times_as_fast(ours: &CartPole, peer: &CartPole) -> f64 {
    let per_update = |run: &CartPole| run.seconds / run.updates as f64;
    per_update(peer) / per_update(ours)
}

fn cart_pole_line(seed: u64, ours: &CartPole, peer: &CartPole) -> String {
    let one = |CartPole { seconds, last_return, best_return, .. }: &CartPole| {
        format!("{seconds:.1} s | {best_return:.1}, {last_return:.1}")
    };
    format!("| {seed} | {} | {} | {:.2} |", one(ours), one(peer), times_as_fast(ours, peer))
}

impl Partners {
    /// Builds ours, sets up the peers' packages and starts both; the inner error says what is missing for the peers.
    fn start(workspace: &Workspace, effort: Effort) -> anyhow::Result<Result<Partners, String>> {
        let environment = match python::set_up(workspace, Purpose::Trainers)? {
            Ok(environment) => environment,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut ours = cargo();
        ours.args(["run", "--quiet", "--profile", effort.profile(), "--locked", "--package", "bellwether-trainer"]);
        ours.args(["--example", "beside_peers"]);
        let mut peer = Command::new(environment.interpreter());
        peer.arg(workspace.root.join("peers/trainers.py"));
        Ok(Ok(Partners { ours: Partner::start(&mut ours)?, peer: Partner::start(&mut peer)? }))
    }

    /// A sentence about the packages.
    fn versions(&mut self) -> anyhow::Result<String> {
        let Versions { stable_baselines, d3rlpy, torch } = self.peer.ask(&json!({ "versions": {} }))?;
        Ok(format!("Stable-Baselines3 {stable_baselines}, d3rlpy {d3rlpy}, PyTorch {torch}"))
    }

    fn finish(self) -> anyhow::Result<()> {
        self.ours.finish()?;
        self.peer.finish()
    }
}

impl Partner {
    fn start(command: &mut Command) -> anyhow::Result<Partner> {
        let name = shown(command);
        eprintln!("$ {name}");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let (questions, answers) = (child.stdin.take(), child.stdout.take().context("no standard output")?);
        Ok(Partner { child, questions, answers: BufReader::new(answers), name })
    }

    fn ask<T: DeserializeOwned>(&mut self, question: &Value) -> anyhow::Result<T> {
        let name = &self.name;
        let questions = self.questions.as_mut().with_context(|| format!("{name} is asked no more"))?;
        let asked = writeln!(questions, "{question}").and_then(|()| questions.flush());
        asked.with_context(|| format!("{name} is gone; what it said stands above"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).with_context(|| format!("{name} cannot be read"))?;
        serde_json::from_str(&answer).with_context(|| format!("{name} answers {question} with {answer:?}"))
    }

    /// Asks no more, and waits for the end.
    fn finish(mut self) -> anyhow::Result<()> {
        self.questions = None;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { bail!("{} failed ({status})", self.name) }
    }
}

impl Drop for Partner {
    /// A partner whose questions end, ends by itself; without this it would not be waited for where something failed.
    fn drop(&mut self) {
        self.questions = None;
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_become_a_row_of_medians() {
        let round = |ours, peer| Round {
            ours: Updates { updates_per_second: ours, gflops: ours / 50.0 },
            peer: Updates { updates_per_second: peer, gflops: 0.0 },
            peak: 120.0,
        };
        let rounds = [round(3000.0, 1000.0), round(4000.0, 800.0), round(3500.0, 1000.0)];
        assert_eq!(
            updates_line(&NETWORKS[0], true, 32, &rounds),
            "| 64-256-256-6 | Double DQN, 32 | 3500 | 58 % | d3rlpy | 1000 | 3.50 (3.00 to 5.00) |"
        );
    }

    #[test]
    fn runs_become_a_row() {
        let run = |seconds, updates, last_return| CartPole { seconds, updates, last_return, best_return: 500.0 };
        assert_eq!(
            cart_pole_line(3, &run(10.0, 20_000, 491.06), &run(45.25, 25_000, 500.0)),
            "| 3 | 10.0 s | 500.0, 491.1 | 45.2 s | 500.0, 500.0 | 3.62 |"
        );
    }

    #[test]
    fn a_partner_answers_and_a_dead_one_is_named() {
        let mut partner = Partner::start(&mut Command::new("cat")).unwrap();
        let answer: Value = partner.ask(&json!({ "updates": 3 })).unwrap();
        assert_eq!(answer, json!({ "updates": 3 }));
        partner.finish().unwrap();
        let mut partner = Partner::start(&mut Command::new("true")).unwrap();
        let error = partner.ask::<Value>(&json!(1)).unwrap_err();
        assert!(format!("{error:#}").starts_with("true "), "{error:#}");
    }
}
