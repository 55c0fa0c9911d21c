//! Rotary position embedding (model-spec 5.2).
//!
//! Frequencies are F32 and made by the operations of the released code in its order: the model was
//! trained with exactly these numbers. Angles are computed in F64, because a position near one
//! million times a frequency in F32 is wrong by up to 0.04 rad.

use crate::shape::{ModelShape, Yarn};

/// Frequencies of the rotated pairs of one kind of layer, in radians per token.
#[derive(Clone, Debug, PartialEq)]
pub struct RopeFrequencies {
    frequencies: Vec<f32>,
}

impl RopeFrequencies {
    /// For window-only layers and the MTP block: `base^(-2i/r)`.
    pub fn plain(base: f64, rope_dim: usize) -> Self {
        let frequencies = (0..rope_dim / 2)
            .map(|pair| {
                let exponent = (2 * pair) as f32 / rope_dim as f32;
                1.0 / base.powf(f64::from(exponent)) as f32
            })
            .collect();
        Self { frequencies }
    }

    /// For layers with compression: YaRN between the plain frequency and its
    /// `1/factor`; magnitudes are not scaled.
    pub fn yarn(base: f64, rope_dim: usize, yarn: &Yarn) -> Self {
        // Pair index whose wave makes `rotations` turns over the original context.
        let pair_of = |rotations: f64| {
            rope_dim as f64 * (yarn.original_context / (rotations * std::f64::consts::TAU)).ln()
                / (2.0 * base.ln())
        };
        let last = (rope_dim - 1) as f64;
        let low = pair_of(yarn.beta_fast).floor().clamp(0.0, last) as f32;
        let high = pair_of(yarn.beta_slow).ceil().clamp(0.0, last) as f32;
        let width = if high > low { high - low } else { 0.001 };
        let mut frequencies = Self::plain(base, rope_dim).frequencies;
        for (pair, frequency) in frequencies.iter_mut().enumerate() {
            let ramp = ((pair as f32 - low) / width).clamp(0.0, 1.0);
            let kept = 1.0 - ramp;
            *frequency = *frequency / yarn.factor as f32 * (1.0 - kept) + *frequency * kept;
        }
        Self { frequencies }
    }

    /// Number of rotated pairs.
    pub fn pairs(&self) -> usize {
        self.frequencies.len()
    }

    /// `(cos, sin)` of every pair at `position`, interleaved.
    pub fn write_table(&self, position: u32, table: &mut [f32]) {
        for (entry, frequency) in table.chunks_exact_mut(2).zip(&self.frequencies) {
            let (sin, cos) = (f64::from(position) * f64::from(*frequency)).sin_cos();
            entry[0] = cos as f32;
            entry[1] = sin as f32;
        }
    }
}

/// The two kinds of rotation in a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Window-only layers and MTP.
    pub window: RopeFrequencies,
    /// Layers with compression: queries, window rows and compressed rows alike.
    pub compressed: RopeFrequencies,
}

impl Rope {
    /// The rotations of a model.
    pub fn new(shape: &ModelShape) -> Self {
        Self {
            window: RopeFrequencies::plain(shape.rope_base, shape.rope_dim),
            compressed: RopeFrequencies::yarn(
                shape.compress_rope_base,
                shape.rope_dim,
                &shape.yarn,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const YARN: Yarn = Yarn {
        factor: 16.0,
        original_context: 65536.0,
        beta_fast: 32.0,
        beta_slow: 1.0,
    };

    #[test]
    fn yarn_keeps_fast_pairs_and_interpolates_slow_ones() {
        // Bounds 15 and 25 for the released models: model-spec 5.2.
        let plain = RopeFrequencies::plain(160_000.0, 64);
        let yarn = RopeFrequencies::yarn(160_000.0, 64, &YARN);
        for pair in 0..32 {
            let ratio = yarn.frequencies[pair] / plain.frequencies[pair];
            match pair {
                0..=15 => assert_eq!(ratio, 1.0, "pair {pair}"),
                25.. => assert!((ratio - 1.0 / 16.0).abs() < 1e-8, "pair {pair}"),
                _ => assert!(ratio < 1.0 && ratio > 1.0 / 16.0, "pair {pair}"),
            }
        }
    }

    #[test]
    fn table_rotates_by_position_times_frequency() {
        let rope = RopeFrequencies::plain(10_000.0, 4);
        let mut table = [0.0; 4];
        rope.write_table(3, &mut table);
        // Pairs turn by 3 * 1 and 3 * 0.01.
        let expected = [3f64.cos(), 3f64.sin(), 0.03f64.cos(), 0.03f64.sin()];
        for (value, expected) in table.iter().zip(expected) {
            assert!((f64::from(*value) - expected).abs() < 1e-7);
        }
    }
}
