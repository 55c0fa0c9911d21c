//! `ds4 eval`: questions with known answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use ds4_engine::EngineOptions;
use ds4_model::{ModelShape, Steering};

use super::eval_official::{self, OfficialArguments};
use crate::arguments::{EngineArguments, ModelArgument, SteeringArguments, VintageName};
use crate::eval::{Judged, Report, Runner, SelectionArguments, read_cases};
use crate::failure::Interrupted;
use crate::interrupt::Interrupt;
use crate::loaded_engine;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::settings;
use crate::steering_file;

/// Arguments of `ds4 eval`.
///
/// Every case is asked in a conversation of its own, at temperature 0, and its answer is judged by
/// the case's check: a pattern, a number, JSON, tool calls. Shares come with the interval that holds
/// the true share in 95 of 100 repetitions.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct EvalArguments {
    #[command(subcommand)]
    command: Option<EvalCommand>,
    /// What to ask: nano for the cases that the built-in model was made for, or a file of JSON
    /// lines, compressed with gzip or not
    #[arg(value_name = "nano|FILE", required = true)]
    cases: Option<PathBuf>,
    #[command(flatten)]
    model: ModelArgument,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Show every wrong case: the end of its prompt, what is expected, the answer
    #[arg(long, conflicts_with = "json")]
    show: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write scores and the answer to every case as JSON to this file
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    #[command(flatten)]
    steering: SteeringArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

#[derive(Debug, Subcommand)]
enum EvalCommand {
    /// Judge continuations of the official service, token by token
    Official(OfficialArguments),
}

/// Asks and counts.
pub(crate) fn run(
    arguments: &EvalArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    if let Some(EvalCommand::Official(official)) = &arguments.command {
        return eval_official::run(official, output, interrupt);
    }
    let source = arguments.cases.as_deref();
    let source = source.ok_or_else(|| anyhow!("there is no file of cases"))?;
    let file = read_cases(source)?;
    let cases = arguments.selection.choose(&file.cases)?;
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    let runner = Runner::new(&cases, &vocabulary.tokenizer, vintage)?;
    let options = EngineOptions {
        context: runner.context().min(shape.context),
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        ..settings::engine_options(&arguments.engine)
    };
    let steering = steering_file::load(&arguments.steering, &shape)?;
    let mut engine = loaded_engine::open(&model, &options, steering.as_ref())?;
    let armed = interrupt.arm();
    let start = Instant::now();
    let results = runner.run(&mut engine, Judged::None, &armed, output)?;
    model.check_unchanged()?;
    let report = Report {
        cases: &cases,
        results: &results,
        source: source.display().to_string(),
        model: model.title(),
        backend: engine.backend_name(),
        options,
        steering: steering.as_ref().map(Steering::scales),
        vintage,
        limit: arguments.selection.limit,
        seconds: start.elapsed().as_secs_f64(),
    };
    if let Some(path) = &arguments.report {
        report.write_file(path)?;
    }
    if arguments.json {
        output.line(&report.to_json().to_string())?;
    } else {
        if arguments.show {
            report.write_wrong_cases(output)?;
        }
        report.write_table(output)?;
    }
    if results.interrupted {
        output.warning(&format!(
            "stopped after {} of {} cases; the scores are of those",
            results.results.len(),
            cases.len()
        ));
        return Err(Interrupted.into());
    }
    Ok(())
}
