//! One loaded model and the sessions on it.

use std::str::FromStr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ds4_cpu::backend::CpuBackend;
use ds4_cpu::kernels::Precision;
use ds4_cpu::reference::ReferenceBackend;
use ds4_cpu::team::default_thread_count;
use ds4_gguf::GgufFile;
use ds4_model::{
    Executor, ExecutorOptions, KvCapacity, KvFormat, KvLayout, ModelShape, SequenceState, Steering,
    TokenId,
};

use crate::error::EngineError;
use crate::fingerprint::ModelFingerprint;
use crate::memory_plan::MemoryPlan;
use crate::runner::Runner;
use crate::sequences::{Sequence, Sequences};
use crate::session::Session;
use crate::session_decode::SessionDrafts;
use crate::speculation::drafter::ComputedRows;
use crate::speculation::{SpeculationOptions, SpeculationStatus, Speculator};

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

/// Ends of turns that every session has room for, by default.
pub(crate) const KEPT_ENDS: usize = 4;

/// Settings of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineOptions {
    /// Which backend computes.
    pub backend: BackendKind,
    /// Threads of the CPU backend; `None` for one per physical core.
    pub threads: Option<usize>,
    /// Tokens that a session can hold.
    pub context: usize,
    /// Sequences that can be worked on at the same time.
    pub sessions: usize,
    /// Tokens that the pages of the KV cache hold, for all sequences and kept points together; at
    /// least the context. `None` for the whole context of every session and a page for each of a
    /// few states that were kept at the ends of its turns.
    pub cache_tokens: Option<usize>,
    /// Positions at whose multiples the state is kept, so that another prompt can branch off
    /// there. A multiple of 128 keeps the states small.
    pub keep_every: usize,
    /// Most memory for kept states beside their pages, in bytes; 0 keeps none. `None` for what a
    /// whole context of every session leaves behind, but not more than 1 GiB.
    pub kept_bytes: Option<usize>,
    /// Row format of the KV cache.
    pub kv_format: KvFormat,
    /// Tokens per prefill step.
    pub prefill_chunk: usize,
    /// Rows of logits that one step can give; more than one only for scoring.
    pub max_outputs: usize,
    /// Whether tokens are drafted, and how.
    pub speculation: SpeculationOptions,
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
            cache_tokens: None,
            keep_every: 1024,
            kept_bytes: None,
            kv_format: KvFormat::default(),
            prefill_chunk: 256,
            max_outputs: 1,
            speculation: SpeculationOptions::default(),
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
        in_range("the distance of kept states", self.keep_every, 1 << 24)?;
        let most = slots * (KvLayout::pages_for(context) + KEPT_ENDS);
        let pages = match self.cache_tokens {
            None => most,
            Some(tokens) if tokens >= context => KvLayout::pages_for(tokens).min(1 << 31),
            Some(tokens) => {
                return Err(EngineError::Setting {
                    name: "the size of the KV cache in tokens",
                    found: tokens.to_string(),
                    expected: format!("at least the context, {context}"),
                });
            }
        };
        if self.speculation.is_on() {
            let longest = self.speculation.longest_draft;
            in_range("the number of drafted tokens", longest, 64)?;
        }
        let (draft_rows, all_drafts) = self.speculation.rows(slots);
        // A decode step holds one row of every session, and drafts.
        let max_rows = chunk.max(slots + all_drafts);
        Ok(ExecutorOptions {
            kv_format: self.kv_format,
            capacity: KvCapacity {
                slots,
                context,
                pages,
            },
            max_rows,
            max_outputs: self.max_outputs.max(slots + all_drafts).min(max_rows),
            draft_rows,
            mtp: self.speculation.mtp,
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
    pub(crate) sequences: Sequences,
    pub(crate) speculator: Speculator,
    identity: u64,
    backend_name: &'static str,
    fingerprint: ModelFingerprint,
    options: EngineOptions,
    plan: MemoryPlan,
    pub(crate) max_rows: usize,
    max_outputs: usize,
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
        let mut plan = MemoryPlan::for_shape(file, &shape, options)?;
        plan.add_weights(mtp);
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
            sequences: Sequences::new(
                runner,
                executor_options.capacity.slots,
                executor_options.capacity.pages,
                options.keep_every,
                plan.kept_points,
            ),
            speculator: Speculator::new(options.speculation, executor_options.capacity.slots),
            identity: NEXT_IDENTITY.fetch_add(1, Ordering::Relaxed),
            backend_name,
            fingerprint: ModelFingerprint::of(file),
            options: *options,
            plan,
            max_rows: executor_options.max_rows,
            max_outputs: executor_options.max_outputs,
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
        self.sequences.runner().shape()
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
        self.sequences.runner().allocated().total()
    }

    /// Bytes of kept states at present, beside their pages.
    pub fn kept_bytes(&self) -> usize {
        self.sequences.kept().bytes()
    }

    /// Bytes of one session's KV state at `tokens` tokens.
    ///
    /// # Errors
    /// More tokens than the context.
    pub fn session_bytes(&self, tokens: usize) -> Result<usize, EngineError> {
        Ok(self.layer_bytes(tokens)?.iter().sum())
    }

    /// Steers all sessions along directions. The engine gets another fingerprint: KV state behind a
    /// steered model is none of the plain one's.
    ///
    /// # Errors
    /// Directions of another model, or a step that ran before.
    pub fn steer(&mut self, steering: &Steering) -> Result<(), EngineError> {
        if steering.is_idle() {
            return Ok(());
        }
        self.sequences.steer(steering)?;
        self.fingerprint = self.fingerprint.steered(steering);
        self.plan.activations += size_of_val(steering.directions());
        Ok(())
    }

    /// Steps of the model that ran.
    pub fn steps(&self) -> u64 {
        self.sequences.runs()
    }

    /// What drafting does and has done; `None` if it is off.
    pub fn speculation(&self) -> Option<SpeculationStatus> {
        self.speculator.is_on().then(|| self.speculator.status())
    }

    /// Pages of the KV cache that nobody uses, neither a session nor a kept state.
    pub fn free_pages(&self) -> usize {
        self.sequences.pages().free()
    }

    /// Drops all kept states: sessions then start from what they hold themselves, or from nothing.
    pub fn forget_kept(&mut self) {
        self.sequences.forget_kept();
    }

    pub(crate) fn kv_format(&self) -> KvFormat {
        self.sequences.runner().layout().format
    }

    /// A new, empty session.
    ///
    /// # Errors
    /// All sessions are in use.
    pub fn session(&mut self) -> Result<Session, EngineError> {
        let sequence = self.sequences.open().ok_or(self.no_free_session())?;
        Ok(self.session_of(sequence))
    }

    /// A second session with the tokens and the state of `session`. The compressed rows are
    /// shared, not copied, until one of both writes to a page.
    ///
    /// # Errors
    /// All sessions are in use, or a failure of the backend.
    pub fn fork(&mut self, session: &Session) -> Result<Session, EngineError> {
        self.check_owner(session)?;
        let fork = self.sequences.fork(&session.sequence)?;
        Ok(self.session_of(fork.ok_or(self.no_free_session())?))
    }

    fn session_of(&self, sequence: Sequence) -> Session {
        Session {
            engine: self.identity,
            sequence,
            drafts: SessionDrafts::default(),
        }
    }

    fn no_free_session(&self) -> EngineError {
        EngineError::NoFreeSession {
            slots: self.options.sessions,
        }
    }

    /// Ends a session and frees what it occupied. States kept of it stay for others.
    pub fn close(&mut self, session: Session) {
        if session.engine == self.identity {
            self.sequences.close(session.sequence);
        }
    }

    /// Makes `session` hold exactly `tokens`, computing only what it lacks.
    ///
    /// A common prefix is reused: all of it when `tokens` extends the session, otherwise up to the
    /// last kept state inside it, of this or any other session. States are kept at multiples of
    /// [`EngineOptions::keep_every`] and at the end of every sync. After a cancelled sync the
    /// session holds a prefix of `tokens`, ready to be synced again.
    ///
    /// # Errors
    /// No tokens, more than the context, or a failure of the backend; after the
    /// latter the session is empty.
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
        self.judge_draft(session, None);
        let sequence = &mut session.sequence;
        let reused = self.sequences.rewind(sequence, tokens)?.tokens;
        let total = tokens.len() - reused;
        let mut cancelled = false;
        while sequence.tokens().len() < tokens.len() {
            if control.cancel.load(Ordering::Relaxed) {
                cancelled = true;
                break;
            }
            let start = sequence.tokens().len();
            let end = self.sequences.next_stop(start, tokens.len(), self.max_rows);
            advance(
                &mut self.sequences,
                sequence,
                &tokens[start..end],
                end == tokens.len(),
            )?;
            session.drafts.drafter.computed = Some(ComputedRows {
                run: self.sequences.runs(),
                first: 0,
                position: start,
                count: end - start,
            });
            (control.progress)(end - reused, total);
        }
        let evaluated = sequence.tokens().len() - reused;
        // A single token is a decode step; copying state there would cost more than it saves.
        if evaluated > 1 && !cancelled {
            self.sequences.keep(sequence, true)?;
        }
        Ok(SyncReport {
            reused,
            evaluated,
            cancelled,
        })
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
        self.check(session, session.position() + tokens.len())?;
        let sequence = &mut session.sequence;
        let reused = sequence.tokens().len();
        let mut cancelled = false;
        let chunk = self.max_rows.min(self.max_outputs);
        for (index, part) in tokens.chunks(chunk).enumerate() {
            if control.cancel.load(Ordering::Relaxed) {
                cancelled = true;
                break;
            }
            self.sequences.add(sequence, part, &[], 0..part.len())?;
            run(&mut self.sequences, sequence)?;
            for row in 0..part.len() {
                self.sequences
                    .advance(sequence, &part[row..=row], Some(row))?;
                on_logits(index * chunk + row, &sequence.logits);
            }
            (control.progress)(sequence.tokens().len() - reused, tokens.len());
        }
        Ok(SyncReport {
            reused,
            evaluated: sequence.tokens().len() - reused,
            cancelled,
        })
    }

    fn check_owner(&self, session: &Session) -> Result<(), EngineError> {
        if session.engine == self.identity {
            return Ok(());
        }
        Err(EngineError::SessionLost {
            reason: "it belongs to another engine",
        })
    }

    pub(crate) fn check(&self, session: &Session, tokens: usize) -> Result<(), EngineError> {
        self.check_owner(session)?;
        if tokens > self.options.context {
            return Err(EngineError::ContextFull {
                tokens,
                context: self.options.context,
            });
        }
        Ok(())
    }

    pub(crate) fn save_state(&mut self, session: &Session) -> Result<Vec<Vec<u8>>, EngineError> {
        self.check_owner(session)?;
        Ok(self.sequences.save(&session.sequence)?.layers)
    }

    pub(crate) fn layer_bytes(&self, tokens: usize) -> Result<Vec<usize>, EngineError> {
        if tokens > self.options.context {
            return Err(EngineError::ContextFull {
                tokens,
                context: self.options.context,
            });
        }
        Ok(self.sequences.runner().sequence_bytes(tokens)?)
    }

    pub(crate) fn restore_state(
        &mut self,
        tokens: Vec<TokenId>,
        logits: Vec<f32>,
        layers: Vec<Vec<u8>>,
    ) -> Result<Session, EngineError> {
        let mut session = self.session()?;
        let sequence = &mut session.sequence;
        let state = SequenceState { layers };
        let restored = self
            .sequences
            .restore(sequence, tokens, logits, &state)
            .and_then(|()| self.sequences.keep(sequence, true));
        match restored {
            Ok(()) => Ok(session),
            Err(error) => {
                self.close(session);
                Err(error)
            }
        }
    }
}

/// One step of one sequence; `last` says whether its logits are wanted.
fn advance(
    sequences: &mut Sequences,
    sequence: &mut Sequence,
    tokens: &[TokenId],
    last: bool,
) -> Result<(), EngineError> {
    let outputs = if last {
        tokens.len() - 1..tokens.len()
    } else {
        0..0
    };
    sequences.add(sequence, tokens, &[], outputs)?;
    run(sequences, sequence)?;
    sequences.advance(sequence, tokens, last.then_some(0))?;
    if sequences.is_kept_position(sequence.tokens().len()) {
        sequences.keep(sequence, false)?;
    }
    Ok(())
}

/// Runs the step of one sequence, which is empty after a failure.
fn run(sequences: &mut Sequences, sequence: &mut Sequence) -> Result<(), EngineError> {
    let result = sequences.run(&|| false);
    if result.is_err() {
        sequences.reset(sequence);
    }
    result
}
