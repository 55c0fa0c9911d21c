//! How fast this machine reads memory: the roof of every decode step.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::team::Team;

/// Larger than any last-level cache we know of, small enough to measure quickly.
const BUFFER_BYTES: usize = 768 << 20;
/// Passes over the buffer; the fastest counts, since anything else on the machine only slows it.
const PASSES: usize = 5;

/// Sequential read bandwidth of all members of `team` together, in bytes per second.
///
/// Every member reads its own part of a buffer of 768 MiB, five times; the fastest pass counts.
/// Takes about a second and that much memory.
pub fn measure_memory_bandwidth(team: &mut Team) -> f64 {
    measure(team, BUFFER_BYTES)
}

fn measure(team: &mut Team, bytes: usize) -> f64 {
    let words = bytes / 8;
    // Ones, not zeros: untouched zero pages would all be one page of cache.
    let buffer = vec![1_u64; words];
    let mut fastest = Duration::MAX;
    for _ in 0..PASSES {
        let slowest = Mutex::new(Duration::ZERO);
        team.run(|member| {
            let share = &buffer[member.share(0..words, 512)];
            member.barrier();
            let start = Instant::now();
            let sum = sum(share);
            let elapsed = start.elapsed();
            assert_eq!(sum, share.len() as u64, "every word was read");
            let mut slowest = slowest
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner());
            *slowest = elapsed.max(*slowest);
        });
        let slowest = slowest
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        fastest = fastest.min(slowest);
    }
    bytes as f64 / fastest.as_secs_f64().max(1e-9)
}

/// Sum with many independent accumulators, which the compiler turns into vector loads.
fn sum(words: &[u64]) -> u64 {
    let (chunks, rest) = words.as_chunks::<64>();
    let mut sums = [0_u64; 64];
    for chunk in chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter()
        .chain(rest)
        .fold(0, |total, word| total.wrapping_add(*word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_buffer_has_a_finite_bandwidth() {
        let mut team = Team::new(2).unwrap();
        let bandwidth = measure(&mut team, 8 << 20);
        assert!(bandwidth > 1e6 && bandwidth < 1e13, "{bandwidth}");
    }
}
