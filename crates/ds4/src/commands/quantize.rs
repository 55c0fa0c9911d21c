//! `ds4 quantize`: official checkpoints to GGUF files.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ds4_gguf::Value;
use ds4_quantize::{
    Checkpoint, ConvertOptions, ImportanceMatrix, Plan, PlanOptions, Progress, QuantizeError,
    Recipe, TypeRule, convert,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::failure::{Hint, Interrupted, UsageError};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::table::{Table, bytes};

const TEMPLATE: &str = "{bar:30} {bytes}/{total_bytes}, {elapsed} gone, {eta} left, {wide_msg}";

/// Arguments of `ds4 quantize`.
///
/// A conversion that was stopped or killed goes on where it ended when the same command runs again.
#[derive(Debug, Args)]
pub(crate) struct QuantizeArguments {
    /// Folder with config.json, tokenizer.json and the safetensors files
    checkpoint: PathBuf,
    /// GGUF file to write
    #[arg(value_name = "OUT.gguf", required_unless_present = "dry_run")]
    out: Option<PathBuf>,
    /// Which types the tensors get
    #[arg(short, long, value_parser = recipes())]
    recipe: Recipe,
    /// Another type for the tensors whose GGUF names match; `*` and `?` as in a shell, the last rule wins
    #[arg(long, value_name = "PATTERN=TYPE")]
    tensor_type: Vec<TypeRule>,
    /// Importance of the columns, as `ds4 imatrix` and llama.cpp write it (GGUF or .dat)
    #[arg(long, value_name = "FILE")]
    imatrix: Option<PathBuf>,
    /// What becomes of the MTP block
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = MtpPlacement::Separate)]
    mtp: MtpPlacement,
    /// Name of the model [default: the folder's]
    #[arg(long)]
    name: Option<String>,
    /// File with the Jinja template for other programs [default: the checkpoint's]
    #[arg(long, value_name = "FILE")]
    chat_template: Option<PathBuf>,
    /// More metadata, such as general.license=mit; numbers, true and false are written as such
    #[arg(long, value_name = "KEY=VALUE")]
    metadata: Vec<String>,
    /// Threads [default: one per logical core]
    #[arg(short, long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// Replace files that are there already
    #[arg(long)]
    overwrite: bool,
    /// Only show what would be written
    #[arg(long)]
    dry_run: bool,
}

/// What becomes of the MTP block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MtpPlacement {
    /// A file of its own beside OUT.gguf: OUT-mtp.gguf
    Separate,
    /// Part of OUT.gguf, which llama.cpp then refuses
    Include,
    /// Left out
    Skip,
}

fn recipes() -> impl TypedValueParser<Value = Recipe> {
    let values =
        Recipe::ALL.map(|recipe| PossibleValue::new(recipe.name()).help(recipe.description()));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Recipe>())
}

/// Converts a checkpoint.
pub(crate) fn run(
    arguments: &QuantizeArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&arguments.checkpoint)?;
    let options = plan_options(arguments)?;
    let include = arguments.mtp == MtpPlacement::Include;
    let main = Plan::main_model(&checkpoint, &options, include)?;
    let mtp = match arguments.mtp {
        MtpPlacement::Separate => Plan::mtp_block(&checkpoint, &options)?,
        MtpPlacement::Include | MtpPlacement::Skip => None,
    };
    warn(&main, output);
    let out = arguments.out.as_deref();
    if arguments.dry_run {
        show("Main model", &main, output)?;
        return mtp.map_or(Ok(()), |mtp| show("MTP block", &mtp, output));
    }
    // clap asks for it unless this is a dry run.
    let Some(out) = out else {
        return Err(UsageError("name the file to write".to_owned()).into());
    };
    write(&checkpoint, &main, out, arguments, output, interrupt)?;
    if let Some(mtp) = &mtp {
        write(
            &checkpoint,
            mtp,
            &mtp_path(out),
            arguments,
            output,
            interrupt,
        )?;
    }
    Ok(())
}

fn plan_options(arguments: &QuantizeArguments) -> anyhow::Result<PlanOptions> {
    let chat_template = match &arguments.chat_template {
        Some(path) => Some(
            fs::read_to_string(path)
                .with_context(|| format!("cannot read `{}`", path.display()))?,
        ),
        None => None,
    };
    let importance = arguments.imatrix.as_deref().map(ImportanceMatrix::open);
    Ok(PlanOptions {
        rules: arguments.tensor_type.clone(),
        importance: importance.transpose()?,
        name: arguments.name.clone(),
        chat_template,
        metadata: arguments
            .metadata
            .iter()
            .map(|text| metadata_entry(text))
            .collect::<Result<_, _>>()?,
        ..PlanOptions::new(arguments.recipe)
    })
}

/// `KEY=VALUE`.
fn metadata_entry(text: &str) -> Result<(String, Value), UsageError> {
    let Some((key, value)) = text.split_once('=').filter(|(key, _)| !key.is_empty()) else {
        return Err(UsageError(format!(
            "--metadata `{text}`: expected KEY=VALUE"
        )));
    };
    let value = if let Ok(flag) = value.parse::<bool>() {
        Value::Bool(flag)
    } else if let Ok(number) = value.parse::<u32>() {
        Value::U32(number)
    } else if let Ok(number) = value.parse::<f32>() {
        Value::F32(number)
    } else {
        Value::from(value)
    };
    Ok((key.to_owned(), value))
}

/// `OUT.gguf` to `OUT-mtp.gguf`.
pub(super) fn mtp_path(out: &Path) -> PathBuf {
    let mut name = out.file_stem().unwrap_or_default().to_owned();
    name.push("-mtp.gguf");
    out.with_file_name(name)
}

/// Tells what is not as asked for.
fn warn(plan: &Plan, output: &mut Output) {
    let mut fallbacks: BTreeMap<String, usize> = BTreeMap::new();
    for tensor in plan.tensors() {
        if let Some(wanted) = tensor.fell_back_from {
            let columns = tensor.spec.dims[0];
            let text = format!(
                "rows of {columns} do not divide into blocks of {wanted}: {}",
                tensor.spec.ty
            );
            *fallbacks.entry(text).or_default() += 1;
        }
    }
    for (text, count) in fallbacks {
        output.note(&format!("{text} for {count} tensors"));
    }
    if let Some(first) = plan.unused().first() {
        let count = plan.unused().len();
        output.warning(&format!(
            "{count} tensors of the checkpoint are left out, such as `{first}`"
        ));
    }
}

/// The table of `--dry-run`.
fn show(title: &str, plan: &Plan, output: &mut Output) -> anyhow::Result<()> {
    output.headline(title)?;
    let mut table = Table::new(["tensor", "type", "dimensions", "size", ""]);
    let mut by_type: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for tensor in plan.tensors() {
        let dims: Vec<String> = tensor.spec.dims.iter().map(u64::to_string).collect();
        let note = tensor
            .fell_back_from
            .map_or(String::new(), |wanted| format!("instead of {wanted}"));
        table.row([
            tensor.spec.name.clone(),
            tensor.spec.ty.name().to_owned(),
            format!("[{}]", dims.join(", ")),
            bytes(tensor.bytes),
            note,
        ]);
        let sum = by_type.entry(tensor.spec.ty.name()).or_default();
        *sum = (sum.0 + 1, sum.1 + tensor.bytes);
    }
    for line in table.lines() {
        output.line(&line)?;
    }
    output.line("")?;
    let mut sums = Table::new(["type", "tensors", "size"]);
    for (ty, (count, size)) in by_type {
        sums.row([ty.to_owned(), count.to_string(), bytes(size)]);
    }
    let file_bytes = plan.layout().file_bytes();
    sums.row([
        "file".to_owned(),
        plan.tensors().len().to_string(),
        bytes(file_bytes),
    ]);
    for line in sums.lines() {
        output.line(&line)?;
    }
    output.line("")?;
    Ok(())
}

fn write(
    checkpoint: &Checkpoint,
    plan: &Plan,
    out: &Path,
    arguments: &QuantizeArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let mut options = ConvertOptions {
        overwrite: arguments.overwrite,
        ..ConvertOptions::default()
    };
    options.workers = arguments.threads.unwrap_or(options.workers);
    let bar = bar(plan.layout().file_bytes(), output);
    let armed = interrupt.arm();
    let mut progress = |event: Progress<'_>| match event {
        Progress::Checking { name, bytes } => {
            bar.set_position(bytes);
            bar.set_message(format!("checking {name}"));
        }
        Progress::Converting { name, ty, bytes } => {
            bar.set_position(bytes);
            bar.set_message(format!("{name} {ty}"));
        }
        _ => bar.set_message("bringing everything to disk"),
    };
    let result = convert(
        checkpoint,
        plan,
        out,
        &options,
        armed.cancel(),
        &mut progress,
    );
    bar.finish_and_clear();
    let summary = match result {
        Err(QuantizeError::Cancelled) => {
            output.note("stopped; the same command goes on from here");
            return Err(Interrupted.into());
        }
        Err(error @ QuantizeError::OutputExists { .. }) => {
            return Err(error).hint(|| "`--overwrite` replaces it".to_owned());
        }
        result => result?,
    };
    let resumed = match summary.resumed {
        0 => String::new(),
        many => format!(", {many} of them by an earlier run"),
    };
    output.note(&format!(
        "{}: {} tensors{resumed}, {}",
        out.display(),
        summary.converted + summary.resumed,
        bytes(summary.bytes)
    ));
    Ok(())
}

/// A bar on terminals; elsewhere nothing is drawn.
fn bar(total: u64, output: &Output) -> ProgressBar {
    if !output.stderr_is_terminal() || output.is_quiet() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
