//! Q2_K to Q6_K: super-blocks of 256 elements.

use std::arch::x86_64::*;

use ds4_quant::blocks::{BlockQ2K, BlockQ3K, BlockQ4K, BlockQ5K, BlockQ6K};

use super::unpack::{Step, Unpack, f16_scale};

/// The four 2-bit fields of 64 bytes in element order: field `k` of byte `32 h + l` is element
/// `128 h + 32 k + l`.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn two_bits(bytes: __m512i) -> [__m512i; 4] {
    let low = _mm512_set1_epi8(3);
    let k0 = _mm512_and_si512(bytes, low);
    let k1 = _mm512_and_si512(_mm512_srli_epi16::<2>(bytes), low);
    let k2 = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), low);
    let k3 = _mm512_and_si512(_mm512_srli_epi16::<6>(bytes), low);
    [
        _mm512_shuffle_i64x2::<0x44>(k0, k1),
        _mm512_shuffle_i64x2::<0x44>(k2, k3),
        _mm512_shuffle_i64x2::<0xee>(k0, k1),
        _mm512_shuffle_i64x2::<0xee>(k2, k3),
    ]
}

/// 16 f32 as those of even and of odd index.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn even_odd(values: __m512) -> [__m256; 2] {
    let order = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    let sorted = _mm512_permutexvar_ps(order, values);
    [
        _mm512_castps512_ps256(sorted),
        _mm512_extractf32x8_ps::<1>(sorted),
    ]
}

/// Q2_K: 16 bytes of scales and minima, 64 of quants, F16 scale and factor of the minima.
pub(in crate::kernels) struct Q2K;

impl Unpack for Q2K {
    type Block = BlockQ2K;
    /// Shift `s` of the bytes holds runs `s` and `4 + s`.
    const RUNS: [[usize; 2]; 4] = [[0, 4], [1, 5], [2, 6], [3, 7]];
    const OFFSET: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 84 bytes can be read.
        let (packed, bytes, scale, min_scale) = unsafe {
            (
                _mm_loadu_si128(weights.cast()),
                _mm512_loadu_si512(weights.add(16).cast()),
                f16_scale(weights.add(80)),
                f16_scale(weights.add(82)),
            )
        };
        let scales = _mm512_broadcast_i32x4(_mm_and_si128(packed, _mm_set1_epi8(15)));
        // Lane l of part s belongs to group 2 s + l % 2 + 8 (l / 2): its scale in every 16-bit word. Two
        // bytes are multiplied at once, the product of the lower one (45 at most) never reaches the
        // higher one.
        let lane = |group: i64| (group * 0x0001_0001_0001_0001) | 0x8000_8000_8000_8000_u64 as i64;
        let first = _mm512_setr_epi64(
            lane(0),
            lane(0),
            lane(1),
            lane(1),
            lane(8),
            lane(8),
            lane(9),
            lane(9),
        );
        let part = |s: i16, bytes: __m512i| {
            let groups = _mm512_add_epi8(first, _mm512_set1_epi16(2 * s));
            let q = _mm512_and_si512(bytes, _mm512_set1_epi8(3));
            _mm512_mullo_epi16(q, _mm512_shuffle_epi8(scales, groups))
        };
        let min = _mm_and_si128(_mm_srli_epi16::<4>(packed), _mm_set1_epi8(15));
        Step {
            q: [
                part(0, bytes),
                part(1, _mm512_srli_epi16::<2>(bytes)),
                part(2, _mm512_srli_epi16::<4>(bytes)),
                part(3, _mm512_srli_epi16::<6>(bytes)),
            ],
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

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 110 bytes can be read.
        let (high, bytes, words, d) = unsafe {
            let word = |i: usize| weights.add(96 + 4 * i).cast::<u32>().read_unaligned();
            (
                _mm512_broadcast_i64x4(_mm256_loadu_si256(weights.cast())),
                _mm512_loadu_si512(weights.add(32).cast()),
                [word(0), word(1), word(2)],
                f16_scale(weights.add(108)),
            )
        };
        let low = two_bits(bytes);
        let with_high = |j: i8, low: __m512i| {
            // Bit i of the high byte belongs to run i: runs 2 j and 2 j + 1 are the halves of part j.
            let bits = _mm512_inserti64x4::<1>(
                _mm512_set1_epi8(1_i8.wrapping_shl(2 * j as u32)),
                _mm256_set1_epi8(2_i8.wrapping_shl(2 * j as u32)),
            );
            let set = _mm512_test_epi8_mask(high, bits);
            _mm512_mask_add_epi8(low, set, low, _mm512_set1_epi8(4))
        };
        let scale = |low: u32, high: u32| (low & 0x0f0f_0f0f) | (high & 0x0303_0303) << 4;
        let [s0, s1, s2] = words;
        let scales = _mm_setr_epi32(
            scale(s0, s2) as i32,
            scale(s1, s2 >> 2) as i32,
            scale(s0 >> 4, s2 >> 4) as i32,
            scale(s1 >> 4, s2 >> 6) as i32,
        );
        let scales = _mm512_sub_epi32(_mm512_cvtepu8_epi32(scales), _mm512_set1_epi32(32));
        let scales = _mm512_mul_ps(_mm512_cvtepi32_ps(scales), _mm512_broadcast_f32x8(d));
        Step {
            q: [
                with_high(0, low[0]),
                with_high(1, low[1]),
                with_high(2, low[2]),
                with_high(3, low[3]),
            ],
            scale: even_odd(scales),
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
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
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

/// Nibbles of 32 bytes: the low ones, then the high ones.
///
/// # Safety
/// 32 bytes can be read.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn nibbles(bytes: *const u8) -> __m512i {
    // SAFETY: promised by the caller.
    let bytes = unsafe { _mm512_broadcast_i64x4(_mm256_loadu_si256(bytes.cast())) };
    let shifts = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    _mm512_and_si512(_mm512_srlv_epi64(bytes, shifts), _mm512_set1_epi8(15))
}

/// Q4_K: F16 scale and factor of the minima, 12 bytes of scales and minima, 128 of quants.
pub(in crate::kernels) struct Q4K;

impl Unpack for Q4K {
    type Block = BlockQ4K;
    const OFFSET: u8 = 0;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 144 bytes can be read.
        let (q, (scale, min, min_scale)) = unsafe {
            let part = |j: usize| nibbles(weights.add(16 + 32 * j));
            ([part(0), part(1), part(2), part(3)], k4_scales(weights))
        };
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

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 176 bytes can be read.
        let (low, high, (scale, min, min_scale)) = unsafe {
            let part = |j: usize| nibbles(weights.add(48 + 32 * j));
            (
                [part(0), part(1), part(2), part(3)],
                _mm512_broadcast_i64x4(_mm256_loadu_si256(weights.add(16).cast())),
                k4_scales(weights),
            )
        };
        let with_high = |j: i8, low: __m512i| {
            let bits = _mm512_inserti64x4::<1>(
                _mm512_set1_epi8(1_i8.wrapping_shl(2 * j as u32)),
                _mm256_set1_epi8(2_i8.wrapping_shl(2 * j as u32)),
            );
            let set = _mm512_test_epi8_mask(high, bits);
            _mm512_mask_add_epi8(low, set, low, _mm512_set1_epi8(16))
        };
        Step {
            q: [
                with_high(0, low[0]),
                with_high(1, low[1]),
                with_high(2, low[2]),
                with_high(3, low[3]),
            ],
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

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn unpack(weights: *const u8) -> Step {
        // SAFETY: a block of 210 bytes can be read.
        let (low0, low1, high, scales, d) = unsafe {
            (
                _mm512_loadu_si512(weights.cast()),
                _mm512_loadu_si512(weights.add(64).cast()),
                _mm512_loadu_si512(weights.add(128).cast()),
                _mm_loadu_si128(weights.add(192).cast()),
                f16_scale(weights.add(208)),
            )
        };
        // Runs 0 and 1 of a half are the low nibbles, runs 2 and 3 the high ones.
        let nibble = _mm512_set1_epi8(15);
        let low = [
            _mm512_and_si512(low0, nibble),
            _mm512_and_si512(_mm512_srli_epi16::<4>(low0), nibble),
            _mm512_and_si512(low1, nibble),
            _mm512_and_si512(_mm512_srli_epi16::<4>(low1), nibble),
        ];
        let high = two_bits(high);
        // A field of two bits times 16 stays in its byte.
        let join = |low: __m512i, high: __m512i| _mm512_or_si512(low, _mm512_slli_epi16::<4>(high));
        let scales = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(scales));
        Step {
            q: [
                join(low[0], high[0]),
                join(low[1], high[1]),
                join(low[2], high[2]),
                join(low[3], high[3]),
            ],
            scale: even_odd(_mm512_mul_ps(scales, _mm512_broadcast_f32x8(d))),
            min: _mm256_setzero_si256(),
            min_scale: _mm256_setzero_ps(),
        }
    }
}
