//! Which learner computes, and where.

use super::fused::{FusedLearner, FusedOptions, Isa};
use super::{Learner, LearnerError};
use crate::network::{NetworkConfig, NetworkShape};
use std::fmt;
use std::str::FromStr;

/// A learner of this build and where it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LearnerChoice {
    /// The fused learner.
    Fused(FusedOptions),
    /// The learner on Burn.
    #[cfg(feature = "burn")]
    Burn(super::burn::BurnDevice),
    /// The learner on libtorch.
    #[cfg(feature = "tch")]
    Tch(super::tch::TchDevice),
}

/// Where a learner computes: `cpu`, `cuda:N` or `wgpu:N`, devices of a kind being counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A device of CUDA.
    Cuda(usize),
    /// A device of WebGPU: through Vulkan, or whatever else the system has.
    Wgpu(usize),
}

/// A learner that this project has, whether this build has it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LearnerFacts {
    /// Its name.
    pub name: &'static str,
    /// What it rests on.
    pub rests_on: &'static str,
    /// Whether this build has it.
    pub built: bool,
}

/// All learners.
pub const LEARNERS: [LearnerFacts; 3] = [
    LearnerFacts { name: "fused", rests_on: "kernels of this project", built: true },
    LearnerFacts { name: "burn", rests_on: "Burn 0.22.1", built: cfg!(feature = "burn") },
    LearnerFacts { name: "tch", rests_on: "libtorch 2.9.0", built: cfg!(feature = "tch") },
];

impl LearnerFacts {
    /// The devices that this build of it finds on this machine; none if it is not in this build.
    pub fn devices(&self) -> Vec<Device> {
        match self.name {
            "fused" => vec![Device::Cpu],
            #[cfg(feature = "burn")]
            "burn" => super::burn::devices(),
            #[cfg(feature = "tch")]
            "tch" => super::tch::devices(),
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Wgpu(number) => write!(f, "wgpu:{number}"),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        let numbered = |kind: &str| text.strip_prefix(kind)?.strip_prefix(':')?.parse::<usize>().ok();
        match (text, numbered("cuda"), numbered("wgpu")) {
            ("cpu", ..) => Ok(Device::Cpu),
            (_, Some(number), _) => Ok(Device::Cuda(number)),
            (_, _, Some(number)) => Ok(Device::Wgpu(number)),
            _ => Err(format!("`{text}` is no device; choose cpu, cuda:N or wgpu:N, N from 0")),
        }
    }
}

impl From<FusedOptions> for LearnerChoice {
    fn from(options: FusedOptions) -> LearnerChoice {
        LearnerChoice::Fused(options)
    }
}

impl LearnerChoice {
    /// The learner called `name` on a device; the fused one computes with the instruction set `isa`, on one thread.
    ///
    /// # Errors
    /// [`LearnerError::Unavailable`] where there is no such learner, or not in this build, or not on such a device.
    pub fn named(name: &str, device: Device, isa: Isa) -> Result<LearnerChoice, LearnerError> {
        let refuse = |reason: String| Err(LearnerError::Unavailable { learner: name.to_owned(), reason });
        let Some(facts) = LEARNERS.iter().find(|facts| facts.name == name) else {
            return refuse(format!(
                "there is none of this name; choose one of {}",
                LEARNERS.map(|of| of.name).join(", ")
            ));
        };
        if !facts.built {
            return refuse(format!("it is not in this build; build with `--features {name}`, or choose fused"));
        }
        match (name, device) {
            ("fused", Device::Cpu) => Ok(LearnerChoice::Fused(FusedOptions { isa, threads: 1 })),
            #[cfg(feature = "burn")]
            ("burn", Device::Cpu) => Ok(LearnerChoice::Burn(super::burn::BurnDevice::Cpu)),
            #[cfg(feature = "burn-cuda")]
            ("burn", Device::Cuda(number)) => Ok(LearnerChoice::Burn(super::burn::BurnDevice::Cuda(number))),
            #[cfg(feature = "burn-wgpu")]
            ("burn", Device::Wgpu(number)) => Ok(LearnerChoice::Burn(super::burn::BurnDevice::Wgpu(number))),
            #[cfg(feature = "tch")]
            ("tch", Device::Cpu) => Ok(LearnerChoice::Tch(super::tch::TchDevice::Cpu)),
            #[cfg(feature = "tch")]
            ("tch", Device::Cuda(number)) => Ok(LearnerChoice::Tch(super::tch::TchDevice::Cuda(number))),
            ("fused", _) => {
                refuse(format!("it does not compute on {device}, but on cpu; choose the learner burn or tch"))
            }
            _ => refuse(format!(
                "it does not compute on {device} in this build: cuda:N takes the learner tch, or burn and the feature burn-cuda; \
                 wgpu:N takes burn and the feature burn-wgpu"
            )),
        }
    }

    /// The learner that is used on a device where none is named: on a processor the fused one, which is the fastest there, elsewhere
    /// the first of this build that computes there.
    ///
    /// # Errors
    /// [`LearnerError::Unavailable`] where no learner of this build computes on such a device.
    pub fn for_device(device: Device, isa: Isa) -> Result<LearnerChoice, LearnerError> {
        let fused = LearnerChoice::named("fused", device, isa);
        let mut others = ["tch", "burn"].into_iter().filter_map(|name| LearnerChoice::named(name, device, isa).ok());
        fused.or_else(|refused| others.next().ok_or(refused))
    }

    /// The name of the learner.
    pub fn name(self) -> &'static str {
        match self {
            LearnerChoice::Fused(_) => "fused",
            #[cfg(feature = "burn")]
            LearnerChoice::Burn(_) => "burn",
            #[cfg(feature = "tch")]
            LearnerChoice::Tch(_) => "tch",
        }
    }

    /// Where it computes.
    pub fn device(self) -> Device {
        match self {
            LearnerChoice::Fused(_) => Device::Cpu,
            #[cfg(feature = "burn")]
            LearnerChoice::Burn(super::burn::BurnDevice::Cpu) => Device::Cpu,
            #[cfg(feature = "burn-cuda")]
            LearnerChoice::Burn(super::burn::BurnDevice::Cuda(number)) => Device::Cuda(number),
            #[cfg(feature = "burn-wgpu")]
            LearnerChoice::Burn(super::burn::BurnDevice::Wgpu(number)) => Device::Wgpu(number),
            #[cfg(feature = "tch")]
            LearnerChoice::Tch(super::tch::TchDevice::Cpu) => Device::Cpu,
            #[cfg(feature = "tch")]
            LearnerChoice::Tch(super::tch::TchDevice::Cuda(number)) => Device::Cuda(number),
        }
    }

    /// Refuses what this machine cannot do, by making a learner of the smallest network.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    pub fn probe(self) -> Result<(), LearnerError> {
        let shape = NetworkConfig { hidden: Vec::new(), ..NetworkConfig::default() }.shape(1, 1);
        let shape = shape.map_err(|error| LearnerError::Unavailable {
            learner: self.name().to_owned(),
            reason: error.to_string(),
        })?;
        let parameters = vec![0.0; shape.parameter_count()];
        self.make(shape, &parameters).map(|_| ())
    }

    /// A learner of a network with these online parameters (and the same target), in canonical layout.
    ///
    /// # Errors
    /// [`LearnerError`] on bad parameters, and where this machine lacks the device or the instruction set.
    pub fn make(self, shape: NetworkShape, parameters: &[f32]) -> Result<Box<dyn Learner>, LearnerError> {
        Ok(match self {
            LearnerChoice::Fused(options) => Box::new(FusedLearner::new(shape, parameters, options)?),
            #[cfg(feature = "burn")]
            LearnerChoice::Burn(device) => Box::new(super::burn::BurnLearner::new(shape, parameters, device)?),
            #[cfg(feature = "tch")]
            LearnerChoice::Tch(device) => Box::new(super::tch::TchLearner::new(shape, parameters, device)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, device: &str) -> String {
        match LearnerChoice::named(name, device.parse().unwrap(), Isa::Scalar) {
            Err(error) => error.to_string(),
            Ok(choice) => panic!("{choice:?}"),
        }
    }

    #[test]
    fn a_choice_is_what_was_named_or_says_what_would_do() {
        let fused = LearnerChoice::Fused(FusedOptions { isa: Isa::Scalar, threads: 1 });
        assert_eq!(LearnerChoice::named("fused", Device::Cpu, Isa::Scalar), Ok(fused));
        assert!(refusal("fused", "cuda:0").contains("it does not compute on cuda:0"));
        assert!(refusal("jax", "cpu").contains("choose one of fused, burn, tch"));
        assert!(refusal("tch", "wgpu:1").contains("tch"));
        for facts in LEARNERS.iter().filter(|facts| !facts.built) {
            assert!(refusal(facts.name, "cpu").contains(&format!("--features {}", facts.name)));
        }
        for facts in LEARNERS.iter().filter(|facts| facts.built) {
            assert_eq!(
                LearnerChoice::named(facts.name, Device::Cpu, Isa::Scalar).map(LearnerChoice::name),
                Ok(facts.name)
            );
        }
    }

    #[test]
    fn a_device_finds_the_first_learner_that_computes_there() {
        let found = |device| LearnerChoice::for_device(device, Isa::Scalar);
        assert_eq!(found(Device::Cpu).map(LearnerChoice::name), Ok("fused"));
        for (device, built) in [
            (
                Device::Cuda(1),
                if cfg!(feature = "tch") { Some("tch") } else { cfg!(feature = "burn-cuda").then_some("burn") },
            ),
            (Device::Wgpu(0), cfg!(feature = "burn-wgpu").then_some("burn")),
        ] {
            match (found(device), built) {
                (Ok(choice), Some(name)) => assert_eq!((choice.name(), choice.device()), (name, device)),
                (Err(error), None) => assert!(error.to_string().contains("choose the learner burn or tch"), "{error}"),
                (other, _) => panic!("{device}: {other:?}"),
            }
        }
    }

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::Wgpu(12)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for bad in ["", "gpu", "cuda", "cuda:", "cuda:-1", "cpu:0", "wgpu:x"] {
            assert!(bad.parse::<Device>().unwrap_err().contains("cuda:N"), "{bad}");
        }
    }
}
