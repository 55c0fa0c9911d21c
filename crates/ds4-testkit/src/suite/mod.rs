//! What every backend must pass, with tolerances of its own.
//!
//! Each function takes backends (or a way to make them) and fails with what was measured. With
//! [`Tolerance::F32`] they are the project's definition of correct F32 arithmetic.

use anyhow::{Context, Result, ensure};
use ds4_model::{Backend, KvFormat, Step, StepSequence};

use crate::conformance::{self, Difference};
use crate::golden_model::GoldenModel;
use crate::trace::{Run, Session, Trace};

mod invariance;
mod steering;
mod taking_back;

pub use invariance::{batching, chunking, forking, restoring, rewinding};
pub use steering::steering;
pub use taking_back::{Drafting, taking_back};

/// How far a backend may be from the goldens.
#[derive(Clone, Copy, Debug)]
pub struct Tolerance {
    /// Of a logit; their standard deviation is 3.
    pub logits: f64,
    /// Of cached rows and frontiers, at 37 and 300 tokens.
    pub cache: f64,
    /// Of residual streams, relative root mean square per layer.
    pub hidden: f64,
    /// Of an expert's weight.
    pub weights: f64,
    /// Whether every argmax and every choice must be equal.
    pub exact_choices: bool,
}

impl Tolerance {
    /// Weights expanded to F32, F32 activations and KV rows.
    pub const F32: Self = Self {
        logits: 1e-3,
        cache: 1e-4,
        hidden: 5e-5,
        weights: 1e-5,
        exact_choices: true,
    };
}

/// Logits of all positions, experts and their weights, selected rows, the cache, and the hidden
/// states of every layer. Without `observe`, logits and cache only.
///
/// # Errors
/// A difference beyond `tolerance`.
pub fn sequence<B: Backend>(
    backend: B,
    model: GoldenModel,
    length: usize,
    run: &Run,
    tolerance: &Tolerance,
) -> Result<()> {
    let trace = Trace::record(backend, model, length, run)?;
    let logits = conformance::logits(&trace)?;
    ensure!(logits.max_abs <= tolerance.logits, "logits: {logits}");
    if tolerance.exact_choices {
        ensure!(logits.argmax_differs == 0, "logits: {logits}");
    }
    let cache = conformance::cache(&trace)?;
    // Later rows of longer sequences gather what the last choices near a tie cost.
    if length <= 300 {
        ensure!(cache.max_abs <= tolerance.cache, "cache: {cache}");
    }
    if !run.observe {
        return Ok(());
    }
    let routing = conformance::routing(&trace)?;
    let selection = conformance::selection(&trace)?;
    if tolerance.exact_choices {
        ensure!(routing.differ == 0, "experts: {routing:?}");
        ensure!(selection.differ == 0, "selected rows: {selection:?}");
    }
    ensure!(
        routing.weight_error <= tolerance.weights,
        "expert weights: {routing:?}"
    );
    for layer in 0..trace.layers.len() {
        let hidden = conformance::hidden(&trace, layer)?;
        ensure!(
            hidden.relative_rms <= tolerance.hidden,
            "layer {layer}: {hidden}"
        );
    }
    Ok(())
}

/// F16 rows in the KV cache change logits by 5e-3 in the mean at five tokens.
///
/// # Errors
/// More than that.
pub fn half_rows<B: Backend>(backend: B, model: GoldenModel) -> Result<Difference> {
    let run = Run {
        kv_format: KvFormat::F16,
        observe: false,
        ..Run::default()
    };
    let difference = conformance::logits(&Trace::record(backend, model, 5, &run)?)?;
    ensure!(difference.mean_abs <= 5e-3, "F16 rows: {difference}");
    Ok(difference)
}

/// Logits of an engine that rounds the activations of matrix products. `mean` bounds the mean
/// absolute difference, `cosine` the similarity from below.
///
/// # Errors
/// A greater distance.
pub fn rounded_activations<B: Backend>(
    backend: B,
    model: GoldenModel,
    kind: &str,
    length: usize,
    mean: f64,
    cosine: f64,
) -> Result<Difference> {
    let run = Run {
        observe: false,
        ..Run::default()
    };
    let trace = Trace::record(backend, model, length, &run)?;
    let difference = conformance::logits_of(&trace, kind)?;
    ensure!(
        difference.mean_abs <= mean && difference.cosine >= cosine,
        "{kind} at {length}: {difference}"
    );
    Ok(difference)
}

/// Logits of the MTP block on (streams of position i, token i + 1).
///
/// # Errors
/// A difference beyond `tolerance`.
pub fn mtp<B: Backend>(
    backend: B,
    model: GoldenModel,
    length: usize,
    run: &Run,
    tolerance: &Tolerance,
) -> Result<Difference> {
    let file = model.open()?;
    let mtp_file = model.open_mtp()?;
    let tokens = model.tokens(length)?;
    let mut session = Session::new(backend, &file, Some(&mtp_file), run, length)?;
    let mut logits = Vec::new();
    let mut position = 0;
    for &chunk in run.chunks.iter().cycle() {
        // The last token has no next one.
        let rows = chunk.min(length - 1 - position);
        if rows == 0 {
            break;
        }
        session.step(&tokens[position..position + rows], false)?;
        let step = Step::single(StepSequence {
            slot: session.slot,
            position,
            tokens: tokens[position + 1..position + 1 + rows].to_vec(),
            outputs: 0..rows,
        });
        let behind: Vec<usize> = (0..rows).collect();
        session.executor.run_mtp(&step, &behind)?;
        logits.extend(session.logits(rows)?);
        position += rows;
    }
    let golden = model.golden("mtp")?;
    let expected = golden.floats(&format!("seq{length}.mtp_logits"))?;
    let difference =
        conformance::compare_logits(&logits, &expected).context("logits of the MTP block")?;
    ensure!(difference.max_abs <= tolerance.logits, "MTP: {difference}");
    if tolerance.exact_choices {
        ensure!(difference.argmax_differs == 0, "MTP: {difference}");
    }
    Ok(difference)
}
