//! `ds4 steer`: directions from two sets of prompts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::{Args, ValueEnum};
use ds4_chat::{Conversation, Message, Role, ThinkingMode, Vintage, render};
use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::Precision;
use ds4_cpu::reference::ReferenceBackend;
use ds4_cpu::team::default_thread_count;
use ds4_engine::BackendKind;
use ds4_model::steering::{Component, DirectionBuilder, DirectionOptions, capture};
use ds4_model::{
    Backend, Executor, ExecutorOptions, KvCapacity, KvLayout, ModelError, ModelShape, TokenId,
};
use ds4_tokenizer::Tokenizer;
use serde_json::json;

use crate::arguments::{EngineArguments, ModelArgument, VintageName};
use crate::failure::{Interrupted, UsageError};
use crate::interrupt::{ArmedInterrupt, Interrupt};
use crate::loaded_model::Vocabulary;
use crate::model_file::{ModelFile, read_text};
use crate::output::Output;
use crate::progress::PrefillBar;
use crate::prompt_tokens;
use crate::settings;
use crate::steering_file;

/// Most tokens that are computed in one step.
const CHUNK: usize = 256;

/// Arguments of `ds4 steer`.
///
/// Runs every prompt, takes the output of every layer at the prompt's end, and writes the mean over
/// the first set minus the mean over the second, with length 1. --dir-steering-file takes the result.
#[derive(Debug, Args)]
pub(crate) struct SteerArguments {
    /// Prompts that have what the direction is to stand for, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    good_file: PathBuf,
    /// Prompts that lack it
    #[arg(long, value_name = "FILE")]
    bad_file: PathBuf,
    /// Where to write; what it was made from goes beside it as JSON
    #[arg(short, long, value_name = "FILE.f32")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgument,
    /// Whose outputs count
    #[arg(long, value_name = "NAME", value_enum, default_value_t)]
    component: ComponentName,
    /// Instructions before every prompt; an empty text means none
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "You are a helpful assistant."
    )]
    system: String,
    /// End prompts where thinking begins, rather than where an answer begins
    #[arg(long)]
    think: bool,
    /// Average the differences of pairs, each with length 1; the sets must have the same size
    #[arg(long)]
    pair_normalize: bool,
    /// Leave in what lies along the mean of the second set
    #[arg(long)]
    no_orthogonalize: bool,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Whose outputs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum ComponentName {
    /// The experts
    #[default]
    #[value(alias = "ffn_out")]
    Ffn,
    /// Attention
    #[value(alias = "attn_out")]
    Attn,
}

/// Makes and writes the directions.
pub(crate) fn run(
    arguments: &SteerArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    if arguments.out.extension().is_some_and(|name| name == "json") {
        return Err(
            UsageError("--out cannot end in .json, which goes beside it".to_owned()).into(),
        );
    }
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    let prompts = |path| read_prompts(path, arguments, &vocabulary.tokenizer, vintage);
    let good = prompts(&arguments.good_file)?;
    let bad = prompts(&arguments.bad_file)?;
    if arguments.pair_normalize && good.len() != bad.len() {
        return Err(UsageError(format!(
            "--pair-normalize needs pairs, there are {} and {} prompts",
            good.len(),
            bad.len()
        ))
        .into());
    }

    let armed = interrupt.arm();
    let engine = settings::engine_options(&arguments.engine);
    let capture = Capture {
        model: &model,
        shape: &shape,
        options: executor_options(arguments, &shape, good.iter().chain(&bad))?,
        component: match arguments.component {
            ComponentName::Ffn => Component::Mixture,
            ComponentName::Attn => Component::Attention,
        },
        good: &good,
        bad: &bad,
        interrupt: &armed,
        output,
    };
    let builder = match engine.backend {
        BackendKind::Reference => capture.run(ReferenceBackend)?,
        BackendKind::Cpu => {
            let threads = engine.threads.unwrap_or_else(default_thread_count);
            capture.run(CpuBackend::new(threads, Precision::Fast)?)?
        }
    };
    model.check_unchanged()?;
    let directions = builder.finish(DirectionOptions {
        pair_normalise: arguments.pair_normalize,
        orthogonalise: !arguments.no_orthogonalize,
    })?;
    let made = json!({
        "format": "ds4-directional-steering-v1",
        "shape": [shape.layers.len(), shape.hidden],
        "component": match arguments.component {
            ComponentName::Ffn => "ffn_out",
            ComponentName::Attn => "attn_out",
        },
        "thinking": arguments.think,
        "system": arguments.system,
        "pair_normalize": arguments.pair_normalize,
        "orthogonalize_control_mean": !arguments.no_orthogonalize,
        "good_file": arguments.good_file.display().to_string(),
        "good_prompts": good.len(),
        "bad_file": arguments.bad_file.display().to_string(),
        "bad_prompts": bad.len(),
        "model": model.label,
    });
    steering_file::write(&arguments.out, &directions, &made)?;
    output.note(&format!(
        "wrote {} directions of width {} from {} and {} prompts to `{}`",
        shape.layers.len(),
        shape.hidden,
        good.len(),
        bad.len(),
        arguments.out.display()
    ));
    Ok(())
}

/// The prompts of a file in tokens.
fn read_prompts(
    path: &Path,
    arguments: &SteerArguments,
    tokenizer: &Tokenizer,
    vintage: Vintage,
) -> anyhow::Result<Vec<Vec<TokenId>>> {
    let text = read_text(path)?;
    let lines = text.lines().map(str::trim);
    let prompts: Vec<Vec<TokenId>> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let mut messages = Vec::new();
            if !arguments.system.is_empty() {
                messages.push(Message::new(Role::System, arguments.system.as_str()));
            }
            messages.push(Message::new(Role::User, line));
            let conversation = Conversation {
                messages,
                thinking_mode: match arguments.think {
                    true => ThinkingMode::On,
                    false => ThinkingMode::Off,
                },
                ..Conversation::default()
            };
            let prompt = render(&conversation, vintage)?;
            prompt_tokens::encode(tokenizer, prompt.pieces())
        })
        .collect::<anyhow::Result<_>>()
        .with_context(|| format!("cannot use `{}`", path.display()))?;
    if prompts.is_empty() {
        return Err(anyhow!("`{}` holds no prompts", path.display()));
    }
    Ok(prompts)
}

/// Room for one prompt at a time.
fn executor_options<'a>(
    arguments: &SteerArguments,
    shape: &ModelShape,
    prompts: impl Iterator<Item = &'a Vec<TokenId>>,
) -> anyhow::Result<ExecutorOptions> {
    let context = prompts.map(Vec::len).max().unwrap_or(1);
    if context > shape.context {
        return Err(anyhow!(
            "a prompt has {context} tokens, the model holds {}",
            shape.context
        ));
    }
    Ok(ExecutorOptions {
        kv_format: settings::kv_format(shape, arguments.engine.kv_cache_type, false),
        capacity: KvCapacity {
            slots: 1,
            context,
            pages: KvLayout::pages_for(context),
        },
        max_rows: context.min(CHUNK),
        max_outputs: 1,
        draft_rows: 0,
        mtp: false,
    })
}

/// What is run, whatever the backend.
struct Capture<'a> {
    model: &'a ModelFile,
    shape: &'a ModelShape,
    options: ExecutorOptions,
    component: Component,
    good: &'a [Vec<TokenId>],
    bad: &'a [Vec<TokenId>],
    interrupt: &'a ArmedInterrupt<'a>,
    output: &'a Output,
}

impl Capture<'_> {
    fn run<B: Backend>(&self, backend: B) -> anyhow::Result<DirectionBuilder> {
        let mut executor: Executor<B> =
            Executor::new(backend, &self.model.file, None, self.options, &mut |_| {})
                .with_context(|| format!("cannot load the model `{}`", self.model.label))?;
        let mut builder = DirectionBuilder::new(self.shape.hidden);
        let total = self.good.iter().chain(self.bad).map(Vec::len).sum();
        let mut bar = PrefillBar::new(total, self.output);
        let mut done = 0;
        let mut rows = |tokens: &Vec<TokenId>| -> anyhow::Result<Vec<f32>> {
            if self.interrupt.is_cancelled() {
                return Err(Interrupted.into());
            }
            let rows: Result<_, ModelError> = capture(&mut executor, tokens, self.component);
            done += tokens.len();
            bar.update(done);
            Ok(rows?)
        };
        for tokens in self.good {
            builder.add_target(rows(tokens)?);
        }
        for tokens in self.bad {
            builder.add_control(rows(tokens)?);
        }
        Ok(builder)
    }
}
