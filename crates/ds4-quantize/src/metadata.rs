//! The metadata of the GGUF file: what the reference engine and llama.cpp ask for (gguf-layout section 1).

use ds4_gguf::{Array, Metadata, Value};

use crate::config::Config;
use crate::error::QuantizeError;

/// Router scores are square roots of softplus: llama.cpp's number for it.
const GATING_SQRT_SOFTPLUS: u32 = 4;

/// General keys and the dimensions of the model.
pub(crate) fn model_metadata(
    config: &Config,
    name: &str,
    file_type: u32,
) -> Result<Metadata, QuantizeError> {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", "deepseek4")?;
    metadata.insert("general.type", "model")?;
    metadata.insert("general.name", name)?;
    metadata.insert("general.quantization_version", 2_u32)?;
    metadata.insert("general.file_type", file_type)?;
    let layers = config.num_hidden_layers as usize;
    let clamps = vec![config.swiglu_limit as f32; layers];
    let ratios: Vec<i32> = config.compress_ratios.iter().map(|&r| r as i32).collect();
    // The configuration is checked: every number fits 32 bits.
    let whole = |value: u64| Value::U32(value as u32);
    let float = |value: f64| Value::F32(value as f32);
    let scaling = &config.rope_scaling;
    let keys = [
        ("block_count", whole(config.num_hidden_layers)),
        ("context_length", whole(config.max_position_embeddings)),
        ("embedding_length", whole(config.hidden_size)),
        (
            "embedding_length_out",
            whole(config.hc_mult * config.hidden_size),
        ),
        ("vocab_size", whole(config.vocab_size)),
        ("attention.head_count", whole(config.num_attention_heads)),
        ("attention.head_count_kv", whole(config.num_key_value_heads)),
        ("attention.key_length", whole(config.head_dim)),
        ("attention.value_length", whole(config.head_dim)),
        ("attention.q_lora_rank", whole(config.q_lora_rank)),
        ("attention.output_lora_rank", whole(config.o_lora_rank)),
        ("attention.output_group_count", whole(config.o_groups)),
        ("attention.sliding_window", whole(config.sliding_window)),
        ("attention.indexer.head_count", whole(config.index_n_heads)),
        ("attention.indexer.key_length", whole(config.index_head_dim)),
        ("attention.indexer.top_k", whole(config.index_topk)),
        (
            "attention.compress_ratios",
            Value::Array(Array::from(ratios.as_slice())),
        ),
        (
            "attention.compress_rope_freq_base",
            float(config.compress_rope_theta),
        ),
        (
            "attention.layer_norm_rms_epsilon",
            float(config.rms_norm_eps),
        ),
        ("rope.dimension_count", whole(config.qk_rope_head_dim)),
        ("rope.freq_base", float(config.rope_theta)),
        ("rope.scaling.type", Value::from("yarn")),
        ("rope.scaling.factor", float(scaling.factor)),
        (
            "rope.scaling.original_context_length",
            whole(scaling.original_max_position_embeddings),
        ),
        ("rope.scaling.yarn_beta_fast", float(scaling.beta_fast)),
        ("rope.scaling.yarn_beta_slow", float(scaling.beta_slow)),
        ("expert_count", whole(config.n_routed_experts)),
        ("expert_used_count", whole(config.num_experts_per_tok)),
        ("expert_shared_count", whole(config.n_shared_experts)),
        (
            "expert_feed_forward_length",
            whole(config.moe_intermediate_size),
        ),
        ("expert_gating_func", Value::U32(GATING_SQRT_SOFTPLUS)),
        ("expert_weights_scale", float(config.routed_scaling_factor)),
        ("expert_weights_norm", Value::Bool(true)),
        ("hash_layer_count", whole(config.num_hash_layers)),
        (
            "swiglu_clamp_exp",
            Value::Array(Array::from(clamps.as_slice())),
        ),
        (
            "swiglu_clamp_shexp",
            Value::Array(Array::from(clamps.as_slice())),
        ),
        ("hyper_connection.count", whole(config.hc_mult)),
        (
            "hyper_connection.sinkhorn_iterations",
            whole(config.hc_sinkhorn_iters),
        ),
        ("hyper_connection.epsilon", float(config.hc_eps)),
    ];
    for (key, value) in keys {
        metadata.insert(format!("deepseek4.{key}"), value)?;
    }
    Ok(metadata)
}
