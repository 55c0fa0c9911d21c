//! Directions from what a model computes for two sets of prompts.

use thiserror::Error;

/// How directions are made from the collected rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectionOptions {
    /// Average the differences of pairs, each with length 1, rather than the rows: no pair counts more
    /// because its rows are longer.
    pub pair_normalise: bool,
    /// Take out what lies along the mean of the control rows, which every prompt has.
    pub orthogonalise: bool,
}

/// Prompts from which no direction can be made.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum BuildError {
    /// A set has no rows.
    #[error("there must be at least one prompt of either kind")]
    Empty,
    /// Pairs need partners.
    #[error("{target} target and {control} control prompts do not make pairs")]
    Unpaired {
        /// Target prompts.
        target: usize,
        /// Control prompts.
        control: usize,
    },
    /// The two sets do not differ in a layer.
    #[error("the two sets of prompts do not differ in layer {layer}")]
    NoDifference {
        /// Which.
        layer: usize,
    },
}

/// Collects one row of width `D` per layer and prompt.
#[derive(Clone, Debug)]
pub struct DirectionBuilder {
    hidden: usize,
    /// `[prompts]` of `[layers, D]`.
    target: Vec<Vec<f32>>,
    control: Vec<Vec<f32>>,
}

impl DirectionBuilder {
    /// A builder for rows of width `hidden`.
    pub fn new(hidden: usize) -> Self {
        Self {
            hidden,
            target: Vec::new(),
            control: Vec::new(),
        }
    }

    /// Adds the rows `[layers, D]` of a prompt that has what the direction is to stand for.
    pub fn add_target(&mut self, rows: Vec<f32>) {
        self.target.push(rows);
    }

    /// Adds the rows `[layers, D]` of a prompt that lacks it.
    pub fn add_control(&mut self, rows: Vec<f32>) {
        self.control.push(rows);
    }

    /// The directions `[layers, D]`, each of length 1: mean of the target rows minus mean of the
    /// control rows.
    ///
    /// # Errors
    /// Too few prompts, or prompts that make no difference.
    pub fn finish(&self, options: DirectionOptions) -> Result<Vec<f32>, BuildError> {
        let (target, control) = (self.target.len(), self.control.len());
        if target == 0 || control == 0 {
            return Err(BuildError::Empty);
        }
        if options.pair_normalise && target != control {
            return Err(BuildError::Unpaired { target, control });
        }
        let layers = self.target[0].len() / self.hidden;
        let mut directions = Vec::with_capacity(layers * self.hidden);
        for layer in 0..layers {
            let range = layer * self.hidden..(layer + 1) * self.hidden;
            let target: Vec<&[f32]> = self.target.iter().map(|row| &row[range.clone()]).collect();
            let control: Vec<&[f32]> = self.control.iter().map(|row| &row[range.clone()]).collect();
            let direction = direction(&target, &control, options);
            let direction = direction.ok_or(BuildError::NoDifference { layer })?;
            directions.extend(direction.iter().map(|&value| value as f32));
        }
        Ok(directions)
    }
}

/// The direction of one layer; `None` if it has no length.
fn direction(target: &[&[f32]], control: &[&[f32]], options: DirectionOptions) -> Option<Vec<f64>> {
    let mut direction = if options.pair_normalise {
        let pairs = target.iter().zip(control);
        let differences: Vec<Vec<f64>> = pairs
            .filter_map(|(target, control)| {
                normalised(&difference(&widen(target), &widen(control)))
            })
            .collect();
        mean(differences.iter().map(Vec::as_slice))?
    } else {
        difference(&mean_of_rows(target)?, &mean_of_rows(control)?)
    };
    direction = normalised(&direction)?;
    if options.orthogonalise
        && let Some(base) = normalised(&mean_of_rows(control)?)
    {
        let along = dot(&direction, &base);
        // What is left of a direction along the mean itself is rounding.
        if 1.0 - along.abs() < 1e-12 {
            return None;
        }
        direction
            .iter_mut()
            .zip(&base)
            .for_each(|(value, base)| *value -= along * base);
    }
    normalised(&direction)
}

fn widen(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&value| f64::from(value)).collect()
}

fn mean_of_rows(rows: &[&[f32]]) -> Option<Vec<f64>> {
    let rows: Vec<Vec<f64>> = rows.iter().map(|row| widen(row)).collect();
    mean(rows.iter().map(Vec::as_slice))
}

fn mean<'a>(rows: impl Iterator<Item = &'a [f64]>) -> Option<Vec<f64>> {
    let mut sum: Vec<f64> = Vec::new();
    let mut count = 0;
    for row in rows {
        sum.resize(row.len(), 0.0);
        sum.iter_mut()
            .zip(row)
            .for_each(|(sum, value)| *sum += value);
        count += 1;
    }
    sum.iter_mut().for_each(|value| *value /= f64::from(count));
    (count > 0).then_some(sum)
}

fn difference(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// With length 1; `None` without a length.
fn normalised(row: &[f64]) -> Option<Vec<f64>> {
    let length = dot(row, row).sqrt();
    (length > 0.0 && length.is_finite()).then(|| row.iter().map(|value| value / length).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: DirectionOptions = DirectionOptions {
        pair_normalise: false,
        orthogonalise: false,
    };

    fn built(
        target: &[[f32; 4]],
        control: &[[f32; 4]],
        options: DirectionOptions,
    ) -> Result<Vec<f32>, BuildError> {
        // Two layers of width 2.
        let mut builder = DirectionBuilder::new(2);
        target
            .iter()
            .for_each(|row| builder.add_target(row.to_vec()));
        control
            .iter()
            .for_each(|row| builder.add_control(row.to_vec()));
        builder.finish(options)
    }

    fn assert_close(found: &[f32], expected: &[f32]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn a_direction_is_the_difference_of_the_means() {
        // Means (3, 4) and (0, 0); then (1, 1) and (1, 0).
        let target = [[1.0, 4.0, 1.0, 2.0], [5.0, 4.0, 1.0, 0.0]];
        let control = [[0.0, 0.0, 1.0, 0.0]];
        let found = built(&target, &control, PLAIN).unwrap();
        assert_close(&found, &[0.6, 0.8, 0.0, 1.0]);
    }

    #[test]
    fn pairs_count_alike_whatever_their_lengths() {
        let target = [[100.0, 0.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]];
        let control = [[0.0; 4], [0.0; 4]];
        let options = DirectionOptions {
            pair_normalise: true,
            ..PLAIN
        };
        let half = 0.5_f32.sqrt();
        let found = built(&target, &control, options).unwrap();
        assert_close(&found, &[half, half, 1.0, 0.0]);
        let unpaired = BuildError::Unpaired {
            target: 2,
            control: 1,
        };
        assert_eq!(built(&target, &control[..1], options), Err(unpaired));
    }

    #[test]
    fn the_control_mean_is_taken_out() {
        let options = DirectionOptions {
            orthogonalise: true,
            ..PLAIN
        };
        let target = [[3.0, 2.0, 0.0, 7.0]];
        let found = built(&target, &[[1.0, 0.0, -1.0, 0.0]], options).unwrap();
        assert_close(&found, &[0.0, 1.0, 0.0, 1.0]);
        // Nothing is left of a difference along the mean.
        let along = built(&[[2.0, 0.0, 1.0, 1.0]], &[[1.0, 0.0, 0.0, 1.0]], options);
        assert_eq!(along, Err(BuildError::NoDifference { layer: 0 }));
    }

    #[test]
    fn sets_that_do_not_differ_give_no_direction() {
        let row = [1.0, 2.0, 3.0, 4.0];
        let mut other = row;
        other[0] = 5.0;
        let error = built(&[other], &[row], PLAIN);
        assert_eq!(error, Err(BuildError::NoDifference { layer: 1 }));
        assert_eq!(built(&[], &[row], PLAIN), Err(BuildError::Empty));
        assert_eq!(built(&[row], &[], PLAIN), Err(BuildError::Empty));
    }
}
