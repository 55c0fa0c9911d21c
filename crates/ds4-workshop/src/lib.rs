//! What is measured on a model, and what is collected from it.
//!
//! - [`score`] compares the logits of a text with the text (negative log-likelihood, perplexity), and with
//!   another model's (Kullback-Leibler divergence, agreement on the likeliest token).
//! - [`imatrix`] collects how strongly each column of each weight is used, for the quantiser.
//! - [`mod@bench`] measures speed over the depth of the context and compares two measurements.
//! - [`load`] measures an engine that serves many requests, [`soak`] looks for what goes wrong in the long run.
//! - [`plot`] draws the result as SVG.
//!
//! ```
//! use ds4_workshop::statistics::Moments;
//!
//! let moments: Moments = [1.0, 2.0, 3.0].into_iter().collect();
//! assert_eq!(moments.mean(), 2.0);
//! ```
//!
//! The crate sees token ids only, prints nothing, and writes no file by itself.

#![forbid(unsafe_code)]

pub mod bench;
pub mod drafts;
mod error;
pub mod imatrix;
pub mod load;
pub mod plot;
mod probe;
mod random;
pub mod score;
pub mod soak;
pub mod statistics;
mod windows;

pub use error::WorkshopError;
pub use windows::{Window, WindowSizes, windows};

use std::sync::atomic::AtomicBool;

/// How a caller follows and stops long work.
pub struct Control<'a> {
    /// Set from anywhere to stop after the current step.
    pub cancel: &'a AtomicBool,
    /// Called with the tokens done and the tokens in all.
    pub progress: &'a mut dyn FnMut(usize, usize),
}
