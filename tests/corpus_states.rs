//! The states of the shipped recordings are the same bytes, however they are computed.
#![allow(clippy::unwrap_used, reason = "tests fail loudly")]

use std::convert::Infallible;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::ingest::TelemetryReader;
use bellwether_env_adapter::{EpisodeAttributes, RewardConfig, Window, WindowConfig, WindowSink, Windower};

/// Hashes all that windows say, each together with the hash of those before it.
struct Chain(Sha256);

impl WindowSink for Chain {
    type Error = Infallible;

    fn begin(&mut self, attributes: &EpisodeAttributes) -> Result<(), Infallible> {
        self.0 = Sha256::of(format!("{}{}", self.0, attributes.episode_id.0).as_bytes());
        Ok(())
    }

    fn window(&mut self, window: &Window<'_>) -> Result<(), Infallible> {
        let mut bytes = self.0.to_string().into_bytes();
        let floats = window.state.as_slice().iter().chain(&window.harm).chain(&window.breakage);
        bytes.extend(floats.flat_map(|value| value.to_le_bytes()));
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

/// Another hash means other states, harm or breakage for the same events: models and episode files of before no longer
/// fit. Only a new corpus or a new version of the feature specification may change it.
#[test]
fn states_of_the_shipped_recordings_stay_what_they_are() {
    for (max_events, expected) in [
        (64, "56ff2411d63cb6a2fffc1f482f0f925c3dac0453ec57937a1ede789842b5bcfc"),
        (10, "116d734ba03f714d14aba68721eb1658399b4b1c3868b8075afc469b1c47c053"),
    ] {
        let config = WindowConfig { max_events, ..WindowConfig::default() };
        let mut windower = Windower::new(&config, &RewardConfig::default(), Chain(Sha256::of(b"")));
        let reader = TelemetryReader::from_bytes(bellwether_corpus::recordings()).unwrap();
        reader.read(&mut windower).unwrap();
        assert_eq!(windower.into_sink().0.to_string(), expected, "windows of {max_events}");
    }
}
