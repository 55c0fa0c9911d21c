//! Kernels for AArch64 with the byte dot product (`sdot`).
//!
//! As on x86-64, a format says once how 256 elements unpack ([`unpack::Unpack`]). Float kernels and row
//! operations are the portable ones: the compiler vectorises them, since NEON is always there.
//!
//! Every function here has the features of [`Neon`](super::isa::Neon) enabled and is only reachable
//! through a table that is built from that token.

pub(super) mod float;
pub(super) mod formats;
pub(super) mod terms;
pub(super) mod unpack;
