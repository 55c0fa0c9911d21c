//! From a turn to the engine and back: prompt tokens, grammar, sampled tokens, events.

mod keeping;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ds4_chat::{
    ControlToken, ParserOptions, Piece, ReasoningEffort, Role, ThinkingMode, Vintage, render,
};
use ds4_engine::{
    Closed, Constraint, FinishReason as EngineReason, GenerationEvent, GenerationRequest,
    GenerationSink, InferenceService, ReasoningBudget, RequestId, SamplerSettings, SubmitError,
};
use ds4_grammar::{GrammarLimits, PendingFactory};
use ds4_tokenizer::{TokenId, Tokenizer};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::formats;
use crate::observe::RequestRecord;
use crate::openai::CompletionRequest;
use crate::owner::Owner;
use crate::replay::{AnswerStore, RememberedAnswer, ReplayMemory, SampledAnswer, VisibleHash};
use crate::responses::KeptResponses;
use crate::turn::{
    Answer, Assembler, AssemblerOptions, DEFAULT_MAX_TOKENS, FinishReason, GenerationEnd, Thinking,
    ToolUse, TurnEnd, TurnEvent, TurnRequest, Usage,
};
use crate::wire::RequestError;

/// The context from which on the reference's longest reasoning makes sense; below, "max" is "high".
const MAX_EFFORT_CONTEXT: usize = 393_216;

/// Everything that a turn needs.
pub struct Inference {
    service: Arc<dyn InferenceService>,
    tokenizer: Tokenizer,
    vintage: Vintage,
    controls: Controls,
    grammars: PendingFactory,
    replay: Mutex<ReplayMemory>,
    /// Where answers are kept beyond the end of the process.
    answers: Option<AnswerStore>,
    responses: Mutex<KeptResponses>,
    /// Whose the requests are that the engine works on.
    owners: Mutex<HashMap<RequestId, Owner>>,
    sampling: SamplerSettings,
    thinking: Thinking,
}

/// The control tokens that end an answer or its reasoning.
#[derive(Debug)]
struct Controls {
    think_end: TokenId,
    ends: Vec<TokenId>,
}

/// A vocabulary that cannot be used for conversations.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the vocabulary has no control token `{0}`, which conversations need")]
pub struct MissingControlToken(&'static str);

/// Why a turn cannot be generated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TurnError {
    /// The request is at fault.
    #[error(transparent)]
    Request(RequestError),
    /// The prompt leaves no room for an answer.
    #[error("a prompt of {tokens} tokens does not fit the context of {context}")]
    TooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of the context.
        context: usize,
    },
    /// Too many wait.
    #[error("{message}")]
    Busy {
        /// How many.
        message: String,
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// The engine takes nothing.
    #[error("{0}")]
    Unavailable(String),
}

impl From<RequestError> for TurnError {
    fn from(error: RequestError) -> Self {
        Self::Request(error)
    }
}

/// A turn that is ready to be generated.
pub struct PreparedTurn {
    request: GenerationRequest,
    options: ParserOptions,
    stop: Vec<String>,
    owner: Owner,
    /// What a client has seen up to the answer.
    place: VisibleHash,
    /// Tokens of the answer that the prompt has opened; `None` if the answer's start is the client's.
    opening: Option<Vec<TokenId>>,
}

impl PreparedTurn {
    /// Tokens of the prompt.
    pub fn prompt(&self) -> &[TokenId] {
        &self.request.tokens
    }
}

impl Inference {
    /// A front of `service`, whose model has this vocabulary.
    ///
    /// # Errors
    /// A vocabulary without the control tokens of conversations.
    pub fn new(
        service: Arc<dyn InferenceService>,
        tokenizer: Tokenizer,
        vintage: Vintage,
        sampling: SamplerSettings,
        thinking: Thinking,
    ) -> Result<Self, MissingControlToken> {
        let id = |token: ControlToken| {
            tokenizer
                .special(token.text())
                .ok_or(MissingControlToken(token.text()))
        };
        let controls = Controls {
            think_end: id(ControlToken::ThinkEnd)?,
            // A model that begins another turn has ended its own.
            ends: vec![
                id(ControlToken::EndOfSentence)?,
                id(ControlToken::User)?,
                id(ControlToken::Assistant)?,
                id(ControlToken::BeginOfSentence)?,
            ],
        };
        let grammars =
            ds4_grammar::GrammarFactory::in_background(&tokenizer, GrammarLimits::default());
        Ok(Self {
            service,
            tokenizer,
            vintage,
            controls,
            grammars,
            replay: Mutex::default(),
            answers: None,
            responses: Mutex::default(),
            owners: Mutex::default(),
            sampling,
            thinking,
        })
    }

    /// Whether a request that the engine works on is this owner's.
    pub(crate) fn is_of(&self, request: RequestId, owner: Owner) -> bool {
        owner == Owner::ANYBODY || self.owners().get(&request) == Some(&owner)
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<RequestId, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine.
    pub(crate) fn service(&self) -> &dyn InferenceService {
        &*self.service
    }

    /// The vocabulary.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// How requests are sampled that do not say.
    pub(crate) fn sampling(&self) -> &SamplerSettings {
        &self.sampling
    }

    /// How requests think that do not say.
    pub(crate) fn thinking(&self) -> Thinking {
        self.thinking
    }

    /// The prompt as text, for people to look at.
    ///
    /// # Errors
    /// A conversation that cannot be rendered.
    pub fn prompt_text(&self, turn: &TurnRequest) -> Result<String, RequestError> {
        let mut conversation = turn.conversation.clone();
        self.settle(&mut conversation.reasoning_effort);
        render(&conversation, self.vintage)
            .map(|prompt| prompt.text())
            .map_err(|error| RequestError::field("messages", error.to_string()))
    }

    /// The tokens of the prompt, with the owner's sampled answers in the place of their texts.
    ///
    /// # Errors
    /// A conversation that cannot be rendered.
    pub(crate) fn prompt_tokens(
        &self,
        turn: &TurnRequest,
        owner: Owner,
    ) -> Result<(Vec<TokenId>, VisibleHash), RequestError> {
        let mut conversation = turn.conversation.clone();
        self.settle(&mut conversation.reasoning_effort);
        let mut place = VisibleHash::start(owner);
        let mut answers: Vec<Arc<RememberedAnswer>> = Vec::new();
        let memory = self.memory();
        for message in &mut conversation.messages {
            place = place.then(message);
            if message.role == Role::Assistant
                && let Some(answer) = memory.find(owner, message, place)
            {
                message.replay = Some(answers.len() as u64);
                answers.push(answer);
            }
        }
        drop(memory);
        let prompt = render(&conversation, self.vintage)
            .map_err(|error| RequestError::field("messages", error.to_string()))?;
        let mut ids = Vec::new();
        for piece in prompt.pieces() {
            match piece {
                Piece::Text(text) => self.tokenizer.encode(text, &mut ids),
                Piece::Special(token) => {
                    let id = self.tokenizer.special(token.text());
                    ids.push(id.ok_or_else(|| {
                        RequestError::new(format!(
                            "the model's vocabulary has no control token `{token}`, which this request needs"
                        ))
                    })?);
                }
                Piece::Sampled {
                    answer,
                    with_reasoning,
                } => {
                    let Some(answer) = answers.get(*answer as usize) else {
                        continue;
                    };
                    let answer = &answer.sampled;
                    if *with_reasoning {
                        if answer.reasoning == 0 {
                            // It was sampled without thinking; now its prompt opens it.
                            ids.push(self.controls.think_end);
                        }
                        ids.extend_from_slice(&answer.ids);
                    } else {
                        ids.extend_from_slice(&answer.ids[answer.reasoning..]);
                    }
                }
            }
        }
        Ok((ids, place))
    }

    /// "Max" needs room to pay off.
    fn settle(&self, effort: &mut Option<ReasoningEffort>) {
        if *effort == Some(ReasoningEffort::Max)
            && self.service.model().context < MAX_EFFORT_CONTEXT
        {
            *effort = Some(ReasoningEffort::High);
        }
    }

    /// Makes a turn ready. Compiles its grammar: not for a thread that serves sockets.
    ///
    /// # Errors
    /// A turn that cannot be generated.
    pub fn prepare(&self, turn: &TurnRequest, owner: Owner) -> Result<PreparedTurn, TurnError> {
        let (prompt, place) = self.prompt_tokens(turn, owner)?;
        let context = self.service.model().context;
        if prompt.len() >= context {
            return Err(TurnError::TooLong {
                tokens: prompt.len(),
                context,
            });
        }
        let thinking = turn.conversation.thinking_mode == ThinkingMode::On;
        let last = turn.conversation.messages.last();
        let continues = last.is_some_and(|message| message.prefix);
        // A prefix of the answer itself comes after the reasoning.
        let in_answer = continues && last.is_some_and(|message| !message.content.text().is_empty());
        let reasons = thinking && !in_answer;
        let forced = matches!(
            turn.tool_use,
            ToolUse::Required | ToolUse::Named(_) | ToolUse::Among { required: true, .. }
        );
        let starts_in_tool_calls = forced && !thinking && !turn.tools.is_empty() && !continues;
        let grammar = formats::grammar(&self.grammars, turn, starts_in_tool_calls)?;
        let room = context - prompt.len();
        let max_tokens = turn.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS).min(room);
        let opening = if continues {
            None
        } else if starts_in_tool_calls {
            let header = prompt.iter().rposition(|&id| id == self.controls.think_end);
            header.map(|at| prompt[at + 1..].to_vec())
        } else {
            Some(Vec::new())
        };
        let mut request = GenerationRequest::new(prompt, max_tokens);
        request.sampling = turn.sampling.clone();
        request.stop_tokens = self.controls.ends.clone();
        request.constraint = grammar.map(|grammar| Constraint {
            automaton: Box::new(grammar.constraint()),
            starts_after: reasons.then_some(self.controls.think_end),
        });
        request.reasoning =
            turn.reasoning_budget
                .filter(|_| reasons)
                .map(|tokens| ReasoningBudget {
                    tokens,
                    end: self.controls.think_end,
                    closing: vec![self.controls.think_end],
                });
        request.logprobs = turn.top_logprobs;
        request.priority = turn.priority;
        request.cache_key = turn.cache_key.as_deref().map(|key| {
            let mut hasher = blake3::Hasher::new();
            hasher.update(owner.as_bytes());
            hasher.update(key.as_bytes());
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
            u64::from_le_bytes(bytes)
        });
        Ok(PreparedTurn {
            opening,
            request,
            options: ParserOptions {
                thinking: reasons,
                tools: !turn.tools.is_empty() && turn.tool_use != ToolUse::None,
                starts_in_tool_calls,
                continues_prefix: continues,
                ..ParserOptions::default()
            },
            stop: turn.stop.clone(),
            owner,
            place,
        })
    }

    /// Gives a turn to the engine.
    ///
    /// # Errors
    /// The engine does not take it.
    pub(crate) fn start(
        self: &Arc<Self>,
        prepared: PreparedTurn,
        call_id_prefix: &'static str,
        record: Arc<RequestRecord>,
    ) -> Result<RunningTurn, TurnError> {
        let (sender, receiver) = unbounded_channel();
        let total = prepared.request.tokens.len();
        record.prompt(total, || {
            self.tokenizer.decode_lossy(&prepared.request.tokens)
        });
        let assembler = Assembler::new(
            &self.tokenizer,
            AssemblerOptions {
                parser: prepared.options,
                stop: prepared.stop,
                call_id_prefix,
            },
        );
        let id = self
            .service
            .submit(prepared.request, Box::new(ChannelSink(sender)))
            .map_err(|error| submit_error(&error))?;
        self.owners().insert(id, prepared.owner);
        Ok(RunningTurn {
            inference: Arc::clone(self),
            id,
            receiver,
            assembler: Some(assembler),
            remembered: prepared.opening.is_some(),
            sampled: prepared.opening.unwrap_or_default(),
            answer: Answer::default(),
            ready: Vec::new(),
            thinking: prepared.options.thinking,
            owner: prepared.owner,
            place: prepared.place,
            prompt: total,
            cached: 0,
            generated: Vec::new(),
            record,
        })
    }

    /// Makes a plain continuation ready. Compiles its grammar: not for a thread that serves sockets.
    ///
    /// # Errors
    /// A format that cannot be guaranteed, or no room for an answer.
    pub fn prepare_completion(
        &self,
        completion: &CompletionRequest,
        owner: Owner,
    ) -> Result<PreparedTurn, TurnError> {
        let mut prompt = Vec::new();
        match &completion.prompt_ids {
            Some(ids) => prompt.extend_from_slice(ids),
            None => {
                // The model has never seen a text that does not begin with it.
                prompt.extend(self.tokenizer.bos());
                self.tokenizer.encode(&completion.prompt, &mut prompt);
            }
        }
        let turn = TurnRequest {
            model: completion.model.clone(),
            conversation: ds4_chat::Conversation::default(),
            tools: Vec::new(),
            tool_use: ToolUse::None,
            parallel_tool_calls: false,
            format: completion.format.clone(),
            sampling: completion.sampling.clone(),
            max_tokens: Some(completion.max_tokens),
            stop: completion.stop.clone(),
            top_logprobs: None,
            reasoning_budget: None,
            priority: completion.priority,
            cache_key: None,
            stream: completion.stream,
        };
        let grammar = formats::grammar(&self.grammars, &turn, false)?;
        let context = self.service.model().context;
        let room = context.saturating_sub(prompt.len());
        if room == 0 {
            return Err(TurnError::TooLong {
                tokens: prompt.len(),
                context,
            });
        }
        let mut request = GenerationRequest::new(prompt, completion.max_tokens.min(room));
        request.sampling = turn.sampling.clone();
        request.stop_tokens = self.controls.ends.clone();
        request.priority = turn.priority;
        request.constraint = grammar.map(|grammar| Constraint {
            automaton: Box::new(grammar.constraint()),
            starts_after: None,
        });
        Ok(PreparedTurn {
            opening: None,
            request,
            options: ParserOptions {
                tools: false,
                continues_prefix: true,
                ..ParserOptions::default()
            },
            stop: turn.stop,
            owner,
            place: VisibleHash::start(owner),
        })
    }

    fn memory(&self) -> MutexGuard<'_, ReplayMemory> {
        // Nothing that could panic leaves it half changed.
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn submit_error(error: &SubmitError) -> TurnError {
    match error {
        SubmitError::QueueFull { retry_after, .. } => TurnError::Busy {
            message: error.to_string(),
            retry_after: *retry_after,
        },
        SubmitError::TooLong { tokens, context } => TurnError::TooLong {
            tokens: *tokens,
            context: *context,
        },
        SubmitError::ShuttingDown | SubmitError::Stopped(_) => {
            TurnError::Unavailable(error.to_string())
        }
        SubmitError::EmptyPrompt
        | SubmitError::UnknownToken { .. }
        | SubmitError::Sampler(_)
        | SubmitError::Setting { .. } => TurnError::Request(RequestError::new(error.to_string())),
    }
}

/// The engine's side of a running turn. The turn being dropped closes it.
struct ChannelSink(UnboundedSender<GenerationEvent>);

impl GenerationSink for ChannelSink {
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed> {
        // At most one event a token, and the answer's length is bounded.
        self.0.send(event).map_err(|_| Closed)
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// A turn being generated. Dropping it cancels the work; what was computed is kept.
pub(crate) struct RunningTurn {
    inference: Arc<Inference>,
    id: RequestId,
    receiver: UnboundedReceiver<GenerationEvent>,
    /// `None` once the answer is over.
    assembler: Option<Assembler>,
    /// Tokens of the answer, those included that the prompt has opened it with.
    sampled: Vec<TokenId>,
    /// Whether the answer is all the model's, so that it can be replayed.
    remembered: bool,
    answer: Answer,
    /// Events in reverse, the next one last.
    ready: Vec<TurnEvent>,
    thinking: bool,
    owner: Owner,
    place: VisibleHash,
    prompt: usize,
    cached: usize,
    /// All sampled tokens, if they are traced.
    generated: Vec<TokenId>,
    record: Arc<RequestRecord>,
}

impl Drop for RunningTurn {
    fn drop(&mut self) {
        self.inference.owners().remove(&self.id);
        let (usage, reason) = match &self.answer.end {
            Some(end) => (end.usage, Some(&end.reason)),
            None => {
                let counts = self.assembler.as_ref().map(Assembler::counts);
                let (completion, reasoning) = counts.unwrap_or_default();
                let usage = Usage {
                    completion,
                    reasoning,
                    ..self.usage()
                };
                (usage, None)
            }
        };
        let text = || self.inference.tokenizer.decode_lossy(&self.generated);
        self.record.generated(usage, reason, text);
    }
}

impl RunningTurn {
    /// The request's name in the engine.
    pub(crate) fn id(&self) -> RequestId {
        self.id
    }

    /// Tokens of the prompt, and those found so far.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            prompt: self.prompt,
            cached: self.cached,
            ..Usage::default()
        }
    }

    /// What came so far.
    pub(crate) fn answer(&self) -> &Answer {
        &self.answer
    }

    /// The next event; `None` after the last. Losing the future loses no event.
    pub(crate) async fn next(&mut self) -> Option<TurnEvent> {
        loop {
            if let Some(event) = self.ready.pop() {
                return Some(event);
            }
            self.assembler.as_ref()?;
            let mut events = match self.receiver.recv().await {
                Some(event) => self.take(event),
                // The engine is gone without a word.
                None => {
                    self.assembler = None;
                    self.record.failed("the engine has stopped");
                    vec![TurnEvent::Failed {
                        message: "the engine has stopped".to_owned(),
                    }]
                }
            };
            for event in &events {
                self.answer.add(event);
            }
            if let Some(TurnEvent::Finished(_)) = events.last() {
                self.remember();
            }
            events.reverse();
            self.ready = events;
        }
    }

    fn take(&mut self, event: GenerationEvent) -> Vec<TurnEvent> {
        match event {
            GenerationEvent::Queued { .. } => Vec::new(),
            GenerationEvent::Prefill {
                done,
                total,
                cached,
            } => {
                self.cached = cached;
                vec![TurnEvent::Prefill { done, total }]
            }
            GenerationEvent::Token { id, logprobs } => {
                let mut out = Vec::new();
                let Some(assembler) = &mut self.assembler else {
                    return out;
                };
                self.sampled.push(id);
                self.record.token();
                if self.record.is_traced() {
                    self.generated.push(id);
                }
                if let Some(logprobs) = logprobs {
                    let reasoning = assembler.is_reasoning();
                    let one = assembler.logprob((id, logprobs.logprob), &logprobs.top, reasoning);
                    out.push(TurnEvent::Logprobs(vec![one]));
                }
                if !assembler.token(id, &mut out) {
                    // A stop text, or the end of the tool block: the rest is of no use.
                    self.inference.service.cancel(self.id);
                    self.finish(GenerationEnd::EndToken, &mut out);
                }
                out
            }
            GenerationEvent::Finished {
                reason,
                usage,
                timings,
            } => {
                self.cached = usage.cached.total();
                self.record.queued(timings.queued);
                let mut out = Vec::new();
                let end = match reason {
                    EngineReason::Stop { .. } | EngineReason::Constraint => GenerationEnd::EndToken,
                    EngineReason::Length | EngineReason::ContextFull | EngineReason::Deadline => {
                        GenerationEnd::Length
                    }
                    EngineReason::Cancelled => GenerationEnd::Cancelled,
                };
                self.finish(end, &mut out);
                out
            }
            GenerationEvent::Failed(error) => {
                self.assembler = None;
                self.record.failed(&error.to_string());
                vec![TurnEvent::Failed {
                    message: error.to_string(),
                }]
            }
        }
    }

    fn finish(&mut self, end: GenerationEnd, out: &mut Vec<TurnEvent>) {
        let Some(assembler) = self.assembler.take() else {
            return;
        };
        let (completion, reasoning) = assembler.counts();
        let reason = assembler.finish(end, out);
        out.push(TurnEvent::Finished(TurnEnd {
            reason,
            usage: Usage {
                prompt: self.prompt,
                cached: self.cached,
                completion,
                reasoning,
            },
        }));
    }

    /// Keeps the tokens for the next request of this conversation.
    fn remember(&mut self) {
        let whole =
            self.answer.end.as_ref().is_some_and(|end| {
                matches!(end.reason, FinishReason::Stop | FinishReason::ToolCalls)
            });
        if !self.remembered || !whole || self.answer.calls.iter().any(|call| !call.complete) {
            return;
        }
        let think_end = self.inference.controls.think_end;
        let sampled = std::mem::take(&mut self.sampled);
        let Some(sampled) = SampledAnswer::new(sampled, self.thinking, think_end) else {
            return;
        };
        let calls: Vec<String> = self
            .answer
            .calls
            .iter()
            .map(|call| call.id.clone())
            .collect();
        let place = self.place.then_parts(
            Role::Assistant,
            &self.answer.text,
            calls.iter().map(String::as_str),
        );
        let answer = Arc::new(RememberedAnswer {
            owner: self.owner,
            place,
            calls,
            sampled,
        });
        self.inference.memory().remember(Arc::clone(&answer));
        if let Some(answers) = &self.inference.answers {
            answers.keep(answer);
        }
    }
}
