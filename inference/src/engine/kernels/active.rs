//! Which inputs of a layer take part: those that are not zero.

#[cfg(target_arch = "x86_64")]
use super::x86;
use super::{Kernel, flat};
use crate::engine::isa::Isa;
use crate::engine::slab::{LANES, Lane};

/// The inputs of a layer that are not zero, in index order.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Active {
    index: Vec<u32>,
    value: Vec<f32>,
    len: usize,
}

impl Active {
    /// Makes room for layers of up to `inputs` inputs.
    pub(in crate::engine) fn grow(&mut self, inputs: usize) {
        // The vector writer stores a whole lane at a time.
        let room = inputs + LANES;
        if self.index.len() < room {
            self.index.resize(room, 0);
            self.value.resize(room, 0.0);
        }
    }

    /// Inputs that there is room for.
    pub(in crate::engine) fn room(&self) -> usize {
        self.index.len().saturating_sub(LANES)
    }

    /// How many they are.
    pub(in crate::engine) fn len(&self) -> usize {
        self.len
    }

    /// The numbers of the inputs, ascending.
    pub(super) fn index(&self) -> &[u32] {
        &self.index[..self.len]
    }

    /// Their values.
    pub(super) fn value(&self) -> &[f32] {
        &self.value[..self.len]
    }

    /// Shows each input with its value.
    #[cfg(test)]
    pub(in crate::engine) fn each(&self, mut show: impl FnMut(usize, f32)) {
        self.index().iter().zip(self.value()).for_each(|(&index, &value)| show(index as usize, value));
    }

    /// The numbers of neighbours in the list; the last pair is filled up with 0 once the list is padded.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn index_pairs(&self) -> &[[u32; 2]] {
        self.index[..self.len.next_multiple_of(2)].as_chunks().0
    }

    /// The values, and zeros up to a whole lane; the numbers are filled up in the same way.
    pub(in crate::engine) fn padded_value(&mut self) -> &[f32] {
        let end = self.len.next_multiple_of(LANES);
        self.index[self.len..end].fill(0);
        self.value[self.len..end].fill(0.0);
        &self.value[..end]
    }

    /// Keeps what is not zero of a state.
    ///
    /// # Panics
    /// When there is no room for it.
    pub(in crate::engine) fn gather(&mut self, kernel: Kernel, state: &[f32]) {
        let found = match kernel.isa() {
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Kernel` exists only where the processor has its instruction set.
            Isa::Avx512 => unsafe { x86::gather_avx512::<false>(state, &mut self.index, &mut self.value) },
            _ => gather::<false>(state, &mut self.index[..state.len()], &mut self.value[..state.len()]),
        };
        self.len = found.len;
    }

    /// Keeps what is above zero among the first `count` values of `lanes`: the rectified inputs of the next layer. Gives
    /// whether all of the values are finite.
    ///
    /// # Panics
    /// When there is no room for them, or fewer of them.
    pub(in crate::engine) fn gather_rectified(&mut self, kernel: Kernel, lanes: &[Lane], count: usize) -> bool {
        let found = match kernel.isa() {
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            // SAFETY: a `Kernel` exists only where the processor has its instruction set.
            Isa::Avx512 => unsafe {
                x86::gather_avx512::<true>(&flat(lanes)[..count], &mut self.index, &mut self.value)
            },
            _ => gather::<true>(&flat(lanes)[..count], &mut self.index[..count], &mut self.value[..count]),
        };
        self.len = found.len;
        found.finite
    }
}

/// What a pass over the values found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gathered {
    /// Values kept.
    pub(super) len: usize,
    /// Whether every value, kept or not, is finite.
    pub(super) finite: bool,
}

/// Keeps what is not zero (what is above zero, if `RECTIFY`), without a branch: every value is written, and those that are
/// not wanted are overwritten by what follows.
pub(super) fn gather<const RECTIFY: bool>(values: &[f32], index: &mut [u32], kept: &mut [f32]) -> Gathered {
    let (mut len, mut finite) = (0, true);
    for (number, &value) in (0_u32..).zip(values) {
        index[len] = number;
        kept[len] = value;
        len += usize::from(if RECTIFY { value > 0.0 } else { value != 0.0 });
        finite &= value.is_finite();
    }
    Gathered { len, finite }
}
