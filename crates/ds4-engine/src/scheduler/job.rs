//! One request on its way: what it has, what comes next, and what its sink is told.

use std::cmp::Reverse;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use ds4_model::TokenId;

use crate::constraint::{ConstraintState, TokenConstraint, TokenMask};
use crate::disk_cache::DiskLookup;
use crate::event::{
    CachedTokens, Closed, FinishReason, GenerationError, GenerationEvent, GenerationSink,
    Speculation, Timings, TokenLogprobs, Usage,
};
use crate::request::{Constraint, GenerationRequest, Priority, ReasoningBudget};
use crate::sampler::{Sampler, SamplerError, logprobs};
use crate::scheduler::masks::MaskTask;
use crate::sequences::{Sequence, room_for_drafts};
use crate::service::{RequestId, RunningRequest};
use crate::speculation::drafter::{Candidate, Drafter, MtpWindow};

/// Steps that a prompt is passed over in favour of a higher priority before it gets a share.
const PATIENCE: u64 = 32;

/// A request. Its tokens are the prompt and what was generated; the sequence holds a prefix of them,
/// all or all but one while it decodes.
pub(crate) struct Job {
    pub(crate) id: RequestId,
    pub(crate) priority: Priority,
    cache_key: Option<u64>,
    deadline: Option<Instant>,
    sink: Box<dyn GenerationSink>,

    pub(crate) tokens: Vec<TokenId>,
    pub(crate) prompt: usize,
    generated: usize,
    max_tokens: usize,
    stop_tokens: Vec<TokenId>,
    logprobs: Option<usize>,
    sampler: Sampler,
    grammar: Grammar,
    /// What may come next, if it was computed, and the memory of earlier masks.
    mask: Option<TokenMask>,
    spare_mask: Option<TokenMask>,
    /// Until reasoning has ended.
    reasoning: Option<ReasoningBudget>,

    /// Only while it runs.
    pub(crate) sequence: Option<Sequence>,
    pub(crate) drafter: Drafter,
    /// Drafted for the present step, behind its last token.
    pub(crate) draft: Vec<TokenId>,
    speculation: Speculation,
    pub(crate) cached: CachedTokens,
    /// Whether a prefix was looked for on disk.
    pub(crate) lookup: DiskLookup,
    pub(crate) cancelled: bool,
    /// The step that it was part of last.
    pub(crate) served: u64,
    /// A step that it was part of failed: it runs alone until it holds so many tokens.
    alone_until: usize,
    reported_position: Option<usize>,
    submitted: Instant,
    started: Option<Instant>,
    prefilled: Option<Instant>,
}

/// What may be sampled.
enum Grammar {
    Free,
    /// Free until this token.
    After(TokenId, Box<dyn TokenConstraint>),
    Bound(Box<dyn TokenConstraint>),
    /// With the thread that computes masks.
    Away,
    /// It could not say what comes next.
    Failed(GenerationError),
}

/// How a request ended.
pub(crate) type Ending = Result<FinishReason, GenerationError>;

impl Job {
    /// A job for `request`.
    ///
    /// # Errors
    /// A setting of the sampler is out of range.
    pub(crate) fn new(
        id: RequestId,
        request: GenerationRequest,
        sink: Box<dyn GenerationSink>,
    ) -> Result<Self, SamplerError> {
        let mut sampler = Sampler::new(request.sampling)?;
        sampler.begin(&request.tokens);
        Ok(Self {
            id,
            priority: request.priority,
            cache_key: request.cache_key,
            deadline: request.deadline,
            sink,
            prompt: request.tokens.len(),
            tokens: request.tokens,
            generated: 0,
            max_tokens: request.max_tokens,
            stop_tokens: request.stop_tokens,
            logprobs: request.logprobs,
            sampler,
            grammar: match request.constraint {
                None => Grammar::Free,
                Some(Constraint {
                    automaton,
                    starts_after: None,
                }) => Grammar::Bound(automaton),
                Some(Constraint {
                    automaton,
                    starts_after: Some(token),
                }) => Grammar::After(token, automaton),
            },
            mask: None,
            spare_mask: None,
            reasoning: request.reasoning,
            sequence: None,
            drafter: Drafter::default(),
            draft: Vec::new(),
            speculation: Speculation::default(),
            cached: CachedTokens::default(),
            lookup: DiskLookup::default(),
            cancelled: false,
            served: 0,
            alone_until: 0,
            reported_position: None,
            submitted: Instant::now(),
            started: None,
            prefilled: None,
        })
    }

    /// Who goes first: who came first, where a lower priority counts as having come later.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        (self.submitted + self.priority.handicap(), self.id)
    }

    /// Whose prompt goes first in step `step`: who was passed over too often, then by priority, and
    /// of one priority who was served longest ago.
    pub(crate) fn prefill_rank(&self, step: u64) -> impl Ord + use<> {
        let is_starved = step.saturating_sub(self.served) > PATIENCE;
        (!is_starved, Reverse(self.priority), self.served, self.id)
    }

    /// Tokens that the sequence holds.
    pub(crate) fn position(&self) -> usize {
        self.sequence
            .as_ref()
            .map_or(0, |sequence| sequence.tokens().len())
    }

    /// Tokens that the sequence still lacks.
    pub(crate) fn missing(&self) -> usize {
        self.tokens.len() - self.position()
    }

    /// Tokens generated, a final stop token included.
    pub(crate) fn generated(&self) -> usize {
        self.generated
    }

    /// Whether it has to run alone, to show whether it makes steps fail.
    pub(crate) fn runs_alone(&self) -> bool {
        self.position() < self.alone_until
    }

    /// It was part of a step that failed.
    pub(crate) fn run_alone(&mut self) {
        self.alone_until = self.tokens.len();
    }

    /// Takes a slot; whether for the first time.
    pub(crate) fn start(&mut self, sequence: Sequence) -> bool {
        self.sequence = Some(sequence);
        // The window lies in the slot that it had.
        self.drafter.window = MtpWindow::default();
        self.reported_position = None;
        let is_first = self.started.is_none();
        self.started.get_or_insert_with(Instant::now);
        is_first
    }

    /// Why it has to end before it is done, if it has to.
    pub(crate) fn must_end(&self, now: Instant) -> Option<FinishReason> {
        // Code of the face: a panic in it counts as a closed sink.
        let is_closed = || catch_unwind(AssertUnwindSafe(|| self.sink.is_closed())).unwrap_or(true);
        if self.cancelled || is_closed() {
            return Some(FinishReason::Cancelled);
        }
        self.deadline
            .is_some_and(|deadline| deadline <= now)
            .then_some(FinishReason::Deadline)
    }

    /// Tells its place in the queue if that changed.
    pub(crate) fn report_position(&mut self, position: usize) {
        if self.reported_position != Some(position) {
            self.reported_position = Some(position);
            self.tell(GenerationEvent::Queued { position });
        }
    }

    /// Tells how much of the prompt is done.
    pub(crate) fn report_prefill(&mut self) {
        let done = self.position().min(self.prompt);
        if done == self.prompt {
            self.prefilled.get_or_insert_with(Instant::now);
        }
        self.tell(GenerationEvent::Prefill {
            done,
            total: self.prompt,
            cached: self.cached.total(),
        });
    }

    /// Sends an event; a sink that is closed, or panics, cancels the request.
    fn tell(&mut self, event: GenerationEvent) {
        let sent = catch_unwind(AssertUnwindSafe(|| self.sink.send(event)));
        if sent.unwrap_or(Err(Closed)).is_err() {
            self.cancelled = true;
        }
    }

    /// Sends the last event.
    pub(crate) fn end(mut self, ending: Ending) {
        let event = match ending {
            Err(error) => GenerationEvent::Failed(error),
            Ok(reason) => GenerationEvent::Finished {
                reason,
                usage: Usage {
                    prompt: self.prompt,
                    cached: self.cached,
                    generated: self.generated,
                    speculation: self.speculation,
                },
                timings: self.timings(Instant::now()),
            },
        };
        self.tell(event);
    }

    fn timings(&self, now: Instant) -> Timings {
        let started = self.started.unwrap_or(now);
        let prefilled = self.prefilled.unwrap_or(now);
        Timings {
            queued: started.saturating_duration_since(self.submitted),
            prefill: prefilled.saturating_duration_since(started),
            decode: now.saturating_duration_since(prefilled),
        }
    }

    /// What the prefill of a token took, if enough were computed to say.
    pub(crate) fn prefill_seconds_per_token(&self) -> Option<f64> {
        let took = self.prefilled?.saturating_duration_since(self.started?);
        let computed = self.prompt.saturating_sub(self.cached.total());
        (computed >= 32).then(|| took.as_secs_f64() / computed as f64)
    }

    /// How long it has been worked on.
    pub(crate) fn worked(&self) -> Duration {
        self.started
            .map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// What the status shows.
    pub(crate) fn summary(&self) -> RunningRequest {
        RunningRequest {
            id: self.id,
            cache_key: self.cache_key,
            priority: self.priority,
            prefilled: self.position().min(self.prompt),
            prompt: self.prompt,
            generated: self.generated,
        }
    }

    /// What can be drafted for it, in drafts of at most `longest` tokens, if it decodes.
    pub(crate) fn candidate(&mut self, context: usize, longest: usize) -> Option<Candidate<'_>> {
        let sequence = self.sequence.as_ref()?;
        let (&next, known) = self.tokens.split_last()?;
        if sequence.tokens().len() != known.len() {
            return None;
        }
        // Each row gives a token, that of the last sampled one included.
        let mut wanted = self.max_tokens - self.generated.min(self.max_tokens);
        if let Some(budget) = &self.reasoning {
            wanted = wanted.min(budget.tokens.saturating_sub(self.generated));
        }
        let length = self.tokens.len();
        let room = room_for_drafts(length).min(context.saturating_sub(length));
        Some(Candidate {
            drafter: &mut self.drafter,
            slot: sequence.slot(),
            known,
            next,
            most: longest.min(wanted.saturating_sub(1)).min(room),
            draft: &mut self.draft,
        })
    }

    /// Drops drafted tokens that cannot be part of the answer.
    pub(crate) fn cut_draft(&mut self) {
        if self.draft.is_empty() {
            return;
        }
        let is_stop = |token: &TokenId| self.stop_tokens.contains(token);
        let stop = self.draft.iter().position(is_stop);
        self.draft.truncate(stop.unwrap_or(self.draft.len()));
        let allowed = catch_unwind(AssertUnwindSafe(|| self.allowed_draft()));
        self.draft.truncate(allowed.unwrap_or(0));
    }

    /// How many of the drafted tokens the grammar takes.
    fn allowed_draft(&self) -> usize {
        match &self.grammar {
            Grammar::Free => self.draft.len(),
            Grammar::After(start, _) => {
                let start = self.draft.iter().position(|token| token == start);
                start.map_or(self.draft.len(), |at| at + 1)
            }
            Grammar::Bound(automaton) => {
                let mut automaton = automaton.fork();
                let takes = |&token: &TokenId| automaton.accept(token).is_ok();
                self.draft.iter().copied().take_while(takes).count()
            }
            Grammar::Away | Grammar::Failed(_) => 0,
        }
    }

    /// Counts a draft.
    pub(crate) fn count_draft(&mut self, drafted: usize, accepted: usize) {
        self.speculation.drafted += drafted;
        self.speculation.accepted += accepted;
    }

    /// The mask that the next token needs, to be computed while the model runs.
    pub(crate) fn mask_task(&mut self, vocabulary: usize) -> Option<MaskTask> {
        if self.reasoning_is_spent() || self.generated >= self.max_tokens {
            return None;
        }
        match std::mem::replace(&mut self.grammar, Grammar::Away) {
            Grammar::Bound(automaton) => {
                let mask = self.mask.take().or(self.spare_mask.take());
                let mask = mask.unwrap_or_else(|| TokenMask::new(vocabulary));
                Some(MaskTask::new(self.id, automaton, mask))
            }
            other => {
                self.grammar = other;
                None
            }
        }
    }

    /// Takes a computed mask back.
    pub(crate) fn take_mask(&mut self, task: MaskTask) {
        self.grammar = match task.finish() {
            Ok((automaton, mask)) => {
                self.mask = Some(mask);
                Grammar::Bound(automaton)
            }
            Err(error) => Grammar::Failed(error),
        };
    }

    /// Picks what follows, with the logits after the last token: usually one token. `Some` if that
    /// ends the request. `context`: most tokens of a request.
    pub(crate) fn generate(&mut self, context: usize) -> Option<Ending> {
        if self.generated >= self.max_tokens {
            return Some(Ok(FinishReason::Length));
        }
        if self.reasoning_is_spent() {
            let closing = self.reasoning.take().map(|budget| budget.closing);
            return closing?
                .into_iter()
                .find_map(|token| self.append(token, context));
        }
        match self.sample() {
            Ok(token) => self.append(token, context),
            Err(error) => Some(Err(error)),
        }
    }

    fn reasoning_is_spent(&self) -> bool {
        let spent = |budget: &ReasoningBudget| self.generated >= budget.tokens;
        self.reasoning.as_ref().is_some_and(spent)
    }

    fn sample(&mut self) -> Result<TokenId, GenerationError> {
        let logits = self.sequence.as_ref().map_or(&[][..], |held| &held.logits);
        match &mut self.grammar {
            Grammar::Free | Grammar::After(..) => Ok(self.sampler.sample(logits)),
            Grammar::Bound(automaton) => {
                let mask = match self.mask.take() {
                    Some(mask) => mask,
                    // Behind a drafted token nothing was computed ahead.
                    None => {
                        let spare = self.spare_mask.take();
                        let mut mask = spare.unwrap_or_else(|| TokenMask::new(logits.len()));
                        automaton
                            .mask(&mut mask)
                            .map_err(|error| GenerationError::Constraint(error.to_string()))?;
                        mask
                    }
                };
                let sampled = self.sampler.sample_masked(logits, &mask);
                self.spare_mask = Some(mask);
                sampled.map_err(|empty| GenerationError::Constraint(empty.to_string()))
            }
            Grammar::Failed(error) => Err(error.clone()),
            Grammar::Away => Err(GenerationError::Internal("no mask was computed".to_owned())),
        }
    }

    /// One more token of the answer. `Some` if it is the last.
    fn append(&mut self, token: TokenId, context: usize) -> Option<Ending> {
        self.generated += 1;
        self.sampler.accept(token);
        if self.stop_tokens.contains(&token) {
            return Some(Ok(FinishReason::Stop { token }));
        }
        let logprobs = self.token_logprobs(token);
        self.tokens.push(token);
        self.tell(GenerationEvent::Token {
            id: token,
            logprobs,
        });
        if self.cancelled {
            return Some(Ok(FinishReason::Cancelled));
        }
        if self
            .reasoning
            .as_ref()
            .is_some_and(|budget| budget.end == token)
        {
            self.reasoning = None;
        }
        match self.advance_grammar(token) {
            Err(error) => return Some(Err(error)),
            Ok(ConstraintState::Finished) => return Some(Ok(FinishReason::Constraint)),
            Ok(ConstraintState::Open | ConstraintState::Complete) => {}
        }
        if self.generated >= self.max_tokens {
            return Some(Ok(FinishReason::Length));
        }
        (self.tokens.len() >= context).then_some(Ok(FinishReason::ContextFull))
    }

    fn advance_grammar(&mut self, token: TokenId) -> Result<ConstraintState, GenerationError> {
        match std::mem::replace(&mut self.grammar, Grammar::Free) {
            Grammar::Bound(mut automaton) => {
                let state = automaton
                    .accept(token)
                    .map_err(|error| GenerationError::Constraint(error.to_string()))?;
                self.grammar = Grammar::Bound(automaton);
                Ok(state)
            }
            Grammar::After(start, automaton) if start == token => {
                self.grammar = Grammar::Bound(automaton);
                Ok(ConstraintState::Open)
            }
            other => {
                self.grammar = other;
                Ok(ConstraintState::Open)
            }
        }
    }

    fn token_logprobs(&self, token: TokenId) -> Option<TokenLogprobs> {
        let (top, sequence) = self.logprobs.zip(self.sequence.as_ref())?;
        let mut alternatives = Vec::new();
        let logprob = logprobs(&sequence.logits, token, top, &mut alternatives);
        Some(TokenLogprobs {
            logprob,
            top: alternatives
                .into_iter()
                .map(|other| (other.token, other.logprob))
                .collect(),
        })
    }
}
