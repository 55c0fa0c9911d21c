//! `ds4 bench soak`: random load for a long time, to find what an engine loses, mixes up or leaks.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use clap::Args;
use ds4_engine::{CheckpointStore, EngineOptions, SpeculationOptions};
use ds4_kvstore::{Limits, Store};
use ds4_model::ModelShape;
use ds4_workshop::soak::{SoakOptions, SoakReport, soak};
use ds4_workshop::{Control, WorkshopError};
use serde_json::json;

use crate::arguments::{EngineArguments, ModelArgument, SpeculationName};
use crate::failure::{Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::loaded_engine;
use crate::machine_memory;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::progress::TokenBar;
use crate::settings;
use crate::table::{Table, bytes, grouped};

/// Arguments of `ds4 bench soak`.
///
/// Conversations start, go on, branch off and are asked again at random; requests are cancelled; pages and
/// the space for checkpoints are too small for all. Then every page must be free, memory steady, and each
/// answer what the same request gets alone. Exit code 1 if not.
#[derive(Debug, Args)]
pub(crate) struct BenchSoakArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// How long requests arrive
    #[arg(long, value_name = "N", default_value_t = 30.0)]
    minutes: f64,
    /// How long answers are compared with those of a quiet run, at most [default: as long]
    #[arg(long, value_name = "N")]
    compare_minutes: Option<f64>,
    /// Seed of the random numbers
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    seed: u64,
    /// Times that memory is forgotten and checkpoints must come back from disk
    #[arg(long, value_name = "N", default_value_t = 6)]
    rounds: usize,
    /// Tokens of the longest prompt
    #[arg(long, value_name = "N", default_value_t = 900)]
    prompt_tokens: usize,
    /// Tokens of the longest answer
    #[arg(long, value_name = "N", default_value_t = 40)]
    gen_tokens: usize,
    /// Space for checkpoints on disk, in MiB
    #[arg(long, value_name = "N", default_value_t = 64)]
    kv_space_mb: u64,
    /// What drafts tokens
    #[arg(long, value_name = "HOW", value_enum, default_value_t = SpeculationName::Auto)]
    speculation: SpeculationName,
    /// Draft always, without measuring whether it pays
    #[arg(long)]
    always: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Runs the load and prints what happened.
pub(crate) fn run(
    arguments: &BenchSoakArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let duration = minutes(arguments.minutes)?;
    let compare = minutes(arguments.compare_minutes.unwrap_or(arguments.minutes))?;
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let longest = arguments.prompt_tokens.max(1);
    let context = (longest + arguments.gen_tokens).min(shape.context);
    let options = EngineOptions {
        context,
        sessions: 6,
        // Not enough for six.
        cache_tokens: Some(3 * context),
        keep_every: 128,
        kept_bytes: Some(64 << 20),
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        speculation: SpeculationOptions {
            always: arguments.always,
            ..settings::speculation(arguments.speculation, &shape, &model)
        },
        ..settings::engine_options(&arguments.engine)
    };
    let engine = loaded_engine::open(&model, &options, None)?;
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let limits = Limits {
        max_bytes: arguments.kv_space_mb.saturating_mul(1 << 20),
        ..Limits::default()
    };
    let store = CheckpointStore {
        min_tokens: 64,
        min_new_tokens: 32,
        ..CheckpointStore::new(Store::open(&directory.path().join("kv"), limits)?)
    };
    let soak_options = SoakOptions {
        duration,
        compare,
        rounds: arguments.rounds,
        seed: arguments.seed,
        prompt_tokens: longest,
        gen_tokens: arguments.gen_tokens.max(1),
    };
    let armed = interrupt.arm();
    let mut bar = TokenBar::new("soak", output);
    let mut control = Control {
        cancel: armed.cancel(),
        progress: &mut |done, total| bar.update(done, total),
    };
    let memory = machine_memory::resident;
    let report = soak(engine, &store, &soak_options, &memory, &mut control);
    bar.finish();
    let report = match report {
        Err(WorkshopError::Cancelled) => return Err(Interrupted.into()),
        report => report?,
    };
    if arguments.json {
        let mut document = json!(report);
        document["model"] = model.title().into();
        document["seed"] = arguments.seed.into();
        document["clean"] = report.is_clean().into();
        output.line(&document.to_string())?;
    } else {
        write(&report, output)?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let problem = report.first_problem.as_deref();
    Err(anyhow!(
        "the soak is not clean: {}",
        problem.unwrap_or("memory grew")
    ))
}

fn minutes(minutes: f64) -> anyhow::Result<Duration> {
    if (0.0..=60.0 * 24.0 * 30.0).contains(&minutes) {
        return Ok(Duration::from_secs_f64(minutes * 60.0));
    }
    Err(UsageError(format!("{minutes} minutes: expected 0 to a month")).into())
}

fn write(report: &SoakReport, output: &mut Output) -> anyhow::Result<()> {
    let memory: Vec<String> = report.memory.iter().map(|&size| bytes(size)).collect();
    let mut table = Table::default();
    table.row([
        "requests".to_owned(),
        format!(
            "{}: {} cancelled, {} branched off, {} failed, {} more refused by a full queue",
            grouped(report.requests),
            grouped(report.cancelled),
            grouped(report.branched),
            grouped(report.failed),
            grouped(report.refused),
        ),
    ]);
    table.row([
        "prompt tokens".to_owned(),
        format!(
            "{}: {} found in memory, {} on disk",
            grouped(report.prompt_tokens),
            grouped(report.cached_memory),
            grouped(report.cached_disk),
        ),
    ]);
    table.row([
        "generated".to_owned(),
        format!(
            "{}; {} drafted, {} of them accepted",
            grouped(report.generated_tokens),
            grouped(report.drafted_tokens),
            grouped(report.accepted_tokens),
        ),
    ]);
    table.row([
        "preempted".to_owned(),
        format!("{} times", grouped(report.preempted)),
    ]);
    table.row([
        "checkpoints".to_owned(),
        format!(
            "{} saved, {} restored, {} evicted, {} given up",
            grouped(report.saved),
            grouped(report.restored),
            grouped(report.evicted),
            grouped(report.disk_failures),
        ),
    ]);
    table.row([
        "answers".to_owned(),
        format!(
            "{} compared with a quiet run, {} differ",
            grouped(report.compared as u64),
            grouped(report.different as u64),
        ),
    ]);
    table.row([
        "pages".to_owned(),
        format!("{} leaked", grouped(report.leaked_pages as u64)),
    ]);
    table.row(["memory by round".to_owned(), memory.join(", ")]);
    for line in table.facts() {
        output.line(&line)?;
    }
    Ok(())
}
