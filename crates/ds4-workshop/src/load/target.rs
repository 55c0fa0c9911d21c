//! What a load is put on.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use crate::error::WorkshopError;

/// Something that came for one of the requests.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// The request's number.
    pub(super) request: usize,
    pub(super) at: Instant,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// A token, or a piece of text.
    Token,
    /// The end.
    Finished(Used),
}

/// Tokens of a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Used {
    pub(super) prompt: usize,
    pub(super) generated: usize,
}

/// Takes requests and tells when their tokens come.
pub(super) trait Target {
    /// Begins a request under a number, with a random prompt of so many tokens. The flag, once set, ends it.
    fn submit(
        &mut self,
        number: usize,
        prompt: usize,
        max_tokens: usize,
    ) -> Result<Arc<AtomicBool>, WorkshopError>;

    /// What comes next, if it comes in time.
    fn next(&mut self, timeout: Duration) -> Result<Option<Arrival>, WorkshopError>;
}
