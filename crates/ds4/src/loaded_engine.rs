//! Models in memory.

use anyhow::Context;
use ds4_engine::{Engine, EngineOptions};
use ds4_model::Steering;

use crate::machine_memory;
use crate::model_file::ModelFile;

/// Loads a model, to be steered if asked for.
///
/// # Errors
/// What does not fit the machine, a bad file, directions of another model.
pub(crate) fn open(
    model: &ModelFile,
    options: &EngineOptions,
    steering: Option<&Steering>,
) -> anyhow::Result<Engine> {
    machine_memory::check(&model.file, options)?;
    let mut engine = Engine::open(&model.file, model.mtp.as_ref(), options, &mut |_| {})
        .with_context(|| format!("cannot load the model `{}`", model.label))?;
    if let Some(steering) = steering {
        engine
            .steer(steering)
            .with_context(|| format!("cannot steer the model `{}`", model.label))?;
    }
    Ok(engine)
}
