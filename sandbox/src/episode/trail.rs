//! Episodes in the audit log.

use bellwether_artifact::audit::AuditLog;
use bellwether_env_adapter::Action;

use super::machine::{Happening, Transition};
use super::record::Listener;

/// Writes the steps of an episode to the audit log: all but decisions to go on, which are in the episode's own files.
#[derive(Debug)]
pub struct Trail {
    log: AuditLog,
    /// Milliseconds since 1970.
    now_ms: fn() -> u64,
}

impl Trail {
    /// A trail in this log, by this clock.
    pub fn new(log: AuditLog, now_ms: fn() -> u64) -> Trail {
        Trail { log, now_ms }
    }
}

impl Listener for Trail {
    fn transition(&mut self, transition: &Transition) -> Result<(), String> {
        let kind = match &transition.happening {
            Happening::Decided { command, .. } if command.action == Action::Continue => return Ok(()),
            Happening::Begun => "episode.begun",
            Happening::Started { .. } => "episode.started",
            Happening::Unstarted { .. } => "episode.unstarted",
            Happening::Rested { .. } => "episode.rested",
            Happening::Decided { .. } => "episode.decided",
            Happening::Fed { .. } => "episode.fed",
            Happening::Ended { .. } => "episode.ended",
            Happening::Sealed { .. } => "episode.sealed",
            Happening::Unsealed { .. } => "episode.unsealed",
        };
        let entered = self.log.record((self.now_ms)(), kind, transition);
        entered.map(drop).map_err(|error| error.to_string())
    }
}
