//! What a checkpoint holds beside its segments, as bytes.
//!
//! Windows and open contributions of each layer, the rows that the last page holds if it is not
//! full, and the logits of the next token (F32, little-endian) if they were computed. All lengths
//! follow from the number of tokens; nothing in the bytes is trusted to say one.

use ds4_model::{KvLayout, ModelShape, PAGE_TOKENS, SequenceState};

/// The parts.
#[derive(Debug, PartialEq)]
pub(super) struct Frontier {
    pub(super) state: SequenceState,
    /// Rows of the tokens after the last whole page.
    pub(super) tail: Vec<u8>,
    /// Empty if they were not computed.
    pub(super) logits: Vec<f32>,
}

impl Frontier {
    /// The bytes of the parts.
    pub(super) fn encode(state: &SequenceState, tail: &[u8], logits: &[f32]) -> Vec<u8> {
        let layers = state.layers.iter().map(Vec::len).sum::<usize>();
        let mut bytes = Vec::with_capacity(layers + tail.len() + 4 * logits.len());
        state
            .layers
            .iter()
            .for_each(|layer| bytes.extend_from_slice(layer));
        bytes.extend_from_slice(tail);
        logits
            .iter()
            .for_each(|value| bytes.extend_from_slice(&value.to_le_bytes()));
        bytes
    }

    /// The parts of the state after `tokens` tokens; `None` if the length is wrong.
    pub(super) fn decode(
        bytes: &[u8],
        shape: &ModelShape,
        layout: &KvLayout,
        tokens: usize,
    ) -> Option<Self> {
        let mut rest = bytes;
        let mut take = |length: usize| {
            let (part, behind) = rest.split_at_checked(length)?;
            rest = behind;
            Some(part.to_vec())
        };
        let layers = layout
            .layers
            .iter()
            .map(|layer| take(layer.frontier_bytes(shape.window, tokens)))
            .collect::<Option<Vec<_>>>()?;
        let tail = take(layout.page_rows_bytes(tokens % PAGE_TOKENS))?;
        if !rest.is_empty() && rest.len() != 4 * shape.vocabulary {
            return None;
        }
        let (values, _) = rest.as_chunks::<4>();
        Some(Self {
            state: SequenceState { layers },
            tail,
            logits: values.iter().copied().map(f32::from_le_bytes).collect(),
        })
    }
}
