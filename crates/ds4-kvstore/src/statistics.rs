//! What the store was good for.

use crate::checkpoint::CheckpointKind;

/// Totals since the directory was made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// Lookups.
    pub lookups: u64,
    /// Lookups that found nothing.
    pub misses: u64,
    /// Checkpoints loaded, by [`CheckpointKind`] in the order of [`CheckpointKind::ALL`].
    pub hits: [u64; CheckpointKind::ALL.len()],
    /// Tokens that need not be computed thanks to them.
    pub tokens_restored: u64,
    /// Seconds of prefill saved, by the estimates given when saving.
    pub seconds_saved: f64,
    /// Checkpoints saved.
    pub saved: u64,
    /// Checkpoints evicted.
    pub evicted: u64,
    /// Files that were refused.
    pub refused: u64,
}

impl Statistics {
    /// Adds the counts of `other`.
    pub(crate) fn add(&mut self, other: &Self) {
        self.combine(other, u64::saturating_add);
        self.seconds_saved += other.seconds_saved;
    }

    /// Takes the counts of `other` away again.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.combine(other, u64::saturating_sub);
        self.seconds_saved -= other.seconds_saved;
    }

    fn combine(&mut self, other: &Self, operation: fn(u64, u64) -> u64) {
        let Self {
            lookups,
            misses,
            hits,
            tokens_restored,
            seconds_saved: _,
            saved,
            evicted,
            refused,
        } = other;
        for (count, more) in [
            (&mut self.lookups, lookups),
            (&mut self.misses, misses),
            (&mut self.tokens_restored, tokens_restored),
            (&mut self.saved, saved),
            (&mut self.evicted, evicted),
            (&mut self.refused, refused),
        ]
        .into_iter()
        .chain(self.hits.iter_mut().zip(hits))
        {
            *count = operation(*count, *more);
        }
    }
}
