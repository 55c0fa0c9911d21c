//! CPU backend: thread team, SIMD kernels, and the scalar reference of every stage.

pub mod backend;
pub mod bandwidth;
pub mod kernels;
pub mod reference;
pub mod team;
