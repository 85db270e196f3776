//! tract, in pure Rust.

use tract_onnx::prelude::*;

use crate::values_only::values_only;
use crate::{PeerError, Runtime};

/// One plan of the whole graph and one of the q-values alone, for a batch of one.
pub(crate) struct Tract {
    whole: TypedSimpleState,
    values: TypedSimpleState,
}

fn failed(error: impl std::fmt::Debug) -> PeerError {
    PeerError::Runtime { runtime: "tract", reason: format!("{error:?}") }
}

impl Tract {
    pub(crate) fn new(onnx: &[u8]) -> Result<Self, PeerError> {
        let (mlp, _) = bellwether_inference::model::read(onnx, onnx.len())?;
        let state = InferenceFact::dt_shape(f32::datum_type(), [1, mlp.inputs()]);
        let mask = InferenceFact::dt_shape(bool::datum_type(), [1, mlp.outputs()]);
        let whole = plan(onnx, [state.clone(), mask]).map_err(failed)?;
        let values = plan(&values_only(onnx)?, [state]).map_err(failed)?;
        Ok(Tract { whole, values })
    }
}

fn plan<const N: usize>(onnx: &[u8], facts: [InferenceFact; N]) -> TractResult<TypedSimpleState> {
    let mut bytes = onnx;
    let mut model = tract_onnx::onnx().model_for_read(&mut bytes)?;
    for (index, fact) in facts.into_iter().enumerate() {
        model.set_input_fact(index, fact)?;
    }
    model.into_optimized()?.into_runnable()?.spawn()
}

impl Runtime for Tract {
    fn name(&self) -> &'static str {
        "tract"
    }

    fn decide(&mut self, state: &[f32], mask: &[bool], q_values: &mut [f32]) -> Result<usize, PeerError> {
        let state = Tensor::from_shape(&[1, state.len()], state).map_err(failed)?;
        let mask = Tensor::from_shape(&[1, mask.len()], mask).map_err(failed)?;
        let outputs = self.whole.run(tvec![state.into(), mask.into()]).map_err(failed)?;
        let [values, action] = outputs.as_slice() else {
            return Err(failed(format!("{} outputs, expected two", outputs.len())));
        };
        q_values.copy_from_slice(values.try_as_plain_ram().map_err(failed)?.as_slice::<f32>().map_err(failed)?);
        let action = action.cast_to::<i64>().map_err(failed)?;
        match action.try_as_plain_ram().map_err(failed)?.as_slice::<i64>().map_err(failed)? {
            &[action] => usize::try_from(action).map_err(failed),
            actions => Err(failed(format!("{} actions for one state", actions.len()))),
        }
    }

    fn q_values(&mut self, state: &[f32], q_values: &mut [f32]) -> Result<(), PeerError> {
        let state = Tensor::from_shape(&[1, state.len()], state).map_err(failed)?;
        let outputs = self.values.run(tvec![state.into()]).map_err(failed)?;
        let values = outputs.first().ok_or_else(|| failed("no output"))?;
        q_values.copy_from_slice(values.try_as_plain_ram().map_err(failed)?.as_slice::<f32>().map_err(failed)?);
        Ok(())
    }
}
