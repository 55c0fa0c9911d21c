//! The engine on a thread of its own, and the handle by which faces reach it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ds4_model::TokenId;

use crate::disk_cache::{CheckpointStore, DiskCache};
use crate::engine::Engine;
use crate::error::EngineError;
use crate::event::GenerationSink;
use crate::request::GenerationRequest;
use crate::scheduler::job::Job;
use crate::scheduler::{Scheduler, ServiceOptions, panic_message};
use crate::service::{EngineStatus, InferenceService, ModelFacts, RequestId, SubmitError};

/// Most alternatives whose log probability a request can ask for.
const MAX_LOGPROBS: usize = 128;

/// How old the status may get while the engine works.
const STATUS_INTERVAL: Duration = Duration::from_millis(50);

/// What becomes of requests when the engine shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// They are finished, the waiting ones too.
    Finish,
    /// They end at the next step.
    Cancel,
}

/// An engine at work. Dropping the handle cancels what is left.
pub struct EngineHandle {
    shared: Arc<Shared>,
    facts: ModelFacts,
    next_id: AtomicU64,
    /// Gives the engine back unless a defect ended it.
    thread: Mutex<Option<JoinHandle<Option<Engine>>>>,
}

/// What both sides see.
struct Shared {
    inbox: Mutex<Inbox>,
    /// Something was put into the inbox.
    filled: Condvar,
}

#[derive(Default)]
struct Inbox {
    submitted: Vec<Job>,
    cancelled: Vec<RequestId>,
    shutdown: Option<Shutdown>,
    /// Requests in the scheduler's queue.
    waiting: usize,
    refused: u64,
    retry_after: Duration,
    status: EngineStatus,
    /// The thread has ended, and why.
    stopped: Option<String>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inbox> {
        // Nothing that could panic is done under the lock.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    fn is_cancelled(&self, id: RequestId) -> bool {
        self.shutdown == Some(Shutdown::Cancel) || self.cancelled.contains(&id)
    }
}

impl EngineHandle {
    /// Puts `engine` to work.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(engine: Engine, options: ServiceOptions) -> Result<Self, EngineError> {
        Self::start_with(engine, options, None)
    }

    /// Puts `engine` to work, with checkpoints on disk: what requests leave behind is saved in the
    /// background and found again, by this and later engines of the same model and settings.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start_with_store(
        engine: Engine,
        options: ServiceOptions,
        store: CheckpointStore,
    ) -> Result<Self, EngineError> {
        let disk = DiskCache::new(&engine, store)?;
        Self::start_with(engine, options, Some(disk))
    }

    fn start_with(
        engine: Engine,
        options: ServiceOptions,
        disk: Option<DiskCache>,
    ) -> Result<Self, EngineError> {
        let facts = ModelFacts {
            name: engine.shape().name.clone(),
            fingerprint: engine.fingerprint(),
            context: engine.options().context,
            vocabulary: engine.shape().vocabulary,
            kv_format: engine.options().kv_format,
            backend: engine.backend_name(),
        };
        let mut scheduler = Scheduler::new(engine, options, disk)?;
        let shared = Arc::new(Shared {
            inbox: Mutex::new(Inbox {
                status: scheduler.status(),
                ..Inbox::default()
            }),
            filled: Condvar::new(),
        });
        let seen = Arc::clone(&shared);
        scheduler.watch(Box::new(move |id| seen.lock().is_cancelled(id)));
        let seen = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("ds4-engine".to_owned())
            .spawn(move || work(&seen, scheduler))
            .map_err(EngineError::Thread)?;
        Ok(Self {
            shared,
            facts,
            next_id: AtomicU64::new(1),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Takes no more requests, and returns when the engine has ended those it has.
    pub fn shutdown(&self, how: Shutdown) {
        self.end(how);
    }

    /// [`shutdown`](Self::shutdown), and gives the engine back with what it keeps in memory; `None` if
    /// a defect ended it, or [`shutdown`](Self::shutdown) did before.
    pub fn stop(self, how: Shutdown) -> Option<Engine> {
        self.end(how)
    }

    fn end(&self, how: Shutdown) -> Option<Engine> {
        let mut inbox = self.shared.lock();
        // A second call may be in more of a hurry, not in less.
        if inbox.shutdown != Some(Shutdown::Cancel) {
            inbox.shutdown = Some(how);
        }
        drop(inbox);
        self.shared.filled.notify_one();
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        // It catches its own panics.
        thread.take()?.join().ok().flatten()
    }

    fn check(&self, request: &GenerationRequest) -> Result<(), SubmitError> {
        let (tokens, context) = (request.tokens.len(), self.facts.context);
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        // At least one token must fit behind the prompt.
        if tokens + request.max_tokens.min(1) > context {
            return Err(SubmitError::TooLong { tokens, context });
        }
        let setting = |name, found, limit| {
            if found <= limit {
                return Ok(());
            }
            Err(SubmitError::Setting {
                name,
                found,
                expected: format!("at most {limit}"),
            })
        };
        setting(
            "the number of log probabilities",
            request.logprobs.unwrap_or(0),
            MAX_LOGPROBS,
        )?;
        if let Some(budget) = &request.reasoning {
            setting(
                "the number of tokens that close the reasoning",
                budget.closing.len(),
                context,
            )?;
            if !budget.closing.contains(&budget.end) {
                return Err(SubmitError::Setting {
                    name: "the token that ends the reasoning",
                    found: budget.end as usize,
                    expected: "one of those that close it".to_owned(),
                });
            }
        }
        let vocabulary = self.facts.vocabulary;
        let closing = request.reasoning.iter().flat_map(|budget| &budget.closing);
        let starts_after = request.constraint.iter().flat_map(|c| &c.starts_after);
        let mut ids = request.tokens.iter().chain(closing).chain(starts_after);
        let unknown = |id: &&TokenId| **id as usize >= vocabulary;
        match ids
            .find(unknown)
            .or(request.stop_tokens.iter().find(unknown))
        {
            None => Ok(()),
            Some(&token) => Err(SubmitError::UnknownToken { token, vocabulary }),
        }
    }
}

impl InferenceService for EngineHandle {
    fn submit(
        &self,
        request: GenerationRequest,
        sink: Box<dyn GenerationSink>,
    ) -> Result<RequestId, SubmitError> {
        self.check(&request)?;
        let id = RequestId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let job = Job::new(id, request, sink)?;
        let mut inbox = self.shared.lock();
        if let Some(reason) = &inbox.stopped {
            return Err(SubmitError::Stopped(reason.clone()));
        }
        if inbox.shutdown.is_some() {
            return Err(SubmitError::ShuttingDown);
        }
        let queued = inbox.waiting + inbox.submitted.len();
        if queued >= inbox.status.queue_capacity {
            inbox.refused += 1;
            return Err(SubmitError::QueueFull {
                queued,
                retry_after: inbox.retry_after,
            });
        }
        inbox.submitted.push(job);
        drop(inbox);
        self.shared.filled.notify_one();
        Ok(id)
    }

    fn cancel(&self, request: RequestId) {
        let mut inbox = self.shared.lock();
        if inbox.stopped.is_some() {
            return;
        }
        inbox.cancelled.push(request);
        drop(inbox);
        self.shared.filled.notify_one();
    }

    fn status(&self) -> EngineStatus {
        let inbox = self.shared.lock();
        let mut status = inbox.status.clone();
        status.queued += inbox.submitted.len();
        status.totals.refused = inbox.refused;
        status
    }

    fn model(&self) -> &ModelFacts {
        &self.facts
    }
}

impl Drop for EngineHandle {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}

/// The engine's thread.
fn work(shared: &Shared, mut scheduler: Scheduler) -> Option<Engine> {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut published = Instant::now();
        while take_inbox(shared, &mut scheduler) {
            scheduler.step();
            let is_due = published.elapsed() >= STATUS_INTERVAL || !scheduler.has_work();
            let status = is_due.then(|| scheduler.status());
            let mut inbox = shared.lock();
            inbox.waiting = scheduler.waiting();
            inbox.retry_after = scheduler.retry_after();
            if let Some(status) = status {
                inbox.status = status;
                published = Instant::now();
            }
        }
    }));
    let reason = match &result {
        Ok(()) => "it was shut down".to_owned(),
        Err(panic) => panic_message(&**panic),
    };
    let mut inbox = shared.lock();
    inbox.stopped = Some(reason.clone());
    inbox.status = EngineStatus {
        running: Vec::new(),
        queued: 0,
        ..std::mem::take(&mut inbox.status)
    };
    let late = std::mem::take(&mut inbox.submitted);
    drop(inbox);
    late.into_iter().for_each(|job| scheduler.submit(job));
    scheduler.fail_all(&reason);
    // What is left is on its way to disk: that ends here, before anyone is told that all is done.
    let engine = scheduler.into_engine();
    result.ok().map(|()| engine)
}

/// Waits until there is work and takes what was put in; `false` when the engine is to end.
fn take_inbox(shared: &Shared, scheduler: &mut Scheduler) -> bool {
    let mut inbox = shared.lock();
    while !scheduler.has_work()
        && inbox.submitted.is_empty()
        && inbox.cancelled.is_empty()
        && inbox.shutdown.is_none()
    {
        let woken = shared.filled.wait(inbox);
        inbox = woken.unwrap_or_else(PoisonError::into_inner);
    }
    for job in inbox.submitted.drain(..) {
        scheduler.submit(job);
    }
    inbox.waiting = scheduler.waiting();
    for id in inbox.cancelled.drain(..) {
        scheduler.cancel(id);
    }
    if inbox.shutdown == Some(Shutdown::Cancel) {
        scheduler.cancel_all();
    }
    if inbox.shutdown.is_some() && !scheduler.has_requests() {
        scheduler.finish_saving();
    }
    inbox.shutdown.is_none() || scheduler.has_work()
}
