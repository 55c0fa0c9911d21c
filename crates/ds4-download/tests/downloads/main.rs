//! Downloads from a server that misbehaves.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    reason = "a test may panic, and clippy.toml knows only its functions"
)]

mod changes;
mod disk;
mod failures;
mod fixture;
mod hub;
mod ranges;
mod server;
mod stopping;
