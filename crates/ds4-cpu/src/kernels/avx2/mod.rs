//! Kernels for AVX2 with FMA and F16C.
//!
//! A format says once how 256 elements unpack into registers ([`unpack::Unpack`]); from that come both
//! its dot product with one row ([`terms`]) and its batched product ([`batch`]). Bytes are multiplied by
//! `vpmaddubsw`, unsigned weights by signed activations in pairs: weights stay at or below 128 and
//! activations within 127, so that a pair never saturates its 16 bits.
//!
//! Every function here has the features of [`Avx2`](super::isa::Avx2) enabled and is only reachable
//! through a table that is built from that token.

pub(super) mod batch;
pub(super) mod codebook;
pub(super) mod float;
pub(super) mod integer32;
pub(super) mod k_quants;
pub(super) mod quantize;
pub(super) mod terms;
pub(super) mod transpose;
pub(super) mod unpack;

#[cfg(test)]
mod tests;
