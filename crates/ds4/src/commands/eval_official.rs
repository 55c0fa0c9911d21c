//! `ds4 eval official`: how likely a model finds what the official service answered.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use ds4_engine::EngineOptions;
use ds4_eval::{ContinuationScore, OfficialSummary};
use ds4_model::{ModelShape, Steering};
use serde_json::{Value, json};

use crate::arguments::{EngineArguments, ModelArgument, SteeringArguments, VintageName};
use crate::eval::{OfficialCase, read_official_cases, score_official_cases};
use crate::interrupt::Interrupt;
use crate::loaded_engine;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::output_file::OutputFile;
use crate::settings;
use crate::steering_file;
use crate::table::{Table, grouped};

/// Arguments of `ds4 eval official`.
///
/// The manifest has an id, a prompt file and a continuation file a line, with tabs between. Every
/// prompt is a user's message without system text and thinking; every token of its continuation
/// is judged behind the true tokens before it.
#[derive(Debug, Args)]
pub(crate) struct OfficialArguments {
    /// List of prompts and continuations
    #[arg(value_name = "MANIFEST.tsv")]
    manifest: PathBuf,
    #[command(flatten)]
    model: ModelArgument,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Write the scores of every case to this file, in the reference engine's columns
    #[arg(long, value_name = "FILE.tsv")]
    tsv: Option<PathBuf>,
    /// Expand weights to F32 and keep activations in F32; the KV cache is then f32 by default
    #[arg(long)]
    exact: bool,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    #[command(flatten)]
    steering: SteeringArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Judges and prints.
pub(crate) fn run(
    arguments: &OfficialArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    let cases = read_official_cases(&arguments.manifest, &vocabulary.tokenizer, vintage)?;
    let options = EngineOptions {
        context: context(&cases, shape.context)?,
        exact: arguments.exact,
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, arguments.exact),
        max_outputs: EngineOptions::default().prefill_chunk,
        ..settings::engine_options(&arguments.engine)
    };
    let steering = steering_file::load(&arguments.steering, &shape)?;
    let mut engine = loaded_engine::open(&model, &options, steering.as_ref())?;
    let armed = interrupt.arm();
    let scores = score_official_cases(&cases, &mut engine, &armed, output)?;
    model.check_unchanged()?;
    if let Some(path) = &arguments.tsv {
        write_tsv(path, &cases, &scores)?;
    }
    let summary = OfficialSummary::of(&scores);
    if arguments.json {
        let settings = json!({
            "manifest": arguments.manifest.display().to_string(),
            "model": model.title(),
            "backend": engine.backend_name(),
            "kv_cache_type": options.kv_format.name(),
            "exact": options.exact,
            "steering": steering.as_ref().map(Steering::scales),
        });
        output.line(&to_json(&cases, &scores, &summary, settings).to_string())?;
        return Ok(());
    }
    output.headline(&format!(
        "{}, backend {}, KV type {}",
        model.title(),
        engine.backend_name(),
        options.kv_format.name()
    ))?;
    for line in table(&cases, &scores, &summary).lines() {
        output.line(&line)?;
    }
    Ok(())
}

/// Tokens of the longest case.
fn context(cases: &[OfficialCase], most: usize) -> anyhow::Result<usize> {
    let length = |case: &OfficialCase| case.prompt.len() + case.target.len();
    let Some(longest) = cases.iter().max_by_key(|case| length(case)) else {
        return Ok(1);
    };
    if length(longest) > most {
        return Err(anyhow!(
            "case `{}` has {} tokens, the model holds {most}",
            longest.id,
            length(longest)
        ));
    }
    Ok(length(longest))
}

fn table(cases: &[OfficialCase], scores: &[ContinuationScore], summary: &OfficialSummary) -> Table {
    let mut table = Table::new([
        "case",
        "prompt",
        "tokens",
        "NLL per token",
        "first token",
        "exact prefix",
    ]);
    for (case, score) in cases.iter().zip(scores) {
        table.row([
            case.id.clone(),
            case.prompt.len().to_string(),
            score.tokens.to_string(),
            format!("{:.6}", score.mean_nll()),
            if score.first_match { "same" } else { "other" }.to_owned(),
            score.greedy_prefix.to_string(),
        ]);
    }
    table.row([
        "all".to_owned(),
        grouped(cases.iter().map(|case| case.prompt.len() as u64).sum()),
        grouped(summary.tokens as u64),
        format!("{:.6}", summary.mean_nll),
        format!("{} of {}", summary.first_matches, summary.cases),
        format!("{:.3} (mean)", summary.mean_greedy_prefix),
    ]);
    table
}

fn to_json(
    cases: &[OfficialCase],
    scores: &[ContinuationScore],
    summary: &OfficialSummary,
    settings: Value,
) -> Value {
    let rows: Vec<Value> = cases
        .iter()
        .zip(scores)
        .map(|(case, score)| {
            json!({
                "id": case.id,
                "prompt_tokens": case.prompt.len(),
                "target_tokens": score.tokens,
                "nll": score.nll,
                "avg_nll": score.mean_nll(),
                "first_match": score.first_match,
                "greedy_lcp": score.greedy_prefix,
            })
        })
        .collect();
    json!({
        "cases": summary.cases,
        "tokens": summary.tokens,
        "avg_nll": summary.mean_nll,
        "first_match": summary.first_matches,
        "avg_lcp": summary.mean_greedy_prefix,
        "settings": settings,
        "case_scores": rows,
    })
}

/// The columns of the reference engine's scorer, so that its comparisons read the file.
fn write_tsv(
    path: &Path,
    cases: &[OfficialCase],
    scores: &[ContinuationScore],
) -> anyhow::Result<()> {
    let mut text =
        "id\tprompt_tokens\ttarget_tokens\tnll\tavg_nll\tfirst_match\tgreedy_lcp\n".to_owned();
    for (case, score) in cases.iter().zip(scores) {
        text.push_str(&format!(
            "{}\t{}\t{}\t{:.9}\t{:.9}\t{}\t{}\n",
            case.id,
            case.prompt.len(),
            score.tokens,
            score.nll,
            score.mean_nll(),
            u8::from(score.first_match),
            score.greedy_prefix
        ));
    }
    let mut file = OutputFile::create(path)?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write `{}`", path.display()))?;
    file.finish()
}
