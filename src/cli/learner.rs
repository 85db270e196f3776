//! The flags that choose a learner, for every verb that trains.

use anyhow::anyhow;
use bellwether_inference::Isa;
use bellwether_trainer::learner::{Device, LearnerChoice};

use super::Failure;

/// What computes the updates, and where.
#[derive(clap::Args)]
pub(crate) struct LearnerFlags {
    /// What computes the updates: fused, burn or tch, as far as they are in this build (see `bellwether doctor`); by default fused on
    /// the processor, and elsewhere what computes there.
    #[arg(long, value_name = "NAME")]
    learner: Option<String>,
    /// Where it does: cpu, cuda:N or wgpu:N.
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,
}

/// A learner, and why it is the one.
pub(crate) struct Chosen {
    /// The learner.
    pub(crate) learner: LearnerChoice,
    /// Why it is used.
    pub(crate) reason: &'static str,
}

impl LearnerFlags {
    /// The learner, which this build and this machine have.
    pub(crate) fn choose(&self, isa: Isa) -> Result<Chosen, Failure> {
        let (learner, reason) = match &self.learner {
            Some(name) => (LearnerChoice::named(name, self.device, isa), "--learner names it"),
            None => (LearnerChoice::for_device(self.device, isa), reason_for(self.device)),
        };
        learner
            .and_then(|learner| learner.probe().map(|()| Chosen { learner, reason }))
            .map_err(|error| Failure::usage(anyhow!("--learner, --device: {error}")))
    }
}

/// Why the learner is used that is used on a device where none is named.
pub(crate) fn reason_for(device: Device) -> &'static str {
    match device {
        Device::Cpu => "the default, and the fastest on a processor",
        Device::Cuda(_) | Device::Wgpu(_) => "the first of this build that computes there",
    }
}
