//! Reads checkpoints on a thread of its own.

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::{self, JoinHandle};

use ds4_kvstore::{Hit, LoadError, Loaded, Store};

/// What was read, or why not.
pub(super) struct Read {
    /// The number under which it was asked for.
    pub(super) number: u64,
    pub(super) hit: Hit,
    pub(super) result: Result<Loaded, LoadError>,
}

struct Task {
    number: u64,
    hit: Hit,
    first_span: usize,
}

/// The thread and the way there and back.
pub(super) struct Loader {
    tasks: Option<Sender<Task>>,
    done: Receiver<Read>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system gives none.
    pub(super) fn start(store: Store) -> io::Result<Self> {
        let (tasks, task) = channel::<Task>();
        let (sender, done) = channel();
        let work = move || {
            while let Ok(Task {
                number,
                hit,
                first_span,
            }) = task.recv()
            {
                let result = store.load(&hit, first_span);
                let read = Read {
                    number,
                    hit,
                    result,
                };
                if sender.send(read).is_err() {
                    return;
                }
            }
        };
        let thread = thread::Builder::new()
            .name("ds4-checkpoints".to_owned())
            .spawn(work)?;
        Ok(Self {
            tasks: Some(tasks),
            done,
            thread: Some(thread),
        })
    }

    /// Has the segments from `first_span` on and the rest of a checkpoint read.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) fn load(&self, number: u64, hit: Hit, first_span: usize) -> Result<(), String> {
        let task = Task {
            number,
            hit,
            first_span,
        };
        let tasks = self.tasks.as_ref();
        let sent = tasks.is_some_and(|tasks| tasks.send(task).is_ok());
        sent.then_some(()).ok_or_else(stopped)
    }

    /// The next checkpoint that was read, if one is ready.
    ///
    /// # Errors
    /// The thread has ended.
    pub(super) fn take(&self) -> Result<Option<Read>, String> {
        match self.done.try_recv() {
            Ok(read) => Ok(Some(read)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(stopped()),
        }
    }
}

fn stopped() -> String {
    "the thread that reads checkpoints has stopped".to_owned()
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.tasks = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has cost a checkpoint, nothing else.
            let _ = thread.join();
        }
    }
}
