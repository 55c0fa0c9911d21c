//! The tensors of a synthetic model.

use std::collections::HashMap;
use std::rc::Rc;

use ds4_gguf::TensorSpec;
use ds4_quant::TensorType;

use crate::error::SyntheticError;
use crate::model::{Dialect, SyntheticModel};
use crate::random::Random;

/// Larger tensors repeat this many elements.
const POOL_ELEMENTS: usize = 1 << 22;

/// Bytes that are handed on at a time.
const PART_BYTES: usize = 1 << 20;

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

    /// Hands on the bytes, part by part. They depend on the model's seed, the tensor's name, its type and
    /// its dimensions only.
    pub(super) fn encode(
        &self,
        pools: &mut RowPools,
        put: &mut dyn FnMut(&[u8]) -> Result<(), SyntheticError>,
    ) -> Result<(), SyntheticError> {
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
            let bytes: Vec<u8> = ids.flat_map(|id| (id as i32).to_le_bytes()).collect();
            return put(&bytes);
        }
        if rows * columns <= POOL_ELEMENTS {
            return put(&self.content.rows(&mut random, self.ty, rows, columns)?);
        }
        let pool = pools.of(self)?;
        let start = random.below(pool.count);
        let mut part = Vec::with_capacity(PART_BYTES + pool.row_bytes);
        for row in 0..rows {
            pool.copy_row(start + row, &mut part);
            if part.len() >= PART_BYTES || row + 1 == rows {
                put(&part)?;
                part.clear();
            }
        }
        Ok(())
    }
}

impl Content {
    /// Rows of random numbers, encoded.
    fn rows(
        self,
        random: &mut Random,
        ty: TensorType,
        rows: usize,
        columns: usize,
    ) -> Result<Vec<u8>, SyntheticError> {
        let values: Vec<f32> = (0..rows * columns)
            .map(|_| match self {
                Content::Matrix => random.normal() / (columns as f32).sqrt(),
                Content::Norm => 1.0 + 0.1 * random.normal(),
                Content::Normal(deviation) => deviation * random.normal(),
                Content::Experts(_) => 0.0,
            })
            .collect();
        let mut bytes = vec![0; rows * ty.row_bytes(columns)?];
        ds4_quant::encode(ty, &values, &mut bytes)?;
        Ok(bytes)
    }

    /// What tells pools apart.
    fn key(self) -> u64 {
        match self {
            Content::Matrix => 0,
            Content::Norm => 1,
            Content::Normal(deviation) => 2 + u64::from(deviation.to_bits()),
            Content::Experts(_) => u64::MAX,
        }
    }
}

/// Random rows that large tensors are made of.
struct RowPool {
    bytes: Vec<u8>,
    row_bytes: usize,
    block_bytes: usize,
    /// Rows; odd, so that a whole number of experts does not repeat the same ones.
    count: usize,
}

impl RowPool {
    /// Appends row `number` of an endless sequence: the rows of the pool in turn, in each turn with their
    /// blocks moved on by one, so that rows repeat only after `count * blocks`.
    fn copy_row(&self, number: usize, out: &mut Vec<u8>) {
        let (turn, place) = (number / self.count, number % self.count);
        let row = &self.bytes[place * self.row_bytes..(place + 1) * self.row_bytes];
        let blocks = self.row_bytes / self.block_bytes;
        let (front, back) = row.split_at(turn % blocks * self.block_bytes);
        out.extend_from_slice(back);
        out.extend_from_slice(front);
    }
}

/// One pool for each kind of row.
#[derive(Default)]
pub(super) struct RowPools(HashMap<(u32, usize, u64), Rc<RowPool>>);

impl RowPools {
    fn of(&mut self, tensor: &Tensor) -> Result<Rc<RowPool>, SyntheticError> {
        let columns = tensor.dims[0];
        let key = (tensor.ty.id(), columns, tensor.content.key());
        if let Some(pool) = self.0.get(&key) {
            return Ok(Rc::clone(pool));
        }
        let count = (POOL_ELEMENTS / columns).saturating_sub(1) | 1;
        let seed = u64::from(key.0) ^ (columns as u64) << 8 ^ key.2 << 32;
        let mut random = Random::new(tensor.seed ^ seed);
        let bytes = tensor
            .content
            .rows(&mut random, tensor.ty, count, columns)?;
        let row_bytes = bytes.len() / count;
        let pool = Rc::new(RowPool {
            block_bytes: tensor.ty.row_bytes(tensor.ty.block_elements())?,
            bytes,
            row_bytes,
            count,
        });
        self.0.insert(key, Rc::clone(&pool));
        Ok(pool)
    }
}

struct List<'a> {
    model: &'a SyntheticModel,
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

    fn mixture(&mut self, prefix: &str, hash_routed: bool, better: bool) {
        let model = self.model;
        let (mut types, hidden, width) = (model.types, model.hidden, model.expert_hidden);
        if better {
            (types.expert_in, types.expert_out) = (TensorType::Q4K, TensorType::Q4K);
        }
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

    fn block(&mut self, prefix: &str, ratio: usize, hash_routed: bool, better: bool) {
        self.hyper(&format!("{prefix}hc_attn_"), ".weight", 24, 3);
        self.attention(prefix, ratio);
        self.hyper(&format!("{prefix}hc_ffn_"), ".weight", 24, 3);
        self.mixture(prefix, hash_routed, better);
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
pub(super) fn main_tensors(model: &SyntheticModel) -> Vec<Tensor> {
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
            layer + model.better_layers >= model.compress_ratios.len(),
        );
    }
    list.tensors
}

/// The tensors of the MTP block's file.
pub(super) fn mtp_tensors(model: &SyntheticModel) -> Vec<Tensor> {
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
            list.block("mtp.0.", 0, false, false);
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
            list.block(&prefix, 0, false, false);
        }
    }
    list.tensors
}
