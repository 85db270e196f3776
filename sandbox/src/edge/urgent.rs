//! Work that must not wait for the tasks that it is about.

/// Does something before every ordinary task of its processor, where the host lets it: by `SCHED_FIFO`, which root has. Elsewhere
/// it is done all the same.
pub(crate) fn urgently<T>(work: impl FnOnce() -> T) -> T {
    let before = hurry();
    let result = work();
    if let Some((policy, parameters)) = before {
        // SAFETY: the kernel reads one `sched_param`, which lives through the call, for the calling thread.
        unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    }
    result
}

/// Gives the policy that the calling thread had, if it has another one now.
fn hurry() -> Option<(i32, libc::sched_param)> {
    let mut before = libc::sched_param { sched_priority: 0 };
    // SAFETY: the call takes a number only.
    let policy = unsafe { libc::sched_getscheduler(0) };
    // SAFETY: the kernel writes one `sched_param`, which lives through the call.
    if policy < 0 || unsafe { libc::sched_getparam(0, &raw mut before) } != 0 {
        return None;
    }
    let first = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `sched_param`, which lives through the call, for the calling thread.
    let set = unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const first) };
    (set == 0).then_some((policy, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> i32 {
        // SAFETY: the call takes a number only.
        unsafe { libc::sched_getscheduler(0) }
    }

    #[test]
    fn the_thread_is_as_it_was_afterwards() {
        let before = policy();
        let within = urgently(policy) & !libc::SCHED_RESET_ON_FORK;
        assert!(within == libc::SCHED_FIFO || within == before, "{within}");
        assert_eq!(policy(), before);
    }
}
