//! Kernels for AArch64 with the dot product instructions.
//!
//! A format says once how 256 elements unpack into registers ([`unpack::Unpack`]); from that come both
//! its dot product with one row ([`terms`]) and its batched product ([`batch`]). Row operations are the
//! portable ones: NEON is part of every AArch64 target, so the compiler has vectorised them already.
//!
//! Every function here has the features of [`Neon`](super::isa::Neon) enabled and is only reachable
//! through a table that is built from that token.

pub(super) mod accumulate;
pub(super) mod batch;
pub(super) mod codebook;
pub(super) mod float;
mod instructions;
pub(super) mod integer32;
pub(super) mod k_quants;
pub(super) mod quantize;
pub(super) mod terms;
pub(super) mod unpack;
