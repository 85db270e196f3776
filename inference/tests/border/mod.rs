//! The table of functions as C sees it, and releases on disk for it to open.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::ffi::{CStr, CString};
use std::path::Path;
use std::ptr;

use bellwether_artifact::{Sha256, release};
use bellwether_env_adapter::spec::FeatureSpec;
use bellwether_env_adapter::window::WindowConfig;
use bellwether_inference::ffi::{ApiV1, Code, DeciderHandle, Decision, Options, PolicyHandle, bellwether_get_api};
use bellwether_inference::model::{Contract, Mlp};
use tempfile::TempDir;

use crate::manifests::sealed;
use crate::nets::Draw;

/// Values of a state and number of actions of all releases here.
pub(crate) const WIDTH: usize = 512;
pub(crate) const ACTIONS: usize = 5;

pub(crate) fn api() -> &'static ApiV1 {
    // SAFETY: the table of a known version is not NULL and stays valid.
    unsafe { &*bellwether_get_api(1) }
}

/// The message of the last call on this thread that failed.
pub(crate) fn message() -> String {
    // SAFETY: the message ends with NUL, and no call is made while it is read.
    unsafe { CStr::from_ptr((api().error_message)()) }.to_str().unwrap().to_owned()
}

/// A network of the sandbox's contract, drawn from a seed.
pub(crate) fn network(seed: u64) -> Mlp {
    Draw(seed).mlp(&[WIDTH, 24, ACTIONS])
}

/// The contract that goes with windows of at most so many events.
pub(crate) fn contract(max_events: u32) -> Contract {
    let window = WindowConfig { max_events, max_ns: 100_000_000, max_windows: 0 };
    Contract::sandbox(WIDTH, Sha256::from_bytes(FeatureSpec::v1(window).hash()))
}

/// Releases in a folder of their own, by name.
pub(crate) struct Shelf(TempDir);

impl Shelf {
    pub(crate) fn new() -> Shelf {
        Shelf(tempfile::tempdir().unwrap())
    }

    pub(crate) fn put(&self, name: &str, mlp: &Mlp) -> CString {
        let (manifest, onnx) = sealed(mlp, &contract(64), |_| {});
        release::publish(&self.0.path().join(name), &manifest, &onnx, release::Companions::default()).unwrap();
        self.path(name)
    }

    pub(crate) fn path(&self, name: &str) -> CString {
        CString::new(self.folder(name).to_str().unwrap()).unwrap()
    }

    pub(crate) fn folder(&self, name: &str) -> std::path::PathBuf {
        Path::join(self.0.path(), name)
    }
}

/// An open policy, closed at the end.
pub(crate) struct Opened(pub(crate) *mut PolicyHandle);

/// A decider, freed at the end.
pub(crate) struct Created(pub(crate) *mut DeciderHandle);

// SAFETY: handles may go from thread to thread, and a policy may be used by several.
unsafe impl Send for Created {}
// SAFETY: as above.
unsafe impl Send for Opened {}
// SAFETY: as above.
unsafe impl Sync for Opened {}

impl Opened {
    #[track_caller]
    pub(crate) fn new(folder: &CStr, options: Option<Options>) -> Opened {
        let mut policy = ptr::null_mut();
        let options = options.as_ref().map_or(ptr::null(), ptr::from_ref);
        // SAFETY: all pointers are of living things.
        let code = unsafe { (api().policy_open)(folder.as_ptr(), options, &raw mut policy) };
        assert_eq!(code, Code::Ok, "{}", message());
        Opened(policy)
    }

    pub(crate) fn decider(&self) -> Created {
        let mut decider = ptr::null_mut();
        // SAFETY: the policy is open.
        assert_eq!(unsafe { (api().decider_create)(self.0, &raw mut decider) }, Code::Ok);
        Created(decider)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        // SAFETY: the handle is used no more.
        assert_eq!(unsafe { (api().policy_close)(self.0) }, Code::Ok);
    }
}

impl Created {
    /// Decides with room for q-values.
    pub(crate) fn decide(
        &self,
        episode: Option<u64>,
        state: &[f32],
        mask: Option<&[u8]>,
    ) -> Result<(Decision, Vec<f32>), Code> {
        let mut decision = blank();
        let mut q_values = [0.0; ACTIONS];
        let (mask, entries) = mask.map_or((ptr::null(), 0), |mask| (mask.as_ptr(), mask.len()));
        let episode = episode.as_ref().map_or(ptr::null(), ptr::from_ref);
        let (values, room) = (q_values.as_mut_ptr(), q_values.len());
        // SAFETY: all pointers are of living things, of the lengths that are given.
        let code = unsafe {
            let (state, width) = (state.as_ptr(), state.len());
            (api().decide)(self.0, state, width, mask, entries, episode, &raw mut decision, values, room)
        };
        if code == Code::Ok { Ok((decision, q_values.to_vec())) } else { Err(code) }
    }

    /// Decides a batch with room for q-values.
    pub(crate) fn decide_batch(
        &self,
        states: &[f32],
        masks: Option<&[u8]>,
        rows: usize,
    ) -> (Code, Vec<Decision>, Vec<f32>) {
        let mut decisions = vec![blank(); rows];
        let mut q_values = vec![0.0; rows * ACTIONS];
        let (masks, entries) = masks.map_or((ptr::null(), 0), |masks| (masks.as_ptr(), masks.len()));
        let (values, room) = (q_values.as_mut_ptr(), q_values.len());
        // SAFETY: all pointers are of living things, of the lengths that are given.
        let code = unsafe {
            let (states, length) = (states.as_ptr(), states.len());
            (api().decide_batch)(self.0, states, length, masks, entries, decisions.as_mut_ptr(), rows, values, room)
        };
        (code, decisions, q_values)
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        // SAFETY: the handle is used no more.
        assert_eq!(unsafe { (api().decider_free)(self.0) }, Code::Ok);
    }
}

/// A decision that no call has written.
pub(crate) fn blank() -> Decision {
    Decision {
        code: Code::Panic,
        action: 77,
        margin: -1.0,
        bound: -1.0,
        model_version: [7; 8],
        certified: 7,
        role: 7,
        reserved: [7; 6],
    }
}
