//! The KV state of one sequence as bytes: which ranges of a layer's buffers hold it.

use crate::backend::LayerKv;
use crate::error::ModelError;
use crate::kv_cache::{KvLayout, PAGE_TOKENS};
use crate::shape::ModelShape;

/// The KV state of one sequence on the host: for each layer the newest window
/// rows, the frontiers and the compressed rows, in the cache's row format.
/// It does not depend on slots, pages, ring sizes or the backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceState {
    /// Bytes of each layer.
    pub layers: Vec<Vec<u8>>,
}

#[derive(Clone, Copy)]
enum RegionBuffer {
    Window,
    Rows,
    Frontier,
    IndexRows,
    IndexFrontier,
}

/// A range of bytes in one of a layer's buffers.
pub(crate) struct Region {
    which: RegionBuffer,
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

impl Region {
    pub(crate) fn buffer<'a, B>(&self, kv: &'a LayerKv<B>) -> Result<&'a B, ModelError> {
        match self.which {
            RegionBuffer::Window => Some(&kv.window),
            RegionBuffer::Rows => kv.compressed.as_ref().map(|kv| &kv.rows),
            RegionBuffer::Frontier => kv.compressed.as_ref().map(|kv| &kv.frontier),
            RegionBuffer::IndexRows => kv.index.as_ref().map(|kv| &kv.rows),
            RegionBuffer::IndexFrontier => kv.index.as_ref().map(|kv| &kv.frontier),
        }
        .ok_or_else(no_buffer)
    }

    pub(crate) fn buffer_mut<'a, B>(
        &self,
        kv: &'a mut LayerKv<B>,
    ) -> Result<&'a mut B, ModelError> {
        match self.which {
            RegionBuffer::Window => Some(&mut kv.window),
            RegionBuffer::Rows => kv.compressed.as_mut().map(|kv| &mut kv.rows),
            RegionBuffer::Frontier => kv.compressed.as_mut().map(|kv| &mut kv.frontier),
            RegionBuffer::IndexRows => kv.index.as_mut().map(|kv| &mut kv.rows),
            RegionBuffer::IndexFrontier => kv.index.as_mut().map(|kv| &mut kv.frontier),
        }
        .ok_or_else(no_buffer)
    }
}

fn no_buffer() -> ModelError {
    ModelError::State("a region of a buffer that the layer does not have".to_owned())
}

/// Where a layer keeps the state of a sequence, in logical order; compressed
/// rows only with `pages`.
pub(crate) fn layer_regions<B>(
    kv: &LayerKv<B>,
    shape: &ModelShape,
    slot: usize,
    tokens: usize,
    pages: Option<&[u32]>,
) -> Result<Vec<Region>, ModelError> {
    let layout = &kv.layout;
    if let Some(pages) = pages.filter(|pages| pages.len() < KvLayout::pages_for(tokens)) {
        return Err(ModelError::State(format!(
            "{} pages for {tokens} tokens",
            pages.len()
        )));
    }
    let mut regions = Vec::new();
    // A query at `tokens` sees itself and the window - 1 rows before it.
    let rows = (shape.window - 1).min(tokens);
    ring_regions(
        &mut regions,
        RegionBuffer::Window,
        slot,
        tokens,
        rows,
        layout.ring_rows,
        layout.row_bytes,
    );

    let Some(ratio) = layout.compression.ratio() else {
        return Ok(regions);
    };
    let mut streams = vec![(
        RegionBuffer::Frontier,
        RegionBuffer::Rows,
        layout.channels,
        layout.compressed_row_bytes,
    )];
    if kv.index.is_some() {
        streams.push((
            RegionBuffer::IndexFrontier,
            RegionBuffer::IndexRows,
            layout.index_channels,
            layout.index_row_bytes,
        ));
    }
    for (frontier, rows_buffer, channels, row_bytes) in streams {
        let kept = layout.open_tokens(tokens);
        let token_bytes = 4 * 2 * channels;
        ring_regions(
            &mut regions,
            frontier,
            slot,
            tokens,
            kept,
            layout.frontier_tokens,
            token_bytes,
        );
        let mut left = tokens / ratio;
        for &page in pages.unwrap_or_default() {
            let rows = left.min(PAGE_TOKENS / ratio);
            if rows == 0 {
                break;
            }
            regions.push(Region {
                which: rows_buffer,
                offset: page as usize * layout.rows_per_page() * row_bytes,
                length: rows * row_bytes,
            });
            left -= rows;
        }
    }
    Ok(regions)
}

/// The newest `count` of `end` entries of a ring, as at most two ranges.
fn ring_regions(
    regions: &mut Vec<Region>,
    which: RegionBuffer,
    slot: usize,
    end: usize,
    count: usize,
    ring: usize,
    entry_bytes: usize,
) {
    let start = (end - count) % ring;
    let first = count.min(ring - start);
    let base = slot * ring;
    for (from, length) in [(start, first), (0, count - first)] {
        if length > 0 {
            regions.push(Region {
                which,
                offset: (base + from) * entry_bytes,
                length: length * entry_bytes,
            });
        }
    }
}
