//! Comparison of a [`Trace`] with the numbers of independent implementations.
//!
//! The functions measure; tests assert with the tolerance that belongs to the backend. For F32
//! arithmetic, weights and KV rows these are: logits 1e-3 and every argmax equal, rows and frontiers
//! 1e-4, choices of experts and rows identical up to a position with a margin below 2e-5. Four
//! independent implementations agree that far.

use std::fmt;

use anyhow::{Result, ensure};
use ds4_model::Compression;

use crate::golden::Array;
use crate::trace::Trace;

mod cache;

pub use cache::cache;

/// Differences between two arrays of floats.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Largest absolute difference; infinite if something is not a number.
    pub max_abs: f64,
    /// Mean absolute difference.
    pub mean_abs: f64,
    /// Root mean square of the difference over that of the expected values.
    pub relative_rms: f64,
    /// Cosine of the angle between the two.
    pub cosine: f64,
    /// Rows whose largest element is another one; counted for logits only.
    pub argmax_differs: usize,
}

impl Default for Difference {
    /// No difference.
    fn default() -> Self {
        Self {
            max_abs: 0.0,
            mean_abs: 0.0,
            relative_rms: 0.0,
            cosine: 1.0,
            argmax_differs: 0,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "max abs {:.3e}, mean abs {:.3e}, relative rms {:.3e}, cosine {:.6}, argmax differs {}",
            self.max_abs, self.mean_abs, self.relative_rms, self.cosine, self.argmax_differs
        )
    }
}

/// Compares `found` with `expected`.
///
/// # Errors
/// Other or no lengths.
pub fn difference(found: &[f32], expected: &[f32]) -> Result<Difference> {
    ensure!(
        found.len() == expected.len() && !found.is_empty(),
        "{} values, expected {}",
        found.len(),
        expected.len()
    );
    let mut result = Difference::default();
    let (mut sum, mut square, mut product, mut found_square, mut expected_square) =
        (0.0, 0.0, 0.0, 0.0, 0.0);
    for (&a, &b) in found.iter().zip(expected) {
        let (a, b) = (f64::from(a), f64::from(b));
        let error = (a - b).abs();
        // `max` would drop a NaN.
        result.max_abs = if error.is_nan() {
            f64::INFINITY
        } else {
            result.max_abs.max(error)
        };
        sum += error;
        square += error * error;
        product += a * b;
        found_square += a * a;
        expected_square += b * b;
    }
    result.mean_abs = sum / found.len() as f64;
    result.relative_rms = (square / expected_square).sqrt();
    result.cosine = product / (found_square * expected_square).sqrt();
    Ok(result)
}

impl Difference {
    /// The worse of two in every respect.
    pub fn worst(self, other: Self) -> Self {
        Self {
            max_abs: self.max_abs.max(other.max_abs),
            mean_abs: self.mean_abs.max(other.mean_abs),
            relative_rms: self.relative_rms.max(other.relative_rms),
            cosine: self.cosine.min(other.cosine),
            argmax_differs: self.argmax_differs + other.argmax_differs,
        }
    }
}

fn argmax(row: &[f32]) -> usize {
    let largest = |best: usize, index: usize| if row[index] > row[best] { index } else { best };
    (0..row.len()).fold(0, largest)
}

/// Logits against `expected`, whose rows are the last of the sequence.
///
/// # Errors
/// Fewer rows than expected.
pub fn compare_logits(found: &[f32], expected: &Array<f32>) -> Result<Difference> {
    let last = found.len().checked_sub(expected.values.len());
    let found = last.map_or(&[][..], |first| &found[first..]);
    let mut result = difference(found, &expected.values)?;
    let rows = found.chunks_exact(expected.width());
    result.argmax_differs = rows
        .zip(expected.values.chunks_exact(expected.width()))
        .filter(|(found, expected)| argmax(found) != argmax(expected))
        .count();
    Ok(result)
}

/// Logits of every golden position against transformers in F32.
///
/// # Errors
/// A sequence without goldens.
pub fn logits(trace: &Trace) -> Result<Difference> {
    logits_of(trace, "tf")
}

/// Logits against another golden file of the model.
///
/// # Errors
/// A sequence without goldens.
pub fn logits_of(trace: &Trace, kind: &str) -> Result<Difference> {
    let golden = trace.model.golden(kind)?;
    let length = trace.tokens.len();
    let key = if length == 700 {
        "logits_last100"
    } else {
        "logits"
    };
    compare_logits(
        &trace.logits,
        &golden.floats(&format!("seq{length}.{key}"))?,
    )
}

/// How many positions are compared, and how the choices there differ.
#[derive(Clone, Copy, Debug, Default)]
pub struct Choices {
    /// Rows compared, over all layers.
    pub compared: usize,
    /// Rows with another choice before the first uncertain position.
    pub differ: usize,
    /// Rows with another choice from there on.
    pub differ_later: usize,
    /// Largest difference of a weight among equal choices.
    pub weight_error: f64,
}

impl Choices {
    fn count(&mut self, certain: bool, equal: bool) {
        self.compared += 1;
        self.differ += usize::from(certain && !equal);
        self.differ_later += usize::from(!certain && !equal);
    }
}

/// Experts and their weights at every position and layer.
///
/// # Errors
/// A run that was not observed.
pub fn routing(trace: &Trace) -> Result<Choices> {
    let golden = trace.model.golden("tf")?;
    let length = trace.tokens.len();
    let used = trace.shape.experts_used;
    let experts = golden.integers(&format!("seq{length}.route_expert"))?;
    let weights = golden.floats(&format!("seq{length}.route_weight"))?;
    ensure!(
        experts.shape == [trace.layers.len(), length, used],
        "golden experts have shape {:?}",
        experts.shape
    );
    let uncertain = trace.model.first_uncertain(length).unwrap_or(length);
    let mut result = Choices::default();
    for (index, layer) in trace.layers.iter().enumerate() {
        for position in 0..length {
            let range = position * used..(position + 1) * used;
            let mut found: Vec<(i64, f32)> = layer.experts[range.clone()]
                .iter()
                .map(|&expert| i64::from(expert))
                .zip(layer.expert_weights[range.clone()].iter().copied())
                .collect();
            found.sort_unstable_by_key(|&(expert, _)| expert);
            let expected = &experts.row(index)[range.clone()];
            let equal = found
                .iter()
                .map(|&(expert, _)| expert)
                .eq(expected.iter().copied());
            result.count(position < uncertain, equal);
            if equal && position < uncertain {
                for (&(_, found), &expected) in found.iter().zip(&weights.row(index)[range]) {
                    let error = (f64::from(found) - f64::from(expected)).abs();
                    result.weight_error = result.weight_error.max(error);
                }
            }
        }
    }
    Ok(result)
}

/// Compressed rows that the indexer selects at every position.
///
/// # Errors
/// A run that was not observed.
pub fn selection(trace: &Trace) -> Result<Choices> {
    let golden = trace.model.golden("tf")?;
    let length = trace.tokens.len();
    let width = trace.shape.index_top_k;
    let uncertain = trace.model.first_uncertain(length).unwrap_or(length);
    let mut result = Choices::default();
    for (index, layer) in trace.layers.iter().enumerate() {
        if !matches!(
            trace.shape.layers[index].compression,
            Compression::Sparse { .. }
        ) {
            continue;
        }
        let expected = golden.integers(&format!("seq{length}.layer{index}.index_topk"))?;
        ensure!(
            expected.shape == [length, width],
            "golden selection {:?}",
            expected.shape
        );
        for position in 0..length {
            let mut found: Vec<i64> = layer.selected[position * width..(position + 1) * width]
                .iter()
                .filter(|&&row| row != u32::MAX)
                .map(|&row| row.into())
                .collect();
            found.sort_unstable();
            let mut expected: Vec<i64> = expected
                .row(position)
                .iter()
                .copied()
                .filter(|&row| row >= 0)
                .collect();
            expected.sort_unstable();
            result.count(position < uncertain, found == expected);
        }
    }
    Ok(result)
}

/// Streams and attention outputs of one layer: all positions of 37, the last four of the others.
///
/// # Errors
/// A run that was not observed, or a layer that does not exist.
pub fn hidden(trace: &Trace, layer: usize) -> Result<Difference> {
    let golden = trace.model.golden("tf")?;
    let length = trace.tokens.len();
    let prefix = format!("seq{length}.layer{layer}");
    let streams = &trace.layers[layer].streams;
    if length == 37 {
        let attention = golden.floats(&format!("{prefix}.attn_out"))?;
        let after = golden.floats(&format!("{prefix}.hc_out"))?;
        return Ok(difference(streams, &after.values)?.worst(difference(
            &trace.layers[layer].attention,
            &attention.values,
        )?));
    }
    let after = golden.floats(&format!("{prefix}.hc_out_last4"))?;
    let first = streams.len() - after.values.len();
    difference(&streams[first..], &after.values)
}
