//! What the update asks of a tensor library.

use std::ops::{Add, Div, Mul, Sub};

/// A tensor of `f32` with `D` dimensions. Operations on two tensors repeat a dimension of length 1 as often as the other needs;
/// unless they say otherwise, slopes go back through all of them.
pub trait Tensor<const D: usize>:
    Clone
    + Send
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Add<f32, Output = Self>
    + Sub<f32, Output = Self>
    + Mul<f32, Output = Self>
    + Div<f32, Output = Self>
{
    /// The exponential of each value.
    fn exp(self) -> Self;
    /// The natural logarithm of each value.
    fn ln(self) -> Self;
    /// The square root of each value.
    fn sqrt(self) -> Self;
    /// The size of each value.
    fn abs(self) -> Self;
    /// Each value, but 0 for those below 0.
    fn relu(self) -> Self;
    /// Each value, but the bound it exceeds.
    fn clamp(self, lowest: f32, highest: f32) -> Self;
    /// The sums along dimension `dim`, which is then of length 1.
    fn sum_along(self, dim: usize) -> Self;
    /// The largest values along dimension `dim`, which is then of length 1.
    fn max_along(self, dim: usize) -> Self;
    /// Each value where `mask` is not 0, and `otherwise` elsewhere.
    fn only(self, mask: Self, otherwise: f32) -> Self;
    /// 1 where two values are equal, 0 elsewhere. No slope goes back.
    fn equals(self, other: Self) -> Self;
    /// 1 where a value lies below 0, 0 elsewhere. No slope goes back.
    fn below_zero(self) -> Self;
    /// The same values, to which no slope goes back.
    fn detach(self) -> Self;
}

/// A tensor library on one device, with automatic differentiation.
///
/// What is beyond the memory of the device panics, as it does in the libraries.
pub trait Library: Send + Sized {
    /// Name of the learner that rests on it.
    const NAME: &'static str;
    /// Its tensors.
    type Tensor<const D: usize>: Tensor<D>;
    /// Numbers of rows, on the device.
    type Rows: Clone;

    /// A tensor of `values`, row-major, whose number is the product of `dims`.
    fn tensor<const D: usize>(&self, values: &[f32], dims: [usize; D]) -> Self::Tensor<D>;
    /// The values of a tensor, row-major, once they are computed.
    fn values<const D: usize>(tensor: Self::Tensor<D>) -> Vec<f32>;
    /// Numbers of rows.
    fn rows(&self, numbers: &[u32]) -> Self::Rows;
    /// The rows of these numbers, in their order; one may be taken more than once.
    fn take<const D: usize>(tensor: Self::Tensor<D>, rows: &Self::Rows) -> Self::Tensor<D>;
    /// The same values in other dimensions, whose product is the same.
    fn reshape<const D: usize, const E: usize>(tensor: Self::Tensor<D>, dims: [usize; E]) -> Self::Tensor<E>;
    /// Columns `start` to before `end`.
    fn columns(tensor: Self::Tensor<2>, start: usize, end: usize) -> Self::Tensor<2>;
    /// Tensors of equally many rows side by side.
    fn beside(tensors: Vec<Self::Tensor<2>>) -> Self::Tensor<2>;
    /// The product of two matrices.
    fn product(left: Self::Tensor<2>, right: Self::Tensor<2>) -> Self::Tensor<2>;
    /// The same values, as what is differentiated by.
    fn leaf(tensor: Self::Tensor<2>) -> Self::Tensor<2>;
    /// The slopes of a value by each of the leaves that it was computed from; they are no part of a graph.
    fn slopes(value: Self::Tensor<2>, leaves: &[Self::Tensor<2>]) -> Vec<Self::Tensor<2>>;
}

/// The operators of a wrapper around a tensor of a library.
macro_rules! operators {
    ($tensor:ident) => {
        operators!($tensor, Add::add, Sub::sub, Mul::mul, Div::div);
    };
    ($tensor:ident, $($operator:ident :: $method:ident),*) => {
        $(impl<const D: usize> std::ops::$operator for $tensor<D> {
            type Output = Self;
            fn $method(self, other: Self) -> Self {
                $tensor(std::ops::$operator::$method(self.0, other.0))
            }
        }
        impl<const D: usize> std::ops::$operator<f32> for $tensor<D> {
            type Output = Self;
            fn $method(self, other: f32) -> Self {
                $tensor(std::ops::$operator::$method(self.0, f64::from(other)))
            }
        })*
    };
}
pub(in crate::learner) use operators;
