//! Saving off the decode path.

use std::collections::VecDeque;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use crate::checkpoint::{CheckpointData, SegmentSource};
use crate::error::SaveError;
use crate::saving::Saved;
use crate::store::{SavePlan, Store};

/// A checkpoint to save in the background.
pub struct WriteJob {
    /// Which conversation it is of: a newer job replaces the unstarted one of the same.
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
pub struct BackgroundWriter {
    queue: Arc<Queue>,
    thread: Option<JoinHandle<()>>,
}

struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
    capacity: usize,
}

struct QueueState {
    waiting: VecDeque<WriteJob>,
    /// The thread is saving.
    busy: bool,
    stopping: bool,
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, QueueState>) -> MutexGuard<'a, QueueState> {
        self.changed
            .wait(state)
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl BackgroundWriter {
    /// Starts the thread. At most `capacity` jobs wait, at least one; `report` is called on
    /// the thread at the end of each job that was started.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        store: Store,
        capacity: usize,
        report: impl FnMut(WriteReport) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Arc::new(Queue {
            state: Mutex::new(QueueState {
                waiting: VecDeque::new(),
                busy: false,
                stopping: false,
            }),
            changed: Condvar::new(),
            capacity: capacity.max(1),
        });
        let shared = queue.clone();
        let thread = thread::Builder::new()
            .name("ds4-kvstore".to_owned())
            .spawn(move || work(&store, &shared, report))?;
        Ok(Self {
            queue,
            thread: Some(thread),
        })
    }

    /// Queues a job; never waits for the disk.
    pub fn submit(&self, job: WriteJob) -> Submitted {
        let mut state = self.queue.state();
        if state.stopping {
            return Submitted::Dropped;
        }
        let older = state
            .waiting
            .iter()
            .position(|other| other.conversation == job.conversation);
        // What is dropped gives its pins back: not under this lock.
        let (submitted, dropped) = match older {
            Some(at) => {
                let older = state.waiting.remove(at);
                state.waiting.push_back(job);
                (Submitted::Replaced, older)
            }
            None if state.waiting.len() < self.queue.capacity => {
                state.waiting.push_back(job);
                (Submitted::Queued, None)
            }
            None => (Submitted::Dropped, Some(job)),
        };
        drop(state);
        self.queue.changed.notify_all();
        drop(dropped);
        submitted
    }

    /// Waits until everything submitted before is written or failed.
    pub fn flush(&self) {
        let mut state = self.queue.state();
        while state.busy || !state.waiting.is_empty() {
            state = self.queue.wait(state);
        }
    }
}

impl Drop for BackgroundWriter {
    fn drop(&mut self) {
        self.queue.state().stopping = true;
        self.queue.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            // It catches panics of the jobs; there is nothing else to tell.
            let _ = thread.join();
        }
    }
}

fn work(store: &Store, queue: &Queue, mut report: impl FnMut(WriteReport)) {
    loop {
        let job = {
            let mut state = queue.state();
            loop {
                if let Some(job) = state.waiting.pop_front() {
                    state.busy = true;
                    break job;
                }
                if state.stopping {
                    return;
                }
                state = queue.wait(state);
            }
        };
        let conversation = job.conversation;
        // A source that panics must not take the thread with it.
        let saved = panic::catch_unwind(AssertUnwindSafe(move || {
            let WriteJob {
                plan,
                data,
                mut source,
                ..
            } = job;
            store.save(&plan, &data, &mut *source)
        }));
        let result = saved.unwrap_or(Err(SaveError::Panicked));
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            report(WriteReport {
                conversation,
                result,
            });
        }));
        queue.state().busy = false;
        queue.changed.notify_all();
    }
}
