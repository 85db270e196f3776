//! One affine layer, on each instruction set: the inner loops of the engine and the only unsafe code of the crate.

mod active;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(super) use active::Active;

use super::isa::Isa;
use super::slab::{LANES, Lane, Layer};

/// The values of `lanes`, one after the other.
#[allow(unsafe_code)]
fn flat(lanes: &[Lane]) -> &[f32] {
    // SAFETY: a lane is `LANES` values and nothing else: its size is that of the array, so an array of lanes has no gaps.
    unsafe { std::slice::from_raw_parts(lanes.as_ptr().cast(), lanes.len() * LANES) }
}

const _: () = assert!(size_of::<Lane>() == size_of::<[f32; LANES]>());

/// A kernel that this processor can run: its existence is the proof.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kernel(Isa);

impl Kernel {
    /// The kernel for `isa`, if this processor has it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        isa.is_available().then_some(Kernel(isa))
    }

    pub(super) fn isa(self) -> Isa {
        self.0
    }

    /// `out_j = bias_j + sum over the inputs`, as one chain for each output, in the order of the inputs.
    ///
    /// # Panics
    /// When `out` is not as long as the layer's rows, or an input has no row.
    #[inline]
    pub(super) fn affine(self, layer: &Layer<'_>, inputs: &Active, out: &mut [Lane]) {
        assert_eq!(out.len(), layer.bias.len());
        match self.0 {
            Isa::Scalar => scalar::affine(layer, inputs, out),
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Kernel` exists only where the processor has its instruction set.
            Isa::Avx2 => unsafe { x86::affine_avx2(layer, inputs, out) },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: as for AVX2.
            Isa::Avx512 => unsafe { x86::affine_avx512(layer, inputs, out) },
            // `Kernel::new` makes none of these elsewhere.
            #[cfg(not(target_arch = "x86_64"))]
            Isa::Avx2 | Isa::Avx512 => scalar::affine(layer, inputs, out),
        }
    }
}
