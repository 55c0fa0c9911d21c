//! Brings the missing bytes of a file to disk: several connections, and one thread that hashes what is whole
//! from the start on.
//!
//! A worker takes a piece, writes what arrives, and after each piece syncs the file and notes the range in the
//! state. It ends when nothing is left, or when it is told to stop. A worker that hangs in a read cannot be told:
//! it is left behind, and the [`Gate`] keeps it from touching the file if it ever wakes.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::backoff::{Backoff, Next};
use crate::client::{Client, Failure, Remote};
use crate::digest::{BLOCK, Sha256Hash};
use crate::download::Progress;
use crate::error::{DownloadError, io};
use crate::part_file::{PartFile, is_full};
use crate::ranges::take_piece;
use crate::settings::Settings;
use crate::state::State;

/// Bytes read and written at a time.
const BUFFER: usize = 1 << 18;

/// So many bytes without a failure count as progress: earlier failures are forgiven.
const PROGRESS_BYTES: u64 = 1 << 16;

/// How often progress is told, and how soon a stop is noticed.
const TICK: Duration = Duration::from_millis(100);

/// How long workers have to put away what they hold when they are told to stop.
const FAREWELL: Duration = Duration::from_secs(2);

/// What is needed for a transfer, and comes back from it.
pub(crate) struct Transfer {
    pub(crate) client: Arc<Client>,
    pub(crate) remote: Remote,
    pub(crate) part: Arc<PartFile>,
    pub(crate) state: State,
}

/// How a transfer ended.
pub(crate) enum Outcome {
    /// Everything is on disk, with this hash.
    Complete(Sha256Hash),
    /// The file on the server is another one now.
    Changed,
    Failed(DownloadError),
}

enum Event {
    Retrying { reason: String, wait: Duration },
    WorkerEnded(End),
    Hashed(Result<Sha256Hash, DownloadError>),
}

/// How a worker ended.
enum End {
    Done,
    Stopped,
    Changed,
    Failed(DownloadError),
}

/// Whether workers may still write.
type Gate = RwLock<bool>;

/// What the threads share.
struct Shared {
    client: Arc<Client>,
    remote: Mutex<Current>,
    part: Arc<PartFile>,
    /// Taken out when the transfer ends.
    state: Mutex<Option<State>>,
    gaps: Mutex<VecDeque<Range<u64>>>,
    gate: Gate,
    stop: AtomicBool,
    length: u64,
    piece: u64,
    settings: Settings,
    received: AtomicU64,
    /// Bytes from the start on that are on disk; the hashing thread waits for more.
    prefix: Mutex<u64>,
    prefix_grew: Condvar,
    hashed: AtomicU64,
    events: mpsc::Sender<Event>,
}

/// Where the file is at the moment.
struct Current {
    remote: Remote,
    /// Counts how often it was looked up.
    generation: u64,
}

/// A thread that panicked has told its failure; the data behind its locks stays sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs the transfer. The state comes back unless the transfer's threads took it down with them.
pub(crate) fn run(
    transfer: Transfer,
    settings: &Settings,
    cancel: &AtomicBool,
    progress: &mut dyn FnMut(Progress<'_>),
) -> (Option<State>, Outcome) {
    let length = transfer.remote.length;
    let has_ranges = transfer.remote.has_ranges;
    let finished = transfer.state.finished();
    let (prefix, arrived) = (finished.prefix(), finished.total());
    let gaps = if has_ranges {
        finished.missing(length)
    } else {
        // One answer gives everything from the start on.
        finished
            .missing(length)
            .front()
            .map(|gap| gap.start..length)
            .into_iter()
            .collect()
    };
    let piece = settings.range_bytes.max(1);
    let pieces = (length - arrived).div_ceil(piece);
    let workers = if has_ranges {
        (settings.connections.max(1) as u64).min(pieces)
    } else {
        pieces.min(1)
    };
    let (events, inbox) = mpsc::channel();
    let shared = Arc::new(Shared {
        client: transfer.client,
        remote: Mutex::new(Current {
            remote: transfer.remote,
            generation: 0,
        }),
        part: transfer.part,
        state: Mutex::new(Some(transfer.state)),
        gaps: Mutex::new(gaps),
        gate: RwLock::new(true),
        stop: AtomicBool::new(false),
        length,
        piece: if has_ranges { piece } else { u64::MAX },
        settings: settings.clone(),
        received: AtomicU64::new(arrived),
        prefix: Mutex::new(prefix),
        prefix_grew: Condvar::new(),
        hashed: AtomicU64::new(0),
        events,
    });
    let mut threads = Vec::new();
    let mut refused = None;
    for _ in 0..workers {
        let worker = Arc::clone(&shared);
        let spawned = thread::Builder::new().spawn(move || {
            let end = worker.work();
            let _ = worker.events.send(Event::WorkerEnded(end));
        });
        match spawned {
            Ok(thread) => threads.push(thread),
            Err(error) => refused = Some(error),
        }
    }
    let hasher = Arc::clone(&shared);
    let spawned = thread::Builder::new().spawn(move || {
        if let Some(result) = hasher.hash() {
            let _ = hasher.events.send(Event::Hashed(result));
        }
    });
    let running = threads.len();
    // Fewer workers than wanted will do, but not none.
    let failure = match spawned {
        Ok(thread) => {
            threads.push(thread);
            refused.filter(|_| running == 0)
        }
        Err(error) => Some(error),
    };
    if let Some(error) = failure {
        let error = io(shared.part.path(), "start a thread for")(error);
        let _ = shared.events.send(Event::Hashed(Err(error)));
    }
    let outcome = shared.oversee(running, &inbox, cancel, progress);
    if matches!(outcome, Outcome::Complete(_)) {
        // All have said their last word; after this nobody holds the file.
        for thread in threads {
            let _ = thread.join();
        }
    }
    *shared.gate.write().unwrap_or_else(PoisonError::into_inner) = false;
    let state = lock(&shared.state).take();
    (state, outcome)
}

impl Shared {
    /// Tells progress until everything is done or something ends it.
    fn oversee(
        &self,
        workers: usize,
        inbox: &mpsc::Receiver<Event>,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Outcome {
        let mut running = workers;
        let mut hash = None;
        let mut ending: Option<(Outcome, Instant)> = None;
        loop {
            match inbox.recv_timeout(TICK) {
                Ok(Event::Retrying { reason, wait }) => progress(Progress::Retrying {
                    reason: &reason,
                    wait,
                }),
                Ok(Event::WorkerEnded(end)) => {
                    running -= 1;
                    let outcome = match end {
                        End::Done | End::Stopped => None,
                        End::Changed => Some(Outcome::Changed),
                        End::Failed(error) => Some(Outcome::Failed(error)),
                    };
                    if let Some(outcome) = outcome {
                        ending.get_or_insert((outcome, Instant::now()));
                    }
                }
                Ok(Event::Hashed(Ok(value))) => hash = Some(value),
                Ok(Event::Hashed(Err(error))) => {
                    ending.get_or_insert((Outcome::Failed(error), Instant::now()));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if cancel.load(Ordering::Relaxed) {
                ending.get_or_insert((Outcome::Failed(DownloadError::Cancelled), Instant::now()));
            }
            if let Some((outcome, since)) = ending.take() {
                self.stop.store(true, Ordering::Relaxed);
                self.prefix_grew.notify_all();
                if running == 0 || since.elapsed() > FAREWELL {
                    return outcome;
                }
                ending = Some((outcome, since));
            } else if let (Some(hash), 0) = (hash, running) {
                return Outcome::Complete(hash);
            } else if running == 0 {
                progress(Progress::Verifying {
                    done: self.hashed.load(Ordering::Relaxed),
                    total: self.length,
                });
            } else {
                progress(Progress::Transferring {
                    arrived: self.received.load(Ordering::Relaxed).min(self.length),
                    total: self.length,
                });
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The life of a worker.
    fn work(&self) -> End {
        let mut buffer = vec![0; BUFFER];
        loop {
            let Some(range) = take_piece(&mut lock(&self.gaps), self.piece) else {
                return End::Done;
            };
            match self.fetch(range, &mut buffer) {
                End::Done => {}
                end => return end,
            }
        }
    }

    /// Brings a piece to disk, over as many requests as it takes.
    fn fetch(&self, range: Range<u64>, buffer: &mut [u8]) -> End {
        let mut backoff = Backoff::new(self.settings.retry);
        let mut saved = range.start;
        let mut at = range.start;
        while at < range.end {
            if self.is_stopped() {
                return self
                    .save(saved..at)
                    .map_or_else(End::Failed, |()| End::Stopped);
            }
            let (remote, generation) = {
                let current = lock(&self.remote);
                (current.remote.clone(), current.generation)
            };
            let before = at;
            let failure = match self.attempt(&remote, &mut saved, &mut at, range.end, buffer) {
                Ok(()) => continue,
                Err(failure) => failure,
            };
            if at - before >= PROGRESS_BYTES {
                backoff.reset();
            }
            let (reason, asked, is_stale) = match failure {
                Failure::Passing { reason, wait } => (reason, wait, false),
                Failure::Stale { reason } => (reason, None, true),
                Failure::Lasting(error) => {
                    // What has arrived is good; only the rest is not to be had.
                    let _ = self.save(saved..at);
                    return End::Failed(error);
                }
            };
            // The first look at a place that expired needs no wait.
            if !(is_stale && backoff.failures() == 0) {
                let wait = match next_wait(&mut backoff, asked, &self.client.url(), &reason) {
                    Ok(wait) => wait,
                    Err(error) => {
                        let _ = self.save(saved..at);
                        return End::Failed(error);
                    }
                };
                let _ = self.events.send(Event::Retrying { reason, wait });
                sleep(wait, &self.stop);
            } else {
                let _ = backoff.failed(None);
            }
            if is_stale && !self.is_stopped() {
                match self.look_again(generation) {
                    Ok(true) => {}
                    Ok(false) => return End::Changed,
                    // The next attempt will fail too, and count.
                    Err(Failure::Passing { .. } | Failure::Stale { .. }) => {}
                    Err(Failure::Lasting(error)) => return End::Failed(error),
                }
            }
        }
        self.save(saved..at)
            .map_or_else(End::Failed, |()| End::Done)
    }

    /// One request: writes what arrives, from `at` on.
    fn attempt(
        &self,
        remote: &Remote,
        saved: &mut u64,
        at: &mut u64,
        end: u64,
        buffer: &mut [u8],
    ) -> Result<(), Failure> {
        let mut incoming = self.client.open(remote, &(*at..end))?;
        let begin = *at;
        while *at < incoming.end {
            if self.is_stopped() {
                return Ok(());
            }
            let room = usize::try_from(incoming.end - *at).unwrap_or(usize::MAX);
            let buffer = &mut buffer[..room.min(BUFFER)];
            let count = match incoming.reader.read(buffer) {
                Ok(0) => {
                    return Err(self
                        .client
                        .reading(&std::io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.client.reading(&error)),
            };
            self.write(&buffer[..count], *at)?;
            *at += count as u64;
            self.received.fetch_add(count as u64, Ordering::Relaxed);
            if *at - *saved >= self.settings.range_bytes && *at < end {
                self.save(*saved..*at).map_err(Failure::Lasting)?;
                *saved = *at;
            }
        }
        // Reading to the end also frees the connection for the next request.
        match incoming.reader.read(&mut buffer[..1]) {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => {
                // Whoever cannot count is not believed the bytes either.
                let back = (*saved).max(begin);
                self.received.fetch_sub(*at - back, Ordering::Relaxed);
                *at = back;
                Err(Failure::Passing {
                    reason: "the server sends more than it promised".to_owned(),
                    wait: None,
                })
            }
        }
    }

    fn write(&self, bytes: &[u8], at: u64) -> Result<(), Failure> {
        let open = self.gate.read().unwrap_or_else(PoisonError::into_inner);
        if !*open {
            return Ok(());
        }
        self.part
            .write_at(bytes, at)
            .map_err(|error| Failure::Lasting(self.disk_error(error, "write")))
    }

    fn disk_error(&self, error: std::io::Error, action: &'static str) -> DownloadError {
        if is_full(&error) {
            let finished = lock(&self.state)
                .as_ref()
                .map_or(0, |state| state.finished().total());
            return DownloadError::DiskFull {
                path: self.part.path().to_owned(),
                missing: self.length - finished,
            };
        }
        io(self.part.path(), action)(error)
    }

    /// Brings a range to disk, then notes it: never the other way round.
    fn save(&self, range: Range<u64>) -> Result<(), DownloadError> {
        if range.is_empty() {
            return Ok(());
        }
        self.part
            .sync()
            .map_err(|error| self.disk_error(error, "sync"))?;
        let prefix = {
            let mut state = lock(&self.state);
            // Gone if the transfer has ended without this worker.
            let Some(state) = state.as_mut() else {
                return Ok(());
            };
            state.append(range)?;
            state.finished().prefix()
        };
        let mut known = lock(&self.prefix);
        *known = prefix.max(*known);
        self.prefix_grew.notify_all();
        Ok(())
    }

    /// Asks the hub again where the file is, unless another worker just did; whether it is the same file.
    fn look_again(&self, generation: u64) -> Result<bool, Failure> {
        let mut current = lock(&self.remote);
        if current.generation != generation {
            return Ok(true);
        }
        let remote = self.client.probe()?;
        let old = &current.remote;
        let same =
            (remote.length, &remote.etag, remote.sha256) == (old.length, &old.etag, old.sha256);
        // Workers count on it, and a server that has ranges today and none tomorrow is rare.
        let same = same && remote.has_ranges == old.has_ranges;
        if same {
            *current = Current {
                remote,
                generation: generation + 1,
            };
        }
        Ok(same)
    }

    /// Hashes the file as far as it is whole; `None` if it was stopped.
    fn hash(&self) -> Option<Result<Sha256Hash, DownloadError>> {
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BLOCK];
        let mut at = 0;
        while at < self.length {
            let prefix = {
                let mut prefix = lock(&self.prefix);
                while *prefix <= at && !self.is_stopped() {
                    let waited = self.prefix_grew.wait_timeout(prefix, TICK);
                    prefix = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                *prefix
            };
            while at < prefix {
                if self.is_stopped() {
                    return None;
                }
                let room = usize::try_from(prefix - at).unwrap_or(usize::MAX);
                let block = &mut buffer[..room.min(BLOCK)];
                if let Err(error) = self.part.read_at(block, at) {
                    return Some(Err(io(self.part.path(), "read")(error)));
                }
                hasher.update(&*block);
                at += block.len() as u64;
                self.hashed.store(at, Ordering::Relaxed);
            }
            if self.is_stopped() {
                return None;
            }
        }
        Some(Ok(Sha256Hash::finish(hasher)))
    }
}

/// How long to wait after a failure, or the error to give up with.
pub(crate) fn next_wait(
    backoff: &mut Backoff,
    asked: Option<Duration>,
    url: &str,
    reason: &str,
) -> Result<Duration, DownloadError> {
    match backoff.failed(asked) {
        Next::Wait(wait) => Ok(wait),
        Next::TooLong(wait) => Err(DownloadError::Wait {
            url: url.to_owned(),
            seconds: wait.as_secs(),
        }),
        Next::GiveUp => Err(DownloadError::Unreachable {
            url: url.to_owned(),
            reason: reason.to_owned(),
            attempts: backoff.failures(),
        }),
    }
}

/// Waits, but not longer than until it is told to stop.
pub(crate) fn sleep(wait: Duration, stop: &AtomicBool) {
    let until = Instant::now() + wait;
    while !stop.load(Ordering::Relaxed) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(TICK));
    }
}

#[cfg(test)]
mod tests;
