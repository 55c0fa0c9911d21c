//! Which checkpoint goes first when there is no room.
//!
//! Value of a checkpoint = (seconds of prefill lost without it) × (how likely it is
//! needed) / (bytes that removing it frees).
//!
//! - Seconds lost are those beyond the next shorter checkpoint of the conversation:
//!   of nested checkpoints one is enough.
//! - Bytes freed are its own: a checkpoint on shared segments is cheap to keep, and
//!   segments in use are never counted as gain.
//! - Need falls with the time since the last use, slowly enough that what is used once
//!   a day stays: `(1 + hits · 2^(-age / 7 days)) / (1 + age / 1 day)`. Old hits fade,
//!   so that yesterday's favourite does not stay for ever.
//!
//! A time of last use that lies in the future (the clock went back) counts as now.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::chain::CheckpointId;
use crate::index::{Entry, Index};

const DAY: f64 = 86_400.0;
const HIT_HALF_LIFE: f64 = 7.0 * DAY;
const GIB: f64 = (1_u64 << 30) as f64;

/// Seconds saved per GiB, aged.
pub(crate) fn value(index: &Index, entry: &Entry, now: u64) -> f64 {
    if !index.is_complete(entry) {
        return 0.0;
    }
    let age = now.saturating_sub(entry.last_used) as f64;
    let hits = entry.hits as f64 * (-age / HIT_HALF_LIFE).exp2();
    let need = (1.0 + hits) / (1.0 + age / DAY);
    let lost = (entry.manifest.prefill_seconds - index.seconds_without(entry)).max(0.0);
    // A frontier that saves next to nothing still orders by need and size.
    let lost = lost + 1e-3;
    let bytes = index.own_bytes(entry).max(1) as f64;
    lost * need / bytes * GIB
}

/// Checkpoints by value, the smallest first; ties go by age.
pub(crate) struct Candidates {
    heap: BinaryHeap<Candidate>,
    now: u64,
}

#[derive(Debug, PartialEq)]
struct Candidate {
    value: f64,
    last_used: u64,
    id: CheckpointId,
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    /// The heap gives the greatest: that is who goes first.
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .value
            .total_cmp(&self.value)
            .then(other.last_used.cmp(&self.last_used))
            .then(other.id.cmp(&self.id))
    }
}

impl Candidates {
    /// All that nobody holds.
    pub(crate) fn of(index: &Index, now: u64) -> Self {
        let heap = index
            .entries()
            .filter(|entry| entry.pins == 0)
            .map(|entry| Candidate {
                value: value(index, entry, now),
                last_used: entry.last_used,
                id: entry.manifest.id,
            })
            .collect();
        Self { heap, now }
    }

    /// The next to go. Values change while others go: a checkpoint that has become more
    /// valuable than the one behind it is put back.
    pub(crate) fn next(&mut self, index: &Index) -> Option<CheckpointId> {
        while let Some(mut candidate) = self.heap.pop() {
            let Some(entry) = index.entry(&candidate.id).filter(|entry| entry.pins == 0) else {
                continue;
            };
            let value = value(index, entry, self.now);
            let behind = self.heap.peek().map_or(f64::INFINITY, |next| next.value);
            // Once put back with the right value, it is the next only if it is the least.
            if value > candidate.value && value > behind {
                candidate.value = value;
                self.heap.push(candidate);
                continue;
            }
            return Some(candidate.id);
        }
        None
    }
}
