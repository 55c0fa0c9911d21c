//! `ds4 bench serve`: throughput and latency of an engine that serves many.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use ds4_engine::{Engine, EngineOptions, ServiceOptions};
use ds4_model::ModelShape;
use ds4_workshop::load::{HttpServer, Latency, LoadOptions, LoadRow, measure, measure_server};
use ds4_workshop::{Control, WorkshopError};
use serde_json::{Value, json};

use crate::arguments::{EngineArguments, ModelArgument, SpeculationName};
use crate::failure::{Hint, Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::machine_memory;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::settings;
use crate::table::Table;

/// Tokens of the long prompt, if the model's context has room for them.
const PREFILL_TOKENS: usize = 20_000;

/// Most tokens of a prompt or an answer.
const MOST_TOKENS: usize = 1 << 20;

/// Arguments of `ds4 bench serve`.
///
/// Requests with pseudo-random prompts go through the engine as those of `ds4 serve` do. For each number of
/// sessions as many arrive at once; then, while as many decode, one more brings a long prompt, and while
/// that is computed a newcomer arrives.
///
/// With --url the same requests go to a server that is running, as streamed chat completions. It should be able
/// to work on two requests more than the largest number of sessions.
#[derive(Debug, Args)]
pub(crate) struct BenchServeArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Measure the server at this address instead, such as http://127.0.0.1:8000
    #[arg(long, value_name = "URL", conflicts_with_all = ["model", "quantum"])]
    url: Option<String>,
    /// Key of that server
    #[arg(long, value_name = "KEY", env = "DS4_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Numbers of sessions
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_values_t = [1, 2, 4, 8, 16])]
    sessions: Vec<usize>,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens that each request generates
    #[arg(long, value_name = "N", default_value_t = 64)]
    gen_tokens: usize,
    /// Tokens of the long prompt, 0 for none [default: 20000, or what the model's context holds;
    /// a server must hold as many]
    #[arg(long, value_name = "N")]
    prefill: Option<usize>,
    /// Rows of prompts in a step in which others decode
    #[arg(long, value_name = "N", default_value_t = ServiceOptions::default().prefill_quantum)]
    quantum: usize,
    /// What drafts tokens
    #[arg(long, value_name = "HOW", value_enum, default_value_t = SpeculationName::Off)]
    speculation: SpeculationName,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Measures and prints.
pub(crate) fn run(
    arguments: &BenchServeArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    if let Some(url) = &arguments.url {
        return run_on_server(url, arguments, output, interrupt);
    }
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let options = load_options(arguments, shape.context)?;
    let engine_options = options.engine_options(EngineOptions {
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        speculation: settings::speculation(arguments.speculation, &shape, &model),
        ..settings::engine_options(&arguments.engine)
    });
    machine_memory::check(&model.file, &engine_options)?;
    let engine = Engine::open(&model.file, None, &engine_options, &mut |_| {})
        .with_context(|| format!("cannot load the model `{}`", model.label))
        .hint(|| {
            "fewer tokens with --prompt-tokens, --gen-tokens or --prefill need a smaller context"
                .to_owned()
        })?;
    let rows = follow(arguments, output, interrupt, |control| {
        measure(engine, &options, control)
    })?;
    model.check_unchanged()?;
    let what = json!({
        "model": model.title(),
        "kv_cache_type": engine_options.kv_format.name(),
        "prefill_quantum": options.service.prefill_quantum,
    });
    report(arguments, what, &options, &rows, output)
}

fn run_on_server(
    url: &str,
    arguments: &BenchServeArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let options = load_options(arguments, usize::MAX)?;
    let server = HttpServer::find(url, arguments.api_key.clone())
        .hint(|| "start one with `ds4 serve`, and give its address".to_owned())?;
    let what = json!({"model": server.model, "url": server.url});
    let rows = follow(arguments, output, interrupt, |control| {
        measure_server(server, &options, control)
    })
    .hint(|| {
        "the server must take as many requests at a time, and prompts of --prefill tokens"
            .to_owned()
    })?;
    report(arguments, what, &options, &rows, output)
}

/// What is measured, on a model or server whose context has so many tokens.
fn load_options(arguments: &BenchServeArguments, context: usize) -> anyhow::Result<LoadOptions> {
    let options = LoadOptions {
        sessions: arguments.sessions.clone(),
        prompt_tokens: arguments.prompt_tokens,
        gen_tokens: arguments.gen_tokens,
        prefill_tokens: arguments
            .prefill
            .unwrap_or_else(|| PREFILL_TOKENS.min(context - 1)),
        service: ServiceOptions {
            queue: arguments.sessions.iter().copied().max().unwrap_or(1) + 1,
            prefill_quantum: arguments.quantum,
        },
    };
    let most = context.min(MOST_TOKENS);
    let is_valid = options
        .sessions
        .iter()
        .all(|&sessions| (1..=1024).contains(&sessions))
        && options.prompt_tokens > 0
        && options.gen_tokens > 1
        && options.service.prefill_quantum > 0
        && [
            options.prompt_tokens,
            options.gen_tokens,
            options.prefill_tokens,
        ]
        .iter()
        .all(|&tokens| tokens <= most);
    if !is_valid {
        return Err(UsageError(format!(
            "--sessions must be 1 to 1024, --gen-tokens at least 2, --prompt-tokens and --quantum at least 1, \
             all within the context of {most}"
        ))
        .into());
    }
    Ok(options)
}

/// Measures with progress, until Ctrl-C.
fn follow(
    arguments: &BenchServeArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
    measure: impl FnOnce(&mut Control<'_>) -> Result<Vec<LoadRow>, WorkshopError>,
) -> anyhow::Result<Vec<LoadRow>> {
    let armed = interrupt.arm();
    let mut control = Control {
        cancel: armed.cancel(),
        progress: &mut |done, total| {
            if let Some(sessions) = arguments.sessions.get(done) {
                output.note(&format!("{sessions} sessions ({} of {total})", done + 1));
            }
        },
    };
    match measure(&mut control) {
        Err(WorkshopError::Cancelled) => Err(Interrupted.into()),
        rows => Ok(rows?),
    }
}

/// Prints the figures of `what`, the model and how it was served.
fn report(
    arguments: &BenchServeArguments,
    what: Value,
    options: &LoadOptions,
    rows: &[LoadRow],
    output: &mut Output,
) -> anyhow::Result<()> {
    if arguments.json {
        let mut document = what;
        document["prompt_tokens"] = json!(options.prompt_tokens);
        document["gen_tokens"] = json!(options.gen_tokens);
        document["prefill_tokens"] = json!(options.prefill_tokens);
        document["rows"] = json!(rows);
        output.line(&document.to_string())?;
        return Ok(());
    }
    let title = what["model"].as_str().unwrap_or_default();
    write(title, arguments.url.is_none(), options, rows, output)
}

fn write(
    title: &str,
    is_own_engine: bool,
    options: &LoadOptions,
    rows: &[LoadRow],
    output: &mut Output,
) -> anyhow::Result<()> {
    output.headline(&format!(
        "{}: prompts of {} tokens, answers of {}",
        title, options.prompt_tokens, options.gen_tokens
    ))?;
    let pair = |latency: &Latency| format!("{} / {}", time(latency.median), time(latency.worst));
    let mut table = Table::new([
        "sessions",
        "decode t/s",
        "all t/s",
        "first token, median / worst",
        "gap, median / worst",
    ]);
    for row in rows {
        table.row([
            row.sessions.to_string(),
            format!("{:.1}", row.decode_tps),
            format!("{:.1}", row.total_tps),
            pair(&row.first_token),
            pair(&row.gap),
        ]);
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    if options.prefill_tokens == 0 {
        return Ok(());
    }
    output.line("")?;
    let mut headline = format!("Beside a prompt of {} tokens", options.prefill_tokens);
    if is_own_engine {
        let quantum = options.service.prefill_quantum;
        headline += &format!(", at most {quantum} of them in a step");
    }
    output.headline(&headline)?;
    let mut table = Table::new([
        "sessions",
        "prefill t/s",
        "decode t/s",
        "gap, median / worst",
        "first token, newcomer / long prompt",
    ]);
    for row in rows {
        if let Some(beside) = &row.beside_prefill {
            table.row([
                row.sessions.to_string(),
                format!("{:.1}", beside.prefill_tps),
                format!("{:.1}", beside.decode_tps),
                pair(&beside.gap),
                format!(
                    "{} / {}",
                    time(beside.newcomer_first_token),
                    time(beside.long_first_token)
                ),
            ]);
        }
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    Ok(())
}

/// Seconds with a unit that shows three digits.
fn time(seconds: f64) -> String {
    if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}
