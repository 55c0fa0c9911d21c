//! What a synthetic model is like.

use ds4_quant::TensorType;

use crate::error::SyntheticError;
use crate::random::Random;
use crate::tokenizer::least_vocabulary;

/// Whose files the model's files are like (gguf-layout): keys, and how an MTP block is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The published reference files: `mtp.0.*`, two projections.
    Published,
    /// llama.cpp's conversions: `blk.N.nextn.*`, one fused projection.
    LlamaCpp,
}

/// Types of the weights. A tensor whose rows are no whole number of blocks becomes F16.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WeightTypes {
    /// Token embedding.
    pub embedding: TensorType,
    /// Output matrix.
    pub output: TensorType,
    /// Attention projections and shared experts.
    pub dense: TensorType,
    /// Gate and up matrices of the routed experts.
    pub expert_in: TensorType,
    /// Down matrices of the routed experts.
    pub expert_out: TensorType,
    /// Router, compressors, indexer.
    pub small: TensorType,
    /// Functions of the hyper-connections.
    pub hyper: TensorType,
}

impl WeightTypes {
    /// Everything in F32.
    pub const F32: Self = Self::all(TensorType::F32);
    /// The published 2-bit recipe.
    pub const PUBLISHED: Self = Self {
        embedding: TensorType::F16,
        output: TensorType::Q8_0,
        dense: TensorType::Q8_0,
        expert_in: TensorType::Iq2Xxs,
        expert_out: TensorType::Q2K,
        small: TensorType::F16,
        hyper: TensorType::F16,
    };
    /// llama.cpp's conversion of the released checkpoint.
    pub const LLAMA_CPP: Self = Self {
        embedding: TensorType::Bf16,
        output: TensorType::Bf16,
        dense: TensorType::Q8_0,
        expert_in: TensorType::Mxfp4,
        expert_out: TensorType::Mxfp4,
        small: TensorType::Bf16,
        hyper: TensorType::F32,
    };

    /// One type for everything.
    pub const fn all(ty: TensorType) -> Self {
        Self {
            embedding: ty,
            output: ty,
            dense: ty,
            expert_in: ty,
            expert_out: ty,
            small: ty,
            hyper: ty,
        }
    }
}

/// A model with random weights. The fields are the architecture's dimensions.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the names of the shape's own dimensions")]
pub struct SyntheticModel {
    pub name: String,
    /// Decides every weight.
    pub seed: u64,
    pub dialect: Dialect,
    pub types: WeightTypes,
    /// How many of the last layers have their experts in Q4_K, whatever the types say.
    pub better_layers: usize,
    pub hidden: usize,
    /// At least [`least_vocabulary`].
    pub vocabulary: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub rope_dim: usize,
    pub q_lora: usize,
    pub output_groups: usize,
    pub output_lora: usize,
    pub window: usize,
    pub index_heads: usize,
    pub index_dim: usize,
    pub index_top_k: usize,
    pub experts: usize,
    pub experts_used: usize,
    pub expert_hidden: usize,
    pub expert_scale: f32,
    /// One of 0, 4 and 128 for each layer.
    pub compress_ratios: Vec<u32>,
    pub hash_layers: usize,
    pub swiglu_clamp: f32,
    pub context: usize,
}

impl Default for SyntheticModel {
    /// Four layers of all three kinds, 32 experts in all, fit for FP8 rows and every weight type with
    /// blocks of 32; the published dialect in Q8_0 and MXFP4.
    fn default() -> Self {
        Self {
            name: "small".to_owned(),
            seed: 1,
            dialect: Dialect::Published,
            types: WeightTypes {
                dense: TensorType::Q8_0,
                ..WeightTypes::LLAMA_CPP
            },
            better_layers: 0,
            hidden: 64,
            vocabulary: 512,
            heads: 4,
            head_dim: 128,
            rope_dim: 64,
            q_lora: 32,
            output_groups: 2,
            output_lora: 32,
            window: 16,
            index_heads: 4,
            index_dim: 128,
            index_top_k: 8,
            experts: 8,
            experts_used: 3,
            expert_hidden: 64,
            expert_scale: 1.5,
            compress_ratios: vec![0, 4, 128, 4],
            hash_layers: 1,
            swiglu_clamp: 10.0,
            context: 4096,
        }
    }
}

impl SyntheticModel {
    /// A random shape with random weights. With `fp8_rows` its heads fit FP8 rows.
    pub fn random(seed: u64, fp8_rows: bool) -> Self {
        let mut random = Random::new(seed);
        let rope_dim = 2 * random.between(1, 16);
        let head_dim = if fp8_rows {
            rope_dim + 64 * random.between(1, 2)
        } else {
            rope_dim + random.between(0, 40)
        };
        let output_groups = random.between(1, 3);
        let experts = random.between(1, 9);
        let layers = random.between(1, 4);
        Self {
            name: format!("random-{seed}"),
            seed,
            dialect: random.choose(&[Dialect::Published, Dialect::LlamaCpp]),
            types: random.choose(&[
                WeightTypes::F32,
                WeightTypes::all(TensorType::Bf16),
                WeightTypes::all(TensorType::Q8_0),
                WeightTypes::LLAMA_CPP,
            ]),
            better_layers: 0,
            hidden: random.choose(&[24, 32, 40, 64, 96]),
            vocabulary: least_vocabulary() + random.below(40),
            heads: output_groups * random.between(1, 3),
            head_dim,
            rope_dim,
            q_lora: random.between(5, 40),
            output_groups,
            output_lora: random.between(3, 20),
            window: random.between(1, 20),
            index_heads: random.between(1, 5),
            index_dim: if fp8_rows {
                128
            } else {
                rope_dim + random.below(30)
            },
            index_top_k: random.between(1, 6),
            experts,
            experts_used: random.between(1, experts.min(4)),
            expert_hidden: random.choose(&[16, 32, 50]),
            expert_scale: random.choose(&[1.0, 1.5, 2.5]),
            compress_ratios: (0..layers)
                .map(|_| random.choose(&[0, 4, 4, 128]))
                .collect(),
            hash_layers: random.between(0, layers),
            swiglu_clamp: random.choose(&[1.0, 10.0]),
            context: 1024,
        }
    }

    pub(crate) fn check(&self) -> Result<(), SyntheticError> {
        let problem = if self.vocabulary < least_vocabulary() {
            format!(
                "a vocabulary of {}, at least {} are needed",
                self.vocabulary,
                least_vocabulary()
            )
        } else if !self.heads.is_multiple_of(self.output_groups) || self.experts_used > self.experts
        {
            format!(
                "{} heads in {} groups, {} of {} experts",
                self.heads, self.output_groups, self.experts_used, self.experts
            )
        } else {
            return Ok(());
        };
        Err(SyntheticError::Shape(problem))
    }
}
