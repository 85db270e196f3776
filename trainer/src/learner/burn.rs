//! The learner on [Burn](https://burn.dev): pure Rust on the processor, or a graphics card with the features `burn-cuda` and
//! `burn-wgpu`.

use super::LearnerError;
use super::tensor::{Library, Tensor, TensorLearner, operators};
use crate::network::NetworkShape;
use ::burn::tensor::{Device, Int, TensorData};

/// The learner on Burn.
pub type BurnLearner = TensorLearner<Burn>;

/// Where Burn computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BurnDevice {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    #[cfg(feature = "burn-cuda")]
    Cuda(usize),
    /// The device of this number among those of WebGPU, which reaches them through Vulkan or whatever else the system has.
    #[cfg(feature = "burn-wgpu")]
    Wgpu(usize),
}

/// Burn on a device.
#[derive(Clone, Debug)]
pub struct Burn {
    device: Device,
}

/// A tensor of Burn.
#[derive(Clone, Debug)]
pub struct BurnTensor<const D: usize>(::burn::tensor::Tensor<D>);

operators!(BurnTensor);

impl BurnLearner {
    /// A learner of a network with these online parameters (and the same target), in canonical layout.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] and [`LearnerError::NotFinite`] on bad parameters, [`LearnerError::Unsupported`] where there is
    /// no such device.
    pub fn new(shape: NetworkShape, parameters: &[f32], device: BurnDevice) -> Result<BurnLearner, LearnerError> {
        TensorLearner::with_library(Burn { device: device.open()? }, shape, parameters)
    }
}

impl BurnDevice {
    fn open(self) -> Result<Device, LearnerError> {
        match self {
            BurnDevice::Cpu => Ok(Device::flex()),
            #[cfg(feature = "burn-cuda")]
            BurnDevice::Cuda(number) => numbered(::burn::tensor::DeviceType::Cuda, "CUDA", number),
            #[cfg(feature = "burn-wgpu")]
            BurnDevice::Wgpu(number) => numbered(::burn::tensor::DeviceType::Wgpu, "WebGPU", number),
        }
    }
}

/// Where Burn can compute in this build and on this machine.
pub fn devices() -> Vec<super::Device> {
    let devices = std::iter::once(super::Device::Cpu);
    #[cfg(feature = "burn-cuda")]
    let devices = devices.chain(all(super::Device::Cuda, ::burn::tensor::DeviceType::Cuda));
    #[cfg(feature = "burn-wgpu")]
    let devices = devices.chain(all(super::Device::Wgpu, ::burn::tensor::DeviceType::Wgpu));
    devices.collect()
}

/// All devices of a kind, by their numbers.
#[cfg(any(feature = "burn-cuda", feature = "burn-wgpu"))]
fn all(numbered: fn(usize) -> super::Device, kind: ::burn::tensor::DeviceType) -> impl Iterator<Item = super::Device> {
    (0..Device::enumerate(kind).into_vec().len()).map(numbered)
}

/// The device of this number among those of its kind.
#[cfg(any(feature = "burn-cuda", feature = "burn-wgpu"))]
fn numbered(kind: ::burn::tensor::DeviceType, name: &str, number: usize) -> Result<Device, LearnerError> {
    let devices = Device::enumerate(kind).into_vec();
    let count = devices.len();
    devices.into_iter().nth(number).ok_or_else(|| {
        let reason = format!("Burn finds {count} devices of {name}, none of number {number}");
        LearnerError::Unsupported { learner: Burn::NAME, reason }
    })
}

impl Library for Burn {
    const NAME: &'static str = "burn";
    type Tensor<const D: usize> = BurnTensor<D>;
    type Rows = ::burn::tensor::Tensor<1, Int>;

    fn tensor<const D: usize>(&self, values: &[f32], dims: [usize; D]) -> BurnTensor<D> {
        BurnTensor(::burn::tensor::Tensor::from_data(TensorData::new(values.to_vec(), dims), &self.device))
    }

    fn values<const D: usize>(tensor: BurnTensor<D>) -> Vec<f32> {
        let data = tensor.0.into_data();
        data.iter::<f32>().collect()
    }

    fn rows(&self, numbers: &[u32]) -> Self::Rows {
        let numbers: Vec<i32> = numbers.iter().map(|number| *number as i32).collect();
        let count = numbers.len();
        ::burn::tensor::Tensor::from_data(TensorData::new(numbers, [count]), &self.device)
    }

    fn take<const D: usize>(tensor: BurnTensor<D>, rows: &Self::Rows) -> BurnTensor<D> {
        BurnTensor(tensor.0.select(0, rows.clone()))
    }

    fn reshape<const D: usize, const E: usize>(tensor: BurnTensor<D>, dims: [usize; E]) -> BurnTensor<E> {
        BurnTensor(tensor.0.reshape(dims))
    }

    fn columns(tensor: BurnTensor<2>, start: usize, end: usize) -> BurnTensor<2> {
        BurnTensor(tensor.0.narrow(1, start, end - start))
    }

    fn beside(tensors: Vec<BurnTensor<2>>) -> BurnTensor<2> {
        BurnTensor(::burn::tensor::Tensor::cat(tensors.into_iter().map(|tensor| tensor.0).collect(), 1))
    }

    fn product(left: BurnTensor<2>, right: BurnTensor<2>) -> BurnTensor<2> {
        BurnTensor(left.0.matmul(right.0))
    }

    fn leaf(tensor: BurnTensor<2>) -> BurnTensor<2> {
        BurnTensor(tensor.0.autodiff().require_grad())
    }

    fn slopes(value: BurnTensor<2>, leaves: &[BurnTensor<2>]) -> Vec<BurnTensor<2>> {
        let mut slopes = value.0.backward();
        let of = |leaf: &BurnTensor<2>| {
            let slope = leaf.0.grad_remove(&mut slopes);
            // A leaf on which the value does not depend has none.
            BurnTensor(slope.unwrap_or_else(|| leaf.0.clone().without_autodiff().zeros_like()))
        };
        leaves.iter().map(of).collect()
    }
}

impl<const D: usize> Tensor<D> for BurnTensor<D> {
    fn exp(self) -> Self {
        BurnTensor(self.0.exp())
    }

    fn ln(self) -> Self {
        BurnTensor(self.0.log())
    }

    fn sqrt(self) -> Self {
        BurnTensor(self.0.sqrt())
    }

    fn abs(self) -> Self {
        BurnTensor(self.0.abs())
    }

    fn relu(self) -> Self {
        BurnTensor(::burn::tensor::activation::relu(self.0))
    }

    fn clamp(self, lowest: f32, highest: f32) -> Self {
        BurnTensor(self.0.clamp(lowest, highest))
    }

    fn sum_along(self, dim: usize) -> Self {
        BurnTensor(self.0.sum_dim(dim))
    }

    fn max_along(self, dim: usize) -> Self {
        BurnTensor(self.0.max_dim(dim))
    }

    fn only(self, mask: Self, otherwise: f32) -> Self {
        let dims = self.0.dims();
        BurnTensor(self.0.mask_fill(mask.0.equal_scalar(0.0).expand(dims), otherwise))
    }

    fn equals(self, other: Self) -> Self {
        BurnTensor(self.0.equal(other.0).float())
    }

    fn below_zero(self) -> Self {
        BurnTensor(self.0.lower_scalar(0.0).float())
    }

    fn detach(self) -> Self {
        BurnTensor(self.0.without_autodiff())
    }
}
