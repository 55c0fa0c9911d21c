//! Tokens a second over the last seconds.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::service::Speed;

/// Time over which the speed is taken.
const WINDOW: Duration = Duration::from_secs(5);
/// Steps kept at most; on a fast machine they span less time.
const STEPS: usize = 4096;

/// The steps of the last seconds.
#[derive(Debug, Default)]
pub(super) struct SpeedMeter {
    /// End of each step, and its prompt and answer tokens.
    steps: VecDeque<(Instant, usize, usize)>,
}

impl SpeedMeter {
    /// Takes note of a step that ended `now`.
    pub(super) fn record(&mut self, now: Instant, prefilled: usize, generated: usize) {
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back((now, prefilled, generated));
    }

    /// The speed over the time before `now`.
    pub(super) fn speed(&self, now: Instant) -> Speed {
        let age = |at: Instant| now.saturating_duration_since(at);
        let recent = self.steps.iter().filter(|step| age(step.0) <= WINDOW);
        // The tokens of the first step took their time before it was recorded.
        let mut recent = recent.skip(1).peekable();
        let first = self.steps.iter().find(|step| age(step.0) <= WINDOW);
        let Some((seconds, _)) = first
            .map(|step| age(step.0).as_secs_f64())
            .zip(recent.peek())
        else {
            return Speed::default();
        };
        let (prefilled, generated) = recent.fold((0, 0), |(prefilled, generated), step| {
            (prefilled + step.1, generated + step.2)
        });
        let per_second = |tokens: usize| tokens as f64 / seconds.max(1e-9);
        Speed {
            prefill: per_second(prefilled),
            decode: per_second(generated),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_tokens_by_time_and_forgets() {
        let start = Instant::now();
        let mut meter = SpeedMeter::default();
        assert_eq!(meter.speed(start), Speed::default());
        for step in 0..=10 {
            let at = start + Duration::from_millis(100 * step);
            meter.record(at, 50, 2);
        }
        let speed = meter.speed(start + Duration::from_secs(1));
        assert!((speed.prefill - 500.0).abs() < 1e-6, "{speed:?}");
        assert!((speed.decode - 20.0).abs() < 1e-6, "{speed:?}");
        assert_eq!(
            meter.speed(start + Duration::from_secs(9)),
            Speed::default()
        );
    }
}
