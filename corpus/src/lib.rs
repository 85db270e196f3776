//! The recordings that ship with the project, embedded: everyday jobs and harmless emulations of attacks.
//!
//! How they were made, what they hold and what they cannot tell stands in the [`card`]; the programs that were recorded
//! lie beside this crate in `programs/`, and `cargo xtask record-corpus` records them anew.
#![forbid(unsafe_code)]

pub mod programs;

/// Telemetry of all runs, as a Parquet file of the telemetry format.
static RECORDINGS: &[u8] = include_bytes!("../recordings.parquet");

/// SHA-256 of [`recordings`], lower-case hex: what a run's manifest names as its input.
pub const RECORDINGS_SHA256: &str = include_str!("../recordings.sha256").trim_ascii_end();

/// The bytes of the telemetry Parquet file; about 2,100 episodes, three in ten of them malicious, 8 MB.
///
/// Episodes carry a label and, as family, the name of the job or emulation; the order tells nothing.
pub fn recordings() -> &'static [u8] {
    RECORDINGS
}

/// How the recordings were made, in Markdown.
pub fn card() -> &'static str {
    include_str!("../CARD.md")
}

/// Each job and emulation as `name,label,technique,languages,rounds,runs`, under a heading of these names.
///
/// `technique` holds the ATT&CK techniques of an emulation, parted by blanks, and is empty for a job.
pub fn jobs() -> &'static str {
    include_str!("../programs/jobs.csv")
}

/// The end of the path of the file to which a program writes when its own work begins, after the prologue that programs share; some
/// are bare and have none. What stands before it is the home, whose user is another one in stage 2.
///
/// What an episode holds before the first event on this path says nothing of its class.
pub const PAYLOAD_MARK: &str = "/.local/state/desk/progress";

#[cfg(test)]
mod tests {
    use super::*;
    use bellwether_artifact::Sha256;

    #[test]
    fn the_recordings_are_those_of_the_checksum() {
        assert_eq!(Sha256::of(recordings()).to_string(), RECORDINGS_SHA256);
    }

    #[test]
    fn the_recordings_are_parquet_and_small_enough_to_ship() {
        assert!(recordings().starts_with(b"PAR1") && recordings().ends_with(b"PAR1"));
        assert!(recordings().len() <= 20 << 20, "{} bytes", recordings().len());
    }

    #[test]
    fn the_card_names_every_job_with_its_techniques() {
        for line in jobs().lines().skip(1) {
            let mut fields = line.split(',');
            let (name, _, technique) = (fields.next().unwrap(), fields.next(), fields.next().unwrap());
            assert!(card().contains(&format!("`{name}`")), "the card does not name {name}");
            for technique in technique.split_whitespace() {
                assert!(card().contains(technique), "the card does not name {technique} of {name}");
            }
        }
    }
}
