//! What the host's clocks say.

/// The time of one of the kernel's clocks, in nanoseconds; none where there is no such clock, or it is before its beginning.
pub(crate) fn now_ns(clock: i32) -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec`, for which there is room, or nothing.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return None;
    }
    u64::try_from(time.tv_sec).ok()?.checked_mul(1_000_000_000)?.checked_add(u64::try_from(time.tv_nsec).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_read_and_others_are_none() {
        let before = now_ns(libc::CLOCK_MONOTONIC).unwrap();
        assert!(now_ns(libc::CLOCK_MONOTONIC).unwrap() >= before);
        assert!(now_ns(libc::CLOCK_REALTIME).unwrap() > 1_700_000_000_000_000_000);
        assert_eq!(now_ns(1_000), None);
    }
}
