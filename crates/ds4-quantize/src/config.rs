//! `config.json` of an official checkpoint, checked.

use std::path::Path;

use crate::checkpoint::read_json;
use crate::error::QuantizeError;

/// Largest dimension that is believed; a larger one is a damaged file.
const LARGEST: u64 = 1 << 24;

/// The configuration, with the names of the official file (model-spec section 1).
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields have the official names and meanings"
)]
pub struct Config {
    pub model_type: Option<String>,
    pub num_hidden_layers: u64,
    pub hidden_size: u64,
    pub vocab_size: u64,
    pub num_attention_heads: u64,
    pub num_key_value_heads: u64,
    pub head_dim: u64,
    pub qk_rope_head_dim: u64,
    pub q_lora_rank: u64,
    pub o_groups: u64,
    pub o_lora_rank: u64,
    pub n_routed_experts: u64,
    pub n_shared_experts: u64,
    pub num_experts_per_tok: u64,
    pub moe_intermediate_size: u64,
    #[serde(default)]
    pub num_hash_layers: u64,
    pub routed_scaling_factor: f64,
    pub swiglu_limit: f64,
    pub scoring_func: Option<String>,
    pub norm_topk_prob: Option<bool>,
    pub sliding_window: u64,
    pub index_n_heads: u64,
    pub index_head_dim: u64,
    pub index_topk: u64,
    pub compress_ratios: Vec<u64>,
    pub compress_rope_theta: f64,
    pub rope_theta: f64,
    pub rope_scaling: RopeScaling,
    pub hc_mult: u64,
    pub hc_sinkhorn_iters: u64,
    pub hc_eps: f64,
    pub rms_norm_eps: f64,
    pub max_position_embeddings: u64,
    #[serde(default)]
    pub num_nextn_predict_layers: u64,
    pub bos_token_id: Option<serde_json::Value>,
    pub eos_token_id: Option<serde_json::Value>,
    pub pad_token_id: Option<serde_json::Value>,
}

/// YaRN of the compressed layers.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[expect(
    missing_docs,
    reason = "the fields have the official names and meanings"
)]
pub struct RopeScaling {
    #[serde(rename = "type", alias = "rope_type")]
    pub kind: String,
    pub factor: f64,
    pub original_max_position_embeddings: u64,
    pub beta_fast: f64,
    pub beta_slow: f64,
}

impl Config {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// A missing field, or a value that the architecture does not allow.
    pub fn from_json(path: &Path) -> Result<Self, QuantizeError> {
        let config: Self = read_json(path)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), QuantizeError> {
        for (field, found, expected) in [
            ("model_type", &self.model_type, "deepseek_v4"),
            ("scoring_func", &self.scoring_func, "sqrtsoftplus"),
        ] {
            if let Some(found) = found
                && found != expected
            {
                return Err(refuse(field, found, expected));
            }
        }
        if self.norm_topk_prob == Some(false) {
            return Err(refuse("norm_topk_prob", false, "true"));
        }
        if self.rope_scaling.kind != "yarn" {
            return Err(refuse("rope_scaling.type", &self.rope_scaling.kind, "yarn"));
        }
        for (field, found, expected) in [
            ("num_key_value_heads", self.num_key_value_heads, 1),
            ("n_shared_experts", self.n_shared_experts, 1),
            ("hc_mult", self.hc_mult, 4),
        ] {
            if found != expected {
                return Err(refuse(field, found, &expected.to_string()));
            }
        }
        for (field, value) in [
            ("num_hidden_layers", self.num_hidden_layers),
            ("hidden_size", self.hidden_size),
            ("vocab_size", self.vocab_size),
            ("num_attention_heads", self.num_attention_heads),
            ("head_dim", self.head_dim),
            ("qk_rope_head_dim", self.qk_rope_head_dim),
            ("q_lora_rank", self.q_lora_rank),
            ("o_groups", self.o_groups),
            ("o_lora_rank", self.o_lora_rank),
            ("n_routed_experts", self.n_routed_experts),
            ("num_experts_per_tok", self.num_experts_per_tok),
            ("moe_intermediate_size", self.moe_intermediate_size),
            ("sliding_window", self.sliding_window),
            ("index_n_heads", self.index_n_heads),
            ("index_head_dim", self.index_head_dim),
            ("index_topk", self.index_topk),
            ("hc_sinkhorn_iters", self.hc_sinkhorn_iters),
            ("max_position_embeddings", self.max_position_embeddings),
            (
                "rope_scaling.original_max_position_embeddings",
                self.rope_scaling.original_max_position_embeddings,
            ),
        ] {
            if value == 0 || value > LARGEST {
                return Err(refuse(field, value, "a number from 1 to 16777216"));
            }
        }
        for (field, value) in [
            ("routed_scaling_factor", self.routed_scaling_factor),
            ("swiglu_limit", self.swiglu_limit),
            ("compress_rope_theta", self.compress_rope_theta),
            ("rope_theta", self.rope_theta),
            ("rope_scaling.factor", self.rope_scaling.factor),
            ("rope_scaling.beta_fast", self.rope_scaling.beta_fast),
            ("rope_scaling.beta_slow", self.rope_scaling.beta_slow),
            ("hc_eps", self.hc_eps),
            ("rms_norm_eps", self.rms_norm_eps),
        ] {
            // As F32, which is what the file will hold.
            let value = value as f32;
            if !(value.is_finite() && value > 0.0) {
                return Err(refuse(field, value, "a positive number"));
            }
        }
        // Every layer asks for tens of tensors: an absurd count would only fill memory with names.
        if self.num_hidden_layers > 4096 {
            return Err(refuse(
                "num_hidden_layers",
                self.num_hidden_layers,
                "at most 4096",
            ));
        }
        if (self.compress_ratios.len() as u64) < self.num_hidden_layers {
            let found = format!("a list of {}", self.compress_ratios.len());
            return Err(refuse("compress_ratios", found, "an entry for every layer"));
        }
        if let Some(ratio) = self
            .compress_ratios
            .iter()
            .find(|r| ![0, 4, 128].contains(r))
        {
            return Err(refuse("compress_ratios", ratio, "entries of 0, 4 or 128"));
        }
        if !self.num_attention_heads.is_multiple_of(self.o_groups) {
            return Err(refuse(
                "o_groups",
                self.o_groups,
                "a divisor of num_attention_heads",
            ));
        }
        if self.num_experts_per_tok > self.n_routed_experts {
            return Err(refuse(
                "num_experts_per_tok",
                self.num_experts_per_tok,
                "at most n_routed_experts",
            ));
        }
        Ok(())
    }
}

fn refuse(field: &'static str, found: impl ToString, expected: &str) -> QuantizeError {
    QuantizeError::Config {
        field,
        found: found.to_string(),
        expected: expected.to_owned(),
    }
}
