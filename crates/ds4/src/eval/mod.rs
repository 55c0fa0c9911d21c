//! Asking a model questions with known answers.

mod nano;
mod official;
mod progress;
mod report;
mod runner;
mod schedule;

pub(crate) use nano::nano_cases;
pub(crate) use official::{
    OfficialCase, read_cases as read_official_cases, score_cases as score_official_cases,
};
pub(crate) use report::Report;
pub(crate) use runner::Runner;
