//! Filters that keep the best candidates by some rank.

use std::cmp::Ordering;

use ds4_model::TokenId;

use super::distribution::{Candidate, Distribution};

/// Scratch space of the filters.
#[derive(Clone, Debug, Default)]
pub(super) struct Filters {
    ranked: Vec<Ranked>,
}

#[derive(Clone, Copy, Debug)]
struct Ranked {
    rank: f32,
    token: TokenId,
    weight: f32,
}

impl Filters {
    /// Keeps the `count` likeliest.
    pub(super) fn top_k(&mut self, distribution: &mut Distribution, count: usize) {
        if count == 0 || count >= distribution.candidates.len() {
            return;
        }
        self.rank(distribution, likelihood);
        let (_, last, _) = self.ranked.select_nth_unstable_by(count - 1, order);
        keep_to(distribution, *last, likelihood);
    }

    /// Keeps the smallest set of the likeliest whose probabilities reach `top_p`.
    pub(super) fn top_p(&mut self, distribution: &mut Distribution, top_p: f32) {
        if top_p < 1.0 {
            self.keep_mass(distribution, top_p, likelihood);
        }
    }

    /// Keeps the smallest set of the most typical tokens whose probabilities reach `typical_p`.
    pub(super) fn typical(&mut self, distribution: &mut Distribution, typical_p: f32) {
        if typical_p >= 1.0 {
            return;
        }
        let log_total = distribution.total.ln();
        let surprise = move |candidate: &Candidate| log_total - f64::from(candidate.weight).ln();
        let entropy = distribution
            .candidates
            .iter()
            .map(|candidate| f64::from(candidate.weight) * surprise(candidate))
            .sum::<f64>()
            / distribution.total;
        self.keep_mass(distribution, typical_p, move |candidate| {
            (surprise(candidate) - entropy).abs() as f32
        });
    }

    fn keep_mass(
        &mut self,
        distribution: &mut Distribution,
        mass: f32,
        rank: impl Fn(&Candidate) -> f32,
    ) {
        self.rank(distribution, &rank);
        let wanted = f64::from(mass) * distribution.total;
        let mut sum = 0.0;
        let mut sorted = 0;
        // Few are wanted in most cases, so the best are sorted in growing pieces.
        let mut piece = 64;
        while sorted < self.ranked.len() {
            let rest = &mut self.ranked[sorted..];
            let end = piece.min(rest.len());
            if end < rest.len() {
                rest.select_nth_unstable_by(end, order);
            }
            rest[..end].sort_unstable_by(order);
            for ranked in &rest[..end] {
                sum += f64::from(ranked.weight);
                if sum >= wanted {
                    keep_to(distribution, *ranked, rank);
                    return;
                }
            }
            sorted += end;
            piece = end * 4;
        }
    }

    fn rank(&mut self, distribution: &Distribution, rank: impl Fn(&Candidate) -> f32) {
        self.ranked.clear();
        // The most that there can ever be, so that later calls allocate nothing.
        self.ranked.reserve(distribution.candidates.capacity());
        let ranked = distribution.candidates.iter().map(|candidate| Ranked {
            rank: rank(candidate),
            token: candidate.token,
            weight: candidate.weight,
        });
        self.ranked.extend(ranked);
    }
}

/// Ranks the likeliest first.
fn likelihood(candidate: &Candidate) -> f32 {
    -candidate.weight
}

/// The lower rank first, then the lower id.
fn order(a: &Ranked, b: &Ranked) -> Ordering {
    a.rank.total_cmp(&b.rank).then(a.token.cmp(&b.token))
}

/// Keeps what is not behind `last`, in order of id.
fn keep_to(distribution: &mut Distribution, last: Ranked, rank: impl Fn(&Candidate) -> f32) {
    distribution.candidates.retain(|candidate| {
        let this = rank(candidate).total_cmp(&last.rank);
        this.then(candidate.token.cmp(&last.token)).is_le()
    });
    distribution.sum();
}
