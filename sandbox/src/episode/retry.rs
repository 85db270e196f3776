//! When a thing that failed is tried again.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Pauses between attempts: 1, 2 and 4 seconds, and then no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Schedule {
    /// The first pause, in milliseconds; each further one is twice as long.
    pub first_ms: u64,
    /// Attempts after the first.
    pub retries: u32,
}

/// Lets time pass.
pub trait Clock: Send + Sync {
    /// Returns after so long.
    fn sleep(&self, pause: Duration);
}

/// The clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Monotonic;

impl Default for Schedule {
    fn default() -> Self {
        Schedule { first_ms: 1_000, retries: 3 }
    }
}

impl Schedule {
    /// The pause after the failure of attempt `attempt`, counted from 1; `None` when that was the last.
    pub fn pause_ms(&self, attempt: u32) -> Option<u64> {
        let doubled = attempt.checked_sub(1)?;
        (attempt <= self.retries).then(|| self.first_ms.saturating_mul(1_u64.checked_shl(doubled).unwrap_or(u64::MAX)))
    }
}

impl Clock for Monotonic {
    fn sleep(&self, pause: Duration) {
        std::thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let schedule = Schedule::default();
        let pauses: Vec<_> = (0..6).map(|attempt| schedule.pause_ms(attempt)).collect();
        assert_eq!(pauses, [None, Some(1_000), Some(2_000), Some(4_000), None, None]);
        let endless = Schedule { first_ms: 1, retries: u32::MAX };
        assert_eq!(endless.pause_ms(u32::MAX), Some(u64::MAX));
    }
}
