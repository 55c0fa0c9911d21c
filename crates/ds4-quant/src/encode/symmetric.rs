//! Q4_0, Q3_K and Q6_K: elements are `scale * q` with q in a range around zero.

use super::rounding::round_small;
use crate::blocks::{BlockQ3K, BlockQ4_0, BlockQ6K, F16Bits};

/// Extreme candidates tried for a scale, in tenths of a quant.
const STEPS: i32 = 12;

/// A scale with the error that its best quants leave.
#[derive(Clone, Copy)]
struct Fit {
    scale: f32,
    error: f32,
}

/// Nearest quant in `lowest..=-lowest - 1`, ties to even.
fn quant(x: f32, inverse: f32, lowest: i32) -> f32 {
    round_small((x * inverse).clamp(lowest as f32, (-lowest - 1) as f32))
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// Weighted squared error of the best quants under a scale.
fn error(x: &[f32], w: &[f32], scale: f32, lowest: i32) -> f32 {
    let inverse = inverse(scale);
    x.iter()
        .zip(w)
        .map(|(&x, &w)| {
            let rest = x - scale * quant(x, inverse, lowest);
            w * rest * rest
        })
        .sum()
}

/// The scale that fits best the quants which `scale` gives.
fn refit(x: &[f32], w: &[f32], scale: f32, lowest: i32) -> f32 {
    let inverse = inverse(scale);
    let (mut xq, mut qq) = (0.0, 0.0);
    for (&x, &w) in x.iter().zip(w) {
        let q = quant(x, inverse, lowest);
        xq += w * x * q;
        qq += w * q * q;
    }
    if qq > 0.0 { xq / qq } else { 0.0 }
}

/// Searches a real scale: the extreme element goes to either end of the range, or somewhat beyond or
/// short of it, and each candidate is refitted.
fn fit(x: &[f32], w: &[f32], lowest: i32) -> Fit {
    let extreme = x
        .iter()
        .fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    let mut best = Fit {
        scale: 0.0,
        error: error(x, w, 0.0, lowest),
    };
    if extreme == 0.0 {
        return best;
    }
    for step in -STEPS..=STEPS {
        for end in [lowest, -lowest - 1] {
            let mut scale = extreme / (end as f32 + 0.1 * step as f32);
            for _ in 0..2 {
                scale = refit(x, w, scale, lowest);
            }
            let error = error(x, w, scale, lowest);
            if error < best.error {
                best = Fit { scale, error };
            }
        }
    }
    best
}

pub(super) fn encode_q4_0(src: &[f32; 32], weights: &[f32; 32]) -> BlockQ4_0 {
    let fitted = fit(src, weights, -8).scale;
    let d = F16Bits::from_f32(fitted);
    let inverse = inverse(d.to_f32());
    let code = |x: f32| (quant(x, inverse, -8) + 8.0) as u8;
    BlockQ4_0 {
        d,
        qs: std::array::from_fn(|j| code(src[j]) | code(src[j + 16]) << 4),
    }
}

/// The scales of a super-block of 16 groups.
struct Scales {
    d: F16Bits,
    code: [i32; 16],
}

/// Fits the scale codes of 16 groups, in `scale_lowest..=-scale_lowest - 1`, and their common scale.
fn fit_scales(src: &[f32; 256], weights: &[f32; 256], lowest: i32, scale_lowest: i32) -> Scales {
    let group = |g: usize| (&src[16 * g..16 * g + 16], &weights[16 * g..16 * g + 16]);
    let fitted: [f32; 16] = std::array::from_fn(|g| {
        let (x, w) = group(g);
        fit(x, w, lowest).scale
    });
    let extreme = fitted
        .iter()
        .fold(0.0_f32, |m, &x| if x.abs() > m.abs() { x } else { m });
    let mut best = (
        f32::INFINITY,
        Scales {
            d: F16Bits([0; 2]),
            code: [0; 16],
        },
    );
    // The largest scale goes to the end of the range that has one code more, or a little short of it.
    for shrink in [1.0, 0.97, 0.94] {
        let mut d = F16Bits::from_f32(extreme / (scale_lowest as f32 * shrink));
        for _ in 0..3 {
            let value = d.to_f32();
            let mut code = [0; 16];
            let (mut total, mut xq, mut qq) = (0.0, 0.0, 0.0);
            for g in 0..16 {
                let (x, w) = group(g);
                let middle = (fitted[g] * inverse(value)).round_ties_even() as i32;
                let mut least = f32::INFINITY;
                for candidate in middle.saturating_sub(1)..=middle.saturating_add(1) {
                    let candidate = candidate.clamp(scale_lowest, -scale_lowest - 1);
                    let error = error(x, w, value * candidate as f32, lowest);
                    if error < least {
                        (least, code[g]) = (error, candidate);
                    }
                }
                total += least;
                let scale_inverse = inverse(value * code[g] as f32);
                for (&x, &w) in x.iter().zip(w) {
                    let q = code[g] as f32 * quant(x, scale_inverse, lowest);
                    xq += w * x * q;
                    qq += w * q * q;
                }
            }
            if total < best.0 {
                best = (total, Scales { d, code });
            }
            if qq <= 0.0 {
                break;
            }
            d = F16Bits::from_f32(xq / qq);
        }
    }
    best.1
}

/// Quants of all elements, less `lowest`, so from 0.
fn quants(src: &[f32; 256], scales: &Scales, lowest: i32) -> [u8; 256] {
    let d = scales.d.to_f32();
    std::array::from_fn(|i| {
        let inverse = inverse(d * scales.code[i / 16] as f32);
        (quant(src[i], inverse, lowest) - lowest as f32) as u8
    })
}

pub(super) fn encode_q3_k(src: &[f32; 256], weights: &[f32; 256]) -> BlockQ3K {
    let scales = fit_scales(src, weights, -4, -32);
    let q = quants(src, &scales, -4);
    let mut block = BlockQ3K {
        hmask: [0; 32],
        qs: [0; 64],
        scales: [0; 12],
        d: scales.d,
    };
    for (i, &q) in q.iter().enumerate() {
        block.hmask[i % 32] |= (q >> 2) << (i / 32);
        block.qs[i / 128 * 32 + i % 32] |= (q & 3) << (2 * (i / 32 % 4));
    }
    for (g, &code) in scales.code.iter().enumerate() {
        let code = (code + 32) as u8;
        block.scales[g % 8] |= (code & 15) << (4 * (g / 8));
        block.scales[8 + g % 4] |= (code >> 4) << (2 * (g / 4));
    }
    block
}

pub(super) fn encode_q6_k(src: &[f32; 256], weights: &[f32; 256]) -> BlockQ6K {
    let scales = fit_scales(src, weights, -32, -128);
    let q = quants(src, &scales, -32);
    let mut block = BlockQ6K {
        ql: [0; 128],
        qh: [0; 64],
        scales: scales.code.map(|c| c as i8),
        d: scales.d,
    };
    for (i, &q) in q.iter().enumerate() {
        let (h, k, l) = (i / 128, i / 32 % 4, i % 32);
        block.ql[64 * h + 32 * (k % 2) + l] |= (q & 15) << (4 * (k / 2));
        block.qh[32 * h + l] |= (q >> 4) << (2 * k);
    }
    block
}
