//! What operators see: a line for each request, figures for Prometheus, traces on demand.

mod exposition;
mod metrics;
mod record;
mod report;
mod timestamp;
mod trace;

pub(crate) use exposition::exposition;
pub(crate) use metrics::Metrics;
pub(crate) use record::{CLIENT_LEFT, RequestRecord};
pub use report::{RequestLog, RequestReport};
pub(crate) use trace::Trace;
