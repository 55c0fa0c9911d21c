//! Computes the masks of grammars on a thread of its own while the model runs.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use crate::constraint::{TokenConstraint, TokenMask};
use crate::event::GenerationError;
use crate::scheduler::panic_message;
use crate::service::RequestId;

/// A grammar at its place, and the mask to be filled.
pub(crate) struct MaskTask {
    pub(crate) job: RequestId,
    automaton: Box<dyn TokenConstraint>,
    mask: TokenMask,
    result: Result<(), GenerationError>,
}

impl MaskTask {
    pub(crate) fn new(
        job: RequestId,
        automaton: Box<dyn TokenConstraint>,
        mask: TokenMask,
    ) -> Self {
        Self {
            job,
            automaton,
            mask,
            result: Ok(()),
        }
    }

    fn run(&mut self) {
        let (automaton, mask) = (&mut self.automaton, &mut self.mask);
        let result = catch_unwind(AssertUnwindSafe(|| automaton.mask(mask)));
        self.result = match result {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(GenerationError::Constraint(error.to_string())),
            Err(panic) => Err(GenerationError::Internal(panic_message(&*panic))),
        };
    }

    pub(crate) fn finish(self) -> Result<(Box<dyn TokenConstraint>, TokenMask), GenerationError> {
        self.result.map(|()| (self.automaton, self.mask))
    }
}

/// The thread and the way there and back.
pub(crate) struct MaskThread {
    tasks: Option<Sender<MaskTask>>,
    done: Receiver<MaskTask>,
    pending: usize,
    thread: Option<JoinHandle<()>>,
}

impl MaskThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (tasks, inbox) = channel::<MaskTask>();
        let (outbox, done) = channel();
        let thread = thread::Builder::new()
            .name("ds4-masks".to_owned())
            .spawn(move || {
                for mut task in inbox {
                    task.run();
                    if outbox.send(task).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            tasks: Some(tasks),
            done,
            pending: 0,
            thread: Some(thread),
        })
    }

    /// Hands a task over.
    pub(crate) fn submit(&mut self, task: MaskTask) {
        let sent = self.tasks.as_ref().map(|tasks| tasks.send(task));
        self.pending += usize::from(matches!(sent, Some(Ok(()))));
    }

    /// Waits for the next of the tasks handed over; `None` when all are back.
    pub(crate) fn take(&mut self) -> Option<MaskTask> {
        self.pending = self.pending.checked_sub(1)?;
        self.done.recv().ok()
    }
}

impl Drop for MaskThread {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // It catches what grammars do, so there is no panic to pass on.
            let _ = thread.join();
        }
    }
}
