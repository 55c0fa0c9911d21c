//! Asking a model questions with known answers.

mod nano;
mod official;
mod progress;
mod report;
mod runner;
mod schedule;
mod selection;
mod teacher_forcing;

pub(crate) use official::{
    OfficialCase, read_cases as read_official_cases, score_cases as score_official_cases,
};
pub(crate) use report::Report;
pub(crate) use runner::{Judged, Results, Runner};
pub(crate) use selection::{SelectionArguments, read_cases};
