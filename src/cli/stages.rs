//! Where files run: in this process, or at stages that are served elsewhere.

use std::path::PathBuf;

use bellwether_sandbox::stage::{LocalStage, Stage};

use super::Failure;

/// Where the stages are.
#[derive(clap::Args)]
pub(crate) struct StageFlags {
    /// Where stage 1 is served, `unix:PATH` or `https://HOST:PORT`; without it files run in this process.
    #[arg(long, value_name = "ADDRESS")]
    stage_1: Option<String>,
    /// The same of stage 2.
    #[arg(long, value_name = "ADDRESS")]
    stage_2: Option<String>,
    /// Authority of the certificates of stages, PEM.
    #[arg(long, value_name = "FILE", requires = "stage_cert", requires = "stage_key")]
    stage_ca: Option<PathBuf>,
    /// Certificate that is shown to stages, PEM.
    #[arg(long, value_name = "FILE", requires = "stage_ca")]
    stage_cert: Option<PathBuf>,
    /// Its key, PEM; readable by its owner alone.
    #[arg(long, value_name = "FILE", requires = "stage_ca")]
    stage_key: Option<PathBuf>,
    /// Milliseconds for the way of a question from a stage that is served elsewhere and of its answer back, beside --decide-within.
    /// Then the stage applies the safe rule by itself.
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    stage_round_trip: u64,
}

/// A stage that several episodes may use at once.
pub(crate) type AnyStage = Box<dyn Stage + Send + Sync>;

impl StageFlags {
    /// Both stages, for decisions that may take so long.
    pub(crate) fn open(&self, decide_within_ms: u64) -> Result<[AnyStage; 2], Failure> {
        let stage = |number, address: &Option<String>| match address {
            None => Ok(Box::new(LocalStage) as AnyStage),
            Some(address) => self.remote(number, address, decide_within_ms + self.stage_round_trip),
        };
        Ok([stage(1, &self.stage_1)?, stage(2, &self.stage_2)?])
    }

    #[cfg(feature = "serve")]
    fn remote(&self, number: u8, address: &str, answer_within_ms: u64) -> Result<AnyStage, Failure> {
        use bellwether_sandbox::episode::Monotonic;
        use bellwether_sandbox::peer::{Address, ClientIdentity, ClientTls};
        use bellwether_sandbox::stage::remote::{RemoteOptions, RemoteStage};

        let address: Address = address.parse().map_err(Failure::usage)?;
        let identity = self.stage_cert.clone().zip(self.stage_key.clone());
        let identity = identity.map(|(certificate, key)| ClientIdentity { certificate, key });
        let tls = self.stage_ca.clone().map(|authority| ClientTls { authority, identity });
        let clock = std::sync::Arc::new(Monotonic);
        let options = RemoteOptions { answer_within_ms, ..RemoteOptions::default() };
        let stage = RemoteStage::new(number, &address, tls.as_ref(), options, clock);
        Ok(Box::new(stage.map_err(Failure::usage)?))
    }

    #[cfg(not(feature = "serve"))]
    fn remote(&self, number: u8, _: &str, _: u64) -> Result<AnyStage, Failure> {
        let how = "cargo build --release --features serve";
        Err(Failure::usage(anyhow::anyhow!(
            "--stage-{number}: this program was built without stages elsewhere: build it with `{how}`"
        )))
    }
}
