//! Dot product of an IQ2_XXS row, with the codebook in registers.
//!
//! An entry of the codebook is 8 elements of three magnitudes: two bytes of four 2-bit codes. The 256 low
//! bytes are four registers and the 256 high bytes four more, so two permutations and a blend look up the
//! low bytes of 64 entries at once: those of two blocks. Byte `w` then holds the codes of the first four
//! elements of the `w`-th entry; a bit-matrix product and a table of magnitudes turn one of them into the
//! bytes of elements `8 w + e` of the two blocks for one `e`. The activations are kept in that order too
//! ([`RowRuns::split`]), and all eight parts share one accumulator whose 32-bit lanes (four entries) are the
//! 16 groups of the two blocks.

use std::arch::x86_64::*;

use ds4_quant::blocks::BlockIq2Xxs;
use ds4_quant::tables::IQ2XXS_GRID;

use super::batch::{PanelFormat, Space, transpose_scales};
use super::codebook::sign_bytes;
use super::transpose::transpose_16x16;
use crate::kernels::activations::{PAIR, RowRuns};
use crate::kernels::scalar::TILE;

const BLOCK_BYTES: usize = 66;

#[repr(align(64))]
struct Codes([[u8; 256]; 2]);

/// The codebook as 2-bit codes of 8, 25 and 43, four elements a byte, the first lowest: bytes of the first
/// four elements of all entries, then of the last four.
static CODES: Codes = Codes({
    let mut codes = [[0; 256]; 2];
    let mut entry = 0;
    while entry < 256 {
        let mut element = 0;
        while element < 8 {
            let code = match (IQ2XXS_GRID[entry] >> (8 * element)) & 0xff {
                8 => 0,
                25 => 1,
                43 => 2,
                _ => panic!("the codebook has three magnitudes"),
            };
            codes[element / 4][entry] |= code << (2 * (element % 4));
            element += 1;
        }
        entry += 1;
    }
    codes
});

/// The registers that stay the same for all blocks.
struct Constants {
    codes: [[__m512i; 4]; 2],
    magnitudes: __m512i,
    sign_fields: __m512i,
    /// The lower and the upper words of 8 pairs in each of two registers.
    lower: __m512i,
    upper: __m512i,
    /// Eight times lane 0, eight times lane 1.
    spread: __m512i,
}

#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn constants() -> Constants {
    Constants {
        codes: std::array::from_fn(|half| {
            // SAFETY: half of the table is 4 aligned registers long.
            std::array::from_fn(|i| unsafe {
                _mm512_load_si512(CODES.0[half].as_ptr().add(64 * i).cast())
            })
        }),
        magnitudes: _mm512_broadcast_i32x4(_mm_setr_epi8(
            8, 25, 43, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        )),
        // The four 7-bit fields of both words of 64 bits.
        sign_fields: _mm512_set1_epi64(i64::from_le_bytes([0, 7, 14, 21, 32, 39, 46, 53])),
        lower: _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
        upper: _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31),
        spread: _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1),
    }
}

/// Bits `2 S` and `2 S + 1` of every byte as a number.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
fn field<const S: u32>(bytes: __m512i) -> __m512i {
    // Rows 0 and 1 of the bit matrix (its two highest bytes) each pick one bit.
    let matrix = (1_i64 << (2 * S)) << 56 | (2_i64 << (2 * S)) << 48;
    _mm512_gf2p8affine_epi64_epi8::<0>(bytes, _mm512_set1_epi64(matrix))
}

/// Two blocks taken apart.
struct Pair {
    /// Codes of elements `8 w + e`, four `e` a byte: `e` below 4, then the others.
    codes: [__m512i; 2],
    /// Signs of elements `8 w + e` at bit `e`.
    signs: __m512i,
    /// Scales of the 16 groups.
    scale: __m512,
}

/// Takes two blocks apart.
///
/// # Safety
/// 66 bytes can be read at both addresses.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn take_apart(constants: &Constants, first: *const u8, second: *const u8) -> Pair {
    // SAFETY: promised by the caller, any alignment.
    let (d, groups) = unsafe {
        let bits = |block: *const u8| u32::from(block.cast::<u16>().read_unaligned());
        let groups = |block: *const u8| _mm512_loadu_si512(block.add(2).cast());
        (
            bits(first) | bits(second) << 16,
            [groups(first), groups(second)],
        )
    };
    // A group is four indices and a word of signs and scale.
    let index = _mm512_permutex2var_epi32(groups[0], constants.lower, groups[1]);
    let words = _mm512_permutex2var_epi32(groups[0], constants.upper, groups[1]);
    let above = _mm512_movepi8_mask(index);
    let look_up = |table: &[__m512i; 4]| {
        _mm512_mask_blend_epi8(
            above,
            _mm512_permutex2var_epi8(table[0], index, table[1]),
            _mm512_permutex2var_epi8(table[2], index, table[3]),
        )
    };
    // `2 s + 1` of the nibble `s` in the top bits of a word: the bit below it is replaced by 1.
    let odd_scale = _mm512_or_si512(_mm512_srli_epi32::<27>(words), _mm512_set1_epi32(1));
    let d = _mm_mul_ps(
        _mm_cvtph_ps(_mm_cvtsi32_si128(d as i32)),
        _mm_set1_ps(0.125),
    );
    let d = _mm512_permutexvar_ps(constants.spread, _mm512_castps128_ps512(d));
    Pair {
        codes: [look_up(&constants.codes[0]), look_up(&constants.codes[1])],
        signs: sign_bytes(_mm512_multishift_epi64_epi8(constants.sign_fields, words)),
        scale: _mm512_mul_ps(d, _mm512_cvtepi32_ps(odd_scale)),
    }
}

impl Pair {
    /// Magnitudes of elements `8 w + E`, and which of them are negative.
    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    fn part<const E: usize>(&self, constants: &Constants) -> (__m512i, u64) {
        let code = match E % 4 {
            0 => field::<0>(self.codes[E / 4]),
            1 => field::<1>(self.codes[E / 4]),
            2 => field::<2>(self.codes[E / 4]),
            _ => field::<3>(self.codes[E / 4]),
        };
        let negative = _mm512_test_epi8_mask(self.signs, _mm512_set1_epi8((1 << E) as i8));
        (_mm512_shuffle_epi8(constants.magnitudes, code), negative)
    }
}

/// Adds the products of elements `8 w + E` to the sums of their groups.
///
/// # Safety
/// 512 bytes of activations can be read.
#[inline]
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
unsafe fn add_part<const E: usize>(
    constants: &Constants,
    pair: &Pair,
    x: *const __m512i,
    sum: __m512i,
) -> __m512i {
    let (magnitude, negative) = pair.part::<E>(constants);
    // SAFETY: `E` is below 8.
    let x = unsafe { _mm512_loadu_si512(x.add(E)) };
    let x = _mm512_mask_sub_epi8(x, negative, _mm512_setzero_si512(), x);
    _mm512_dpbusd_epi32(sum, magnitude, x)
}

/// As [`terms`](super::terms::terms), for IQ2_XXS.
///
/// # Safety
/// The CPU has the features of [`Avx512`](crate::kernels::isa::Avx512).
#[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
pub(in crate::kernels) unsafe fn terms(
    bytes: &[u8],
    x: RowRuns<'_>,
    terms: &mut [f32],
    next: *const u8,
) {
    let blocks = terms.len() / 8;
    assert_eq!(terms.len() % 8, 0, "whole blocks");
    assert!(bytes.len() >= blocks * BLOCK_BYTES, "blocks for all runs");
    assert!(
        x.split.len() >= blocks.div_ceil(2) * PAIR,
        "all activations"
    );
    let constants = constants();
    // A last single block is taken twice; the second half of the result is not stored.
    for first in (0..blocks).step_by(2) {
        let second = (first + 1).min(blocks - 1);
        // SAFETY: the lengths were checked above: every pointer stays inside its slice. Prefetching has
        // no requirement on its address.
        let (pair, dot) = unsafe {
            let ahead = next.wrapping_add(first * BLOCK_BYTES);
            _mm_prefetch::<_MM_HINT_T0>(ahead.cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64).cast());
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(128).cast());
            let weights = |index: usize| bytes.as_ptr().add(index * BLOCK_BYTES);
            let pair = take_apart(&constants, weights(first), weights(second));
            let x = x.split.as_ptr().add(first / 2 * PAIR).cast();
            // Two chains, so that one does not wait for the other.
            let zero = _mm512_setzero_si512();
            let a = add_part::<0>(&constants, &pair, x, zero);
            let b = add_part::<4>(&constants, &pair, x, zero);
            let a = add_part::<1>(&constants, &pair, x, a);
            let b = add_part::<5>(&constants, &pair, x, b);
            let a = add_part::<2>(&constants, &pair, x, a);
            let b = add_part::<6>(&constants, &pair, x, b);
            let a = add_part::<3>(&constants, &pair, x, a);
            let b = add_part::<7>(&constants, &pair, x, b);
            (pair, _mm512_add_epi32(a, b))
        };
        let term = _mm512_mul_ps(_mm512_cvtepi32_ps(dot), pair.scale);
        let count = if second == first { 0x00ff } else { 0xffff };
        // SAFETY: `first * 8` and the 8 or 16 terms from there on are inside; masked ones are not written.
        unsafe { _mm512_mask_storeu_ps(terms.as_mut_ptr().add(first * 8), count, term) };
    }
}

/// IQ2_XXS in panels: elements by `index % 8`, the order in which they are found.
pub(in crate::kernels) struct Iq2XxsPanel;

impl PanelFormat for Iq2XxsPanel {
    type Block = BlockIq2Xxs;
    const SPLIT: bool = true;

    #[inline]
    #[target_feature(enable = "avx512vl,avx512dq,avx512vnni,avx512vbmi,gfni")]
    unsafe fn fill(
        space: &mut Space,
        weights: &[u8],
        row_bytes: usize,
        rows: usize,
        start: usize,
        count: usize,
    ) {
        let constants = constants();
        let Space {
            panel,
            scales,
            parts,
        } = space;
        for first in (0..count).step_by(16) {
            let runs = (count - first).min(16);
            for row in 0..TILE {
                let from = row.min(rows - 1) * row_bytes + (start + first) / 8 * BLOCK_BYTES;
                // SAFETY: one block from `from` on is inside the row, a second one if there are more
                // than 8 runs; a part is 64 bytes, and the scale arrays have `PANEL_RUNS` elements, a
                // multiple of 16.
                unsafe {
                    let block = weights.as_ptr().add(from);
                    let second = if runs > 8 {
                        block.add(BLOCK_BYTES)
                    } else {
                        block
                    };
                    let pair = take_apart(&constants, block, second);
                    let offset = _mm512_set1_epi8(-128);
                    let mut store = |part: usize, (magnitude, negative): (__m512i, u64)| {
                        let plus = _mm512_add_epi8(offset, magnitude);
                        let q = _mm512_mask_sub_epi8(plus, negative, offset, magnitude);
                        _mm512_store_si512(parts[part][row].as_mut_ptr().cast(), q);
                    };
                    store(0, pair.part::<0>(&constants));
                    store(1, pair.part::<1>(&constants));
                    store(2, pair.part::<2>(&constants));
                    store(3, pair.part::<3>(&constants));
                    store(4, pair.part::<4>(&constants));
                    store(5, pair.part::<5>(&constants));
                    store(6, pair.part::<6>(&constants));
                    store(7, pair.part::<7>(&constants));
                    _mm512_storeu_ps(scales.scale[0][row].as_mut_ptr().add(first), pair.scale);
                }
            }
            // Word `run` of part `e` is word `e` of the run.
            for (element, part) in parts.iter().enumerate() {
                // SAFETY: every row of a part is 64 bytes.
                let words = transpose_16x16(std::array::from_fn(|row| unsafe {
                    _mm512_load_si512(part[row].as_ptr().cast())
                }));
                for (run, words) in words.into_iter().enumerate().take(runs) {
                    let out: *mut __m512i = panel.q[first + run].as_mut_ptr().cast();
                    // SAFETY: a run of the panel is 8 registers.
                    unsafe { _mm512_storeu_si512(out.add(element), words) };
                }
            }
        }
        transpose_scales::<BlockIq2Xxs>(panel, scales, count);
    }
}
