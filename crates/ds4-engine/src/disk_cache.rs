//! Kept points on disk: saved when a request ends, restored when a prompt goes on from one of them
//! that memory does not hold any more.
//!
//! Nothing here waits for the disk. Files are read and written on threads of their own; rows cross
//! between the device and the host in bounded pieces, between steps of the model
//! ([`DiskCache::advance`]). The pages concerned are held by reference meanwhile, and given back if
//! requests run out of pages. Whatever goes wrong is counted, and the tokens are computed instead.

mod frontier_bytes;
mod loader;
mod restoring;
mod saving;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ds4_kvstore::{Access, BackgroundWriter, CheckpointKind, ModelKey, Store, WriteReport};
use ds4_model::{KvFormat, PAGE_TOKENS, TokenId};

use crate::engine::{BackendKind, Engine, EngineOptions};
use crate::error::EngineError;
use crate::sequences::Sequences;
use crate::service::DiskStatus;
use loader::Loader;
use restoring::Restoring;
use saving::Saving;

/// Rows that cross between two steps while requests run, in bytes; at least one page does.
const PIECE_BYTES: usize = 4 << 20;
/// The same while nobody waits for a step.
const IDLE_PIECE_BYTES: usize = 64 << 20;
/// Points that wait to be saved.
const MAX_SAVES: usize = 8;
/// Checkpoints that are read in vain for one request.
const MAX_ATTEMPTS: u8 = 3;
/// How often a lookup asks the directory itself, for what other processes saved.
const REFRESH_INTERVAL: Duration = Duration::from_millis(500);
/// How long saving may go on when the engine is to end.
const FINISH_TIME: Duration = Duration::from_secs(10);
/// How long the engine looks away when only the disk is at work.
const IDLE_WAIT: Duration = Duration::from_millis(2);
/// Raised whenever the bytes of a frontier or a page change their meaning.
const LAYOUT_VERSION: u32 = 1;

/// Checkpoints on disk for an engine.
#[derive(Clone, Debug)]
pub struct CheckpointStore {
    /// Where they are.
    pub store: Store,
    /// Tokens that a checkpoint has at least: fewer are computed sooner than read.
    pub min_tokens: usize,
    /// Tokens that a checkpoint must gain over what is there already, to be saved or restored.
    pub min_new_tokens: usize,
}

impl CheckpointStore {
    /// The usual limits: 512 tokens, and 256 gained.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            min_tokens: 512,
            min_new_tokens: 256,
        }
    }
}

/// The checkpoints and what is on the way to and from them.
pub(crate) struct DiskCache {
    options: CheckpointStore,
    key: ModelKey,
    model_name: String,
    /// Before the writer, which ends when it is dropped and must not wait for pieces then.
    saves: VecDeque<Saving>,
    restoring: Option<Restoring>,
    loader: Loader,
    writer: BackgroundWriter,
    /// Numbers what is saved and restored.
    next_number: u64,
    counts: Arc<Mutex<Counts>>,
    seconds_per_token: f64,
    finish_by: Option<Instant>,
    /// When it was last looked for checkpoints of other processes.
    refreshed: Instant,
}

/// What happened so far.
#[derive(Debug, Default)]
struct Counts {
    saved: u64,
    bytes_written: u64,
    restored: u64,
    failures: u64,
    last_failure: Option<String>,
}

impl Counts {
    fn fail(&mut self, reason: String) {
        self.failures += 1;
        self.last_failure = Some(reason);
    }
}

/// What a request knows of the disk.
#[derive(Debug, Default)]
pub(crate) struct DiskLookup {
    attempts: u8,
    is_done: bool,
}

impl DiskCache {
    /// Checkpoints of the model of `engine`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn new(engine: &Engine, options: CheckpointStore) -> Result<Self, EngineError> {
        let counts = Arc::new(Mutex::new(Counts::default()));
        let reported = Arc::clone(&counts);
        let report = move |report: WriteReport| {
            let mut counts = lock(&reported);
            match report.result {
                Ok(saved) => {
                    counts.saved += 1;
                    counts.bytes_written += saved.bytes_written;
                }
                Err(error) => counts.fail(describe(&error)),
            }
        };
        Ok(Self {
            key: model_key(engine),
            model_name: engine.shape().name.clone(),
            saves: VecDeque::new(),
            restoring: None,
            loader: Loader::start(options.store.clone()).map_err(EngineError::Thread)?,
            writer: BackgroundWriter::start(options.store.clone(), MAX_SAVES, report)
                .map_err(EngineError::Thread)?,
            options,
            next_number: 0,
            counts,
            seconds_per_token: 0.0,
            finish_by: None,
            refreshed: Instant::now(),
        })
    }

    /// Whether something is on the way that needs the engine.
    pub(crate) fn is_busy(&self) -> bool {
        let is_late = self.finish_by.is_some_and(|at| at <= Instant::now());
        !is_late && (self.restoring.is_some() || !self.saves.is_empty())
    }

    /// From now on nothing new begins, and what is on the way has a limited time.
    pub(crate) fn finish(&mut self) {
        self.finish_by
            .get_or_insert_with(|| Instant::now() + FINISH_TIME);
    }

    /// Takes note of what the prefill of a token costs.
    pub(crate) fn measured(&mut self, seconds_per_token: f64) {
        self.seconds_per_token = seconds_per_token;
    }

    /// What the store has, and what happened so far.
    pub(crate) fn status(&self) -> DiskStatus {
        let usage = self.options.store.usage();
        let counts = lock(&self.counts);
        DiskStatus {
            checkpoints: usage.checkpoints,
            bytes: usage.bytes,
            max_bytes: usage.max_bytes,
            read_only: match self.options.store.access() {
                Access::ReadWrite => None,
                Access::ReadOnly { reason } => Some(reason),
            },
            saved: counts.saved,
            bytes_written: counts.bytes_written,
            restored: counts.restored,
            pending: self.saves.len() + usize::from(self.restoring.is_some()),
            failures: counts.failures,
            last_failure: counts.last_failure.clone(),
        }
    }

    /// Whether a request for `tokens` should wait because a longer prefix than memory has is being
    /// read from disk for it; begins to read if there is one.
    pub(crate) fn is_worth_waiting(
        &mut self,
        sequences: &mut Sequences,
        tokens: &[TokenId],
        lookup: &mut DiskLookup,
    ) -> bool {
        if lookup.is_done || self.finish_by.is_some() || sequences.kept().limit() == 0 {
            return false;
        }
        let memory = sequences.kept().longest(tokens);
        let memory = memory.map_or(0, |(length, _)| length);
        let store = &self.options.store;
        if lookup.attempts == 0 && self.refreshed.elapsed() >= REFRESH_INTERVAL {
            store.refresh();
            self.refreshed = Instant::now();
        }
        let disk = store.known_tokens(&self.key, tokens);
        if disk
            < self
                .options
                .min_tokens
                .max(memory + self.options.min_new_tokens)
            || lookup.attempts == MAX_ATTEMPTS
        {
            lookup.is_done = true;
            return false;
        }
        if self.restoring.is_some() {
            // One at a time; it may be the very one.
            return true;
        }
        lookup.attempts += 1;
        let Some(hit) = store.longest_prefix(&self.key, tokens) else {
            lookup.is_done = true;
            return false;
        };
        self.next_number += 1;
        let number = self.next_number;
        let restoring = Restoring::new(number, sequences, &tokens[..hit.tokens()]);
        match self.loader.load(number, hit, restoring.first_span()) {
            Ok(()) => self.restoring = Some(restoring),
            Err(reason) => {
                restoring.release(sequences);
                lookup.is_done = true;
                self.fail(reason);
            }
        }
        self.restoring.is_some()
    }

    /// Saves the point kept at `tokens`, if there is one and it is worth it: [`CheckpointKind::Prompt`]
    /// inside a request, [`CheckpointKind::Interval`] where one ended.
    pub(crate) fn save(
        &mut self,
        sequences: &mut Sequences,
        tokens: &[TokenId],
        kind: CheckpointKind,
    ) {
        let is_writable = self.options.store.access() == Access::ReadWrite;
        if tokens.len() < self.options.min_tokens
            || !is_writable
            || self.finish_by.is_some()
            || sequences.kept().at(tokens).is_none()
        {
            return;
        }
        let pending = self.saves.iter().filter(|save| save.covers(tokens));
        let pending = pending.map(Saving::tokens).max().unwrap_or(0);
        let on_disk = self.options.store.known_tokens(&self.key, tokens);
        if tokens.len() < on_disk.max(pending) + self.options.min_new_tokens {
            return;
        }
        // The end of a later turn takes the place of an earlier one that waits.
        let is_older = |save: &Saving| save.waits() == Some(kind) && save.covers(tokens);
        if kind == CheckpointKind::Interval
            && let Some(at) = self.saves.iter().position(is_older)
            && let Some(save) = self.saves.remove(at)
        {
            save.release(sequences);
        }
        if self.saves.len() == MAX_SAVES {
            return self.fail("the disk is too slow: a checkpoint was left out".to_owned());
        }
        let plan = match self.options.store.plan(&self.key, tokens) {
            Ok(plan) => plan,
            Err(error) => return self.fail(describe(&error)),
        };
        let seconds = tokens.len() as f64 * self.seconds_per_token;
        let data = ds4_kvstore::CheckpointData {
            kind,
            model_name: self.model_name.clone(),
            prefill_seconds: seconds,
            segment_bytes: sequences.runner().layout().page_rows_bytes(PAGE_TOKENS) as u64,
            frontier: Vec::new(),
            attachment: Vec::new(),
        };
        self.next_number += 1;
        match Saving::new(self.next_number, sequences, plan, data) {
            Ok(Some(save)) => self.saves.push_back(save),
            // It is not kept in memory, either.
            Ok(None) => {}
            Err(error) => self.fail(describe(&error)),
        }
    }

    /// Moves rows on their way, a bounded piece of them.
    pub(crate) fn advance(&mut self, sequences: &mut Sequences, is_idle: bool) {
        if self.finish_by.is_some_and(|at| at <= Instant::now()) {
            self.give_pages_back(sequences);
        }
        let bytes = if is_idle {
            IDLE_PIECE_BYTES
        } else {
            PIECE_BYTES
        };
        let page = sequences.runner().layout().page_rows_bytes(PAGE_TOKENS);
        let pages = (bytes / page.max(1)).max(1);
        if let Some(restoring) = &mut self.restoring {
            match restoring.advance(sequences, &self.loader, &self.options.store, pages) {
                Ok(false) => {}
                Ok(true) => {
                    lock(&self.counts).restored += 1;
                    self.end_restoring(sequences);
                }
                Err(reason) => {
                    self.fail(reason);
                    self.end_restoring(sequences);
                }
            }
        } else if let Some(save) = self.saves.front_mut() {
            let is_done = match save.advance(sequences, &self.writer, pages) {
                Ok(is_done) => is_done,
                Err(reason) => {
                    self.fail(reason);
                    true
                }
            };
            if is_done && let Some(save) = self.saves.pop_front() {
                save.release(sequences);
            }
        }
    }

    /// Waits a moment for the disk, if nothing else is to be done.
    pub(crate) fn wait(&self) {
        thread::sleep(IDLE_WAIT);
    }

    /// Gives the pages of all that is on the way back to requests that need them; whether there
    /// were any.
    pub(crate) fn give_pages_back(&mut self, sequences: &mut Sequences) -> bool {
        let had_saves = !self.saves.is_empty();
        self.saves
            .drain(..)
            .for_each(|save| save.release(sequences));
        if had_saves {
            self.fail("a checkpoint was left out: requests needed its pages".to_owned());
            return true;
        }
        let had_pages = self.restoring.is_some();
        if had_pages {
            self.fail("a checkpoint was not restored: requests needed its pages".to_owned());
        }
        self.end_restoring(sequences);
        had_pages
    }

    fn end_restoring(&mut self, sequences: &mut Sequences) {
        if let Some(restoring) = self.restoring.take() {
            restoring.release(sequences);
        }
    }

    fn fail(&self, reason: String) {
        lock(&self.counts).fail(reason);
    }
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error and its causes in one line.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a checkpoint is valid for: whoever computes with another precision gets other bits.
fn model_key(engine: &Engine) -> ModelKey {
    let EngineOptions {
        backend,
        kv_format,
        exact,
        ..
    } = *engine.options();
    let rows = match kv_format {
        KvFormat::F32 => 0,
        KvFormat::F16 => 1,
        KvFormat::Fp8 => 2,
        KvFormat::Q4 => 3,
    };
    let arithmetic = match (backend, exact) {
        (BackendKind::Cpu, false) => 0,
        (BackendKind::Cpu, true) => 1,
        (BackendKind::Reference, _) => 2,
    };
    ModelKey {
        fingerprint: *engine.fingerprint().as_bytes(),
        format: LAYOUT_VERSION << 16 | arithmetic << 8 | rows,
        span_tokens: PAGE_TOKENS as u32,
    }
}
