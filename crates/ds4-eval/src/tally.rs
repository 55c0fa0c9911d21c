//! Counts of right answers.

/// Two-sided 95% of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;

/// Right answers among all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Right answers.
    pub right: usize,
    /// All answers.
    pub total: usize,
}

impl Tally {
    /// Counts one more answer.
    pub fn add(&mut self, right: bool) {
        self.right += usize::from(right);
        self.total += 1;
    }

    /// Share of right answers; 0 without any.
    pub fn share(self) -> f64 {
        if self.total == 0 {
            return 0.0;
        }
        self.right as f64 / self.total as f64
    }

    /// The 95% interval of the share by Wilson's score (1927), which is honest also near 0 and 1 and for
    /// few cases; `[0, 1]` without any.
    pub fn interval(self) -> (f64, f64) {
        if self.total == 0 {
            return (0.0, 1.0);
        }
        let (share, total) = (self.share(), self.total as f64);
        let scale = 1.0 / (1.0 + Z * Z / total);
        let centre = scale * (share + Z * Z / (2.0 * total));
        let half =
            scale * Z * (share * (1.0 - share) / total + Z * Z / (4.0 * total * total)).sqrt();
        ((centre - half).max(0.0), (centre + half).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_solve_wilsons_equation() {
        for (right, total) in [(0, 10), (1, 10), (9, 10), (83, 100), (280, 280), (140, 280)] {
            let tally = Tally { right, total };
            let (low, high) = tally.interval();
            assert!(low <= tally.share() && tally.share() <= high);
            // At the ends the share is exactly Z standard errors of the end away.
            for end in [low, high] {
                let error = (end * (1.0 - end) / total as f64).sqrt();
                let distance = (tally.share() - end).abs();
                assert!((distance - Z * error).abs() < 1e-12, "{right}/{total}");
            }
        }
    }

    #[test]
    fn nothing_counted_means_nothing_known() {
        assert_eq!(Tally::default().interval(), (0.0, 1.0));
        assert_eq!(Tally::default().share(), 0.0);
    }
}
