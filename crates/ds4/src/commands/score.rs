//! `ds4 score`: how well a model predicts a text, alone and against another.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ds4_engine::{Engine, EngineOptions};
use ds4_model::ModelShape;
use ds4_workshop::score::{ScoreOptions, Summary, TokenScore, perplexity, score};
use ds4_workshop::statistics::Moments;
use ds4_workshop::{Control, WindowSizes, WorkshopError};
use serde_json::{Value, json};

use crate::arguments::{BackendName, EngineArguments, KvTypeName, ModelArgument, VintageName};
use crate::documents;
use crate::failure::{Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::{Output, visible};
use crate::progress::TokenBar;
use crate::settings;
use crate::table::{Table, grouped};

/// Longest window if nobody says otherwise, in tokens.
const DEFAULT_CONTEXT: usize = 2048;

/// Rows of logits of one step.
const CHUNK: usize = 128;

/// Arguments of `ds4 score`.
///
/// Every token is predicted from the true tokens before it. With --against, or another --against- option,
/// the same tokens are predicted a second time and the predictions are compared: with another file, or the
/// same one on another backend, KV cache type or precision.
#[derive(Debug, Args)]
pub(crate) struct ScoreArguments {
    /// Plain text, or a .jsonl file with a text, token ids or a conversation a line; - reads text from
    /// standard input
    text: PathBuf,
    #[command(flatten)]
    model: ModelArgument,
    /// Most tokens that are run together; longer documents are cut into windows that overlap
    #[arg(short, long, value_name = "N", default_value_t = DEFAULT_CONTEXT)]
    ctx: usize,
    /// New tokens in each further window; the rest is context for them [default: half of --ctx]
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Stop after this many scored tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Expand weights to F32 and keep activations in F32; the KV cache is then f32 by default
    #[arg(long)]
    exact: bool,
    /// Show every token
    #[arg(long)]
    per_token: bool,
    /// Write JSON
    #[arg(long)]
    json: bool,
    /// Prompt encoding of conversations [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    #[command(flatten)]
    against: AgainstArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// The other side; what is not given is as for the model.
#[derive(Debug, Args)]
#[command(next_help_heading = "Comparison")]
struct AgainstArguments {
    /// Compare with this model, usually the one with more bits
    #[arg(long, value_name = "NAME|FILE")]
    against: Option<String>,
    /// Compare with this backend
    #[arg(long, value_name = "NAME", value_enum)]
    against_backend: Option<BackendName>,
    /// Compare with this format of the KV cache
    #[arg(long, value_name = "TYPE", value_enum)]
    against_kv_cache_type: Option<KvTypeName>,
    /// Compare with exact arithmetic, as --exact
    #[arg(long)]
    against_exact: bool,
}

impl AgainstArguments {
    fn is_given(&self) -> bool {
        self.against.is_some()
            || self.against_backend.is_some()
            || self.against_kv_cache_type.is_some()
            || self.against_exact
    }
}

/// One of the two things that are compared.
struct Side {
    title: String,
    options: EngineOptions,
    engine: Engine,
}

impl Side {
    fn open(
        model: &ModelFile,
        engine: &EngineArguments,
        exact: bool,
        context: usize,
    ) -> anyhow::Result<Self> {
        let shape = ModelShape::from_file(&model.file)?;
        let options = EngineOptions {
            context,
            prefill_chunk: CHUNK,
            max_outputs: CHUNK.min(context),
            exact,
            kv_format: settings::kv_format(&shape, engine.kv_cache_type, exact),
            ..settings::engine_options(engine)
        };
        Ok(Self {
            title: model.title(),
            engine: Engine::open(&model.file, None, &options, &mut |_| {})?,
            options,
        })
    }

    fn describe(&self) -> String {
        format!(
            "{}, backend {}, KV type {}{}",
            visible(&self.title),
            self.engine.backend_name(),
            self.options.kv_format.name(),
            if self.options.exact { ", exact" } else { "" }
        )
    }

    fn to_json(&self, nll: &Moments, top: &Moments) -> Value {
        let (perplexity, perplexity_error) = perplexity(nll);
        json!({
            "model": self.title,
            "backend": self.engine.backend_name(),
            "kv_cache_type": self.options.kv_format.name(),
            "exact": self.options.exact,
            "nll": nll.mean(),
            "nll_error": nll.error(),
            "perplexity": perplexity,
            "perplexity_error": perplexity_error,
            "bits_per_token": bits(nll.mean()),
            "top1_accuracy": top.mean(),
            "top1_accuracy_error": top.error(),
        })
    }
}

/// Nats as bits.
fn bits(nats: f64) -> f64 {
    nats / std::f64::consts::LN_2
}

/// Scores and prints.
pub(crate) fn run(
    arguments: &ScoreArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let stride = arguments.stride.unwrap_or(arguments.ctx / 2);
    let sizes = WindowSizes {
        context: arguments.ctx,
        stride,
        begin: None,
    };
    sizes
        .check()
        .map_err(|error| UsageError(error.to_string()))?;
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    if !arguments.json {
        model.introduce(output);
    }
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    let documents = documents::read(&arguments.text, &vocabulary, vintage)?;
    let longest = documents.iter().map(Vec::len).max().unwrap_or(0);
    // Memory for what there is, not for what could be.
    let context = arguments.ctx.min(longest.max(2));

    let mut side = Side::open(&model, &arguments.engine, arguments.exact, context)?;
    let mut other_file = None;
    let mut other = match arguments.against.is_given() {
        true => Some(open_other(arguments, &model, &mut other_file, context)?),
        false => None,
    };
    let options = ScoreOptions {
        sizes: WindowSizes {
            begin: vocabulary.tokenizer.bos(),
            ..sizes
        },
        max_tokens: arguments.max_tokens,
    };
    let armed = interrupt.arm();
    let mut bar = TokenBar::new("score", output);
    let mut control = Control {
        cancel: armed.cancel(),
        progress: &mut |done, total| bar.update(done, total),
    };
    let scores = score(
        &mut side.engine,
        other.as_mut().map(|other| &mut other.engine),
        &documents,
        &options,
        &mut control,
    );
    bar.finish();
    let scores = match scores {
        Err(WorkshopError::Cancelled) => return Err(Interrupted.into()),
        scores => scores?,
    };
    model.check_unchanged()?;
    if let Some(file) = &other_file {
        file.check_unchanged()?;
    }
    let report = Report {
        text: arguments.text.display().to_string(),
        documents: documents.len(),
        context: arguments.ctx,
        stride,
        side: &side,
        other: other.as_ref(),
        summary: Summary::new(&scores),
        scores: arguments.per_token.then_some(&scores[..]),
        vocabulary: &vocabulary,
    };
    if arguments.json {
        output.line(&report.to_json().to_string())?;
    } else {
        report.write(output)?;
    }
    Ok(())
}

fn open_other(
    arguments: &ScoreArguments,
    model: &ModelFile,
    file: &mut Option<ModelFile>,
    context: usize,
) -> anyhow::Result<Side> {
    let against = &arguments.against;
    if let Some(name) = &against.against {
        *file = Some(ModelFile::open(Some(name))?);
    }
    let engine = EngineArguments {
        backend: against.against_backend.unwrap_or(arguments.engine.backend),
        threads: arguments.engine.threads,
        kv_cache_type: against
            .against_kv_cache_type
            .or(arguments.engine.kv_cache_type),
    };
    let exact = arguments.exact || against.against_exact;
    Side::open(file.as_ref().unwrap_or(model), &engine, exact, context)
}

struct Report<'a> {
    text: String,
    documents: usize,
    context: usize,
    stride: usize,
    side: &'a Side,
    other: Option<&'a Side>,
    summary: Summary,
    /// Where every token is asked for.
    scores: Option<&'a [TokenScore]>,
    vocabulary: &'a Vocabulary,
}

impl Report<'_> {
    fn to_json(&self) -> Value {
        let summary = &self.summary;
        let mut document = json!({
            "text": self.text,
            "documents": self.documents,
            "tokens": summary.nll.count(),
            "context": self.context,
            "stride": self.stride,
        });
        let mut add = |fields: Value| {
            if let (Some(document), Value::Object(fields)) = (document.as_object_mut(), fields) {
                document.extend(fields);
            }
        };
        add(self.side.to_json(&summary.nll, &summary.top));
        if let (Some(other), Some(against)) = (self.other, &summary.against) {
            add(json!({
                "against": other.to_json(&against.nll, &against.top),
                "nll_difference": against.nll_difference.mean(),
                "nll_difference_error": against.nll_difference.error(),
                "kl": against.kl.mean(),
                "kl_error": against.kl.error(),
                "kl_median": against.kl_median,
                "kl_p99": against.kl_p99,
                "kl_max": against.kl_max,
                "top1_agreement": against.same_top.mean(),
                "top1_agreement_error": against.same_top.error(),
            }));
        }
        if let Some(scores) = self.scores {
            let tokens: Vec<Value> = scores.iter().map(|score| self.token(score)).collect();
            add(json!({ "per_token": tokens }));
        }
        document
    }

    fn token(&self, score: &TokenScore) -> Value {
        let mut token = json!({
            "document": score.document,
            "position": score.position,
            "id": score.token,
            "text": self.vocabulary.tokenizer.decode_lossy(&[score.token]),
            "nll": score.nll,
            "top1": score.top,
        });
        if let Some(against) = &score.against {
            token["against_nll"] = against.nll.into();
            token["kl"] = against.kl.into();
            token["same_top1"] = against.same_top.into();
        }
        token
    }

    fn write(&self, output: &mut Output) -> anyhow::Result<()> {
        output.headline(&format!(
            "{}: {} tokens scored, {}, windows of {}, stride {}",
            visible(&self.text),
            grouped(self.summary.nll.count()),
            match self.documents {
                1 => "1 document".to_owned(),
                many => format!("{} documents", grouped(many as u64)),
            },
            self.context,
            self.stride
        ))?;
        let mut sides = Table::new(["model", &self.side.describe()]);
        if let Some(other) = self.other {
            sides.row(["against", &other.describe()]);
        }
        for line in sides.facts() {
            output.line(&line)?;
        }
        output.line("")?;
        for line in self.table().lines() {
            output.line(&line)?;
        }
        output.line("± is the standard error of the mean, tokens taken as independent.")?;
        if let Some(scores) = self.scores {
            output.line("")?;
            for line in self.tokens(scores).lines() {
                output.line(&line)?;
            }
        }
        Ok(())
    }

    fn table(&self) -> Table {
        let summary = &self.summary;
        let Some(against) = &summary.against else {
            let mut table = Table::new(["", "model"]);
            for (name, value) in facts(&summary.nll, &summary.top) {
                table.row([name.to_owned(), value]);
            }
            return table;
        };
        let mut table = Table::new(["", "model", "against", "difference"]);
        let own = facts(&summary.nll, &summary.top);
        let others = facts(&against.nll, &against.top);
        let difference = &against.nll_difference;
        let differences = [
            with_error(difference.mean(), difference.error(), 5),
            format!("{:.4} times", difference.mean().exp()),
            format!("{:.5}", bits(difference.mean())),
            format!(
                "{:+.2} points",
                100.0 * (summary.top.mean() - against.top.mean())
            ),
        ];
        for (((name, own), (_, other)), difference) in own.into_iter().zip(others).zip(differences)
        {
            table.row([name.to_owned(), own, other, difference]);
        }
        let mut row = |name: &str, value: String| {
            table.row([name.to_owned(), String::new(), String::new(), value]);
        };
        row(
            "KL(against || model), nats",
            with_error(against.kl.mean(), against.kl.error(), 6),
        );
        row("  median", format!("{:.6}", against.kl_median));
        row("  99 of 100 below", format!("{:.6}", against.kl_p99));
        row("  largest", format!("{:.6}", against.kl_max));
        row("same likeliest token", percentage(&against.same_top));
        table
    }

    fn tokens(&self, scores: &[TokenScore]) -> Table {
        let mut titles = vec!["document:position", "id", "token", "NLL", "likeliest"];
        if self.other.is_some() {
            titles.extend(["NLL against", "KL", "same likeliest"]);
        }
        let mut table = Table::new(titles);
        let yes = |holds: bool| if holds { "yes" } else { "no" }.to_owned();
        for score in scores {
            let text = self.vocabulary.tokenizer.decode_lossy(&[score.token]);
            let mut row = vec![
                format!("{}:{}", score.document + 1, score.position),
                score.token.to_string(),
                format!("{text:?}"),
                format!("{:.4}", score.nll),
                yes(score.top),
            ];
            if let Some(against) = &score.against {
                row.extend([
                    format!("{:.4}", against.nll),
                    format!("{:.6}", against.kl),
                    yes(against.same_top),
                ]);
            }
            table.row(row);
        }
        table
    }
}

/// What is said of each side.
fn facts(nll: &Moments, top: &Moments) -> [(&'static str, String); 4] {
    let (perplexity, error) = perplexity(nll);
    [
        ("NLL, nats a token", with_error(nll.mean(), nll.error(), 5)),
        // Six digits, whatever the size.
        (
            "perplexity",
            with_error(
                perplexity,
                error,
                5_usize.saturating_sub(perplexity.max(1.0).log10() as usize),
            ),
        ),
        ("bits a token", format!("{:.5}", bits(nll.mean()))),
        ("likeliest token is right", percentage(top)),
    ]
}

fn with_error(value: f64, error: f64, digits: usize) -> String {
    format!("{value:.digits$} ± {error:.digits$}")
}

fn percentage(share: &Moments) -> String {
    format!(
        "{:.2}% ± {:.2}%",
        100.0 * share.mean(),
        100.0 * share.error()
    )
}
