//! Steering as its formula says, and none of it at scale 0.

use anyhow::{Result, ensure};
use ds4_gguf::GgufFile;
use ds4_model::forward::{Activations, Observer};
use ds4_model::steering::{Component, Steering, SteeringError, capture};
use ds4_model::{
    Backend, BackendError, KvFormat, ModelError, ModelShape, Step, StepSequence, TokenId,
};

use super::invariance::same;
use crate::conformance::difference;
use crate::trace::{Run, Session};

/// Outputs of attention and experts of every layer, `[n, D]`.
#[derive(Default)]
struct Outputs {
    bytes: usize,
    attention: Vec<Vec<f32>>,
    mixture: Vec<Vec<f32>>,
}

impl Outputs {
    fn read<B: Backend>(
        &self,
        backend: &mut B,
        activations: &Activations<B::Buffer>,
    ) -> Result<Vec<f32>, BackendError> {
        let mut bytes = vec![0; self.bytes];
        backend.read(&activations.output, 0, &mut bytes)?;
        let words = bytes.as_chunks().0.iter();
        Ok(words.map(|&word| f32::from_le_bytes(word)).collect())
    }
}

impl<B: Backend> Observer<B> for Outputs {
    fn after_attention(
        &mut self,
        backend: &mut B,
        _: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let rows = self.read(backend, activations)?;
        self.attention.push(rows);
        Ok(())
    }

    fn after_layer(
        &mut self,
        backend: &mut B,
        _: usize,
        activations: &Activations<B::Buffer>,
    ) -> Result<(), BackendError> {
        let rows = self.read(backend, activations)?;
        self.mixture.push(rows);
        Ok(())
    }
}

/// A direction of length 1 for every layer, without a pattern.
fn directions(shape: &ModelShape) -> Vec<f32> {
    let mut directions = Vec::with_capacity(shape.layers.len() * shape.hidden);
    for layer in 0..shape.layers.len() {
        let row: Vec<f64> = (0..shape.hidden)
            .map(|index| (0.7 * ((layer + 2) * index * index + 1) as f64).sin())
            .collect();
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        directions.extend(row.iter().map(|value| (value / length) as f32));
    }
    directions
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let pairs = a.iter().zip(b);
    pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// What steering does to a model: nothing at scale 0, the formula at the first place where it acts, no
/// output along its direction at scale 1, the same bits for any cut into steps; refusals.
///
/// Outputs may differ from the formula by `tolerance`. With `observe` the outputs of sub-layers are read,
/// which needs a backend that runs stages at once.
///
/// # Errors
/// What is otherwise.
pub fn steering<B: Backend>(
    make: impl Fn() -> B,
    file: &GgufFile,
    tokens: &[TokenId],
    observe: bool,
    tolerance: f64,
) -> Result<()> {
    let shape = ModelShape::from_file(file)?;
    let directions = directions(&shape);
    let bytes: Vec<u8> = directions
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let steering = |attention, mixture| Steering::from_bytes(&bytes, &shape, attention, mixture);
    let session = |steering: Option<&Steering>, chunks: &[usize]| {
        let run = Run {
            kv_format: KvFormat::F32,
            chunks: chunks.to_vec(),
            observe: false,
        };
        let mut session = Session::new(make(), file, None, &run, tokens.len())?;
        if let Some(steering) = steering {
            session.executor.steer(steering)?;
        }
        anyhow::Ok((session, run))
    };
    let logits = |steering: Option<&Steering>, chunks: &[usize]| {
        let (mut session, run) = session(steering, chunks)?;
        session.feed(tokens, &run)
    };
    let whole = [tokens.len()];
    let plain = logits(None, &whole)?;
    same(
        "scale 0",
        &logits(Some(&steering(0.0, 0.0)?), &whole)?,
        &plain,
        0.0,
    )?;
    for (attention, mixture) in [(0.7, 0.0), (0.0, 0.7), (-2.0, 0.5)] {
        let steering = steering(attention, mixture)?;
        let steered = logits(Some(&steering), &whole)?;
        let moved = difference(&steered, &plain)?;
        ensure!(moved.max_abs > 1e-2, "steering does nothing: {moved}");
        let cut = logits(Some(&steering), &[3, 1, 7])?;
        same("steered in small steps", &cut, &steered, 0.0)?;
    }

    if observe {
        let outputs = |steering: Option<&Steering>| {
            let (mut session, _) = session(steering, &whole)?;
            let mut outputs = Outputs {
                bytes: 4 * tokens.len() * shape.hidden,
                ..Outputs::default()
            };
            let step = Step::single(StepSequence {
                slot: session.slot,
                position: 0,
                tokens: tokens.to_vec(),
                outputs: 0..1,
            });
            session.executor.run_observed(&step, &mut outputs)?;
            anyhow::Ok(outputs)
        };
        let first = |rows: &[Vec<f32>]| rows.first().cloned().unwrap_or_default();
        let v = &directions[..shape.hidden];
        let formula = |rows: &[f32], scale: f64| -> Vec<f32> {
            rows.chunks_exact(shape.hidden)
                .flat_map(|y| {
                    let along = dot(v, y);
                    y.iter()
                        .zip(v)
                        .map(move |(&y, &v)| (f64::from(y) - scale * f64::from(v) * along) as f32)
                })
                .collect()
        };
        let untouched = outputs(None)?;
        let steered = outputs(Some(&steering(0.7, 0.0)?))?;
        let expected = formula(&first(&untouched.attention), f64::from(0.7_f32));
        same(
            "attention",
            &first(&steered.attention),
            &expected,
            tolerance,
        )?;
        let steered = outputs(Some(&steering(0.0, -1.5)?))?;
        let expected = formula(&first(&untouched.mixture), -1.5);
        same("experts", &first(&steered.mixture), &expected, tolerance)?;

        // What directions are built from is the last row of each layer.
        for (component, expected) in [
            (Component::Attention, &untouched.attention),
            (Component::Mixture, &untouched.mixture),
        ] {
            let last = expected
                .iter()
                .flat_map(|rows| &rows[rows.len() - shape.hidden..]);
            let expected: Vec<f32> = last.copied().collect();
            let (mut session, _) = session(None, &[7])?;
            let captured = capture(&mut session.executor, tokens, component)?;
            same("captured rows", &captured, &expected, 0.0)?;
        }

        let steered = outputs(Some(&steering(1.0, 1.0)?))?;
        for rows in [&steered.attention, &steered.mixture] {
            ensure!(rows.len() == shape.layers.len(), "{} layers", rows.len());
            let layers = directions.chunks_exact(shape.hidden).zip(rows);
            for (layer, (v, rows)) in layers.enumerate() {
                for y in rows.chunks_exact(shape.hidden) {
                    let (left, length) = (dot(v, y).abs(), dot(y, y).sqrt());
                    ensure!(
                        left <= tolerance * length.max(1.0),
                        "layer {layer}: {left} of {length} is left along the direction"
                    );
                }
            }
        }
    }
    refusals(&bytes, &shape)?;
    let (mut session, _) = session(None, &whole)?;
    session.step(&tokens[..1], false)?;
    let late = session.executor.steer(&steering(1.0, 0.0)?);
    ensure!(
        matches!(late, Err(ModelError::Step(_))),
        "steering after a step: {late:?}"
    );
    Ok(())
}

/// Files that do not fit.
fn refusals(bytes: &[u8], shape: &ModelShape) -> Result<()> {
    for wrong in [
        &bytes[..0],
        &bytes[..bytes.len() - 4],
        &[bytes, bytes].concat(),
    ] {
        let error = Steering::from_bytes(wrong, shape, 1.0, 1.0);
        ensure!(
            matches!(error, Err(SteeringError::Size { .. })),
            "{} bytes: {error:?}",
            wrong.len()
        );
    }
    let mut infinite = bytes.to_vec();
    let at = 4 * (shape.hidden + 5);
    infinite[at..at + 4].copy_from_slice(&f32::INFINITY.to_le_bytes());
    let error = Steering::from_bytes(&infinite, shape, 1.0, 1.0);
    let expected = SteeringError::NotFinite {
        layer: 1,
        index: 5,
        value: f32::INFINITY,
    };
    ensure!(error == Err(expected), "{error:?}");
    for scale in [100.5, f32::NAN, f32::NEG_INFINITY] {
        let error = Steering::from_bytes(bytes, shape, 0.0, scale);
        ensure!(
            matches!(error, Err(SteeringError::Scale { .. })),
            "scale {scale}: {error:?}"
        );
    }
    Ok(())
}
