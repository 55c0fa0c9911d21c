//! What outlives a request, and the process if there is a directory for it.

use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Inference;
use crate::disk::{KeepError, WriteStatus};
use crate::replay::AnswerStore;
use crate::responses::KeptResponses;

impl Inference {
    /// Keeps sampled answers beside the checkpoints in `directory`, at most `max_bytes` of them, and
    /// finds those that were kept there before: conversations go on after a restart without prefill.
    ///
    /// # Errors
    /// The directory cannot be used; answers are then remembered until the end of the process.
    pub fn keep_answers(&mut self, directory: &Path, max_bytes: u64) -> Result<(), KeepError> {
        let fingerprint = *self.service.model().fingerprint.as_bytes();
        let (store, answers) = AnswerStore::open(directory, max_bytes, fingerprint)?;
        let mut memory = self.memory();
        for answer in answers {
            memory.remember(answer);
        }
        drop(memory);
        self.answers = Some(store);
        Ok(())
    }

    /// Keeps stored responses beside the checkpoints in `directory`, at most `max_bytes` of them, and
    /// finds those that were kept there before, whatever model made them.
    ///
    /// # Errors
    /// The directory cannot be used; responses are then kept until the end of the process.
    pub fn keep_responses(&self, directory: &Path, max_bytes: u64) -> Result<(), KeepError> {
        self.responses().keep_on_disk(directory, max_bytes)
    }

    /// Waits until everything is on disk that is to be kept; false if that takes longer than
    /// `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let answers = self.answers.as_ref();
        let answers = answers.is_none_or(|answers| answers.flush(patience));
        let left = deadline.saturating_duration_since(Instant::now());
        let responses = self.responses().store();
        responses.is_none_or(|responses| responses.flush(left)) && answers
    }

    /// How many answers are remembered, about how many bytes they take, and how keeping them goes.
    pub(crate) fn replay_status(&self) -> (usize, usize, Option<WriteStatus>) {
        let (answers, bytes) = self.memory().size();
        let store = self.answers.as_ref().map(AnswerStore::status);
        (answers, bytes, store)
    }

    /// Responses that clients can ask for again.
    pub(crate) fn responses(&self) -> MutexGuard<'_, KeptResponses> {
        // Nothing that could panic leaves it half changed.
        self.responses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
