//! A saved sequence, layer by layer, in numbers.

use anyhow::{Context, Result, ensure};
use ds4_model::kv_cache::{KvFormat, LayerKvLayout};
use ds4_model::{KvLayout, ModelShape, SequenceState};
use ds4_quant::kv_rows;

/// State of one layer. The order of the parts is that of [`SequenceState`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerState {
    /// `[rows, d]`: the newest window rows, oldest first.
    pub window: Vec<f32>,
    /// Attention rows behind the window.
    pub compressed: CompressedState,
    /// Rows of the indexer; with FP4 they are still rotated.
    pub index: CompressedState,
}

/// Finished rows, and the contributions to the next ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompressedState {
    /// `[tokens, channels]`: content of the newest tokens, oldest first.
    pub content: Vec<f32>,
    /// `[tokens, channels]`: their scores, position weights added.
    pub score: Vec<f32>,
    /// `[rows, width]`.
    pub rows: Vec<f32>,
    /// The rows as they are stored.
    pub row_bytes: Vec<u8>,
}

/// Splits the state of `tokens` tokens into numbers.
///
/// # Errors
/// A state of another size.
pub fn read(
    shape: &ModelShape,
    layout: &KvLayout,
    tokens: usize,
    state: &SequenceState,
) -> Result<Vec<LayerState>> {
    layout
        .layers
        .iter()
        .zip(&state.layers)
        .enumerate()
        .map(|(index, (layer, bytes))| {
            read_layer(shape, layout.format, layer, tokens, bytes)
                .with_context(|| format!("layer {index}"))
        })
        .collect()
}

fn read_layer(
    shape: &ModelShape,
    format: KvFormat,
    layout: &LayerKvLayout,
    tokens: usize,
    bytes: &[u8],
) -> Result<LayerState> {
    let mut rest = bytes;
    let mut take = |length: usize| {
        let (part, tail) = rest
            .split_at_checked(length)
            .context("state is too short")?;
        rest = tail;
        Ok::<_, anyhow::Error>(part)
    };
    let rows = (shape.window - 1).min(tokens);
    let window = take(rows * layout.row_bytes)?;
    let mut state = LayerState {
        window: rows_of(shape, format, layout.row_bytes, window)?,
        ..LayerState::default()
    };
    if let Some(ratio) = layout.compression.ratio() {
        let overlap = layout.compression.overlap();
        let open = (tokens % ratio + (overlap - 1) * ratio).min(tokens);
        let mut part = |channels: usize, row_bytes: usize, index: bool| {
            let mut part = CompressedState::default();
            let frontier = take(open * 2 * channels * 4)?;
            for entry in floats(frontier).chunks_exact(2 * channels) {
                part.content.extend(&entry[..channels]);
                part.score.extend(&entry[channels..]);
            }
            part.row_bytes = take(tokens / ratio * row_bytes)?.to_vec();
            part.rows = if index {
                index_rows_of(shape, format, row_bytes, &part.row_bytes)?
            } else {
                compressed_rows_of(shape, format, row_bytes, &part.row_bytes)?
            };
            Ok::<_, anyhow::Error>(part)
        };
        state.compressed = part(layout.channels, layout.compressed_row_bytes, false)?;
        if layout.index_channels > 0 {
            state.index = part(layout.index_channels, layout.index_row_bytes, true)?;
        }
    }
    ensure!(rest.is_empty(), "{} bytes too many", rest.len());
    Ok(state)
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let words = bytes.as_chunks().0.iter();
    words.map(|&word| f32::from_le_bytes(word)).collect()
}

fn halves(bytes: &[u8]) -> Result<Vec<f32>> {
    let mut values = vec![0.0; bytes.len() / 2];
    ds4_quant::decode(ds4_quant::TensorType::F16, bytes, &mut values)?;
    Ok(values)
}

fn rows_of(
    shape: &ModelShape,
    format: KvFormat,
    row_bytes: usize,
    bytes: &[u8],
) -> Result<Vec<f32>> {
    match format {
        KvFormat::F32 => Ok(floats(bytes)),
        KvFormat::F16 => halves(bytes),
        KvFormat::Fp8 | KvFormat::Q4 => {
            let mut rows = Vec::new();
            let mut row = vec![0.0; shape.head_dim];
            for bytes in bytes.chunks_exact(row_bytes) {
                kv_rows::fp8_row_decode(bytes, shape.nope_dim(), &mut row)?;
                rows.extend(&row);
            }
            Ok(rows)
        }
    }
}

fn compressed_rows_of(
    shape: &ModelShape,
    format: KvFormat,
    row_bytes: usize,
    bytes: &[u8],
) -> Result<Vec<f32>> {
    match format {
        KvFormat::F32 | KvFormat::F16 | KvFormat::Fp8 => rows_of(shape, format, row_bytes, bytes),
        KvFormat::Q4 => {
            let mut rows = Vec::new();
            let mut row = vec![0.0; shape.head_dim];
            for bytes in bytes.chunks_exact(row_bytes) {
                kv_rows::q4_row_decode(bytes, &mut row)?;
                rows.extend(&row);
            }
            Ok(rows)
        }
    }
}

fn index_rows_of(
    shape: &ModelShape,
    format: KvFormat,
    row_bytes: usize,
    bytes: &[u8],
) -> Result<Vec<f32>> {
    match format {
        KvFormat::F32 => Ok(floats(bytes)),
        KvFormat::F16 => halves(bytes),
        KvFormat::Fp8 | KvFormat::Q4 => {
            let mut rows = Vec::new();
            let mut row = vec![0.0; shape.index_dim];
            for bytes in bytes.chunks_exact(row_bytes) {
                kv_rows::fp4_row_decode(bytes, &mut row)?;
                rows.extend(&row);
            }
            Ok(rows)
        }
    }
}
