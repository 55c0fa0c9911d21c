//! Development only: golden data, the suite that every backend must pass, a backend built like a
//! device, and small models to run them on.
//!
//! - [`golden`] reads the numbers of independent implementations that lie in `data/`;
//!   [`GoldenModel`] names the two models they belong to.
//! - [`Trace`] is what a backend computes for a sequence; [`conformance`] compares traces with the
//!   goldens, generic over the backend. [`stages`] does so for single stages.
//! - [`DeviceBackend`] has opaque memory, records a step once and replays it.
//! - [`SmallModel`] writes GGUF files of any shape with random weights.
//!
//! ```
//! use ds4_cpu::reference::ReferenceBackend;
//! use ds4_testkit::{GoldenModel, Run, Trace, conformance};
//!
//! let trace = Trace::record(ReferenceBackend, GoldenModel::FlashTiny, 5, &Run::default())?;
//! let error = conformance::logits(&trace)?;
//! assert!(error.max_abs < 1e-3 && error.argmax_differs == 0, "{error}");
//! # Ok::<(), anyhow::Error>(())
//! ```
//!
//! Nothing here is part of the product, and no golden number was computed by it.

#![forbid(unsafe_code)]

pub mod conformance;
pub mod device;
pub mod golden;
mod golden_model;
pub mod scripted;
pub mod sequence_state;
pub mod stages;
pub mod suite;
mod trace;

pub use device::DeviceBackend;
pub use ds4_synthetic as synthetic;
pub use ds4_synthetic::SyntheticModel as SmallModel;
pub use golden::Golden;
pub use golden_model::GoldenModel;
pub use trace::{LayerTrace, Run, Session, Trace};
