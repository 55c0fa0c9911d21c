//! Counters and histograms of the server; those of the engine are the engine's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Upper ends of the buckets, in seconds, for waits of people.
const WAITS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0,
];
/// Upper ends of the buckets, in seconds, for the time of a token.
const TOKENS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0,
];

/// What a request is counted under. The values are few, whatever clients send.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestKey {
    /// The route's pattern; `other` where there is none.
    pub(crate) route: String,
    pub(crate) method: &'static str,
    pub(crate) status: u16,
}

/// Figures of the server since its start.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) started: SystemTime,
    requests: Mutex<BTreeMap<RequestKey, u64>>,
    /// Requests that are being answered.
    pub(crate) in_flight: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    /// Traces that could not be written.
    pub(crate) trace_errors: AtomicU64,
    /// From the request's arrival to its first token.
    pub(crate) first_token: Histogram,
    /// Between two tokens of an answer.
    pub(crate) inter_token: Histogram,
    /// In the engine's queue.
    pub(crate) queue: Histogram,
    /// From the request's arrival to the end of its answer; generating requests only.
    pub(crate) generation: Histogram,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        Self {
            started: SystemTime::now(),
            requests: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            trace_errors: AtomicU64::new(0),
            first_token: Histogram::new(WAITS),
            inter_token: Histogram::new(TOKENS),
            queue: Histogram::new(WAITS),
            generation: Histogram::new(WAITS),
        }
    }

    /// Counts a request that was answered.
    pub(crate) fn answered(&self, key: RequestKey) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry(key).or_insert(0) += 1;
    }

    /// The requests by route, method and status.
    pub(crate) fn requests(&self) -> Vec<(RequestKey, u64)> {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests
            .iter()
            .map(|(key, count)| (key.clone(), *count))
            .collect()
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn connection(self: &Arc<Self>) -> ConnectionGuard {
        self.connections.fetch_add(1, Ordering::Relaxed);
        ConnectionGuard(Arc::clone(self))
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(crate) struct ConnectionGuard(Arc<Metrics>);

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Durations by size.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [f64],
    /// One for each bound, and one for what is beyond.
    counts: Vec<AtomicU64>,
    microseconds: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HistogramState {
    /// Upper ends with the number of values up to them.
    pub(crate) buckets: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            microseconds: AtomicU64::new(0),
        }
    }

    pub(crate) fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = self.bounds.partition_point(|bound| *bound < seconds);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    pub(crate) fn state(&self) -> HistogramState {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(self.bounds.len());
        for (index, counted) in self.counts.iter().enumerate() {
            count += counted.load(Ordering::Relaxed);
            if let Some(bound) = self.bounds.get(index) {
                buckets.push((*bound, count));
            }
        }
        HistogramState {
            buckets,
            count,
            sum: self.microseconds.load(Ordering::Relaxed) as f64 / 1e6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_in_every_bucket_that_it_fits() {
        let histogram = Histogram::new(&[0.1, 1.0, 10.0]);
        for milliseconds in [50, 100, 101, 5000, 60_000] {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let state = histogram.state();
        assert_eq!(state.buckets, [(0.1, 2), (1.0, 3), (10.0, 4)]);
        assert_eq!(state.count, 5);
        assert!((state.sum - 65.251).abs() < 1e-9);
    }
}
