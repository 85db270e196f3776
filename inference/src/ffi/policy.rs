//! Calls on a policy.

use std::ffi::{CString, c_char};
use std::io::Write;

use super::abi::{
    BELLWETHER_LATENCY_BUCKETS, BELLWETHER_PRECISION_CERTIFIED, BELLWETHER_PRECISION_EXACT, BELLWETHER_REFUSALS,
    BELLWETHER_TIME_NEVER, BELLWETHER_VERSION_TEXT, Code, Metrics, Options, PolicyHandle, Status,
};
use super::edge::{Fault, fill, guarded, place, reference, room, sized, text};
use super::loading::{Loading, unlisted};
use crate::engine::Precision;
use crate::policy::{self, Limits, ModelId, Policy, PolicyError};

/// See [`ApiV1::policy_open`](super::ApiV1::policy_open).
pub(super) unsafe extern "C" fn open(
    folder: *const c_char,
    options: *const Options,
    opened: *mut *mut PolicyHandle,
) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises what the header says of each pointer.
        let (folder, opened) = unsafe { (text(folder, "folder")?, place(opened, "opened")?) };
        let options = match options.is_null() {
            true => None,
            // SAFETY: as above; every field of the options is a number or a pointer, which is not looked at here.
            false => Some(unsafe { sized(options, "options") }?),
        };
        let (loading, options) = match options {
            None => (Loading::default(), policy::Options::default()),
            // SAFETY: as above, of the texts in the options.
            Some(options) => (unsafe { Loading::of(&options) }?, chosen(&options)?),
        };
        let policy = Policy::new(loading.load(folder)?, None, options)?;
        let names = policy.actions().iter().map(|name| CString::new(name.as_str()));
        let actions = names.collect::<Result<_, _>>().map_err(|_| {
            Fault::new(Code::ReleaseManifest, "the name of an action holds a NUL: the model is of no use here")
        })?;
        opened.write(Box::into_raw(Box::new(PolicyHandle { policy, loading, actions })));
        Ok(())
    })
}

/// See [`ApiV1::policy_close`](super::ApiV1::policy_close).
pub(super) unsafe extern "C" fn close(policy: *mut PolicyHandle) -> Code {
    guarded(|| {
        if !policy.is_null() {
            // SAFETY: the caller of C promises that the handle came from `open` and is used no more.
            unsafe { reference(policy, "policy") }?;
            // SAFETY: as above. Of the caller's own pointer: one that came through a reference may not be written through.
            drop(unsafe { Box::from_raw(policy) });
        }
        Ok(())
    })
}

/// Changes something, for a caller who does not want to know what was there before.
unsafe fn change<T>(policy: *const PolicyHandle, make: impl FnOnce(&Policy) -> Result<T, PolicyError>) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open; a policy takes calls from any thread.
        let handle = unsafe { reference(policy, "policy") }?;
        make(&handle.policy)?;
        Ok(())
    })
}

/// See [`ApiV1::policy_swap`](super::ApiV1::policy_swap).
pub(super) unsafe extern "C" fn swap(policy: *const PolicyHandle, folder: *const c_char) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises what the header says of each pointer.
        let (handle, folder) = unsafe { (reference(policy, "policy")?, text(folder, "folder")?) };
        handle.policy.swap(handle.loading.load(folder)?, None)?;
        Ok(())
    })
}

/// See [`ApiV1::policy_try_out`](super::ApiV1::policy_try_out).
pub(super) unsafe extern "C" fn try_out(policy: *const PolicyHandle, folder: *const c_char, share: f64) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises what the header says of each pointer.
        let (handle, folder) = unsafe { (reference(policy, "policy")?, text(folder, "folder")?) };
        Policy::check_share(share)?;
        handle.policy.try_out(handle.loading.load(folder)?, None, share)?;
        Ok(())
    })
}

/// See [`ApiV1::policy_roll_back`](super::ApiV1::policy_roll_back).
pub(super) unsafe extern "C" fn roll_back(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe { change(policy, Policy::roll_back) }
}

/// See [`ApiV1::policy_pin`](super::ApiV1::policy_pin).
pub(super) unsafe extern "C" fn pin(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe {
        change(policy, |policy| {
            policy.pin();
            Ok(())
        })
    }
}

/// See [`ApiV1::policy_unpin`](super::ApiV1::policy_unpin).
pub(super) unsafe extern "C" fn unpin(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe {
        change(policy, |policy| {
            policy.unpin();
            Ok(())
        })
    }
}

/// See [`ApiV1::policy_set_share`](super::ApiV1::policy_set_share).
pub(super) unsafe extern "C" fn set_share(policy: *const PolicyHandle, share: f64) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe { change(policy, |policy| policy.set_share(share)) }
}

/// See [`ApiV1::policy_promote`](super::ApiV1::policy_promote).
pub(super) unsafe extern "C" fn promote(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe { change(policy, Policy::promote) }
}

/// See [`ApiV1::policy_withdraw`](super::ApiV1::policy_withdraw).
pub(super) unsafe extern "C" fn withdraw(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe { change(policy, Policy::withdraw) }
}

/// See [`ApiV1::policy_reap`](super::ApiV1::policy_reap).
pub(super) unsafe extern "C" fn reap(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe { change(policy, |policy| Ok(policy.reap())) }
}

/// See [`ApiV1::policy_warm_thread`](super::ApiV1::policy_warm_thread).
pub(super) unsafe extern "C" fn warm_thread(policy: *const PolicyHandle) -> Code {
    // SAFETY: the caller of C promises that the handle is open.
    unsafe {
        change(policy, |policy| {
            policy.warm_thread();
            Ok(())
        })
    }
}

/// See [`ApiV1::policy_status`](super::ApiV1::policy_status).
pub(super) unsafe extern "C" fn status(policy: *const PolicyHandle, status: *mut Status) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open.
        let handle = unsafe { reference(policy, "policy") }?;
        let now = handle.policy.status();
        let version = |model: Option<ModelId>| model.map_or([0; BELLWETHER_VERSION_TEXT], version_text);
        let filled = Status {
            size: size_of::<Status>(),
            width: handle.policy.width(),
            actions: handle.actions.len(),
            champion: version(Some(now.champion)),
            previous: version(now.previous),
            canary: version(now.canary.map(|(model, _)| model)),
            canary_share: now.canary.map_or(0.0, |(_, share)| share),
            pinned: now.pinned.into(),
            deciders: u32::try_from(now.deciders).unwrap_or(u32::MAX),
            swaps: now.swaps,
            rollbacks: now.rollbacks,
            models_resident: now.models_resident as u64,
        };
        // SAFETY: the caller of C promises a struct of the size that it states; the struct begins with it.
        unsafe { fill(status, "status", &filled) }
    })
}

/// See [`ApiV1::policy_metrics`](super::ApiV1::policy_metrics).
pub(super) unsafe extern "C" fn metrics(policy: *const PolicyHandle, metrics: *mut Metrics) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open.
        let handle = unsafe { reference(policy, "policy") }?;
        let now = handle.policy.metrics();
        let tallies = || now.models.iter().map(|(_, tally)| tally).chain([&now.earlier]);
        let mut refusals = [0; BELLWETHER_REFUSALS];
        for (refusal, count) in &now.refusals {
            refusals[(Code::from(*refusal) as i32 - Code::StateWidth as i32) as usize] += count;
        }
        let filled = Metrics {
            size: size_of::<Metrics>(),
            decisions: tallies().map(policy::Tally::total).sum(),
            certified: tallies().map(|tally| tally.certified).sum(),
            refusals,
            latency: now.latency.counts,
            latency_total_ns: u64::try_from(now.latency.total.as_nanos()).unwrap_or(u64::MAX),
        };
        // SAFETY: the caller of C promises a struct of the size that it states; the struct begins with it.
        unsafe { fill(metrics, "metrics", &filled) }
    })
}

const _: () = assert!(BELLWETHER_LATENCY_BUCKETS == policy::Latency::BOUNDS + 1);

/// See [`ApiV1::policy_action_counts`](super::ApiV1::policy_action_counts).
pub(super) unsafe extern "C" fn action_counts(policy: *const PolicyHandle, counts: *mut u64, length: usize) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open, and a buffer of this length.
        let (handle, counts) = unsafe { (reference(policy, "policy")?, room(counts, length, "counts")?) };
        let actions = handle.actions.len();
        if counts.len() < actions {
            let message = format_args!("counts has room for {length} actions, the policy has {actions}");
            return Err(Fault::new(Code::BufferTooSmall, message));
        }
        let now = handle.policy.metrics();
        for (action, count) in counts.iter_mut().enumerate() {
            let by = |tally: &policy::Tally| tally.decisions.get(action).copied().unwrap_or(0);
            count.write(now.models.iter().map(|(_, tally)| by(tally)).sum::<u64>() + by(&now.earlier));
        }
        Ok(())
    })
}

/// See [`ApiV1::policy_action_name`](super::ApiV1::policy_action_name).
pub(super) unsafe extern "C" fn action_name(policy: *const PolicyHandle, action: u32) -> *const c_char {
    let mut found = std::ptr::null();
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open.
        let handle = unsafe { reference(policy, "policy") }?;
        let name = handle.actions.get(action as usize).ok_or_else(|| {
            let message = format_args!("there is no action {action}; the policy has {}", handle.actions.len());
            Fault::new(Code::InvalidArgument, message)
        })?;
        found = name.as_ptr();
        Ok(())
    });
    found
}

fn chosen(options: &Options) -> Result<policy::Options, Fault> {
    let precision = match options.precision {
        BELLWETHER_PRECISION_CERTIFIED => Precision::Certified,
        BELLWETHER_PRECISION_EXACT => Precision::Exact,
        unknown => return Err(unlisted("precision", unknown)),
    };
    let mut chosen = policy::Options { precision, ..policy::Options::default() };
    if options.hidden_width != 0 {
        chosen.limits = Limits { hidden_width: options.hidden_width as usize };
    }
    match options.time_every {
        0 => {}
        BELLWETHER_TIME_NEVER => chosen.time_every = 0,
        every => chosen.time_every = every,
    }
    Ok(chosen)
}

fn version_text(model: ModelId) -> [c_char; BELLWETHER_VERSION_TEXT] {
    let mut bytes = [0_u8; BELLWETHER_VERSION_TEXT];
    // Sixteen digits fit, and leave the NUL.
    let _ = write!(&mut bytes[..], "{}", model.version);
    bytes.map(|byte| byte as c_char)
}
