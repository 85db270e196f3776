//! The learner on libtorch, the library under PyTorch, through [`tch`](::tch): on the processor or on CUDA devices.

use super::LearnerError;
use super::tensor::{Library, Tensor, TensorLearner, operators};
use crate::network::NetworkShape;
use ::tch::{Cuda, Device, Kind};

/// The learner on libtorch.
pub type TchLearner = TensorLearner<Torch>;

/// Where libtorch computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TchDevice {
    /// The processor.
    #[default]
    Cpu,
    /// The CUDA device of this number.
    Cuda(usize),
}

/// libtorch on a device.
#[derive(Clone, Debug)]
pub struct Torch {
    device: Device,
}

/// A tensor of libtorch. None is changed once it is made, so that copies may share memory.
#[derive(Debug)]
pub struct TorchTensor<const D: usize>(::tch::Tensor);

operators!(TorchTensor);

/// Numbers of rows.
#[derive(Debug)]
pub struct TorchRows(::tch::Tensor);

impl TchLearner {
    /// A learner of a network with these online parameters (and the same target), in canonical layout. On the processor all of
    /// libtorch in this process computes on one thread from then on, unless [`tch::set_num_threads`](::tch::set_num_threads)
    /// says otherwise.
    ///
    /// # Errors
    /// [`LearnerError::Shape`] and [`LearnerError::NotFinite`] on bad parameters, [`LearnerError::Unsupported`] where there is
    /// no such device.
    pub fn new(shape: NetworkShape, parameters: &[f32], device: TchDevice) -> Result<TchLearner, LearnerError> {
        let device = match device {
            TchDevice::Cpu => {
                // Trainers run learners side by side, and more threads make small matrices slower.
                ::tch::set_num_threads(1);
                Device::Cpu
            }
            TchDevice::Cuda(number) if number < cuda_devices() => Device::Cuda(number),
            TchDevice::Cuda(number) => {
                let reason = format!("libtorch finds {} devices of CUDA, none of number {number}", cuda_devices());
                return Err(LearnerError::Unsupported { learner: Torch::NAME, reason });
            }
        };
        TensorLearner::with_library(Torch { device }, shape, parameters)
    }
}

/// Where libtorch can compute on this machine.
pub fn devices() -> Vec<super::Device> {
    std::iter::once(super::Device::Cpu).chain((0..cuda_devices()).map(super::Device::Cuda)).collect()
}

/// How many CUDA devices libtorch can use.
fn cuda_devices() -> usize {
    if Cuda::is_available() { usize::try_from(Cuda::device_count()).unwrap_or(0) } else { 0 }
}

fn sizes<const D: usize>(dims: [usize; D]) -> [i64; D] {
    dims.map(|dim| dim as i64)
}

impl Library for Torch {
    const NAME: &'static str = "tch";
    type Tensor<const D: usize> = TorchTensor<D>;
    type Rows = TorchRows;

    fn tensor<const D: usize>(&self, values: &[f32], dims: [usize; D]) -> TorchTensor<D> {
        TorchTensor(::tch::Tensor::from_slice(values).to_device(self.device).reshape(sizes(dims)))
    }

    fn values<const D: usize>(tensor: TorchTensor<D>) -> Vec<f32> {
        let count = tensor.0.numel();
        let mut values = vec![0.0; count];
        // What lies in memory in another order is put in this one first.
        tensor.0.detach().to_device(Device::Cpu).contiguous().copy_data(&mut values, count);
        values
    }

    fn rows(&self, numbers: &[u32]) -> TorchRows {
        let numbers: Vec<i64> = numbers.iter().map(|number| i64::from(*number)).collect();
        TorchRows(::tch::Tensor::from_slice(&numbers).to_device(self.device))
    }

    fn take<const D: usize>(tensor: TorchTensor<D>, rows: &TorchRows) -> TorchTensor<D> {
        TorchTensor(tensor.0.index_select(0, &rows.0))
    }

    fn reshape<const D: usize, const E: usize>(tensor: TorchTensor<D>, dims: [usize; E]) -> TorchTensor<E> {
        TorchTensor(tensor.0.reshape(sizes(dims)))
    }

    fn columns(tensor: TorchTensor<2>, start: usize, end: usize) -> TorchTensor<2> {
        TorchTensor(tensor.0.narrow(1, start as i64, (end - start) as i64))
    }

    fn beside(tensors: Vec<TorchTensor<2>>) -> TorchTensor<2> {
        let tensors: Vec<::tch::Tensor> = tensors.into_iter().map(|tensor| tensor.0).collect();
        TorchTensor(::tch::Tensor::cat(&tensors, 1))
    }

    fn product(left: TorchTensor<2>, right: TorchTensor<2>) -> TorchTensor<2> {
        TorchTensor(left.0.matmul(&right.0))
    }

    fn leaf(tensor: TorchTensor<2>) -> TorchTensor<2> {
        TorchTensor(tensor.0.detach().set_requires_grad(true))
    }

    fn slopes(value: TorchTensor<2>, leaves: &[TorchTensor<2>]) -> Vec<TorchTensor<2>> {
        let leaves: Vec<&::tch::Tensor> = leaves.iter().map(|leaf| &leaf.0).collect();
        let slopes = ::tch::Tensor::run_backward(&[&value.0], &leaves, false, false);
        slopes.into_iter().map(TorchTensor).collect()
    }
}

impl<const D: usize> Clone for TorchTensor<D> {
    fn clone(&self) -> Self {
        TorchTensor(self.0.shallow_clone())
    }
}

impl Clone for TorchRows {
    fn clone(&self) -> Self {
        TorchRows(self.0.shallow_clone())
    }
}

impl<const D: usize> Tensor<D> for TorchTensor<D> {
    fn exp(self) -> Self {
        TorchTensor(self.0.exp())
    }

    fn ln(self) -> Self {
        TorchTensor(self.0.log())
    }

    fn sqrt(self) -> Self {
        TorchTensor(self.0.sqrt())
    }

    fn abs(self) -> Self {
        TorchTensor(self.0.abs())
    }

    fn relu(self) -> Self {
        TorchTensor(self.0.relu())
    }

    fn clamp(self, lowest: f32, highest: f32) -> Self {
        TorchTensor(self.0.clamp(f64::from(lowest), f64::from(highest)))
    }

    fn sum_along(self, dim: usize) -> Self {
        TorchTensor(self.0.sum_dim_intlist(dim as i64, true, Kind::Float))
    }

    fn max_along(self, dim: usize) -> Self {
        TorchTensor(self.0.amax(dim as i64, true))
    }

    fn only(self, mask: Self, otherwise: f32) -> Self {
        TorchTensor(self.0.masked_fill(&mask.0.eq(0.0), f64::from(otherwise)))
    }

    fn equals(self, other: Self) -> Self {
        TorchTensor(self.0.detach().eq_tensor(&other.0).to_kind(Kind::Float))
    }

    fn below_zero(self) -> Self {
        TorchTensor(self.0.detach().lt(0.0).to_kind(Kind::Float))
    }

    fn detach(self) -> Self {
        TorchTensor(self.0.detach())
    }
}
