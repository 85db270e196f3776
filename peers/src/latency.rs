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
    /// Whether the caches are emptied of the model before each timed call, as they are in a sandbox that does other work
    /// between its decisions.
    pub cold: bool,
}

/// More than the last level of cache of the machines at hand.
const EVICTING_BYTES: usize = 48 << 20;

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
    /// Its times over those of the exact native engine.
    pub over_exact: Ratio,
    /// Its times over those of the certified native engine.
    pub over_certified: Ratio,
}

/// How many times as long one takes as the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Ratio {
    /// Of the medians.
    pub p50: f64,
    /// The least and the largest ratio of medians in a round.
    pub p50_of_rounds: [f64; 2],
    /// Of the 99th percentiles.
    pub p99: f64,
    /// The least and the largest ratio of 99th percentiles in a round.
    pub p99_of_rounds: [f64; 2],
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Measurement {
    /// The exact native engine, the certified one, then the peers.
    pub runtimes: Vec<Latency>,
    /// Share of the certified engine's calls that were certified; its times hold those that were not as well.
    pub certified: f64,
}

/// Times of one runtime: all in order of the calls, `calls` to a round.
type Times = Vec<u64>;

/// Times the exact native engine, the certified one and the peers, round after round, over `states` in turn.
///
/// The native engines do all that a decision needs: they check the state, compute, mask and rank. The peers are timed on the
/// q-values alone.
///
/// # Errors
/// No states, or a failure of a runtime.
pub fn measure(
    exact: &mut Native,
    certified: &mut Native,
    peers: &mut [Box<dyn Runtime>],
    states: &[StateRecord],
    schedule: Schedule,
) -> Result<Measurement, PeerError> {
    let actions = states.first().ok_or(PeerError::NoStates)?.mask.len();
    let mut q_values = vec![0.0; actions];
    let mut evict = vec![0_u64; if schedule.cold { EVICTING_BYTES / size_of::<u64>() } else { 0 }];
    let mut times: Vec<Times> = vec![Vec::with_capacity(schedule.rounds * schedule.calls); peers.len() + 2];
    let (mut decided, mut count) = (0_u64, 0_u64);
    for _ in 0..schedule.rounds {
        let mut all = times.iter_mut();
        let mut turn = |call: &mut dyn FnMut(&StateRecord) -> Result<(), PeerError>| match all.next() {
            Some(times) => turn(states, schedule, &mut evict, times, call),
            None => Ok(()),
        };
        turn(&mut |record| {
            black_box(exact.decision(black_box(&record.state), &record.mask)?);
            Ok(())
        })?;
        turn(&mut |record| {
            let decision = black_box(certified.decision(black_box(&record.state), &record.mask)?);
            decided += 1;
            count += u64::from(decision.certified);
            Ok(())
        })?;
        for peer in peers.iter_mut() {
            turn(&mut |record| {
                peer.q_values(black_box(&record.state), &mut q_values)?;
                black_box(&q_values);
                Ok(())
            })?;
        }
    }
    let names = [exact.name(), certified.name()].into_iter().chain(peers.iter().map(|peer| peer.name()));
    let sorted: Vec<Times> = times.iter().map(|times| sorted(times)).collect();
    let runtimes = names
        .enumerate()
        .map(|(place, runtime)| {
            let [p50_ns, p99_ns, p999_ns] = [0.5, 0.99, 0.999].map(|share| quantile(&sorted[place], share));
            let over =
                |base: usize| ratio((&times[place], &sorted[place]), (&times[base], &sorted[base]), schedule.calls);
            Latency { runtime, p50_ns, p99_ns, p999_ns, over_exact: over(0), over_certified: over(1) }
        })
        .collect();
    Ok(Measurement { runtimes, certified: count as f64 / decided.max(1) as f64 })
}

/// Both in order of the calls and sorted.
fn ratio(one: (&Times, &Times), other: (&Times, &Times), calls: usize) -> Ratio {
    let of = |one: &Times, other: &Times, share| quantile(one, share) as f64 / quantile(other, share).max(1) as f64;
    let rounds = one.0.chunks(calls.max(1)).zip(other.0.chunks(calls.max(1)));
    let rounds: Vec<(Times, Times)> = rounds.map(|(one, other)| (sorted(one), sorted(other))).collect();
    let range = |share| {
        let ratios = rounds.iter().map(|(one, other)| of(one, other, share));
        ratios.fold([f64::INFINITY, 0.0], |[low, high], ratio| [f64::min(low, ratio), f64::max(high, ratio)])
    };
    Ratio {
        p50: of(one.1, other.1, 0.5),
        p50_of_rounds: range(0.5),
        p99: of(one.1, other.1, 0.99),
        p99_of_rounds: range(0.99),
    }
}

fn sorted(times: &[u64]) -> Times {
    let mut times = times.to_vec();
    times.sort_unstable();
    times
}

fn turn(
    states: &[StateRecord],
    schedule: Schedule,
    evict: &mut [u64],
    times: &mut Times,
    call: &mut dyn FnMut(&StateRecord) -> Result<(), PeerError>,
) -> Result<(), PeerError> {
    for record in states.iter().cycle().take(schedule.calls.min(1_000)) {
        call(record)?;
    }
    for record in states.iter().cycle().take(schedule.calls) {
        // One word of each line of cache, written, so that nothing else stays.
        for line in evict.iter_mut().step_by(64 / size_of::<u64>()) {
            *line = line.wrapping_add(1);
        }
        black_box(&*evict);
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
    use bellwether_inference::{Isa, Precision};

    use super::*;
    use crate::{drawn, open};

    #[test]
    fn quantiles_are_ranks() {
        let times: Vec<u64> = (1..=1000).collect();
        assert_eq!([0.5, 0.99, 0.999, 1.0].map(|share| quantile(&times, share)), [500, 990, 999, 1000]);
        assert_eq!((quantile(&[7], 0.5), quantile(&[], 0.5)), (7, 0));
    }

    #[test]
    fn every_runtime_is_timed_beside_both_native_engines() {
        let onnx = drawn::model(&[4, 8, 2], false, 1).unwrap();
        let (mlp, _, mut exact) = open(&onnx, Isa::best()).unwrap();
        let mut certified = Native::with_precision(&mlp, Isa::best(), Precision::Certified).unwrap();
        let mut peers: Vec<Box<dyn Runtime>> = vec![Box::new(open(&onnx, Isa::Scalar).unwrap().2)];
        let states: Vec<StateRecord> = drawn::states(3, 4, 2, 1).collect();
        for cold in [false, true] {
            let schedule = Schedule { rounds: 2, calls: 5, cold };
            let found = measure(&mut exact, &mut certified, &mut peers, &states, schedule).unwrap();
            let names: Vec<_> = found.runtimes.iter().map(|row| row.runtime).collect();
            assert_eq!(names, ["native", "native certified", "native"]);
            assert!(found.runtimes.iter().all(|row| row.p50_ns <= row.p99_ns));
            for row in &found.runtimes {
                let [low, high] = row.over_exact.p50_of_rounds;
                assert!(low <= high && low > 0.0 && row.over_certified.p50 > 0.0, "{row:?}");
            }
            let one = Ratio { p50: 1.0, p50_of_rounds: [1.0; 2], p99: 1.0, p99_of_rounds: [1.0; 2] };
            assert_eq!((found.runtimes[0].over_exact, found.runtimes[1].over_certified), (one, one));
            assert!(found.certified > 0.0 && found.certified <= 1.0);
            let none = measure(&mut exact, &mut certified, &mut peers, &[], schedule);
            assert!(matches!(none, Err(PeerError::NoStates)));
        }
    }
}
