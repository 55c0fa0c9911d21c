//! Means with their errors, and order statistics.

/// Running mean and variance (Welford's recurrence, which does not cancel).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Moments {
    count: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// Number of values.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Standard error of the mean, for independent values: the sample's standard deviation over the root
    /// of the count. 0 for fewer than two values.
    pub fn error(&self) -> f64 {
        if self.count < 2 {
            return 0.0;
        }
        let count = self.count as f64;
        (self.squares / (count - 1.0) / count).sqrt()
    }
}

impl FromIterator<f64> for Moments {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut moments = Self::default();
        for value in values {
            moments.add(value);
        }
        moments
    }
}

/// The value below which a share of the values lies, interpolated between neighbours; 0 of nothing.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let below = place.floor() as usize;
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    low + (high - low) * (place - below as f64)
}

/// The middle value, or the mean of the two in the middle; 0 of nothing.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_and_quantiles_are_the_textbooks() {
        // numpy: mean 5, std(ddof=1) 2.1380899, /sqrt(8) 0.7559289
        let values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0];
        let moments: Moments = values.into_iter().collect();
        assert_eq!((moments.count(), moments.mean()), (8, 5.0));
        assert!((moments.error() - 0.755_928_946).abs() < 1e-9);
        // Far from zero the digits stay.
        let far: Moments = values.into_iter().map(|value| value + 1e9).collect();
        assert!((far.error() - 0.755_928_946).abs() < 1e-6);
        assert_eq!(median(&values), 4.5);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        // numpy.quantile([1, 2, 3, 4], 0.9)
        assert!((quantile(&[4.0, 1.0, 3.0, 2.0], 0.9) - 3.7).abs() < 1e-12);
        assert_eq!((median(&[]), Moments::default().error()), (0.0, 0.0));
    }
}
