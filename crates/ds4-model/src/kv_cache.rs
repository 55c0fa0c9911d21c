//! Layout of the KV cache: what is kept for a sequence, and where.
//!
//! A sequence occupies a *slot* and some *pages*. Per slot and layer there is a
//! ring of window rows and, for layers with compression, the compressor's
//! frontier (the contributions of the newest tokens, F32). Compressed rows lie
//! in pages of [`PAGE_TOKENS`] tokens from one pool; a page id stands for that
//! span in every layer at once. Rows of finished spans never change, so pages
//! can be shared between sequences.

use ds4_quant::kv_rows;

use crate::error::ModelError;
use crate::shape::{Compression, ModelShape};

/// Tokens per page; a multiple of every compression ratio.
pub const PAGE_TOKENS: usize = 256;

/// Storage format of rows in the KV cache (model-spec section 8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KvFormat {
    /// F32 rows; indexer rows F32 without rotation.
    F32,
    /// F16 rows; indexer rows F16 without rotation.
    F16,
    /// The official form: E4M3 with a scale per 64 and BF16 rotated dimensions;
    /// indexer rows E2M1 with a scale per 32 after a Hadamard rotation, and
    /// indexer queries rounded the same way.
    #[default]
    Fp8,
    /// Compressed rows in 4 bits: Hadamard rotation, then Lloyd-Max levels
    /// ([`kv_rows::q4_row_encode`]). Everything else as in [`Fp8`](Self::Fp8).
    Q4,
}

impl KvFormat {
    /// All formats, the largest first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::Fp8, Self::Q4];

    /// Bytes of one attention row of the window.
    pub fn row_bytes(self, shape: &ModelShape) -> usize {
        match self {
            Self::F32 => shape.head_dim * 4,
            Self::F16 => shape.head_dim * 2,
            Self::Fp8 | Self::Q4 => kv_rows::fp8_row_bytes(shape.head_dim, shape.rope_dim),
        }
    }

    /// Bytes of one compressed attention row.
    pub fn compressed_row_bytes(self, shape: &ModelShape) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Fp8 => self.row_bytes(shape),
            Self::Q4 => kv_rows::q4_row_bytes(shape.head_dim),
        }
    }

    /// Bytes of one indexer row.
    pub fn index_row_bytes(self, shape: &ModelShape) -> usize {
        match self {
            Self::F32 => shape.index_dim * 4,
            Self::F16 => shape.index_dim * 2,
            Self::Fp8 | Self::Q4 => kv_rows::fp4_row_bytes(shape.index_dim),
        }
    }

    /// Whether indexer rows and queries are rotated and rounded to E2M1.
    pub fn has_fp4_index(self) -> bool {
        match self {
            Self::F32 | Self::F16 => false,
            Self::Fp8 | Self::Q4 => true,
        }
    }

    /// Whether rows of this shape divide into the format's blocks.
    pub fn fits(self, shape: &ModelShape) -> bool {
        match self {
            Self::F32 | Self::F16 => true,
            Self::Fp8 => {
                shape.nope_dim().is_multiple_of(kv_rows::FP8_BLOCK) && shape.index_dim == 128
            }
            Self::Q4 => Self::Fp8.fits(shape) && shape.head_dim.is_multiple_of(kv_rows::Q4_BLOCK),
        }
    }

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Fp8 => "fp8",
            Self::Q4 => "q4",
        }
    }
}

impl std::str::FromStr for KvFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "fp8" => Ok(Self::Fp8),
            "q4" => Ok(Self::Q4),
            other => Err(format!(
                "`{other}` is no KV cache type, expected f32, f16, fp8 or q4"
            )),
        }
    }
}

/// How large the cache is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KvCapacity {
    /// Sequences that can be resident.
    pub slots: usize,
    /// Tokens that one sequence can hold.
    pub context: usize,
    /// Pages in the pool, for all sequences together.
    pub pages: usize,
}

/// Where things lie in the buffers of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerKvLayout {
    /// What the layer keeps behind its window.
    pub compression: Compression,
    /// Rows of the window ring of one slot; position `p` lies at `p % ring_rows`.
    pub ring_rows: usize,
    /// Bytes of an attention row of the window.
    pub row_bytes: usize,
    /// Bytes of a compressed attention row.
    pub compressed_row_bytes: usize,
    /// Bytes of an indexer row.
    pub index_row_bytes: usize,
    /// Tokens whose contributions the frontier keeps: those that rows to come can need, and as many
    /// as can be taken back. Position `p` lies at `p % frontier_tokens`.
    pub frontier_tokens: usize,
    /// Channels of a contribution to the attention rows.
    pub channels: usize,
    /// Channels of a contribution to the indexer rows.
    pub index_channels: usize,
}

impl LayerKvLayout {
    /// Compressed rows of the layer in one page.
    pub fn rows_per_page(&self) -> usize {
        self.compression
            .ratio()
            .map_or(0, |ratio| PAGE_TOKENS / ratio)
    }

    /// Bytes of the window ring of one slot.
    pub fn ring_bytes(&self) -> usize {
        self.ring_rows * self.row_bytes
    }

    /// Elements of a frontier of one slot: content and score of every channel and token.
    pub fn frontier_elements(&self, channels: usize) -> usize {
        self.frontier_tokens * 2 * channels
    }

    /// Tokens whose contributions still count for rows to come, after `tokens` tokens: those of the
    /// open window and, with overlap, of the window before it.
    pub fn open_tokens(&self, tokens: usize) -> usize {
        let Some(ratio) = self.compression.ratio() else {
            return 0;
        };
        let open = tokens % ratio + (self.compression.overlap() - 1) * ratio;
        open.min(tokens)
    }

    /// Bytes of a saved frontier after `tokens` tokens, for a sliding window of `window` tokens.
    pub fn frontier_bytes(&self, window: usize, tokens: usize) -> usize {
        (window - 1).min(tokens) * self.row_bytes
            + self.open_tokens(tokens) * 4 * 2 * (self.channels + self.index_channels)
    }

    /// Bytes of the attention rows and of the indexer rows that the first `tokens` tokens of a page
    /// finish.
    pub(crate) fn rows_bytes(&self, tokens: usize) -> [usize; 2] {
        let rows = self.compression.ratio().map_or(0, |ratio| tokens / ratio);
        let index = match self.compression {
            Compression::Sparse { .. } => rows * self.index_row_bytes,
            Compression::None | Compression::Dense { .. } => 0,
        };
        [rows * self.compressed_row_bytes, index]
    }

    /// Bytes of the compressed attention rows in one page.
    pub fn page_bytes(&self) -> usize {
        self.rows_per_page() * self.compressed_row_bytes
    }

    /// Bytes of the indexer rows in one page, 0 without an indexer.
    pub fn index_page_bytes(&self) -> usize {
        match self.compression {
            Compression::Sparse { .. } => self.rows_per_page() * self.index_row_bytes,
            Compression::None | Compression::Dense { .. } => 0,
        }
    }
}

/// The whole cache's layout.
#[derive(Clone, Debug, PartialEq)]
pub struct KvLayout {
    /// Row format.
    pub format: KvFormat,
    /// Slots, context and pages.
    pub capacity: KvCapacity,
    /// One entry per layer.
    pub layers: Vec<LayerKvLayout>,
    /// Of the MTP block, if it is loaded: a window of its own, which is no part of a sequence's state.
    pub mtp: Option<LayerKvLayout>,
}

impl KvLayout {
    /// Plans a cache for steps of at most `max_rows` rows, of which the last `draft_rows` of a
    /// sequence can be taken back: the sequence goes on from an earlier row as if they had never been.
    ///
    /// The window's ring is long enough for that as it is, since it has room for a whole step. The
    /// frontier must keep what lies before the rows taken back. A compressed row that they
    /// finished is written again by the tokens in their place before anyone sees it.
    ///
    /// # Errors
    /// A capacity of zero, a context longer than the model's, or sizes that
    /// do not fit 64 bits.
    pub fn new(
        shape: &ModelShape,
        format: KvFormat,
        capacity: KvCapacity,
        max_rows: usize,
        draft_rows: usize,
        with_mtp: bool,
    ) -> Result<Self, ModelError> {
        let settings = [
            ("the number of sessions", capacity.slots, 1 << 16),
            ("the context", capacity.context, shape.context),
            ("the number of KV pages", capacity.pages, 1 << 31),
            ("the prefill chunk", max_rows, 1 << 16),
        ];
        for (what, found, limit) in settings {
            if found == 0 || found > limit {
                return Err(ModelError::Setting {
                    what,
                    found: found as u64,
                    expected: format!("1 to {limit}"),
                });
            }
        }
        if draft_rows >= max_rows {
            return Err(ModelError::Setting {
                what: "the number of drafted tokens",
                found: draft_rows as u64,
                expected: format!("less than the {max_rows} rows of a step"),
            });
        }
        if !format.fits(shape) {
            // Blocks of 64 and 32 elements with one scale each.
            return Err(ModelError::Setting {
                what: "the width of a head outside its rotation",
                found: shape.nope_dim() as u64,
                expected: format!(
                    "a multiple of 64 as the whole head, and indexer heads of 128, for KV type {}",
                    format.name()
                ),
            });
        }
        let layer = |compression: Compression| LayerKvLayout {
            compression,
            ring_rows: shape.window + max_rows - 1,
            row_bytes: format.row_bytes(shape),
            compressed_row_bytes: format.compressed_row_bytes(shape),
            index_row_bytes: format.index_row_bytes(shape),
            frontier_tokens: compression
                .ratio()
                .map_or(0, |ratio| compression.overlap() * ratio + draft_rows),
            channels: compression.overlap() * shape.head_dim,
            index_channels: match compression {
                Compression::Sparse { .. } => compression.overlap() * shape.index_dim,
                Compression::None | Compression::Dense { .. } => 0,
            },
        };
        let layout = Self {
            format,
            capacity,
            layers: shape
                .layers
                .iter()
                .map(|entry| layer(entry.compression))
                .collect(),
            mtp: with_mtp.then(|| layer(Compression::None)),
        };
        if layout.checked_bytes().is_none() {
            return Err(ModelError::Setting {
                what: "the context",
                found: capacity.context as u64,
                expected: "a size whose KV cache fits the address space".to_owned(),
            });
        }
        Ok(layout)
    }

    /// Pages that a sequence of `tokens` tokens needs.
    pub fn pages_for(tokens: usize) -> usize {
        tokens.div_ceil(PAGE_TOKENS)
    }

    /// Entries of a slot's page table.
    pub fn table_pages(&self) -> usize {
        Self::pages_for(self.capacity.context)
    }

    /// Bytes of all buffers of the cache.
    pub fn bytes(&self) -> usize {
        self.checked_bytes().unwrap_or(usize::MAX)
    }

    /// Bytes of one page over all layers.
    pub fn page_bytes(&self) -> usize {
        self.layers
            .iter()
            .map(|layer| layer.page_bytes() + layer.index_page_bytes())
            .sum()
    }

    /// Bytes of one slot over all layers: windows, frontiers and page table.
    pub fn slot_bytes(&self) -> usize {
        let layers: usize = self
            .layers
            .iter()
            .chain(&self.mtp)
            .map(|layer| {
                layer.ring_bytes()
                    + 4 * layer.frontier_elements(layer.channels)
                    + 4 * layer.frontier_elements(layer.index_channels)
            })
            .sum();
        layers + 4 * self.table_pages()
    }

    /// Bytes of a saved frontier after `tokens` tokens, all layers together, for a sliding window
    /// of `window` tokens. Least where `tokens` is a multiple of every compression ratio.
    pub fn frontier_bytes(&self, window: usize, tokens: usize) -> usize {
        self.layers
            .iter()
            .map(|layer| layer.frontier_bytes(window, tokens))
            .sum()
    }

    /// Bytes of the compressed rows that the first `tokens` tokens of a page finish, all layers
    /// together.
    pub fn page_rows_bytes(&self, tokens: usize) -> usize {
        self.layers
            .iter()
            .flat_map(|layer| layer.rows_bytes(tokens))
            .sum()
    }

    fn checked_bytes(&self) -> Option<usize> {
        let pages = self.page_bytes().checked_mul(self.capacity.pages)?;
        let slots = self.slot_bytes().checked_mul(self.capacity.slots)?;
        pages.checked_add(slots)
    }
}
