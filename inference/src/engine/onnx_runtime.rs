//! A network in ONNX Runtime, from a shared library that is found at run time.
//!
//! A session serves one call at a time, so an engine has several and a thread takes one that is free: at first the one it is given
//! for good, which stays in its caches. All of them run on the thread that calls, and none has a thread of its own.

use std::cell::Cell;
use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Tensor, TensorRef};

use super::kernels::Kernel;
use super::{DecideError, Engine, EngineError, Evaluator, Isa};
use crate::model::{Expectation, check_general};

/// The variable that names the library where nothing else does.
const LIBRARY: &str = "ORT_DYLIB_PATH";

/// How to come by the library.
const INSTALL: &str = "install it with `pip install onnxruntime`, and let ORT_DYLIB_PATH name the file \
                       onnxruntime/capi/libonnxruntime.so.* among the installed packages";

/// How graphs are evaluated that the native kernels do not cover.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OnnxRuntime {
    /// The shared library, of version 1.17 or later; `None` for the one that `ORT_DYLIB_PATH` names. A process loads one, once.
    pub library: Option<PathBuf>,
    /// Sessions of an engine, each with a copy of the weights: as many calls run at a time. 0 for one for each thread that the
    /// machine can run.
    pub sessions: usize,
}

/// The sessions of one network.
pub(super) struct Sessions {
    pool: Vec<Mutex<Slot>>,
    width: usize,
    actions: usize,
}

/// A session, and where its q-values go.
struct Slot {
    session: Session,
    /// Q-values are those of all actions; the mask has a part in the action alone, which is chosen here.
    mask: Vec<bool>,
    options: RunOptions<HasSelectedOutputs>,
}

impl Engine {
    /// An engine on ONNX Runtime for a model file that [`check_general`] accepts under this expectation. `isa` is what states are
    /// checked with.
    ///
    /// # Errors
    /// A file that is refused, and then the library never sees it; a library that is missing or too old; a graph that it refuses.
    pub fn on_onnx_runtime(
        onnx: &[u8],
        expectation: &Expectation,
        isa: Isa,
        options: &OnnxRuntime,
    ) -> Result<Self, EngineError> {
        check_general(onnx, expectation)?;
        let kernel = Kernel::new(isa).ok_or(EngineError::IsaUnavailable(isa))?;
        let (width, actions) = (expectation.contract.width, expectation.contract.actions.len());
        let sessions = Sessions::new(onnx, width, actions, options)?;
        Ok(Engine::with(Evaluator::OnnxRuntime(sessions), kernel))
    }
}

impl Sessions {
    fn new(onnx: &[u8], width: usize, actions: usize, options: &OnnxRuntime) -> Result<Self, EngineError> {
        let environment = options.environment()?;
        let count = match options.sessions {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let slot = |_| Slot::new(environment, onnx, actions).map(Mutex::new).map_err(refused);
        let pool = (0..count).map(slot).collect::<Result<Vec<_>, _>>()?;
        Ok(Sessions { pool, width, actions })
    }

    pub(super) fn width(&self) -> usize {
        self.width
    }

    pub(super) fn actions(&self) -> usize {
        self.actions
    }

    /// Writes one q-value per action, finite or not.
    pub(super) fn q_values(&self, state: &[f32], q_values: &mut [f32]) -> Result<(), DecideError> {
        self.free().run(state, q_values).map_err(|reason| DecideError::OnnxRuntime { reason })
    }

    /// A session that nobody uses; where there is none, the thread waits for its own.
    fn free(&self) -> MutexGuard<'_, Slot> {
        let home = home();
        for slot in 0..self.pool.len() {
            if let Ok(free) = self.pool[(home + slot) % self.pool.len()].try_lock() {
                return free;
            }
        }
        // A call that panicked left nothing behind that the next one reads.
        self.pool[home % self.pool.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The number of this thread among those that ever decided here.
fn home() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static HOME: Cell<Option<usize>> = const { Cell::new(None) });
    HOME.with(|home| {
        let number = home.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        home.set(Some(number));
        number
    })
}

impl Slot {
    fn new(environment: &Environment, onnx: &[u8], actions: usize) -> Result<Self, ort::Error> {
        let session = builder(environment)?.commit_from_memory(onnx)?;
        // An output of another shape than the contract's does not fit, and fails.
        let output = Tensor::<f32>::new(&Allocator::default(), [1, actions])?;
        let selector = OutputSelector::no_default().with("q_values").preallocate("q_values", output);
        let options = RunOptions::new()?.with_outputs(selector);
        Ok(Slot { session, mask: vec![true; actions], options })
    }

    fn run(&mut self, state: &[f32], q_values: &mut [f32]) -> Result<(), String> {
        let told = |error: ort::Error| error.to_string();
        let state = TensorRef::from_array_view(([1, state.len()], state)).map_err(told)?;
        let mask = TensorRef::from_array_view(([1, self.mask.len()], self.mask.as_slice())).map_err(told)?;
        let inputs = ort::inputs!["state" => state, "action_mask" => mask];
        let outputs = self.session.run_with_options(inputs, &self.options).map_err(told)?;
        let (_, found) = outputs[0].try_extract_tensor::<f32>().map_err(told)?;
        if found.len() != q_values.len() {
            return Err(format!("{} q-values came out, expected {}", found.len(), q_values.len()));
        }
        q_values.copy_from_slice(found);
        Ok(())
    }
}

fn builder(environment: &Environment) -> Result<SessionBuilder, ort::Error> {
    let builder = Session::builder(environment)?
        .with_optimization_level(GraphOptimizationLevel::Level3)?
        .with_intra_threads(1)?
        .with_inter_threads(1)?
        .with_parallel_execution(false)?
        .with_intra_op_spinning(false)?;
    Ok(builder)
}

impl OnnxRuntime {
    /// Loads the library now, so that a program which was told to use it learns at its start that it is missing.
    ///
    /// # Errors
    /// [`EngineError::OnnxRuntime`], with what to do.
    pub fn load(&self) -> Result<(), EngineError> {
        self.environment().map(drop)
    }

    /// The library, loaded; whoever comes first in a process names it.
    fn environment(&self) -> Result<&'static Environment, EngineError> {
        static LOADED: OnceLock<(PathBuf, Environment)> = OnceLock::new();
        static LOADING: Mutex<()> = Mutex::new(());
        let path = self.library()?;
        let _guard = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((loaded, environment)) = LOADED.get() {
            return match *loaded == path {
                true => Ok(environment),
                false => Err(EngineError::OnnxRuntime {
                    reason: format!("{} is loaded already, so {} cannot be", loaded.display(), path.display()),
                }),
            };
        }
        let environment = load(&path)?;
        Ok(&LOADED.get_or_init(|| (path, environment)).1)
    }

    /// The path of a library that exists.
    fn library(&self) -> Result<PathBuf, EngineError> {
        let named = self.library.clone().or_else(|| env::var_os(LIBRARY).map(PathBuf::from));
        let Some(path) = named.filter(|path| !path.as_os_str().is_empty()) else {
            let reason = format!("no library is named: {INSTALL}");
            return Err(EngineError::OnnxRuntime { reason });
        };
        path.canonicalize()
            .map_err(|error| EngineError::OnnxRuntime { reason: format!("{}: {error}: {INSTALL}", path.display()) })
    }
}

fn load(path: &Path) -> Result<Environment, EngineError> {
    let builder =
        ort::init_from(path).map_err(|error| EngineError::OnnxRuntime { reason: format!("{error}: {INSTALL}") })?;
    builder.with_telemetry(false).build().map_err(refused)
}

fn refused(error: ort::Error) -> EngineError {
    EngineError::OnnxRuntime { reason: error.to_string() }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Sessions { pool, width, actions } = self;
        f.debug_struct("Sessions").field("pool", &pool.len()).field("width", width).field("actions", actions).finish()
    }
}
