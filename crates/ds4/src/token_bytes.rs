//! What one token passes through: parameters, and bytes that decoding it reads.

use ds4_gguf::{GgufFile, TensorInfo};
use ds4_model::{Compression, KvCapacity, KvFormat, KvLayout, ModelError, ModelShape, PAGE_TOKENS};
use ds4_quant::TensorType;

/// How much of a tensor one token of the main model needs: its share of the routed experts, one
/// row of the embedding and of the tables by token, nothing of the MTP block, all of the rest.
///
/// Returned as a fraction, numerator and denominator.
fn share(tensor: &TensorInfo, shape: &ModelShape) -> (u64, u64) {
    let layer = tensor
        .name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split('.').next());
    let beyond_layers = layer
        .and_then(|layer| layer.parse::<usize>().ok())
        .is_some_and(|layer| layer >= shape.layers.len());
    if tensor.name.starts_with("mtp.") || beyond_layers {
        (0, 1)
    } else if tensor.name == "token_embd.weight" || tensor.ty == TensorType::I32 {
        (1, shape.vocabulary as u64)
    } else if tensor.name.contains("_exps.") {
        (shape.experts_used as u64, shape.experts as u64)
    } else {
        (1, 1)
    }
}

fn part(amount: u64, (numerator, denominator): (u64, u64)) -> u64 {
    let part = u128::from(amount) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

/// Whether a tensor holds parameters; tables of expert numbers are none.
pub(crate) fn is_parameter(tensor: &TensorInfo) -> bool {
    tensor.ty != TensorType::I32
}

/// Parameters that one token passes through.
pub(crate) fn parameters(file: &GgufFile, shape: &ModelShape) -> u64 {
    let parameters = file.tensors().iter().filter(|tensor| is_parameter(tensor));
    parameters
        .map(|tensor| part(tensor.elements(), share(tensor, shape)))
        .sum()
}

/// Bytes of weights that decoding a token reads.
pub(crate) fn weights(file: &GgufFile, shape: &ModelShape) -> u64 {
    file.tensors()
        .iter()
        .map(|tensor| part(tensor.byte_len(), share(tensor, shape)))
        .sum()
}

/// Bytes of the KV cache that decoding the token at `position` reads: the window, and behind it
/// what the layer looks at.
pub(crate) fn kv_cache(shape: &ModelShape, format: KvFormat, position: usize) -> u64 {
    let row = format.compressed_row_bytes(shape);
    let index_row = format.index_row_bytes(shape);
    let bytes: usize = shape
        .layers
        .iter()
        .map(|layer| {
            let window = shape.window.min(position + 1) * format.row_bytes(shape);
            window
                + match layer.compression {
                    Compression::None => 0,
                    Compression::Sparse { ratio } => {
                        let rows = position / ratio;
                        rows * index_row + rows.min(shape.index_top_k) * row
                    }
                    Compression::Dense { ratio } => position / ratio * row,
                }
        })
        .sum();
    bytes as u64
}

/// Bytes that every further token adds to the KV cache of a sequence, in the mean: its share of a page.
///
/// # Errors
/// A format that the model's rows do not have.
pub(crate) fn kv_cache_growth(shape: &ModelShape, format: KvFormat) -> Result<f64, ModelError> {
    let capacity = KvCapacity {
        slots: 1,
        context: PAGE_TOKENS.min(shape.context),
        pages: 1,
    };
    let layout = KvLayout::new(shape, format, capacity, 1, 0, false)?;
    Ok(layout.page_bytes() as f64 / PAGE_TOKENS as f64)
}

/// Bytes that the KV cache of a sequence of `tokens` tokens takes: the window, and all rows behind it.
pub(crate) fn kv_cache_size(shape: &ModelShape, format: KvFormat, tokens: usize) -> u64 {
    let row = format.compressed_row_bytes(shape);
    let bytes: usize = shape
        .layers
        .iter()
        .map(|layer| {
            let window = shape.window.min(tokens) * format.row_bytes(shape);
            window
                + match layer.compression {
                    Compression::None => 0,
                    Compression::Sparse { ratio } => {
                        tokens / ratio * (row + format.index_row_bytes(shape))
                    }
                    Compression::Dense { ratio } => tokens / ratio * row,
                }
        })
        .sum();
    bytes as u64
}
