//! The dimensions of a model, read from its file and never assumed.
//!
//! Flash, PRO and small models of the same architecture differ only in the
//! numbers here (model-spec section 1).

use ds4_gguf::{GgufFile, Metadata, Value};

use crate::error::ModelError;

/// The architecture string of the files that this crate binds.
pub const ARCHITECTURE: &str = "deepseek4";

/// Upper bound for any single dimension. It keeps every product of two
/// dimensions far inside 64 bits and refuses nonsense early.
const MAX_DIMENSION: u64 = 1 << 24;

/// How a layer sees the tokens that lie behind its sliding window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Only the sliding window.
    None,
    /// Overlapping windows of `ratio` tokens, chosen by the indexer
    /// (compressed sparse attention, "CSA"; ratio 4 in the released models).
    Sparse {
        /// Tokens per compressed row.
        ratio: usize,
    },
    /// Disjoint windows of `ratio` tokens, all visible
    /// (heavily compressed attention, "HCA"; ratio 128).
    Dense {
        /// Tokens per compressed row.
        ratio: usize,
    },
}

impl Compression {
    /// Tokens per compressed row, or `None` for a window-only layer.
    pub fn ratio(self) -> Option<usize> {
        match self {
            Self::None => None,
            Self::Sparse { ratio } | Self::Dense { ratio } => Some(ratio),
        }
    }

    /// Windows that contribute to one row: 2 with overlap, 1 without.
    pub fn overlap(self) -> usize {
        match self {
            Self::Sparse { .. } => 2,
            Self::None | Self::Dense { .. } => 1,
        }
    }
}

/// What differs from layer to layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerShape {
    /// What is visible behind the window.
    pub compression: Compression,
    /// Experts come from a table by token id instead of from the scores.
    pub hash_routed: bool,
    /// Clamp of the routed experts' SwiGLU.
    pub expert_clamp: f32,
    /// Clamp of the shared expert's SwiGLU.
    pub shared_clamp: f32,
}

/// Parameters of YaRN for the layers with compression (model-spec 5.2).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Yarn {
    /// Context extension factor.
    pub factor: f64,
    /// Context length before the extension, in tokens.
    pub original_context: f64,
    /// Rotations above which a pair keeps its frequency.
    pub beta_fast: f64,
    /// Rotations below which a pair is fully interpolated.
    pub beta_slow: f64,
}

/// All dimensions of one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelShape {
    /// `general.name`, or empty.
    pub name: String,
    /// `D`, width of one residual stream.
    pub hidden: usize,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// `H`, attention heads; all share one key/value row.
    pub heads: usize,
    /// `d`, width of a head and of a key/value row.
    pub head_dim: usize,
    /// `r`, the last dimensions of a head, which are rotated.
    pub rope_dim: usize,
    /// Width of the query's low-rank latent.
    pub q_lora: usize,
    /// Groups of the output projection.
    pub output_groups: usize,
    /// Width of one group's low-rank output.
    pub output_lora: usize,
    /// `W`, tokens in the sliding window, the token itself included.
    pub window: usize,
    /// Heads of the indexer.
    pub index_heads: usize,
    /// Width of an indexer head.
    pub index_dim: usize,
    /// Compressed rows that the indexer selects.
    pub index_top_k: usize,
    /// Routed experts per layer.
    pub experts: usize,
    /// Routed experts per token.
    pub experts_used: usize,
    /// Width of one expert.
    pub expert_hidden: usize,
    /// Width of the shared expert.
    pub shared_hidden: usize,
    /// Factor on the normalised expert weights.
    pub expert_scale: f32,
    /// Residual streams of the hyper-connections.
    pub streams: usize,
    /// Sinkhorn iterations.
    pub sinkhorn_iterations: usize,
    /// Epsilon of the hyper-connections.
    pub hyper_epsilon: f32,
    /// Epsilon of every RMS norm.
    pub norm_epsilon: f32,
    /// Rope base of window-only layers and of the MTP block.
    pub rope_base: f64,
    /// Rope base of layers with compression.
    pub compress_rope_base: f64,
    /// YaRN of layers with compression.
    pub yarn: Yarn,
    /// Longest context that the model was made for, in tokens.
    pub context: usize,
    /// One entry per layer, the MTP block not included.
    pub layers: Vec<LayerShape>,
}

impl ModelShape {
    /// Reads and checks the dimensions from the metadata of `file`.
    ///
    /// # Errors
    /// A missing key, a wrong type, or values that contradict one another.
    pub fn from_file(file: &GgufFile) -> Result<Self, ModelError> {
        let metadata = file.metadata();
        let architecture = metadata.str("general.architecture")?;
        if architecture != ARCHITECTURE {
            return Err(ModelError::Architecture {
                found: architecture.to_owned(),
            });
        }
        let reader = KeyReader { metadata };

        let layer_count = reader.dimension("block_count")?;
        // llama.cpp's MTP export counts the MTP block as a layer.
        let mtp_blocks = reader
            .optional_integer("nextn_predict_layers")?
            .unwrap_or(0);
        let layer_count = layer_count
            .checked_sub(usize::try_from(mtp_blocks).unwrap_or(usize::MAX))
            .filter(|&count| count > 0)
            .ok_or_else(|| reader.invalid("block_count", "more layers than MTP blocks"))?;

        let hidden = reader.dimension("embedding_length")?;
        let heads = reader.dimension("attention.head_count")?;
        reader.expect("attention.head_count_kv", 1)?;
        let head_dim = reader.dimension("attention.key_length")?;
        reader.expect("attention.value_length", head_dim as u64)?;
        reader.expect("expert_shared_count", 1)?;
        reader.expect_if_present("expert_group_count", 0)?;
        reader.expect_if_present("expert_group_used_count", 0)?;
        reader.expect_if_present("expert_gating_func", 4)?;
        if metadata.optional_bool(&key("expert_weights_norm"))? == Some(false) {
            return Err(reader.invalid("expert_weights_norm", "true"));
        }

        let expert_widths = reader.integers("expert_feed_forward_length")?;
        let expert_hidden = expert_widths[0];
        if expert_widths.iter().any(|&width| width != expert_hidden) {
            return Err(reader.invalid("expert_feed_forward_length", "one width for all layers"));
        }

        let ratios = reader.integers("attention.compress_ratios")?;
        if ratios.len() < layer_count {
            return Err(reader.invalid("attention.compress_ratios", "an entry for every layer"));
        }
        let hash_layers = reader.optional_integer("hash_layer_count")?.unwrap_or(0);
        let expert_clamps = reader
            .clamps("swiglu_clamp_exp", layer_count)?
            .ok_or_else(|| {
                reader.invalid("swiglu_clamp_exp", "an array with an entry for every layer")
            })?;
        let shared_clamps = reader
            .clamps("swiglu_clamp_shexp", layer_count)?
            .unwrap_or_else(|| expert_clamps.clone());
        let layers = (0..layer_count)
            .map(|index| {
                Ok(LayerShape {
                    compression: reader.compression(ratios[index])?,
                    hash_routed: (index as u64) < hash_layers,
                    expert_clamp: expert_clamps[index],
                    shared_clamp: shared_clamps[index],
                })
            })
            .collect::<Result<Vec<_>, ModelError>>()?;

        let vocabulary = match reader.optional_integer("vocab_size")? {
            Some(size) => reader.in_range("vocab_size", size)?,
            None => {
                let embedding =
                    file.tensor("token_embd.weight")
                        .ok_or_else(|| ModelError::MissingTensor {
                            name: "token_embd.weight".to_owned(),
                        })?;
                let rows = embedding.dims.get(1).copied().unwrap_or(0);
                reader.in_range("vocab_size", rows)?
            }
        };

        let shape = Self {
            name: metadata
                .optional_str("general.name")?
                .unwrap_or("")
                .to_owned(),
            hidden,
            vocabulary,
            heads,
            head_dim,
            rope_dim: reader.dimension("rope.dimension_count")?,
            q_lora: reader.dimension("attention.q_lora_rank")?,
            output_groups: reader.dimension("attention.output_group_count")?,
            output_lora: reader.dimension("attention.output_lora_rank")?,
            window: reader.dimension("attention.sliding_window")?,
            index_heads: reader.dimension("attention.indexer.head_count")?,
            index_dim: reader.dimension("attention.indexer.key_length")?,
            index_top_k: reader.dimension("attention.indexer.top_k")?,
            experts: reader.dimension("expert_count")?,
            experts_used: reader.dimension("expert_used_count")?,
            expert_hidden,
            shared_hidden: expert_hidden,
            expert_scale: reader.positive("expert_weights_scale")? as f32,
            streams: reader.dimension("hyper_connection.count")?,
            sinkhorn_iterations: reader.dimension("hyper_connection.sinkhorn_iterations")?,
            hyper_epsilon: reader.positive("hyper_connection.epsilon")? as f32,
            norm_epsilon: reader.positive("attention.layer_norm_rms_epsilon")? as f32,
            rope_base: reader.positive("rope.freq_base")?,
            compress_rope_base: reader.positive("attention.compress_rope_freq_base")?,
            yarn: Yarn {
                factor: reader.positive("rope.scaling.factor")?,
                original_context: reader.positive("rope.scaling.original_context_length")?,
                beta_fast: reader.positive("rope.scaling.yarn_beta_fast")?,
                beta_slow: reader.positive("rope.scaling.yarn_beta_slow")?,
            },
            context: match reader.optional_integer("context_length")? {
                Some(length) => reader.in_range("context_length", length)?,
                None => 1 << 20,
            },
            layers,
        };
        shape.validate(&reader)?;
        Ok(shape)
    }

    fn validate(&self, reader: &KeyReader<'_>) -> Result<(), ModelError> {
        let checks = [
            (
                self.rope_dim.is_multiple_of(2),
                "rope.dimension_count",
                "an even number",
            ),
            (
                self.rope_dim <= self.head_dim && self.rope_dim <= self.index_dim,
                "rope.dimension_count",
                "at most the width of a head and of an indexer head",
            ),
            (
                self.heads.is_multiple_of(self.output_groups),
                "attention.output_group_count",
                "a divisor of the head count",
            ),
            (
                self.experts_used <= self.experts,
                "expert_used_count",
                "at most expert_count",
            ),
            (
                self.streams == 4,
                "hyper_connection.count",
                "4 residual streams",
            ),
            (
                self.sinkhorn_iterations <= 1000,
                "hyper_connection.sinkhorn_iterations",
                "at most 1000",
            ),
        ];
        match checks.into_iter().find(|(holds, _, _)| !holds) {
            Some((_, name, expected)) => Err(reader.invalid(name, expected)),
            None => Ok(()),
        }
    }

    /// Dimensions of a head that are not rotated.
    pub fn nope_dim(&self) -> usize {
        self.head_dim - self.rope_dim
    }

    /// Width of the hyper-connection projection: pre, post and mixing weights.
    pub fn mix_width(&self) -> usize {
        self.streams * (2 + self.streams)
    }

    /// Width of all heads of a token.
    pub fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Inputs of one group of the output projection.
    pub fn group_width(&self) -> usize {
        self.query_width() / self.output_groups
    }

    /// The shape of the MTP block's layer: window-only, routed by scores.
    pub fn mtp_layer(&self) -> LayerShape {
        let clamp = self.layers.last().map_or(10.0, |layer| layer.expert_clamp);
        LayerShape {
            compression: Compression::None,
            hash_routed: false,
            expert_clamp: clamp,
            shared_clamp: self.layers.last().map_or(10.0, |layer| layer.shared_clamp),
        }
    }

    /// Largest number of tokens that one compressed row of any layer covers.
    pub fn largest_ratio(&self) -> usize {
        self.layers
            .iter()
            .filter_map(|layer| layer.compression.ratio())
            .max()
            .unwrap_or(1)
    }
}

fn key(name: &str) -> String {
    format!("{ARCHITECTURE}.{name}")
}

/// Reads `deepseek4.*` keys and names them in errors.
struct KeyReader<'a> {
    metadata: &'a Metadata,
}

impl KeyReader<'_> {
    fn invalid(&self, name: &str, expected: &str) -> ModelError {
        let key = key(name);
        let found = self
            .metadata
            .get(&key)
            .map_or_else(|| "nothing".to_owned(), ToString::to_string);
        ModelError::Key {
            key,
            found,
            expected: expected.to_owned(),
        }
    }

    fn optional_integer(&self, name: &str) -> Result<Option<u64>, ModelError> {
        Ok(self.metadata.optional_u64(&key(name))?)
    }

    fn in_range(&self, name: &str, value: u64) -> Result<usize, ModelError> {
        if value == 0 || value > MAX_DIMENSION {
            return Err(self.invalid(name, "a number from 1 to 16777216"));
        }
        Ok(value as usize)
    }

    fn dimension(&self, name: &str) -> Result<usize, ModelError> {
        let value = self.metadata.u64(&key(name))?;
        self.in_range(name, value)
    }

    fn expect(&self, name: &str, expected: u64) -> Result<(), ModelError> {
        if self.metadata.u64(&key(name))? == expected {
            return Ok(());
        }
        Err(self.invalid(name, &expected.to_string()))
    }

    fn expect_if_present(&self, name: &str, expected: u64) -> Result<(), ModelError> {
        match self.optional_integer(name)? {
            Some(found) if found != expected => Err(self.invalid(name, &expected.to_string())),
            _ => Ok(()),
        }
    }

    fn positive(&self, name: &str) -> Result<f64, ModelError> {
        let value = f64::from(self.metadata.f32(&key(name))?);
        if value.is_finite() && value > 0.0 {
            return Ok(value);
        }
        Err(self.invalid(name, "a positive number"))
    }

    /// A scalar or an array of positive integers; never empty.
    fn integers(&self, name: &str) -> Result<Vec<usize>, ModelError> {
        let full = key(name);
        if let Some(value) = self.metadata.get(&full).and_then(Value::as_integer) {
            let value = u64::try_from(value).unwrap_or(0);
            return Ok(vec![self.in_range(name, value)?]);
        }
        let values = self.metadata.integers(&full)?;
        if values.is_empty() {
            return Err(self.invalid(name, "at least one entry"));
        }
        values
            .iter()
            .map(|&value| {
                u64::try_from(value)
                    .ok()
                    .filter(|&value| value <= MAX_DIMENSION)
                    .map(|value| value as usize)
                    .ok_or_else(|| self.invalid(name, "entries from 0 to 16777216"))
            })
            .collect()
    }

    /// Per-layer SwiGLU clamps; a scalar stands for all layers.
    fn clamps(&self, name: &str, layers: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let full = key(name);
        let Some(value) = self.metadata.get(&full) else {
            return Ok(None);
        };
        let clamps = match value.as_float() {
            Some(clamp) => vec![clamp; layers],
            None => self.metadata.floats(&full)?,
        };
        if clamps.len() < layers || clamps.iter().any(|clamp| clamp.is_nan() || *clamp <= 0.0) {
            return Err(self.invalid(name, "a positive entry for every layer"));
        }
        Ok(Some(clamps.iter().map(|&clamp| clamp as f32).collect()))
    }

    fn compression(&self, ratio: usize) -> Result<Compression, ModelError> {
        match ratio {
            0 => Ok(Compression::None),
            4 => Ok(Compression::Sparse { ratio }),
            128 => Ok(Compression::Dense { ratio }),
            _ => Err(self.invalid("attention.compress_ratios", "entries of 0, 4 or 128")),
        }
    }
}
