//! One direction per layer, and how far to go along it.

use std::ops::RangeInclusive;

use thiserror::Error;

use crate::shape::ModelShape;

/// Scales that make any sense.
const SCALES: RangeInclusive<f32> = -100.0..=100.0;

/// Directions and scales for a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Steering {
    /// `[layers, D]`.
    directions: Vec<f32>,
    hidden: usize,
    attention_scale: f32,
    mixture_scale: f32,
}

/// Directions that do not belong to the model, or scales out of range.
#[derive(Clone, Debug, Error, PartialEq)]
pub enum SteeringError {
    /// Another number of layers or another width.
    #[error(
        "{found} bytes of directions, expected {expected}: {layers} layers of {hidden} F32 each"
    )]
    Size {
        /// Bytes found.
        found: usize,
        /// Bytes that would be right.
        expected: usize,
        /// Layers of the model.
        layers: usize,
        /// Width of the model.
        hidden: usize,
    },
    /// A component that is infinite or not a number.
    #[error("component {index} of the direction of layer {layer} is {value}")]
    NotFinite {
        /// The layer.
        layer: usize,
        /// The component.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A scale out of range.
    #[error("the steering scale of {what} is {found}, expected -100 to 100")]
    Scale {
        /// `attention` or `the experts`.
        what: &'static str,
        /// The value.
        found: f32,
    },
}

impl Steering {
    /// Directions from the bytes of a file: `[layers, D]` F32, little-endian, nothing else.
    ///
    /// # Errors
    /// Another size, values that are not finite, a scale beyond 100 either way.
    pub fn from_bytes(
        bytes: &[u8],
        shape: &ModelShape,
        attention_scale: f32,
        mixture_scale: f32,
    ) -> Result<Self, SteeringError> {
        let (layers, hidden) = (shape.layers.len(), shape.hidden);
        let expected = 4 * layers * hidden;
        if bytes.len() != expected {
            return Err(SteeringError::Size {
                found: bytes.len(),
                expected,
                layers,
                hidden,
            });
        }
        let words = bytes.as_chunks().0.iter();
        let directions: Vec<f32> = words.map(|&word| f32::from_le_bytes(word)).collect();
        if let Some(at) = directions.iter().position(|value| !value.is_finite()) {
            return Err(SteeringError::NotFinite {
                layer: at / hidden,
                index: at % hidden,
                value: directions[at],
            });
        }
        for (what, found) in [
            ("attention", attention_scale),
            ("the experts", mixture_scale),
        ] {
            // NaN is in no range.
            if !SCALES.contains(&found) {
                return Err(SteeringError::Scale { what, found });
            }
        }
        Ok(Self {
            directions,
            hidden,
            attention_scale,
            mixture_scale,
        })
    }

    /// Whether nothing is to be done: both scales are 0.
    pub fn is_idle(&self) -> bool {
        self.attention_scale == 0.0 && self.mixture_scale == 0.0
    }

    /// `[layers, D]`.
    pub fn directions(&self) -> &[f32] {
        &self.directions
    }

    /// Scales behind attention and behind the experts.
    pub fn scales(&self) -> [f32; 2] {
        [self.attention_scale, self.mixture_scale]
    }

    /// Takes the directions to a device, layer by layer.
    ///
    /// # Errors
    /// Those of `upload`.
    pub(crate) fn try_map<B, E>(
        &self,
        upload: &mut dyn FnMut(&[f32]) -> Result<B, E>,
    ) -> Result<DeviceSteering<B>, E> {
        Ok(DeviceSteering {
            directions: self
                .directions
                .chunks_exact(self.hidden)
                .map(upload)
                .collect::<Result<_, E>>()?,
            attention_scale: self.attention_scale,
            mixture_scale: self.mixture_scale,
        })
    }
}

/// The same in the memory of a device.
#[derive(Debug)]
pub struct DeviceSteering<B> {
    /// `[D]` for each layer.
    directions: Vec<B>,
    attention_scale: f32,
    mixture_scale: f32,
}

impl<B> DeviceSteering<B> {
    /// Direction and scale behind the attention of `layer`; `None` where there is nothing to do.
    pub fn attention(&self, layer: usize) -> Option<(&B, f32)> {
        self.at(layer, self.attention_scale)
    }

    /// Direction and scale behind the experts of `layer`; `None` where there is nothing to do.
    pub fn mixture(&self, layer: usize) -> Option<(&B, f32)> {
        self.at(layer, self.mixture_scale)
    }

    fn at(&self, layer: usize, scale: f32) -> Option<(&B, f32)> {
        let direction = self.directions.get(layer)?;
        (scale != 0.0).then_some((direction, scale))
    }
}
