//! Which inputs of a layer take part: those that are not zero.

use crate::engine::slab::{LANES, Lane};

/// The inputs of a layer that are not zero, in index order. The fields are private to keep the promise that the kernels
/// rely on: every number is below `bound`.
#[derive(Clone, Debug, Default)]
pub(in crate::engine) struct Active {
    index: Vec<u32>,
    value: Vec<f32>,
    len: usize,
    bound: u32,
}

impl Active {
    /// Makes room for layers of up to `inputs` inputs.
    pub(in crate::engine) fn grow(&mut self, inputs: usize) {
        if self.index.len() < inputs {
            self.index.resize(inputs, 0);
            self.value.resize(inputs, 0.0);
        }
    }

    /// Inputs that there is room for.
    pub(in crate::engine) fn room(&self) -> usize {
        self.index.len()
    }

    /// The numbers of the inputs, ascending.
    pub(super) fn index(&self) -> &[u32] {
        &self.index[..self.len]
    }

    /// Their values.
    pub(super) fn value(&self) -> &[f32] {
        &self.value[..self.len]
    }

    /// Every number is below this one.
    pub(super) fn bound(&self) -> usize {
        self.bound as usize
    }

    /// Keeps what is not zero of a state, without a branch: a zero is written and then overwritten by what follows.
    pub(in crate::engine) fn gather(&mut self, state: &[f32]) {
        let (index, value) = (&mut self.index[..state.len()], &mut self.value[..state.len()]);
        let mut len = 0;
        let mut number = 0_u32;
        for &element in state {
            index[len] = number;
            value[len] = element;
            number += 1;
            len += usize::from(element != 0.0);
        }
        self.len = len;
        self.bound = number;
    }

    /// Keeps what is above zero among the first `count` values of `lanes`: the rectified inputs of the next layer. Gives
    /// whether all of the values are finite.
    pub(in crate::engine) fn gather_rectified(&mut self, lanes: &[Lane], count: usize) -> bool {
        let (index, value) = (&mut self.index[..count], &mut self.value[..count]);
        let (mut len, mut number, mut finite) = (0, 0_u32, true);
        for lane in lanes {
            let take = (count - number as usize).min(LANES);
            for &element in &lane.0[..take] {
                index[len] = number;
                value[len] = element;
                number += 1;
                len += usize::from(element > 0.0);
                finite &= element.is_finite();
            }
        }
        self.len = len;
        self.bound = number;
        finite
    }
}
