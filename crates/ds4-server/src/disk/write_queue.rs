//! A thread that writes, so that requests never wait for the disk.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Most things that wait to be written, and most bytes of them: a disk that is slower loses the
/// oldest.
const MAX_WAITING: usize = 4096;
const MAX_WAITING_BYTES: usize = 64 << 20;

/// How writing goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct WriteStatus {
    /// Things on disk that this process wrote.
    pub(crate) written: u64,
    /// Things that were not written.
    pub(crate) lost: u64,
    /// Why not, the last time.
    pub(crate) last_failure: Option<String>,
}

/// What became of things that were to be written.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) written: u64,
    pub(crate) lost: u64,
    /// Why some were lost.
    pub(crate) failure: Option<io::Error>,
}

/// Where things are written to.
pub(crate) trait Sink: Send + 'static {
    type Item: Send + 'static;
    /// Name of the thread.
    const THREAD: &'static str;

    /// Bytes that a thing takes while it waits, about.
    fn bytes_of(item: &Self::Item) -> usize;

    /// Writes things, oldest first.
    fn write(&mut self, items: VecDeque<Self::Item>) -> Outcome;
}

/// Writes things on a thread of its own. Dropping it writes what waits.
#[derive(Debug)]
pub(crate) struct WriteQueue<S: Sink> {
    shared: Arc<Shared<S::Item>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    waiting: VecDeque<T>,
    waiting_bytes: usize,
    writing: bool,
    /// Times that writing has ended.
    turns: u64,
    stopping: bool,
    status: WriteStatus,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing that could panic leaves it half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Sink> WriteQueue<S> {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has none left.
    pub(crate) fn start(sink: S) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                writing: false,
                turns: 0,
                stopping: false,
                status: WriteStatus::default(),
            }),
            changed: Condvar::new(),
        });
        let thread = thread::Builder::new().name(S::THREAD.to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || work(&shared, sink)
        })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Has something written; never waits for the disk.
    pub(crate) fn keep(&self, item: S::Item) {
        let mut state = self.shared.state();
        state.waiting_bytes += S::bytes_of(&item);
        state.waiting.push_back(item);
        while state.waiting.len() > MAX_WAITING || state.waiting_bytes > MAX_WAITING_BYTES {
            let Some(oldest) = state.waiting.pop_front() else {
                break;
            };
            state.waiting_bytes -= S::bytes_of(&oldest);
            state.status.lost += 1;
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Notes that something cannot be written.
    pub(crate) fn lose(&self) {
        self.shared.state().status.lost += 1;
    }

    /// Takes back what waits and is so. Afterwards it is not being written either: waits for the disk
    /// if it has to.
    pub(crate) fn withdraw(&self, is_so: impl Fn(&S::Item) -> bool) {
        let mut state = self.shared.state();
        let mut bytes = 0;
        state.waiting.retain(|item| {
            let stays = !is_so(item);
            bytes += if stays { 0 } else { S::bytes_of(item) };
            stays
        });
        state.waiting_bytes -= bytes;
        // Others may follow at once; they are not waited for.
        let turn = state.turns;
        while state.writing && state.turns == turn {
            let waited = self.shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until everything is on disk; false if that takes longer than `patience`.
    pub(crate) fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.shared.state();
        while state.writing || !state.waiting.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// How writing goes.
    pub(crate) fn status(&self) -> WriteStatus {
        self.shared.state().status.clone()
    }
}

impl<S: Sink> Drop for WriteQueue<S> {
    fn drop(&mut self) {
        self.shared.state().stopping = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn work<S: Sink>(shared: &Shared<S::Item>, mut sink: S) {
    let mut state = shared.state();
    loop {
        if state.waiting.is_empty() {
            if state.stopping {
                return;
            }
            let waited = shared.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        let batch = std::mem::take(&mut state.waiting);
        state.waiting_bytes = 0;
        state.writing = true;
        drop(state);
        let outcome = sink.write(batch);
        state = shared.state();
        state.writing = false;
        state.turns += 1;
        state.status.written += outcome.written;
        state.status.lost += outcome.lost;
        if let Some(failure) = outcome.failure {
            state.status.last_failure = Some(failure.to_string());
        }
        shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Tells what it begins to write, and waits to be let go on.
    struct Slow {
        begun: Sender<Vec<u32>>,
        go_on: Receiver<()>,
    }

    impl Sink for Slow {
        type Item = u32;
        const THREAD: &'static str = "slow";

        fn bytes_of(_item: &u32) -> usize {
            MAX_WAITING_BYTES / 4
        }

        fn write(&mut self, items: VecDeque<u32>) -> Outcome {
            let written = items.len() as u64;
            self.begun.send(items.into()).unwrap();
            self.go_on.recv().unwrap();
            Outcome {
                written,
                ..Outcome::default()
            }
        }
    }

    fn slow() -> (WriteQueue<Slow>, Receiver<Vec<u32>>, Sender<()>) {
        let (begun, begins) = channel();
        let (lets, go_on) = channel();
        (
            WriteQueue::start(Slow { begun, go_on }).unwrap(),
            begins,
            lets,
        )
    }

    #[test]
    fn a_slow_disk_loses_the_oldest_and_holds_nobody_up() {
        let (queue, begun, go_on) = slow();
        queue.keep(0);
        assert_eq!(begun.recv().unwrap(), [0]);
        for n in 1..=6 {
            queue.keep(n);
        }
        assert!(!queue.flush(Duration::from_millis(10)));
        go_on.send(()).unwrap();
        assert_eq!(begun.recv().unwrap(), [3, 4, 5, 6]);
        go_on.send(()).unwrap();
        assert!(queue.flush(Duration::from_secs(30)));
        let status = queue.status();
        assert_eq!((status.written, status.lost), (5, 2));
    }

    #[test]
    fn what_is_withdrawn_is_not_written_afterwards() {
        let (queue, begun, go_on) = slow();
        queue.keep(0);
        assert_eq!(begun.recv().unwrap(), [0]);
        for n in 1..=3 {
            queue.keep(n);
        }
        thread::scope(|scope| {
            let withdrawn = scope.spawn(|| queue.withdraw(|&n| n == 2));
            // It waits for what is being written, but not for what follows.
            thread::sleep(Duration::from_millis(20));
            assert!(!withdrawn.is_finished());
            go_on.send(()).unwrap();
            withdrawn.join().unwrap();
        });
        assert_eq!(begun.recv().unwrap(), [1, 3]);
        go_on.send(()).unwrap();
        // What waits is written at the end.
        queue.keep(4);
        go_on.send(()).unwrap();
        drop(queue);
        assert_eq!(begun.recv().unwrap(), [4]);
    }
}
