//! One loaded model and the sessions on it.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::Precision;
use ds4_cpu::reference::ReferenceBackend;
use ds4_cpu::team::default_thread_count;
use ds4_gguf::GgufFile;
use ds4_model::{
    Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, ModelShape, Step, StepSequence,
    TokenId,
};

use crate::error::EngineError;
use crate::fingerprint::ModelFingerprint;
use crate::memory_plan::MemoryPlan;
use crate::page_pool::PagePool;
use crate::runner::Runner;
use crate::session::{Frontier, KEPT_FRONTIERS, Session};

/// Which backend computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BackendKind {
    /// SIMD kernels on all physical cores.
    #[default]
    Cpu,
    /// The scalar reference, for comparison.
    Reference,
}

impl FromStr for BackendKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" | "auto" => Ok(Self::Cpu),
            "reference" => Ok(Self::Reference),
            other => Err(format!(
                "`{other}` is no backend, expected auto, cpu or reference"
            )),
        }
    }
}

/// Settings of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Which backend computes.
    pub backend: BackendKind,
    /// Threads of the CPU backend; `None` for one per physical core.
    pub threads: Option<usize>,
    /// Tokens that a session can hold.
    pub context: usize,
    /// Sessions that can be resident.
    pub sessions: usize,
    /// Row format of the KV cache.
    pub kv_format: KvFormat,
    /// Tokens per prefill step.
    pub prefill_chunk: usize,
    /// Rows of logits that one step can give; more than one only for scoring.
    pub max_outputs: usize,
    /// Weights as F32 and activations as F32, instead of 8-bit products.
    pub exact: bool,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            backend: BackendKind::default(),
            threads: None,
            context: 32_768,
            sessions: 1,
            kv_format: KvFormat::default(),
            prefill_chunk: 256,
            max_outputs: 1,
            exact: false,
        }
    }
}

impl EngineOptions {
    pub(crate) fn executor_options(
        &self,
        shape: &ModelShape,
    ) -> Result<ExecutorOptions, EngineError> {
        let in_range = |name, value: usize, limit: usize| {
            if value == 0 || value > limit {
                return Err(EngineError::Setting {
                    name,
                    found: value.to_string(),
                    expected: format!("1 to {limit}"),
                });
            }
            Ok(value)
        };
        let context = in_range("the context", self.context, shape.context)?;
        let slots = in_range("the number of sessions", self.sessions, 4096)?;
        let chunk = in_range("the prefill chunk", self.prefill_chunk, 1 << 16)?.min(context);
        // A decode step holds one row of every session.
        let max_rows = chunk.max(slots);
        Ok(ExecutorOptions {
            kv_format: self.kv_format,
            capacity: KvCapacity {
                slots,
                context,
                pages: slots * KvLayout::pages_for(context),
            },
            max_rows,
            max_outputs: self.max_outputs.max(slots).min(max_rows),
        })
    }
}

/// How far loading has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadProgress {
    /// Tensors taken over so far.
    pub tensors: usize,
    /// Tensors in the file.
    pub total: usize,
}

/// How a caller follows and stops a sync.
pub struct SyncControl<'a> {
    /// Set from anywhere to stop after the current step.
    pub cancel: &'a AtomicBool,
    /// Called after every step with the tokens computed so far and in all.
    pub progress: &'a mut dyn FnMut(usize, usize),
}

/// What a sync did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncReport {
    /// Tokens whose state was there already.
    pub reused: usize,
    /// Tokens that were computed.
    pub evaluated: usize,
    /// The caller stopped it; the session holds what was computed.
    pub cancelled: bool,
}

/// A loaded model, its KV cache and the sessions on it.
pub struct Engine {
    runner: Box<dyn Runner>,
    identity: u64,
    backend_name: &'static str,
    fingerprint: ModelFingerprint,
    options: EngineOptions,
    plan: MemoryPlan,
    max_rows: usize,
    max_outputs: usize,
    free_slots: Vec<usize>,
    step: Step,
    pool: PagePool,
}

impl Engine {
    /// Loads the model in `file` (and the MTP block in `mtp`).
    ///
    /// # Errors
    /// A bad file, settings out of range, or no memory.
    pub fn open(
        file: &GgufFile,
        mtp: Option<&GgufFile>,
        options: &EngineOptions,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Self, EngineError> {
        let shape = ModelShape::from_file(file)?;
        let plan = MemoryPlan::for_shape(file, &shape, options)?;
        let executor_options = options.executor_options(&shape)?;
        let total = file.tensors().len() + mtp.map_or(0, |file| file.tensors().len());
        let progress = &mut |tensors| progress(LoadProgress { tensors, total });
        let (runner, backend_name): (Box<dyn Runner>, _) = match options.backend {
            BackendKind::Reference => (
                Box::new(Executor::new(
                    ReferenceBackend,
                    file,
                    mtp,
                    executor_options,
                    progress,
                )?),
                "reference",
            ),
            BackendKind::Cpu => {
                let cpu = Self::cpu_backend(options)?;
                let runner = Executor::new(cpu, file, mtp, executor_options, progress)?;
                (Box::new(runner), "cpu")
            }
        };
        static NEXT_IDENTITY: AtomicU64 = AtomicU64::new(1);
        Ok(Self {
            runner,
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            backend_name,
            fingerprint: ModelFingerprint::of(file),
            options: *options,
            plan,
            max_rows: executor_options.max_rows,
            max_outputs: executor_options.max_outputs,
            free_slots: (0..executor_options.capacity.slots).rev().collect(),
            step: Step::default(),
            pool: PagePool::new(executor_options.capacity.pages),
        })
    }

    fn cpu_backend(options: &EngineOptions) -> Result<CpuBackend, EngineError> {
        let threads = options.threads.unwrap_or_else(default_thread_count);
        let precision = if options.exact {
            Precision::Exact
        } else {
            Precision::Fast
        };
        Ok(CpuBackend::new(threads, precision)?)
    }

    /// Dimensions of the model.
    pub fn shape(&self) -> &ModelShape {
        self.runner.shape()
    }

    /// Name of the backend.
    pub fn backend_name(&self) -> &'static str {
        self.backend_name
    }

    /// Identity of the model.
    pub fn fingerprint(&self) -> ModelFingerprint {
        self.fingerprint
    }

    /// The settings that the engine runs with.
    pub fn options(&self) -> &EngineOptions {
        &self.options
    }

    /// Memory in use, as planned.
    pub fn memory(&self) -> MemoryPlan {
        self.plan
    }

    /// Bytes that loading really allocated beside the weights.
    pub fn allocated(&self) -> usize {
        self.runner.allocated().total()
    }

    /// Bytes of one session's KV state at `tokens` tokens.
    ///
    /// # Errors
    /// More tokens than the context.
    pub fn session_bytes(&self, tokens: usize) -> Result<usize, EngineError> {
        Ok(self.runner.sequence_bytes(tokens)?.iter().sum())
    }

    /// Pages of the KV cache that nobody uses.
    pub fn free_pages(&self) -> usize {
        self.pool.free()
    }

    pub(crate) fn kv_format(&self) -> KvFormat {
        self.runner.layout().format
    }

    /// A new, empty session.
    ///
    /// # Errors
    /// All sessions are in use.
    pub fn session(&mut self) -> Result<Session, EngineError> {
        let slot = self.free_slots.pop().ok_or(EngineError::NoFreeSession {
            slots: self.options.sessions,
        })?;
        Ok(Session {
            engine: self.identity,
            slot,
            tokens: Vec::new(),
            logits: Vec::new(),
            pages: Vec::new(),
            frontiers: Vec::new(),
            lost: false,
        })
    }

    /// Ends a session and frees what it occupied.
    pub fn close(&mut self, session: Session) {
        if session.engine != self.identity {
            return;
        }
        for page in session.pages {
            self.pool.release(page);
        }
        self.free_slots.push(session.slot);
    }

    /// Makes `session` hold exactly `tokens`, computing only what it lacks.
    ///
    /// A common prefix is reused: all of it when `tokens` extends the session,
    /// otherwise up to the last kept point inside it. Points are kept at the
    /// end of every sync. After a cancelled sync the session holds a prefix of
    /// `tokens`, ready to be synced again.
    ///
    /// # Errors
    /// No tokens, more than the context, or a failure of the backend; after the
    /// latter the session starts over at the next sync.
    pub fn sync(
        &mut self,
        session: &mut Session,
        tokens: &[TokenId],
        control: &mut SyncControl<'_>,
    ) -> Result<SyncReport, EngineError> {
        self.check(session, tokens.len())?;
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt);
        }
        let reused = self.rewind(session, tokens)?;
        let total = tokens.len() - reused;
        let mut cancelled = false;
        while session.tokens.len() < tokens.len() {
            if control.cancel.load(Ordering::Relaxed) {
                cancelled = true;
                break;
            }
            let start = session.tokens.len();
            let end = (start + self.max_rows).min(tokens.len());
            self.advance(session, &tokens[start..end], end == tokens.len())?;
            (control.progress)(session.tokens.len() - reused, total);
        }
        // A single token is a decode step; copying state there would cost more than it saves.
        if session.tokens.len() - reused > 1 && !cancelled {
            self.keep_frontier(session)?;
        }
        Ok(SyncReport {
            reused,
            evaluated: session.tokens.len() - reused,
            cancelled,
        })
    }

    /// Appends one token, the decode step: [`sync`](Self::sync) with the
    /// session's tokens and this one.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn append(&mut self, session: &mut Session, token: TokenId) -> Result<(), EngineError> {
        self.check(session, session.tokens.len() + 1)?;
        self.advance(session, &[token], true)
    }

    /// Computes `tokens` after what the session holds and shows the logits of
    /// every position: `on_logits(index in tokens, logits)`.
    ///
    /// Steps give at most [`EngineOptions::max_outputs`] rows of logits.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub fn score(
        &mut self,
        session: &mut Session,
        tokens: &[TokenId],
        control: &mut SyncControl<'_>,
        on_logits: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<SyncReport, EngineError> {
        self.check(session, session.tokens.len() + tokens.len())?;
        let reused = session.tokens.len();
        let mut cancelled = false;
        let chunk = self.max_rows.min(self.max_outputs);
        for (index, part) in tokens.chunks(chunk).enumerate() {
            if control.cancel.load(Ordering::Relaxed) {
                cancelled = true;
                break;
            }
            self.run_step(session, part, 0..part.len())?;
            let mut logits = std::mem::take(&mut session.logits);
            logits.resize(self.shape().vocabulary, 0.0);
            for row in 0..part.len() {
                self.runner.logits(row, &mut logits)?;
                on_logits(index * chunk + row, &logits);
            }
            session.logits = logits;
            (control.progress)(session.tokens.len() - reused, tokens.len());
        }
        Ok(SyncReport {
            reused,
            evaluated: session.tokens.len() - reused,
            cancelled,
        })
    }

    fn check(&self, session: &mut Session, tokens: usize) -> Result<(), EngineError> {
        if session.engine != self.identity {
            return Err(EngineError::SessionLost {
                reason: "it belongs to another engine",
            });
        }
        if tokens > self.options.context {
            return Err(EngineError::ContextFull {
                tokens,
                context: self.options.context,
            });
        }
        if session.lost {
            // A step failed halfway: nothing behind it can be trusted.
            session.tokens.clear();
            session.logits.clear();
            session.frontiers.clear();
            session.lost = false;
        }
        Ok(())
    }

    /// Goes back to the longest state that is a prefix of `tokens` and leaves
    /// at least one token to compute, unless nothing changes at all.
    fn rewind(&mut self, session: &mut Session, tokens: &[TokenId]) -> Result<usize, EngineError> {
        let common = session
            .tokens
            .iter()
            .zip(tokens)
            .take_while(|(held, wanted)| held == wanted)
            .count();
        let complete = !session.logits.is_empty();
        if common == session.tokens.len() && (common < tokens.len() || complete) {
            return Ok(common);
        }
        session
            .frontiers
            .retain(|frontier| frontier.tokens <= common);
        let target = session
            .frontiers
            .last()
            .map_or(0, |frontier| frontier.tokens);
        if target == 0 {
            self.truncate(session, 0);
            return Ok(0);
        }
        if let Some(frontier) = session.frontiers.last() {
            self.runner
                .restore_frontier(session.slot, target, &frontier.state)?;
            session.logits.clone_from(&frontier.logits);
        }
        self.truncate(session, target);
        Ok(target)
    }

    fn truncate(&mut self, session: &mut Session, tokens: usize) {
        session.tokens.truncate(tokens);
        if tokens == 0 {
            session.logits.clear();
            session.frontiers.clear();
        }
        for page in session.pages.drain(KvLayout::pages_for(tokens)..) {
            self.pool.release(page);
        }
    }

    fn keep_frontier(&mut self, session: &mut Session) -> Result<(), EngineError> {
        let tokens = session.tokens.len();
        session
            .frontiers
            .retain(|frontier| frontier.tokens < tokens);
        if session.frontiers.len() == KEPT_FRONTIERS {
            session.frontiers.remove(0);
        }
        let state = self.runner.save_frontier(session.slot, tokens)?;
        session.frontiers.push(Frontier {
            tokens,
            state,
            logits: session.logits.clone(),
        });
        Ok(())
    }

    /// One step of one session; `last` says whether its logits are wanted.
    fn advance(
        &mut self,
        session: &mut Session,
        tokens: &[TokenId],
        last: bool,
    ) -> Result<(), EngineError> {
        let outputs = if last {
            tokens.len() - 1..tokens.len()
        } else {
            0..0
        };
        self.run_step(session, tokens, outputs)?;
        if last {
            session.logits.resize(self.shape().vocabulary, 0.0);
            self.runner.logits(0, &mut session.logits)?;
        } else {
            session.logits.clear();
        }
        Ok(())
    }

    fn run_step(
        &mut self,
        session: &mut Session,
        tokens: &[TokenId],
        outputs: std::ops::Range<usize>,
    ) -> Result<(), EngineError> {
        self.cover(session, session.tokens.len() + tokens.len())?;
        // One step is kept and filled anew: decoding allocates nothing here.
        if self.step.sequences.is_empty() {
            self.step = Step::single(StepSequence::last_output(0, 0, Vec::new()));
        }
        let sequence = &mut self.step.sequences[0];
        sequence.slot = session.slot;
        sequence.position = session.tokens.len();
        sequence.outputs = outputs;
        sequence.tokens.clear();
        sequence.tokens.extend_from_slice(tokens);
        if let Err(error) = self.runner.run(&self.step) {
            session.lost = true;
            return Err(error.into());
        }
        session.tokens.extend_from_slice(tokens);
        Ok(())
    }

    /// Gives the session the pages that `tokens` tokens need.
    fn cover(&mut self, session: &mut Session, tokens: usize) -> Result<(), EngineError> {
        let first = session.pages.len();
        while session.pages.len() < KvLayout::pages_for(tokens) {
            session.pages.push(self.pool.take()?);
        }
        if first < session.pages.len() {
            self.runner
                .set_pages(session.slot, first, &session.pages[first..])?;
        }
        Ok(())
    }

    pub(crate) fn save_state(&mut self, session: &Session) -> Result<Vec<Vec<u8>>, EngineError> {
        let state =
            self.runner
                .save_sequence(session.slot, session.tokens.len(), &session.pages)?;
        Ok(state.layers)
    }

    pub(crate) fn layer_bytes(&self, tokens: usize) -> Result<Vec<usize>, EngineError> {
        if tokens > self.options.context {
            return Err(EngineError::ContextFull {
                tokens,
                context: self.options.context,
            });
        }
        Ok(self.runner.sequence_bytes(tokens)?)
    }

    pub(crate) fn restore_state(
        &mut self,
        tokens: Vec<TokenId>,
        logits: Vec<f32>,
        layers: Vec<Vec<u8>>,
    ) -> Result<Session, EngineError> {
        let mut session = self.session()?;
        let state = ds4_model::SequenceState { layers };
        let restored = self.cover(&mut session, tokens.len()).and_then(|()| {
            let (slot, pages) = (session.slot, &session.pages);
            Ok(self
                .runner
                .restore_sequence(slot, tokens.len(), pages, &state)?)
        });
        match restored {
            Ok(()) => {
                session.tokens = tokens;
                session.logits = logits;
                self.keep_frontier(&mut session)?;
                Ok(session)
            }
            Err(error) => {
                self.close(session);
                Err(error)
            }
        }
    }
}
