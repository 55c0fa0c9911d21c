//! Sets of byte positions.

use std::collections::VecDeque;
use std::ops::Range;

/// Disjoint ranges in order, none touching the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RangeSet {
    ranges: Vec<Range<u64>>,
}

impl RangeSet {
    /// Adds a range; what is there already stays once.
    pub(crate) fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let first = self.ranges.partition_point(|other| other.end < range.start);
        let last = self
            .ranges
            .partition_point(|other| other.start <= range.end);
        let merged = self.ranges[first..last]
            .iter()
            .fold(range, |merged, other| {
                merged.start.min(other.start)..merged.end.max(other.end)
            });
        self.ranges.splice(first..last, [merged]);
    }

    /// Number of positions.
    pub(crate) fn total(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// The first position that is not in the set.
    pub(crate) fn prefix(&self) -> u64 {
        match self.ranges.first() {
            Some(range) if range.start == 0 => range.end,
            _ => 0,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// What is missing below `length`, in order.
    pub(crate) fn missing(&self, length: u64) -> VecDeque<Range<u64>> {
        let mut gaps = VecDeque::new();
        let mut at = 0;
        let end = length..length;
        for range in self.ranges.iter().chain([&end]) {
            let start = range.start.min(length);
            if at < start {
                gaps.push_back(at..start);
            }
            at = at.max(range.end);
        }
        gaps
    }
}

/// Takes at most `piece` positions off the front.
pub(crate) fn take_piece(gaps: &mut VecDeque<Range<u64>>, piece: u64) -> Option<Range<u64>> {
    let gap = gaps.pop_front()?;
    let end = gap.start.saturating_add(piece.max(1)).min(gap.end);
    if end < gap.end {
        gaps.push_front(end..gap.end);
    }
    Some(gap.start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same as a set of numbers.
        #[test]
        fn it_behaves_as_a_set(
            inserted in prop::collection::vec((0..60u64, 0..20u64), 0..20),
            length in 1..90u64,
            piece in 1..30u64,
        ) {
            let mut set = RangeSet::default();
            let mut plain = [false; 100];
            for (start, count) in inserted {
                set.insert(start..start + count);
                (start..start + count).for_each(|at| plain[at as usize] = true);
            }
            prop_assert_eq!(set.total(), plain.iter().filter(|in_set| **in_set).count() as u64);
            let prefix = plain.iter().position(|in_set| !in_set).unwrap() as u64;
            prop_assert_eq!(set.prefix(), prefix);
            prop_assert!(set.ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            let mut expected: Vec<u64> = (0..length).filter(|at| !plain[*at as usize]).collect();
            let mut gaps = set.missing(length);
            while let Some(range) = take_piece(&mut gaps, piece) {
                prop_assert!(!range.is_empty() && range.end - range.start <= piece);
                let positions: Vec<u64> = range.collect();
                let rest = expected.split_off(positions.len());
                prop_assert_eq!(&positions, &expected);
                expected = rest;
            }
            prop_assert!(expected.is_empty());
        }
    }
}
