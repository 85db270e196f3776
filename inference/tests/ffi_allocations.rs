//! A decision over the C ABI allocates nothing, whether it is made or refused: counted, not claimed.
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod border;
mod counting;
mod manifests;
mod nets;

use std::ffi::CString;
use std::ptr;

use bellwether_inference::ffi::{Code, Decision};
use border::{ACTIONS, Created, Opened, Shelf, WIDTH, api, blank, network};
use counting::calls_during;

const ROWS: usize = 3;

/// Decides in every way, and is refused in some; everything that is written to lives outside.
fn decide(decider: &Created, decisions: &mut [Decision; ROWS], q_values: &mut [f32; ROWS * ACTIONS]) {
    let (states, broken, masks) = ([0.25; ROWS * WIDTH], [f32::NAN; WIDTH], [1_u8; ROWS * ACTIONS]);
    let (api, none) = (api(), ptr::null());
    let mut check = |state: &[f32], mask: *const u8, entries: usize, expected: Code| {
        for episode in [ptr::null(), &raw const EPISODE] {
            let (place, values) = (&raw mut decisions[0], q_values.as_mut_ptr());
            let (state, width) = (state.as_ptr(), state.len());
            // SAFETY: all pointers are of living things, of the lengths that are given.
            let code = unsafe { (api.decide)(decider.0, state, width, mask, entries, episode, place, values, ACTIONS) };
            assert_eq!(code, expected);
        }
    };
    for _ in 0..20 {
        check(&states[..WIDTH], none, 0, Code::Ok);
        check(&states[..WIDTH], masks.as_ptr(), ACTIONS, Code::Ok);
        check(&broken, none, 0, Code::NonFiniteState);
        check(&states, none, 0, Code::StateWidth);
        check(&states[..WIDTH], masks.as_ptr(), 1, Code::MaskWidth);
        check(&[], none, 0, Code::StateWidth);
    }
    for (masks, entries) in [(masks.as_ptr(), masks.len()), (none, 0)] {
        let (places, values) = (decisions.as_mut_ptr(), q_values.as_mut_ptr());
        let (states, length) = (states.as_ptr(), states.len());
        // SAFETY: as above.
        let code = unsafe {
            let room = ROWS * ACTIONS;
            (api.decide_batch)(decider.0, states, length, masks, entries, places, ROWS, values, room)
        };
        assert_eq!(code, Code::Ok);
    }
}

static EPISODE: u64 = 7;

#[test]
fn neither_a_decision_nor_a_refusal_allocates() {
    let shelf = Shelf::new();
    let folders: Vec<CString> = (0..2).map(|seed| shelf.put(&seed.to_string(), &network(seed))).collect();
    let policy = Opened::new(&folders[0], None);
    let decider = policy.decider();
    let mut places = ([blank(); ROWS], [0.0; ROWS * ACTIONS]);
    // The first batch without masks makes room for as many rows.
    decide(&decider, &mut places.0, &mut places.1);
    let fresh = policy.decider();
    let single = calls_during(|| {
        let (place, state) = (&raw mut places.0[0], [0.5; WIDTH]);
        // SAFETY: as above.
        let code = unsafe {
            let nothing = ptr::null_mut();
            (api().decide)(fresh.0, state.as_ptr(), WIDTH, ptr::null(), 0, ptr::null(), place, nothing, 0)
        };
        assert_eq!(code, Code::Ok);
    });
    assert_eq!(single, 0, "the first decision of a decider");
    assert_eq!(calls_during(|| decide(&decider, &mut places.0, &mut places.1)), 0);
    // A rate that no model here was calibrated for: refused, and the list of those that it knows is told.
    let calls = calls_during(|| {
        // SAFETY: as above, and the decider is not freed yet.
        unsafe {
            let (place, none) = (&raw mut places.0[0], ptr::null_mut());
            assert_eq!((api().decider_set_target_fpr)(fresh.0, 0.05), Code::Ok);
            let state = [0.5; WIDTH];
            let code = (api().decide)(fresh.0, state.as_ptr(), WIDTH, ptr::null(), 0, ptr::null(), place, none, 0);
            assert_eq!(code, Code::Target);
        }
    });
    assert_eq!(calls, 0, "a rate");
    // SAFETY: the policy is open.
    assert_eq!(unsafe { (api().policy_swap)(policy.0, folders[1].as_ptr()) }, Code::Ok);
    assert_eq!(calls_during(|| decide(&decider, &mut places.0, &mut places.1)), 0, "after a swap");
}
