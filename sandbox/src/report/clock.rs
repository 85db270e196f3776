//! Times as reports write them, in UTC.

use std::time::{Duration, UNIX_EPOCH};

/// The year 9999 ends; later times are shown as this one.
const LAST_MS: u64 = 253_402_300_799_999;

/// `2026-11-21 22:00:00`.
pub(super) fn seconds(time_ms: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(time_ms.min(LAST_MS));
    humantime::format_rfc3339_seconds(time).to_string().replace('T', " ").replace('Z', "")
}

/// `2026-11-21 22:00:00,000`, as CAPE stamps calls.
pub(super) fn cape(time_ms: u64) -> String {
    format!("{},{:03}", seconds(time_ms), time_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        assert_eq!(cape(0), "1970-01-01 00:00:00,000");
        // date -u -d @1795300123
        assert_eq!(cape(1_795_300_123_456), "2026-11-21 22:28:43,456");
        assert_eq!(seconds(u64::MAX), "9999-12-31 23:59:59");
    }
}
