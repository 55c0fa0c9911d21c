//! The weights of a model, by their role in the forward pass.
//!
//! Generic over `T`: the tensors of the file after binding, a backend's own
//! tensors after import. Shapes are `[out, in]`, row-major.

/// Hyper-connection controls of one sub-layer (model-spec section 4).
#[derive(Clone, Debug)]
pub struct HyperConnection<T> {
    /// `[mix_width, 4D]`: rows are 4 pre, 4 post, 16 mixing weights.
    pub function: T,
    /// `[mix_width]`.
    pub base: T,
    /// `[3]`: pre, post, mixing.
    pub scale: T,
}

/// Hyper-connection controls before the head.
#[derive(Clone, Debug)]
pub struct HyperHead<T> {
    /// `[4, 4D]`.
    pub function: T,
    /// `[4]`.
    pub base: T,
    /// `[1]`.
    pub scale: T,
}

/// A compressor of token contributions to rows (model-spec 5.4).
#[derive(Clone, Debug)]
pub struct Compressor<T> {
    /// `[overlap * dim, D]`: content.
    pub content: T,
    /// `[overlap * dim, D]`: pooling scores.
    pub gate: T,
    /// `[ratio, overlap * dim]`: added to the scores by position in the window.
    pub position: T,
    /// `[dim]`: RMS norm of the pooled row.
    pub norm: T,
}

/// The indexer of a layer with sparse compression (model-spec 5.5).
#[derive(Clone, Debug)]
pub struct Indexer<T> {
    /// `[index_heads * index_dim, q_lora]`.
    pub query: T,
    /// `[index_heads, D]`.
    pub head_weights: T,
    /// Makes the keys.
    pub compressor: Compressor<T>,
}

/// What a layer has behind its window.
#[derive(Clone, Debug)]
pub enum Compressed<T> {
    /// Nothing: window-only.
    None,
    /// All rows visible.
    Dense(Compressor<T>),
    /// Rows selected by the indexer.
    Sparse(Compressor<T>, Indexer<T>),
}

impl<T> Compressed<T> {
    /// The compressor of the attention rows, if the layer has one.
    pub fn compressor(&self) -> Option<&Compressor<T>> {
        match self {
            Self::None => None,
            Self::Dense(compressor) | Self::Sparse(compressor, _) => Some(compressor),
        }
    }

    /// The indexer, if the layer has one.
    pub fn indexer(&self) -> Option<&Indexer<T>> {
        match self {
            Self::None | Self::Dense(_) => None,
            Self::Sparse(_, indexer) => Some(indexer),
        }
    }
}

/// Attention of one layer (model-spec section 5).
#[derive(Clone, Debug)]
pub struct Attention<T> {
    /// `[D]`: RMS norm of the input.
    pub norm: T,
    /// `[q_lora, D]`.
    pub query_down: T,
    /// `[q_lora]`: RMS norm of the query latent.
    pub query_norm: T,
    /// `[H * d, q_lora]`.
    pub query_up: T,
    /// `[d, D]`: the one row that serves as key and value.
    pub key_value: T,
    /// `[d]`: RMS norm of that row.
    pub key_value_norm: T,
    /// `[H]`: one extra logit per head.
    pub sinks: T,
    /// `[groups * output_lora, H * d / groups]`: rows are group-major.
    pub output_down: T,
    /// `[D, groups * output_lora]`.
    pub output_up: T,
    /// What lies behind the window.
    pub compressed: Compressed<T>,
}

/// How tokens find their experts (model-spec section 6).
#[derive(Clone, Debug)]
pub enum Selection<T> {
    /// `[vocabulary, experts_used]`, I32: expert ids by token id.
    Hash(T),
    /// `[experts]`: bias that counts for the selection only, if there is one.
    Score(Option<T>),
}

/// A feed-forward network with clamped SwiGLU, or a stack of them.
#[derive(Clone, Debug)]
pub struct FeedForward<T> {
    /// `[width, D]`, times the number of experts.
    pub gate: T,
    /// `[width, D]`.
    pub up: T,
    /// `[D, width]`.
    pub down: T,
}

/// Mixture of experts of one layer (model-spec section 6).
#[derive(Clone, Debug)]
pub struct Mixture<T> {
    /// `[D]`: RMS norm of the input.
    pub norm: T,
    /// `[experts, D]`.
    pub router: T,
    /// How experts are chosen.
    pub selection: Selection<T>,
    /// The routed experts, expert-major.
    pub experts: FeedForward<T>,
    /// The shared expert.
    pub shared: FeedForward<T>,
}

/// One layer: attention and mixture, each inside a hyper-connection.
#[derive(Clone, Debug)]
pub struct Layer<T> {
    /// Controls around the attention.
    pub attention_hyper: HyperConnection<T>,
    /// The attention.
    pub attention: Attention<T>,
    /// Controls around the mixture.
    pub mixture_hyper: HyperConnection<T>,
    /// The mixture of experts.
    pub mixture: Mixture<T>,
}

/// Everything that turns the streams after the last layer into logits.
#[derive(Clone, Debug)]
pub struct Head<T> {
    /// Weights of the streams.
    pub hyper: HyperHead<T>,
    /// `[D]`: RMS norm.
    pub norm: T,
}

/// The multi-token-prediction block (model-spec section 7).
#[derive(Clone, Debug)]
pub struct MultiTokenPrediction<T> {
    /// `[D]`: RMS norm of the next token's embedding.
    pub embedding_norm: T,
    /// `[D]`: RMS norm of each stream.
    pub hidden_norm: T,
    /// `[D, D]`: projection of the embedding.
    pub embedding_projection: T,
    /// `[D, D]`: projection of each stream.
    pub hidden_projection: T,
    /// The block itself; window-only.
    pub layer: Layer<T>,
    /// Its own head; embedding and output matrix are the main model's.
    pub head: Head<T>,
}

/// All weights of a model.
#[derive(Clone, Debug)]
pub struct Weights<T> {
    /// `[vocabulary, D]`.
    pub embedding: T,
    /// The layers, first to last.
    pub layers: Vec<Layer<T>>,
    /// Streams to one row.
    pub head: Head<T>,
    /// `[vocabulary, D]`.
    pub output: T,
    /// The MTP block, if a file with one was given.
    pub mtp: Option<MultiTokenPrediction<T>>,
}

/// Maps every tensor of a structure, in the order of the forward pass.
macro_rules! map_fields {
    ($type:ident { $($field:ident),* } { $($nested:ident),* }) => {
        impl<T> $type<T> {
            /// Replaces every tensor by `convert` of it; stops at the first error.
            pub fn try_map<U, E>(
                self,
                convert: &mut dyn FnMut(T) -> Result<U, E>,
            ) -> Result<$type<U>, E> {
                Ok($type {
                    $($field: convert(self.$field)?,)*
                    $($nested: self.$nested.try_map(convert)?,)*
                })
            }
        }
    };
}

map_fields!(HyperConnection { function, base, scale } {});
map_fields!(HyperHead { function, base, scale } {});
map_fields!(Compressor { content, gate, position, norm } {});
map_fields!(Indexer { query, head_weights } { compressor });
map_fields!(Attention {
    norm, query_down, query_norm, query_up, key_value, key_value_norm, sinks, output_down, output_up
} { compressed });
map_fields!(FeedForward { gate, up, down } {});
map_fields!(Mixture { norm, router } { selection, experts, shared });
map_fields!(Layer {} { attention_hyper, attention, mixture_hyper, mixture });
map_fields!(Head { norm } { hyper });
map_fields!(MultiTokenPrediction {
    embedding_norm, hidden_norm, embedding_projection, hidden_projection
} { layer, head });

impl<T> Compressed<T> {
    /// Replaces every tensor by `convert` of it; stops at the first error.
    pub fn try_map<U, E>(
        self,
        convert: &mut dyn FnMut(T) -> Result<U, E>,
    ) -> Result<Compressed<U>, E> {
        Ok(match self {
            Self::None => Compressed::None,
            Self::Dense(compressor) => Compressed::Dense(compressor.try_map(convert)?),
            Self::Sparse(compressor, indexer) => {
                Compressed::Sparse(compressor.try_map(convert)?, indexer.try_map(convert)?)
            }
        })
    }
}

impl<T> Selection<T> {
    /// Replaces every tensor by `convert` of it; stops at the first error.
    pub fn try_map<U, E>(
        self,
        convert: &mut dyn FnMut(T) -> Result<U, E>,
    ) -> Result<Selection<U>, E> {
        Ok(match self {
            Self::Hash(table) => Selection::Hash(convert(table)?),
            Self::Score(bias) => Selection::Score(bias.map(convert).transpose()?),
        })
    }
}

impl<T> Weights<T> {
    /// Replaces every tensor by `convert` of it; stops at the first error.
    ///
    /// # Errors
    /// The first error of `convert`.
    pub fn try_map<U, E>(
        self,
        convert: &mut dyn FnMut(T) -> Result<U, E>,
    ) -> Result<Weights<U>, E> {
        Ok(Weights {
            embedding: convert(self.embedding)?,
            layers: self
                .layers
                .into_iter()
                .map(|layer| layer.try_map(convert))
                .collect::<Result<_, _>>()?,
            head: self.head.try_map(convert)?,
            output: convert(self.output)?,
            mtp: self.mtp.map(|mtp| mtp.try_map(convert)).transpose()?,
        })
    }
}
