//! What one detonation may use up.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Ceilings of one detonation, held by the kernel and not by the tracer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Tasks, threads included, that may live at once: 1 to 4,096.
    pub tasks: u32,
    /// Memory of the whole tree, in bytes: at least 16 MiB.
    pub memory_bytes: u64,
    /// What all files that the sample writes may hold together, in bytes: at least 1 MiB.
    pub storage_bytes: u64,
    /// Open descriptors of one process: 16 to 65,536.
    pub descriptors: u32,
    /// Time from the first instruction of the sample to the forced verdict, in milliseconds: 1 to 86,400,000.
    pub time_ms: u64,
}

/// A limit that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("limits.{name} is {value}; give {least} to {most}")]
pub struct LimitsError {
    /// Which limit.
    pub name: &'static str,
    /// What was given.
    pub value: u64,
    /// The least that may be given.
    pub least: u64,
    /// The most that may be given.
    pub most: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { tasks: 64, memory_bytes: 512 << 20, storage_bytes: 256 << 20, descriptors: 1024, time_ms: 60_000 }
    }
}

impl Limits {
    /// The time cap.
    pub const fn time(&self) -> Duration {
        Duration::from_millis(self.time_ms)
    }

    /// Refuses what no detonation could live in, or what the kernel would not hold.
    ///
    /// # Errors
    /// The first limit that is out of its range.
    pub fn validate(&self) -> Result<(), LimitsError> {
        let ranges = [
            ("tasks", u64::from(self.tasks), 1, 4_096),
            ("memory_bytes", self.memory_bytes, 16 << 20, 1 << 50),
            ("storage_bytes", self.storage_bytes, 1 << 20, 1 << 50),
            ("descriptors", u64::from(self.descriptors), 16, 65_536),
            ("time_ms", self.time_ms, 1, 86_400_000),
        ];
        ranges.into_iter().try_for_each(|(name, value, least, most)| {
            if (least..=most).contains(&value) { Ok(()) } else { Err(LimitsError { name, value, least, most }) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_within_their_ranges() {
        assert_eq!(Limits::default().validate(), Ok(()));
    }

    #[test]
    fn a_limit_out_of_range_is_refused_by_name() {
        let limits = Limits { descriptors: 3, ..Limits::default() };
        let error = limits.validate().unwrap_err();
        assert_eq!(error.to_string(), "limits.descriptors is 3; give 16 to 65536");
    }
}
