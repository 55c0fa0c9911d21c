//! The released models' dimensions (model-spec section 1), and a small model for every block format.

use ds4_quant::TensorType;

use crate::model::{Dialect, SyntheticModel, WeightTypes};

impl SyntheticModel {
    /// V4 Flash: 284 billion parameters.
    pub fn flash() -> Self {
        Self {
            name: "Synthetic DeepSeek V4 Flash, random weights".to_owned(),
            seed: 1,
            dialect: Dialect::Published,
            types: WeightTypes::PUBLISHED,
            better_layers: 0,
            hidden: 4096,
            vocabulary: 129_280,
            heads: 64,
            head_dim: 512,
            rope_dim: 64,
            q_lora: 1024,
            output_groups: 8,
            output_lora: 1024,
            window: 128,
            index_heads: 64,
            index_dim: 128,
            index_top_k: 512,
            experts: 256,
            experts_used: 6,
            expert_hidden: 2048,
            expert_scale: 1.5,
            compress_ratios: ratios([0, 0], 43),
            hash_layers: 3,
            swiglu_clamp: 10.0,
            context: 1 << 20,
        }
    }

    /// V4 PRO: 1.6 trillion parameters.
    pub fn pro() -> Self {
        Self {
            name: "Synthetic DeepSeek V4 PRO, random weights".to_owned(),
            hidden: 7168,
            heads: 128,
            q_lora: 1536,
            output_groups: 16,
            index_top_k: 1024,
            experts: 384,
            expert_hidden: 3072,
            expert_scale: 2.5,
            compress_ratios: ratios([128, 128], 61),
            ..Self::flash()
        }
    }

    /// A few megabytes: every kind of layer, rows for every block format and for FP8.
    pub fn small() -> Self {
        Self {
            name: "Synthetic small DeepSeek V4, random weights".to_owned(),
            hidden: 256,
            vocabulary: 512,
            heads: 4,
            head_dim: 256,
            q_lora: 256,
            output_groups: 2,
            output_lora: 128,
            window: 16,
            index_heads: 16,
            index_top_k: 8,
            experts: 8,
            expert_hidden: 256,
            compress_ratios: ratios([0, 0], 6),
            context: 65_536,
            ..Self::flash()
        }
    }
}

/// The first two layers as given, then 4 and 128 in turn.
fn ratios(first: [u32; 2], layers: usize) -> Vec<u32> {
    let rest = [4, 128].into_iter().cycle();
    first.into_iter().chain(rest).take(layers).collect()
}

impl WeightTypes {
    /// The published 4-bit recipe.
    pub const PUBLISHED_4_BIT: Self = Self {
        expert_in: TensorType::Q4K,
        expert_out: TensorType::Q4K,
        ..Self::PUBLISHED
    };
    /// Everything large in Q8_0.
    pub const Q8: Self = Self {
        small: TensorType::Q8_0,
        hyper: TensorType::F16,
        ..Self::all(TensorType::Q8_0)
    };
}
