//! `ds4 synth`: model files with random weights.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use ds4_synthetic::{
    Dialect, SyntheticError, SyntheticModel, WeightTypes, WriteControl, WriteOptions,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::quantize::mtp_path;
use crate::disk_space;
use crate::failure::{Hint, Interrupted};
use crate::interrupt::Interrupt;
use crate::output::Output;
use crate::table::bytes;

const TEMPLATE: &str = "{bar:30} {bytes}/{total_bytes}, {elapsed} gone, {eta} left";

/// Layers that the recipe `q2-q4` keeps at 4 bits, the last ones.
const BETTER_LAYERS: usize = 6;

/// Arguments of `ds4 synth`.
///
/// The file has the names, shapes, types and metadata of a real one and a toy vocabulary. It says in its
/// metadata that its weights are random, and so do all commands that show it. Large tensors repeat random
/// rows.
#[derive(Debug, Args)]
pub(crate) struct SynthArguments {
    /// GGUF file to write
    #[arg(value_name = "OUT.gguf")]
    out: PathBuf,
    /// Whose dimensions
    #[arg(long, value_enum, default_value_t = Shape::Small)]
    shape: Shape,
    /// Which types the tensors have
    #[arg(short, long, value_enum, default_value_t = SyntheticRecipe::Q2)]
    recipe: SyntheticRecipe,
    /// Whose keys and MTP names [default: llama.cpp for mxfp4, else published]
    #[arg(long, value_enum)]
    dialect: Option<DialectName>,
    /// Another file, OUT-mtp.gguf, with an MTP block
    #[arg(long)]
    mtp: bool,
    /// Leave out the large tensors: they read as zeros and take no space; to try readers and memory, not speed
    #[arg(long)]
    sparse: bool,
    /// Seed of the random numbers
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Replace files that are there already
    #[arg(long)]
    overwrite: bool,
}

/// Whose dimensions a model has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// V4 Flash, 284 billion parameters
    Flash,
    /// V4 PRO, 1.6 trillion parameters
    Pro,
    /// Six layers of every kind, a few megabytes
    Small,
}

/// Types of the published files, and plain ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SyntheticRecipe {
    /// Experts IQ2_XXS and Q2_K, the rest Q8_0 and F16
    Q2,
    /// As q2, experts of the last six layers Q4_K
    #[value(name = "q2-q4")]
    Q2Q4,
    /// Experts Q4_K, the rest Q8_0 and F16
    Q4,
    /// Experts MXFP4, the rest Q8_0, BF16 and F32, as llama.cpp converts
    Mxfp4,
    /// Everything large Q8_0
    Q8,
    /// All matrices F16
    F16,
    /// All matrices BF16
    Bf16,
    /// Everything F32
    F32,
}

impl SyntheticRecipe {
    fn types(self) -> WeightTypes {
        use ds4_quant::TensorType::{Bf16, F16};
        match self {
            Self::Q2 | Self::Q2Q4 => WeightTypes::PUBLISHED,
            Self::Q4 => WeightTypes::PUBLISHED_4_BIT,
            Self::Mxfp4 => WeightTypes::LLAMA_CPP,
            Self::Q8 => WeightTypes::Q8,
            Self::F16 => WeightTypes::all(F16),
            Self::Bf16 => WeightTypes::all(Bf16),
            Self::F32 => WeightTypes::F32,
        }
    }
}

/// Whose files the file is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DialectName {
    /// The published reference files
    Published,
    /// llama.cpp's conversions
    #[value(name = "llama.cpp")]
    LlamaCpp,
}

/// Writes the files.
pub(crate) fn run(
    arguments: &SynthArguments,
    output: &mut Output,
    interrupt: &Arc<Interrupt>,
) -> anyhow::Result<()> {
    let model = model(arguments);
    let mut files = vec![(arguments.out.clone(), false)];
    if arguments.mtp {
        files.push((mtp_path(&arguments.out), true));
    }
    let mut needed = 0;
    for (path, mtp) in &files {
        if !arguments.overwrite && path.exists() {
            return Err(anyhow!("`{}` exists already", path.display()))
                .hint(|| "`--overwrite` replaces it".to_owned());
        }
        let (_, on_disk) = model.file_bytes(options(arguments, *mtp))?;
        needed += on_disk;
    }
    disk_space::check(&arguments.out, needed)?;
    for (path, mtp) in &files {
        write(&model, path, options(arguments, *mtp), output, interrupt)?;
    }
    Ok(())
}

fn options(arguments: &SynthArguments, mtp: bool) -> WriteOptions {
    WriteOptions {
        mtp,
        sparse: arguments.sparse,
    }
}

fn model(arguments: &SynthArguments) -> SyntheticModel {
    let shape = match arguments.shape {
        Shape::Flash => SyntheticModel::flash(),
        Shape::Pro => SyntheticModel::pro(),
        Shape::Small => SyntheticModel::small(),
    };
    let dialect = arguments.dialect.unwrap_or(match arguments.recipe {
        SyntheticRecipe::Mxfp4 => DialectName::LlamaCpp,
        _ => DialectName::Published,
    });
    SyntheticModel {
        seed: arguments.seed,
        dialect: match dialect {
            DialectName::Published => Dialect::Published,
            DialectName::LlamaCpp => Dialect::LlamaCpp,
        },
        types: arguments.recipe.types(),
        better_layers: match arguments.recipe {
            SyntheticRecipe::Q2Q4 => BETTER_LAYERS,
            _ => 0,
        },
        ..shape
    }
}

fn write(
    model: &SyntheticModel,
    path: &Path,
    options: WriteOptions,
    output: &mut Output,
    interrupt: &Interrupt,
) -> anyhow::Result<()> {
    let (size, on_disk) = model.file_bytes(options)?;
    let bar = bar(size, output);
    let armed = interrupt.arm();
    let mut control = WriteControl {
        cancel: armed.cancel(),
        progress: &mut |done, _| bar.set_position(done),
    };
    let result = model.write_with(path, options, &mut control);
    bar.finish_and_clear();
    match result {
        Err(SyntheticError::Cancelled) => return Err(Interrupted.into()),
        result => result?,
    }
    let holes = if on_disk < size {
        format!(
            ", {} of it on the disk, the rest reads as zeros",
            bytes(on_disk)
        )
    } else {
        String::new()
    };
    output.note(&format!(
        "{}: random weights, {}{holes}",
        path.display(),
        bytes(size)
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
