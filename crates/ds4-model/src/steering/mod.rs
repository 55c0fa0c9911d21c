//! Moving the outputs of sub-layers along a direction: `y = y - scale * v * (v . y)`.
//!
//! A positive scale takes out what the direction stands for (all of it at 1, if the direction has length
//! 1), a negative one adds to it. The MTP block is not steered.

mod builder;
mod capture;
mod directions;

pub use builder::{BuildError, DirectionBuilder, DirectionOptions};
pub use capture::{Component, capture};
pub use directions::{DeviceSteering, Steering, SteeringError};
