//! `ds4 plan`: the memory for several contexts and KV cache types.

use clap::Args;
use ds4_engine::{EngineOptions, MemoryPlan};
use ds4_model::{KvFormat, ModelShape};
use serde_json::{Value, json};

use crate::arguments::{KvTypeName, ModelArgument, SpeculationArguments, SpeculationName};
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::settings;
use crate::table::{Table, bytes, grouped};

/// Contexts that are shown where the model reaches them.
const CONTEXTS: [usize; 6] = [
    4_096,
    32_768,
    100_000,
    131_072,
    settings::THINK_MAX_CONTEXT,
    1_048_576,
];

/// Arguments of `ds4 plan`.
///
/// The numbers are what the engine will allocate, not estimates. Weights stay in the mapped file.
#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Contexts in tokens [default: from 4096 up to the model's]
    #[arg(short, long, value_name = "N,…", value_delimiter = ',')]
    ctx: Vec<usize>,
    /// Sessions resident at a time
    #[arg(long, value_name = "N", default_value_t = 1)]
    sessions: usize,
    /// Tokens computed in one prefill step
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().prefill_chunk)]
    chunk: usize,
    /// Only this format of the KV cache
    #[arg(long, value_name = "TYPE", value_enum)]
    kv_cache_type: Option<KvTypeName>,
    #[command(flatten)]
    speculation: SpeculationArguments,
    /// Write JSON, sizes in bytes
    #[arg(long)]
    json: bool,
}

/// A plan and what it is for.
pub(super) struct Row {
    pub(super) context: usize,
    pub(super) format: KvFormat,
    pub(super) plan: MemoryPlan,
}

impl Row {
    /// The plan with its settings; sizes in bytes.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "context": self.context,
            "kv_cache_type": self.format.name(),
            "weights": self.plan.weights,
            "kv_sessions": self.plan.kv_sessions,
            "kv_pages": self.plan.kv_pages,
            "activations": self.plan.activations,
            "kept_points": self.plan.kept_points,
            "allocated": self.plan.allocated(),
            "total": self.plan.total(),
        })
    }
}

/// Prints the table.
pub(crate) fn run(arguments: &PlanArguments, output: &mut Output) -> anyhow::Result<()> {
    let mut model = ModelFile::open(arguments.model.model.as_deref())?;
    model.open_mtp(arguments.speculation.mtp.as_deref())?;
    let shape = ModelShape::from_file(&model.file)?;
    let contexts = if arguments.ctx.is_empty() {
        default_contexts(shape.context)
    } else {
        arguments.ctx.clone()
    };
    let mut rows = Vec::new();
    for context in contexts {
        for format in formats(&shape, arguments.kv_cache_type) {
            let options = EngineOptions {
                context,
                kv_format: format,
                sessions: arguments.sessions,
                prefill_chunk: arguments.chunk,
                speculation: settings::speculation(
                    arguments.speculation.speculation,
                    &shape,
                    &model,
                ),
                ..EngineOptions::default()
            };
            rows.push(Row {
                context,
                format,
                plan: MemoryPlan::for_files(&model.file, model.mtp.as_ref(), &options)?,
            });
        }
    }
    if arguments.json {
        let plans: Vec<Value> = rows.iter().map(Row::to_json).collect();
        let document = json!({
            "model": model.title(),
            "sessions": arguments.sessions,
            "prefill_chunk": arguments.chunk,
            "plans": plans,
        });
        output.line(&document.to_string())?;
        return Ok(());
    }
    model.introduce(output);
    let sessions = match arguments.sessions {
        1 => "1 session".to_owned(),
        many => format!("{many} sessions"),
    };
    output.headline(&format!("Memory plan of {}, {sessions}", model.title()))?;
    for line in table(&rows).lines() {
        output.line(&line)?;
    }
    Ok(())
}

/// Rows as a table with units.
pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new([
        "context",
        "KV type",
        "weights (mapped)",
        "KV windows",
        "KV pages",
        "activations",
        "kept states",
        "total",
    ]);
    for Row {
        context,
        format,
        plan,
    } in rows
    {
        table.row([
            grouped(*context as u64),
            format.name().to_owned(),
            bytes(plan.weights as u64),
            bytes(plan.kv_sessions as u64),
            bytes(plan.kv_pages as u64),
            bytes(plan.activations as u64),
            bytes(plan.kept_points as u64),
            bytes(plan.total() as u64),
        ]);
    }
    table
}

fn default_contexts(longest: usize) -> Vec<usize> {
    let mut contexts: Vec<usize> = CONTEXTS
        .into_iter()
        .filter(|&context| context <= longest)
        .collect();
    if contexts.last() != Some(&longest) {
        contexts.push(longest);
    }
    contexts
}

/// The formats asked for, or all that the model's rows have.
fn formats(shape: &ModelShape, asked: Option<KvTypeName>) -> Vec<KvFormat> {
    match asked {
        Some(name) => vec![name.into()],
        None => {
            let all = KvFormat::ALL.into_iter().rev();
            all.filter(|format| format.fits(shape)).collect()
        }
    }
}

/// The plan for one context in the format that the chat would choose.
pub(super) fn for_context(
    model: &ModelFile,
    shape: &ModelShape,
    context: usize,
    asked: Option<KvTypeName>,
) -> anyhow::Result<Row> {
    let format = settings::kv_format(shape, asked, false);
    let options = EngineOptions {
        context,
        kv_format: format,
        speculation: settings::speculation(SpeculationName::default(), shape, model),
        ..EngineOptions::default()
    };
    Ok(Row {
        context,
        format,
        plan: MemoryPlan::for_file(&model.file, &options)?,
    })
}
