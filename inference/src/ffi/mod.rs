//! The C ABI: one exported function, which gives a table of all others.
//!
//! `include/bellwether.h` is the same for C and C++, docs/c-abi.md says how to build and link. A handle of C is a box of ours. Every
//! call runs within `edge::guarded`, so no panic crosses the border, and checks each pointer for null and for its alignment;
//! that a pointer which passes points to what the header says is the promise of the caller, and the safety of every `unsafe` here.

#![allow(unsafe_code)]

mod abi;
mod decider;
mod edge;
mod loading;
mod policy;

pub use abi::{
    BELLWETHER_API_VERSION, BELLWETHER_ENGINE_NATIVE, BELLWETHER_ENGINE_ORT, BELLWETHER_ISA_AVX2,
    BELLWETHER_ISA_AVX512, BELLWETHER_ISA_BEST, BELLWETHER_ISA_SCALAR, BELLWETHER_LATENCY_BUCKETS,
    BELLWETHER_PRECISION_CERTIFIED, BELLWETHER_PRECISION_EXACT, BELLWETHER_REFUSALS, BELLWETHER_ROLE_CANARY,
    BELLWETHER_ROLE_CHAMPION, BELLWETHER_TIME_NEVER, BELLWETHER_VERSION_TEXT, Code, DeciderHandle, Decision, Metrics,
    Options, PolicyHandle, Status,
};

use std::ffi::{CStr, c_char};

/// The functions of version 1. Later libraries add functions at the end and change none: a caller who needs one that was added
/// checks that `size` reaches past it.
///
/// Texts that are given are UTF-8 and end with a NUL; so do texts that are returned. A call that fails returns its code, keeps a
/// message for `error_message` and, unless said otherwise, changes nothing. No buffer that is written may overlap another.
#[derive(Debug)]
#[repr(C)]
pub struct ApiV1 {
    /// Bytes of this table.
    pub size: usize,

    /// The version of the library, such as `0.1.0`. It stays valid.
    pub library_version: extern "C" fn() -> *const c_char,
    /// What went wrong in the last call on this thread that failed; empty where none did. It is valid until the next one that
    /// fails, and until the thread ends.
    pub error_message: extern "C" fn() -> *const c_char,
    /// The name of a code, such as `state_width`; NULL for a number that this library does not know. It stays valid.
    pub error_name: extern "C" fn(code: i32) -> *const c_char,

    /// Opens the release in a folder, checks everything in it and makes a policy that serves it. `options` may be NULL for the
    /// defaults. The policy is written to `opened` and is the caller's, who closes it.
    pub policy_open:
        unsafe extern "C" fn(folder: *const c_char, options: *const Options, opened: *mut *mut PolicyHandle) -> Code,
    /// Gives a policy back. Deciders that were made of it go on: what they need lives until the last of them is freed. NULL is
    /// left alone. Nobody may use the handle any more, nor the names of actions that it gave.
    pub policy_close: unsafe extern "C" fn(policy: *mut PolicyHandle) -> Code,
    /// Makes the release in a folder the champion, after all checks and on the calling thread, while decisions go on: the next
    /// ones are its. The champion before is kept for a rollback.
    pub policy_swap: unsafe extern "C" fn(policy: *const PolicyHandle, folder: *const c_char) -> Code,
    /// Makes the previous champion the champion again, once.
    pub policy_roll_back: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,
    /// Keeps the champion until it is unpinned: swaps, promotions and rollbacks are refused.
    pub policy_pin: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,
    /// Lets the champion be replaced again.
    pub policy_unpin: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,
    /// Serves the release in a folder to a share of the episodes, above 0 and at most 1: a canary, in the place of the one before.
    pub policy_try_out: unsafe extern "C" fn(policy: *const PolicyHandle, folder: *const c_char, share: f64) -> Code,
    /// Gives the canary another share. A larger one keeps the episodes of the smaller.
    pub policy_set_share: unsafe extern "C" fn(policy: *const PolicyHandle, share: f64) -> Code,
    /// Makes the canary the champion.
    pub policy_promote: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,
    /// Ends the trial of the canary.
    pub policy_withdraw: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,
    /// Gives the memory of replaced models back that no decision reads any more. Every change does so at its end; this is for
    /// those that a decision still read then.
    pub policy_reap: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,
    /// Says what is served.
    pub policy_status: unsafe extern "C" fn(policy: *const PolicyHandle, status: *mut Status) -> Code,
    /// Says what was counted.
    pub policy_metrics: unsafe extern "C" fn(policy: *const PolicyHandle, metrics: *mut Metrics) -> Code,
    /// Writes how often each action was decided, by its number, and 0 past the last. `length` is the room in `counts`, at least
    /// the number of actions.
    pub policy_action_counts:
        unsafe extern "C" fn(policy: *const PolicyHandle, counts: *mut u64, length: usize) -> Code,
    /// The name of an action; NULL where there is no such action. It is valid until the policy is closed.
    pub policy_action_name: unsafe extern "C" fn(policy: *const PolicyHandle, action: u32) -> *const c_char,
    /// Makes the calling thread ready for deciders that another thread made: its first decision would otherwise allocate once.
    pub policy_warm_thread: unsafe extern "C" fn(policy: *const PolicyHandle) -> Code,

    /// Makes a decider for one thread at a time, ready for the calling thread. It is written to `created` and is the caller's,
    /// who frees it.
    pub decider_create: unsafe extern "C" fn(policy: *const PolicyHandle, created: *mut *mut DeciderHandle) -> Code,
    /// Gives a decider back. NULL is left alone. Nobody may use the handle any more.
    pub decider_free: unsafe extern "C" fn(decider: *mut DeciderHandle) -> Code,
    /// Serves a false-positive rate with this decider from now on: every state is decided as if its cost element were the one
    /// that the deciding model was calibrated with for this rate, so the right one across swaps. 0 lets the state's own cost
    /// count again, as at first. A model that does not know the rate decides nothing: `BELLWETHER_CODE_TARGET`.
    pub decider_set_target_fpr: unsafe extern "C" fn(decider: *mut DeciderHandle, target_fpr: f64) -> Code,
    /// Decides one state of `state_length` values, each from 0 to 1, without a lock and without allocating.
    ///
    /// `mask` holds one byte per action, 1 where it is allowed and 0 where it is not; NULL allows all. `episode` points to a number
    /// that is the episode's own, by which a canary is given its share; NULL stands for the champion. `q_values`, where not NULL,
    /// gets the q-value of every action; it wants room for as many. A decision of another thread on the same decider is refused
    /// with `BELLWETHER_CODE_BUSY`.
    pub decide: unsafe extern "C" fn(
        decider: *mut DeciderHandle,
        state: *const f32,
        state_length: usize,
        mask: *const u8,
        mask_length: usize,
        episode: *const u64,
        decision: *mut Decision,
        q_values: *mut f32,
        q_values_length: usize,
    ) -> Code,
    /// Decides `rows` states, one after the other in `states`, all by the same champion.
    ///
    /// `masks`, where not NULL, has the masks one after the other; `q_values`, where not NULL, gets the q-values likewise. A row
    /// that is refused has its code in its decision and NaN for its q-values, and the others are decided all the same. The call
    /// then returns the code of the first refused row: `EMPTY_MASK`, `NON_FINITE_STATE`, `STATE_OUT_OF_RANGE` or `OVERFLOW`. With
    /// any other code but `OK` nothing was written. Without masks a batch larger than all before allocates; nothing else does.
    pub decide_batch: unsafe extern "C" fn(
        decider: *mut DeciderHandle,
        states: *const f32,
        states_length: usize,
        masks: *const u8,
        masks_length: usize,
        decisions: *mut Decision,
        rows: usize,
        q_values: *mut f32,
        q_values_length: usize,
    ) -> Code,
}

static API_V1: ApiV1 = ApiV1 {
    size: size_of::<ApiV1>(),
    library_version,
    error_message,
    error_name,
    policy_open: policy::open,
    policy_close: policy::close,
    policy_swap: policy::swap,
    policy_roll_back: policy::roll_back,
    policy_pin: policy::pin,
    policy_unpin: policy::unpin,
    policy_try_out: policy::try_out,
    policy_set_share: policy::set_share,
    policy_promote: policy::promote,
    policy_withdraw: policy::withdraw,
    policy_reap: policy::reap,
    policy_status: policy::status,
    policy_metrics: policy::metrics,
    policy_action_counts: policy::action_counts,
    policy_action_name: policy::action_name,
    policy_warm_thread: policy::warm_thread,
    decider_create: decider::create,
    decider_free: decider::free,
    decider_set_target_fpr: decider::set_target_fpr,
    decide: decider::decide,
    decide_batch: decider::decide_batch,
};

/// The table of functions of a version, which stays valid; NULL where this library has no such version. Ask for
/// `BELLWETHER_API_VERSION`. It is the only function that the library exports.
#[unsafe(no_mangle)]
pub extern "C" fn bellwether_get_api(version: u32) -> *const ApiV1 {
    if version == BELLWETHER_API_VERSION { &raw const API_V1 } else { std::ptr::null() }
}

extern "C" fn library_version() -> *const c_char {
    const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(version) => version,
        Err(_) => panic!("a version has no NUL within"),
    };
    VERSION.as_ptr()
}

extern "C" fn error_message() -> *const c_char {
    edge::message()
}

extern "C" fn error_name(code: i32) -> *const c_char {
    let known = Code::ALL.into_iter().find(|known| *known as i32 == code);
    known.map_or(std::ptr::null(), |code| code.name().as_ptr())
}
