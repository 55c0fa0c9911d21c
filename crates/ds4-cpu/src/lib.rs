//! CPU backend: thread team, SIMD kernels, and the scalar reference of every stage.
//!
//! - [`backend::CpuBackend`] is the fast backend: weights stay where the file is mapped, stages run on a
//!   pinned [`team::Team`], matrix products through [`kernels::Kernels`].
//! - [`reference::ReferenceBackend`] is the obvious implementation that it is compared with.
//! - [`bandwidth::measure_memory_bandwidth`] tells what decoding can reach at best.
//!
//! ```
//! use ds4_cpu::backend::CpuBackend;
//! use ds4_cpu::kernels::Precision;
//! use ds4_cpu::team::default_thread_count;
//!
//! let backend = CpuBackend::new(default_thread_count(), Precision::Fast)?;
//! println!("computing with {}", backend.kernels().isa());
//! # Ok::<(), ds4_cpu::team::TeamError>(())
//! ```
//!
//! The crate knows stages, never layers or their order: that is `ds4-model`'s forward pass. It opens no
//! files and prints nothing.

pub mod backend;
pub mod bandwidth;
pub mod kernels;
pub mod reference;
pub mod team;
