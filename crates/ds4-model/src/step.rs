//! One step of work as data: rows of tokens, written into one small buffer.
//!
//! Everything that changes from token to token is in these words: positions,
//! tokens, slots, lengths and rope angles. Stages read it from there and never
//! from host state, so a step can be recorded once and replayed with other
//! words. Prefill is a step with many rows of one sequence; decode is a step
//! with one row of each of several sequences.

use std::ops::Range;

use crate::error::ModelError;
use crate::rope::{Rope, RopeFrequencies};

/// Token id.
pub type TokenId = u32;

/// Rows of one sequence within a step: consecutive tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSequence {
    /// Slot of the KV cache that holds the sequence.
    pub slot: usize,
    /// Position of the first token, 0-based.
    pub position: usize,
    /// The tokens, at least one.
    pub tokens: Vec<TokenId>,
    /// Which of them need logits: a range of indices into `tokens`.
    pub outputs: Range<usize>,
}

impl StepSequence {
    /// Rows that need logits for their last token only.
    pub fn last_output(slot: usize, position: usize, tokens: Vec<TokenId>) -> Self {
        let outputs = tokens.len().saturating_sub(1)..tokens.len();
        Self {
            slot,
            position,
            tokens,
            outputs,
        }
    }
}

/// Rows of several sequences that run together; a slot appears at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// The sequences, in row order.
    pub sequences: Vec<StepSequence>,
}

impl Step {
    /// A step of one sequence.
    pub fn single(sequence: StepSequence) -> Self {
        Self {
            sequences: vec![sequence],
        }
    }

    /// Rows in all.
    pub fn rows(&self) -> usize {
        self.sequences
            .iter()
            .map(|sequence| sequence.tokens.len())
            .sum()
    }

    /// Rows of logits in all.
    pub fn outputs(&self) -> usize {
        self.sequences
            .iter()
            .map(|sequence| sequence.outputs.len())
            .sum()
    }
}

/// What decides which kernels run and over how many rows; two steps of the
/// same bucket can replay the same recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StepBucket {
    /// Rows that the stages process; rows past the step's own are skipped.
    pub rows: usize,
    /// Sequences.
    pub sequences: usize,
    /// Rows of logits.
    pub outputs: usize,
}

/// Capacities of a step buffer, and where things lie in it.
///
/// The buffer is an array of `u32` words in sections of fixed offsets, the rows last: what a step
/// uses is a prefix, and no more than that is sent to the device.
///
/// | section | words |
/// |---|---|
/// | counts | rows, sequences, outputs, 0 |
/// | sequences | `max_sequences` times (slot, first row, rows, first position) |
/// | outputs | `max_outputs` times row |
/// | rows | `max_rows` times slot, position, token, sequence, and for each [`RopeTable`] `rope_pairs` times (cos, sin) as F32 bits |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLayout {
    /// Most rows of a step.
    pub max_rows: usize,
    /// Most sequences of a step.
    pub max_sequences: usize,
    /// Most rows of logits of a step.
    pub max_outputs: usize,
    /// Rotated pairs of a head.
    pub rope_pairs: usize,
}

/// Which rotation of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeTable {
    /// The row's position, window-only layers.
    Window,
    /// The row's position, layers with compression.
    Compressed,
    /// First token of the ratio-4 window that ends at the row.
    SparseRow,
    /// First token of the ratio-128 window that ends at the row.
    DenseRow,
}

const COUNT_WORDS: usize = 4;
/// Words of one entry of the sections rows and sequences.
const ENTRY_WORDS: usize = 4;
const ROPE_TABLES: usize = 4;

impl StepLayout {
    /// First word of the section sequences.
    pub const fn sequences_offset(&self) -> usize {
        COUNT_WORDS
    }

    /// First word of the section outputs.
    pub const fn outputs_offset(&self) -> usize {
        self.sequences_offset() + self.max_sequences * ENTRY_WORDS
    }

    /// First word of a row.
    pub const fn row_offset(&self, row: usize) -> usize {
        let row_words = ENTRY_WORDS + ROPE_TABLES * self.rope_pairs * 2;
        self.outputs_offset() + self.max_outputs + row * row_words
    }

    /// First word of a rope table of a row.
    pub const fn rope_offset(&self, table: RopeTable, row: usize) -> usize {
        self.row_offset(row) + ENTRY_WORDS + table as usize * self.rope_pairs * 2
    }

    /// Size of the buffer in words.
    pub const fn words(&self) -> usize {
        self.row_offset(self.max_rows)
    }
}

/// The host's image of a step buffer. It allocates once.
#[derive(Clone, Debug)]
pub struct StepWords {
    layout: StepLayout,
    words: Vec<u32>,
}

impl StepWords {
    /// An empty image.
    pub fn new(layout: StepLayout) -> Self {
        Self {
            layout,
            words: vec![0; layout.words()],
        }
    }

    /// What the last step uses.
    pub fn words(&self) -> &[u32] {
        &self.words[..self.layout.row_offset(self.words[0] as usize)]
    }

    /// Writes `step` and returns its bucket.
    ///
    /// # Errors
    /// More rows, sequences or outputs than the layout holds, an empty
    /// sequence, or a range of outputs outside its sequence.
    pub fn fill(&mut self, step: &Step, rope: &Rope) -> Result<StepBucket, ModelError> {
        let layout = self.layout;
        let bucket = StepBucket {
            rows: step.rows(),
            sequences: step.sequences.len(),
            outputs: step.outputs(),
        };
        let limits = [
            ("rows", bucket.rows, layout.max_rows),
            ("sequences", bucket.sequences, layout.max_sequences),
            ("outputs", bucket.outputs, layout.max_outputs),
        ];
        if let Some((what, found, limit)) = limits.iter().find(|(_, found, limit)| found > limit) {
            return Err(ModelError::Step(format!(
                "{found} {what}, at most {limit} fit"
            )));
        }
        self.words[..COUNT_WORDS].copy_from_slice(&[
            bucket.rows as u32,
            bucket.sequences as u32,
            bucket.outputs as u32,
            0,
        ]);
        let mut row = 0;
        let mut output = 0;
        for (index, sequence) in step.sequences.iter().enumerate() {
            if sequence.tokens.is_empty() || sequence.outputs.end > sequence.tokens.len() {
                return Err(ModelError::Step(format!(
                    "sequence {index} has {} tokens and asks for outputs {:?}",
                    sequence.tokens.len(),
                    sequence.outputs
                )));
            }
            let entry = [sequence.slot, row, sequence.tokens.len(), sequence.position];
            self.write_entry(layout.sequences_offset() + index * ENTRY_WORDS, entry);
            for in_sequence in sequence.outputs.clone() {
                self.words[layout.outputs_offset() + output] = (row + in_sequence) as u32;
                output += 1;
            }
            for (offset, &token) in sequence.tokens.iter().enumerate() {
                let position = sequence.position + offset;
                let entry = [sequence.slot, position, token as usize, index];
                self.write_entry(layout.row_offset(row), entry);
                self.write_rope(row, position, rope);
                row += 1;
            }
        }
        Ok(bucket)
    }

    fn write_entry(&mut self, offset: usize, entry: [usize; ENTRY_WORDS]) {
        for (word, value) in self.words[offset..offset + ENTRY_WORDS]
            .iter_mut()
            .zip(entry)
        {
            *word = value as u32;
        }
    }

    fn write_rope(&mut self, row: usize, position: usize, rope: &Rope) {
        self.write_table(RopeTable::Window, row, position, &rope.window);
        self.write_table(RopeTable::Compressed, row, position, &rope.compressed);
        for (table, ratio) in [(RopeTable::SparseRow, 4), (RopeTable::DenseRow, 128)] {
            if (position + 1).is_multiple_of(ratio) {
                self.write_table(table, row, position + 1 - ratio, &rope.compressed);
            }
        }
    }

    fn write_table(
        &mut self,
        table: RopeTable,
        row: usize,
        position: usize,
        frequencies: &RopeFrequencies,
    ) {
        let width = self.layout.rope_pairs * 2;
        let offset = self.layout.rope_offset(table, row);
        frequencies.write_table(
            position as u32,
            bytemuck::cast_slice_mut(&mut self.words[offset..offset + width]),
        );
    }
}

/// A step buffer as a backend on the host reads it.
#[derive(Clone, Copy, Debug)]
pub struct StepView<'a> {
    layout: StepLayout,
    words: &'a [u32],
}

/// One row of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowEntry {
    /// Slot of the KV cache.
    pub slot: usize,
    /// Position of the token.
    pub position: usize,
    /// The token.
    pub token: TokenId,
    /// Index of the row's sequence in the step.
    pub sequence: usize,
}

/// One sequence of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceEntry {
    /// Slot of the KV cache.
    pub slot: usize,
    /// First of its rows.
    pub first_row: usize,
    /// Number of its rows.
    pub rows: usize,
    /// Position of its first row.
    pub position: usize,
}

impl<'a> StepView<'a> {
    /// A view of `words`, at least `layout.words()` of them.
    pub fn new(layout: StepLayout, words: &'a [u32]) -> Self {
        debug_assert!(words.len() >= layout.words());
        Self { layout, words }
    }

    /// Rows of the step.
    pub fn rows(&self) -> usize {
        self.words[0] as usize
    }

    /// Sequences of the step.
    pub fn sequences(&self) -> usize {
        self.words[1] as usize
    }

    /// Rows of logits of the step.
    pub fn outputs(&self) -> usize {
        self.words[2] as usize
    }

    /// Entry of one row.
    pub fn row(&self, row: usize) -> RowEntry {
        let offset = self.layout.row_offset(row);
        let entry = &self.words[offset..offset + ENTRY_WORDS];
        RowEntry {
            slot: entry[0] as usize,
            position: entry[1] as usize,
            token: entry[2],
            sequence: entry[3] as usize,
        }
    }

    /// Entry of one sequence.
    pub fn sequence(&self, index: usize) -> SequenceEntry {
        let offset = self.layout.sequences_offset() + index * ENTRY_WORDS;
        let entry = &self.words[offset..offset + ENTRY_WORDS];
        SequenceEntry {
            slot: entry[0] as usize,
            first_row: entry[1] as usize,
            rows: entry[2] as usize,
            position: entry[3] as usize,
        }
    }

    /// Row of one output.
    pub fn output(&self, index: usize) -> usize {
        self.words[self.layout.outputs_offset() + index] as usize
    }

    /// `(cos, sin)` of every pair for one row, interleaved.
    ///
    /// The tables of compressed rows are valid only where a window ends at the row.
    pub fn rope(&self, table: RopeTable, row: usize) -> &'a [f32] {
        let width = self.layout.rope_pairs * 2;
        let offset = self.layout.rope_offset(table, row);
        bytemuck::cast_slice(&self.words[offset..offset + width])
    }
}
