//! `cargo xtask bench-peers`: ours and its peers, timed in turn in one run, as tables of ratios.
//!
//! Every figure is measured by a binary of the workspace that lets the two take turns, round after round; here their reports are
//! only asked for and set out. Builds are release builds, for the assertions of the `ci` profile cost more than what is compared.

mod decisions;
mod machine;
mod reload;
mod service;
mod training;

use std::process::Command;

use anyhow::Context;
use clap::ValueEnum;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::workspace::{Workspace, output, shown};

/// Arguments of `bench-peers`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Compare these alone; may be given several times.
    #[arg(long, value_enum)]
    only: Vec<Subject>,
    /// Few and short rounds in the profile of the tests: shows that everything runs, and is no figure to quote.
    #[arg(long)]
    quick: bool,
}

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// One decision: the native engine beside ONNX Runtime and tract.
    Decisions,
    /// The service: a decision over gRPC beside an echo of the same messages.
    Service,
    /// Decisions while models are swapped, beside decisions while they are not.
    Reload,
    /// Updates of the learner beside Stable-Baselines3 and d3rlpy.
    Updates,
    /// The recipe for CartPole beside Stable-Baselines3.
    CartPole,
}

/// How long to measure, and in which profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effort {
    Full,
    Quick,
}

/// How many times as large one is as the other.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
struct Ratio {
    /// Of the middle of the rounds, or of all of them together.
    whole: f64,
    /// In the round where it is least.
    least: f64,
    /// In the round where it is largest.
    most: f64,
}

/// Runs the comparisons and prints their tables.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let workspace = Workspace::load()?;
    let effort = if args.quick { Effort::Quick } else { Effort::Full };
    println!("{}", machine::describe(&workspace)?);
    if args.quick {
        println!("\nFew and short rounds, with assertions: these are no figures.");
    }
    for subject in Subject::value_variants() {
        if args.only.is_empty() || args.only.contains(subject) {
            match subject {
                Subject::Decisions => decisions::print(&workspace, effort)?,
                Subject::Service => service::print(effort)?,
                Subject::Reload => reload::print(effort)?,
                Subject::Updates => training::print_updates(&workspace, effort)?,
                Subject::CartPole => training::print_cart_pole(&workspace, effort)?,
            }
        }
    }
    Ok(())
}

impl Effort {
    /// The profile to build with.
    fn profile(self) -> &'static str {
        match self {
            Effort::Full => "release",
            Effort::Quick => "ci",
        }
    }

    /// One of the two.
    fn choose<T>(self, full: T, quick: T) -> T {
        match self {
            Effort::Full => full,
            Effort::Quick => quick,
        }
    }
}

impl Ratio {
    /// Of rounds in which both took a turn; of at least one.
    fn of_rounds(ratios: impl IntoIterator<Item = f64>) -> Ratio {
        let mut ratios: Vec<f64> = ratios.into_iter().collect();
        ratios.sort_by(f64::total_cmp);
        Ratio { whole: ratios[ratios.len() / 2], least: ratios[0], most: ratios[ratios.len() - 1] }
    }

    /// `1.03 (0.98 to 1.10)`.
    fn text(&self) -> String {
        let Ratio { whole, least, most } = self;
        format!("{whole:.2} ({least:.2} to {most:.2})")
    }
}

/// What a program reports as one JSON document on its standard output.
fn report<T: DeserializeOwned>(command: &mut Command) -> anyhow::Result<T> {
    eprintln!("$ {}", shown(command));
    let text = output(command)?;
    serde_json::from_str(&text).with_context(|| format!("{} reports something else than expected", shown(command)))
}
