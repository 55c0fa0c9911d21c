//! The server over sockets: every endpoint, access, bad input, streams, and how it lives and stops.
//!
//! The engine behind it says what a plan tells it, but in `under_load`; sockets, HTTP and everything above are real.
#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod access;
mod client;
mod clients;
mod endpoints;
mod half_close;
mod lifetime;
mod malformed;
mod observability;
mod replay;
mod requests;
mod stored_responses;
mod streams;
mod test_server;
mod under_load;
