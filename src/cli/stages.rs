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
}

/// A stage that several episodes may use at once.
pub(crate) type AnyStage = Box<dyn Stage + Send + Sync>;

impl StageFlags {
    /// Both stages.
    pub(crate) fn open(&self) -> Result<[AnyStage; 2], Failure> {
        Ok([self.stage(1, self.stage_1.as_deref())?, self.stage(2, self.stage_2.as_deref())?])
    }

    fn stage(&self, number: u8, address: Option<&str>) -> Result<AnyStage, Failure> {
        match address {
            None => Ok(Box::new(LocalStage)),
            Some(address) => self.remote(number, address),
        }
    }

    #[cfg(feature = "serve")]
    fn remote(&self, number: u8, address: &str) -> Result<AnyStage, Failure> {
        use bellwether_sandbox::episode::Monotonic;
        use bellwether_sandbox::peer::{Address, ClientIdentity, ClientTls};
        use bellwether_sandbox::stage::remote::{RemoteOptions, RemoteStage};

        let address: Address = address.parse().map_err(Failure::usage)?;
        let identity = self.stage_cert.clone().zip(self.stage_key.clone());
        let identity = identity.map(|(certificate, key)| ClientIdentity { certificate, key });
        let tls = self.stage_ca.clone().map(|authority| ClientTls { authority, identity });
        let clock = std::sync::Arc::new(Monotonic);
        let stage = RemoteStage::new(number, &address, tls.as_ref(), RemoteOptions::default(), clock);
        Ok(Box::new(stage.map_err(Failure::usage)?))
    }

    #[cfg(not(feature = "serve"))]
    fn remote(&self, number: u8, _: &str) -> Result<AnyStage, Failure> {
        let how = "cargo build --release --features serve";
        Err(Failure::usage(anyhow::anyhow!(
            "--stage-{number}: this program was built without stages elsewhere: build it with `{how}`"
        )))
    }
}
