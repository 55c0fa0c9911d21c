//! Tables of kernels, one per instruction set.
//!
//! The functions are `unsafe` because most need instructions that not every machine has. A [`Table`] for
//! an instruction set is only built from the token that proves the machine has it, so whoever holds a
//! table may call its functions with any arguments of the right lengths (they check those).

use ds4_quant::TensorType;
use ds4_quant::blocks::{
    BlockIq2Xs, BlockIq2Xxs, BlockIq3Xxs, BlockMxfp4, BlockNvfp4, BlockQ2K, BlockQ3K, BlockQ4_0,
    BlockQ4K, BlockQ5K, BlockQ6K, BlockQ8_0,
};

use super::activations::{Activations, RowMut, RowRuns, Run};
use super::float::{self, FloatRows};
use super::format::Format;
use super::isa::Isa;
use super::row_ops::RowOps;
use super::scalar::{self, TILE, Tile};

/// Rows of 8-bit activations, picked by index.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchRows<'a> {
    pub(crate) x: &'a Activations,
    pub(crate) rows: &'a [u32],
}

impl<'a> BatchRows<'a> {
    /// Number of rows picked.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Runs of a row.
    pub(crate) fn runs_per_row(&self) -> usize {
        self.x.columns() / super::activations::RUN
    }

    /// The `i`-th picked row.
    pub(crate) fn row(&self, i: usize) -> &'a [Run] {
        self.x.runs(self.rows[i] as usize)
    }
}

/// Bytes of memory that a batched kernel may use.
pub(crate) const PANEL_BYTES: usize = 48 << 10;

/// Memory of a batched kernel.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub(crate) struct PanelMemory([u8; PANEL_BYTES]);

impl PanelMemory {
    pub(crate) const ZERO: Self = Self([0; PANEL_BYTES]);

    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_mut_ptr()
    }
}

/// Terms of some runs of one row of blocks; the pointer is what to prefetch.
pub(crate) type TermsFn = unsafe fn(&[u8], RowRuns<'_>, &mut [f32], *const u8);
/// Weight rows, bytes from row to row, number of rows (1 to 16), activations, memory, sums to add to.
pub(crate) type TileFn =
    unsafe fn(&[u8], usize, usize, BatchRows<'_>, &mut PanelMemory, &mut [Tile]);
/// The same for float weights; the sums are set.
pub(crate) type FloatTileFn = unsafe fn(&[u8], usize, usize, FloatRows<'_>, &mut [Tile]);
/// Terms of 16 rows, elements from row to row, rows, scales of the runs, sums to add to.
pub(crate) type AccumulateFn = unsafe fn(&[f32], usize, usize, &[f32], &mut Tile);
/// Values, and the row to fill.
pub(crate) type QuantizeFn = unsafe fn(&[f32], RowMut<'_>);
/// Weights and where to put them as f32.
pub(crate) type WidenFn = unsafe fn(&[u8], &mut [f32]);

/// Kernels of one block format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockKernels {
    pub(crate) terms: TermsFn,
    /// `None`: batches are computed row by row with `terms`.
    pub(crate) tile: Option<TileFn>,
}

/// Kernels of one float format.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FloatKernels {
    /// To f32, exactly.
    pub(crate) widen: WidenFn,
    /// Straight from the weights; `None`: widen first.
    pub(crate) tile: Option<FloatTileFn>,
}

/// Kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) quantize: QuantizeFn,
    pub(crate) accumulate: AccumulateFn,
    pub(crate) blocks: fn(TensorType) -> Option<BlockKernels>,
    pub(crate) floats: fn(TensorType) -> Option<FloatKernels>,
    /// For weights that are f32 already.
    pub(crate) float_tile: FloatTileFn,
    pub(crate) row_ops: RowOps,
}

impl Table {
    /// The table of `isa`, if this machine has it.
    pub(crate) fn new(isa: Isa) -> Option<Self> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => super::isa::Avx512::detect().map(avx512),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => super::isa::Avx2::detect().map(avx2),
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => super::isa::Neon::detect().map(neon),
            Isa::Scalar => Some(SCALAR),
            #[allow(
                unreachable_patterns,
                reason = "the arms above depend on the architecture"
            )]
            _ => None,
        }
    }
}

const SCALAR: Table = Table {
    quantize: scalar::quantize,
    accumulate: scalar::accumulate,
    blocks: scalar_blocks,
    floats: scalar_floats,
    float_tile: float::tile,
    row_ops: RowOps::PORTABLE,
};

fn scalar_terms<F: Format>(bytes: &[u8], x: RowRuns<'_>, terms: &mut [f32], _next: *const u8) {
    scalar::terms::<F>(bytes, x, terms);
}

fn scalar_blocks(ty: TensorType) -> Option<BlockKernels> {
    let terms: TermsFn = match ty {
        TensorType::Q4_0 => scalar_terms::<BlockQ4_0>,
        TensorType::Q8_0 => scalar_terms::<BlockQ8_0>,
        TensorType::Q2K => scalar_terms::<BlockQ2K>,
        TensorType::Q3K => scalar_terms::<BlockQ3K>,
        TensorType::Q4K => scalar_terms::<BlockQ4K>,
        TensorType::Q5K => scalar_terms::<BlockQ5K>,
        TensorType::Q6K => scalar_terms::<BlockQ6K>,
        TensorType::Iq2Xxs => scalar_terms::<BlockIq2Xxs>,
        TensorType::Iq2Xs => scalar_terms::<BlockIq2Xs>,
        TensorType::Iq3Xxs => scalar_terms::<BlockIq3Xxs>,
        TensorType::Mxfp4 => scalar_terms::<BlockMxfp4>,
        TensorType::Nvfp4 => scalar_terms::<BlockNvfp4>,
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::I32 => return None,
    };
    Some(BlockKernels { terms, tile: None })
}

fn scalar_floats(ty: TensorType) -> Option<FloatKernels> {
    let widen: WidenFn = match ty {
        TensorType::F32 => |weights, out| float::widen(TensorType::F32, weights, out),
        TensorType::F16 => |weights, out| float::widen(TensorType::F16, weights, out),
        TensorType::Bf16 => |weights, out| float::widen(TensorType::Bf16, weights, out),
        _ => return None,
    };
    Some(FloatKernels { widen, tile: None })
}

#[cfg(target_arch = "x86_64")]
fn avx2(_proof: super::isa::Avx2) -> Table {
    use super::avx2;
    Table {
        quantize: avx2::quantize::quantize,
        accumulate: avx2::transpose::accumulate,
        blocks: avx2_blocks,
        floats: avx2_floats,
        float_tile: avx2::float::tile::<avx2::float::LoadF32>,
        row_ops: RowOps::AVX2,
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2_blocks(ty: TensorType) -> Option<BlockKernels> {
    use super::avx2::{batch::tile, codebook, integer32, k_quants, terms::terms, unpack::Unpack};

    fn both<U: Unpack>() -> BlockKernels {
        BlockKernels {
            terms: terms::<U>,
            tile: Some(tile::<U>),
        }
    }
    Some(match ty {
        TensorType::Q4_0 => both::<integer32::Q4_0>(),
        TensorType::Q8_0 => both::<integer32::Q8_0>(),
        TensorType::Mxfp4 => both::<integer32::Mxfp4>(),
        TensorType::Q2K => both::<k_quants::Q2K>(),
        TensorType::Q3K => both::<k_quants::Q3K>(),
        TensorType::Q4K => both::<k_quants::Q4K>(),
        TensorType::Q5K => both::<k_quants::Q5K>(),
        TensorType::Q6K => both::<k_quants::Q6K>(),
        TensorType::Iq2Xxs => both::<codebook::Iq2Xxs>(),
        TensorType::Iq2Xs => both::<codebook::Iq2Xs>(),
        TensorType::Iq3Xxs => both::<codebook::Iq3Xxs>(),
        // Not in published files: the portable kernel is enough.
        TensorType::Nvfp4 => return scalar_blocks(ty),
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::I32 => return None,
    })
}

#[cfg(target_arch = "x86_64")]
fn avx2_floats(ty: TensorType) -> Option<FloatKernels> {
    use super::avx2::float::{Load, LoadBf16, LoadF16, LoadF32, tile, widen};

    fn both<L: Load>() -> FloatKernels {
        FloatKernels {
            widen: widen::<L>,
            tile: Some(tile::<L>),
        }
    }
    Some(match ty {
        TensorType::F32 => both::<LoadF32>(),
        TensorType::F16 => both::<LoadF16>(),
        TensorType::Bf16 => both::<LoadBf16>(),
        _ => return None,
    })
}

#[cfg(target_arch = "x86_64")]
fn avx512(_proof: super::isa::Avx512) -> Table {
    use super::avx512;
    Table {
        quantize: avx512::quantize::quantize,
        accumulate: avx512::transpose::accumulate,
        blocks: avx512_blocks,
        floats: avx512_floats,
        float_tile: avx512::float::tile::<avx512::float::LoadF32>,
        row_ops: RowOps::AVX512,
    }
}

#[cfg(target_arch = "x86_64")]
fn avx512_blocks(ty: TensorType) -> Option<BlockKernels> {
    use super::avx512::batch::{InOrder, tile};
    use super::avx512::terms::terms;
    use super::avx512::{codebook, integer32, iq2_xxs, k_quants, q2_k, unpack::Unpack};

    fn both<U: Unpack>() -> BlockKernels {
        BlockKernels {
            terms: terms::<U>,
            tile: Some(tile::<InOrder<U>>),
        }
    }
    Some(match ty {
        TensorType::Q4_0 => both::<integer32::Q4_0>(),
        TensorType::Q8_0 => both::<integer32::Q8_0>(),
        TensorType::Mxfp4 => both::<integer32::Mxfp4>(),
        TensorType::Q2K => BlockKernels {
            terms: q2_k::terms,
            tile: Some(tile::<InOrder<k_quants::Q2K>>),
        },
        TensorType::Q3K => both::<k_quants::Q3K>(),
        TensorType::Q4K => both::<k_quants::Q4K>(),
        TensorType::Q5K => both::<k_quants::Q5K>(),
        TensorType::Q6K => both::<k_quants::Q6K>(),
        TensorType::Iq2Xxs => BlockKernels {
            terms: iq2_xxs::terms,
            tile: Some(tile::<iq2_xxs::Iq2XxsPanel>),
        },
        TensorType::Iq2Xs => both::<codebook::Iq2Xs>(),
        TensorType::Iq3Xxs => both::<codebook::Iq3Xxs>(),
        // Not in published files: the portable kernel is enough.
        TensorType::Nvfp4 => return scalar_blocks(ty),
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::I32 => return None,
    })
}

#[cfg(target_arch = "x86_64")]
fn avx512_floats(ty: TensorType) -> Option<FloatKernels> {
    use super::avx512::float::{LoadBf16, LoadF16, LoadF32, tile, widen};
    Some(match ty {
        TensorType::F32 => FloatKernels {
            widen: widen::<LoadF32>,
            tile: Some(tile::<LoadF32>),
        },
        TensorType::F16 => FloatKernels {
            widen: widen::<LoadF16>,
            tile: Some(tile::<LoadF16>),
        },
        TensorType::Bf16 => FloatKernels {
            widen: widen::<LoadBf16>,
            tile: Some(tile::<LoadBf16>),
        },
        _ => return None,
    })
}

#[cfg(target_arch = "aarch64")]
fn neon(_proof: super::isa::Neon) -> Table {
    use super::neon;
    Table {
        quantize: neon::quantize::quantize,
        accumulate: neon::accumulate::accumulate,
        blocks: neon_blocks,
        floats: neon_floats,
        float_tile: neon::float::tile::<neon::float::LoadF32>,
        // NEON is part of the target, so the compiler has used it already.
        row_ops: RowOps::PORTABLE,
    }
}

#[cfg(target_arch = "aarch64")]
fn neon_blocks(ty: TensorType) -> Option<BlockKernels> {
    use super::neon::{batch::tile, codebook, integer32, k_quants, terms::terms, unpack::Unpack};

    fn both<U: Unpack>() -> BlockKernels {
        BlockKernels {
            terms: terms::<U>,
            tile: Some(tile::<U>),
        }
    }
    Some(match ty {
        TensorType::Q4_0 => both::<integer32::Q4_0>(),
        TensorType::Q8_0 => both::<integer32::Q8_0>(),
        TensorType::Mxfp4 => both::<integer32::Mxfp4>(),
        TensorType::Q2K => both::<k_quants::Q2K>(),
        TensorType::Q3K => both::<k_quants::Q3K>(),
        TensorType::Q4K => both::<k_quants::Q4K>(),
        TensorType::Q5K => both::<k_quants::Q5K>(),
        TensorType::Q6K => both::<k_quants::Q6K>(),
        TensorType::Iq2Xxs => both::<codebook::Iq2Xxs>(),
        TensorType::Iq2Xs => both::<codebook::Iq2Xs>(),
        TensorType::Iq3Xxs => both::<codebook::Iq3Xxs>(),
        // Not in published files: the portable kernel is enough.
        TensorType::Nvfp4 => return scalar_blocks(ty),
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 | TensorType::I32 => return None,
    })
}

#[cfg(target_arch = "aarch64")]
fn neon_floats(ty: TensorType) -> Option<FloatKernels> {
    use super::neon::float::{Load, LoadBf16, LoadF16, LoadF32, tile, widen};

    fn both<L: Load>() -> FloatKernels {
        FloatKernels {
            widen: widen::<L>,
            tile: Some(tile::<L>),
        }
    }
    Some(match ty {
        TensorType::F32 => both::<LoadF32>(),
        TensorType::F16 => both::<LoadF16>(),
        TensorType::Bf16 => both::<LoadBf16>(),
        _ => return None,
    })
}

const _: () = assert!(TILE == 16, "kernels are written for tiles of 16 rows");
