//! `ds4 logits`: teacher-forced logits for comparison with other implementations.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use ds4_engine::{EngineOptions, SyncControl};
use ds4_model::ModelShape;

use super::detokenize::ids_of;
use crate::arguments::{EngineArguments, ModelArgument, SteeringArguments};
use crate::failure::{Hint, Interrupted};
use crate::interrupt::Interrupt;
use crate::loaded_engine;
use crate::model_file::ModelFile;
use crate::npy::NpyWriter;
use crate::output::Output;
use crate::progress::PrefillBar;
use crate::settings;
use crate::steering_file;

/// Arguments of `ds4 logits`.
#[derive(Debug, Args)]
pub(crate) struct LogitsArguments {
    #[command(flatten)]
    model: ModelArgument,
    /// Token ids: a JSON array, or an object with "ids"
    #[arg(long, value_name = "IDS.json")]
    tokens: PathBuf,
    /// Where to write: NumPy, F32, [n, vocabulary] with --all, else [1, vocabulary]
    #[arg(long, value_name = "OUT.npy")]
    out: PathBuf,
    /// Logits of every position, not only of the last
    #[arg(long)]
    all: bool,
    /// Tokens computed in one step
    #[arg(long, value_name = "N", default_value_t = EngineOptions::default().prefill_chunk)]
    chunk: usize,
    /// Expand weights to F32 and keep activations in F32; the KV cache is then f32 by default
    #[arg(long)]
    exact: bool,
    #[command(flatten)]
    steering: SteeringArguments,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Computes and writes the logits.
pub(crate) fn run(
    arguments: &LogitsArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let json = fs::read_to_string(&arguments.tokens)
        .with_context(|| format!("cannot read `{}`", arguments.tokens.display()))?;
    let ids =
        ids_of(&json).with_context(|| format!("cannot use `{}`", arguments.tokens.display()))?;
    if ids.is_empty() {
        return Err(anyhow!(
            "`{}` holds no token ids",
            arguments.tokens.display()
        ))
        .hint(|| "logits exist after at least one token".to_owned());
    }
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    let shape = ModelShape::from_file(&model.file)?;
    let rows = if arguments.all { ids.len() } else { 1 };
    let options = EngineOptions {
        context: ids.len(),
        prefill_chunk: arguments.chunk,
        max_outputs: if arguments.all {
            arguments.chunk.min(ids.len())
        } else {
            1
        },
        exact: arguments.exact,
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, arguments.exact),
        ..settings::engine_options(&arguments.engine)
    };
    let steering = steering_file::load(&arguments.steering, &shape)?;
    let mut engine = loaded_engine::open(&model, &options, steering.as_ref())?;
    let mut session = engine.session()?;
    let mut writer = NpyWriter::create(&arguments.out, rows, shape.vocabulary)?;

    let armed = interrupt.arm();
    let mut bar = PrefillBar::new(ids.len(), output);
    let mut progress = |done, _| bar.update(done);
    let mut control = SyncControl {
        cancel: armed.cancel(),
        progress: &mut progress,
    };
    let mut written = Ok(());
    let report = if arguments.all {
        engine.score(&mut session, &ids, &mut control, &mut |_, logits| {
            if written.is_ok() {
                written = writer.write_row(logits);
            }
        })?
    } else {
        let report = engine.sync(&mut session, &ids, &mut control)?;
        written = writer.write_row(session.logits());
        report
    };
    bar.finish();
    if report.cancelled {
        return Err(Interrupted.into());
    }
    written.with_context(|| format!("cannot write `{}`", arguments.out.display()))?;
    model.check_unchanged()?;
    writer.finish()
}
