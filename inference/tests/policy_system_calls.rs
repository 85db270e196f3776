//! A decision makes no system call: the kernel kills whoever makes one, and nobody dies.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a failed set-up is a failed test")]

mod manifests;
mod nets;

use bellwether_inference::policy::{Decider, Limits, Options, Sampling};
use bellwether_inference::{Policy, Precision};
use manifests::release;
use nets::{Draw, state_for};

/// What a child ended with.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(i32),
}

/// Runs `body` in a child to which the kernel permits reading, writing and ending, and kills for anything else. `body` must not
/// allocate: the child is a copy of one thread of several.
fn alone(body: impl FnOnce() -> bool) -> End {
    // SAFETY: the child makes system calls and runs `body`, which takes no lock and allocates nothing, and never returns.
    unsafe {
        let child = libc::fork();
        assert!(child >= 0);
        if child == 0 {
            if libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) != 0 {
                libc::_exit(77);
            }
            let code = if body() { 0 } else { 1 };
            // The library's way to end is a call that strict mode does not know.
            libc::syscall(libc::SYS_exit, code);
            libc::_exit(code);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        if libc::WIFEXITED(status) { End::Code(libc::WEXITSTATUS(status)) } else { End::Signal(libc::WTERMSIG(status)) }
    }
}

fn decides(decider: &mut Decider, states: &[Vec<f32>]) -> bool {
    states.iter().enumerate().all(|(episode, state)| {
        decider.decide(state, &[true; 5]).is_ok()
            && decider.decide_in(episode as u64, state, &[true, false, true, true, true]).is_ok()
            && decider.decide(state, &[false; 5]).is_err()
    })
}

#[test]
fn a_decision_makes_no_system_call() {
    match alone(|| true) {
        End::Code(0) => {}
        found => return eprintln!("skipped a_decision_makes_no_system_call: no strict seccomp here ({found:?})"),
    }
    let caught = alone(|| {
        std::thread::yield_now();
        true
    });
    assert_eq!(caught, End::Signal(libc::SIGKILL), "who makes a call is killed");
    for precision in [Precision::Exact, Precision::Certified] {
        // No decision is timed: where the clock needs the kernel, timing one is a call.
        let sampling = Sampling { every: 1, capacity: 64 };
        let options = Options { precision, limits: Limits { hidden_width: 128 }, time_every: 0, sampling };
        let mlp = Draw(1).mlp(&[24, 128, 64, 5]);
        let policy = Policy::new(release(&mlp), None, options).unwrap();
        policy.try_out(release(&Draw(2).mlp(&[24, 100, 5])), None, 0.5).unwrap();
        policy.listen(true);
        let states: Vec<Vec<f32>> = (0..200).map(|seed| state_for(&mlp, seed)).collect();
        let mut decider = policy.decider();
        assert_eq!(alone(|| decides(&mut decider, &states)), End::Code(0), "{precision:?}");
    }
}
