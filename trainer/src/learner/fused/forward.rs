//! Q-values by parameters that somebody else keeps.

use super::head::Head;
use super::kernels::Kernels;
use super::worker::{Shared, Worker};
use super::{FORWARD_ROWS, check_parameters, kernels};
use crate::learner::LearnerError;
use crate::network::{LayerShape, NetworkShape};
use bellwether_inference::Isa;
use bellwether_replay::StateRows;

/// A forward pass on one thread, with the numbers of the fused learner.
///
/// Many passes may read the same parameters: target networks are shared like this between learners that run beside each
/// other.
pub struct Forward {
    shape: NetworkShape,
    layers: Vec<LayerShape>,
    kernels: Kernels,
    worker: Worker,
}

impl Forward {
    /// A pass through networks of this shape.
    ///
    /// # Errors
    /// [`LearnerError::Unsupported`] if the processor lacks the instruction set.
    pub fn new(shape: NetworkShape, isa: Isa) -> Result<Forward, LearnerError> {
        let kernels = kernels(isa)?;
        let layers: Vec<LayerShape> = shape.layers().collect();
        Ok(Forward { worker: Worker::new(layers.len()), shape, layers, kernels })
    }

    /// The q-values of `states`, row-major, by `parameters` in canonical layout.
    ///
    /// # Errors
    /// On wrong shapes and on values that are not finite.
    pub fn q_values(
        &mut self,
        parameters: &[f32],
        states: &dyn StateRows,
        out: &mut Vec<f32>,
    ) -> Result<(), LearnerError> {
        self.tell(parameters, states, out, None)
    }

    /// The q-values of `states` as above, and the atoms that they are the means of: for each state and action its quantiles, the
    /// logits of its categories, or the q-value itself.
    ///
    /// # Errors
    /// On wrong shapes and on values that are not finite.
    pub fn q_values_and_atoms(
        &mut self,
        parameters: &[f32],
        states: &dyn StateRows,
        out: &mut Vec<f32>,
        atoms: &mut Vec<f32>,
    ) -> Result<(), LearnerError> {
        self.tell(parameters, states, out, Some(atoms))
    }

    fn tell(
        &mut self,
        parameters: &[f32],
        states: &dyn StateRows,
        out: &mut Vec<f32>,
        mut atoms: Option<&mut Vec<f32>>,
    ) -> Result<(), LearnerError> {
        check_parameters(&self.shape, "the parameters", parameters)?;
        if !states.is_empty() && states.width() != self.shape.inputs() {
            let (expected, found) = (self.shape.inputs(), states.width());
            return Err(LearnerError::Shape { what: "a state", expected, found });
        }
        let head = Head::of(&self.shape);
        let shared = Shared { kernels: self.kernels, layers: &self.layers, head, online: parameters, target: &[] };
        let (rows, actions) = (states.len(), head.actions);
        out.resize(rows * actions, 0.0);
        if let Some(atoms) = &mut atoms {
            atoms.resize(rows * head.width(), 0.0);
        }
        for (start, out) in (0..rows).step_by(FORWARD_ROWS).zip(out.chunks_mut(FORWARD_ROWS * actions)) {
            let range = start..rows.min(start + FORWARD_ROWS);
            self.worker.q_values(shared, states, range.clone(), out)?;
            if let Some(atoms) = &mut atoms {
                self.worker.last_atoms(shared, &mut atoms[range.start * head.width()..range.end * head.width()]);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::learner::Learner;
    use crate::learner::fused::{FusedLearner, FusedOptions};
    use crate::network::{NetworkConfig, Returns};
    use crate::streams::stream;
    use bellwether_replay::DenseRows;

    #[test]
    fn the_q_values_are_those_of_the_learner() {
        let shape = NetworkShape::new(vec![7, 20, 3]).unwrap();
        let parameters = shape.initial_parameters(&mut stream(3, "init"));
        let states: Vec<f32> = (0..7 * 300).map(|i| (i % 11) as f32 / 11.0).collect();
        let rows = DenseRows::new(7, &states);
        let mut learner = FusedLearner::new(shape.clone(), &parameters, FusedOptions::default()).unwrap();
        let (mut expected, mut found) = (Vec::new(), Vec::new());
        learner.q_values(&rows, &[], &mut expected).unwrap();
        Forward::new(shape, Isa::best()).unwrap().q_values(&parameters, &rows, &mut found).unwrap();
        assert_eq!(expected, found);
        assert_eq!(found.len(), 900);
    }

    #[test]
    fn the_q_values_are_the_means_of_the_atoms_beside_them() {
        for dueling in [false, true] {
            let config =
                NetworkConfig { hidden: vec![20], dueling, returns: Returns::Quantiles(5), ..NetworkConfig::default() };
            let shape = config.shape(7, 3).unwrap();
            let parameters = shape.initial_parameters(&mut stream(3, "init"));
            let states: Vec<f32> = (0..7 * 300).map(|i| (i % 11) as f32 / 11.0).collect();
            let (mut alone, mut q, mut atoms) = (Vec::new(), Vec::new(), Vec::new());
            let mut forward = Forward::new(shape, Isa::best()).unwrap();
            let rows = DenseRows::new(7, &states);
            forward.q_values(&parameters, &rows, &mut alone).unwrap();
            forward.q_values_and_atoms(&parameters, &rows, &mut q, &mut atoms).unwrap();
            assert_eq!((&alone, q.len(), atoms.len()), (&q, 900, 4500));
            for (q, atoms) in q.iter().zip(atoms.chunks_exact(5)) {
                assert!((q - atoms.iter().sum::<f32>() / 5.0).abs() < 1e-6);
            }
        }
    }
}
