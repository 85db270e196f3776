//! What crosses the border: structs with the layout of C, and the numbers that stand for errors and choices.
//!
//! `include/bellwether.h` is generated from this file and from the function table, comments included, so what is said
//! here is said to C.

use std::cell::UnsafeCell;
use std::ffi::{CString, c_char};
use std::sync::atomic::AtomicBool;

use super::decider::Contents;
use super::loading::Loading;
use crate::policy::{Policy, Refusal};

/// The version of the function table that this header describes.
pub const BELLWETHER_API_VERSION: u32 = 1;

/// The fastest instruction set of the processor.
pub const BELLWETHER_ISA_BEST: u32 = 0;
/// Portable code.
pub const BELLWETHER_ISA_SCALAR: u32 = 1;
/// AVX2 with FMA.
pub const BELLWETHER_ISA_AVX2: u32 = 2;
/// AVX-512.
pub const BELLWETHER_ISA_AVX512: u32 = 3;

/// 16-bit integers where a bound proves that f32 would choose the same action, f32 elsewhere.
pub const BELLWETHER_PRECISION_CERTIFIED: u32 = 0;
/// The f32 kernel, always.
pub const BELLWETHER_PRECISION_EXACT: u32 = 1;

/// The native engine, which refuses models of general graphs.
pub const BELLWETHER_ENGINE_NATIVE: u32 = 0;
/// ONNX Runtime for models of general graphs, the native engine for all others.
pub const BELLWETHER_ENGINE_ORT: u32 = 1;

/// For `time_every`: no decision is timed, and no clock is read.
pub const BELLWETHER_TIME_NEVER: u32 = u32::MAX;

/// The model that decides by default.
pub const BELLWETHER_ROLE_CHAMPION: u8 = 0;
/// The model on trial, in its share of the episodes.
pub const BELLWETHER_ROLE_CANARY: u8 = 1;

/// Buckets of the latency histogram. Bucket `i` counts decisions of at most 250 ns doubled `i` times and more than the bucket
/// before; the last counts all that took longer.
pub const BELLWETHER_LATENCY_BUCKETS: usize = 21;

/// Reasons for a refusal that the metrics have room for.
pub const BELLWETHER_REFUSALS: usize = 16;

/// Room for the version of a model as text: 16 hexadecimal digits, a NUL, and zeros.
pub const BELLWETHER_VERSION_TEXT: usize = 24;

/// How a call ended. Numbers are never given another meaning; a later library can return ones that are not listed here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    /// Done.
    Ok = 0,
    /// A pointer that must point to something is NULL.
    NullPointer = 1,
    /// A pointer is not aligned as its type wants.
    Misaligned = 2,
    /// An argument has a value that it cannot have; the message names it.
    InvalidArgument = 3,
    /// A text is not UTF-8.
    InvalidUtf8 = 4,
    /// A buffer is too small; the message says what it must hold.
    BufferTooSmall = 5,
    /// The decider is in a call on another thread. A thread wants a decider of its own.
    Busy = 6,
    /// The library failed an assertion of its own. The process goes on; free the handle that was in the call, and report it.
    Panic = 7,

    /// The state has another width than the model.
    StateWidth = 20,
    /// The mask has another length than the model has actions.
    MaskWidth = 21,
    /// The mask allows no action.
    EmptyMask = 22,
    /// A value of the state is infinite or not a number.
    NonFiniteState = 23,
    /// A value of the state lies outside 0 to 1.
    StateOutOfRange = 24,
    /// The lengths of a batch do not fit each other.
    BatchShape = 25,
    /// The model's own values overflow on this state: do not use the model.
    Overflow = 26,
    /// The decider's memory is too small for the model, which does not happen.
    Scratch = 27,
    /// ONNX Runtime failed on this state, where it decides.
    OnnxRuntime = 28,

    /// A file of the release cannot be read.
    ReleaseIo = 40,
    /// `model.json` breaks a rule of its format.
    ReleaseManifest = 41,
    /// `model.onnx` is another file than the manifest speaks of.
    ReleaseHash = 42,
    /// The network breaks a rule of its format, or was made for another contract.
    ReleaseModel = 43,
    /// The manifest and the network are of different models, or of another feature specification.
    ReleaseBinding = 44,
    /// The golden vectors do not come out.
    ReleaseGolden = 45,
    /// This processor lacks the instruction set that was asked for.
    IsaUnavailable = 46,
    /// The release is refused for a reason that has no number of its own.
    ReleaseOther = 47,
    /// ONNX Runtime was asked for and is not there: the library was built without it, or its file cannot be loaded.
    EngineUnavailable = 48,
    /// The trusted keys cannot be read, or there is none among them.
    TrustedKeys = 49,
    /// The release is not signed, and only signed ones are taken.
    SignatureMissing = 50,
    /// `signature.json` is no signature.
    SignatureMalformed = 51,
    /// The release is signed with a key that is not trusted.
    SignatureUntrusted = 52,
    /// The signature is not one of this release.
    SignatureInvalid = 53,

    /// The model reads other states or chooses among other actions than what is served.
    Contract = 60,
    /// A hidden layer is wider than the option `hidden_width`.
    TooWide = 61,
    /// No network has a hidden layer of the width in the option `hidden_width`.
    Limits = 62,
    /// The champion is pinned.
    Pinned = 63,
    /// There is no model to return to.
    NoPrevious = 64,
    /// No canary is served.
    NoCanary = 65,
    /// A share is not above 0 and at most 1.
    Share = 66,
    /// Too many replaced models are still in use; let decisions and batches end, then try again.
    Crowded = 67,
    /// The model that decides was not calibrated for the false-positive rate that the decider is to serve.
    Target = 68,
    /// Another model became the champion meanwhile.
    Changed = 69,
}

/// A policy: what is served, and the right to change it. Any number of threads may use one at the same time.
pub struct PolicyHandle {
    pub(super) policy: Policy,
    /// How releases are read that come later.
    pub(super) loading: Loading,
    /// Names of the actions, as C reads them.
    pub(super) actions: Vec<CString>,
}

/// A decider: memory and counters of one thread at a time. It may go from thread to thread, and keeps its policy alive.
pub struct DeciderHandle {
    /// Whether a call is under way, which alone may look into the rest.
    pub(super) busy: AtomicBool,
    pub(super) contents: UnsafeCell<Contents>,
}

/// How a policy decides. Set `size` to `sizeof(bellwether_options)` and the rest to 0 for the defaults.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Options {
    /// Bytes of this struct. What a longer one of a later header adds must be 0 for this library to take it.
    pub size: usize,
    /// `BELLWETHER_ISA_...`; by default the fastest. It changes no result of exact decisions.
    pub isa: u32,
    /// `BELLWETHER_PRECISION_...`; by default certified.
    pub precision: u32,
    /// Largest width of a hidden layer that deciders have memory for; 0 stands for 1024.
    pub hidden_width: u32,
    /// Each decider times one decision of so many; 0 stands for 16.
    pub time_every: u32,
    /// A file of public keys, or a folder of them: releases that none of them signed are refused, here and by every later call on
    /// the policy. They are read once. NULL takes any release. Older libraries do not know it and refuse it.
    pub trusted_keys: *const c_char,
    /// `BELLWETHER_ENGINE_...`; by default native. What ONNX Runtime decides allocates and takes a lock.
    pub engine: u32,
    /// Sessions that ONNX Runtime has for each model, so many threads decide at a time; 0 stands for one for each processor.
    pub onnx_runtime_sessions: u32,
    /// The shared library of ONNX Runtime; NULL for the one that the variable `ORT_DYLIB_PATH` names. A process loads one, once.
    pub onnx_runtime_library: *const c_char,
}

/// A decision. This struct never changes; later versions of the library that say more say it elsewhere.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C)]
pub struct Decision {
    /// `BELLWETHER_CODE_OK`, or in a batch why there is no decision for this row.
    pub code: Code,
    /// Number of the action: the allowed one with the largest q-value, the lowest number on a tie.
    pub action: u32,
    /// Lead over the next best allowed action, at least 0; infinite where nothing else is allowed.
    pub margin: f32,
    /// How far each q-value can be from the one that the f32 kernel gives: 0 where that kernel decided.
    pub bound: f32,
    /// Version of the model that decided: 8 bytes, as hexadecimal digits the text in `bellwether_status`.
    pub model_version: [u8; 8],
    /// 1 where 16-bit integers decided, under a certificate that the f32 kernel chooses the same action; else 0.
    pub certified: u8,
    /// `BELLWETHER_ROLE_...`
    pub role: u8,
    /// 0.
    pub reserved: [u8; 6],
}

/// What a policy serves. Set `size` to `sizeof(bellwether_status)` before the call.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Status {
    /// In: bytes of the caller's struct. Out: how many of them were filled.
    pub size: usize,
    /// Values of a state.
    pub width: usize,
    /// Number of actions.
    pub actions: usize,
    /// Version of what decides by default.
    pub champion: [c_char; BELLWETHER_VERSION_TEXT],
    /// Version of what a rollback returns to; empty where there is none.
    pub previous: [c_char; BELLWETHER_VERSION_TEXT],
    /// Version of what is on trial; empty where there is none.
    pub canary: [c_char; BELLWETHER_VERSION_TEXT],
    /// Share of the episodes that the canary decides.
    pub canary_share: f64,
    /// 1 where the champion stays until it is unpinned, else 0.
    pub pinned: u32,
    /// Deciders that exist.
    pub deciders: u32,
    /// How often another model became the champion, rollbacks left out.
    pub swaps: u64,
    /// How often the previous model came back.
    pub rollbacks: u64,
    /// Models in memory: those above, and replaced ones that a decision still reads.
    pub models_resident: u64,
}

/// What all deciders of a policy have counted, those that are gone too. Set `size` to `sizeof(bellwether_metrics)` before the
/// call. Decisions go on meanwhile, so one that is under way may be in one count and not yet in another.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Metrics {
    /// In: bytes of the caller's struct. Out: how many of them were filled.
    pub size: usize,
    /// Decisions by all models.
    pub decisions: u64,
    /// How many of them had a certificate.
    pub certified: u64,
    /// States that were refused, by reason: the one of code `c` at position `c - BELLWETHER_CODE_STATE_WIDTH`.
    pub refusals: [u64; BELLWETHER_REFUSALS],
    /// How long those decisions took that were timed.
    pub latency: [u64; BELLWETHER_LATENCY_BUCKETS],
    /// Sum of their times, in nanoseconds.
    pub latency_total_ns: u64,
}

impl Default for Options {
    /// What zeros stand for.
    fn default() -> Self {
        let nothing = std::ptr::null();
        Options {
            size: size_of::<Options>(),
            isa: BELLWETHER_ISA_BEST,
            precision: BELLWETHER_PRECISION_CERTIFIED,
            hidden_width: 0,
            time_every: 0,
            trusted_keys: nothing,
            engine: BELLWETHER_ENGINE_NATIVE,
            onnx_runtime_sessions: 0,
            onnx_runtime_library: nothing,
        }
    }
}

impl Code {
    /// All of them.
    pub(super) const ALL: [Code; 41] = [
        Code::Ok,
        Code::NullPointer,
        Code::Misaligned,
        Code::InvalidArgument,
        Code::InvalidUtf8,
        Code::BufferTooSmall,
        Code::Busy,
        Code::Panic,
        Code::StateWidth,
        Code::MaskWidth,
        Code::EmptyMask,
        Code::NonFiniteState,
        Code::StateOutOfRange,
        Code::BatchShape,
        Code::Overflow,
        Code::Scratch,
        Code::OnnxRuntime,
        Code::ReleaseIo,
        Code::ReleaseManifest,
        Code::ReleaseHash,
        Code::ReleaseModel,
        Code::ReleaseBinding,
        Code::ReleaseGolden,
        Code::IsaUnavailable,
        Code::ReleaseOther,
        Code::EngineUnavailable,
        Code::TrustedKeys,
        Code::SignatureMissing,
        Code::SignatureMalformed,
        Code::SignatureUntrusted,
        Code::SignatureInvalid,
        Code::Contract,
        Code::TooWide,
        Code::Limits,
        Code::Pinned,
        Code::NoPrevious,
        Code::NoCanary,
        Code::Share,
        Code::Crowded,
        Code::Target,
        Code::Changed,
    ];

    /// Its name, as a log wants it.
    pub(super) const fn name(self) -> &'static std::ffi::CStr {
        match self {
            Code::Ok => c"ok",
            Code::NullPointer => c"null_pointer",
            Code::Misaligned => c"misaligned",
            Code::InvalidArgument => c"invalid_argument",
            Code::InvalidUtf8 => c"invalid_utf8",
            Code::BufferTooSmall => c"buffer_too_small",
            Code::Busy => c"busy",
            Code::Panic => c"panic",
            Code::StateWidth => c"state_width",
            Code::MaskWidth => c"mask_width",
            Code::EmptyMask => c"empty_mask",
            Code::NonFiniteState => c"non_finite_state",
            Code::StateOutOfRange => c"state_out_of_range",
            Code::BatchShape => c"batch_shape",
            Code::Overflow => c"overflow",
            Code::Scratch => c"scratch",
            Code::OnnxRuntime => c"onnx_runtime",
            Code::ReleaseIo => c"release_io",
            Code::ReleaseManifest => c"release_manifest",
            Code::ReleaseHash => c"release_hash",
            Code::ReleaseModel => c"release_model",
            Code::ReleaseBinding => c"release_binding",
            Code::ReleaseGolden => c"release_golden",
            Code::IsaUnavailable => c"isa_unavailable",
            Code::ReleaseOther => c"release_other",
            Code::EngineUnavailable => c"engine_unavailable",
            Code::TrustedKeys => c"trusted_keys",
            Code::SignatureMissing => c"signature_missing",
            Code::SignatureMalformed => c"signature_malformed",
            Code::SignatureUntrusted => c"signature_untrusted",
            Code::SignatureInvalid => c"signature_invalid",
            Code::Contract => c"contract",
            Code::TooWide => c"too_wide",
            Code::Limits => c"limits",
            Code::Pinned => c"pinned",
            Code::NoPrevious => c"no_previous",
            Code::NoCanary => c"no_canary",
            Code::Share => c"share",
            Code::Crowded => c"crowded",
            Code::Target => c"target",
            Code::Changed => c"changed",
        }
    }
}

impl From<Refusal> for Code {
    fn from(refusal: Refusal) -> Code {
        match refusal {
            Refusal::StateWidth => Code::StateWidth,
            Refusal::MaskWidth => Code::MaskWidth,
            Refusal::EmptyMask => Code::EmptyMask,
            Refusal::NonFiniteState => Code::NonFiniteState,
            Refusal::StateOutOfRange => Code::StateOutOfRange,
            Refusal::BatchShape => Code::BatchShape,
            Refusal::Overflow => Code::Overflow,
            Refusal::Scratch => Code::Scratch,
            Refusal::OnnxRuntime => Code::OnnxRuntime,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_names_and_layouts_stay_as_they_are() {
        let listed: Vec<String> =
            Code::ALL.iter().map(|code| format!("{}={}", *code as i32, code.name().to_str().unwrap())).collect();
        assert_eq!(
            listed.join(" "),
            "0=ok 1=null_pointer 2=misaligned 3=invalid_argument 4=invalid_utf8 5=buffer_too_small 6=busy 7=panic \
             20=state_width 21=mask_width 22=empty_mask 23=non_finite_state 24=state_out_of_range 25=batch_shape \
             26=overflow 27=scratch 28=onnx_runtime 40=release_io 41=release_manifest 42=release_hash 43=release_model \
             44=release_binding 45=release_golden 46=isa_unavailable 47=release_other 48=engine_unavailable 49=trusted_keys \
             50=signature_missing 51=signature_malformed 52=signature_untrusted 53=signature_invalid 60=contract \
             61=too_wide 62=limits 63=pinned 64=no_previous 65=no_canary 66=share 67=crowded 68=target 69=changed"
        );
        // On a 64-bit machine. A struct that grew is a new size here and nothing else that moved.
        assert_eq!((size_of::<Options>(), size_of::<Decision>()), (48, 32));
        assert_eq!((size_of::<Status>(), size_of::<Metrics>()), (136, 328));
        assert_eq!(size_of::<Decision>(), 4 * 4 + 8 + 2 + 6, "no hidden gaps");
    }

    #[test]
    fn every_refusal_has_a_place_in_the_metrics() {
        for refusal in Refusal::ALL {
            let code = Code::from(refusal);
            assert_eq!(code.name().to_str().unwrap(), refusal.name());
            let place = code as i32 - Code::StateWidth as i32;
            assert!((0..BELLWETHER_REFUSALS as i32).contains(&place), "{code:?}");
        }
    }
}
