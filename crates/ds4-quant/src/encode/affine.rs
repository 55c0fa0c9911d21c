//! Q2_K, Q4_K and Q5_K: elements are `scale * q - minimum`, q from 0, both fitted for each group.

use super::rounding::round_small;
use crate::blocks::{BlockQ2K, BlockQ4K, BlockQ5K, F16Bits, pack_scales_k4};

/// What a format of this kind can express.
#[derive(Clone, Copy)]
struct Range {
    /// Elements of a group.
    group: usize,
    /// Largest quant.
    quant: f32,
    /// Largest code of a scale or a minimum.
    code: f32,
    /// How far from the nearest codes others are tried.
    reach: i32,
}

const Q2_K: Range = Range {
    group: 16,
    quant: 3.0,
    code: 15.0,
    reach: 2,
};
const Q4_K: Range = Range {
    group: 32,
    quant: 15.0,
    code: 63.0,
    reach: 1,
};
const Q5_K: Range = Range {
    group: 32,
    quant: 31.0,
    code: 63.0,
    reach: 1,
};

/// Scale and minimum of a group; neither is negative.
#[derive(Clone, Copy)]
struct Line {
    scale: f32,
    minimum: f32,
}

impl Line {
    fn quant(self, x: f32, inverse: f32, largest: f32) -> f32 {
        round_small(((x + self.minimum) * inverse).clamp(0.0, largest))
    }

    fn inverse(self) -> f32 {
        if self.scale > 0.0 {
            1.0 / self.scale
        } else {
            0.0
        }
    }

    /// Weighted squared error of the best quants.
    fn error(self, x: &[f32], w: &[f32], largest: f32) -> f32 {
        let inverse = self.inverse();
        x.iter()
            .zip(w)
            .map(|(&x, &w)| {
                let rest = x - (self.scale * self.quant(x, inverse, largest) - self.minimum);
                w * rest * rest
            })
            .sum()
    }

    /// The line that fits best the quants which this one gives.
    fn refit(self, x: &[f32], w: &[f32], largest: f32) -> Self {
        let inverse = self.inverse();
        let (mut sum_w, mut sum_q, mut sum_qq, mut sum_x, mut sum_xq) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for (&x, &w) in x.iter().zip(w) {
            let q = self.quant(x, inverse, largest);
            sum_w += w;
            sum_q += w * q;
            sum_qq += w * q * q;
            sum_x += w * x;
            sum_xq += w * x * q;
        }
        let determinant = sum_w * sum_qq - sum_q * sum_q;
        if determinant > 0.0 {
            let scale = (sum_w * sum_xq - sum_x * sum_q) / determinant;
            let minimum = (sum_q * sum_xq - sum_qq * sum_x) / determinant;
            if minimum >= 0.0 {
                return Self {
                    scale: scale.max(0.0),
                    minimum,
                };
            }
        }
        // A minimum below zero cannot be stored: fit the scale alone.
        let scale = if sum_qq > 0.0 {
            (sum_xq / sum_qq).max(0.0)
        } else {
            0.0
        };
        Self {
            scale,
            minimum: 0.0,
        }
    }
}

/// Searches a real scale and minimum for a group.
fn fit(x: &[f32], w: &[f32], range: Range) -> Line {
    let low = x.iter().fold(0.0_f32, |low, &x| low.min(x));
    let high = x.iter().fold(low, |high, &x| high.max(x));
    let mut best = Line {
        scale: 0.0,
        minimum: -low,
    };
    let mut least = best.error(x, w, range.quant);
    if high <= low {
        return best;
    }
    for step in 0..24 {
        // The range of the group covers from 0.9 quants less to 1.4 more than there are.
        let spread = range.quant - 0.9 + 0.1 * step as f32;
        for minimum in [-low, -low * 0.9, -low * 0.75] {
            let mut line = Line {
                scale: (high - low) / spread,
                minimum,
            };
            for _ in 0..2 {
                line = line.refit(x, w, range.quant);
            }
            let error = line.error(x, w, range.quant);
            if error < least {
                (least, best) = (error, line);
            }
        }
    }
    best
}

/// The codes of a super-block.
struct Codes {
    d: F16Bits,
    dmin: F16Bits,
    /// Scale and minimum of each group; as many as the format has groups.
    scale: [u8; 16],
    minimum: [u8; 16],
    quants: [u8; 256],
}

/// The codes of one group nearest to a real line, and the error they leave.
fn round_group(
    x: &[f32],
    w: &[f32],
    fitted: Line,
    (d, dmin): (f32, f32),
    range: Range,
) -> (u8, u8, f32) {
    let code = |value: f32, unit: f32| {
        if unit > 0.0 {
            (value / unit).round() as i32
        } else {
            0
        }
    };
    let (scale, minimum) = (code(fitted.scale, d), code(fitted.minimum, dmin));
    let around = |middle: i32| {
        let largest = range.code as i32;
        (middle - range.reach).clamp(0, largest)..=(middle + range.reach).clamp(0, largest)
    };
    let mut best = (0, 0, f32::INFINITY);
    for scale in around(scale) {
        for minimum in around(minimum) {
            let line = Line {
                scale: d * scale as f32,
                minimum: dmin * minimum as f32,
            };
            let error = line.error(x, w, range.quant);
            if error < best.2 {
                best = (scale as u8, minimum as u8, error);
            }
        }
    }
    best
}

/// The common scales that fit best the codes found: least squares over the whole block in the two
/// unknowns d and dmin.
fn refit_common(
    src: &[f32; 256],
    weights: &[f32; 256],
    codes: &[(u8, u8, f32)],
    (d, dmin): (f32, f32),
    range: Range,
) -> Option<(f32, f32)> {
    let (mut aa, mut ab, mut bb, mut ax, mut bx) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for (i, (&x, &w)) in src.iter().zip(weights).enumerate() {
        let (scale, minimum, _) = codes[i / range.group];
        let line = Line {
            scale: d * f32::from(scale),
            minimum: dmin * f32::from(minimum),
        };
        let a = f32::from(scale) * line.quant(x, line.inverse(), range.quant);
        let b = -f32::from(minimum);
        aa += w * a * a;
        ab += w * a * b;
        bb += w * b * b;
        ax += w * a * x;
        bx += w * b * x;
    }
    let determinant = aa * bb - ab * ab;
    if determinant > 1e-6 * aa * bb {
        let d = (bb * ax - ab * bx) / determinant;
        let dmin = (aa * bx - ab * ax) / determinant;
        return (d > 0.0 && dmin >= 0.0).then_some((d, dmin));
    }
    (aa > 0.0 && bb == 0.0).then(|| (ax / aa, dmin))
}

fn fit_block(src: &[f32; 256], weights: &[f32; 256], range: Range) -> Codes {
    let groups = 256 / range.group;
    let slice = |g: usize| {
        let range = range.group * g..range.group * (g + 1);
        (&src[range.clone()], &weights[range])
    };
    let fitted: Vec<Line> = (0..groups)
        .map(|g| {
            let (x, w) = slice(g);
            fit(x, w, range)
        })
        .collect();
    let largest = |of: fn(&Line) -> f32| fitted.iter().map(of).fold(0.0, f32::max);
    let (scale, minimum) = (largest(|line| line.scale), largest(|line| line.minimum));
    let mut least = f32::INFINITY;
    let mut best = (F16Bits([0; 2]), F16Bits([0; 2]), vec![(0, 0, 0.0); groups]);
    for shrink in [1.0, 0.93, 0.86] {
        let mut common = (shrink * scale / range.code, shrink * minimum / range.code);
        for _ in 0..3 {
            let halves = (F16Bits::from_f32(common.0), F16Bits::from_f32(common.1));
            let stored = (halves.0.to_f32(), halves.1.to_f32());
            let codes: Vec<(u8, u8, f32)> = (0..groups)
                .map(|g| {
                    let (x, w) = slice(g);
                    round_group(x, w, fitted[g], stored, range)
                })
                .collect();
            let error: f32 = codes.iter().map(|code| code.2).sum();
            let refitted = refit_common(src, weights, &codes, stored, range);
            if error < least {
                least = error;
                best = (halves.0, halves.1, codes);
            }
            match refitted {
                Some(refitted) => common = refitted,
                None => break,
            }
        }
    }
    let (d, dmin, groups) = best;
    let mut codes = Codes {
        d,
        dmin,
        scale: [0; 16],
        minimum: [0; 16],
        quants: [0; 256],
    };
    for (g, &(scale, minimum, _)) in groups.iter().enumerate() {
        (codes.scale[g], codes.minimum[g]) = (scale, minimum);
        let line = Line {
            scale: d.to_f32() * f32::from(scale),
            minimum: dmin.to_f32() * f32::from(minimum),
        };
        for i in range.group * g..range.group * (g + 1) {
            codes.quants[i] = line.quant(src[i], line.inverse(), range.quant) as u8;
        }
    }
    codes
}

pub(super) fn encode_q2_k(src: &[f32; 256], weights: &[f32; 256]) -> BlockQ2K {
    let codes = fit_block(src, weights, Q2_K);
    let mut block = BlockQ2K {
        scales: std::array::from_fn(|g| codes.scale[g] | codes.minimum[g] << 4),
        qs: [0; 64],
        d: codes.d,
        dmin: codes.dmin,
    };
    for (i, &q) in codes.quants.iter().enumerate() {
        block.qs[i / 128 * 32 + i % 32] |= q << (2 * (i / 32 % 4));
    }
    block
}

/// The packed scales and the low 4 bits of the quants, which Q4_K and Q5_K share.
fn pack_k4(codes: &Codes) -> ([u8; 12], [u8; 128]) {
    let first = |codes: &[u8; 16]| std::array::from_fn(|g| codes[g]);
    let mut qs = [0; 128];
    for (i, &q) in codes.quants.iter().enumerate() {
        qs[i / 64 * 32 + i % 32] |= (q & 15) << (4 * (i / 32 % 2));
    }
    (
        pack_scales_k4(&first(&codes.scale), &first(&codes.minimum)),
        qs,
    )
}

pub(super) fn encode_q4_k(src: &[f32; 256], weights: &[f32; 256]) -> BlockQ4K {
    let codes = fit_block(src, weights, Q4_K);
    let (scales, qs) = pack_k4(&codes);
    BlockQ4K {
        d: codes.d,
        dmin: codes.dmin,
        scales,
        qs,
    }
}

pub(super) fn encode_q5_k(src: &[f32; 256], weights: &[f32; 256]) -> BlockQ5K {
    let codes = fit_block(src, weights, Q5_K);
    let (scales, qs) = pack_k4(&codes);
    let mut qh = [0; 32];
    for (i, &q) in codes.quants.iter().enumerate() {
        qh[i % 32] |= (q >> 4) << (i / 32);
    }
    BlockQ5K {
        d: codes.d,
        dmin: codes.dmin,
        scales,
        qh,
        qs,
    }
}
