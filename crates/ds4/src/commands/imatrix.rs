//! `ds4 imatrix`: which columns of the weights matter, for the quantiser.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use ds4_model::ModelShape;
use ds4_workshop::imatrix::{ImatrixOptions, collect};
use ds4_workshop::{Control, WorkshopError};

use crate::arguments::{EngineArguments, ModelArgument, VintageName};
use crate::documents;
use crate::failure::{Hint, Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::loaded_model::Vocabulary;
use crate::model_file::ModelFile;
use crate::output::{Output, visible};
use crate::progress::TokenBar;
use crate::settings;
use crate::table::{bytes, grouped};

/// Arguments of `ds4 imatrix`.
///
/// Runs a text through the model and collects, for every column of every weight, the mean square of the
/// activations that meet it; for experts one by one. `ds4 quantize --imatrix` reads the result.
#[derive(Debug, Args)]
pub(crate) struct ImatrixArguments {
    /// Plain text, or a .jsonl file with a text, token ids or a conversation a line; - reads text from
    /// standard input
    text: PathBuf,
    /// File to write: llama.cpp's GGUF form if it ends in .gguf, else its older .dat
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    model: ModelArgument,
    /// Most tokens that are run together; longer documents are cut
    #[arg(short, long, value_name = "N", default_value_t = 2048)]
    ctx: usize,
    /// Stop after this many tokens
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Replace a file that is there already
    #[arg(long)]
    overwrite: bool,
    /// Prompt encoding of conversations [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
    #[command(flatten)]
    engine: EngineArguments,
}

/// Collects and writes.
pub(crate) fn run(
    arguments: &ImatrixArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    if arguments.ctx < 2 {
        return Err(UsageError("--ctx must be at least 2".to_owned()).into());
    }
    // Collecting takes hours for a large model: better said before.
    if !arguments.overwrite && arguments.out.exists() {
        let error = anyhow::anyhow!("`{}` exists already", arguments.out.display());
        return Err(error).hint(|| "`--overwrite` replaces it".to_owned());
    }
    let model = ModelFile::open(arguments.model.model.as_deref())?;
    model.introduce(output);
    let shape = ModelShape::from_file(&model.file)?;
    let vocabulary = Vocabulary::of_file(&model.file)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    let documents = documents::read(&arguments.text, &vocabulary, vintage)?;
    let engine = settings::engine_options(&arguments.engine);
    let options = ImatrixOptions {
        backend: engine.backend,
        threads: engine.threads,
        kv_format: settings::kv_format(&shape, arguments.engine.kv_cache_type, false),
        context: arguments.ctx,
        begin: vocabulary.tokenizer.bos(),
        max_tokens: arguments.max_tokens,
    };
    let name = arguments
        .text
        .file_name()
        .unwrap_or(arguments.text.as_os_str());
    let armed = interrupt.arm();
    let mut bar = TokenBar::new("imatrix", output);
    let mut tokens = 0;
    let mut control = Control {
        cancel: armed.cancel(),
        progress: &mut |done, total| {
            tokens = done;
            bar.update(done, total);
        },
    };
    let collected = collect(
        &model.file,
        &documents,
        &name.to_string_lossy(),
        &options,
        &mut control,
    );
    bar.finish();
    let collected = match collected {
        Err(WorkshopError::Cancelled) => return Err(Interrupted.into()),
        collected => collected?,
    };
    model.check_unchanged()?;
    collected.write(&arguments.out)?;

    let weights: usize = collected
        .inputs
        .iter()
        .map(|inputs| inputs.names.len())
        .sum();
    let counts = || collected.inputs.iter().flat_map(|inputs| &inputs.counts);
    let (unseen, matrices) = (
        counts().filter(|&&count| count == 0).count(),
        counts().count(),
    );
    if unseen > 0 {
        output.warning(&format!(
            "{} of {} matrices met no token and get no importance; a longer text reaches more experts",
            grouped(unseen as u64),
            grouped(matrices as u64)
        ));
    }
    let size = std::fs::metadata(&arguments.out).map_or(0, |metadata| metadata.len());
    output.note(&format!(
        "{}: importance for {} weights from {} tokens of {}, {}",
        arguments.out.display(),
        grouped(weights as u64),
        grouped(tokens as u64),
        visible(&collected.dataset),
        bytes(size)
    ));
    Ok(())
}
