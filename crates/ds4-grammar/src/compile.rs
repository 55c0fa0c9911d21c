//! Grammars are compiled on threads of their own: with a stack of known size, within a time, and few
//! at once.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::GrammarError;

/// Stack of a compiling thread; only what is used becomes memory.
const STACK: usize = 64 << 20;

/// How many compile at the same time.
#[derive(Debug)]
pub(crate) struct Gate {
    free: Mutex<usize>,
    released: Condvar,
}

/// A place in the gate, given back when dropped.
struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        let mut free = self.0.free.lock().unwrap_or_else(PoisonError::into_inner);
        *free += 1;
        self.0.released.notify_one();
    }
}

impl Gate {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            free: Mutex::new(places.max(1)),
            released: Condvar::new(),
        })
    }

    fn enter(self: &Arc<Self>, deadline: Instant) -> Result<Pass, GrammarError> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(GrammarError::Busy);
            }
            free = self
                .released
                .wait_timeout(free, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *free -= 1;
        Ok(Pass(self.clone()))
    }

    /// Runs `work` on a thread of its own. If it takes longer than `limit`, its result is dropped and
    /// it keeps its place in the gate until it ends.
    pub(crate) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        work: impl FnOnce() -> Result<T, GrammarError> + Send + 'static,
    ) -> Result<T, GrammarError> {
        let pass = self.enter(Instant::now() + limit)?;
        let (sender, receiver) = sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("ds4-grammar".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                let result = work();
                // Free before the answer is seen, so that the next compiles at once.
                drop(pass);
                // Nobody waits any more after the limit.
                let _ = sender.send(result);
            });
        if thread.is_err() {
            return Err(GrammarError::Busy);
        }
        match receiver.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(GrammarError::Timeout { limit }),
            Err(RecvTimeoutError::Disconnected) => Err(GrammarError::TooComplex {
                place: "the format".to_owned(),
                reason: "preparing it failed".to_owned(),
            }),
        }
    }
}
