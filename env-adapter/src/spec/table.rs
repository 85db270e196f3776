//! The elements of the state, one by one: names, formulas and ceilings. The page in `docs/formats/` and the numbers
//! in a state come from the same tables.

use crate::behaviour::Sign;

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

/// How an element is computed from a tally.
#[derive(Clone, Copy, Debug)]
pub(super) enum Measure {
    /// `log1p(count of the sign) / log1p(ceiling)`, at most 1.
    Count(Sign, u32),
    /// `log1p(amount) / log1p(ceiling)`, at most 1.
    Sum(Amount, u32),
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
const GIB: u32 = 1 << 30;

/// What the stage did so far.
#[rustfmt::skip]
pub(super) const EPISODE: [Measure; 72] = {
    use Amount::*; use Measure::*; use Sign::*;
    [
        // Files.
        Count(Open, 5_000), Count(OpenWrite, 1_000), Count(Read, 20_000), Count(Write, 20_000),
        Sum(BytesRead, GIB), Sum(BytesWritten, GIB), WrittenShare,
        Count(Create, 1_000), Count(Delete, 1_000), Count(Rename, 500), Count(MakeFolder, 200), Count(Link, 200),
        Count(List, 500), Count(ChangeAttributes, 500), Count(SetTimes, 500), Count(Truncate, 200),
        Count(NewFolder, 200), Count(NewFileRead, 500), Count(NewFileWritten, 500), Count(NewExtension, 20),
        Count(HiddenCreated, 20), Share(NewFileWritten, NewFileRead),
        Count(ForeignDelete, 200), Count(ForeignRename, 200), Count(ChangeExtension, 200), Count(Overwrite, 200),
        Count(ReadThenWritten, 200), Count(ReadThenRemoved, 200), Share(ForeignDelete, Delete),
        Count(HighEntropy, 1_000), Share(HighEntropy, EntropyKnown), MeanEntropy, MaxEntropy,
        // Behaviour.
        Count(DecoyRead, 50), Count(DecoyChanged, 50), Count(DecoyRemoved, 50),
        Count(CredentialRead, 20), Count(CredentialProbed, 20), Count(PersistenceWritten, 10), Count(SelfDeleted, 1),
        Count(ExecutableDropped, 10), Count(LogRemoved, 10), Count(ForeignTimes, 100),
        // Network.
        Count(Connect, 200), Share(ConnectFailed, Connect), Count(NewPeer, 50), Count(NewPort, 200), Count(Dns, 50),
        Count(Listen, 20), Count(Send, 1_000), Count(Receive, 1_000), Sum(BytesSent, 100 * MIB),
        Sum(BytesReceived, 100 * MIB),
        // Processes.
        Count(Fork, 200), Count(Exec, 100), Count(NewProcess, 100), Sum(Depth, 16), Count(Thread, 100),
        Count(Kill, 50), Count(Inject, 10), Count(ReadProcess, 10), Count(ChangeUser, 10), Count(Session, 10),
        Count(Sleep, 100), SleptShare,
        // Memory and system.
        Count(MapExecutable, 20), Count(WriteExecutable, 10), Count(MemoryFile, 10), Count(Mount, 10),
        Count(Kernel, 10), Rate(Failed), Count(Denied, 100),
    ]
};

/// What the window did.
#[rustfmt::skip]
pub(super) const WINDOW: [Measure; 32] = {
    use Amount::*; use Measure::*; use Sign::*;
    [
        Count(Open, 64), Count(Read, 64), Count(Write, 64), Sum(BytesRead, 16 * MIB), Sum(BytesWritten, 16 * MIB),
        Count(Create, 32), Count(Delete, 32), Count(Rename, 32), Count(List, 32), Count(NewFolder, 16),
        Count(NewFileRead, 32), Count(NewFileWritten, 32), Count(ForeignDelete, 32), Count(Overwrite, 16),
        Count(ChangeExtension, 16), Count(ReadThenWritten, 16), Share(HighEntropy, EntropyKnown), MeanEntropy,
        Count(DecoyRead, 16), Count(DecoyChanged, 16), Count(CredentialRead, 8), Count(PersistenceWritten, 4),
        Count(Connect, 32), Share(ConnectFailed, Connect), Sum(BytesSent, MIB), Count(NewPort, 32),
        Count(Fork, 16), Count(Exec, 16), Rate(Inject), SleptShare, Rate(Failed), Sum(SleptMs, 100 * KIB),
    ]
};

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
    /// The name of the element within its group.
    pub(super) fn name(self) -> String {
        match self {
            Measure::Count(sign, _) => snake(&format!("{sign:?}")),
            Measure::Sum(amount, _) => snake(&format!("{amount:?}")),
            Measure::Share(part, whole) => {
                format!("{}_per_{}", snake(&format!("{part:?}")), snake(&format!("{whole:?}")))
            }
            Measure::Rate(sign) => format!("{}_rate", snake(&format!("{sign:?}"))),
            Measure::WrittenShare => "written_share".to_owned(),
            Measure::MeanEntropy => "mean_entropy".to_owned(),
            Measure::MaxEntropy => "max_entropy".to_owned(),
            Measure::SleptShare => "slept_share".to_owned(),
        }
    }

    /// The formula of the element in words.
    pub(super) fn formula(self) -> String {
        match self {
            Measure::Count(sign, ceiling) => format!("log1p(n) / log1p({ceiling}); n: {}", sign.meaning()),
            Measure::Sum(amount, ceiling) => format!("log1p(n) / log1p({ceiling}); n: {}", amount.meaning()),
            Measure::Share(part, whole) => {
                format!("n / m; n: {}; m: {}", part.meaning(), whole.meaning())
            }
            Measure::Rate(sign) => format!("n / events; n: {}", sign.meaning()),
            Measure::WrittenShare => "bytes written / (bytes read + bytes written), files alone".to_owned(),
            Measure::MeanEntropy => "mean of entropy / 8 over file writes of known entropy".to_owned(),
            Measure::MaxEntropy => "largest entropy / 8 of a file write".to_owned(),
            Measure::SleptShare => "time asleep / time passed".to_owned(),
        }
    }

    /// The ceiling of a logarithm; 1 for a share.
    pub(super) fn ceiling(self) -> u32 {
        match self {
            Measure::Count(_, ceiling) | Measure::Sum(_, ceiling) => ceiling,
            _ => 1,
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
