//! When to try again.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::{Duration, SystemTime};

use crate::settings::RetryPolicy;

/// Counts failures in a row.
#[derive(Debug)]
pub(crate) struct Backoff {
    policy: RetryPolicy,
    failures: u32,
    randomness: RandomState,
}

/// What comes after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Wait(Duration),
    /// The server asks for more than the policy allows.
    TooLong(Duration),
    GiveUp,
}

impl Backoff {
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self {
            policy,
            failures: 0,
            randomness: RandomState::new(),
        }
    }

    /// There was progress: failures before it do not count.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// Failures in a row.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Counts a failure; `asked` is what the server wants to have waited.
    pub(crate) fn failed(&mut self, asked: Option<Duration>) -> Next {
        self.failures += 1;
        if self.failures >= self.policy.attempts {
            return Next::GiveUp;
        }
        if let Some(asked) = asked {
            return if asked > self.policy.longest_asked {
                Next::TooLong(asked)
            } else {
                Next::Wait(asked.max(self.policy.first_wait))
            };
        }
        let doublings = (self.failures - 1).min(30);
        let full = self
            .policy
            .first_wait
            .saturating_mul(1 << doublings)
            .min(self.policy.longest_wait);
        // Half of it is random, so that connections which failed together do not come back together.
        let random = self.randomness.hash_one(self.failures) >> 32;
        let share = 0.5 + 0.5 * random as f64 / f64::from(u32::MAX);
        Next::Wait(full.mul_f64(share))
    }
}

/// The wait that a `Retry-After` header asks for: seconds, or a date (RFC 9110, section 10.2.3).
pub(crate) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(value.parse().unwrap_or(u64::MAX)));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: RetryPolicy = RetryPolicy {
        attempts: 6,
        first_wait: Duration::from_secs(1),
        longest_wait: Duration::from_secs(5),
        longest_asked: Duration::from_secs(100),
    };

    #[test]
    fn waits_double_up_to_a_limit_and_then_end() {
        let mut backoff = Backoff::new(POLICY);
        for full in [1.0, 2.0, 4.0, 5.0, 5.0] {
            let Next::Wait(wait) = backoff.failed(None) else {
                panic!("it gave up early");
            };
            let wait = wait.as_secs_f64();
            assert!(wait >= full / 2.0 && wait <= full, "{wait} of {full}");
        }
        assert_eq!(backoff.failed(None), Next::GiveUp);
        backoff.reset();
        assert!(matches!(backoff.failed(None), Next::Wait(wait) if wait <= POLICY.first_wait));
    }

    #[test]
    fn waits_of_two_connections_differ() {
        let waits: Vec<Next> = (0..8).map(|_| Backoff::new(POLICY).failed(None)).collect();
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }

    #[test]
    fn the_server_is_heard_within_reason() {
        let seconds = Duration::from_secs;
        let mut backoff = Backoff::new(POLICY);
        assert_eq!(backoff.failed(Some(seconds(7))), Next::Wait(seconds(7)));
        assert_eq!(backoff.failed(Some(seconds(0))), Next::Wait(seconds(1)));
        assert_eq!(
            backoff.failed(Some(seconds(101))),
            Next::TooLong(seconds(101))
        );
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // 784111777 is the example date of RFC 9110, section 5.6.7.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777 - 9);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(retry_after(" 120 ", now), Some(Duration::from_secs(120)));
        assert_eq!(retry_after(date, now), Some(Duration::from_secs(9)));
        let later = now + Duration::from_secs(60);
        assert_eq!(retry_after(date, later), Some(Duration::ZERO));
        assert_eq!(
            retry_after("99999999999999999999999", now),
            Some(Duration::from_secs(u64::MAX))
        );
        for nonsense in ["", "-1", "soon", "1.5"] {
            assert_eq!(retry_after(nonsense, now), None, "{nonsense}");
        }
    }
}
