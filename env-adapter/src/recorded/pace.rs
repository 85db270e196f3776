//! Real-time mode: how long a recorded window takes.

use std::time::Duration;

use super::RecordedWindow;

/// Waits. Injected, so that whoever tests needs no clock.
pub trait Pace {
    /// Waits for this long.
    fn pause(&mut self, delay: Duration);
}

/// Puts the calling thread to sleep.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThreadPace;

impl Pace for ThreadPace {
    fn pause(&mut self, delay: Duration) {
        std::thread::sleep(delay);
    }
}

/// How long the step to the next window takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RealTime {
    /// The same for every window.
    Fixed(Duration),
    /// As long as it took when it was recorded, divided by a speed; windows without a time take none.
    Recorded {
        /// 1 is as recorded, 10 is ten times as fast; what is not above 0 waits for nothing.
        speed: f64,
    },
}

impl RealTime {
    /// A gap longer than this is waited for no longer than this.
    const LONGEST: Duration = Duration::from_secs(3_600);

    /// The delay from the close of one window to the close of the next.
    pub fn delay(&self, from: &RecordedWindow, to: &RecordedWindow) -> Duration {
        let delay = match *self {
            RealTime::Fixed(delay) => delay,
            RealTime::Recorded { speed } if speed > 0.0 => {
                let since = if from.stage == to.stage { from.time_ns.unwrap_or(0) } else { 0 };
                let gap = Duration::from_nanos(to.time_ns.unwrap_or(0).saturating_sub(since));
                gap.try_div_f64(speed)
            }
            RealTime::Recorded { .. } => Duration::ZERO,
        };
        delay.min(Self::LONGEST)
    }
}

trait TryDiv {
    fn try_div_f64(self, by: f64) -> Duration;
}

impl TryDiv for Duration {
    /// Division that ends at the largest duration instead of a panic.
    fn try_div_f64(self, by: f64) -> Duration {
        Duration::try_from_secs_f64(self.as_secs_f64() / by).unwrap_or(Duration::MAX)
    }
}
