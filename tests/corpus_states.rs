//! The states of the shipped recordings are the same bytes, however they are computed.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use std::convert::Infallible;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{EpisodeAttributes, RewardConfig, Window, WindowConfig, WindowSink, Windower};

/// Hashes the state and the place of each window, together with the hash of those before it.
struct Chain(Sha256);

impl WindowSink for Chain {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.0 = Sha256::of(format!("{}{}", self.0, attributes.episode_id.0).as_bytes());
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let mut bytes = self.0.to_string().into_bytes();
        bytes.extend(window.state.as_slice().iter().flat_map(|value| value.to_le_bytes()));
        bytes.extend(window.events_seen.to_le_bytes());
        bytes.extend(window.time_ns.unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend([window.stage, u8::from(window.last), u8::from(window.last_stage)]);
        self.0 = Sha256::of(&bytes);
        Ok(())
    }

    fn end(&mut self, _complete: bool) -> Result<(), Infallible> {
        Ok(())
    }
}

/// Another hash means other states for the same events: models and episode files of before no longer fit. Only a new
/// corpus or a new version of the feature specification may change it.
#[test]
fn states_of_the_shipped_recordings_stay_what_they_are() {
    for (max_events, expected) in [
        (16, "48897d22df10d8048a505f3d0b01278629a7d46ef5a2eab3f060d08085337a56"),
        (10, "ca2df871ff589787bb013f82b3ad0b6680210253e55f134915edfeb6e4c20192"),
    ] {
        let config = WindowConfig { max_events, max_ns: 100_000_000, max_windows: 0 };
        let mut windower = Windower::new(&config, &RewardConfig::default(), Chain(Sha256::of(b"")));
        let reader = TelemetryReader::from_bytes(bellwether_corpus::recordings()).unwrap();
        reader.read(&mut windower).unwrap();
        assert_eq!(windower.into_sink().0.to_string(), expected, "windows of {max_events}");
    }
}
