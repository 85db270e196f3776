//! ONNX Runtime, from a shared library that is found at run time.

use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Tensor, TensorRef};

use crate::values_only::values_only;
use crate::{PeerError, Runtime};

/// One session of the whole graph and one of the q-values alone, both on the caller's thread.
pub(crate) struct OnnxRuntime {
    whole: Session,
    values: Session,
    values_options: RunOptions<HasSelectedOutputs>,
}

fn failed(error: impl std::fmt::Display) -> PeerError {
    PeerError::Runtime { runtime: "onnxruntime", reason: error.to_string() }
}

/// The library is loaded once in a process; whoever comes first names it.
fn environment(library: &Path) -> Result<&'static Environment, PeerError> {
    static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    let _guard = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(environment) = ENVIRONMENT.get() {
        return Ok(environment);
    }
    let environment = ort::init_from(library).map_err(failed)?.with_telemetry(false).build().map_err(failed)?;
    Ok(ENVIRONMENT.get_or_init(|| environment))
}

fn session(environment: &Environment, onnx: &[u8]) -> Result<Session, PeerError> {
    Session::builder(environment)
        .map_err(failed)?
        .with_optimization_level(GraphOptimizationLevel::Level3)
        .map_err(failed)?
        .with_intra_threads(1)
        .map_err(failed)?
        .with_inter_threads(1)
        .map_err(failed)?
        .with_intra_op_spinning(false)
        .map_err(failed)?
        .commit_from_memory(onnx)
        .map_err(failed)
}

impl OnnxRuntime {
    pub(crate) fn new(library: &Path, onnx: &[u8]) -> Result<Self, PeerError> {
        let environment = environment(library)?;
        let (mlp, _) = bellwether_inference::model::read(onnx, onnx.len())?;
        let whole = session(environment, onnx)?;
        let values = session(environment, &values_only(onnx)?)?;
        let output = Tensor::<f32>::new(&Allocator::default(), [1, mlp.outputs()]).map_err(failed)?;
        let selector = OutputSelector::no_default().with("q_values").preallocate("q_values", output);
        let values_options = RunOptions::new().map_err(failed)?.with_outputs(selector);
        Ok(OnnxRuntime { whole, values, values_options })
    }
}

impl Runtime for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn decide(&mut self, state: &[f32], mask: &[bool], q_values: &mut [f32]) -> Result<usize, PeerError> {
        let state = TensorRef::from_array_view(([1, state.len()], state)).map_err(failed)?;
        let mask = TensorRef::from_array_view(([1, mask.len()], mask)).map_err(failed)?;
        let outputs = self.whole.run(ort::inputs!["state" => state, "action_mask" => mask]).map_err(failed)?;
        let (_, found) = outputs["q_values"].try_extract_tensor::<f32>().map_err(failed)?;
        q_values.copy_from_slice(found);
        let (_, actions) = outputs["action"].try_extract_tensor::<i64>().map_err(failed)?;
        match actions {
            &[action] => usize::try_from(action).map_err(failed),
            _ => Err(failed(format!("{} actions for one state", actions.len()))),
        }
    }

    fn q_values(&mut self, state: &[f32], q_values: &mut [f32]) -> Result<(), PeerError> {
        let state = TensorRef::from_array_view(([1, state.len()], state)).map_err(failed)?;
        let outputs = self.values.run_with_options(ort::inputs![state], &self.values_options).map_err(failed)?;
        let (_, found) = outputs[0].try_extract_tensor::<f32>().map_err(failed)?;
        q_values.copy_from_slice(found);
        Ok(())
    }
}
