//! What formats of weights and KV cache cost in quality.

mod chart;
mod drafts;
mod measurement;
mod report;

pub(crate) use chart::{Bar, BarChart, BarPanel};
pub(crate) use drafts::DraftComparison;
pub(crate) use measurement::{Measurement, TextScore};
pub(crate) use report::QualityReport;
