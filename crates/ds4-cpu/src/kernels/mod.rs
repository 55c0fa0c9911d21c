//! Matrix kernels: products of weights as they lie in the file with activations.
//!
//! [`Matrix`] views the file's blocks, [`Activations`] holds 8-bit activations, [`Kernels`] multiplies.
//! `format` states the formula; every instruction set, batch size and division of the
//! rows gives the same bits, because integer sums are exact and the order of the f32 sums is fixed.

#![expect(
    unsafe_code,
    reason = "SIMD kernels: loads and stores through pointers, CPU features"
)]

mod activations;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod float;
mod format;
mod isa;
mod matrix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod row_ops;
mod scalar;
mod table;

pub use activations::{Activations, RUN};
pub use float::FloatRows;
pub use isa::Isa;
pub use matrix::{Inputs, Kernels, Matrix, MatrixError, Precision, Workspace};

pub(crate) use activations::ActivationsWriter;
pub(crate) use row_ops::{RowOps, exp};
pub(crate) use scalar::Tile;

#[cfg(test)]
mod tests;
