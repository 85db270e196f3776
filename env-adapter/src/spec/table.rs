//! The elements of the state, one by one: names, formulas and ceilings. The page in `docs/formats/` and the numbers
//! in a state come from the same tables.

use crate::behaviour::{SIGN_COUNT, Sign};

/// A sum that is no count of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Amount {
    /// Bytes read from files.
    BytesRead,
    /// Bytes written to files.
    BytesWritten,
    /// Bytes sent to peers.
    BytesSent,
    /// Bytes received from peers.
    BytesReceived,
    /// Milliseconds asleep.
    SleptMs,
    /// Largest distance of an acting process from the first.
    Depth,
}

/// What a tally is asked for, and the elements that hold the answer.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    /// One element for each step: 1 where the sign was found at least so often.
    Count(Sign, &'static [u32]),
    /// One element for each step: 1 where the amount is at least so large.
    Sum(Amount, &'static [u32]),
    /// Count of the first sign over count of the second, at most 1.
    Share(Sign, Sign),
    /// Count of the sign over events.
    Rate(Sign),
    /// Bytes written over bytes read and written.
    WrittenShare,
    /// Mean of `entropy / 8` over the writes of known entropy.
    MeanEntropy,
    /// Largest `entropy / 8`.
    MaxEntropy,
    /// Time asleep over time passed, at most 1.
    SleptShare,
}

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

/// Steps of what is telling from the first time on.
const RARE: &[u32] = &[1, 2, 4, 16];
/// Steps of what everyday programs do a few times.
const SOME: &[u32] = &[1, 4, 16, 64];
/// Steps of what every program does all the time.
const MANY: &[u32] = &[16, 64, 256, 1_024];
const ONCE: &[u32] = &[1];
const ONE_TWO: &[u32] = &[1, 2];
const ONE_FOUR: &[u32] = &[1, 4];
const ONE_TWO_FOUR: &[u32] = &[1, 2, 4];
const ONE_FOUR_SIXTEEN: &[u32] = &[1, 4, 16];
const ONE_TWO_EIGHT: &[u32] = &[1, 2, 8];
const PEERS: &[u32] = &[1, 2, 8, 32];
const MORE: &[u32] = &[2, 4, 16];

/// What the stage did so far.
#[rustfmt::skip]
pub(super) const EPISODE: &[Measure] = {
    use Amount::*; use Measure::*; use Sign::*;
    &[
        // Files.
        Count(Open, MANY), Count(OpenWrite, SOME), Count(Read, MANY), Count(Write, &[1, 16, 64, 256]),
        Sum(BytesRead, &[64 * KIB, MIB, 16 * MIB]), Sum(BytesWritten, &[1, 4 * KIB, 64 * KIB, MIB, 16 * MIB]),
        WrittenShare,
        Count(Create, SOME), Count(Delete, SOME), Count(Rename, RARE), Count(MakeFolder, ONE_FOUR), Count(Link, ONCE),
        Count(List, ONE_FOUR_SIXTEEN), Count(ChangeAttributes, ONE_FOUR), Count(SetTimes, ONE_FOUR),
        Count(Truncate, ONCE), Count(NewFolder, ONE_FOUR_SIXTEEN), Count(NewFileRead, SOME),
        Count(NewFileWritten, SOME), Count(NewExtension, ONE_TWO_FOUR), Count(HiddenCreated, ONE_TWO),
        Share(NewFileWritten, NewFileRead),
        Count(ForeignDelete, RARE), Count(ForeignRename, RARE), Count(ChangeExtension, RARE), Count(Overwrite, RARE),
        Count(ReadThenWritten, RARE), Count(ReadThenRemoved, RARE), Share(ForeignDelete, Delete),
        Count(HighEntropy, SOME), Share(HighEntropy, EntropyKnown), MeanEntropy, MaxEntropy,
        // Behaviour.
        Count(DecoyRead, RARE), Count(DecoyChanged, RARE), Count(DecoyRemoved, RARE),
        Count(CredentialRead, ONE_TWO_FOUR), Count(CredentialProbed, ONE_FOUR), Count(PersistenceWritten, ONE_TWO),
        Count(SelfDeleted, ONCE), Count(ExecutableDropped, ONE_TWO), Count(LogRemoved, ONE_TWO),
        Count(ForeignTimes, ONE_FOUR),
        // Network.
        Count(Connect, PEERS), Share(ConnectFailed, Connect), Count(NewPeer, ONE_TWO_EIGHT), Count(NewPort, PEERS),
        Count(Dns, ONCE), Count(Listen, ONCE), Count(Send, ONE_FOUR_SIXTEEN), Count(Receive, ONE_FOUR_SIXTEEN),
        Sum(BytesSent, &[1, 4 * KIB, 64 * KIB, MIB]), Sum(BytesReceived, &[1, 4 * KIB, MIB]),
        // Processes.
        Count(Fork, RARE), Count(Exec, MORE), Count(NewProcess, MORE), Sum(Depth, &[1, 2, 3, 4]),
        Count(Thread, ONE_FOUR), Count(Kill, ONCE), Count(Inject, ONCE), Count(ReadProcess, ONCE),
        Count(ChangeUser, ONCE), Count(Session, ONCE), Count(Sleep, ONE_FOUR_SIXTEEN), SleptShare,
        // Memory and system.
        Count(MapExecutable, ONCE), Count(WriteExecutable, ONCE), Count(MemoryFile, ONCE), Count(Mount, ONCE),
        Count(Kernel, ONCE), Rate(Failed), Count(Denied, ONCE),
    ]
};

/// What the window did.
#[rustfmt::skip]
pub(super) const WINDOW: &[Measure] = {
    use Amount::*; use Measure::*; use Sign::*;
    &[
        Count(Open, &[4, 16]), Count(Read, &[4, 16]), Count(Write, ONE_FOUR_SIXTEEN), Sum(BytesRead, &[4 * KIB, MIB]),
        Sum(BytesWritten, &[1, 4 * KIB, MIB]),
        Count(Create, ONE_FOUR), Count(Delete, ONE_FOUR), Count(Rename, ONE_FOUR), Count(List, ONE_FOUR),
        Count(NewFolder, ONE_FOUR), Count(NewFileRead, ONE_FOUR), Count(NewFileWritten, ONE_FOUR),
        Count(ForeignDelete, ONE_TWO), Count(Overwrite, ONE_TWO), Count(ChangeExtension, ONE_TWO),
        Count(ReadThenWritten, ONE_TWO), Share(HighEntropy, EntropyKnown), MeanEntropy,
        Count(DecoyRead, ONE_TWO), Count(DecoyChanged, ONE_TWO), Count(CredentialRead, ONCE),
        Count(PersistenceWritten, ONCE),
        Count(Connect, ONE_FOUR), Share(ConnectFailed, Connect), Sum(BytesSent, &[1, 4 * KIB]), Count(NewPort, ONE_FOUR),
        Count(Fork, ONE_FOUR), Count(Exec, ONE_FOUR), Rate(Inject), SleptShare, Rate(Failed),
        Sum(SleptMs, &[1, 100]),
    ]
};

/// A list of measures by what they are taken of, so that only those of the signs that were found have to be looked at.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// For each sign the first element of its count and its steps; no steps where nothing counts it.
    pub(super) counts: [(usize, &'static [u32]); SIGN_COUNT],
    /// All other measures, each with its first element.
    pub(super) others: Vec<(usize, Measure)>,
}

impl Plan {
    /// The plan of a list of measures.
    pub(super) fn new(measures: &[Measure]) -> Plan {
        let mut plan = Plan { counts: [(0, &[]); SIGN_COUNT], others: Vec::new() };
        let mut first = 0;
        for measure in measures {
            match *measure {
                Measure::Count(sign, steps) if plan.counts[sign as usize].1.is_empty() => {
                    plan.counts[sign as usize] = (first, steps);
                }
                other => plan.others.push((first, other)),
            }
            first += measure.elements();
        }
        plan
    }
}

/// Elements that a list of measures takes.
pub(super) const fn elements(measures: &[Measure]) -> usize {
    let (mut at, mut sum) = (0, 0);
    while at < measures.len() {
        sum += measures[at].elements();
        at += 1;
    }
    sum
}

/// The elements of the context group: name and formula.
pub(super) const CONTEXT: [(&str, &str); 16] = [
    ("stage", "0 in stage 1, 1 in stage 2"),
    ("isolation_level", "level in force / 3; of a recording, the level of its last event"),
    ("cost", "(log10(c) + 1) / 4 of the cost c of a false positive, clamped to [0, 1]; 0 until it is set"),
    ("cap_left", "1 - windows / cap where the stage has a cap of windows, 1 where it has none"),
    ("anomaly", "score of an anomaly detector; 0 until it is set"),
    ("intelligence", "score of threat intelligence; 0 until it is set"),
    ("windows", "log1p(windows) / log1p(4096)"),
    ("events", "log1p(events) / log1p(262144)"),
    ("elapsed", "log1p(milliseconds since the stage began) / log1p(600000)"),
    ("window_rate", "log1p(events per second since the window before) / log1p(1000000)"),
    ("episode_rate", "log1p(events per second since the stage began) / log1p(1000000)"),
    ("window_fill", "events of the window / most events of a window"),
    ("window_time", "time since the window before / longest time of a window"),
    ("timed", "share of the window's events that have a time"),
    ("located", "share of the window's events that have a path or a peer"),
    ("novelty", "share of the window's events whose slot of `calls` was empty before"),
];

impl Measure {
    /// Elements that it takes.
    pub(super) const fn elements(self) -> usize {
        match self {
            Measure::Count(_, steps) | Measure::Sum(_, steps) => steps.len(),
            _ => 1,
        }
    }

    /// Name, within its group, and formula in words of each of its elements.
    pub(super) fn describe(self) -> Vec<(String, String)> {
        let steps = |name: &str, steps: &[u32], meaning: &str| {
            let element =
                |step: &u32| (format!("{}.{step}", snake(name)), format!("1 where n >= {step}, else 0; n: {meaning}"));
            steps.iter().map(element).collect()
        };
        let one = |name: &str, formula: &str| vec![(name.to_owned(), formula.to_owned())];
        match self {
            Measure::Count(sign, list) => steps(&format!("{sign:?}"), list, sign.meaning()),
            Measure::Sum(amount, list) => steps(&format!("{amount:?}"), list, amount.meaning()),
            Measure::Share(part, whole) => one(
                &format!("{}_per_{}", snake(&format!("{part:?}")), snake(&format!("{whole:?}"))),
                &format!("n / m; n: {}; m: {}", part.meaning(), whole.meaning()),
            ),
            Measure::Rate(sign) => {
                one(&format!("{}_rate", snake(&format!("{sign:?}"))), &format!("n / events; n: {}", sign.meaning()))
            }
            Measure::WrittenShare => one("written_share", "bytes written / (bytes read + bytes written), files alone"),
            Measure::MeanEntropy => one("mean_entropy", "mean of entropy / 8 over file writes of known entropy"),
            Measure::MaxEntropy => one("max_entropy", "largest entropy / 8 of a file write"),
            Measure::SleptShare => one("slept_share", "time asleep / time passed"),
        }
    }
}

impl Amount {
    const fn meaning(self) -> &'static str {
        match self {
            Amount::BytesRead => "bytes read from files",
            Amount::BytesWritten => "bytes written to files",
            Amount::BytesSent => "bytes sent to peers",
            Amount::BytesReceived => "bytes received from peers",
            Amount::SleptMs => "milliseconds asleep",
            Amount::Depth => "largest distance of an acting process from the first",
        }
    }
}

/// `ForeignDelete` to `foreign_delete`.
fn snake(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}
