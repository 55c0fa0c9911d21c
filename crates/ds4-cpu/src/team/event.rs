//! A counter that threads can wait on: bounded spinning first, sleeping after.
//!
//! Decode regions are a few microseconds long, shorter than a sleep and a wake-up, so waiting starts
//! with spinning. A waiter that has spun for long (the engine is idle, or more threads than cores)
//! sleeps in the kernel on the counter itself (`futex` on Linux, a condition variable elsewhere).
//!
//! No wake-up is lost: the waiter announces itself in `sleepers` *before* the kernel compares the
//! counter with the value it waits on, and the waker changes the counter *before* it reads
//! `sleepers`. All four accesses are sequentially consistent, so at least one of them sees the other.

use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, Ordering};
#[cfg(not(target_os = "linux"))]
use std::sync::{Condvar, Mutex};

/// Spins before a waiter sleeps; a spin is one `pause`, 10 to 40 ns, so about 40 µs to 150 µs.
const SPINS: u32 = 4_000;

/// A value on a cache line of its own (128 bytes: adjacent lines are fetched in pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// A wrapping counter with waiters.
#[derive(Debug, Default)]
pub(crate) struct Event {
    value: Padded<AtomicU32>,
    sleepers: Padded<AtomicU32>,
    #[cfg(not(target_os = "linux"))]
    lock: Mutex<()>,
    #[cfg(not(target_os = "linux"))]
    changed: Condvar,
}

impl Event {
    /// The current value; what other threads wrote before the `advance` that made it is visible.
    pub(crate) fn value(&self) -> u32 {
        self.value.0.load(Ordering::Acquire)
    }

    /// Moves the counter on by one and wakes every waiter.
    pub(crate) fn advance(&self) {
        self.value.0.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.0.load(Ordering::SeqCst) > 0 {
            self.wake_all();
        }
    }

    /// Returns once the value is no longer `old`, with the new value.
    pub(crate) fn wait_past(&self, old: u32) -> u32 {
        for _ in 0..SPINS {
            let value = self.value();
            if value != old {
                return value;
            }
            spin_loop();
        }
        loop {
            self.sleepers.0.fetch_add(1, Ordering::SeqCst);
            self.sleep_while(old);
            self.sleepers.0.fetch_sub(1, Ordering::SeqCst);
            let value = self.value.0.load(Ordering::SeqCst);
            if value != old {
                return value;
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[expect(
        unsafe_code,
        reason = "the futex system call has no safe wrapper in std"
    )]
    fn sleep_while(&self, old: u32) {
        // SAFETY: the address is that of a live, aligned 32-bit atomic for the whole call; FUTEX_WAIT
        // only reads it. A null timeout waits without limit. Spurious returns are handled by the caller.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.value.0.as_ptr(),
                libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG,
                old,
                std::ptr::null::<libc::timespec>(),
            );
        }
    }

    #[cfg(target_os = "linux")]
    #[expect(
        unsafe_code,
        reason = "the futex system call has no safe wrapper in std"
    )]
    fn wake_all(&self) {
        // SAFETY: the address is that of a live, aligned 32-bit atomic; FUTEX_WAKE does not access it.
        unsafe {
            libc::syscall(
                libc::SYS_futex,
                self.value.0.as_ptr(),
                libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
                i32::MAX,
            );
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn sleep_while(&self, old: u32) {
        let mut guard = self
            .lock
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        while self.value.0.load(Ordering::SeqCst) == old {
            guard = self
                .changed
                .wait(guard)
                .unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn wake_all(&self) {
        // Taking the lock orders this wake-up after a sleeper's comparison and before its wait.
        drop(
            self.lock
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn a_sleeping_waiter_is_woken() {
        let event = Arc::new(Event::default());
        let waiter = {
            let event = Arc::clone(&event);
            std::thread::spawn(move || event.wait_past(0))
        };
        while event.sleepers.0.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        event.advance();
        assert_eq!(waiter.join().unwrap(), 1);
        assert_eq!(event.sleepers.0.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn two_threads_hand_a_counter_back_and_forth() {
        let ping = Arc::new(Event::default());
        let pong = Arc::new(Event::default());
        let rounds = 20_000;
        let other = {
            let (ping, pong) = (Arc::clone(&ping), Arc::clone(&pong));
            std::thread::spawn(move || {
                for round in 0..rounds {
                    assert_eq!(ping.wait_past(round), round + 1);
                    pong.advance();
                }
            })
        };
        for round in 0..rounds {
            ping.advance();
            assert_eq!(pong.wait_past(round), round + 1);
        }
        other.join().unwrap();
    }
}
