//! `ds4 quality`: what formats of weights and KV cache cost.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, anyhow};
use clap::Args;
use ds4_engine::{Engine, EngineOptions, MemoryPlan, SpeculationOptions};
use ds4_eval::Case;
use ds4_model::{KvFormat, ModelShape, TokenId};
use ds4_workshop::score::{ScoreOptions, Summary, score};
use ds4_workshop::{Control, WindowSizes, WorkshopError};

use crate::arguments::{EngineArguments, KvTypeName, SpeculationName, VintageName};
use crate::documents;
use crate::eval::{Judged, Runner, SelectionArguments, read_cases};
use crate::failure::{Interrupted, UsageError};
use crate::interrupt::{ArmedInterrupt, Interrupt};
use crate::loaded_engine;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::Output;
use crate::output_file::OutputFile;
use crate::progress::TokenBar;
use crate::quality::{DraftComparison, Measurement, QualityReport, TextScore};
use crate::settings;
use crate::token_bytes;

/// Longest window of a text, in tokens.
const TEXT_CONTEXT: usize = 2048;

/// Rows of logits of one step.
const OUTPUTS: usize = 64;

/// Arguments of `ds4 quality`.
///
/// Asks the cases of every model and, of the first, with every KV type. The first model in the first
/// configuration is the reference: how likely the others find its answers, beside how likely it finds
/// them itself, says more than right or wrong, and needs fewer cases.
#[derive(Debug, Args)]
pub(crate) struct QualityArguments {
    /// Models to compare, the one with most bits first: GGUF files, or names
    #[arg(value_name = "MODEL", required = true)]
    models: Vec<String>,
    /// What to ask: nano, or files of cases as for ds4 eval
    #[arg(
        long,
        value_name = "nano|FILE",
        default_value = "nano",
        value_delimiter = ','
    )]
    cases: Vec<PathBuf>,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Also predict this text: plain, or a .jsonl file as for ds4 score
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// KV types to compare on the first model, beside --kv-cache-type
    #[arg(long, value_name = "TYPES", value_enum, value_delimiter = ',')]
    kv_cache_types: Vec<KvTypeName>,
    /// Ask the first model once more with drafted tokens, and compare the answers token by token
    #[arg(long)]
    drafts: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Draw the result
    #[arg(long, value_name = "FILE.svg")]
    svg: Option<PathBuf>,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Measures and prints.
pub(crate) fn run(
    arguments: &QualityArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for path in &arguments.cases {
        all.extend(read_cases(path)?.cases);
    }
    let cases = arguments.selection.choose(&all)?;
    let armed = interrupt.arm();
    let mut laboratory = Laboratory {
        arguments,
        cases: &cases,
        interrupt: &armed,
        prompts: Vec::new(),
        measurements: Vec::new(),
        backend: "",
    };
    let mut drafts = None;
    for (number, name) in arguments.models.iter().enumerate() {
        let model = ModelFile::open(Some(name))?;
        laboratory.measure(&model, None, output)?;
        // The formats of the KV cache are compared on the first model.
        for kv_type in arguments.kv_cache_types.iter().filter(|_| number == 0) {
            laboratory.measure(&model, Some(*kv_type), output)?;
        }
        if arguments.drafts && number == 0 {
            drafts = Some(laboratory.draft(&model, output)?);
        }
        model.check_unchanged()?;
    }
    let names = arguments.cases.iter();
    let sources: Vec<String> = names.map(|path| path.display().to_string()).collect();
    let report = QualityReport {
        cases: &cases,
        measurements: &laboratory.measurements,
        source: sources.join(", "),
        text: arguments
            .text
            .as_ref()
            .map(|path| path.display().to_string()),
        backend: laboratory.backend,
        drafts,
    };
    if let Some(path) = &arguments.svg {
        let mut file = OutputFile::create(path)?;
        file.write_all(report.chart().svg().as_bytes())
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        file.finish()?;
    }
    if arguments.json {
        output.line(&report.to_json().to_string())?;
    } else {
        report.write_tables(output)?;
    }
    Ok(())
}

/// What all measurements share.
struct Laboratory<'a> {
    arguments: &'a QualityArguments,
    cases: &'a [&'a Case],
    interrupt: &'a ArmedInterrupt<'a>,
    /// Those of the reference.
    prompts: Vec<Vec<TokenId>>,
    measurements: Vec<Measurement>,
    backend: &'static str,
}

impl Laboratory<'_> {
    /// Measures one model; a KV type that was measured already is passed over.
    fn measure(
        &mut self,
        model: &ModelFile,
        kv_type: Option<KvTypeName>,
        output: &mut Output,
    ) -> anyhow::Result<()> {
        let shape = ModelShape::from_file(&model.file)?;
        let asked = kv_type.or(self.arguments.engine.kv_cache_type);
        let kv_format = settings::kv_format(&shape, asked, false);
        if kv_type.is_some() && self.has(model, kv_format) {
            return Ok(());
        }
        let vocabulary = Vocabulary::of_file(&model.file)?;
        let vintage = vocabulary.vintage(self.arguments.vintage);
        let runner = Runner::new(self.cases, &vocabulary.tokenizer, vintage)?;
        let documents = match &self.arguments.text {
            Some(path) => documents::read(path, &vocabulary, vintage)?,
            None => Vec::new(),
        };
        let longest = documents.iter().map(Vec::len).max().unwrap_or(0);
        let context = runner.context().max(longest.min(TEXT_CONTEXT));
        let options = EngineOptions {
            context: context.min(shape.context),
            kv_format,
            max_outputs: OUTPUTS.min(context),
            ..settings::engine_options(&self.arguments.engine)
        };
        let weights = MemoryPlan::for_file(&model.file, &options)?.weights;
        let mut engine = loaded_engine::open(model, &options, None)?;
        let start = Instant::now();
        let judged = match self.measurements.first() {
            None => {
                self.prompts = runner.prompts().to_vec();
                self.backend = engine.backend_name();
                Judged::Own
            }
            Some(_) if runner.prompts() != self.prompts => {
                return Err(anyhow!(
                    "`{}` has another vocabulary or encoding than the first model",
                    model.label
                ));
            }
            Some(reference) => Judged::Reference(&reference.results.results),
        };
        let results = runner.run(&mut engine, judged, self.interrupt, output)?;
        if results.interrupted {
            return Err(Interrupted.into());
        }
        let text = match documents.is_empty() {
            true => None,
            false => Some(self.predict(&mut engine, &documents, &vocabulary, output)?),
        };
        let measurement = Measurement {
            model: model.title(),
            kv_type: kv_format.name(),
            kv_bytes_per_token: token_bytes::kv_cache_growth(&shape, kv_format)?,
            weights,
            results,
            text,
            seconds: start.elapsed().as_secs_f64(),
        };
        output.note(&format!(
            "{}, KV type {}: {} of {} right",
            measurement.model,
            measurement.kv_type,
            measurement.total().right,
            self.cases.len()
        ));
        self.measurements.push(measurement);
        Ok(())
    }

    /// Asks the reference again with all the drafts that the model can make, whether they pay or not.
    fn draft(&self, model: &ModelFile, output: &Output) -> anyhow::Result<DraftComparison> {
        let shape = ModelShape::from_file(&model.file)?;
        let vocabulary = Vocabulary::of_file(&model.file)?;
        let vintage = vocabulary.vintage(self.arguments.vintage);
        let runner = Runner::new(self.cases, &vocabulary.tokenizer, vintage)?;
        let speculation = SpeculationOptions {
            always: true,
            ..settings::speculation(SpeculationName::Auto, &shape, model)
        };
        let options = EngineOptions {
            context: runner.context().min(shape.context),
            kv_format: settings::kv_format(&shape, self.arguments.engine.kv_cache_type, false),
            speculation,
            ..settings::engine_options(&self.arguments.engine)
        };
        let mut engine = loaded_engine::open(model, &options, None)?;
        let found = runner.run(&mut engine, Judged::None, self.interrupt, output)?;
        if found.interrupted {
            return Err(Interrupted.into());
        }
        let plain = self.measurements.first();
        let plain = plain.map_or(&[][..], |plain| &plain.results.results);
        let pairs = plain.iter().zip(&found.results);
        let status = engine.speculation().unwrap_or_default();
        Ok(DraftComparison {
            answers: plain.len(),
            same_answers: pairs.filter(|(a, b)| a.answer == b.answer).count(),
            tokens: plain.iter().map(|result| result.answer.len()).sum(),
            drafted: status.drafted(),
            accepted: status.accepted(),
        })
    }

    fn has(&self, model: &ModelFile, kv_format: KvFormat) -> bool {
        let title = model.title();
        self.measurements
            .iter()
            .any(|known| known.model == title && known.kv_type == kv_format.name())
    }

    fn predict(
        &self,
        engine: &mut Engine,
        documents: &[Vec<TokenId>],
        vocabulary: &Vocabulary,
        output: &Output,
    ) -> anyhow::Result<TextScore> {
        let context = engine.options().context.min(TEXT_CONTEXT);
        let sizes = WindowSizes {
            context,
            stride: context / 2,
            begin: vocabulary.tokenizer.bos(),
        };
        sizes
            .check()
            .map_err(|error| UsageError(error.to_string()))?;
        let mut bar = TokenBar::new("text", output);
        let scores = score(
            engine,
            None,
            documents,
            &ScoreOptions {
                sizes,
                max_tokens: None,
            },
            &mut Control {
                cancel: self.interrupt.cancel(),
                progress: &mut |done, total| bar.update(done, total),
            },
        );
        bar.finish();
        let scores = match scores {
            Err(WorkshopError::Cancelled) => return Err(Interrupted.into()),
            scores => scores?,
        };
        let nll = Summary::new(&scores).nll;
        Ok(TextScore {
            tokens: nll.count(),
            nll: nll.mean(),
            nll_error: nll.error(),
        })
    }
}
