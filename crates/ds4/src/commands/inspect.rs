//! `ds4 inspect`: what is in a model file.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::Args;
use ds4_chat::Vintage;
use ds4_gguf::GgufFile;
use ds4_model::{Compression, ModelShape, bind};
use serde_json::{Value, json};

use super::plan;
use crate::arguments::{KvTypeName, ModelArgument};
use crate::loaded_model;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::{Output, visible};
use crate::table::{Table, bytes, count, grouped};
use crate::token_bytes;

/// Arguments of `ds4 inspect`.
///
/// Reads the header, checks that every tensor of the architecture is there with the right shape,
/// and plans memory. Fails, after showing what is in the file, if ds4 cannot run it.
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Context in tokens for the memory plan [default: 32768, or less if the model has less]
    #[arg(short, long, value_name = "N")]
    ctx: Option<usize>,
    /// Format of the KV cache for the memory plan
    #[arg(long, value_name = "TYPE", value_enum)]
    kv_cache_type: Option<KvTypeName>,
    /// List every tensor
    #[arg(long)]
    tensors: bool,
    /// List every metadata key
    #[arg(long)]
    metadata: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// Prints what is in the file.
pub(crate) fn run(arguments: &InspectArguments, output: &mut Output) -> anyhow::Result<()> {
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    let file = &model.file;
    let shape = ModelShape::from_file(file);
    let sizes = Sizes::of(file, shape.as_ref().ok());
    let memory = match &shape {
        Ok(shape) => {
            let context = arguments.ctx.unwrap_or_else(|| shape.context.min(32_768));
            Some(plan::for_context(
                &model,
                shape,
                context,
                arguments.kv_cache_type,
            )?)
        }
        Err(_) => None,
    };
    if arguments.json {
        let document = to_json(
            &model,
            shape.as_ref().ok(),
            &sizes,
            memory.as_ref(),
            arguments,
        );
        output.line(&document.to_string())?;
    } else {
        model.introduce(output);
        print_file(&model, output)?;
        if let Ok(shape) = &shape {
            print_shape(shape, &sizes, output)?;
        }
        output.line("")?;
        output.headline("Tensors by type")?;
        print_lines(&sizes.table(), output)?;
        if let Some(row) = memory {
            output.line("")?;
            output.headline("Memory")?;
            print_lines(&plan::table(&[row]), output)?;
        }
        if arguments.metadata {
            print_metadata(file, output)?;
        }
        if arguments.tensors {
            print_tensors(file, output)?;
        }
    }
    let cannot_run = "ds4 cannot run this file";
    let shape = shape.context(cannot_run)?;
    bind::bind(file, None, &shape).context(cannot_run)?;
    Vocabulary::of_file(file).context(cannot_run)?;
    Ok(())
}

/// Tensors and elements of one type.
#[derive(Debug, Default, Clone, Copy)]
struct TypeSize {
    tensors: u64,
    elements: u64,
    bytes: u64,
}

/// What the tensors of a file add up to.
struct Sizes {
    by_type: BTreeMap<String, TypeSize>,
    total: TypeSize,
    /// Parameters: elements but for tables of integers.
    parameters: u64,
    /// Parameters of the main model that one token passes through: its share of the routed
    /// experts, and one row of the embedding.
    active: Option<u64>,
}

impl Sizes {
    fn of(file: &GgufFile, shape: Option<&ModelShape>) -> Self {
        let mut by_type: BTreeMap<String, TypeSize> = BTreeMap::new();
        let mut total = TypeSize::default();
        let mut parameters = 0;
        for tensor in file.tensors() {
            for size in [
                by_type.entry(tensor.ty.to_string()).or_default(),
                &mut total,
            ] {
                size.tensors += 1;
                size.elements += tensor.elements();
                size.bytes += tensor.byte_len();
            }
            if token_bytes::is_parameter(tensor) {
                parameters += tensor.elements();
            }
        }
        let active = shape.map(|shape| token_bytes::parameters(file, shape));
        Self {
            by_type,
            total,
            parameters,
            active,
        }
    }

    fn table(&self) -> Table {
        let mut table = Table::new([
            "type",
            "tensors",
            "elements",
            "size",
            "share",
            "bits per element",
        ]);
        let mut row = |name: &str, size: &TypeSize| {
            table.row([
                name.to_owned(),
                size.tensors.to_string(),
                count(size.elements),
                bytes(size.bytes),
                format!(
                    "{:.1}%",
                    100.0 * size.bytes as f64 / self.total.bytes.max(1) as f64
                ),
                format!(
                    "{:.2}",
                    8.0 * size.bytes as f64 / size.elements.max(1) as f64
                ),
            ]);
        };
        let mut types: Vec<_> = self.by_type.iter().collect();
        types.sort_by_key(|(_, size)| std::cmp::Reverse(size.bytes));
        for (name, size) in types {
            row(name, size);
        }
        row("all", &self.total);
        table
    }
}

fn print_file(model: &ModelFile, output: &mut Output) -> anyhow::Result<()> {
    let metadata = model.file.metadata();
    let text = |key: &str| -> anyhow::Result<String> {
        let bytes = metadata.optional_bytes(key)?;
        Ok(visible(
            &bytes.map_or("not given".into(), String::from_utf8_lossy),
        ))
    };
    output.headline(&format!("File {}", visible(&model.title())))?;
    let mut table = Table::new(["name", &text("general.name")?]);
    table.row(["architecture", &text("general.architecture")?]);
    table.row(["size", &bytes(model.file.file_size())]);
    table.row(["parts", &model.file.paths().len().to_string()]);
    table.row(["metadata keys", &metadata.len().to_string()]);
    table.row(["tensors", &grouped(model.file.tensors().len() as u64)]);
    print_facts(&table, output)
}

fn print_shape(shape: &ModelShape, sizes: &Sizes, output: &mut Output) -> anyhow::Result<()> {
    output.line("")?;
    output.headline("Model")?;
    let mut table = Table::new(["parameters", &count(sizes.parameters)]);
    table.row(["active per token", &count(sizes.active.unwrap_or(0))]);
    table.row(["layers", &layers(shape)]);
    table.row([
        "width",
        &format!(
            "{}, {} residual streams",
            grouped(shape.hidden as u64),
            shape.streams
        ),
    ]);
    table.row([
        "attention",
        &format!(
            "{} heads of {} ({} rotated), window {}",
            shape.heads, shape.head_dim, shape.rope_dim, shape.window
        ),
    ]);
    table.row([
        "indexer",
        &format!(
            "{} heads of {}, top {}",
            shape.index_heads, shape.index_dim, shape.index_top_k
        ),
    ]);
    table.row([
        "experts",
        &format!(
            "{} of {} wide, {} per token, 1 shared",
            shape.experts, shape.expert_hidden, shape.experts_used
        ),
    ]);
    table.row([
        "vocabulary",
        &format!("{} tokens", grouped(shape.vocabulary as u64)),
    ]);
    table.row([
        "context",
        &format!("{} tokens", grouped(shape.context as u64)),
    ]);
    print_facts(&table, output)
}

/// Layers by kind, the most common kinds last as in the model.
fn layers(shape: &ModelShape) -> String {
    let mut kinds: BTreeMap<(usize, &str), usize> = BTreeMap::new();
    for layer in &shape.layers {
        let kind = match layer.compression {
            Compression::None => (0, "window only"),
            Compression::Sparse { ratio } => (ratio, "with indexer"),
            Compression::Dense { ratio } => (ratio, "all rows"),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    let mut text = shape.layers.len().to_string();
    for (index, ((ratio, kind), layers)) in kinds.into_iter().enumerate() {
        let separator = if index == 0 { ": " } else { ", " };
        text.push_str(separator);
        text.push_str(&match ratio {
            0 => format!("{layers} {kind}"),
            ratio => format!("{layers} compressed {ratio}:1 {kind}"),
        });
    }
    let hashed = shape
        .layers
        .iter()
        .filter(|layer| layer.hash_routed)
        .count();
    text.push_str(&format!("; {hashed} routed by token id"));
    text
}

/// A table of names and values, the values aligned left.
fn print_facts(table: &Table, output: &mut Output) -> anyhow::Result<()> {
    for line in table.facts() {
        output.line(&line)?;
    }
    Ok(())
}

fn print_lines(table: &Table, output: &mut Output) -> anyhow::Result<()> {
    for line in table.lines() {
        output.line(&line)?;
    }
    Ok(())
}

fn print_metadata(file: &GgufFile, output: &mut Output) -> anyhow::Result<()> {
    output.line("")?;
    output.headline("Metadata")?;
    for (key, value) in file.metadata().iter() {
        output.line(&format!(
            "{}  {}",
            visible(key),
            visible(&value.to_string())
        ))?;
    }
    Ok(())
}

fn print_tensors(file: &GgufFile, output: &mut Output) -> anyhow::Result<()> {
    output.line("")?;
    output.headline("Tensors")?;
    let mut table = Table::new(["name", "type", "dimensions", "size"]);
    for tensor in file.tensors() {
        table.row([
            visible(&tensor.name),
            tensor.ty.to_string(),
            format!("{:?}", tensor.dims),
            bytes(tensor.byte_len()),
        ]);
    }
    print_lines(&table, output)
}

fn to_json(
    model: &ModelFile,
    shape: Option<&ModelShape>,
    sizes: &Sizes,
    memory: Option<&plan::Row>,
    arguments: &InspectArguments,
) -> Value {
    let file = &model.file;
    let text = |key: &str| -> Value {
        let bytes = file.metadata().optional_bytes(key).ok().flatten();
        bytes.map(String::from_utf8_lossy).into()
    };
    let types: serde_json::Map<String, Value> = sizes
        .by_type
        .iter()
        .map(|(name, size)| {
            let size = json!({
                "tensors": size.tensors, "elements": size.elements, "bytes": size.bytes,
            });
            (name.clone(), size)
        })
        .collect();
    let mut document = json!({
        "file": model.label,
        "name": text("general.name"),
        "synthetic": model.is_synthetic(),
        "architecture": text("general.architecture"),
        "file_bytes": file.file_size(),
        "parts": file.paths().len(),
        "metadata_keys": file.metadata().len(),
        "tensors": file.tensors().len(),
        "tensor_bytes": sizes.total.bytes,
        "parameters": sizes.parameters,
        "active_parameters": sizes.active,
        "types": types,
        "model": shape.map(|shape| shape_json(shape, loaded_model::vintage(file))),
        "memory": memory.map(plan::Row::to_json),
    });
    if arguments.tensors {
        document["tensor_list"] = file
            .tensors()
            .iter()
            .map(|tensor| {
                json!({
                    "name": tensor.name,
                    "type": tensor.ty.to_string(),
                    "dims": tensor.dims,
                    "bytes": tensor.byte_len(),
                })
            })
            .collect();
    }
    if arguments.metadata {
        let keys: serde_json::Map<String, Value> = file
            .metadata()
            .iter()
            .map(|(key, value)| (key.to_owned(), value.to_string().into()))
            .collect();
        document["metadata"] = keys.into();
    }
    document
}

fn shape_json(shape: &ModelShape, vintage: anyhow::Result<Vintage>) -> Value {
    let ratios: Vec<usize> = shape
        .layers
        .iter()
        .map(|layer| layer.compression.ratio().unwrap_or(0))
        .collect();
    json!({
        "layers": shape.layers.len(),
        "compress_ratios": ratios,
        "hash_layers": shape.layers.iter().filter(|layer| layer.hash_routed).count(),
        "hidden": shape.hidden,
        "streams": shape.streams,
        "heads": shape.heads,
        "head_dim": shape.head_dim,
        "window": shape.window,
        "experts": shape.experts,
        "experts_used": shape.experts_used,
        "expert_hidden": shape.expert_hidden,
        "vocabulary": shape.vocabulary,
        "context": shape.context,
        "vintage": vintage.ok().map(|vintage| match vintage {
            Vintage::April => "april",
            Vintage::Release0731 => "0731",
        }),
    })
}
