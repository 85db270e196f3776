//! Requests that have ended: how many, how they ended, how long they took.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::metrics::{Histogram, Page};

/// Requests of one protocol that have ended, by method and by code.
#[derive(Debug)]
pub struct RequestCounts {
    protocol: &'static str,
    codes: &'static [&'static str],
    rows: Box<[Row]>,
}

/// One method, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
struct Row {
    method: &'static str,
    ended: Box<[AtomicU64]>,
    times: [AtomicU64; BOUNDS_NS.len() + 1],
    total_ns: AtomicU64,
}

/// Upper bounds of the times of requests, inclusive: from 4 us to 8 s, each twice the one before.
const BOUNDS_NS: [u64; 22] = {
    let mut bounds = [4_000; 22];
    let mut bucket = 1;
    while bucket < bounds.len() {
        bounds[bucket] = 2 * bounds[bucket - 1];
        bucket += 1;
    }
    bounds
};

/// Codes of gRPC by number, as its specification spells them.
pub(super) const GRPC_CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

impl RequestCounts {
    /// Counters for these methods and codes, which are fixed, so that no client can make rows.
    pub(super) fn new(
        protocol: &'static str,
        methods: impl IntoIterator<Item = &'static str>,
        codes: &'static [&'static str],
    ) -> Self {
        let row = |method| Row {
            method,
            ended: codes.iter().map(|_| AtomicU64::new(0)).collect(),
            times: [const { AtomicU64::new(0) }; BOUNDS_NS.len() + 1],
            total_ns: AtomicU64::new(0),
        };
        RequestCounts { protocol, codes, rows: methods.into_iter().map(row).collect() }
    }

    /// Counts a request; `elapsed` is from its headers to the end of its answer, and nothing for streams, which last as long
    /// as clients want.
    pub(super) fn ended(&self, method: usize, code: usize, elapsed: Option<Duration>) {
        let Some(row) = self.rows.get(method) else { return };
        if let Some(ended) = row.ended.get(code) {
            ended.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(elapsed) = elapsed {
            let ns = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
            row.times[BOUNDS_NS.partition_point(|bound| *bound < ns)].fetch_add(1, Ordering::Relaxed);
            row.total_ns.fetch_add(ns, Ordering::Relaxed);
        }
    }

    /// Every count that is not 0: method, code, count.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        self.rows.iter().flat_map(|row| {
            let counts = self.codes.iter().zip(&row.ended).map(|(code, count)| (*code, count.load(Ordering::Relaxed)));
            counts.filter(|(_, count)| *count > 0).map(|(code, count)| (row.method, code, count))
        })
    }

    /// Tells of several protocols, of each method that was called.
    pub(super) fn tell(all: &[&RequestCounts], page: &mut Page<'_>) -> fmt::Result {
        let counts = all.iter().flat_map(|requests| {
            let labels = |method, code| [("protocol", requests.protocol), ("method", method), ("code", code)];
            requests.counts().map(move |(method, code, count)| (labels(method, code), count))
        });
        page.counters("bellwether_requests", "Requests that ended, by protocol, method and code", counts)?;
        let times = all.iter().flat_map(|requests| {
            let rows = requests.rows.iter().map(|row| (row.method, row.times()));
            let labels = |method| [("protocol", requests.protocol), ("method", method)];
            rows.filter(|(_, times)| times.counts.iter().any(|count| *count > 0))
                .map(move |(method, times)| (labels(method), times))
        });
        let help = "Time from the headers of a request to the end of its answer; streams are left out";
        page.times("bellwether_request_duration", help, times)
    }
}

impl Row {
    fn times(&self) -> Histogram<'static> {
        Histogram {
            bounds_ns: &BOUNDS_NS,
            counts: self.times.iter().map(|count| count.load(Ordering::Relaxed)).collect(),
            total: Duration::from_nanos(self.total_ns.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_where_they_belong() {
        let requests = RequestCounts::new("grpc", ["a", "b"], &GRPC_CODES);
        for ns in [0, 4_000, 4_001, 8_000, 8_388_608_000, 8_388_608_001, u64::MAX] {
            requests.ended(1, 0, Some(Duration::from_nanos(ns)));
        }
        requests.ended(1, 16, None);
        requests.ended(2, 0, None);
        requests.ended(0, 17, None);
        assert_eq!(requests.counts().collect::<Vec<_>>(), [("b", "OK", 7), ("b", "UNAUTHENTICATED", 1)]);
        let times = requests.rows[1].times();
        let filled: Vec<(usize, u64)> = times.counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect();
        assert_eq!(filled, [(0, 2), (1, 2), (21, 1), (22, 2)]);
        assert_eq!(BOUNDS_NS[21], 8_388_608_000);
    }
}
