//! How long one decision takes, runtime beside runtime in one run.

use std::hint::black_box;
use std::time::Instant;

use serde::Serialize;

use crate::{Native, PeerError, Runtime, StateRecord};

/// How often to call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Rounds; in each, every runtime has its turn, so that a busy moment of the machine strikes all of them.
    pub rounds: usize,
    /// Timed calls of a runtime in a turn; as many again, at most 1000, go before untimed.
    pub calls: usize,
}

/// The times of one runtime, in nanoseconds, each with the cost of reading the clock in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// Its name.
    pub runtime: &'static str,
    /// Median.
    pub p50_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// Its median over that of the native engine.
    pub p50_ratio: f64,
    /// Its 99th percentile over that of the native engine.
    pub p99_ratio: f64,
}

/// Times the native engine and then its peers, round after round, over `states` in turn.
///
/// The native engine does all that a decision needs: it checks the state, computes, masks and ranks. The peers are timed
/// on the q-values alone.
///
/// # Errors
/// No states, or a failure of a runtime.
pub fn measure(
    native: &mut Native,
    peers: &mut [Box<dyn Runtime>],
    states: &[StateRecord],
    schedule: Schedule,
) -> Result<Vec<Latency>, PeerError> {
    let actions = states.first().ok_or(PeerError::NoStates)?.mask.len();
    let mut q_values = vec![0.0; actions];
    let mut times = vec![Vec::with_capacity(schedule.rounds * schedule.calls); peers.len() + 1];
    for _ in 0..schedule.rounds {
        turn(states, schedule.calls, &mut times[0], |record| {
            black_box(native.decision(black_box(&record.state), &record.mask)?);
            Ok(())
        })?;
        for (peer, times) in peers.iter_mut().zip(&mut times[1..]) {
            turn(states, schedule.calls, times, |record| {
                peer.q_values(black_box(&record.state), &mut q_values)?;
                black_box(&q_values);
                Ok(())
            })?;
        }
    }
    for times in &mut times {
        times.sort_unstable();
    }
    let names = std::iter::once(native.name()).chain(peers.iter().map(|peer| peer.name()));
    let base = |percentile| quantile(&times[0], percentile).max(1) as f64;
    Ok(names
        .zip(&times)
        .map(|(runtime, times)| {
            let [p50_ns, p99_ns, p999_ns] = [0.5, 0.99, 0.999].map(|percentile| quantile(times, percentile));
            let (p50_ratio, p99_ratio) = (p50_ns as f64 / base(0.5), p99_ns as f64 / base(0.99));
            Latency { runtime, p50_ns, p99_ns, p999_ns, p50_ratio, p99_ratio }
        })
        .collect())
}

fn turn(
    states: &[StateRecord],
    calls: usize,
    times: &mut Vec<u64>,
    mut call: impl FnMut(&StateRecord) -> Result<(), PeerError>,
) -> Result<(), PeerError> {
    for record in states.iter().cycle().take(calls.min(1_000)) {
        call(record)?;
    }
    for record in states.iter().cycle().take(calls) {
        let start = Instant::now();
        call(record)?;
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(())
}

/// The smallest time that at least this share of the sorted times does not exceed; 0 of none.
fn quantile(sorted: &[u64], share: f64) -> u64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use bellwether_inference::Isa;

    use super::*;
    use crate::{drawn, open};

    #[test]
    fn quantiles_are_ranks() {
        let times: Vec<u64> = (1..=1000).collect();
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(|share| quantile(&times, share)), [500, 990, 999, 1000]);
        assert_eq!((quantile(&[7], 0.5), quantile(&[], 0.5)), (7, 0));
    }

    #[test]
    fn every_runtime_is_timed_beside_the_native_engine() {
        let onnx = drawn::model(&[4, 8, 2], 1).unwrap();
        let (_, _, mut native) = open(&onnx, Isa::best()).unwrap();
        let mut peers: Vec<Box<dyn Runtime>> = vec![Box::new(open(&onnx, Isa::Scalar).unwrap().2)];
        let states: Vec<StateRecord> = drawn::states(3, 4, 2, 1).collect();
        let schedule = Schedule { rounds: 2, calls: 5 };
        let found = measure(&mut native, &mut peers, &states, schedule).unwrap();
        assert_eq!(found.len(), 2);
        assert!((found[0].p50_ratio - 1.0).abs() < 1e-9 && found.iter().all(|row| row.p50_ns <= row.p99_ns));
        assert!(matches!(measure(&mut native, &mut peers, &[], schedule), Err(PeerError::NoStates)));
    }
}
