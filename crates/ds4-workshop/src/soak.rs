//! Random load for a long time: what an engine loses, mixes up or leaks shows in the end.
//!
//! Conversations start, go on, branch off and are asked again; requests are cancelled at random; pages
//! are too few for all; between rounds memory is forgotten, so that checkpoints come back from disk. In
//! the end every page must be free, and each answer must be what the same request gets alone, on
//! sessions that share nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ds4_engine::{
    CheckpointStore, DiskStatus, Engine, EngineHandle, EngineStatus, EngineTotals, FinishReason,
    GenerationRequest, InferenceService, Priority, Sampler, SamplerSettings, ServiceOptions,
    Shutdown, SubmitError, SyncControl,
};
use ds4_model::TokenId;
use serde::Serialize;

use crate::Control;
use crate::error::WorkshopError;
use crate::probe::{News, Outcome, Probe};
use crate::random::Random;

/// Requests that are under way at most.
const MAX_REQUESTS: usize = 16;
/// Conversations that are remembered.
const MAX_CONVERSATIONS: usize = 24;
/// Answers that are remembered to be compared: a fair sample if there are more.
const MAX_ANSWERS: usize = 2000;
/// How long no request may get anything.
const PATIENCE: Duration = Duration::from_secs(120);

/// How it goes on.
#[derive(Clone, Debug)]
pub struct SoakOptions {
    /// How long requests arrive, in all rounds together.
    pub duration: Duration,
    /// How long answers are compared at most.
    pub compare: Duration,
    /// Times that memory is forgotten in between, and one.
    pub rounds: usize,
    /// Of the random numbers. Times differ between runs all the same.
    pub seed: u64,
    /// Longest prompt.
    pub prompt_tokens: usize,
    /// Longest answer.
    pub gen_tokens: usize,
}

/// What happened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SoakReport {
    /// Requests that arrived.
    pub requests: u64,
    /// Of those, ended as they should.
    pub finished: u64,
    /// Of those, cancelled.
    pub cancelled: u64,
    /// Requests that failed.
    pub failed: u64,
    /// Requests that a full queue refused; they are not counted as arrived.
    pub refused: u64,
    /// Requests that branched off inside an earlier one.
    pub branched: u64,
    /// Times that a request gave its place to others.
    pub preempted: u64,
    /// Prompt tokens of all requests.
    pub prompt_tokens: u64,
    /// Of those, found in memory.
    pub cached_memory: u64,
    /// Of those, restored from disk.
    pub cached_disk: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Tokens drafted.
    pub drafted_tokens: u64,
    /// Of those, accepted.
    pub accepted_tokens: u64,
    /// Checkpoints written.
    pub saved: u64,
    /// Checkpoints read back.
    pub restored: u64,
    /// Checkpoints evicted from disk.
    pub evicted: u64,
    /// Times that a checkpoint could not be saved or restored.
    pub disk_failures: u64,
    /// Why the last one could not.
    pub last_disk_failure: Option<String>,
    /// Answers that were compared with a quiet run.
    pub compared: usize,
    /// Of those, the ones that differ.
    pub different: usize,
    /// Pages that were not free at the end of a round.
    pub leaked_pages: usize,
    /// Memory of the process at the end of each round, in bytes, where it can be told.
    pub memory: Vec<u64>,
    /// The first thing that went wrong.
    pub first_problem: Option<String>,
}

impl SoakReport {
    /// Whether nothing is wrong: no failure, no difference, no leaked page, and memory that grew by
    /// less than 64 MiB and a tenth since the first round.
    pub fn is_clean(&self) -> bool {
        let (first, last) = (self.memory.first(), self.memory.last());
        let is_steady = first
            .zip(last)
            .is_none_or(|(&first, &last)| last <= first + first / 10 + (64 << 20));
        is_steady
            && self.failed == 0
            && self.different == 0
            && self.leaked_pages == 0
            && self.first_problem.is_none()
    }

    fn problem(&mut self, what: impl FnOnce() -> String) {
        self.first_problem.get_or_insert_with(what);
    }

    fn add(&mut self, totals: &EngineTotals, disk: &DiskStatus) {
        self.preempted += totals.preempted;
        self.prompt_tokens += totals.prompt_tokens;
        self.cached_memory += totals.cached_live + totals.cached_kept;
        self.cached_disk += totals.cached_disk;
        self.generated_tokens += totals.generated_tokens;
        self.drafted_tokens += totals.drafted_tokens;
        self.accepted_tokens += totals.accepted_tokens;
        self.restored += disk.restored;
        self.disk_failures += disk.failures;
        if disk.last_failure.is_some() {
            self.last_disk_failure.clone_from(&disk.last_failure);
        }
    }
}

/// A request and what it got.
#[derive(Debug)]
struct Exchange {
    number: usize,
    /// Closes its sink.
    closed: Arc<AtomicBool>,
    prompt: Vec<TokenId>,
    max_tokens: usize,
    sampling: SamplerSettings,
    answer: Vec<TokenId>,
    end: Option<FinishReason>,
}

/// Loads `engine`, which has at least two sessions; `memory` tells the memory of the process.
///
/// # Errors
/// The engine stops, hangs, or refuses what it should take; or the caller stops it.
pub fn soak(
    mut engine: Engine,
    store: &CheckpointStore,
    options: &SoakOptions,
    memory: &dyn Fn() -> Option<u64>,
    control: &mut Control<'_>,
) -> Result<SoakReport, WorkshopError> {
    let mut report = SoakReport::default();
    let mut state = State {
        options,
        random: Random::new(options.seed),
        vocabulary: engine.shape().vocabulary,
        context: engine.options().context,
        conversations: Vec::new(),
        under_way: HashMap::new(),
        ended: Vec::new(),
        count: 0,
        ended_count: 0,
    };
    engine.forget_kept();
    let all_pages = engine.free_pages();
    let rounds = options.rounds.max(1);
    let seconds = options.duration.as_secs() as usize;
    let before = store.store.statistics();
    let start = Instant::now();
    for round in 0..rounds {
        let until = options.duration * (round as u32 + 1) / rounds as u32;
        let service = ServiceOptions {
            queue: MAX_REQUESTS,
            prefill_quantum: 24,
        };
        let handle = EngineHandle::start_with_store(engine, service, store.clone())?;
        let progress = &mut |elapsed: Duration| {
            (control.progress)(elapsed.as_secs() as usize, seconds);
        };
        state.round(&handle, start, until, control.cancel, progress, &mut report)?;
        let status = settled(&handle);
        report.add(&status.totals, &status.disk.unwrap_or_default());
        engine = handle
            .stop(Shutdown::Finish)
            .ok_or(WorkshopError::Stopped)?;
        engine.forget_kept();
        let leaked = all_pages - engine.free_pages();
        report.leaked_pages += leaked;
        if leaked > 0 {
            report.problem(|| format!("{leaked} pages were not free after round {round}"));
        }
        report.memory.extend(memory());
    }
    let after = store.store.statistics();
    report.saved = after.saved.saturating_sub(before.saved);
    report.evicted = after.evicted.saturating_sub(before.evicted);
    state.compare(&mut engine, control, &mut report)?;
    Ok(report)
}

/// The status once nothing is left to do, not even on disk; or after some seconds.
fn settled(handle: &EngineHandle) -> EngineStatus {
    let is_settled = |status: &EngineStatus| {
        let pending = status.disk.as_ref().map_or(0, |disk| disk.pending);
        status.running.is_empty() && status.queued == 0 && pending == 0
    };
    let mut status = handle.status();
    for _ in 0..1000 {
        if is_settled(&status) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
        status = handle.status();
    }
    status
}

struct State<'a> {
    options: &'a SoakOptions,
    random: Random,
    vocabulary: usize,
    context: usize,
    conversations: Vec<Vec<TokenId>>,
    /// By their numbers.
    under_way: HashMap<usize, Exchange>,
    ended: Vec<Exchange>,
    count: usize,
    ended_count: usize,
}

impl State<'_> {
    fn round(
        &mut self,
        handle: &EngineHandle,
        start: Instant,
        until: Duration,
        cancel: &AtomicBool,
        progress: &mut dyn FnMut(Duration),
        report: &mut SoakReport,
    ) -> Result<(), WorkshopError> {
        let probe = Probe::new();
        let mut last_news = Instant::now();
        loop {
            if cancel.load(Ordering::Relaxed) {
                return Err(WorkshopError::Cancelled);
            }
            let elapsed = start.elapsed();
            progress(elapsed.min(until));
            if elapsed < until {
                // Arrivals come in bursts.
                while self.under_way.len() < MAX_REQUESTS && self.random.happens(60) {
                    self.arrive(handle, &probe, report)?;
                }
                if self.random.happens(6) {
                    let chosen = self.random.below(self.under_way.len());
                    if let Some(exchange) = self.under_way.values().nth(chosen) {
                        exchange.closed.store(true, Ordering::Relaxed);
                    }
                }
            } else if self.under_way.is_empty() {
                return Ok(());
            } else if last_news.elapsed() > PATIENCE {
                return Err(WorkshopError::Hanging {
                    requests: self.under_way.len(),
                });
            }
            let pause = Duration::from_millis(self.random.below(30) as u64);
            let wait = Instant::now() + pause;
            while let Some(news) = probe.next(wait.saturating_duration_since(Instant::now())) {
                last_news = news.at;
                self.take(news, report);
            }
        }
    }

    fn arrive(
        &mut self,
        handle: &EngineHandle,
        probe: &Probe,
        report: &mut SoakReport,
    ) -> Result<(), WorkshopError> {
        let (prompt, branches) = self.prompt();
        let sampling = SamplerSettings {
            temperature: if self.random.happens(50) { 0.0 } else { 1.0 },
            seed: self.random.next(),
            ..SamplerSettings::default()
        };
        let max_tokens = 1 + self.random.below(self.options.gen_tokens);
        let request = GenerationRequest {
            sampling: sampling.clone(),
            priority: match self.random.below(4) {
                0 => Priority::Background,
                1 => Priority::Interactive,
                _ => Priority::Normal,
            },
            ..GenerationRequest::new(prompt.clone(), max_tokens)
        };
        let number = self.count;
        let closed = match probe.submit(handle, number, request) {
            Ok(closed) => closed,
            Err(SubmitError::QueueFull { .. }) => {
                report.refused += 1;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        self.count += 1;
        report.requests += 1;
        report.branched += u64::from(branches);
        let exchange = Exchange {
            number,
            closed,
            prompt,
            max_tokens,
            sampling,
            answer: Vec::new(),
            end: None,
        };
        self.under_way.insert(number, exchange);
        Ok(())
    }

    /// A prompt, and whether it branches off inside an earlier one.
    fn prompt(&mut self) -> (Vec<TokenId>, bool) {
        let longest = self.options.prompt_tokens.min(self.context - 1).max(1);
        let chosen = self.random.below(self.conversations.len());
        let known = self.conversations.get(chosen).cloned();
        let known = known.filter(|_| self.random.happens(80));
        let new = 1 + self.random.below(60);
        let (mut prompt, branches) = match (known, self.random.below(8)) {
            (None, _) => {
                let count = 1 + self.random.below(longest);
                (self.random.tokens(count, self.vocabulary), false)
            }
            // Asked again.
            (Some(known), 0) => (known, false),
            (Some(mut known), 1 | 2) => {
                known.truncate(1 + self.random.below(known.len()));
                known.extend(self.random.tokens(new, self.vocabulary));
                (known, true)
            }
            (Some(mut known), _) => {
                known.extend(self.random.tokens(new, self.vocabulary));
                (known, false)
            }
        };
        prompt.truncate(longest);
        (prompt, branches)
    }

    fn take(&mut self, news: News, report: &mut SoakReport) {
        let number = news.request;
        if let Outcome::Token(token) = news.outcome {
            if let Some(exchange) = self.under_way.get_mut(&number) {
                exchange.answer.push(token);
            }
            return;
        }
        let Some(mut exchange) = self.under_way.remove(&number) else {
            return report.problem(|| format!("request {number} ended twice"));
        };
        match news.outcome {
            Outcome::Token(_) => {}
            Outcome::Finished(reason) => {
                exchange.end = Some(reason);
                report.finished += 1;
                report.cancelled += u64::from(reason == FinishReason::Cancelled);
            }
            Outcome::Failed(error) => {
                report.failed += 1;
                report.problem(|| format!("request {number} failed: {error}"));
            }
        }
        let conversation = [exchange.prompt.as_slice(), &exchange.answer].concat();
        if self.conversations.len() < MAX_CONVERSATIONS {
            self.conversations.push(conversation);
        } else {
            let at = self.random.below(MAX_CONVERSATIONS);
            self.conversations[at] = conversation;
        }
        // Each answer is as likely as any other to be remembered (reservoir sampling).
        self.ended_count += 1;
        if self.ended.len() < MAX_ANSWERS {
            self.ended.push(exchange);
        } else {
            let at = self.random.below(self.ended_count);
            if let Some(place) = self.ended.get_mut(at) {
                *place = exchange;
            }
        }
    }

    /// Compares answers with those of sessions that share nothing, in random order, as long as
    /// allowed.
    fn compare(
        &mut self,
        engine: &mut Engine,
        control: &mut Control<'_>,
        report: &mut SoakReport,
    ) -> Result<(), WorkshopError> {
        let mut order: Vec<usize> = (0..self.ended.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(at, self.random.below(at + 1));
        }
        let start = Instant::now();
        for (done, &at) in order.iter().enumerate() {
            if start.elapsed() >= self.options.compare {
                break;
            }
            (control.progress)(done, order.len());
            let exchange = &self.ended[at];
            let Some(end) = exchange.end else {
                continue;
            };
            let quiet = quiet_answer(engine, exchange, control.cancel)?;
            report.compared += 1;
            let is_whole = end == FinishReason::Cancelled || exchange.answer.len() == quiet.len();
            if !is_whole || !quiet.starts_with(&exchange.answer) {
                report.different += 1;
                report.problem(|| {
                    format!(
                        "request {} ({} tokens, {end:?}) got {:?}, alone {quiet:?}",
                        exchange.number,
                        exchange.prompt.len(),
                        exchange.answer,
                    )
                });
            }
        }
        Ok(())
    }
}

/// What a request gets on a session of its own; of a cancelled one no more than it got.
fn quiet_answer(
    engine: &mut Engine,
    exchange: &Exchange,
    cancel: &AtomicBool,
) -> Result<Vec<TokenId>, WorkshopError> {
    engine.forget_kept();
    let room = engine.options().context - exchange.prompt.len();
    let wanted = match exchange.end {
        Some(FinishReason::Cancelled) => exchange.answer.len(),
        _ => exchange.max_tokens.min(room),
    };
    let mut session = engine.session()?;
    let mut sync = SyncControl {
        cancel,
        progress: &mut |_, _| (),
    };
    let synced = engine.sync(&mut session, &exchange.prompt, &mut sync)?;
    if synced.cancelled {
        return Err(WorkshopError::Cancelled);
    }
    let mut sampler = Sampler::new(exchange.sampling.clone())
        .map_err(|error| WorkshopError::Submit(error.into()))?;
    sampler.begin(&exchange.prompt);
    let mut answer = Vec::with_capacity(wanted);
    while answer.len() < wanted {
        let token = sampler.sample(session.logits());
        sampler.accept(token);
        answer.push(token);
        if answer.len() < wanted {
            engine.append(&mut session, token)?;
        }
    }
    engine.close(session);
    Ok(answer)
}
