//! A network on the kernels of this crate.

use std::ops::RangeInclusive;

use super::certified::{Certificate, Certified};
use super::kernels::Kernel;
use super::slab::{Lane, Slab};
use super::{DecideError, Precision, Scratch, head};
use crate::model::Mlp;

/// The weights, and what certified decisions need besides.
#[derive(Debug)]
pub(super) struct Native {
    pub(super) slab: Slab,
    /// Only where precision asks for it and the network permits it.
    pub(super) certified: Option<Certified>,
}

impl Native {
    /// Lays out a network that [`Mlp::check`] accepted.
    pub(super) fn new(mlp: &Mlp) -> Self {
        Native { slab: Slab::new(mlp), certified: None }
    }

    /// Makes ready for a precision on states within `range`.
    pub(super) fn prepare(&mut self, kernel: Kernel, precision: Precision, range: &RangeInclusive<f32>) {
        self.certified = match precision {
            Precision::Exact => None,
            Precision::Certified => Certified::new(kernel, &self.slab, range),
        };
    }

    pub(super) fn width(&self) -> usize {
        self.slab.inputs()
    }

    pub(super) fn actions(&self) -> usize {
        self.slab.actions()
    }

    /// A decision under a certificate, with its q-values in the scratch; `None` where there is no certificate.
    #[inline]
    pub(super) fn certify(
        &self,
        kernel: Kernel,
        scratch: &mut Scratch,
        state: &[f32],
        mask: &[bool],
    ) -> Option<Certificate> {
        let certified = self.certified.as_ref()?;
        let Scratch { lanes, active, workspace, q_values } = scratch;
        let memory = (workspace, active, lanes.as_mut_slice(), &mut q_values[..mask.len()]);
        certified.decide(kernel, &self.slab, memory, state, mask)
    }

    /// Writes the q-values of the numeric contract, which may not be finite, into the scratch.
    pub(super) fn q_values(&self, kernel: Kernel, scratch: &mut Scratch, state: &[f32]) -> Result<(), DecideError> {
        scratch.active.gather(kernel, state);
        let last = self.slab.layers() - 1;
        for index in 0..=last {
            let layer = self.slab.layer(index);
            let lanes = &mut scratch.lanes[..layer.bias.len()];
            kernel.affine(&layer, &scratch.active, lanes);
            if index < last && !scratch.active.gather_rectified(kernel, lanes, layer.outputs) {
                return Err(DecideError::Overflow { layer: index });
            }
        }
        head::join(&self.slab, &scratch.lanes, &mut scratch.q_values[..self.slab.actions()]);
        Ok(())
    }

    fn widest_lanes(&self) -> usize {
        let certified = self.certified.as_ref().map_or(0, Certified::lanes);
        self.slab.widest_lanes().max(certified)
    }

    /// Makes room in a scratch, save for the q-values.
    pub(super) fn grow(&self, scratch: &mut Scratch) {
        let (lanes, width) = (self.widest_lanes(), self.slab.widest_input());
        if scratch.lanes.len() < lanes {
            scratch.lanes.resize(lanes, Lane::ZERO);
        }
        scratch.active.grow(width);
        if self.certified.is_some() {
            scratch.workspace.grow(self.width(), width);
        }
    }

    /// Whether a scratch has room, save for the q-values.
    pub(super) fn fits(&self, scratch: &Scratch) -> bool {
        scratch.lanes.len() >= self.widest_lanes()
            && scratch.active.room() >= self.slab.widest_input()
            && (self.certified.is_none() || scratch.workspace.fits(self.width(), self.slab.widest_input()))
    }
}
