//! From f32 to the bytes of a weight type.
//!
//! The K and codebook formats are fitted by search: of all the codes tried, those with the least weighted
//! squared error are kept.

mod affine;
mod codebook;
mod dispatch;
mod float4;
mod integer8;
mod rounding;
mod symmetric;

pub use dispatch::{encode, encode_weighted};
