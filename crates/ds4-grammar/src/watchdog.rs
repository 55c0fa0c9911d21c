//! Stops work on one token that takes too long: a client's grammar must not hold up the step of others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use llguidance::CancellationHandle;

/// How often the clock is looked at, while anything is watched.
const TICK: Duration = Duration::from_millis(20);

/// One thread that watches all constraints of a factory. It ends with the factory.
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
}

struct Shared {
    timers: Mutex<Timers>,
    changed: Condvar,
    epoch: Instant,
}

#[derive(Default)]
struct Timers {
    watched: Vec<Weak<Timer>>,
    has_thread: bool,
    is_over: bool,
}

/// The clock of one constraint.
pub(crate) struct Timer {
    handle: CancellationHandle,
    /// Microseconds since the epoch at which the work is cancelled; 0 while there is none.
    deadline: AtomicU64,
    epoch: Instant,
    limit: Duration,
}

impl Timer {
    /// Does `work` within the limit.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> T {
        let deadline = self.epoch.elapsed() + self.limit;
        let deadline = (deadline.as_micros() as u64).max(1);
        self.deadline.store(deadline, Ordering::Relaxed);
        let result = work();
        self.deadline.store(0, Ordering::Relaxed);
        result
    }
}

impl Watchdog {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Shared {
                timers: Mutex::default(),
                changed: Condvar::new(),
                epoch: Instant::now(),
            }),
        }
    }

    /// A timer that cancels by `handle` what it runs for longer than `limit`, give or take a tick.
    pub(crate) fn timer(&self, handle: CancellationHandle, limit: Duration) -> Arc<Timer> {
        let timer = Arc::new(Timer {
            handle,
            deadline: AtomicU64::new(0),
            epoch: self.shared.epoch,
            limit,
        });
        let mut timers = self.shared.lock();
        timers.watched.push(Arc::downgrade(&timer));
        if !timers.has_thread {
            let shared = self.shared.clone();
            let thread = std::thread::Builder::new()
                .name("ds4-grammar".to_owned())
                .spawn(move || shared.watch());
            // Without one, only the bounds on work remain; the next timer tries again.
            timers.has_thread = thread.is_ok();
        }
        self.shared.changed.notify_one();
        timer
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.lock().is_over = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut timers = self.lock();
        while !timers.is_over {
            let now = self.epoch.elapsed().as_micros() as u64;
            timers.watched.retain(|timer| {
                let Some(timer) = timer.upgrade() else {
                    return false;
                };
                let deadline = timer.deadline.load(Ordering::Relaxed);
                if deadline != 0 && deadline < now {
                    timer.handle.cancel();
                    return false;
                }
                true
            });
            timers = if timers.watched.is_empty() {
                let waited = self.changed.wait(timers);
                waited.unwrap_or_else(PoisonError::into_inner)
            } else {
                let waited = self.changed.wait_timeout(timers, TICK);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
        }
    }
}
