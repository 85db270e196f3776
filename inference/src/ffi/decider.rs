//! Calls on a decider.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::slice;
use std::sync::atomic::{AtomicBool, Ordering};

use bellwether_artifact::OperatingPoint;
use bellwether_env_adapter::spec::{element, encode_cost};

use super::abi::{BELLWETHER_ROLE_CANARY, BELLWETHER_ROLE_CHAMPION, Code, DeciderHandle, Decision, PolicyHandle};
use super::edge::{Fault, elements, guarded, place, reference, room};
use crate::policy::{Answer, Decider, Policy, Refusal, Role};

/// What a decider has beside its flag.
#[derive(Debug)]
pub(super) struct Contents {
    decider: Decider,
    actions: usize,
    target: Target,
    /// Masks that allow everything, for who gives none: of one state at first, later of the largest batch so far.
    everything: Vec<bool>,
}

/// A false-positive rate to serve, and a state to write its cost into.
#[derive(Debug)]
struct Target {
    /// 0 for none: the state's own cost counts.
    fpr: f64,
    state: Vec<f32>,
    /// A cost and the element that stands for it, since a logarithm takes long and costs seldom change.
    encoded: (f32, f32),
}

/// The right to look into a decider, until it is dropped.
struct Turn<'a>(&'a DeciderHandle);

impl DeciderHandle {
    fn turn(&self) -> Result<Turn<'_>, Fault> {
        if self.busy.swap(true, Ordering::Acquire) {
            let message = "the decider is in a call on another thread: create one for each thread";
            return Err(Fault::new(Code::Busy, message));
        }
        Ok(Turn(self))
    }
}

impl Turn<'_> {
    fn contents(&mut self) -> &mut Contents {
        // SAFETY: the flag was down and is up until this is dropped, and nobody looks in without it.
        unsafe { &mut *self.0.contents.get() }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.busy.store(false, Ordering::Release);
    }
}

// Handles are pointers to C, which the compiler does not follow from thread to thread.
const _: () = {
    const fn from_thread_to_thread<T: Send>() {}
    const fn by_many_threads<T: Sync>() {}
    from_thread_to_thread::<Contents>();
    from_thread_to_thread::<PolicyHandle>();
    by_many_threads::<PolicyHandle>();
};

/// See [`ApiV1::decider_create`](super::ApiV1::decider_create).
pub(super) unsafe extern "C" fn create(policy: *const PolicyHandle, created: *mut *mut DeciderHandle) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises what the header says of each pointer.
        let (handle, created) = unsafe { (reference(policy, "policy")?, place(created, "created")?) };
        let decider = Box::new(DeciderHandle::new(&handle.policy));
        created.write(Box::into_raw(decider));
        Ok(())
    })
}

impl DeciderHandle {
    fn new(policy: &Policy) -> Self {
        let actions = policy.actions().len();
        let contents = Contents {
            decider: policy.decider(),
            actions,
            target: Target { fpr: 0.0, state: vec![0.0; policy.width()], encoded: (0.0, encode_cost(0.0)) },
            everything: vec![true; actions],
        };
        DeciderHandle { busy: AtomicBool::new(false), contents: UnsafeCell::new(contents) }
    }
}

impl Target {
    /// Writes the cost of the rate that is to be served by a model into the state, where there is such a rate; says
    /// which state is then to be decided.
    fn written<'s>(&'s mut self, points: &[OperatingPoint], state: &'s [f32]) -> Result<&'s [f32], Fault> {
        // Of another width it is refused as it is.
        if self.fpr == 0.0 || state.len() != self.state.len() {
            return Ok(state);
        }
        let point = points.iter().find(|point| point.target_fpr == self.fpr);
        let cost = point.ok_or_else(|| Fault::new(Code::Target, Uncalibrated(self.fpr, points)))?.cost;
        if cost != self.encoded.0 {
            self.encoded = (cost, encode_cost(cost));
        }
        self.state.copy_from_slice(state);
        self.state[element::COST] = self.encoded.1;
        Ok(&self.state)
    }
}

/// That a model does not know a rate, and which ones it knows.
struct Uncalibrated<'a>(f64, &'a [OperatingPoint]);

impl fmt::Display for Uncalibrated<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the model was not calibrated for a false-positive rate of {}; it knows", self.0)?;
        self.1.iter().try_for_each(|point| write!(out, " {}", point.target_fpr))?;
        if self.1.is_empty() { out.write_str(" none") } else { Ok(()) }
    }
}

/// See [`ApiV1::decider_set_target_fpr`](super::ApiV1::decider_set_target_fpr).
pub(super) unsafe extern "C" fn set_target_fpr(decider: *mut DeciderHandle, target_fpr: f64) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open; the turn sees to it that it is used once at a time.
        let mut turn = unsafe { reference(decider, "decider") }?.turn()?;
        if !(0.0..1.0).contains(&target_fpr) {
            let message =
                format_args!("a false-positive rate of {target_fpr} is not above 0 and below 1, nor 0 for none");
            return Err(Fault::new(Code::InvalidArgument, message));
        }
        turn.contents().target.fpr = target_fpr;
        Ok(())
    })
}

/// See [`ApiV1::decider_free`](super::ApiV1::decider_free).
pub(super) unsafe extern "C" fn free(decider: *mut DeciderHandle) -> Code {
    guarded(|| {
        if !decider.is_null() {
            // SAFETY: the caller of C promises that the handle came from `create` and is used no more.
            let handle = unsafe { reference(decider, "decider") }?;
            // Never given back: the handle is gone.
            std::mem::forget(handle.turn()?);
            // SAFETY: as above; no reference is used from here on.
            drop(unsafe { Box::from_raw(decider) });
        }
        Ok(())
    })
}

/// See [`ApiV1::decide`](super::ApiV1::decide).
pub(super) unsafe extern "C" fn decide(
    decider: *mut DeciderHandle,
    state: *const f32,
    state_length: usize,
    mask: *const u8,
    mask_length: usize,
    episode: *const u64,
    decision: *mut Decision,
    q_values: *mut f32,
    q_values_length: usize,
) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open; the turn sees to it that it is used once at a time.
        let mut turn = unsafe { reference(decider, "decider") }?.turn()?;
        let Contents { decider, actions, target, everything } = turn.contents();
        // SAFETY: the caller of C promises what the header says of each pointer.
        let (state, decision) = unsafe { (elements(state, state_length, "state")?, place(decision, "decision")?) };
        // SAFETY: as above.
        let q_values = unsafe { q_values_room(q_values, q_values_length, *actions) }?;
        let mask = match mask.is_null() {
            true => &everything[..*actions],
            // SAFETY: as above.
            false => unsafe { allowed(mask, mask_length) }?,
        };
        let episode = match episode.is_null() {
            true => None,
            // SAFETY: as above.
            false => Some(*unsafe { reference(episode, "episode") }?),
        };
        decider.hold(episode, |held| {
            let state = target.written(held.operating_points(), state)?;
            let answer = held.decide(state, mask)?;
            decision.write(said(&answer));
            copy(q_values, answer.decision.q_values);
            Ok(())
        })
    })
}

/// See [`ApiV1::decide_batch`](super::ApiV1::decide_batch).
pub(super) unsafe extern "C" fn decide_batch(
    decider: *mut DeciderHandle,
    states: *const f32,
    states_length: usize,
    masks: *const u8,
    masks_length: usize,
    decisions: *mut Decision,
    rows: usize,
    q_values: *mut f32,
    q_values_length: usize,
) -> Code {
    guarded(|| {
        // SAFETY: the caller of C promises that the handle is open; the turn sees to it that it is used once at a time.
        let mut turn = unsafe { reference(decider, "decider") }?.turn()?;
        let Contents { decider, actions, target, everything } = turn.contents();
        // SAFETY: the caller of C promises what the header says of each pointer.
        let (states, decisions) =
            unsafe { (elements(states, states_length, "states")?, room(decisions, rows, "decisions")?) };
        let width = target.state.len();
        let fits = rows.checked_mul(width) == Some(states.len());
        // Bounded by the memory of the caller's states, so nothing of a size that was made up is allocated below.
        let entries = rows.checked_mul(*actions).filter(|_| fits).ok_or_else(|| {
            let message = format_args!("states has {states_length} values, {rows} decisions want {width} each");
            Fault::new(Code::BatchShape, message)
        })?;
        // SAFETY: as above.
        let q_values = unsafe { q_values_room(q_values, q_values_length, entries) }?;
        let masks = match masks.is_null() {
            true => {
                if everything.len() < entries {
                    everything.resize(entries, true);
                }
                &everything[..entries]
            }
            // SAFETY: as above.
            false => unsafe { allowed(masks, masks_length) }?,
        };
        if masks.len() != entries {
            let message = format_args!("masks has {masks_length} entries, {rows} decisions want {actions} each");
            return Err(Fault::new(Code::BatchShape, message));
        }
        let mut q_values = q_values.chunks_exact_mut(*actions);
        let questions = states.chunks_exact(width).zip(masks.chunks_exact(*actions));
        decider.hold(None, |held| {
            // Known to be there before anything is written, or never.
            target.written(held.operating_points(), &states[..width.min(states.len())])?;
            let mut first_refusal = None;
            for (row, ((state, mask), place)) in questions.zip(decisions).enumerate() {
                let q_values = q_values.next().unwrap_or_default();
                let state = target.written(held.operating_points(), state)?;
                match held.decide(state, mask) {
                    Ok(answer) => {
                        place.write(said(&answer));
                        copy(q_values, answer.decision.q_values);
                    }
                    Err(error) => {
                        let code = Code::from(Refusal::from(&error));
                        first_refusal.get_or_insert_with(|| Fault::new(code, format_args!("row {row}: {error}")));
                        place.write(refused(code));
                        q_values.fill(MaybeUninit::new(f32::NAN));
                    }
                }
            }
            first_refusal.map_or(Ok(()), Err)
        })
    })
}

/// The mask of bytes 0 and 1.
///
/// # Safety
/// As [`elements`].
unsafe fn allowed<'a>(mask: *const u8, length: usize) -> Result<&'a [bool], Fault> {
    // SAFETY: the caller's promise.
    let bytes = unsafe { elements(mask, length, "mask") }?;
    if let Some(index) = bytes.iter().position(|byte| *byte > 1) {
        let message = format_args!("entry {index} of the mask is {}; give 0 or 1", bytes[index]);
        return Err(Fault::new(Code::InvalidArgument, message));
    }
    // SAFETY: a bool is one byte that is 0 or 1, and these are.
    Ok(unsafe { slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len()) })
}

/// The room for q-values, empty where none are wanted.
///
/// # Safety
/// As [`room`].
unsafe fn q_values_room<'a>(
    q_values: *mut f32,
    length: usize,
    wanted: usize,
) -> Result<&'a mut [MaybeUninit<f32>], Fault> {
    if q_values.is_null() {
        return Ok(&mut []);
    }
    if length < wanted {
        let message = format_args!("q_values has room for {length} values, {wanted} are to be written");
        return Err(Fault::new(Code::BufferTooSmall, message));
    }
    // SAFETY: the caller's promise.
    unsafe { room(q_values, wanted, "q_values") }
}

fn said(answer: &Answer<'_>) -> Decision {
    let decision = &answer.decision;
    Decision {
        code: Code::Ok,
        // The model format bounds the number of actions.
        action: decision.action as u32,
        margin: decision.margin.unwrap_or(f32::INFINITY),
        bound: decision.bound,
        model_version: *answer.model.version.as_bytes(),
        certified: decision.certified.into(),
        role: match answer.role {
            Role::Champion => BELLWETHER_ROLE_CHAMPION,
            Role::Canary => BELLWETHER_ROLE_CANARY,
        },
        reserved: [0; 6],
    }
}

/// What stands in a batch for a row that was not decided.
fn refused(code: Code) -> Decision {
    Decision {
        code,
        action: u32::MAX,
        margin: 0.0,
        bound: 0.0,
        model_version: [0; 8],
        certified: 0,
        role: BELLWETHER_ROLE_CHAMPION,
        reserved: [0; 6],
    }
}

fn copy(room: &mut [MaybeUninit<f32>], values: &[f32]) {
    for (place, value) in room.iter_mut().zip(values) {
        place.write(*value);
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr;

    use super::super::policy::{close, open};
    use super::*;

    #[test]
    fn a_call_while_another_is_under_way_is_refused() {
        let folder = CString::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/quickstart")).unwrap();
        let (mut policy, mut made) = (ptr::null_mut(), ptr::null_mut());
        let state = [0.0_f32; 512];
        let mut decision = refused(Code::Panic);
        // SAFETY: all pointers are of living things, of the lengths that are given, until they are freed.
        unsafe {
            assert_eq!(open(folder.as_ptr(), ptr::null(), &raw mut policy), Code::Ok);
            assert_eq!(create(policy, &raw mut made), Code::Ok);
            let mut decide = || {
                let (place, none) = (&raw mut decision, ptr::null_mut());
                decide(made, state.as_ptr(), 512, ptr::null(), 0, ptr::null(), place, none, 0)
            };
            let turn = (*made).turn().unwrap();
            assert_eq!(decide(), Code::Busy);
            assert_eq!(free(made), Code::Busy);
            drop(turn);
            assert_eq!(decide(), Code::Ok);
            assert_eq!(guarded(|| (*made).turn().map(|_turn| panic!("within a call"))), Code::Panic);
            assert_eq!(decide(), Code::Ok, "a panic gives the turn back");
            assert_eq!((free(made), close(policy)), (Code::Ok, Code::Ok));
        }
    }
}
