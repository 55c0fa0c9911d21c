//! The tensors of a small model.

use anyhow::Result;
use ds4_gguf::TensorSpec;
use ds4_quant::TensorType;

use super::model::{Dialect, SmallModel};
use super::random::Random;

/// What the numbers of a tensor are like.
#[derive(Clone, Copy)]
enum Content {
    /// Normal, so scaled that a matrix keeps the size of its input.
    Matrix,
    /// Around 1.
    Norm,
    /// Normal with this deviation.
    Normal(f32),
    /// Distinct expert ids below this number.
    Experts(usize),
}

/// A tensor to be written.
pub(super) struct Tensor {
    pub(super) name: String,
    dims: Vec<usize>,
    ty: TensorType,
    content: Content,
    seed: u64,
}

impl Tensor {
    pub(super) fn spec(&self) -> TensorSpec {
        TensorSpec {
            name: self.name.clone(),
            dims: self.dims.iter().map(|&dim| dim as u64).collect(),
            ty: self.ty,
        }
    }

    /// The bytes. They depend on the model's seed, the tensor's name and its dimensions only.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let name_hash = self
            .name
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
            });
        let mut random = Random::new(self.seed ^ name_hash);
        let columns = self.dims[0];
        let rows: usize = self.dims[1..].iter().product();
        if let Content::Experts(experts) = self.content {
            let ids = (0..rows).flat_map(|_| random.distinct(columns, experts));
            return Ok(ids.flat_map(|id| (id as i32).to_le_bytes()).collect());
        }
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| match self.content {
                Content::Matrix => random.normal() / (columns as f32).sqrt(),
                Content::Norm => 1.0 + 0.1 * random.normal(),
                Content::Normal(deviation) => deviation * random.normal(),
                Content::Experts(_) => 0.0,
            })
            .collect();
        let mut bytes = vec![0; rows * self.ty.row_bytes(columns)?];
        ds4_quant::encode(self.ty, &values, &mut bytes)?;
        Ok(bytes)
    }
}

struct List<'a> {
    model: &'a SmallModel,
    tensors: Vec<Tensor>,
}

impl List<'_> {
    fn push(&mut self, name: String, dims: &[usize], ty: TensorType, content: Content) {
        let ty = match ty.row_bytes(dims[0]) {
            Ok(_) => ty,
            Err(_) => TensorType::F16,
        };
        self.tensors.push(Tensor {
            name,
            dims: dims.to_vec(),
            ty,
            content,
            seed: self.model.seed,
        });
    }

    fn norm(&mut self, name: String, width: usize) {
        self.push(name, &[width], TensorType::F32, Content::Norm);
    }

    fn vector(&mut self, name: String, width: usize, deviation: f32) {
        self.push(name, &[width], TensorType::F32, Content::Normal(deviation));
    }

    fn hyper(&mut self, prefix: &str, suffix: &str, width: usize, scales: usize) {
        let (ty, inputs) = (self.model.types.hyper, 4 * self.model.hidden);
        self.push(
            format!("{prefix}fn{suffix}"),
            &[inputs, width],
            ty,
            Content::Matrix,
        );
        self.vector(format!("{prefix}base{suffix}"), width, 0.5);
        self.vector(format!("{prefix}scale{suffix}"), scales, 1.0);
    }

    fn compressor(&mut self, prefix: &str, dim: usize, ratio: usize) {
        let (ty, hidden) = (self.model.types.small, self.model.hidden);
        let width = if ratio == 4 { 2 * dim } else { dim };
        // Position weights are computed with as they are: no block format.
        let plain = match self.model.dialect {
            Dialect::Published => TensorType::F16,
            Dialect::LlamaCpp => TensorType::F32,
        };
        self.push(
            format!("{prefix}_kv.weight"),
            &[hidden, width],
            ty,
            Content::Matrix,
        );
        self.push(
            format!("{prefix}_gate.weight"),
            &[hidden, width],
            ty,
            Content::Matrix,
        );
        self.push(
            format!("{prefix}_ape.weight"),
            &[width, ratio],
            plain,
            Content::Normal(0.5),
        );
        self.norm(format!("{prefix}_norm.weight"), dim);
    }

    fn attention(&mut self, prefix: &str, ratio: usize) {
        let model = self.model;
        let (dense, small, hidden) = (model.types.dense, model.types.small, model.hidden);
        let query = model.heads * model.head_dim;
        let latent = model.output_groups * model.output_lora;
        let name = |part: &str| format!("{prefix}{part}.weight");
        self.norm(name("attn_norm"), hidden);
        self.push(
            name("attn_q_a"),
            &[hidden, model.q_lora],
            dense,
            Content::Matrix,
        );
        self.norm(name("attn_q_a_norm"), model.q_lora);
        self.push(
            name("attn_q_b"),
            &[model.q_lora, query],
            dense,
            Content::Matrix,
        );
        self.push(
            name("attn_kv"),
            &[hidden, model.head_dim],
            dense,
            Content::Matrix,
        );
        self.norm(name("attn_kv_a_norm"), model.head_dim);
        self.vector(name("attn_sinks"), model.heads, 1.0);
        let group = query / model.output_groups;
        self.push(
            name("attn_output_a"),
            &[group, latent],
            dense,
            Content::Matrix,
        );
        self.push(
            name("attn_output_b"),
            &[latent, hidden],
            dense,
            Content::Matrix,
        );
        if ratio == 0 {
            return;
        }
        self.compressor(&format!("{prefix}attn_compressor"), model.head_dim, ratio);
        if ratio == 4 {
            let queries = model.index_heads * model.index_dim;
            self.push(
                name("indexer.attn_q_b"),
                &[model.q_lora, queries],
                small,
                Content::Matrix,
            );
            let heads = [hidden, model.index_heads];
            self.push(name("indexer.proj"), &heads, small, Content::Matrix);
            self.compressor(
                &format!("{prefix}indexer_compressor"),
                model.index_dim,
                ratio,
            );
        }
    }

    fn mixture(&mut self, prefix: &str, hash_routed: bool) {
        let model = self.model;
        let (types, hidden, width) = (model.types, model.hidden, model.expert_hidden);
        let name = |part: &str| format!("{prefix}{part}.weight");
        self.norm(name("ffn_norm"), hidden);
        self.push(
            name("ffn_gate_inp"),
            &[hidden, model.experts],
            types.small,
            Content::Matrix,
        );
        if hash_routed {
            let dims = [model.experts_used, model.vocabulary];
            let content = Content::Experts(model.experts);
            self.push(name("ffn_gate_tid2eid"), &dims, TensorType::I32, content);
        } else {
            self.vector(format!("{prefix}exp_probs_b.bias"), model.experts, 0.2);
        }
        let inward = [hidden, width, model.experts];
        let outward = [width, hidden, model.experts];
        self.push(
            name("ffn_gate_exps"),
            &inward,
            types.expert_in,
            Content::Matrix,
        );
        self.push(
            name("ffn_up_exps"),
            &inward,
            types.expert_in,
            Content::Matrix,
        );
        self.push(
            name("ffn_down_exps"),
            &outward,
            types.expert_out,
            Content::Matrix,
        );
        self.push(
            name("ffn_gate_shexp"),
            &inward[..2],
            types.dense,
            Content::Matrix,
        );
        self.push(
            name("ffn_up_shexp"),
            &inward[..2],
            types.dense,
            Content::Matrix,
        );
        self.push(
            name("ffn_down_shexp"),
            &outward[..2],
            types.dense,
            Content::Matrix,
        );
    }

    fn block(&mut self, prefix: &str, ratio: usize, hash_routed: bool) {
        self.hyper(&format!("{prefix}hc_attn_"), ".weight", 24, 3);
        self.attention(prefix, ratio);
        self.hyper(&format!("{prefix}hc_ffn_"), ".weight", 24, 3);
        self.mixture(prefix, hash_routed);
    }

    fn vocabulary(&mut self) {
        let dims = [self.model.hidden, self.model.vocabulary];
        let types = self.model.types;
        self.push(
            "token_embd.weight".into(),
            &dims,
            types.embedding,
            Content::Normal(1.0),
        );
        self.push("output.weight".into(), &dims, types.output, Content::Matrix);
        self.norm("output_norm.weight".into(), self.model.hidden);
    }
}

/// The tensors of the main model's file.
pub(super) fn main_tensors(model: &SmallModel) -> Vec<Tensor> {
    let mut list = List {
        model,
        tensors: Vec::new(),
    };
    list.vocabulary();
    list.hyper("output_hc_", ".weight", 4, 1);
    for (layer, &ratio) in model.compress_ratios.iter().enumerate() {
        list.block(
            &format!("blk.{layer}."),
            ratio as usize,
            layer < model.hash_layers,
        );
    }
    list.tensors
}

/// The tensors of the MTP block's file.
pub(super) fn mtp_tensors(model: &SmallModel) -> Vec<Tensor> {
    let mut list = List {
        model,
        tensors: Vec::new(),
    };
    let (hidden, dense) = (model.hidden, model.types.dense);
    match model.dialect {
        Dialect::Published => {
            list.push(
                "mtp.0.e_proj.weight".into(),
                &[hidden, hidden],
                dense,
                Content::Matrix,
            );
            list.push(
                "mtp.0.h_proj.weight".into(),
                &[hidden, hidden],
                dense,
                Content::Matrix,
            );
            for norm in ["enorm", "hnorm", "norm"] {
                list.norm(format!("mtp.0.{norm}.weight"), hidden);
            }
            list.hyper("mtp.0.hc_head_", ".weight", 4, 1);
            list.block("mtp.0.", 0, false);
        }
        Dialect::LlamaCpp => {
            let prefix = format!("blk.{}.", model.compress_ratios.len());
            list.vocabulary();
            let fused = format!("{prefix}nextn.eh_proj.weight");
            // Its halves must be whole numbers of blocks.
            let ty = dense.row_bytes(hidden).map_or(TensorType::F16, |_| dense);
            list.push(fused, &[2 * hidden, hidden], ty, Content::Matrix);
            for norm in ["enorm", "hnorm", "shared_head_norm"] {
                list.norm(format!("{prefix}nextn.{norm}.weight"), hidden);
            }
            list.hyper("output_hc_", ".weight", 4, 1);
            list.block(&prefix, 0, false);
        }
    }
    list.tensors
}
