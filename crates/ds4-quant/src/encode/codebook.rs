//! IQ2_XXS, IQ2_XS and IQ3_XXS: magnitudes from a codebook, signs of even parity, 4-bit scales.
//!
//! Under a given scale `a`, the entry `g` that fits the magnitudes `x` best is the one with the largest
//! `2 a P - a^2 Q` where `P = sum(w x g)` and `Q = sum(w g^2)`. Both are computed once for every entry,
//! so that trying another scale costs two operations for each. Eight elements share a sign byte that must
//! have an even number of minus signs; where the source has an odd number, one element takes the wrong
//! sign. Which one is part of the choice of the entry: flipping element `j` changes P by `-2 w x g`, so
//! the cheapest flip of each entry is known beforehand, too. The search is exact for a given scale.

use crate::blocks::{BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs, F16Bits};
use crate::tables::{IQ2XS_GRID, IQ2XXS_GRID, IQ3XXS_GRID};

/// Elements that share a sign byte.
const SIGNED: usize = 8;

/// Encoder of one codebook, with its working memory.
pub(super) struct CodebookEncoder {
    /// Magnitudes by element, then by entry: `levels[j][k]`.
    levels: Vec<Vec<f32>>,
    /// Largest magnitude.
    largest: f32,
    /// Elements that share a scale.
    group: usize,
    /// Value of one scale step in units of the stored d.
    unit: f32,
    /// One for each run of elements that share a codebook entry.
    parts: Vec<Part>,
}

/// Sums of one run of elements, for every entry.
#[derive(Clone)]
struct Part {
    /// `2 P` with all signs right.
    plain: Vec<f32>,
    /// `2 P` with the cheapest sign wrong; empty where the parity is even.
    flipped: Vec<f32>,
    /// `Q`.
    square: Vec<f32>,
}

/// A chosen super-block.
struct Choice {
    d: F16Bits,
    /// 4-bit scale of each group.
    scale: Vec<u8>,
    /// Entry of each part.
    entry: Vec<u16>,
    /// Sign byte of each 8 elements.
    sign: [u8; 32],
}

/// Entries looked at together; codebooks have a multiple of it.
const LANES: usize = 16;

/// Largest `2 a P - a^2 Q`.
fn gain(p: &[f32], q: &[f32], a: f32) -> f32 {
    let mut best = [f32::NEG_INFINITY; LANES];
    for (p, q) in p
        .as_chunks::<LANES>()
        .0
        .iter()
        .zip(q.as_chunks::<LANES>().0)
    {
        for lane in 0..LANES {
            let value = a * (p[lane] - a * q[lane]);
            // Written as a selection, which is one instruction for all lanes.
            best[lane] = if value > best[lane] {
                value
            } else {
                best[lane]
            };
        }
    }
    best.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The first entry with that gain; 0 when nothing compares, as with NaN.
fn entry(p: &[f32], q: &[f32], a: f32) -> usize {
    let best = gain(p, q, a);
    p.iter()
        .zip(q)
        .position(|(p, q)| a * (p - a * q) == best)
        .unwrap_or(0)
}

impl CodebookEncoder {
    fn new<const E: usize>(
        grid: impl Iterator<Item = [u8; E]> + Clone,
        group: usize,
        unit: f32,
    ) -> Self {
        let levels: Vec<Vec<f32>> = (0..E)
            .map(|j| grid.clone().map(|entry| f32::from(entry[j])).collect())
            .collect();
        let largest = levels.iter().flatten().copied().fold(0.0, f32::max);
        let entries = levels[0].len();
        let part = Part {
            plain: vec![0.0; entries],
            flipped: Vec::with_capacity(entries),
            square: vec![0.0; entries],
        };
        Self {
            levels,
            largest,
            group,
            unit,
            parts: vec![part; 256 / E],
        }
    }

    pub(super) fn iq2_xxs() -> Self {
        Self::new(
            IQ2XXS_GRID.iter().map(|entry| entry.to_le_bytes()),
            32,
            0.125,
        )
    }

    pub(super) fn iq2_xs() -> Self {
        Self::new(
            IQ2XS_GRID.iter().map(|entry| entry.to_le_bytes()),
            16,
            0.125,
        )
    }

    pub(super) fn iq3_xxs() -> Self {
        Self::new(
            IQ3XXS_GRID.iter().map(|entry| entry.to_le_bytes()),
            32,
            0.25,
        )
    }

    /// Elements of one codebook entry.
    fn run(&self) -> usize {
        self.levels.len()
    }

    /// Fills the sums of every part.
    fn prepare(&mut self, src: &[f32; 256], weights: &[f32; 256]) {
        let run = self.run();
        for (index, part) in self.parts.iter_mut().enumerate() {
            let at = run * index;
            let signed = &src[at / SIGNED * SIGNED..][..SIGNED];
            let odd = signed.iter().filter(|x| x.is_sign_negative()).count() % 2 == 1;
            part.plain.fill(0.0);
            part.square.fill(0.0);
            part.flipped.clear();
            if odd {
                part.flipped.resize(part.plain.len(), f32::INFINITY);
            }
            for (j, level) in self.levels.iter().enumerate() {
                let w = weights[at + j];
                let wx = 2.0 * w * src[at + j].abs();
                for (k, &g) in level.iter().enumerate() {
                    part.plain[k] += wx * g;
                    part.square[k] += w * g * g;
                }
                for (least, &g) in part.flipped.iter_mut().zip(level) {
                    *least = least.min(wx * g);
                }
            }
            for (flipped, &plain) in part.flipped.iter_mut().zip(&part.plain) {
                *flipped = plain - 2.0 * *flipped;
            }
        }
    }

    /// Parts that make up the sign byte `byte`.
    fn parts_of(&self, byte: usize) -> &[Part] {
        let parts = SIGNED / self.run();
        &self.parts[parts * byte..parts * (byte + 1)]
    }

    /// Which part of a sign byte takes the wrong sign under scale `a`; none where the parity is even.
    fn flip(parts: &[Part], a: f32) -> Option<usize> {
        let loss =
            |part: &Part| gain(&part.plain, &part.square, a) - gain(&part.flipped, &part.square, a);
        match parts {
            [part, ..] if part.flipped.is_empty() => None,
            [one, other] if loss(other) < loss(one) => Some(1),
            _ => Some(0),
        }
    }

    /// Gain of the parts of a sign byte under scale `a`; one of them takes the wrong sign where the
    /// parity is odd.
    fn byte_gain(parts: &[Part], a: f32) -> f32 {
        let plain = |part: &Part| gain(&part.plain, &part.square, a);
        let flipped = |part: &Part| gain(&part.flipped, &part.square, a);
        match parts {
            [part, ..] if part.flipped.is_empty() => parts.iter().map(plain).sum(),
            [one, other] => (flipped(one) + plain(other)).max(plain(one) + flipped(other)),
            _ => parts.iter().map(flipped).sum(),
        }
    }

    /// Gain of a group under scale `a`.
    fn group_gain(&self, group: usize, a: f32) -> f32 {
        let bytes = self.group / SIGNED;
        (bytes * group..bytes * (group + 1))
            .map(|byte| Self::byte_gain(self.parts_of(byte), a))
            .sum()
    }

    /// Sums of P and Q of the chosen entries of a group under scale `a`.
    fn group_sums(&self, group: usize, a: f32) -> (f32, f32) {
        let bytes = self.group / SIGNED;
        let (mut sum_p, mut sum_q) = (0.0, 0.0);
        for byte in bytes * group..bytes * (group + 1) {
            let parts = self.parts_of(byte);
            let flip = Self::flip(parts, a);
            for (i, part) in parts.iter().enumerate() {
                let p = if flip == Some(i) {
                    &part.flipped
                } else {
                    &part.plain
                };
                let k = entry(p, &part.square, a);
                sum_p += 0.5 * p[k];
                sum_q += part.square[k];
            }
        }
        (sum_p, sum_q)
    }

    /// The real scale that suits a group best.
    fn fit_group(&self, src: &[f32; 256], group: usize) -> f32 {
        let x = &src[self.group * group..self.group * (group + 1)];
        let amax = x.iter().fold(0.0_f32, |amax, x| amax.max(x.abs()));
        let mut best = (0.0, 0.0);
        if amax == 0.0 {
            return 0.0;
        }
        // From the largest element at twice the largest magnitude to it at 0.7 of that.
        for step in 0..12 {
            let a = amax / self.largest * (0.5 + 0.085 * step as f32);
            let gain = self.group_gain(group, a);
            if gain > best.0 {
                best = (gain, a);
            }
        }
        let (sum_p, sum_q) = self.group_sums(group, best.1);
        if sum_p > 0.0 && sum_q > 0.0 {
            sum_p / sum_q
        } else {
            best.1
        }
    }

    /// The best 4-bit scales under a common scale, their total gain, and the common scale that would
    /// suit them better.
    fn round_scales(&self, fitted: &[f32], unit: f32) -> (Vec<u8>, f32, f32) {
        let (mut total, mut sum_p, mut sum_q) = (0.0, 0.0, 0.0);
        let mut scales = Vec::with_capacity(fitted.len());
        for (group, &a) in fitted.iter().enumerate() {
            let middle = ((a / unit - 1.0) * 0.5).round() as i32;
            let mut best = (f32::NEG_INFINITY, 0);
            for scale in middle.saturating_sub(1)..=middle.saturating_add(1) {
                let scale = scale.clamp(0, 15);
                let gain = self.group_gain(group, unit * (2 * scale + 1) as f32);
                if gain > best.0 {
                    best = (gain, scale);
                }
            }
            let steps = (2 * best.1 + 1) as f32;
            let (p, q) = self.group_sums(group, unit * steps);
            total += best.0;
            sum_p += steps * p;
            sum_q += steps * steps * q;
            scales.push(best.1 as u8);
        }
        let better = if sum_p > 0.0 && sum_q > 0.0 {
            sum_p / sum_q
        } else {
            unit
        };
        (scales, total, better)
    }

    fn choose(&mut self, src: &[f32; 256], weights: &[f32; 256]) -> Choice {
        self.prepare(src, weights);
        let groups = 256 / self.group;
        let fitted: Vec<f32> = (0..groups)
            .map(|group| self.fit_group(src, group))
            .collect();
        let largest = fitted.iter().copied().fold(0.0, f32::max);
        let mut best = (0.0, F16Bits([0; 2]), vec![0; groups]);
        // The largest scale gets code 15, 31 steps, or somewhat less or more than that.
        for steps in [31.0, 29.0, 34.0] {
            let mut unit = largest / steps;
            for _ in 0..2 {
                let d = F16Bits::from_f32(unit / self.unit);
                let stored = d.to_f32() * self.unit;
                if stored == 0.0 {
                    break;
                }
                let (scales, gain, better) = self.round_scales(&fitted, stored);
                if gain > best.0 {
                    best = (gain, d, scales);
                }
                unit = better;
            }
        }
        let (_, d, scale) = best;
        self.finish(src, d, scale, weights)
    }

    /// The entries and signs under the scales chosen.
    fn finish(&self, src: &[f32; 256], d: F16Bits, scale: Vec<u8>, weights: &[f32; 256]) -> Choice {
        let run = self.run();
        let mut choice = Choice {
            d,
            scale,
            entry: vec![0; 256 / run],
            sign: [0; 32],
        };
        for byte in 0..32 {
            let at = SIGNED * byte;
            let steps = 2 * choice.scale[at / self.group] + 1;
            let a = d.to_f32() * self.unit * f32::from(steps);
            let parts = self.parts_of(byte);
            let flip = Self::flip(parts, a);
            for j in 0..SIGNED {
                choice.sign[byte] |= u8::from(src[at + j].is_sign_negative()) << j;
            }
            for (i, part) in parts.iter().enumerate() {
                let wrong = flip == Some(i);
                let p = if wrong { &part.flipped } else { &part.plain };
                let k = entry(p, &part.square, a);
                choice.entry[byte * parts.len() + i] = k as u16;
                if wrong {
                    let cost = |j: usize| {
                        let at = at + run * i + j;
                        weights[at] * src[at].abs() * self.levels[j][k]
                    };
                    let mut cheapest = 0;
                    for j in 1..run {
                        if cost(j) < cost(cheapest) {
                            cheapest = j;
                        }
                    }
                    choice.sign[byte] ^= 1 << (run * i + cheapest);
                }
            }
        }
        choice
    }

    pub(super) fn encode_iq2_xxs(&mut self, src: &[f32; 256], weights: &[f32; 256]) -> BlockIq2Xxs {
        let choice = self.choose(src, weights);
        let qs = std::array::from_fn(|g| {
            let [w0, w1, w2, w3] = choice.sign_word(g).to_le_bytes();
            let entry = |l: usize| choice.entry[4 * g + l] as u8;
            [entry(0), entry(1), entry(2), entry(3), w0, w1, w2, w3]
        });
        BlockIq2Xxs { d: choice.d, qs }
    }

    pub(super) fn encode_iq2_xs(&mut self, src: &[f32; 256], weights: &[f32; 256]) -> BlockIq2Xs {
        let choice = self.choose(src, weights);
        let word = |l: usize| choice.entry[l] | u16::from(choice.sign[l] & 127) << 9;
        BlockIq2Xs {
            d: choice.d,
            qs: std::array::from_fn(|l| word(l).to_le_bytes()),
            scales: std::array::from_fn(|g| choice.scale[2 * g] | choice.scale[2 * g + 1] << 4),
        }
    }

    pub(super) fn encode_iq3_xxs(&mut self, src: &[f32; 256], weights: &[f32; 256]) -> BlockIq3Xxs {
        let choice = self.choose(src, weights);
        BlockIq3Xxs {
            d: choice.d,
            qs: std::array::from_fn(|l| choice.entry[l] as u8),
            signs: std::array::from_fn(|g| choice.sign_word(g).to_le_bytes()),
        }
    }
}

impl Choice {
    /// Four 7-bit sign indices, whose eighth bit is implied by the parity, and a scale on top.
    fn sign_word(&self, group: usize) -> u32 {
        let signs = (0..4).map(|l| u32::from(self.sign[4 * group + l] & 127) << (7 * l));
        signs.sum::<u32>() | u32::from(self.scale[group]) << 28
    }
}
