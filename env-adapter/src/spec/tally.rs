//! Counts over a window or over a stage, and the measures that are taken of them.

use super::table::{Amount, Measure, Plan};
use crate::behaviour::{Facts, SIGN_COUNT, Sign, Signs};

/// What a window or a stage added up to.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) events: u64,
    pub(super) timed: u64,
    pub(super) located: u64,
    pub(super) novel: u64,
    /// The signs whose count is not 0.
    pub(super) found: Signs,
    signs: [u32; SIGN_COUNT],
    bytes_read: u64,
    bytes_written: u64,
    bytes_sent: u64,
    bytes_received: u64,
    slept_ns: u64,
    depth: u32,
    entropy_sum: f64,
    entropy_max: f32,
    /// Nanoseconds that passed, where the source tells the time.
    pub(super) passed_ns: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Tally {
            events: 0,
            timed: 0,
            located: 0,
            novel: 0,
            found: Signs::NONE,
            signs: [0; SIGN_COUNT],
            bytes_read: 0,
            bytes_written: 0,
            bytes_sent: 0,
            bytes_received: 0,
            slept_ns: 0,
            depth: 0,
            entropy_sum: 0.0,
            entropy_max: 0.0,
            passed_ns: 0,
        }
    }
}

impl Tally {
    #[inline]
    pub(super) fn add(&mut self, facts: &Facts) {
        self.events += 1;
        self.found = self.found.union(facts.signs);
        for number in facts.signs.numbers() {
            self.signs[number] += 1;
        }
        self.bytes_read = self.bytes_read.saturating_add(facts.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(facts.bytes_written);
        self.bytes_sent = self.bytes_sent.saturating_add(facts.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(facts.bytes_received);
        self.slept_ns = self.slept_ns.saturating_add(facts.slept_ns);
        self.depth = self.depth.max(facts.depth);
        if let Some(entropy) = facts.entropy {
            self.entropy_sum += f64::from(entropy);
            self.entropy_max = self.entropy_max.max(entropy);
        }
    }

    /// Adds the tally of a window to that of its stage.
    pub(super) fn merge(&mut self, window: &Tally) {
        self.events += window.events;
        self.timed += window.timed;
        self.located += window.located;
        self.novel += window.novel;
        self.found = self.found.union(window.found);
        for number in window.found.numbers() {
            self.signs[number] = self.signs[number].saturating_add(window.signs[number]);
        }
        self.bytes_read = self.bytes_read.saturating_add(window.bytes_read);
        self.bytes_written = self.bytes_written.saturating_add(window.bytes_written);
        self.bytes_sent = self.bytes_sent.saturating_add(window.bytes_sent);
        self.bytes_received = self.bytes_received.saturating_add(window.bytes_received);
        self.slept_ns = self.slept_ns.saturating_add(window.slept_ns);
        self.depth = self.depth.max(window.depth);
        self.entropy_sum += window.entropy_sum;
        self.entropy_max = self.entropy_max.max(window.entropy_max);
        self.passed_ns = self.passed_ns.saturating_add(window.passed_ns);
    }

    fn count(&self, sign: Sign) -> u32 {
        self.signs[sign as usize]
    }

    fn amount(&self, amount: Amount) -> u64 {
        match amount {
            Amount::BytesRead => self.bytes_read,
            Amount::BytesWritten => self.bytes_written,
            Amount::BytesSent => self.bytes_sent,
            Amount::BytesReceived => self.bytes_received,
            Amount::SleptMs => self.slept_ns / 1_000_000,
            Amount::Depth => u64::from(self.depth),
        }
    }

    /// Writes the elements of the counts of the signs in `found` and of all other measures, in [0, 1]. The elements of
    /// other counts stay as they are.
    #[inline]
    pub(super) fn measure(&self, plan: &Plan, found: Signs, elements: &mut [f32]) {
        for number in found.numbers() {
            let (first, steps) = plan.counts[number];
            reached(u64::from(self.signs[number]), steps, &mut elements[first..]);
        }
        for (first, measure) in &plan.others {
            let element = &mut elements[*first..];
            match *measure {
                Measure::Count(sign, steps) => reached(u64::from(self.count(sign)), steps, element),
                Measure::Sum(amount, steps) => reached(self.amount(amount), steps, element),
                Measure::Share(part, whole) => element[0] = share(self.count(part).into(), self.count(whole).into()),
                Measure::Rate(sign) => element[0] = share(self.count(sign).into(), self.events),
                Measure::WrittenShare => {
                    element[0] = share(self.bytes_written, self.bytes_read.saturating_add(self.bytes_written));
                }
                Measure::MeanEntropy => {
                    let writes = f64::from(self.count(Sign::EntropyKnown).max(1));
                    element[0] = ((self.entropy_sum / writes / 8.0) as f32).min(1.0);
                }
                Measure::MaxEntropy => element[0] = self.entropy_max / 8.0,
                Measure::SleptShare => element[0] = share(self.slept_ns, self.passed_ns),
            }
        }
    }
}

/// 1 for each step that the count reached, 0 for the others.
#[inline]
fn reached(count: u64, steps: &[u32], elements: &mut [f32]) {
    for (element, step) in elements.iter_mut().zip(steps) {
        *element = f32::from(u8::from(count >= u64::from(*step)));
    }
}

/// `part / whole`, at most 1; 0 where there is no part, and 1 where there is a part of nothing.
pub(super) fn share(part: u64, whole: u64) -> f32 {
    if part == 0 {
        0.0
    } else if part >= whole {
        1.0
    } else {
        (part as f64 / whole as f64) as f32
    }
}

/// Logarithms of small counts, which nearly all counts are.
#[derive(Debug)]
pub(super) struct Logs(Box<[f64]>);

impl Logs {
    const SMALL: u32 = 1_024;

    pub(super) fn get() -> &'static Logs {
        static LOGS: std::sync::LazyLock<Logs> =
            std::sync::LazyLock::new(|| Logs((0..Logs::SMALL).map(|n| libm::log1p(f64::from(n))).collect()));
        &LOGS
    }

    /// `log1p(count) * inverse`, at most 1.
    #[inline]
    pub(super) fn scaled(&self, count: u64, inverse: f64) -> f32 {
        let log = match self.0.get(count as usize) {
            Some(log) => *log,
            None => libm::log1p(count as f64),
        };
        ((log * inverse) as f32).min(1.0)
    }
}
