//! An engine that says what a plan tells it: for tests of everything above the engine.

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ds4_engine::{
    CachedTokens, EngineStatus, EngineTotals, FinishReason, GenerationError, GenerationEvent,
    GenerationRequest, GenerationSink, InferenceService, ModelFacts, ModelFingerprint, Priority,
    RequestId, RunningRequest, Speculation, SubmitError, Timings, Usage,
};
use ds4_model::{KvFormat, TokenId};
use ds4_tokenizer::Tokenizer;
use serde::Deserialize;

/// What a scripted engine says, turn by turn.
#[derive(Clone, Debug, Deserialize)]
pub struct Plan {
    /// One for each request; at the end of the plan the last one repeats.
    pub turns: Vec<PlannedTurn>,
    /// More requests than this at a time are refused; `None` for no limit.
    #[serde(default)]
    pub max_requests: Option<usize>,
}

/// One answer.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PlannedTurn {
    /// Raw generated text, reasoning and DSML included.
    pub text: String,
    /// Wait before each token.
    #[serde(default)]
    pub token_delay_ms: u64,
    /// Wait before the first token, in which the prompt is "computed".
    #[serde(default)]
    pub prefill_ms: u64,
    /// Why the answer fails after its text; it does not fail if there is nothing here.
    #[serde(default)]
    pub error: Option<String>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Tokens of the prompt.
    pub prompt: Vec<TokenId>,
    /// Tokens that were said.
    pub generated: usize,
    /// Why no more were.
    pub reason: FinishReason,
}

/// An [`InferenceService`] that emits the turns of a plan as tokens.
pub struct ScriptedService {
    shared: Arc<Shared>,
    facts: ModelFacts,
}

struct Shared {
    plan: Vec<Spoken>,
    next_turn: Mutex<usize>,
    next_id: AtomicU64,
    running: Mutex<Vec<(RequestId, Arc<AtomicBool>)>>,
    /// Prompts with their answers, to tell honestly what an engine would have found.
    known: Mutex<Vec<Vec<TokenId>>>,
    outcomes: Mutex<Vec<Outcome>>,
    totals: Mutex<EngineTotals>,
    max_requests: usize,
}

#[derive(Clone)]
struct Spoken {
    tokens: Vec<TokenId>,
    token_delay: Duration,
    prefill: Duration,
    error: Option<String>,
}

impl ScriptedService {
    /// A service with this plan; control tokens are recognised in its texts.
    ///
    /// # Errors
    /// A plan without turns.
    pub fn new(plan: &Plan, tokenizer: &Tokenizer, context: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(!plan.turns.is_empty(), "the plan has no turns");
        let spoken = plan
            .turns
            .iter()
            .map(|turn| {
                let mut tokens = Vec::new();
                tokenizer.encode_with_specials(&turn.text, &mut tokens);
                Spoken {
                    tokens,
                    token_delay: Duration::from_millis(turn.token_delay_ms),
                    prefill: Duration::from_millis(turn.prefill_ms),
                    error: turn.error.clone(),
                }
            })
            .collect();
        Ok(Self {
            shared: Arc::new(Shared {
                plan: spoken,
                next_turn: Mutex::new(0),
                next_id: AtomicU64::new(1),
                running: Mutex::default(),
                known: Mutex::default(),
                outcomes: Mutex::default(),
                totals: Mutex::default(),
                max_requests: plan.max_requests.unwrap_or(usize::MAX),
            }),
            facts: ModelFacts {
                name: "scripted".to_owned(),
                fingerprint: ModelFingerprint::from_bytes([0; 32]),
                context,
                vocabulary: tokenizer.vocabulary_size(),
                kv_format: KvFormat::default(),
                backend: "scripted",
            },
        })
    }

    /// What became of the requests so far, in the order in which they ended.
    pub fn outcomes(&self) -> Vec<Outcome> {
        lock(&self.shared.outcomes).clone()
    }

    /// Requests that have not ended.
    pub fn running(&self) -> usize {
        lock(&self.shared.running).len()
    }
}

static TOKENIZER: &[u8] =
    include_bytes!("../../ds4-tokenizer/tests/data/deepseek-v4-tokenizer.json.gz");

/// The vocabulary of DeepSeek V4.
///
/// # Errors
/// The file in the source tree is damaged.
pub fn deepseek_tokenizer() -> anyhow::Result<Tokenizer> {
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(TOKENIZER).read_to_end(&mut json)?;
    Ok(Tokenizer::from_json(&json)?)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl InferenceService for ScriptedService {
    fn submit(
        &self,
        request: GenerationRequest,
        sink: Box<dyn GenerationSink>,
    ) -> Result<RequestId, SubmitError> {
        let (tokens, context) = (request.tokens.len(), self.facts.context);
        if tokens == 0 {
            return Err(SubmitError::EmptyPrompt);
        }
        if tokens >= context {
            return Err(SubmitError::TooLong { tokens, context });
        }
        let vocabulary = self.facts.vocabulary;
        if let Some(&token) = request
            .tokens
            .iter()
            .find(|&&token| token as usize >= vocabulary)
        {
            return Err(SubmitError::UnknownToken { token, vocabulary });
        }
        let queued = lock(&self.shared.running).len();
        if queued >= self.shared.max_requests {
            lock(&self.shared.totals).refused += 1;
            let retry_after = Duration::from_millis(1500);
            return Err(SubmitError::QueueFull {
                queued,
                retry_after,
            });
        }
        lock(&self.shared.totals).requests += 1;
        let id = RequestId(self.shared.next_id.fetch_add(1, Ordering::Relaxed));
        let cancelled = Arc::new(AtomicBool::new(false));
        lock(&self.shared.running).push((id, Arc::clone(&cancelled)));
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            speak(&shared, &request, sink, &cancelled);
            lock(&shared.running).retain(|(other, _)| *other != id);
        });
        Ok(id)
    }

    fn cancel(&self, request: RequestId) {
        for (id, cancelled) in lock(&self.shared.running).iter() {
            if *id == request {
                cancelled.store(true, Ordering::Relaxed);
            }
        }
    }

    fn status(&self) -> EngineStatus {
        let running = lock(&self.shared.running)
            .iter()
            .map(|&(id, _)| RunningRequest {
                id,
                cache_key: None,
                priority: Priority::Normal,
                prefilled: 0,
                prompt: 0,
                generated: 0,
            })
            .collect();
        EngineStatus {
            slots: 64,
            queue_capacity: 64,
            running,
            totals: *lock(&self.shared.totals),
            ..EngineStatus::default()
        }
    }

    fn model(&self) -> &ModelFacts {
        &self.facts
    }
}

fn speak(
    shared: &Shared,
    request: &GenerationRequest,
    mut sink: Box<dyn GenerationSink>,
    cancelled: &AtomicBool,
) {
    let started = Instant::now();
    let spoken = {
        let mut next = lock(&shared.next_turn);
        let turn = (*next).min(shared.plan.len() - 1);
        *next += 1;
        shared.plan[turn].clone()
    };
    let prompt = request.tokens.len();
    let common = |known: &Vec<TokenId>| {
        let pairs = known.iter().zip(&request.tokens);
        pairs.take_while(|(known, asked)| known == asked).count()
    };
    let cached = lock(&shared.known).iter().map(common).max().unwrap_or(0);
    // The last token is always computed, for its logits.
    let cached = cached.min(prompt - 1);
    let gone = |sink: &dyn GenerationSink| cancelled.load(Ordering::Relaxed) || sink.is_closed();
    let mut waited = Duration::ZERO;
    while waited < spoken.prefill && !gone(&*sink) {
        let step = Duration::from_millis(20).min(spoken.prefill - waited);
        thread::sleep(step);
        waited += step;
    }
    let prefill = GenerationEvent::Prefill {
        done: prompt,
        total: prompt,
        cached,
    };
    let _ = sink.send(prefill);
    let prefilled = started.elapsed();
    // Known before it is told: a client may ask again as soon as it has read enough.
    let place = {
        let mut known = lock(&shared.known);
        known.push(request.tokens.clone());
        known.len() - 1
    };
    let mut generated = 0;
    let mut reason = FinishReason::Stop {
        token: request.stop_tokens.first().copied().unwrap_or(0),
    };
    for &id in &spoken.tokens {
        if generated == request.max_tokens {
            reason = FinishReason::Length;
            break;
        }
        if !spoken.token_delay.is_zero() {
            thread::sleep(spoken.token_delay);
        }
        let token = GenerationEvent::Token { id, logprobs: None };
        lock(&shared.known)[place].push(id);
        if gone(&*sink) || sink.send(token).is_err() {
            reason = FinishReason::Cancelled;
            break;
        }
        generated += 1;
    }
    if let Some(message) = spoken.error {
        lock(&shared.totals).failed += 1;
        let error = GenerationError::Model(message);
        let _ = sink.send(GenerationEvent::Failed(error));
        return;
    }
    {
        let mut totals = lock(&shared.totals);
        totals.finished += 1;
        totals.cancelled += u64::from(reason == FinishReason::Cancelled);
        totals.prompt_tokens += prompt as u64;
        totals.cached_live += cached as u64;
        totals.prefilled_tokens += (prompt - cached) as u64;
        totals.generated_tokens += generated as u64;
    }
    lock(&shared.outcomes).push(Outcome {
        prompt: request.tokens.clone(),
        generated,
        reason,
    });
    let _ = sink.send(GenerationEvent::Finished {
        reason,
        usage: Usage {
            prompt,
            cached: CachedTokens {
                live: cached,
                ..CachedTokens::default()
            },
            generated,
            speculation: Speculation::default(),
        },
        timings: Timings {
            queued: Duration::ZERO,
            prefill: prefilled,
            decode: started.elapsed() - prefilled,
        },
    });
}
