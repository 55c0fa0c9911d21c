//! Files of directions: F32 values, one row of the model's width for each layer, and nothing else.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use anyhow::Context;
use ds4_model::{ModelShape, Steering};
use serde_json::Value;

use crate::arguments::SteeringArguments;
use crate::failure::Hint;
use crate::output_file::OutputFile;

/// What the arguments ask for; `None` without a file.
///
/// # Errors
/// A file that cannot be read, is of another model or holds no numbers; scales out of range.
pub(crate) fn load(
    arguments: &SteeringArguments,
    shape: &ModelShape,
) -> anyhow::Result<Option<Steering>> {
    let Some(path) = &arguments.dir_steering_file else {
        return Ok(None);
    };
    let attention = arguments.dir_steering_attn;
    // A file alone means the experts.
    let mixture = arguments.dir_steering_ffn;
    let mixture = mixture.unwrap_or(if attention.is_none() { 1.0 } else { 0.0 });
    let file = File::open(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    // A byte more than right shows that the size is wrong, whatever the size.
    let right = 4 * shape.layers.len() as u64 * shape.hidden as u64;
    let mut bytes = Vec::new();
    file.take(right + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read `{}`", path.display()))?;
    Steering::from_bytes(&bytes, shape, attention.unwrap_or(0.0), mixture)
        .with_context(|| format!("cannot use `{}`", path.display()))
        .hint(|| "`ds4 steer` makes directions for a model; those of another do not fit".to_owned())
        .map(Some)
}

/// Writes directions, and beside them how they were made, as JSON.
pub(crate) fn write(path: &Path, directions: &[f32], made: &Value) -> anyhow::Result<()> {
    let write = |path: &Path, bytes: &[u8]| {
        let mut file = OutputFile::create(path)?;
        file.write_all(bytes)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        file.finish()
    };
    write(
        &path.with_extension("json"),
        format!("{made:#}\n").as_bytes(),
    )?;
    let bytes: Vec<u8> = directions
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    write(path, &bytes)
}
