//! Asking a model questions with known answers.

mod nano;
mod progress;
mod report;
mod runner;
mod schedule;

pub(crate) use nano::nano_cases;
pub(crate) use report::Report;
pub(crate) use runner::Runner;
