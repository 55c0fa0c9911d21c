//! The metadata of a synthetic model.

use ds4_gguf::{Array, Metadata, Value, ValueType};

use crate::error::SyntheticError;
use crate::model::{Dialect, SyntheticModel};
use crate::tokenizer;

/// Metadata key that marks a file whose weights are random.
pub const MARK: &str = "ds4.synthetic";

/// Keys of the main model's file.
pub(super) fn main(model: &SyntheticModel) -> Result<Metadata, SyntheticError> {
    let mut metadata = Metadata::new();
    shape(model, &mut metadata, model.compress_ratios.len())?;
    metadata.insert(MARK, true)?;
    tokenizer::write(model, &mut metadata)?;
    Ok(metadata)
}

/// Keys of the MTP block's file.
pub(super) fn mtp(model: &SyntheticModel) -> Result<Metadata, SyntheticError> {
    let mut metadata = Metadata::new();
    match model.dialect {
        Dialect::Published => {
            metadata.insert("general.architecture", "deepseek4")?;
        }
        Dialect::LlamaCpp => {
            shape(model, &mut metadata, model.compress_ratios.len() + 1)?;
            metadata.insert("deepseek4.nextn_predict_layers", 1_u32)?;
        }
    }
    metadata.insert(MARK, true)?;
    Ok(metadata)
}

fn shape(
    model: &SyntheticModel,
    metadata: &mut Metadata,
    blocks: usize,
) -> Result<(), SyntheticError> {
    metadata.insert("general.architecture", "deepseek4")?;
    metadata.insert("general.name", model.name.as_str())?;
    let sizes = [
        ("block_count", blocks),
        ("context_length", model.context),
        ("embedding_length", model.hidden),
        ("attention.head_count", model.heads),
        ("attention.head_count_kv", 1),
        ("attention.key_length", model.head_dim),
        ("attention.value_length", model.head_dim),
        ("rope.dimension_count", model.rope_dim),
        ("attention.q_lora_rank", model.q_lora),
        ("attention.output_lora_rank", model.output_lora),
        ("attention.output_group_count", model.output_groups),
        ("attention.sliding_window", model.window),
        ("attention.indexer.head_count", model.index_heads),
        ("attention.indexer.key_length", model.index_dim),
        ("attention.indexer.top_k", model.index_top_k),
        ("expert_count", model.experts),
        ("expert_used_count", model.experts_used),
        ("expert_feed_forward_length", model.expert_hidden),
        ("expert_shared_count", 1),
        ("hash_layer_count", model.hash_layers),
        ("hyper_connection.count", 4),
        ("hyper_connection.sinkhorn_iterations", 20),
        ("rope.scaling.original_context_length", 65536),
    ];
    let mut insert = |name: &str, value: Value| metadata.insert(format!("deepseek4.{name}"), value);
    let whole = |size: usize| {
        u32::try_from(size)
            .map(Value::U32)
            .map_err(|_| SyntheticError::Shape(format!("the size {size} is beyond 32 bits")))
    };
    for (name, size) in sizes {
        insert(name, whole(size)?)?;
    }
    let numbers = [
        ("expert_weights_scale", model.expert_scale),
        ("hyper_connection.epsilon", 1e-6),
        ("attention.layer_norm_rms_epsilon", 1e-6),
        ("rope.freq_base", 10_000.0),
        ("attention.compress_rope_freq_base", 160_000.0),
        ("rope.scaling.factor", 16.0),
        ("rope.scaling.yarn_beta_fast", 32.0),
        ("rope.scaling.yarn_beta_slow", 1.0),
    ];
    for (name, number) in numbers {
        insert(name, Value::F32(number))?;
    }
    insert("expert_weights_norm", Value::Bool(true))?;
    insert("rope.scaling.type", "yarn".into())?;
    let clamps = vec![Value::F32(model.swiglu_clamp); blocks];
    insert(
        "swiglu_clamp_exp",
        Array::new(ValueType::F32, clamps.clone())?.into(),
    )?;
    // The last entry is the MTP block's.
    let ratios = model.compress_ratios.iter().copied().chain([0]);
    match model.dialect {
        Dialect::Published => {
            insert("vocab_size", whole(model.vocabulary)?)?;
            let ratios = Array::new(ValueType::U32, ratios.map(Value::U32))?;
            insert("attention.compress_ratios", ratios.into())?;
        }
        Dialect::LlamaCpp => {
            insert("expert_gating_func", Value::U32(4))?;
            insert(
                "swiglu_clamp_shexp",
                Array::new(ValueType::F32, clamps)?.into(),
            )?;
            let ratios = Array::new(ValueType::I32, ratios.map(|ratio| Value::I32(ratio as i32)))?;
            insert("attention.compress_ratios", ratios.into())?;
        }
    }
    Ok(())
}
