//! Many requests on a small random model of the true architecture: each must get what it gets alone.

mod speculation;

use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ds4_gguf::GgufFile;
use ds4_model::{
    ExecutorBytes, KvLayout, ModelError, ModelShape, SequenceState, Steering, Step, TokenId,
};
use proptest::prelude::*;

use super::*;
use crate::constraint::{ConstraintError, ConstraintState, TokenConstraint, TokenMask};
use crate::engine::{EngineOptions, SyncControl};
use crate::event::{Closed, GenerationEvent, GenerationSink, TokenLogprobs, Usage};
use crate::request::{Constraint, GenerationRequest, Priority, ReasoningBudget};
use crate::runner::Runner;
use crate::sampler::{Sampler, SamplerSettings, logprobs};

const VOCABULARY: u32 = 512;

fn open(options: EngineOptions) -> Engine {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data/flash-tiny-native.gguf");
    let file = GgufFile::open(&path).unwrap();
    Engine::open(&file, None, &options, &mut |_| ()).unwrap()
}

fn options() -> EngineOptions {
    EngineOptions {
        threads: Some(1),
        context: 512,
        sessions: 3,
        prefill_chunk: 32,
        keep_every: 64,
        kept_bytes: Some(1 << 28),
        ..EngineOptions::default()
    }
}

fn scheduler(options: EngineOptions) -> Scheduler {
    Scheduler::new(
        open(options),
        ServiceOptions {
            queue: 8,
            prefill_quantum: 9,
        },
        None,
    )
    .unwrap()
}

fn tokens(count: usize, seed: u32) -> Vec<TokenId> {
    (0..count as u32)
        .map(|i| (i * i * 7 + i * 13 + seed * 101 + 3) % VOCABULARY)
        .collect()
}

/// What a sink got; it closes after a number of tokens, or panics.
#[derive(Clone, Default)]
struct Received {
    events: Arc<Mutex<Vec<GenerationEvent>>>,
    close_after: Option<usize>,
    panics: bool,
}

impl Received {
    fn tokens(&self) -> Vec<(TokenId, Option<TokenLogprobs>)> {
        let events = self.events.lock().unwrap();
        let token = |event: &GenerationEvent| match event {
            GenerationEvent::Token { id, logprobs } => Some((*id, logprobs.clone())),
            _ => None,
        };
        events.iter().filter_map(token).collect()
    }

    fn ids(&self) -> Vec<TokenId> {
        self.tokens().into_iter().map(|(id, _)| id).collect()
    }

    fn last(&self) -> GenerationEvent {
        self.events.lock().unwrap().last().cloned().unwrap()
    }

    fn finished(&self) -> (FinishReason, Usage) {
        match self.last() {
            GenerationEvent::Finished { reason, usage, .. } => (reason, usage),
            other => panic!("{other:?}"),
        }
    }

    fn failed(&self) -> GenerationError {
        match self.last() {
            GenerationEvent::Failed(error) => error,
            other => panic!("{other:?}"),
        }
    }
}

impl GenerationSink for Received {
    fn send(&mut self, event: GenerationEvent) -> Result<(), Closed> {
        assert!(!self.panics, "a sink that panics");
        self.events.lock().unwrap().push(event);
        if self.is_closed() {
            Err(Closed)
        } else {
            Ok(())
        }
    }

    fn is_closed(&self) -> bool {
        self.close_after
            .is_some_and(|tokens| self.tokens().len() >= tokens)
    }
}

fn submit(scheduler: &mut Scheduler, request: GenerationRequest) -> Received {
    submit_to(scheduler, request, Received::default())
}

fn submit_to(
    scheduler: &mut Scheduler,
    request: GenerationRequest,
    received: Received,
) -> Received {
    let id = RequestId(scheduler.totals.requests + 1);
    scheduler.submit(Job::new(id, request, Box::new(received.clone())).unwrap());
    received
}

fn run_all(scheduler: &mut Scheduler) {
    for _ in 0..20_000 {
        if !scheduler.has_work() {
            return;
        }
        scheduler.step();
    }
    panic!("the scheduler does not come to an end");
}

/// Nothing is left behind but kept points, and those can be dropped.
fn assert_no_leak(scheduler: &mut Scheduler) {
    let slots = scheduler.engine.options().sessions;
    let sequences = &mut scheduler.engine.sequences;
    assert!(sequences.kept().bytes() <= sequences.kept().limit());
    sequences.forget_kept();
    assert_eq!(sequences.pages().free(), sequences.pages().len());
    let open: Vec<_> = (0..slots).map(|_| sequences.open().unwrap()).collect();
    assert!(sequences.open().is_none());
    open.into_iter()
        .for_each(|sequence| sequences.close(sequence));
}

/// The answer by the plainest means: one session, one sampler.
fn alone(engine: &mut Engine, request: &Plan) -> Vec<(TokenId, Option<TokenLogprobs>)> {
    engine.forget_kept();
    let mut session = engine.session().unwrap();
    let cancel = AtomicBool::new(false);
    let mut control = SyncControl {
        cancel: &cancel,
        progress: &mut |_, _| (),
    };
    engine
        .sync(&mut session, &request.tokens, &mut control)
        .unwrap();
    let mut sampler = Sampler::new(request.sampling()).unwrap();
    sampler.begin(&request.tokens);
    let mut answer = Vec::new();
    for _ in 0..request.max_tokens {
        let token = sampler.sample(session.logits());
        sampler.accept(token);
        let mut top = Vec::new();
        let logprob = logprobs(session.logits(), token, 2, &mut top);
        let top = top
            .iter()
            .map(|other| (other.token, other.logprob))
            .collect();
        answer.push((token, Some(TokenLogprobs { logprob, top })));
        engine.append(&mut session, token).unwrap();
    }
    engine.close(session);
    answer
}

/// A request of a random load.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Plan {
    tokens: Vec<TokenId>,
    max_tokens: usize,
    seed: u64,
    greedy: bool,
    priority: u8,
    /// Steps before it arrives.
    delay: usize,
    cancel_after: Option<usize>,
}

impl Plan {
    fn sampling(&self) -> SamplerSettings {
        SamplerSettings {
            temperature: if self.greedy { 0.0 } else { 1.0 },
            seed: self.seed,
            ..SamplerSettings::default()
        }
    }

    fn request(&self) -> GenerationRequest {
        GenerationRequest {
            sampling: self.sampling(),
            logprobs: Some(2),
            priority: match self.priority {
                0 => Priority::Background,
                1 => Priority::Normal,
                _ => Priority::Interactive,
            },
            ..GenerationRequest::new(self.tokens.clone(), self.max_tokens)
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let prompt =
        (0..2u32, 1..300usize, 0..3u32, 0..40usize).prop_map(|(base, common, own, rest)| {
            let mut prompt = tokens(common, base);
            prompt.extend(tokens(rest, 7 + own));
            prompt
        });
    (
        prompt,
        0..20usize,
        0..4u64,
        any::<bool>(),
        0..3u8,
        0..12usize,
        prop::option::weighted(0.2, 0..10usize),
    )
        .prop_map(
            |(tokens, max_tokens, seed, greedy, priority, delay, cancel_after)| Plan {
                tokens,
                max_tokens,
                seed,
                greedy,
                priority,
                delay,
                cancel_after,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 40, ..ProptestConfig::default() })]

    /// Any pattern of arrivals, cancels, priorities and shortage of pages: the same bits as alone.
    #[test]
    fn batched_results_equal_single_ones(
        plans in prop::collection::vec(plan(), 1..9),
        sessions in 1..5usize,
        cache_tokens in prop::sample::select(vec![None, Some(512), Some(768)]),
        keep_every in prop::sample::select(vec![32, 100, 256]),
        kept_bytes in prop::sample::select(vec![0, 1 << 20, 1 << 28]),
    ) {
        let mut scheduler = scheduler(EngineOptions {
            sessions,
            keep_every,
            kept_bytes: Some(kept_bytes),
            // Two or three pages for all of them.
            cache_tokens,
            ..options()
        });
        let mut received = Vec::new();
        for plan in &plans {
            for _ in 0..plan.delay {
                scheduler.step();
            }
            let sink = Received { close_after: plan.cancel_after, ..Received::default() };
            received.push(submit_to(&mut scheduler, plan.request(), sink));
        }
        run_all(&mut scheduler);
        assert_no_leak(&mut scheduler);

        let mut engine = open(options());
        let mut expected = HashMap::new();
        for (plan, received) in plans.iter().zip(&received) {
            let alone = expected.entry(plan).or_insert_with(|| alone(&mut engine, plan));
            let (reason, usage) = received.finished();
            let expected = match plan.cancel_after {
                Some(tokens) if tokens <= plan.max_tokens => {
                    // With its last token it may have finished first.
                    prop_assert!(reason == FinishReason::Cancelled || tokens == plan.max_tokens);
                    &alone[..tokens]
                }
                _ => {
                    prop_assert_eq!(reason, FinishReason::Length);
                    alone.as_slice()
                }
            };
            prop_assert_eq!(&received.tokens(), expected);
            prop_assert_eq!(usage.generated, expected.len());
            prop_assert_eq!(usage.prompt, plan.tokens.len());
            prop_assert!(usage.cached.total() <= plan.tokens.len());
        }
    }
}

/// What an agent does between two requests.
#[derive(Clone, Debug)]
enum Turn {
    /// The answer and a tool's result of so many tokens are appended.
    Extend(usize),
    /// The answer is replaced by another of so many tokens, as when reasoning is dropped.
    Rewrite(usize),
    /// The last message is edited: its last tokens, so many, are others.
    EditLast(usize),
    /// The history is cut to a share of its length, and goes on otherwise.
    Truncate(f64, usize),
    /// A second agent branches off at a share of the history and stays there.
    Branch(f64, usize),
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        5 => (1..60usize).prop_map(Turn::Extend),
        2 => (1..30usize).prop_map(Turn::Rewrite),
        2 => (1..40usize).prop_map(Turn::EditLast),
        1 => (0.0..1.0, 1..40usize).prop_map(|(share, new)| Turn::Truncate(share, new)),
        1 => (0.0..1.0, 1..40usize).prop_map(|(share, new)| Turn::Branch(share, new)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, max_shrink_iters: 20, ..ProptestConfig::default() })]

    /// After the first request of a conversation, what is computed of a prompt is what no earlier
    /// request had, and at most one interval more. Always.
    #[test]
    fn agents_pay_for_new_tokens_only(
        system in 20..150usize,
        turns in prop::collection::vec(turn(), 4..12),
        answer in 1..50usize,
    ) {
        let options = EngineOptions { context: 2048, sessions: 2, ..options() };
        let mut scheduler = scheduler(options);
        let mut history = tokens(system, 1);
        let mut seen: Vec<Vec<TokenId>> = Vec::new();
        for (number, turn) in turns.iter().enumerate() {
            if history.len() + 200 > options.context {
                break;
            }
            let received = submit(&mut scheduler, GenerationRequest::new(history.clone(), answer));
            run_all(&mut scheduler);
            let (_, usage) = received.finished();
            let common = |earlier: &Vec<TokenId>| {
                earlier.iter().zip(&history).take_while(|(a, b)| a == b).count()
            };
            if let Some(known) = seen.iter().map(common).max() {
                let work = history.len() - usage.cached.total();
                let new = history.len() - known;
                prop_assert!(
                    work <= new + options.keep_every,
                    "request {}: {} computed of {} new, {:?}", number, work, new, usage.cached
                );
            }
            let mut all = history.clone();
            all.extend(received.ids());
            seen.push(all.clone());
            let fresh = |count: usize| tokens(count, 20 + number as u32);
            history = match *turn {
                Turn::Extend(result) => [all, fresh(result)].concat(),
                Turn::Rewrite(result) => [history, fresh(result)].concat(),
                Turn::EditLast(edited) => {
                    let kept = history.len().saturating_sub(edited);
                    [&history[..kept], &fresh(edited)].concat()
                }
                Turn::Truncate(share, new) | Turn::Branch(share, new) => {
                    let kept = (all.len() as f64 * share) as usize;
                    [&all[..kept], &fresh(new)].concat()
                }
            };
        }
        assert_no_leak(&mut scheduler);
    }
}

#[test]
fn equal_prompts_are_computed_once() {
    let mut scheduler = scheduler(options());
    let prompt = tokens(200, 1);
    let received: Vec<_> = (0..3)
        .map(|seed| {
            let sampling = SamplerSettings {
                seed,
                ..SamplerSettings::default()
            };
            let request = GenerationRequest {
                sampling,
                ..GenerationRequest::new(prompt.clone(), 3)
            };
            submit(&mut scheduler, request)
        })
        .collect();
    run_all(&mut scheduler);
    // The others start from the last kept position; the rest is less than an interval.
    assert_eq!(scheduler.totals.prefilled_tokens, 200 + 8 + 8);
    let cached: Vec<_> = received
        .iter()
        .map(|received| received.finished().1.cached.total())
        .collect();
    assert_eq!(cached, [0, 192, 192]);
}

#[test]
fn a_request_gives_its_place_to_others_when_pages_run_out() {
    // Three pages; both requests grow into their second.
    let mut scheduler = scheduler(EngineOptions {
        cache_tokens: Some(768),
        ..options()
    });
    let plans = [1, 2].map(|seed| Plan {
        tokens: tokens(245, seed),
        max_tokens: 40,
        seed: 5,
        greedy: false,
        priority: 1,
        delay: 0,
        cancel_after: None,
    });
    let received = plans
        .each_ref()
        .map(|plan| submit(&mut scheduler, plan.request()));
    run_all(&mut scheduler);
    assert!(scheduler.totals.preempted > 0);
    let mut engine = open(options());
    for (plan, received) in plans.iter().zip(&received) {
        assert_eq!(received.tokens(), alone(&mut engine, plan));
    }
    assert_no_leak(&mut scheduler);
}

#[test]
fn a_short_prompt_does_not_wait_for_a_long_one() {
    let mut scheduler = scheduler(options());
    let long = submit(&mut scheduler, GenerationRequest::new(tokens(400, 1), 1));
    scheduler.step();
    let short = submit(&mut scheduler, GenerationRequest::new(tokens(20, 2), 4));
    for _ in 0..6 {
        scheduler.step();
    }
    assert_eq!(short.finished().0, FinishReason::Length);
    assert!(long.ids().is_empty());
    run_all(&mut scheduler);
    assert_eq!(long.ids().len(), 1);
}

#[test]
fn decoding_goes_on_while_another_prompt_is_computed() {
    let mut scheduler = scheduler(options());
    let decoding = submit(&mut scheduler, GenerationRequest::new(tokens(10, 1), 40));
    scheduler.step();
    assert_eq!(decoding.ids().len(), 1);
    let prompt = submit(&mut scheduler, GenerationRequest::new(tokens(250, 2), 1));
    let mut steps = 1;
    while prompt.ids().is_empty() {
        scheduler.step();
        steps += 1;
        assert_eq!(decoding.ids().len(), steps, "a token with every step");
    }
    // 250 rows, at most 9 a step beside the decoding row.
    assert!(steps > 250 / 9, "{steps}");
}

#[test]
fn a_request_of_higher_priority_goes_first() {
    let mut scheduler = scheduler(EngineOptions {
        sessions: 1,
        ..options()
    });
    let with = |priority, seed| GenerationRequest {
        priority,
        ..GenerationRequest::new(tokens(20, seed), 2)
    };
    let first = submit(&mut scheduler, with(Priority::Normal, 1));
    scheduler.step();
    let later = submit(&mut scheduler, with(Priority::Background, 2));
    let urgent = submit(&mut scheduler, with(Priority::Interactive, 3));
    while scheduler.has_work() {
        scheduler.step();
        if !urgent.ids().is_empty() {
            assert!(first.ids().len() == 2);
        }
        if !later.ids().is_empty() {
            assert!(urgent.ids().len() == 2);
        }
    }
    let queued = |received: &Received| {
        let events = received.events.lock().unwrap();
        let position = |event: &GenerationEvent| match event {
            GenerationEvent::Queued { position } => Some(*position),
            _ => None,
        };
        events.iter().filter_map(position).collect::<Vec<_>>()
    };
    assert_eq!(queued(&later), [1, 0]);
    assert_eq!(queued(&urgent), [0]);
}

#[test]
fn cancelled_prompts_leave_what_was_computed() {
    let mut scheduler = scheduler(options());
    let prompt = tokens(300, 1);
    let received = submit(&mut scheduler, GenerationRequest::new(prompt.clone(), 1));
    for _ in 0..4 {
        scheduler.step();
    }
    scheduler.cancel(RequestId(1));
    scheduler.step();
    let (reason, usage) = received.finished();
    assert_eq!((reason, usage.generated), (FinishReason::Cancelled, 0));
    let again = submit(&mut scheduler, GenerationRequest::new(prompt, 1));
    run_all(&mut scheduler);
    assert_eq!(again.finished().1.cached.live, 4 * 32);
}

#[test]
fn a_prompt_that_nobody_wants_ends_between_layers() {
    let mut scheduler = scheduler(options());
    let prompt = tokens(300, 1);
    submit(&mut scheduler, GenerationRequest::new(prompt.clone(), 1));
    for _ in 0..3 {
        scheduler.step();
    }
    // The cancel comes in the middle of the fourth step of 32 rows: after some layers.
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    scheduler.watch(Box::new(move |id| {
        id == RequestId(1) && seen.fetch_add(1, Ordering::Relaxed) >= 3
    }));
    scheduler.step();
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    scheduler.cancel(RequestId(1));
    run_all(&mut scheduler);
    // What was kept of it serves the next request, whose answer is that of a fresh engine.
    let again = submit(&mut scheduler, GenerationRequest::new(prompt.clone(), 5));
    run_all(&mut scheduler);
    assert_eq!(again.finished().1.cached.total(), 64);
    let mut fresh = self::scheduler(options());
    let alone = submit(&mut fresh, GenerationRequest::new(prompt, 5));
    run_all(&mut fresh);
    assert_eq!(again.ids(), alone.ids());
}

#[test]
fn a_step_that_somebody_wants_runs_to_its_end() {
    let mut scheduler = scheduler(options());
    let decoding = submit(&mut scheduler, GenerationRequest::new(tokens(20, 2), 40));
    scheduler.step();
    let cancelled = submit(&mut scheduler, GenerationRequest::new(tokens(300, 1), 1));
    scheduler.watch(Box::new(|id| id == RequestId(2)));
    scheduler.step();
    scheduler.cancel(RequestId(2));
    run_all(&mut scheduler);
    assert_eq!(decoding.ids().len(), 40);
    assert_eq!(decoding.finished().1.cached.total(), 0);
    assert_eq!(cancelled.finished().0, FinishReason::Cancelled);
}

#[test]
fn lower_priorities_wait_longer_but_not_forever() {
    let mut scheduler = scheduler(options());
    let with = |priority, length, seed| GenerationRequest {
        priority,
        ..GenerationRequest::new(tokens(length, seed), 1)
    };
    // One decodes all the time, so a step has 9 rows of prompts, and urgent prompts never end.
    let _decoding = submit(&mut scheduler, GenerationRequest::new(tokens(20, 1), 400));
    let patient = submit(&mut scheduler, with(Priority::Background, 40, 2));
    let mut steps = 0;
    let mut urgent = submit(&mut scheduler, with(Priority::Interactive, 200, 3));
    while patient.ids().is_empty() {
        scheduler.step();
        steps += 1;
        if !urgent.ids().is_empty() {
            urgent = submit(&mut scheduler, with(Priority::Interactive, 200, 3 + steps));
        }
        assert!(steps < 300);
    }
    assert!(steps > 32, "{steps}");
}

#[test]
fn deadlines_end_requests_wherever_they_are() {
    let mut scheduler = scheduler(EngineOptions {
        sessions: 1,
        ..options()
    });
    let until = |deadline| GenerationRequest {
        deadline: Some(deadline),
        ..GenerationRequest::new(tokens(50, 1), 400)
    };
    let soon = Instant::now() + Duration::from_millis(50);
    let running = submit(&mut scheduler, until(soon));
    let waiting = submit(&mut scheduler, until(Instant::now()));
    run_all(&mut scheduler);
    assert_eq!(running.finished().0, FinishReason::Deadline);
    assert_eq!(waiting.finished().0, FinishReason::Deadline);
}

/// Allows even tokens only, and ends after some; or misbehaves.
#[derive(Clone)]
struct Even {
    left: usize,
    mischief: Option<&'static str>,
}

impl TokenConstraint for Even {
    fn mask(&mut self, mask: &mut TokenMask) -> Result<(), ConstraintError> {
        assert!(self.mischief != Some("mask"), "a grammar that panics");
        mask.clear();
        if self.mischief != Some("empty") {
            (0..VOCABULARY).step_by(2).for_each(|id| mask.allow(id));
        }
        Ok(())
    }

    fn accept(&mut self, token: TokenId) -> Result<ConstraintState, ConstraintError> {
        assert!(self.mischief != Some("accept"), "a grammar that panics");
        if self.mischief == Some("refuse") || token % 2 == 1 {
            return Err(ConstraintError {
                reason: "too much".to_owned(),
            });
        }
        self.left -= 1;
        Ok(match self.left {
            0 => ConstraintState::Finished,
            _ => ConstraintState::Open,
        })
    }

    fn fork(&self) -> Box<dyn TokenConstraint> {
        Box::new(self.clone())
    }
}

fn constrained(seed: u32, mischief: Option<&'static str>) -> GenerationRequest {
    GenerationRequest {
        constraint: Some(Constraint {
            automaton: Box::new(Even { left: 6, mischief }),
            starts_after: None,
        }),
        ..GenerationRequest::new(tokens(40, seed), 20)
    }
}

#[test]
fn a_constraint_decides_what_is_sampled_and_when_it_ends() {
    let mut scheduler = scheduler(options());
    let bound = submit(&mut scheduler, constrained(1, None));
    let free = submit(&mut scheduler, GenerationRequest::new(tokens(40, 1), 20));
    run_all(&mut scheduler);
    assert_eq!(bound.finished().0, FinishReason::Constraint);
    assert_eq!(bound.ids().len(), 6);
    assert!(bound.ids().iter().all(|id| id % 2 == 0));
    assert!(free.ids().iter().any(|id| id % 2 == 1));
}

#[test]
fn what_one_request_does_wrong_does_not_reach_the_others() {
    let mut scheduler = scheduler(EngineOptions {
        sessions: 8,
        ..options()
    });
    let plan = Plan {
        tokens: tokens(90, 3),
        max_tokens: 30,
        seed: 1,
        greedy: false,
        priority: 1,
        delay: 0,
        cancel_after: None,
    };
    let good = submit(&mut scheduler, plan.request());
    let bad: Vec<_> = ["mask", "accept", "empty", "refuse"]
        .into_iter()
        .map(|mischief| submit(&mut scheduler, constrained(2, Some(mischief))))
        .collect();
    let sink = Received {
        panics: true,
        ..Received::default()
    };
    submit_to(
        &mut scheduler,
        GenerationRequest::new(tokens(30, 5), 9),
        sink,
    );
    run_all(&mut scheduler);
    assert!(matches!(bad[0].failed(), GenerationError::Internal(_)));
    assert!(matches!(bad[1].failed(), GenerationError::Internal(_)));
    assert!(matches!(bad[2].failed(), GenerationError::Constraint(_)));
    assert!(matches!(bad[3].failed(), GenerationError::Constraint(_)));
    assert_eq!(scheduler.totals.failed, 4);
    assert_eq!(scheduler.totals.cancelled, 1);
    assert_eq!(good.tokens(), alone(&mut open(options()), &plan));
    assert_no_leak(&mut scheduler);
}

#[test]
fn reasoning_is_closed_when_its_budget_is_spent() {
    let mut scheduler = scheduler(options());
    let budget = |tokens| ReasoningBudget {
        tokens,
        end: 9,
        closing: vec![7, 8, 9],
    };
    let request = |tokens: usize| GenerationRequest {
        reasoning: Some(budget(tokens)),
        constraint: Some(Constraint {
            automaton: Box::new(Even {
                left: 4,
                mischief: None,
            }),
            starts_after: Some(9),
        }),
        ..GenerationRequest::new(self::tokens(40, 2), 100)
    };
    for spent in [0, 5] {
        let received = submit(&mut scheduler, request(spent));
        run_all(&mut scheduler);
        let ids = received.ids();
        assert_eq!(ids[spent..spent + 3], [7, 8, 9]);
        assert_eq!(ids.len(), spent + 3 + 4);
        assert!(ids[spent + 3..].iter().all(|id| id % 2 == 0));
        assert_eq!(received.finished().0, FinishReason::Constraint);
    }
}

#[test]
fn stop_tokens_and_the_context_end_an_answer() {
    let mut scheduler = scheduler(EngineOptions {
        context: 64,
        ..options()
    });
    let request = |stop: &[TokenId]| GenerationRequest {
        stop_tokens: stop.to_vec(),
        ..GenerationRequest::new(tokens(40, 2), 100)
    };
    let full = submit(&mut scheduler, request(&[]));
    run_all(&mut scheduler);
    assert_eq!(full.finished().0, FinishReason::ContextFull);
    let answer = full.ids();
    assert_eq!(answer.len(), 64 - 40);
    let stop = answer[5];
    let first = answer.iter().position(|&id| id == stop).unwrap();
    let stopped = submit(&mut scheduler, request(&[stop]));
    run_all(&mut scheduler);
    let (reason, usage) = stopped.finished();
    assert_eq!(reason, FinishReason::Stop { token: stop });
    assert_eq!(stopped.ids(), answer[..first]);
    assert_eq!(usage.generated, first + 1);
}

/// A backend that fails on steps with a certain token.
struct Failing {
    inner: Box<dyn Runner>,
    poison: TokenId,
    panics: bool,
}

impl Runner for Failing {
    fn run(&mut self, step: &Step, is_unwanted: &dyn Fn() -> bool) -> Result<(), ModelError> {
        let mut tokens = step.sequences.iter().flat_map(|rows| &rows.tokens);
        if tokens.any(|&token| token == self.poison) {
            assert!(!self.panics, "a kernel that panics");
            return Err(ModelError::Step("poison".to_owned()));
        }
        self.inner.run(step, is_unwanted)
    }

    fn steer(&mut self, steering: &Steering) -> Result<(), ModelError> {
        self.inner.steer(steering)
    }

    fn shape(&self) -> &ModelShape {
        self.inner.shape()
    }

    fn layout(&self) -> &KvLayout {
        self.inner.layout()
    }

    fn allocated(&self) -> ExecutorBytes {
        self.inner.allocated()
    }

    fn set_pages(&mut self, slot: usize, first: usize, pages: &[u32]) -> Result<(), ModelError> {
        self.inner.set_pages(slot, first, pages)
    }

    fn run_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError> {
        self.inner.run_mtp(step, rows)
    }

    fn chain_mtp(&mut self, step: &Step, rows: &[usize]) -> Result<(), ModelError> {
        self.inner.chain_mtp(step, rows)
    }

    fn logits(&mut self, output: usize, logits: &mut [f32]) -> Result<(), ModelError> {
        self.inner.logits(output, logits)
    }

    fn copy_page(&mut self, from: u32, to: u32) -> Result<(), ModelError> {
        self.inner.copy_page(from, to)
    }

    fn copy_frontier(&mut self, from: usize, to: usize, tokens: usize) -> Result<(), ModelError> {
        self.inner.copy_frontier(from, to, tokens)
    }

    fn sequence_bytes(&self, tokens: usize) -> Result<Vec<usize>, ModelError> {
        self.inner.sequence_bytes(tokens)
    }

    fn save_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
    ) -> Result<SequenceState, ModelError> {
        self.inner.save_sequence(slot, tokens, pages)
    }

    fn restore_sequence(
        &mut self,
        slot: usize,
        tokens: usize,
        pages: &[u32],
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        self.inner.restore_sequence(slot, tokens, pages, state)
    }

    fn read_page(&mut self, page: u32, tokens: usize, rows: &mut [u8]) -> Result<(), ModelError> {
        self.inner.read_page(page, tokens, rows)
    }

    fn write_page(&mut self, page: u32, tokens: usize, rows: &[u8]) -> Result<(), ModelError> {
        self.inner.write_page(page, tokens, rows)
    }

    fn save_frontier(&mut self, slot: usize, tokens: usize) -> Result<SequenceState, ModelError> {
        self.inner.save_frontier(slot, tokens)
    }

    fn restore_frontier(
        &mut self,
        slot: usize,
        tokens: usize,
        state: &SequenceState,
    ) -> Result<(), ModelError> {
        self.inner.restore_frontier(slot, tokens, state)
    }
}

#[test]
fn a_step_that_fails_ends_only_the_request_that_makes_it_fail() {
    let poison = 511;
    let clean = |count, seed| -> Vec<TokenId> {
        tokens(count, seed)
            .into_iter()
            .map(|id| id.min(510))
            .collect()
    };
    for panics in [false, true] {
        let mut scheduler = scheduler(options());
        let wrap = |inner| -> Box<dyn Runner> {
            Box::new(Failing {
                inner,
                poison,
                panics,
            })
        };
        scheduler.engine.sequences = scheduler.engine.sequences.wrap_runner(wrap);
        let plans: Vec<_> = (0..2)
            .map(|seed| Plan {
                tokens: clean(100, seed),
                max_tokens: 12,
                seed: 3,
                greedy: true,
                priority: 1,
                delay: 0,
                cancel_after: None,
            })
            .collect();
        let good: Vec<_> = plans
            .iter()
            .map(|plan| submit(&mut scheduler, plan.request()))
            .collect();
        for _ in 0..5 {
            scheduler.step();
        }
        let mut prompt = clean(60, 8);
        prompt.push(poison);
        let bad = submit(&mut scheduler, GenerationRequest::new(prompt, 5));
        run_all(&mut scheduler);
        let error = bad.failed();
        assert_eq!(
            matches!(error, GenerationError::Internal(_)),
            panics,
            "{error}"
        );
        let mut engine = open(options());
        for (plan, received) in plans.iter().zip(&good) {
            let expected = alone(&mut engine, plan);
            assert!(
                expected.iter().all(|(id, _)| *id != poison),
                "choose another"
            );
            assert_eq!(received.tokens(), expected);
        }
        assert_no_leak(&mut scheduler);
    }
}
