//! `ds4 bench drafts`: what drafting tokens gains, and that it changes nothing else.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use ds4_engine::{Engine, EngineOptions, SpeculationOptions, SpeculationStatus};
use ds4_model::ModelShape;
use ds4_workshop::bench::pseudo_random_prompt;
use ds4_workshop::drafts::{DraftOptions, DraftRow, compare_drafts};
use ds4_workshop::{Control, WorkshopError};
use serde_json::{Value, json};

use crate::arguments::{EngineArguments, ModelArgument, SpeculationName, VintageName};
use crate::documents;
use crate::failure::{Interrupted, UsageError};
use crate::interrupt::{ArmedInterrupt, Interrupt};
use crate::loaded_engine;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::settings;
use crate::table::Table;

/// Arguments of `ds4 bench drafts`.
///
/// The same tokens are decoded with and without drafts, in turn: the prompt again with some changes, as
/// when an agent rewrites a file; what the model says; and random tokens. The first and the last are given, as if
/// the model said them.
#[derive(Debug, Args)]
pub(crate) struct BenchDraftsArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// File with the model's MTP block, if it is not in the model's own
    #[arg(long, value_name = "MODEL")]
    mtp: Option<String>,
    /// What drafts [default: lookup, mtp if the model has it, auto]
    #[arg(long, value_name = "HOW,…", value_enum, value_delimiter = ',')]
    speculation: Vec<SpeculationName>,
    /// Draft always, without measuring whether it pays
    #[arg(long)]
    always: bool,
    /// Prompts: documents as for ds4 score [default: pseudo-random tokens]
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Most tokens of a prompt
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens to decode behind each prompt
    #[arg(long, value_name = "N", default_value_t = 256)]
    gen_tokens: usize,
    /// Number of prompts
    #[arg(long, value_name = "N", default_value_t = 3)]
    repeat: usize,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    /// Write JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Figures of one way to draft.
struct Measured {
    how: &'static str,
    rows: Vec<DraftRow>,
    status: SpeculationStatus,
}

/// Measures and prints.
pub(crate) fn run(
    arguments: &BenchDraftsArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let sizes = [
        arguments.prompt_tokens,
        arguments.gen_tokens,
        arguments.repeat,
    ];
    if sizes.contains(&0) {
        let text = "--prompt-tokens, --gen-tokens and --repeat must be at least 1";
        return Err(UsageError(text.to_owned()).into());
    }
    let mut model = ModelFile::open(arguments.model.model.as_deref())?;
    model.open_mtp(arguments.mtp.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let options = DraftOptions {
        prompts: prompts(arguments, &model, &shape)?,
        gen_tokens: arguments.gen_tokens,
        eos: Vocabulary::of_file(&model.file)?.tokenizer.eos(),
    };
    let engine = EngineOptions {
        context: options.context(),
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        ..settings::engine_options(&arguments.engine)
    };
    let mut asked = arguments.speculation.clone();
    if asked.is_empty() {
        asked.push(SpeculationName::Lookup);
        asked.extend(model.has_mtp(&shape).then_some(SpeculationName::Mtp));
        asked.push(SpeculationName::Auto);
    }
    let armed = interrupt.arm();
    let mut plain = loaded_engine::open(&model, &engine, None)?;
    let mut measured = Vec::new();
    for how in asked {
        let speculation = SpeculationOptions {
            always: arguments.always,
            ..settings::speculation(how, &shape, &model)
        };
        let with = EngineOptions {
            speculation,
            ..engine
        };
        let mut drafting = loaded_engine::open(&model, &with, None)?;
        let name = name(how);
        output.note(&format!("drafts: {name}"));
        measured.push(Measured {
            how: name,
            rows: compare(&mut plain, &mut drafting, &options, &armed)?,
            status: drafting.speculation().unwrap_or_default(),
        });
    }
    model.check_unchanged()?;
    if arguments.json {
        let rows: Vec<Value> = measured.iter().map(to_json).collect();
        let document = json!({
            "model": model.title(),
            "kv_cache_type": engine.kv_format.name(),
            "always": arguments.always,
            "gen_tokens": options.gen_tokens,
            "prompts": options.prompts.len(),
            "drafts": rows,
        });
        output.line(&document.to_string())?;
        return Ok(());
    }
    write(&model, &measured, output)
}

fn compare(
    plain: &mut Engine,
    drafting: &mut Engine,
    options: &DraftOptions,
    armed: &ArmedInterrupt<'_>,
) -> anyhow::Result<Vec<DraftRow>> {
    let mut control = Control {
        cancel: armed.cancel(),
        progress: &mut |_, _| (),
    };
    match compare_drafts(plain, drafting, options, &mut control) {
        Err(WorkshopError::Cancelled) => Err(Interrupted.into()),
        rows => rows.context("the comparison failed"),
    }
}

fn prompts(
    arguments: &BenchDraftsArguments,
    model: &ModelFile,
    shape: &ModelShape,
) -> anyhow::Result<Vec<Vec<u32>>> {
    let length = arguments.prompt_tokens;
    let Some(path) = &arguments.text else {
        let all = pseudo_random_prompt(length * arguments.repeat, shape.vocabulary);
        return Ok(all.chunks(length).map(<[u32]>::to_vec).collect());
    };
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    let mut prompts = documents::read(path, &vocabulary, vintage)?;
    prompts.retain(|prompt| !prompt.is_empty());
    prompts.truncate(arguments.repeat);
    prompts
        .iter_mut()
        .for_each(|prompt| prompt.truncate(length));
    Ok(prompts)
}

fn name(how: SpeculationName) -> &'static str {
    match how {
        SpeculationName::Auto => "auto",
        SpeculationName::Off => "off",
        SpeculationName::Lookup => "lookup",
        SpeculationName::Mtp => "mtp",
    }
}

fn to_json(measured: &Measured) -> Value {
    json!({
        "speculation": measured.how,
        "row_cost": measured.status.row_cost,
        "rows": measured.rows,
    })
}

fn write(model: &ModelFile, measured: &[Measured], output: &mut Output) -> anyhow::Result<()> {
    output.headline(&format!(
        "{}: decoding with and without drafts",
        model.title()
    ))?;
    let mut table = Table::new([
        "drafts",
        "tokens of",
        "tokens a step",
        "drafted",
        "accepted",
        "t/s without",
        "t/s with",
        "times as fast",
        "logits",
    ]);
    for Measured { how, rows, .. } in measured {
        for row in rows {
            let tokens = row.tokens as f64;
            table.row([
                (*how).to_owned(),
                row.workload.name().to_owned(),
                format!("{:.2}", tokens / row.steps.max(1) as f64),
                row.drafted.to_string(),
                row.accepted.to_string(),
                format!("{:.1}", tokens / row.plain_seconds),
                format!("{:.1}", tokens / row.seconds),
                format!("{:.2}", row.gain()),
                if row.same { "the same" } else { "DIFFER" }.to_owned(),
            ]);
        }
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    Ok(())
}
