//! The store as its users see it, on a simulated disk and on a real one.
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and clippy.toml knows only its functions"
)]

mod background;
mod behaviour;
mod conversation;
mod crash;
mod damage;
mod eviction;
mod failing_disk;
#[cfg(unix)]
mod hostile;
mod model;
#[cfg(unix)]
mod processes;
mod simulated_disk;
