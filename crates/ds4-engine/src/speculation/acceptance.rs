//! How often drafts stood lately.

/// Tokens that count, about: older ones are forgotten.
const MEMORY: f64 = 24.0;
/// What is known of others counts like so many tokens.
const PRIOR: f64 = 2.0;

/// How often drafted tokens stood lately, if those before them did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Acceptance {
    stood: f64,
    fell: f64,
}

impl Acceptance {
    /// Before anything is known: as often as not.
    pub(crate) const UNKNOWN: Self = Self {
        stood: 0.5 * PRIOR,
        fell: 0.5 * PRIOR,
    };

    /// What is known of others, as a first guess.
    pub(crate) fn like(other: Self) -> Self {
        let p = other.probability();
        Self {
            stood: p * PRIOR,
            fell: (1.0 - p) * PRIOR,
        }
    }

    /// Takes note of `judged` tokens that came where others were foreseen, of which the first `accepted`
    /// were the same: all, or all but the last.
    pub(crate) fn record(&mut self, judged: usize, accepted: usize) {
        let kept = (1.0 - 1.0 / MEMORY).powi(judged.min(1024) as i32);
        self.stood = self.stood * kept + accepted as f64;
        self.fell = self.fell * kept + judged.saturating_sub(accepted) as f64;
    }

    /// How likely a token stands if those before it do.
    pub(crate) fn probability(&self) -> f64 {
        self.stood / (self.stood + self.fell).max(f64::MIN_POSITIVE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_follows_what_happens() {
        let mut acceptance = Acceptance::UNKNOWN;
        assert_eq!(acceptance.probability(), 0.5);
        (0..60).for_each(|_| acceptance.record(1, 0));
        assert!(acceptance.probability() < 0.05);
        (0..12).for_each(|_| acceptance.record(8, 8));
        assert!(acceptance.probability() > 0.9);
        let other = Acceptance::like(acceptance);
        assert!((other.probability() - acceptance.probability()).abs() < 1e-9);
        (0..4000).for_each(|at| acceptance.record(1, usize::from(at % 4 != 0)));
        assert!((acceptance.probability() - 0.75).abs() < 0.05);
    }
}
