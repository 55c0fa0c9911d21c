//! Requests whose events are collected with the time at which they came.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use ds4_engine::{
    Closed, EngineHandle, FinishReason, GenerationError, GenerationEvent, GenerationRequest,
    GenerationSink, InferenceService, SubmitError,
};
use ds4_model::TokenId;

/// What became of a request.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    Token(TokenId),
    Finished(FinishReason),
    Failed(GenerationError),
}

/// News of one of the requests.
#[derive(Debug)]
pub(crate) struct News {
    /// Its number.
    pub(crate) request: usize,
    pub(crate) at: Instant,
    pub(crate) outcome: Outcome,
}

/// Where the news of all requests come together.
pub(crate) struct Probe {
    sender: Sender<News>,
    receiver: Receiver<News>,
}

impl Probe {
    pub(crate) fn new() -> Self {
        let (sender, receiver) = channel();
        Self { sender, receiver }
    }

    /// Submits a request under a number; the flag, once set, closes its sink.
    pub(crate) fn submit(
        &self,
        handle: &EngineHandle,
        request: usize,
        what: GenerationRequest,
    ) -> Result<Arc<AtomicBool>, SubmitError> {
        let closed = Arc::new(AtomicBool::new(false));
        let sink = Sink {
            request,
            sender: self.sender.clone(),
            closed: Arc::clone(&closed),
        };
        handle.submit(what, Box::new(sink))?;
        Ok(closed)
    }

    /// The next news, if some come in time.
    pub(crate) fn next(&self, timeout: Duration) -> Option<News> {
        // The probe holds a sender itself, so nothing but time can run out.
        self.receiver.recv_timeout(timeout).ok()
    }
}

struct Sink {
    request: usize,
    sender: Sender<News>,
    closed: Arc<AtomicBool>,
}

impl GenerationSink for Sink {
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed> {
        let outcome = match event {
            GenerationEvent::Queued { .. } | GenerationEvent::Prefill { .. } => return Ok(()),
            GenerationEvent::Token { id, .. } => Outcome::Token(id),
            GenerationEvent::Finished { reason, .. } => Outcome::Finished(reason),
            GenerationEvent::Failed(error) => Outcome::Failed(error),
        };
        let news = News {
            request: self.request,
            at: Instant::now(),
            outcome,
        };
        self.sender.send(news).map_err(|_| Closed)
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }
}
