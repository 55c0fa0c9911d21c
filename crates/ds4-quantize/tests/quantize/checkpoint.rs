//! The golden checkpoint `kq-tiny`, unpacked, and ways to change it.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::AtomicBool;

use anyhow::{Context, Result};
use ds4_gguf::GgufFile;
use ds4_quant::{TensorType, decode};
use ds4_quantize::{Checkpoint, ConvertOptions, Plan, PlanOptions, Recipe, convert};
use flate2::read::GzDecoder;
use serde_json::Value;
use tempfile::TempDir;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/kq-tiny");

/// Path of a test file.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(DATA).join(name)
}

/// Contents of a gzipped test file.
pub(crate) fn unpacked(name: &str) -> Result<Vec<u8>> {
    let file = fs::File::open(data(name)).with_context(|| name.to_owned())?;
    let mut bytes = Vec::new();
    GzDecoder::new(file).read_to_end(&mut bytes)?;
    Ok(bytes)
}

static WEIGHTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| unpacked("model.safetensors.gz").expect("the weights"));

/// A copy of the checkpoint without its weights, in a folder that is its name.
pub(crate) fn without_weights() -> Result<(TempDir, PathBuf)> {
    let root = tempfile::tempdir()?;
    let folder = root.path().join("kq-tiny");
    fs::create_dir(&folder)?;
    for name in ["config.json", "tokenizer_config.json"] {
        fs::write(folder.join(name), fs::read(data(name))?)?;
    }
    fs::write(
        folder.join("tokenizer.json"),
        unpacked("tokenizer.json.gz")?,
    )?;
    Ok((root, folder))
}

/// A copy of the checkpoint.
pub(crate) fn whole() -> Result<(TempDir, PathBuf)> {
    let (root, folder) = without_weights()?;
    fs::write(folder.join("model.safetensors"), &*WEIGHTS)?;
    Ok((root, folder))
}

/// The weights: header and data.
pub(crate) fn weights() -> Result<(Value, &'static [u8])> {
    let (length, rest) = WEIGHTS.split_first_chunk().context("a header")?;
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    Ok((serde_json::from_slice(header)?, data))
}

/// Writes a safetensors file of some tensors of `weights`, packed anew.
pub(crate) fn write_tensors<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a str, &'a str, Vec<u64>, &'a [u8])>,
) -> Result<()> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        let entry = serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        header.insert(name.to_owned(), entry);
        data.extend_from_slice(bytes);
    }
    let header = serde_json::to_vec(&header)?;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.extend(data);
    Ok(fs::write(path, file)?)
}

/// Plans and writes the main model.
pub(crate) fn quantize(folder: &Path, recipe: Recipe, output: &Path) -> Result<Plan> {
    let checkpoint = Checkpoint::open(folder)?;
    let plan = Plan::main_model(&checkpoint, &PlanOptions::new(recipe), false)?;
    run(&checkpoint, &plan, output)?;
    Ok(plan)
}

/// Carries out a plan.
pub(crate) fn run(
    checkpoint: &Checkpoint,
    plan: &Plan,
    output: &Path,
) -> Result<ds4_quantize::Summary> {
    let (options, never) = (ConvertOptions::default(), AtomicBool::new(false));
    Ok(convert(
        checkpoint,
        plan,
        output,
        &options,
        &never,
        &mut |_| {},
    )?)
}

/// The numbers of a tensor.
pub(crate) fn numbers(file: &GgufFile, name: &str) -> Result<Vec<f32>> {
    let info = file.tensor(name).with_context(|| name.to_owned())?;
    let mut out = vec![0.0; info.elements() as usize];
    decode(info.ty, &file.bytes(info), &mut out)?;
    Ok(out)
}

/// Type of a tensor.
pub(crate) fn ty(file: &GgufFile, name: &str) -> TensorType {
    file.tensor(name).expect("the tensor").ty
}
