//! The tensors of the architecture: name in the checkpoint, name in the GGUF file, shape and role
//! (gguf-layout section 2, model-spec section 2).

use crate::config::Config;

/// What a tensor is for; recipes choose types by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Norms, biases, scales, sinks: one dimension.
    Vector,
    /// Position biases of the compressors; the engine adds them as floats.
    Position,
    /// Token embedding.
    Embedding,
    /// Output projection to the vocabulary.
    Output,
    /// Control projection of the hyper-connections.
    HyperFunction,
    /// Projections of the attention.
    Attention,
    /// Projections of the KV compressors.
    Compressor,
    /// Query and weight projections of the indexer, and its compressor.
    Indexer,
    /// Router of the experts.
    Router,
    /// Experts by token id, whole numbers.
    HashTable,
    /// Gate projections of the routed experts.
    ExpertGate,
    /// Up projections of the routed experts.
    ExpertUp,
    /// Down projections of the routed experts.
    ExpertDown,
    /// The shared expert.
    Shared,
    /// Embedding and hidden-state projections of the MTP block.
    MtpProjection,
}

impl Role {
    /// Whether this is one of the three stacks of routed experts.
    pub const fn is_expert(self) -> bool {
        matches!(self, Self::ExpertGate | Self::ExpertUp | Self::ExpertDown)
    }
}

/// The block that a tensor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Block {
    /// Embedding and head.
    Top,
    /// A layer of the main model.
    Layer(u64),
    /// The MTP block.
    Mtp,
}

/// A tensor to be made: `matrices` matrices `[rows, columns]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blueprint {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) block: Block,
    source: Source,
    pub(crate) columns: u64,
    /// Rows of one matrix; 0 for a vector.
    pub(crate) rows: u64,
    pub(crate) matrices: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Single(String),
    /// `{prefix}ffn.experts.{e}.{part}.weight`
    Experts {
        prefix: String,
        part: &'static str,
    },
}

impl Blueprint {
    /// Name in the checkpoint of one matrix.
    pub(crate) fn source(&self, matrix: u64) -> String {
        match &self.source {
            Source::Single(name) => name.clone(),
            Source::Experts { prefix, part } => {
                format!("{prefix}ffn.experts.{matrix}.{part}.weight")
            }
        }
    }

    /// Shape that the checkpoint should have, slowest dimension first.
    pub(crate) fn shape(&self) -> Vec<u64> {
        match self.rows {
            0 => vec![self.columns],
            rows => vec![rows, self.columns],
        }
    }

    /// Dimensions in the GGUF file, fastest first.
    pub(crate) fn dims(&self) -> Vec<u64> {
        let mut dims = self.shape();
        dims.reverse();
        if self.role.is_expert() {
            dims.push(self.matrices);
        }
        dims
    }
}

/// Official suffix, GGUF suffix, role, rows (0: a vector), columns.
type Row = (&'static str, &'static str, Role, u64, u64);

/// The main model in the order of its execution.
pub(crate) fn main_model(config: &Config) -> Vec<Blueprint> {
    let streams = config.hc_mult;
    let (hidden, vocabulary) = (config.hidden_size, config.vocab_size);
    let top = |(source, name, role, rows, columns): Row| {
        single(
            Block::Top,
            source.to_owned(),
            name.to_owned(),
            role,
            rows,
            columns,
        )
    };
    let mut tensors = vec![top((
        "embed.weight",
        "token_embd.weight",
        Role::Embedding,
        vocabulary,
        hidden,
    ))];
    for layer in 0..config.num_hidden_layers {
        let ratio = config.compress_ratios[layer as usize];
        let block = Block::Layer(layer);
        let hash_routed = layer < config.num_hash_layers;
        let (official, gguf) = (format!("layers.{layer}."), format!("blk.{layer}."));
        layer_tensors(
            config,
            block,
            &official,
            &gguf,
            ratio,
            hash_routed,
            &mut tensors,
        );
    }
    tensors.extend(
        [
            ("norm.weight", "output_norm.weight", Role::Vector, 0, hidden),
            (
                "hc_head_fn",
                "output_hc_fn.weight",
                Role::HyperFunction,
                streams,
                streams * hidden,
            ),
            (
                "hc_head_base",
                "output_hc_base.weight",
                Role::Vector,
                0,
                streams,
            ),
            (
                "hc_head_scale",
                "output_hc_scale.weight",
                Role::Vector,
                0,
                1,
            ),
            (
                "head.weight",
                "output.weight",
                Role::Output,
                vocabulary,
                hidden,
            ),
        ]
        .map(top),
    );
    tensors
}

/// The MTP block under the reference engine's names.
pub(crate) fn mtp_block(config: &Config) -> Vec<Blueprint> {
    let streams = config.hc_mult;
    let hidden = config.hidden_size;
    let mut tensors = Vec::new();
    let own: [Row; 8] = [
        ("enorm.weight", "enorm.weight", Role::Vector, 0, hidden),
        ("hnorm.weight", "hnorm.weight", Role::Vector, 0, hidden),
        (
            "e_proj.weight",
            "e_proj.weight",
            Role::MtpProjection,
            hidden,
            hidden,
        ),
        (
            "h_proj.weight",
            "h_proj.weight",
            Role::MtpProjection,
            hidden,
            hidden,
        ),
        ("norm.weight", "norm.weight", Role::Vector, 0, hidden),
        (
            "hc_head_fn",
            "hc_head_fn.weight",
            Role::HyperFunction,
            streams,
            streams * hidden,
        ),
        (
            "hc_head_base",
            "hc_head_base.weight",
            Role::Vector,
            0,
            streams,
        ),
        ("hc_head_scale", "hc_head_scale.weight", Role::Vector, 0, 1),
    ];
    tensors.extend(own.map(|(source, name, role, rows, columns)| {
        let (source, name) = (format!("mtp.0.{source}"), format!("mtp.0.{name}"));
        single(Block::Mtp, source, name, role, rows, columns)
    }));
    layer_tensors(
        config,
        Block::Mtp,
        "mtp.0.",
        "mtp.0.",
        0,
        false,
        &mut tensors,
    );
    tensors
}

fn single(
    block: Block,
    source: String,
    name: String,
    role: Role,
    rows: u64,
    columns: u64,
) -> Blueprint {
    Blueprint {
        name,
        role,
        block,
        source: Source::Single(source),
        columns,
        rows,
        matrices: 1,
    }
}

fn layer_tensors(
    config: &Config,
    block: Block,
    official: &str,
    gguf: &str,
    ratio: u64,
    hash_routed: bool,
    tensors: &mut Vec<Blueprint>,
) {
    let (hidden, width) = (config.hidden_size, config.moe_intermediate_size);
    let (head, q_lora) = (config.head_dim, config.q_lora_rank);
    let query = config.num_attention_heads * head;
    let group = query / config.o_groups;
    let output = config.o_groups * config.o_lora_rank;
    let streams = config.hc_mult;
    let mix = streams * (2 + streams);
    let mut add = |rows: &[Row]| {
        tensors.extend(rows.iter().map(|&(source, name, role, rows, columns)| {
            let (source, name) = (format!("{official}{source}"), format!("{gguf}{name}"));
            single(block, source, name, role, rows, columns)
        }));
    };
    use Role::{Attention, Compressor, HyperFunction, Indexer, Position, Router, Shared, Vector};
    add(&[
        (
            "hc_attn_fn",
            "hc_attn_fn.weight",
            HyperFunction,
            mix,
            streams * hidden,
        ),
        ("hc_attn_base", "hc_attn_base.weight", Vector, 0, mix),
        ("hc_attn_scale", "hc_attn_scale.weight", Vector, 0, 3),
        ("attn_norm.weight", "attn_norm.weight", Vector, 0, hidden),
        (
            "attn.wq_a.weight",
            "attn_q_a.weight",
            Attention,
            q_lora,
            hidden,
        ),
        (
            "attn.q_norm.weight",
            "attn_q_a_norm.weight",
            Vector,
            0,
            q_lora,
        ),
        (
            "attn.wq_b.weight",
            "attn_q_b.weight",
            Attention,
            query,
            q_lora,
        ),
        ("attn.wkv.weight", "attn_kv.weight", Attention, head, hidden),
        (
            "attn.kv_norm.weight",
            "attn_kv_a_norm.weight",
            Vector,
            0,
            head,
        ),
        (
            "attn.attn_sink",
            "attn_sinks.weight",
            Vector,
            0,
            config.num_attention_heads,
        ),
    ]);
    if ratio != 0 {
        // Rows of ratio 4 overlap: each token contributes to its own row and to the next.
        let overlap = if ratio == 4 { 2 } else { 1 };
        let kv = overlap * head;
        add(&[
            (
                "attn.compressor.wkv.weight",
                "attn_compressor_kv.weight",
                Compressor,
                kv,
                hidden,
            ),
            (
                "attn.compressor.wgate.weight",
                "attn_compressor_gate.weight",
                Compressor,
                kv,
                hidden,
            ),
            (
                "attn.compressor.ape",
                "attn_compressor_ape.weight",
                Position,
                ratio,
                kv,
            ),
            (
                "attn.compressor.norm.weight",
                "attn_compressor_norm.weight",
                Vector,
                0,
                head,
            ),
        ]);
    }
    if ratio == 4 {
        let (heads, dim) = (config.index_n_heads, config.index_head_dim);
        add(&[
            (
                "attn.indexer.wq_b.weight",
                "indexer.attn_q_b.weight",
                Indexer,
                heads * dim,
                q_lora,
            ),
            (
                "attn.indexer.weights_proj.weight",
                "indexer.proj.weight",
                Indexer,
                heads,
                hidden,
            ),
            (
                "attn.indexer.compressor.wkv.weight",
                "indexer_compressor_kv.weight",
                Indexer,
                2 * dim,
                hidden,
            ),
            (
                "attn.indexer.compressor.wgate.weight",
                "indexer_compressor_gate.weight",
                Indexer,
                2 * dim,
                hidden,
            ),
            (
                "attn.indexer.compressor.ape",
                "indexer_compressor_ape.weight",
                Position,
                ratio,
                2 * dim,
            ),
            (
                "attn.indexer.compressor.norm.weight",
                "indexer_compressor_norm.weight",
                Vector,
                0,
                dim,
            ),
        ]);
    }
    add(&[
        (
            "attn.wo_a.weight",
            "attn_output_a.weight",
            Attention,
            output,
            group,
        ),
        (
            "attn.wo_b.weight",
            "attn_output_b.weight",
            Attention,
            hidden,
            output,
        ),
        (
            "hc_ffn_fn",
            "hc_ffn_fn.weight",
            HyperFunction,
            mix,
            streams * hidden,
        ),
        ("hc_ffn_base", "hc_ffn_base.weight", Vector, 0, mix),
        ("hc_ffn_scale", "hc_ffn_scale.weight", Vector, 0, 3),
        ("ffn_norm.weight", "ffn_norm.weight", Vector, 0, hidden),
        (
            "ffn.gate.weight",
            "ffn_gate_inp.weight",
            Router,
            config.n_routed_experts,
            hidden,
        ),
    ]);
    add(&[if hash_routed {
        (
            "ffn.gate.tid2eid",
            "ffn_gate_tid2eid.weight",
            Role::HashTable,
            config.vocab_size,
            config.num_experts_per_tok,
        )
    } else {
        (
            "ffn.gate.bias",
            "exp_probs_b.bias",
            Vector,
            0,
            config.n_routed_experts,
        )
    }]);
    for (part, name, role, rows, columns) in [
        (
            "w1",
            "ffn_gate_exps.weight",
            Role::ExpertGate,
            width,
            hidden,
        ),
        ("w3", "ffn_up_exps.weight", Role::ExpertUp, width, hidden),
        (
            "w2",
            "ffn_down_exps.weight",
            Role::ExpertDown,
            hidden,
            width,
        ),
    ] {
        tensors.push(Blueprint {
            name: format!("{gguf}{name}"),
            role,
            block,
            source: Source::Experts {
                prefix: official.to_owned(),
                part,
            },
            columns,
            rows,
            matrices: config.n_routed_experts,
        });
    }
    let mut add = |rows: [Row; 3]| {
        tensors.extend(rows.map(|(source, name, role, rows, columns)| {
            let (source, name) = (format!("{official}{source}"), format!("{gguf}{name}"));
            single(block, source, name, role, rows, columns)
        }));
    };
    add([
        (
            "ffn.shared_experts.w1.weight",
            "ffn_gate_shexp.weight",
            Shared,
            width,
            hidden,
        ),
        (
            "ffn.shared_experts.w3.weight",
            "ffn_up_shexp.weight",
            Shared,
            width,
            hidden,
        ),
        (
            "ffn.shared_experts.w2.weight",
            "ffn_down_shexp.weight",
            Shared,
            hidden,
            width,
        ),
    ]);
}
