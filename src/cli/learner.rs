//! The flags that choose a learner, for every verb that trains.

use anyhow::anyhow;
use bellwether_inference::Isa;
use bellwether_trainer::learner::{Device, LearnerChoice};

use super::Failure;

/// What computes the updates, and where.
#[derive(clap::Args)]
pub(crate) struct LearnerFlags {
    /// What computes the updates: fused, burn or tch, as far as they are in this build (see `bellwether doctor`).
    #[arg(long, value_name = "NAME", default_value = "fused")]
    learner: String,
    /// Where it does: cpu, cuda:N or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,
}

impl LearnerFlags {
    /// The learner, which this build and this machine have.
    pub(crate) fn choose(&self, isa: Isa) -> Result<LearnerChoice, Failure> {
        LearnerChoice::named(&self.learner, self.device, isa)
            .and_then(|learner| learner.probe().map(|()| learner))
            .map_err(|error| Failure::usage(anyhow!("--learner, --device: {error}")))
    }
}
