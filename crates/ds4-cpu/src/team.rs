//! The thread team: persistent pinned workers that run one borrowed closure together.
//!
//! A decode step is some hundred parallel regions of 10 to 500 µs. A work-stealing pool costs several
//! microseconds a region; this team costs one: the caller publishes the closure, moves an epoch counter
//! on, and takes part as member 0; workers spin on the counter for a while and then sleep
//! ([`event`](self)). Regions can hold barriers, so that a whole stage, or a whole layer, is one region.
//!
//! Protocol of a region, with the invariants that the `unsafe` code rests on:
//!
//! 1. The caller has `&mut Team`, so regions never overlap.
//! 2. It stores the job (a pointer to the closure on its own stack), sets `running` to the number of
//!    workers, and advances `start`. The advance publishes both.
//! 3. Every worker sees `start` move exactly once per region, copies the job, runs it, and decrements
//!    `running`; the last one advances `done`.
//! 4. The caller runs its own share, then waits for `done`. Only then does `run` return or unwind, so
//!    the closure and everything it borrows outlive every use.
//!
//! A panic in any member poisons the region: members at a barrier, or arriving at one, unwind too; the
//! first payload is raised again in the caller, and the team is usable afterwards.

mod event;
mod topology;

use std::any::Any;
use std::cell::UnsafeCell;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use event::{Event, Padded};
pub use topology::default_thread_count;

/// A team of threads that run closures together. See the module's description for the protocol.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
/// let mut team = ds4_cpu::team::Team::new(2)?;
/// let sum = AtomicUsize::new(0);
/// team.run(|member| {
///     for number in member.share(0..100, 1) {
///         sum.fetch_add(number, Ordering::Relaxed);
///     }
/// });
/// assert_eq!(sum.into_inner(), 4950);
/// # Ok::<(), ds4_cpu::team::TeamError>(())
/// ```
#[derive(Debug)]
pub struct Team {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    cores: Vec<usize>,
}

/// Why a team could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TeamError {
    /// Zero threads were asked for.
    #[error("a team needs at least one thread, 0 were asked for")]
    NoThreads,
    /// The operating system refused a thread.
    #[error("starting worker thread {index} of {count} failed; ask for fewer threads")]
    Spawn {
        /// Which worker, from 1.
        index: usize,
        /// Threads asked for, the caller included.
        count: usize,
        /// What the operating system said.
        source: std::io::Error,
    },
}

#[derive(Debug)]
struct Shared {
    start: Event,
    done: Event,
    barrier: Event,
    arrived: Padded<AtomicU32>,
    running: Padded<AtomicUsize>,
    poisoned: AtomicBool,
    stop: AtomicBool,
    count: usize,
    job: JobSlot,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A type-erased `&F` and the function that calls it.
#[derive(Clone, Copy, Debug)]
struct Job {
    closure: *const (),
    call: fn(*const (), &Member<'_>),
}

#[derive(Debug)]
struct JobSlot(UnsafeCell<Option<Job>>);

#[expect(
    unsafe_code,
    reason = "the job slot is shared under the region protocol above"
)]
// SAFETY: the slot is written only by the caller between regions (invariant 1, no worker reads it then:
// 3 and 4), and read by workers only after the `start` advance that follows the write. The closure it
// points to is `Sync` by the bound on `Team::run`.
unsafe impl Sync for JobSlot {}
#[expect(
    unsafe_code,
    reason = "the job slot is shared under the region protocol above"
)]
// SAFETY: as above; the raw pointer is only used while the closure is alive (invariant 4).
unsafe impl Send for JobSlot {}

/// Payload of the unwinding that takes members out of a poisoned barrier; never reaches the caller.
struct PoisonedBarrier;

/// One thread's view of a running region.
#[derive(Debug)]
pub struct Member<'team> {
    index: usize,
    shared: &'team Shared,
}

impl Team {
    /// A team of `threads` members: the caller and `threads - 1` workers, never more.
    ///
    /// On Linux the workers are pinned to physical cores 1, 2, … of those the process may use (core 0 is
    /// for the caller, see [`Team::pin_caller`]), unless there are fewer cores than threads.
    ///
    /// # Errors
    /// Zero threads, or the operating system refusing a thread.
    pub fn new(threads: usize) -> Result<Self, TeamError> {
        if threads == 0 {
            return Err(TeamError::NoThreads);
        }
        let cores = topology::physical_cores();
        let cores = if cores.len() >= threads {
            cores
        } else {
            Vec::new()
        };
        let mut team = Self {
            shared: Arc::new(Shared {
                start: Event::default(),
                done: Event::default(),
                barrier: Event::default(),
                arrived: Padded::default(),
                running: Padded::default(),
                poisoned: AtomicBool::new(false),
                stop: AtomicBool::new(false),
                count: threads,
                job: JobSlot(UnsafeCell::new(None)),
                panic: Mutex::new(None),
            }),
            workers: Vec::with_capacity(threads - 1),
            cores,
        };
        for index in 1..threads {
            let shared = Arc::clone(&team.shared);
            let core = team.cores.get(index).copied();
            let handle = std::thread::Builder::new()
                .name(format!("ds4-cpu-{index}"))
                .spawn(move || {
                    if let Some(core) = core {
                        topology::pin_current_thread(core);
                    }
                    worker(&shared, index);
                })
                // On an error `team` is dropped, which stops the workers already started.
                .map_err(|source| TeamError::Spawn {
                    index,
                    count: threads,
                    source,
                })?;
            team.workers.push(handle);
        }
        Ok(team)
    }

    /// Number of members, the caller included.
    pub fn thread_count(&self) -> usize {
        self.shared.count
    }

    /// Pins the calling thread to the core that the team left free for it (Linux; nothing elsewhere).
    /// For the thread that owns the engine: it stays pinned.
    pub fn pin_caller(&self) {
        if let Some(&core) = self.cores.first() {
            topology::pin_current_thread(core);
        }
    }

    /// Runs `work` once in every member at the same time and returns when all have finished.
    ///
    /// Allocates nothing.
    ///
    /// # Panics
    /// Raises the first panic of any member again, after all have left the region.
    pub fn run<F: Fn(&Member<'_>) + Sync>(&mut self, work: F) {
        fn call<F: Fn(&Member<'_>)>(closure: *const (), member: &Member<'_>) {
            #[expect(
                unsafe_code,
                reason = "the closure's type was erased to store it in the team"
            )]
            // SAFETY: `closure` was made from `&F` in `run` below with this same `F`, and `run` does not
            // return before every member is done (invariant 4).
            let work = unsafe { &*closure.cast::<F>() };
            work(member);
        }

        let shared = &*self.shared;
        let caller = Member { index: 0, shared };
        if shared.count == 1 {
            work(&caller);
            return;
        }
        let done_before = shared.done.value();
        #[expect(
            unsafe_code,
            reason = "the only write to the job slot, between regions"
        )]
        // SAFETY: no region is running (`&mut self`), so no worker reads the slot now.
        unsafe {
            *shared.job.0.get() = Some(Job {
                closure: (&raw const work).cast(),
                call: call::<F>,
            });
        }
        shared.running.0.store(shared.count - 1, Ordering::Relaxed);
        shared.start.advance();

        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| work(&caller))) {
            shared.poison(payload);
        }
        shared.done.wait_past(done_before);

        if shared.poisoned.load(Ordering::Acquire) {
            shared.arrived.0.store(0, Ordering::Relaxed);
            shared.poisoned.store(false, Ordering::Release);
            let payload = shared.lock_panic().take();
            resume_unwind(payload.unwrap_or_else(|| Box::new("a team member panicked")));
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.start.advance();
        for worker in self.workers.drain(..) {
            // A worker's panics are caught inside it, so joining cannot fail with one.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock_panic(&self) -> std::sync::MutexGuard<'_, Option<Box<dyn Any + Send>>> {
        self.panic
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Keeps the first real payload and releases everyone from the barrier.
    fn poison(&self, payload: Box<dyn Any + Send>) {
        if !payload.is::<PoisonedBarrier>() {
            self.lock_panic().get_or_insert(payload);
        }
        self.poisoned.store(true, Ordering::SeqCst);
        self.barrier.advance();
    }
}

fn worker(shared: &Shared, index: usize) {
    let mut epoch = 0;
    loop {
        epoch = shared.start.wait_past(epoch);
        if shared.stop.load(Ordering::Acquire) {
            return;
        }
        #[expect(
            unsafe_code,
            reason = "reads the job that the start of the region published"
        )]
        // SAFETY: `start` has moved, so the slot was written before and is not written again until this
        // worker has decremented `running` (invariants 2 to 4).
        let job = unsafe { *shared.job.0.get() };
        if let Some(job) = job {
            let member = Member { index, shared };
            let outcome = catch_unwind(AssertUnwindSafe(|| (job.call)(job.closure, &member)));
            if let Err(payload) = outcome {
                shared.poison(payload);
            }
        }
        if shared.running.0.fetch_sub(1, Ordering::AcqRel) == 1 {
            shared.done.advance();
        }
    }
}

impl Member<'_> {
    /// This member's number, 0 (the caller) to `count - 1`.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Number of members in the region.
    pub fn count(&self) -> usize {
        self.shared.count
    }

    /// Waits until every member has arrived; writes before it are visible to all after it.
    ///
    /// Every member must call it the same number of times.
    pub fn barrier(&self) {
        let shared = self.shared;
        if shared.count == 1 {
            return;
        }
        let round = shared.barrier.value();
        // Read after `round`: if a poisoning advance is already in `round`, its flag is visible here.
        if shared.poisoned.load(Ordering::SeqCst) {
            resume_unwind(Box::new(PoisonedBarrier));
        }
        if shared.arrived.0.fetch_add(1, Ordering::AcqRel) as usize == shared.count - 1 {
            shared.arrived.0.store(0, Ordering::Relaxed);
            shared.barrier.advance();
        } else {
            shared.barrier.wait_past(round);
            if shared.poisoned.load(Ordering::SeqCst) {
                resume_unwind(Box::new(PoisonedBarrier));
            }
        }
    }

    /// This member's contiguous part of `range`, cut at multiples of `granule` from its start; the parts
    /// of all members cover the range, in order, and differ by at most one granule.
    pub fn share(&self, range: Range<usize>, granule: usize) -> Range<usize> {
        let granule = granule.max(1);
        let granules = range.len().div_ceil(granule);
        let (each, extra) = (granules / self.count(), granules % self.count());
        let first = self.index * each + self.index.min(extra);
        let last = first + each + usize::from(self.index < extra);
        let cut = |granules: usize| (range.start + granules * granule).min(range.end);
        cut(first)..cut(last)
    }
}

/// Hands out chunks of a range to whichever member asks next, for work of uneven size.
///
/// One counter serves one loop of one region; [`WorkCounter::reset`] before the region (or between two
/// barriers, by one member) makes it ready again.
#[derive(Debug, Default)]
pub struct WorkCounter(Padded<AtomicUsize>);

impl WorkCounter {
    /// A counter at the start.
    pub fn new() -> Self {
        Self::default()
    }

    /// Starts again from 0.
    pub fn reset(&self) {
        self.0.0.store(0, Ordering::Relaxed);
    }

    /// The next `chunk` numbers below `end` that nobody has, or `None` when all are taken.
    pub fn next(&self, chunk: usize, end: usize) -> Option<Range<usize>> {
        // A plain fetch_add could overflow after very many calls past the end: look first.
        if self.0.0.load(Ordering::Relaxed) >= end {
            return None;
        }
        let chunk = chunk.max(1);
        let start = self.0.0.fetch_add(chunk, Ordering::Relaxed);
        (start < end).then(|| start..start.saturating_add(chunk).min(end))
    }
}

#[cfg(test)]
mod tests;
