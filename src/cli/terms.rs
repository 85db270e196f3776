//! On what terms a file runs: what `detonate` and `loop` ask of an episode alike.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::anyhow;
use bellwether_artifact::Visible;
use bellwether_env_adapter::{EpisodeId, Label, RewardConfig};
use bellwether_registry::clock::unix_ms;
use bellwether_sandbox::Limits;
use bellwether_sandbox::episode::{EpisodeFolder, Schedule, Setup};
use bellwether_sandbox::stage::{DecisionId, Specimen};
use bellwether_sandbox::vault::{Case, Quarantined, Sample, Vault};

use super::Failure;
use super::judges::Ground;

/// Longest file that is taken, in bytes.
pub(crate) const MOST_BYTES: u64 = 256 << 20;

/// On what terms files run.
pub(crate) struct Terms<'a> {
    pub(crate) ground: &'a Ground,
    pub(crate) target_fpr: f64,
    pub(crate) stages: u8,
    pub(crate) limits: [Limits; 2],
    /// Seed of the made-up home; drawn where there is none, for a home that is always alike is known.
    pub(crate) seed: Option<u64>,
    pub(crate) label: Option<Label>,
    pub(crate) marked_home: bool,
}

impl Terms<'_> {
    /// The episode of a file that is called by this name, with these arguments; its files go into a folder of its own.
    pub(crate) fn setup(
        &self,
        episode: EpisodeId,
        sample: &Sample,
        name: &OsStr,
        arguments: Vec<CString>,
        folder: &Path,
    ) -> Result<Setup, Failure> {
        let player = serde_json::json!({
            "model_version": self.ground.model_version(),
            "target_fpr": self.target_fpr,
            "course": "live",
        });
        Ok(Setup {
            folder: EpisodeFolder::take(folder.join(&episode.0))?,
            episode,
            sample: Arc::new(Specimen {
                memory: sample.memory().as_fd().try_clone_to_owned()?,
                name: shown(name.as_bytes()),
                arguments,
                marked_home: self.marked_home,
            }),
            identity: sample.identity().clone(),
            label: self.label,
            family: None,
            stages: self.stages,
            window: self.ground.window(),
            reward: RewardConfig::default(),
            limits: self.limits.clone(),
            seed: self.seed.map_or_else(drawn_seed, Ok)?,
            policy: Some(player.to_string()),
            schedule: Schedule::default(),
            now_ms: unix_ms,
        })
    }
}

/// What a file is known to be.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum Known {
    Benign,
    Malicious,
}

impl Known {
    pub(crate) fn label(self) -> Label {
        match self {
            Known::Benign => Label::Benign,
            Known::Malicious => Label::Malicious,
        }
    }
}

/// Limits of both stages, from the seconds that were given.
pub(crate) fn limits(time: &[u64]) -> Result<[Limits; 2], Failure> {
    let [first, second] = time[..] else {
        return Err(Failure::usage(anyhow!("--time takes the seconds of both stages")));
    };
    let limits = [first, second].map(|seconds| Limits { time_ms: seconds.saturating_mul(1_000), ..Limits::default() });
    limits.iter().try_for_each(Limits::validate).map_err(Failure::usage)?;
    Ok(limits)
}

/// Digits that no other episode is named by.
pub(crate) fn digits() -> Result<String, Failure> {
    let mut random = [0; 12];
    bellwether_artifact::secret::random(&mut random)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A seed that nobody can guess, of 53 bits: every reader of JSON keeps them all.
fn drawn_seed() -> Result<u64, Failure> {
    let mut random = [0; 8];
    bellwether_artifact::secret::random(&mut random)?;
    Ok(u64::from_le_bytes(random) >> 11)
}

/// Moves a file into the vault, on this decision.
pub(crate) fn seal(
    vault: Option<&Vault>,
    sample: &Sample,
    episode: &EpisodeId,
    decision: &DecisionId,
) -> Result<Quarantined, String> {
    let vault = vault.ok_or("no vault was given: see --vault; the file is kept")?;
    let case = Case { decision_id: decision.0.clone(), episode_id: episode.0.clone(), time_ms: unix_ms() };
    let receipt = vault.quarantine(sample, &case).map_err(|error| error.to_string())?;
    Ok(Quarantined { id: receipt.id, removal: receipt.removal })
}

/// Name of a file by which it can be called in the sandbox, whatever bytes it has: spelled out, and as long as a name may be.
pub(crate) fn shown(name: &[u8]) -> String {
    const MOST_BYTES: usize = 255;
    let mut shown = Visible::new(name).to_string().replace('\\', "_");
    while shown.len() > MOST_BYTES {
        shown.pop();
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn any_name_is_spelled_and_no_longer_than_names_may_be() {
        for (name, expected) in [(&b"a b.sh"[..], "a b.sh"), (b"\x1b[2J", "_u{1b}[2J"), (b"-e", "-e")] {
            assert_eq!(shown(name), expected);
        }
        assert_eq!(shown(&[0xff; 255]).len(), 255);
    }
}
