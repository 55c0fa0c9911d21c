//! Operations on single rows: norms, activation functions, rotations, mixing.
//!
//! Written once, portably, with 16 sums side by side and explicit fused multiply-adds, and compiled once
//! per instruction set: the compiler turns the loops into vector instructions, and the results are the
//! same bits everywhere.

use ds4_quant::kv_rows::{Q4_BLOCK, Q4_LEVELS};

use super::float::{LANES, sum_lanes};

/// The operations, compiled for one instruction set. All are called through
/// [`Kernels::row_ops`](super::Kernels::row_ops), so the instruction set is present.
macro_rules! row_ops {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block)*) => {
        /// Row operations of one instruction set.
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct RowOps {
            $($name: unsafe fn($($type),*) $(-> $result)?,)*
        }

        impl RowOps {
            $($(#[$doc])*
            pub(crate) fn $name(&self, $($argument: $type),*) $(-> $result)? {
                // SAFETY: the functions are of an instruction set that this machine has: the struct
                // is only made from the constants below, in tables built from its token.
                unsafe { (self.$name)($($argument),*) }
            })*

            /// For any machine.
            pub(super) const PORTABLE: Self = Self { $($name: portable::$name,)* };

            /// For machines with AVX2 and FMA.
            #[cfg(target_arch = "x86_64")]
            pub(super) const AVX2: Self = Self { $($name: avx2::$name,)* };

            /// For machines with AVX-512.
            #[cfg(target_arch = "x86_64")]
            pub(super) const AVX512: Self = Self { $($name: avx512::$name,)* };
        }

        mod portable {
            #[allow(unused_imports, reason = "shared by all operations")]
            use super::*;
            $(#[inline(always)]
            pub(super) fn $name($($argument: $type),*) $(-> $result)? $body)*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx2 {
            $(#[target_feature(enable = "avx2,fma,f16c")]
            pub(super) fn $name($($argument: $type),*) $(-> $result)? {
                super::portable::$name($($argument),*)
            })*
        }

        #[cfg(target_arch = "x86_64")]
        mod avx512 {
            $(#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
            pub(super) fn $name($($argument: $type),*) $(-> $result)? {
                super::portable::$name($($argument),*)
            })*
        }
    };
}

row_ops! {
    /// Sum of squares.
    fn sum_of_squares(row: &[f32]) -> f32 {
        let (chunks, rest) = row.as_chunks::<LANES>();
        let mut lanes = [0.0_f32; LANES];
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *lane = x.mul_add(*x, *lane);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *lane = x.mul_add(*x, *lane);
        }
        sum_lanes(lanes)
    }

    /// Sum of products.
    fn dot(a: &[f32], b: &[f32]) -> f32 {
        let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<LANES>(), b.as_chunks::<LANES>());
        let mut lanes = [0.0_f32; LANES];
        for (a, b) in a.iter().zip(b) {
            for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
                *lane = a.mul_add(*b, *lane);
            }
        }
        for ((lane, a), b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
            *lane = a.mul_add(*b, *lane);
        }
        sum_lanes(lanes)
    }

    /// `row = row * scale * weight`, element by element.
    fn scale_by(row: &mut [f32], scale: f32, weight: &[f32]) {
        for (x, weight) in row.iter_mut().zip(weight) {
            *x = *x * scale * *weight;
        }
    }

    /// `row = row * scale`.
    fn scale(row: &mut [f32], scale: f32) {
        for x in row {
            *x *= scale;
        }
    }

    /// `target = sum over j of weights[j] * streams[j]`, streams one after the other.
    fn mix_down(streams: &[f32], weights: &[f32], target: &mut [f32]) {
        let width = target.len();
        target.fill(0.0);
        for (weight, stream) in weights.iter().zip(streams.chunks_exact(width)) {
            for (target, x) in target.iter_mut().zip(stream) {
                *target = weight.mul_add(*x, *target);
            }
        }
    }

    /// `streams[k] = post[k] * output + sum over j of comb[j][k] * streams[j]` for four streams, in place.
    fn mix_up_4(streams: [&mut [f32]; 4], post: &[f32; 4], comb: &[[f32; 4]; 4], output: &[f32]) {
        let [a, b, c, d] = streams;
        let all = a.iter_mut().zip(b).zip(c).zip(d).zip(output);
        for ((((a, b), c), d), y) in all {
            let old = [*a, *b, *c, *d];
            let new = |k: usize| {
                let mut sum = post[k] * *y;
                for j in 0..4 {
                    sum = comb[j][k].mul_add(old[j], sum);
                }
                sum
            };
            (*a, *b, *c, *d) = (new(0), new(1), new(2), new(3));
        }
    }

    /// `gate = silu(min(gate, clamp)) * clamp(up, -clamp, clamp)`.
    fn clamped_swiglu(gate: &mut [f32], up: &[f32], clamp: f32) {
        for (gate, up) in gate.iter_mut().zip(up) {
            // Comparisons, not min and max: NaN stays.
            let g = if *gate > clamp { clamp } else { *gate };
            let u = if *up > clamp { clamp } else { *up };
            let u = if u < -clamp { -clamp } else { u };
            *gate = g / (1.0 + exp(-g)) * u;
        }
    }

    /// `row = exp(row - max)`; returns the sum.
    fn exponentials(row: &mut [f32], max: f32) -> f32 {
        let mut lanes = [0.0_f32; LANES];
        let (chunks, rest) = row.as_chunks_mut::<LANES>();
        for chunk in chunks {
            for (lane, x) in lanes.iter_mut().zip(chunk) {
                *x = exp(*x - max);
                *lane += *x;
            }
        }
        for (lane, x) in lanes.iter_mut().zip(rest) {
            *x = exp(*x - max);
            *lane += *x;
        }
        sum_lanes(lanes)
    }

    /// `weights += exp(score - max)`, `sums += that * content`, element by element.
    fn pool(score: &[f32], max: &[f32], content: &[f32], weights: &mut [f32], sums: &mut [f32]) {
        let all = score.iter().zip(max).zip(content).zip(weights).zip(sums);
        for ((((score, max), content), weight), sum) in all {
            let e = exp(*score - *max);
            *weight += e;
            *sum = e.mul_add(*content, *sum);
        }
    }

    /// `max = max(max, x)`, element by element.
    fn maxima(max: &mut [f32], x: &[f32]) {
        for (max, x) in max.iter_mut().zip(x) {
            *max = if *x > *max { *x } else { *max };
        }
    }

    /// `target += weight * row`.
    fn add_scaled(target: &mut [f32], weight: f32, row: &[f32]) {
        for (target, x) in target.iter_mut().zip(row) {
            *target = weight.mul_add(*x, *target);
        }
    }

    /// `outputs[h] += sum over r of weights[h][r] * rows[r]`, rows in order.
    ///
    /// `weights` has `weight_stride` elements per head, `rows` and `outputs` rows of `dim` elements.
    fn weighted_rows(
        weights: &[f32],
        weight_stride: usize,
        count: usize,
        rows: &[f32],
        dim: usize,
        outputs: &mut [f32]
    ) {
        // 4 heads with 4 registers of columns each share every loaded row.
        const HEADS: usize = 4;
        const COLUMNS: usize = 4 * LANES;
        let heads = outputs.len() / dim;
        let mut head = 0;
        while head < heads {
            let group = (heads - head).min(HEADS);
            let mut column = 0;
            while column < dim {
                let width = (dim - column).min(COLUMNS);
                if group == HEADS && width == COLUMNS {
                    let mut sums = [[0.0_f32; COLUMNS]; HEADS];
                    for (h, sums) in sums.iter_mut().enumerate() {
                        let start = (head + h) * dim + column;
                        sums.copy_from_slice(&outputs[start..start + COLUMNS]);
                    }
                    for r in 0..count {
                        let start = r * dim + column;
                        let row = &rows[start..start + COLUMNS];
                        for (h, sums) in sums.iter_mut().enumerate() {
                            let weight = weights[(head + h) * weight_stride + r];
                            for (sum, x) in sums.iter_mut().zip(row) {
                                *sum = weight.mul_add(*x, *sum);
                            }
                        }
                    }
                    for (h, sums) in sums.iter().enumerate() {
                        let start = (head + h) * dim + column;
                        outputs[start..start + COLUMNS].copy_from_slice(sums);
                    }
                } else {
                    for h in head..head + group {
                        let output = &mut outputs[h * dim + column..h * dim + column + width];
                        for r in 0..count {
                            let weight = weights[h * weight_stride + r];
                            let row = &rows[r * dim + column..r * dim + column + width];
                            for (sum, x) in output.iter_mut().zip(row) {
                                *sum = weight.mul_add(*x, *sum);
                            }
                        }
                    }
                }
                column += width;
            }
            head += group;
        }
    }

    /// Rotates interleaved pairs by `(cos, sin)`; `sign` -1 rotates back.
    fn rotate(pairs: &mut [f32], table: &[f32], sign: f32) {
        for (pair, angle) in pairs.as_chunks_mut::<2>().0.iter_mut().zip(table.as_chunks::<2>().0) {
            let (cos, sin) = (angle[0], sign * angle[1]);
            let [x, y] = *pair;
            *pair = [x.mul_add(cos, -(y * sin)), x.mul_add(sin, y * cos)];
        }
    }

    /// E4M3 codes times `scale`, a power of two, as f32.
    fn e4m3_to_f32(codes: &[u8], scale: f32, out: &mut [f32]) {
        // In the place of an F16, the code is the value times 2^-8; F32 arithmetic makes that exact.
        for (code, out) in codes.iter().zip(out) {
            let magnitude = u32::from(code & 0x7f);
            let sign = u32::from(code & 0x80) << 24;
            // Exponent 0 stands for subnormals: their value is the mantissa times 2^-9.
            let subnormal = magnitude as f32 * (1.0 / 512.0);
            let normal = f32::from_bits((magnitude << 20) + ((127 - 7) << 23));
            let value = if magnitude < 8 { subnormal } else { normal };
            let value = if magnitude == 0x7f { f32::NAN } else { value };
            *out = f32::from_bits(value.to_bits() | sign) * scale;
        }
    }

    /// Two E2M1 codes per byte, the first in the low half, times `scale`, as f32.
    fn e2m1_to_f32(bytes: &[u8], scale: f32, out: &mut [f32]) {
        for (byte, out) in bytes.iter().zip(out.as_chunks_mut::<2>().0) {
            let value = |code: u32| {
                let magnitude = code & 7;
                // Exponent 0 stands for subnormals: 0 and 0.5.
                let normal = f32::from_bits((magnitude << 22) + ((127 - 1) << 23));
                let value = if magnitude < 2 { magnitude as f32 * 0.5 } else { normal };
                f32::from_bits(value.to_bits() | (code & 8) << 28) * scale
            };
            *out = [value(u32::from(byte & 15)), value(u32::from(byte >> 4))];
        }
    }

    /// Blocks of 64 codes of Lloyd-Max levels times the BF16 scale of each block, not rotated back.
    fn q4_to_f32(codes: &[u8], scales: &[u8], out: &mut [f32]) {
        let blocks = codes
            .as_chunks::<{ Q4_BLOCK / 2 }>().0
            .iter()
            .zip(out.as_chunks_mut::<Q4_BLOCK>().0)
            .zip(scales.as_chunks::<2>().0);
        for ((codes, out), scale) in blocks {
            let scale = f32::from_bits(u32::from(u16::from_le_bytes(*scale)) << 16);
            // A chain of selections, written out: as a loop, it does not become vector instructions.
            let value = |code: u32| {
                let at_least = |level, index| {
                    if code & 7 >= index as u32 { Q4_LEVELS[index] } else { level }
                };
                let level = at_least(at_least(at_least(Q4_LEVELS[0], 1), 2), 3);
                let level = at_least(at_least(at_least(at_least(level, 4), 5), 6), 7);
                f32::from_bits(level.to_bits() | (code & 8) << 28) * scale
            };
            let (low, high) = out.split_at_mut(Q4_BLOCK / 2);
            for (code, out) in codes.iter().zip(low) {
                *out = value(u32::from(code & 15));
            }
            for (code, out) in codes.iter().zip(high) {
                *out = value(u32::from(code >> 4));
            }
        }
    }

    /// Rotates the blocks of Q4 rows there or back.
    fn q4_rotate(row: &mut [f32]) {
        ds4_quant::kv_rows::q4_rotate(row);
    }

    /// BF16 bits as f32.
    fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) {
        for (bits, out) in bytes.as_chunks::<2>().0.iter().zip(out) {
            *out = f32::from_bits(u32::from(u16::from_le_bytes(*bits)) << 16);
        }
    }
}

/// e^x within two units in the last place; 0 below -87.3, infinity above 88.7, NaN for NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by a polynomial of degree 6 (Cephes' coefficients), 2^n by
/// its exponent bits.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // Adding and taking away 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let n = x.mul_add(LOG2_E, ROUND) - ROUND;
    let r = n.mul_add(-LN_2_HIGH, x);
    let r = n.mul_add(-LN_2_LOW, r);
    let mut p = 1.987_569_1e-4_f32;
    p = p.mul_add(r, 1.398_199_9e-3);
    p = p.mul_add(r, 8.333_452e-3);
    p = p.mul_add(r, 4.166_579_6e-2);
    p = p.mul_add(r, 1.666_666_5e-1);
    p = p.mul_add(r, 5e-1);
    let e = p.mul_add(r * r, r) + 1.0;
    // Two factors, so that the smallest and largest results are reached without overflow on the way.
    let bits = n as i32;
    let half = bits >> 1;
    let power = |n: i32| f32::from_bits(((n + 127) as u32) << 23);
    let value = e * power(half) * power(bits - half);
    let value = if x < -87.336_54 { 0.0 } else { value };
    if x > 88.722_83 { f32::INFINITY } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 2.0 * f64::from(f32::EPSILON), "{worst}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-100.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn all_codes_of_the_small_floats_decode() {
        let codes: Vec<u8> = (0..=255).collect();
        let mut out = vec![0.0; 256];
        RowOps::PORTABLE.e4m3_to_f32(&codes, 0.25, &mut out);
        for (code, value) in codes.iter().zip(&out) {
            let expected = ds4_quant::float8::e4m3_to_f32(*code) * 0.25;
            assert!(
                *value == expected || value.is_nan() && expected.is_nan(),
                "{code}"
            );
        }
        let mut out = vec![0.0; 512];
        RowOps::PORTABLE.e2m1_to_f32(&codes, 2.0, &mut out);
        for (code, pair) in codes.iter().zip(out.as_chunks::<2>().0) {
            let expected = [code & 15, code >> 4].map(ds4_quant::float4::e2m1_to_f32);
            assert_eq!(*pair, expected.map(|value| value * 2.0));
        }
    }

    #[test]
    fn q4_rows_decode_as_the_reference_on_every_instruction_set() {
        use ds4_quant::kv_rows::{q4_row_bytes, q4_row_decode};

        let mut sets = vec![RowOps::PORTABLE];
        #[cfg(target_arch = "x86_64")]
        {
            use crate::kernels::isa::{Avx2, Avx512};
            sets.extend(Avx2::detect().map(|_| RowOps::AVX2));
            sets.extend(Avx512::detect().map(|_| RowOps::AVX512));
        }
        // All codes in both halves, and scales of every kind.
        let codes: Vec<u8> = (0..=255).collect();
        let scales = [
            0x3f80_u16, 0x3eaa, 0, 0x0001, 0x7f7f, 0x7f80, 0x7fc0, 0x4123,
        ];
        let bytes: Vec<u8> = codes
            .into_iter()
            .chain(scales.into_iter().flat_map(u16::to_le_bytes))
            .collect();
        assert_eq!(bytes.len(), q4_row_bytes(512));
        let mut expected = vec![0.0; 512];
        q4_row_decode(&bytes, &mut expected).unwrap();
        for ops in sets {
            let mut found = vec![0.0; 512];
            ops.q4_to_f32(&bytes[..256], &bytes[256..], &mut found);
            ops.q4_rotate(&mut found);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(),
                    "{found} for {expected}"
                );
            }
        }
    }

    #[test]
    fn weighted_rows_sum_in_order() {
        for (heads, dim, count) in [(1, 7, 3), (4, 64, 5), (6, 192, 17), (9, 80, 64)] {
            let weights: Vec<f32> = (0..heads * 64).map(|i| (i % 13) as f32 * 0.1).collect();
            let rows: Vec<f32> = (0..count * dim).map(|i| (i % 29) as f32 - 14.0).collect();
            let mut outputs = vec![1.0; heads * dim];
            RowOps::PORTABLE.weighted_rows(&weights, 64, count, &rows, dim, &mut outputs);
            for h in 0..heads {
                for c in 0..dim {
                    let expected = (0..count).fold(1.0_f32, |sum, r| {
                        weights[h * 64 + r].mul_add(rows[r * dim + c], sum)
                    });
                    assert_eq!(outputs[h * dim + c], expected);
                }
            }
        }
    }
}
