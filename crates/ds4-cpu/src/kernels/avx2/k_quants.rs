//! Q2_K to Q6_K: super-blocks of 256 elements.

use std::arch::x86_64::*;

use ds4_quant::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::unpack::{Step, Unpack, f16_scale, load};

/// The four fields of 2 bits of every byte.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn two_bits(bytes: __m256i) -> [__m256i; 4] {
    let low = _mm256_set1_epi8(3);
    [
        _mm256_and_si256(bytes, low),
        _mm256_and_si256(_mm256_srli_epi16::<2>(bytes), low),
        _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low),
        _mm256_and_si256(_mm256_srli_epi16::<6>(bytes), low),
    ]
}

/// `value` in the bytes whose bit `run` in `bits` is set, else 0.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn where_set(bits: __m256i, run: usize, value: i8) -> __m256i {
    let bit = _mm256_set1_epi8((1_u8 << run) as i8);
    let set = _mm256_cmpeq_epi8(_mm256_and_si256(bits, bit), bit);
    _mm256_and_si256(set, _mm256_set1_epi8(value))
}

/// `d` times 16 signed bytes, those of even and of odd index: scales of the halves of runs.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn half_scales(d: __m256, scales: __m128i) -> [__m256; 2] {
    let order = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    let sorted = _mm_shuffle_epi8(scales, order);
    let times_d =
        |bytes: __m128i| _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), d);
    [times_d(sorted), times_d(_mm_unpackhi_epi64(sorted, sorted))]
}

/// Q2_K: 16 bytes of scales and minima, 64 of quants, F16 scale and factor of the minima.
pub(in crate::kernels) struct Q2K;

impl Unpack for Q2K {
    type Block = BlockQ2K;
    const OFFSET: u8 = 0;
    const LARGEST: u8 = 45;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 84 bytes can be read.
        let (packed, bytes, scale, min_scale) = unsafe {
            (
                _mm_loadu_si128(weights.cast()),
                [load(weights.add(16)), load(weights.add(48))],
                f16_scale(weights.add(80)),
                f16_scale(weights.add(82)),
            )
        };
        let low = _mm_set1_epi8(15);
        let scales = _mm256_broadcastsi128_si256(_mm_and_si128(packed, low));
        let [a, b, c, d] = two_bits(bytes[0]);
        let [e, f, g, h] = two_bits(bytes[1]);
        let mut q = [a, b, c, d, e, f, g, h];
        for (run, q) in q.iter_mut().enumerate() {
            // The scale of each half in its 16-bit words. Two bytes are multiplied at once, the product
            // of the lower one (45 at most) never reaches the higher one.
            let group = 2 * run as i16;
            let halves = _mm256_set_m128i(
                _mm_set1_epi16(0x8000_u16 as i16 | (group + 1)),
                _mm_set1_epi16(0x8000_u16 as i16 | group),
            );
            *q = _mm256_mullo_epi16(*q, _mm256_shuffle_epi8(scales, halves));
        }
        let min = _mm_and_si128(_mm_srli_epi16::<4>(packed), low);
        Step {
            q,
            scale: [scale; 2],
            min: _mm256_cvtepu8_epi16(min),
            min_scale,
        }
    }
}

/// Q3_K: 32 bytes of high bits, 64 of low bits, 12 of scales, F16 scale.
pub(in crate::kernels) struct Q3K;

impl Unpack for Q3K {
    type Block = BlockQ3K;
    const OFFSET: u8 = 4;
    const LARGEST: u8 = 7;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 110 bytes can be read.
        let (high, bytes, [s0, s1, s2], d) = unsafe {
            let word = |i: usize| weights.add(96 + 4 * i).cast::<u32>().read_unaligned();
            (
                load(weights),
                [load(weights.add(32)), load(weights.add(64))],
                [word(0), word(1), word(2)],
                f16_scale(weights.add(108)),
            )
        };
        let [a, b, c, e] = two_bits(bytes[0]);
        let [f, g, h, i] = two_bits(bytes[1]);
        let mut q = [a, b, c, e, f, g, h, i];
        for (run, q) in q.iter_mut().enumerate() {
            *q = _mm256_or_si256(*q, where_set(high, run, 4));
        }
        let scale = |low: u32, high: u32| (low & 0x0f0f_0f0f) | (high & 0x0303_0303) << 4;
        let scales = _mm_setr_epi32(
            scale(s0, s2) as i32,
            scale(s1, s2 >> 2) as i32,
            scale(s0 >> 4, s2 >> 4) as i32,
            scale(s1 >> 4, s2 >> 6) as i32,
        );
        Step {
            q,
            scale: half_scales(d, _mm_sub_epi8(scales, _mm_set1_epi8(32))),
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}

/// Scales, pairs of minima and their factors of a Q4_K or Q5_K block.
///
/// # Safety
/// 16 bytes can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn k4_scales(weights: *const u8) -> (__m256, __m256i, __m256) {
    // SAFETY: promised by the caller.
    let (d, min_scale, [a, b, c]) = unsafe {
        let word = |i: usize| weights.add(4 + 4 * i).cast::<u32>().read_unaligned();
        (
            f16_scale(weights),
            f16_scale(weights.add(2)),
            [word(0), word(1), word(2)],
        )
    };
    let scale = [
        a & 0x3f3f_3f3f,
        (c & 0x0f0f_0f0f) | (a >> 6 & 0x0303_0303) << 4,
    ];
    let min = [
        b & 0x3f3f_3f3f,
        (c >> 4 & 0x0f0f_0f0f) | (b >> 6 & 0x0303_0303) << 4,
    ];
    let widen = |words: [u32; 2]| {
        let both = u64::from(words[0]) | u64::from(words[1]) << 32;
        _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(both as i64))
    };
    let min = widen(min);
    (
        _mm256_mul_ps(_mm256_cvtepi32_ps(widen(scale)), d),
        _mm256_or_si256(min, _mm256_slli_epi32::<16>(min)),
        min_scale,
    )
}

/// 128 bytes of nibbles: of each 32 bytes the low ones, then the high ones.
///
/// # Safety
/// 128 bytes can be read.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn nibbles(bytes: *const u8) -> [__m256i; 8] {
    let mut q = [_mm256_setzero_si256(); 8];
    let low = _mm256_set1_epi8(15);
    for j in 0..4 {
        // SAFETY: promised by the caller.
        let bytes = unsafe { load(bytes.add(32 * j)) };
        q[2 * j] = _mm256_and_si256(bytes, low);
        q[2 * j + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), low);
    }
    q
}

/// Q4_K: F16 scale and factor of the minima, 12 bytes of scales and minima, 128 of quants.
pub(in crate::kernels) struct Q4K;

impl Unpack for Q4K {
    type Block = BlockQ4K;
    const OFFSET: u8 = 0;
    const LARGEST: u8 = 15;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 144 bytes can be read.
        let (q, (scale, min, min_scale)) =
            unsafe { (nibbles(weights.add(16)), k4_scales(weights)) };
        Step {
            q,
            scale: [scale; 2],
            min,
            min_scale,
        }
    }
}

/// Q5_K: as Q4_K with 32 bytes of fifth bits before the quants.
pub(in crate::kernels) struct Q5K;

impl Unpack for Q5K {
    type Block = BlockQ5K;
    const OFFSET: u8 = 0;
    const LARGEST: u8 = 31;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 176 bytes can be read.
        let (mut q, high, (scale, min, min_scale)) = unsafe {
            (
                nibbles(weights.add(48)),
                load(weights.add(16)),
                k4_scales(weights),
            )
        };
        for (run, q) in q.iter_mut().enumerate() {
            *q = _mm256_or_si256(*q, where_set(high, run, 16));
        }
        Step {
            q,
            scale: [scale; 2],
            min,
            min_scale,
        }
    }
}

/// Q6_K: 128 bytes of low bits, 64 of high bits, 16 signed scales, F16 scale.
pub(in crate::kernels) struct Q6K;

impl Unpack for Q6K {
    type Block = BlockQ6K;
    const OFFSET: u8 = 32;
    const LARGEST: u8 = 63;

    #[inline]
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 210 bytes can be read.
        let (low, high, scales, d) = unsafe {
            (
                nibbles(weights),
                [load(weights.add(128)), load(weights.add(160))],
                _mm_loadu_si128(weights.add(192).cast()),
                f16_scale(weights.add(208)),
            )
        };
        let [a, b, c, e] = two_bits(high[0]);
        let [f, g, h, i] = two_bits(high[1]);
        let high = [a, b, c, e, f, g, h, i];
        // Runs 0 and 1 of half a block are low nibbles, runs 2 and 3 high ones.
        let [l0, l2, l1, l3, l4, l6, l5, l7] = low;
        let mut q = [l0, l1, l2, l3, l4, l5, l6, l7];
        for (q, high) in q.iter_mut().zip(high) {
            // A field of two bits times 16 stays in its byte.
            *q = _mm256_or_si256(*q, _mm256_slli_epi16::<4>(high));
        }
        Step {
            q,
            scale: half_scales(d, scales),
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}
