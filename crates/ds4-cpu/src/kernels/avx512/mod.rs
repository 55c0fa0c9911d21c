//! Kernels for AVX-512 with VNNI, VBMI and GFNI.
//!
//! A format says once how 256 elements unpack into registers ([`unpack::Unpack`]); from that come both
//! its dot product with one row ([`terms`]) and its batched product ([`batch`]). IQ2_XXS and Q2_K, which
//! most of a 2-bit model consists of, have dot products of their own that never put the elements in
//! order ([`iq2_xxs`], [`q2_k`]).
//!
//! Every function here has the features of [`Avx512`](super::isa::Avx512) enabled and is only reachable
//! through a table that is built from that token.

pub(super) mod batch;
pub(super) mod codebook;
pub(super) mod float;
pub(super) mod integer32;
pub(super) mod iq2_xxs;
pub(super) mod k_quants;
pub(super) mod q2_k;
pub(super) mod quantize;
pub(super) mod terms;
pub(super) mod transpose;
pub(super) mod unpack;
