//! Finds every tensor of the architecture in a file and checks its shape.
//!
//! Both dialects of `deepseek4` files bind: the published reference files and
//! llama.cpp's conversions (gguf-layout). They share the tensor names of the
//! main model; types differ, and MTP is stored in two ways.

use ds4_gguf::{GgufFile, TensorBytes, TensorInfo};
use ds4_quant::TensorType;

use crate::error::ModelError;
use crate::shape::{Compression, LayerShape, ModelShape};
use crate::weights::{
    Attention, Compressed, Compressor, FeedForward, Head, HyperConnection, HyperHead, Indexer,
    Layer, Mixture, MultiTokenPrediction, Selection, Weights,
};

/// A tensor of the file: `matrices` stacked matrices `[rows, columns]`.
#[derive(Clone, Debug)]
pub struct WeightTensor {
    /// Name in the file.
    pub name: String,
    /// Storage format.
    pub ty: TensorType,
    /// Inputs; elements of one row.
    pub columns: usize,
    /// Outputs of one matrix.
    pub rows: usize,
    /// Number of experts, 1 for all other tensors.
    pub matrices: usize,
    /// The blocks, row after row.
    pub bytes: TensorBytes,
}

impl WeightTensor {
    /// Elements in all.
    pub fn elements(&self) -> usize {
        self.columns * self.rows * self.matrices
    }
}

/// Whether `file` holds the MTP block of a model of this shape.
pub fn has_mtp(file: &GgufFile, shape: &ModelShape) -> bool {
    file.tensor(MTP_MARK).is_some() || file.tensor(&fused_mtp_mark(shape)).is_some()
}

/// A tensor that the MTP block has in the published dialect.
const MTP_MARK: &str = "mtp.0.e_proj.weight";

/// A tensor that the MTP block has in llama.cpp's dialect.
fn fused_mtp_mark(shape: &ModelShape) -> String {
    format!("blk.{}.nextn.eh_proj.weight", shape.layers.len())
}

/// Binds the main model in `file`, and the MTP block in `file` or `mtp_file`
/// where there is one.
///
/// # Errors
/// A missing tensor, or one of another shape, type or content than needed.
pub fn bind(
    file: &GgufFile,
    mtp_file: Option<&GgufFile>,
    shape: &ModelShape,
) -> Result<Weights<WeightTensor>, ModelError> {
    let binder = Binder { file, shape };
    let hidden = shape.hidden;
    let layers = shape
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| binder.layer(&format!("blk.{index}."), layer))
        .collect::<Result<Vec<_>, _>>()?;
    let mtp = match mtp_file {
        Some(other) => Binder { file: other, shape }.mtp()?,
        None => binder.mtp()?,
    };
    Ok(Weights {
        embedding: binder.matrix("token_embd.weight", hidden, shape.vocabulary)?,
        layers,
        head: binder.head("output_hc_", "hc_head_", "output_norm.weight")?,
        output: binder.matrix("output.weight", hidden, shape.vocabulary)?,
        mtp,
    })
}

struct Binder<'a> {
    file: &'a GgufFile,
    shape: &'a ModelShape,
}

impl Binder<'_> {
    fn find(&self, name: &str, dims: &[usize]) -> Result<&TensorInfo, ModelError> {
        let info = self
            .file
            .tensor(name)
            .ok_or_else(|| ModelError::MissingTensor {
                name: name.to_owned(),
            })?;
        // Trailing dimensions of 1 carry no meaning: llama.cpp drops them, others write them.
        let significant = |dims: &[u64]| {
            let end = dims
                .iter()
                .rposition(|&dim| dim != 1)
                .map_or(1, |last| last + 1);
            dims[..end.min(dims.len())].to_vec()
        };
        let expected: Vec<u64> = dims.iter().map(|&dim| dim as u64).collect();
        if significant(&info.dims) != significant(&expected) {
            return Err(ModelError::TensorShape {
                name: name.to_owned(),
                found: info.dims.clone(),
                expected,
            });
        }
        Ok(info)
    }

    fn tensor(
        &self,
        name: &str,
        columns: usize,
        rows: usize,
        matrices: usize,
    ) -> Result<WeightTensor, ModelError> {
        let info = self.find(name, &[columns, rows, matrices])?;
        Ok(WeightTensor {
            name: name.to_owned(),
            ty: info.ty,
            columns,
            rows,
            matrices,
            bytes: self.file.bytes(info),
        })
    }

    /// A matrix of numbers `[rows, columns]` in any float or block format.
    fn matrix(&self, name: &str, columns: usize, rows: usize) -> Result<WeightTensor, ModelError> {
        self.stack(name, columns, rows, 1)
    }

    fn stack(
        &self,
        name: &str,
        columns: usize,
        rows: usize,
        matrices: usize,
    ) -> Result<WeightTensor, ModelError> {
        let tensor = self.tensor(name, columns, rows, matrices)?;
        if tensor.ty == TensorType::I32 {
            return Err(ModelError::TensorType {
                name: tensor.name,
                found: tensor.ty.name(),
                expected: "a float or block format",
            });
        }
        Ok(tensor)
    }

    /// A vector or small table that is computed with in F32.
    fn plain(&self, name: &str, columns: usize, rows: usize) -> Result<WeightTensor, ModelError> {
        let tensor = self.tensor(name, columns, rows, 1)?;
        match tensor.ty {
            TensorType::F32 | TensorType::F16 | TensorType::Bf16 => Ok(tensor),
            other => Err(ModelError::TensorType {
                name: tensor.name,
                found: other.name(),
                expected: "F32, F16 or BF16",
            }),
        }
    }

    fn vector(&self, name: &str, length: usize) -> Result<WeightTensor, ModelError> {
        self.plain(name, length, 1)
    }

    fn hyper(
        &self,
        prefix: &str,
        which: &str,
    ) -> Result<HyperConnection<WeightTensor>, ModelError> {
        let width = self.shape.mix_width();
        let inputs = self.shape.streams * self.shape.hidden;
        Ok(HyperConnection {
            function: self.matrix(&format!("{prefix}hc_{which}_fn.weight"), inputs, width)?,
            base: self.vector(&format!("{prefix}hc_{which}_base.weight"), width)?,
            scale: self.vector(&format!("{prefix}hc_{which}_scale.weight"), 3)?,
        })
    }

    /// The head's controls under the one spelling or the other.
    fn head(
        &self,
        prefix: &str,
        alternative: &str,
        norm: &str,
    ) -> Result<Head<WeightTensor>, ModelError> {
        let inputs = self.shape.streams * self.shape.hidden;
        let spelled = |part: &str| {
            let name = format!("{prefix}{part}.weight");
            let bare = format!("{alternative}{part}");
            if self.file.tensor(&name).is_none() && self.file.tensor(&bare).is_some() {
                return bare;
            }
            name
        };
        Ok(Head {
            hyper: HyperHead {
                function: self.matrix(&spelled("fn"), inputs, self.shape.streams)?,
                base: self.vector(&spelled("base"), self.shape.streams)?,
                scale: self.vector(&spelled("scale"), 1)?,
            },
            norm: self.vector(norm, self.shape.hidden)?,
        })
    }

    fn compressor(
        &self,
        prefix: &str,
        dim: usize,
        compression: Compression,
    ) -> Result<Compressor<WeightTensor>, ModelError> {
        let width = compression.overlap() * dim;
        let ratio = compression.ratio().unwrap_or(1);
        let hidden = self.shape.hidden;
        Ok(Compressor {
            content: self.matrix(&format!("{prefix}_kv.weight"), hidden, width)?,
            gate: self.matrix(&format!("{prefix}_gate.weight"), hidden, width)?,
            position: self.plain(&format!("{prefix}_ape.weight"), width, ratio)?,
            norm: self.vector(&format!("{prefix}_norm.weight"), dim)?,
        })
    }

    fn compressed(
        &self,
        prefix: &str,
        compression: Compression,
    ) -> Result<Compressed<WeightTensor>, ModelError> {
        let shape = self.shape;
        let compressor = || {
            self.compressor(
                &format!("{prefix}attn_compressor"),
                shape.head_dim,
                compression,
            )
        };
        match compression {
            Compression::None => Ok(Compressed::None),
            Compression::Dense { .. } => Ok(Compressed::Dense(compressor()?)),
            Compression::Sparse { .. } => Ok(Compressed::Sparse(
                compressor()?,
                Indexer {
                    query: self.matrix(
                        &format!("{prefix}indexer.attn_q_b.weight"),
                        shape.q_lora,
                        shape.index_heads * shape.index_dim,
                    )?,
                    head_weights: self.matrix(
                        &format!("{prefix}indexer.proj.weight"),
                        shape.hidden,
                        shape.index_heads,
                    )?,
                    compressor: self.compressor(
                        &format!("{prefix}indexer_compressor"),
                        shape.index_dim,
                        compression,
                    )?,
                },
            )),
        }
    }

    fn attention(
        &self,
        prefix: &str,
        compression: Compression,
    ) -> Result<Attention<WeightTensor>, ModelError> {
        let shape = self.shape;
        let name = |part: &str| format!("{prefix}{part}.weight");
        let output_width = shape.output_groups * shape.output_lora;
        Ok(Attention {
            norm: self.vector(&name("attn_norm"), shape.hidden)?,
            query_down: self.matrix(&name("attn_q_a"), shape.hidden, shape.q_lora)?,
            query_norm: self.vector(&name("attn_q_a_norm"), shape.q_lora)?,
            query_up: self.matrix(&name("attn_q_b"), shape.q_lora, shape.query_width())?,
            key_value: self.matrix(&name("attn_kv"), shape.hidden, shape.head_dim)?,
            key_value_norm: self.vector(&name("attn_kv_a_norm"), shape.head_dim)?,
            sinks: self.vector(&name("attn_sinks"), shape.heads)?,
            output_down: self.matrix(&name("attn_output_a"), shape.group_width(), output_width)?,
            output_up: self.matrix(&name("attn_output_b"), output_width, shape.hidden)?,
            compressed: self.compressed(prefix, compression)?,
        })
    }

    /// Expert ids by token; every entry is checked once, here.
    fn hash_table(&self, name: &str) -> Result<WeightTensor, ModelError> {
        let shape = self.shape;
        let tensor = self.tensor(name, shape.experts_used, shape.vocabulary, 1)?;
        if tensor.ty != TensorType::I32 {
            return Err(ModelError::TensorType {
                name: tensor.name,
                found: tensor.ty.name(),
                expected: "I32",
            });
        }
        let limit = shape.experts as i64;
        let bad = tensor
            .bytes
            .chunks_exact(4)
            .map(|word| i64::from(i32::from_le_bytes([word[0], word[1], word[2], word[3]])))
            .enumerate()
            .find(|(_, value)| !(0..limit).contains(value));
        match bad {
            Some((index, value)) => Err(ModelError::TensorValue {
                name: tensor.name,
                index,
                value,
                limit,
            }),
            None => Ok(tensor),
        }
    }

    fn mixture(
        &self,
        prefix: &str,
        hash_routed: bool,
    ) -> Result<Mixture<WeightTensor>, ModelError> {
        let shape = self.shape;
        let name = |part: &str| format!("{prefix}{part}.weight");
        let selection = if hash_routed {
            Selection::Hash(self.hash_table(&name("ffn_gate_tid2eid"))?)
        } else {
            let bias = format!("{prefix}exp_probs_b.bias");
            match self.file.tensor(&bias) {
                Some(_) => Selection::Score(Some(self.vector(&bias, shape.experts)?)),
                None => Selection::Score(None),
            }
        };
        let (hidden, width, shared, experts) = (
            shape.hidden,
            shape.expert_hidden,
            shape.shared_hidden,
            shape.experts,
        );
        Ok(Mixture {
            norm: self.vector(&name("ffn_norm"), hidden)?,
            router: self.matrix(&name("ffn_gate_inp"), hidden, experts)?,
            selection,
            experts: FeedForward {
                gate: self.stack(&name("ffn_gate_exps"), hidden, width, experts)?,
                up: self.stack(&name("ffn_up_exps"), hidden, width, experts)?,
                down: self.stack(&name("ffn_down_exps"), width, hidden, experts)?,
            },
            shared: FeedForward {
                gate: self.matrix(&name("ffn_gate_shexp"), hidden, shared)?,
                up: self.matrix(&name("ffn_up_shexp"), hidden, shared)?,
                down: self.matrix(&name("ffn_down_shexp"), shared, hidden)?,
            },
        })
    }

    fn layer(&self, prefix: &str, layer: &LayerShape) -> Result<Layer<WeightTensor>, ModelError> {
        Ok(Layer {
            attention_hyper: self.hyper(prefix, "attn")?,
            attention: self.attention(prefix, layer.compression)?,
            mixture_hyper: self.hyper(prefix, "ffn")?,
            mixture: self.mixture(prefix, layer.hash_routed)?,
        })
    }

    /// The MTP block in either dialect, or `None` where the file has none.
    fn mtp(&self) -> Result<Option<MultiTokenPrediction<WeightTensor>>, ModelError> {
        let hidden = self.shape.hidden;
        let layer = self.shape.mtp_layer();
        if self.file.tensor(MTP_MARK).is_some() {
            return Ok(Some(MultiTokenPrediction {
                embedding_norm: self.vector("mtp.0.enorm.weight", hidden)?,
                hidden_norm: self.vector("mtp.0.hnorm.weight", hidden)?,
                embedding_projection: self.matrix(MTP_MARK, hidden, hidden)?,
                hidden_projection: self.matrix("mtp.0.h_proj.weight", hidden, hidden)?,
                layer: self.layer("mtp.0.", &layer)?,
                head: self.head("mtp.0.hc_head_", "mtp.0.hc_head_", "mtp.0.norm.weight")?,
            }));
        }
        let prefix = format!("blk.{}.", self.shape.layers.len());
        let fused = fused_mtp_mark(self.shape);
        if self.file.tensor(&fused).is_none() {
            return Ok(None);
        }
        let [embedding_projection, hidden_projection] =
            split_columns(&self.matrix(&fused, 2 * hidden, hidden)?)?;
        Ok(Some(MultiTokenPrediction {
            embedding_norm: self.vector(&format!("{prefix}nextn.enorm.weight"), hidden)?,
            hidden_norm: self.vector(&format!("{prefix}nextn.hnorm.weight"), hidden)?,
            embedding_projection,
            hidden_projection,
            layer: self.layer(&prefix, &layer)?,
            head: self.head(
                "output_hc_",
                "hc_head_",
                &format!("{prefix}nextn.shared_head_norm.weight"),
            )?,
        }))
    }
}

/// Cuts a matrix into its left and right half, row by row.
fn split_columns(tensor: &WeightTensor) -> Result<[WeightTensor; 2], ModelError> {
    let columns = tensor.columns / 2;
    let half = tensor
        .ty
        .row_bytes(columns)
        .map_err(|_| ModelError::TensorType {
            name: tensor.name.clone(),
            found: tensor.ty.name(),
            expected: "a format whose blocks divide half a row",
        })?;
    let side = |offset: usize| {
        let bytes: Vec<u8> = tensor
            .bytes
            .chunks_exact(2 * half)
            .flat_map(|row| &row[offset..offset + half])
            .copied()
            .collect();
        WeightTensor {
            name: tensor.name.clone(),
            ty: tensor.ty,
            columns,
            rows: tensor.rows,
            matrices: 1,
            bytes: bytes.into(),
        }
    };
    Ok([side(0), side(half)])
}
