//! Drafts change how many steps an answer takes, and nothing else.

use super::*;
use crate::sampler::Penalties;
use crate::speculation::SpeculationOptions;

fn always(prompt_lookup: bool, mtp: bool) -> SpeculationOptions {
    SpeculationOptions {
        prompt_lookup,
        mtp,
        longest_draft: 5,
        always: true,
    }
}

fn open_with(options: EngineOptions) -> Engine {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ds4-testkit/data");
    let file = GgufFile::open(&data.join("flash-tiny-native.gguf")).unwrap();
    let mtp = GgufFile::open(&data.join("flash-tiny-mtp.gguf")).unwrap();
    let mtp = options.speculation.mtp.then_some(&mtp);
    Engine::open(&file, mtp, &options, &mut |_| ()).unwrap()
}

fn scheduler_with(options: EngineOptions) -> Scheduler {
    let service = ServiceOptions {
        queue: 16,
        prefill_quantum: 9,
    };
    Scheduler::new(open_with(options), service, None).unwrap()
}

/// Right drafts, from texts that are known, of which some are spoilt.
fn oracle(texts: Vec<Vec<TokenId>>, seed: u64) -> crate::speculation::Oracle {
    let mut state = seed;
    let mut random = move |end: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % end
    };
    Box::new(move |known, next| {
        let at = known.len();
        let goes_on = |text: &&Vec<TokenId>| text.starts_with(known) && text.get(at) == Some(&next);
        let rest = texts
            .iter()
            .find(goes_on)
            .map_or(&[][..], |text| &text[at + 1..]);
        let mut draft: Vec<TokenId> = rest.iter().copied().take(random(7) as usize).collect();
        if !draft.is_empty() && random(2) == 0 {
            let spoilt = random(draft.len() as u64) as usize;
            draft[spoilt] = random(u64::from(VOCABULARY)) as TokenId;
        }
        draft
    })
}

/// Everything that decides about tokens.
#[derive(Clone, Debug)]
struct Wanted {
    prompt: (usize, u32),
    max_tokens: usize,
    temperature: f32,
    seed: u64,
    penalties: Penalties,
    stop: Vec<TokenId>,
    /// Tokens of the grammar, and whether it starts after the reasoning.
    constraint: Option<(usize, bool)>,
    reasoning: Option<usize>,
}

impl Wanted {
    fn request(&self) -> GenerationRequest {
        GenerationRequest {
            sampling: SamplerSettings {
                temperature: self.temperature,
                seed: self.seed,
                penalties: self.penalties,
                logit_bias: Some(vec![(5, 2.0), (77, -3.0)].into()),
                ..SamplerSettings::default()
            },
            stop_tokens: self.stop.clone(),
            constraint: self.constraint.map(|(left, after)| Constraint {
                automaton: Box::new(Even {
                    left,
                    mischief: None,
                }),
                starts_after: after.then_some(9),
            }),
            reasoning: self.reasoning.map(|tokens| ReasoningBudget {
                tokens,
                end: 9,
                closing: vec![7, 8, 9],
            }),
            logprobs: Some(2),
            ..GenerationRequest::new(tokens(self.prompt.0, self.prompt.1), self.max_tokens)
        }
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (
        (2..280usize, 0..5u32),
        0..60usize,
        prop::sample::select(vec![0.0, 0.7, 1.0]),
        0..9u64,
        prop::sample::select(vec![0.0, 0.5]),
        prop::collection::vec(0..VOCABULARY, 0..20),
        prop::option::weighted(0.4, (1..20usize, any::<bool>())),
        prop::option::weighted(0.3, 0..20usize),
    )
        .prop_map(
            |(prompt, max_tokens, temperature, seed, presence, stop, constraint, reasoning)| {
                Wanted {
                    prompt,
                    max_tokens,
                    temperature,
                    seed,
                    penalties: Penalties {
                        presence,
                        ..Penalties::default()
                    },
                    stop,
                    constraint,
                    reasoning,
                }
            },
        )
}

/// What a request got, its prompt and answer as one text.
fn answers(scheduler: &mut Scheduler, all: &[Wanted]) -> Vec<(Received, Vec<TokenId>)> {
    let received: Vec<_> = all
        .iter()
        .map(|wanted| submit(scheduler, wanted.request()))
        .collect();
    run_all(scheduler);
    let texts = all.iter().zip(&received).map(|(wanted, received)| {
        let prompt = tokens(wanted.prompt.0, wanted.prompt.1);
        [prompt, received.ids()].concat()
    });
    let texts: Vec<_> = texts.collect();
    received.into_iter().zip(texts).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, max_shrink_iters: 30, ..ProptestConfig::default() })]

    /// Whatever is drafted, right or wrong, by whom and for how many: the same tokens, logprobs and
    /// ends as without; and what is left behind serves the next request as well.
    #[test]
    fn the_same_tokens_with_and_without(
        all in prop::collection::vec(wanted(), 1..6),
        sessions in 1..4usize,
        (lookup, mtp) in prop::sample::select(vec![(true, false), (false, true), (true, true)]),
        gated in prop::bool::weighted(0.2),
        guided in prop::bool::weighted(0.7),
        keep_every in prop::sample::select(vec![32, 100]),
        cache_tokens in prop::sample::select(vec![None, Some(768)]),
        seed in 0..1000u64,
    ) {
        let options = EngineOptions { sessions, keep_every, cache_tokens, ..options() };
        let mut plain = scheduler_with(options);
        let expected = answers(&mut plain, &all);

        let speculation = SpeculationOptions { always: !gated, ..always(lookup, mtp) };
        let mut drafting = scheduler_with(EngineOptions { speculation, ..options });
        if guided {
            let texts = expected.iter().map(|(_, text)| text.clone()).collect();
            drafting.engine.speculator.oracle = Some(oracle(texts, seed));
        }
        let found = answers(&mut drafting, &all);
        for ((found, _), (expected, text)) in found.iter().zip(&expected) {
            prop_assert_eq!(found.tokens(), expected.tokens());
            match (found.last(), expected.last()) {
                (
                    GenerationEvent::Finished { reason, usage, .. },
                    GenerationEvent::Finished { reason: expected, usage: of, .. },
                ) => {
                    prop_assert_eq!(reason, expected);
                    prop_assert_eq!(usage.generated, of.generated);
                    prop_assert!(usage.speculation.accepted <= usage.speculation.drafted);
                }
                (found, expected) => prop_assert_eq!(found, expected),
            }
            if cache_tokens.is_none() {
                // A conversation that goes on finds the same.
                let next = GenerationRequest::new([text.as_slice(), &tokens(20, 77)].concat(), 8);
                let again = GenerationRequest::new(next.tokens.clone(), 8);
                if next.tokens.len() < 500 {
                    let next = submit(&mut drafting, next);
                    let again = submit(&mut plain, again);
                    run_all(&mut drafting);
                    run_all(&mut plain);
                    prop_assert_eq!(next.tokens(), again.tokens());
                    prop_assert_eq!(next.finished().1.cached, again.finished().1.cached);
                }
            }
        }
        let totals = drafting.totals;
        prop_assert!(totals.accepted_tokens <= totals.drafted_tokens);
        assert_no_leak(&mut drafting);
    }
}

#[test]
fn right_drafts_save_steps() {
    let wanted = Wanted {
        prompt: (40, 1),
        max_tokens: 60,
        temperature: 1.0,
        seed: 4,
        penalties: Penalties::default(),
        stop: Vec::new(),
        constraint: None,
        reasoning: None,
    };
    let mut plain = scheduler_with(options());
    let expected = answers(&mut plain, std::slice::from_ref(&wanted));
    let mut drafting = scheduler_with(EngineOptions {
        speculation: always(true, false),
        ..options()
    });
    let text = expected[0].1.clone();
    drafting.engine.speculator.oracle = Some(Box::new(move |known, _| {
        text.get(known.len() + 1..).unwrap_or_default().to_vec()
    }));
    let found = answers(&mut drafting, &[wanted]);
    assert_eq!(found[0].1, expected[0].1);
    // Two steps of the prompt, then six tokens a step.
    assert_eq!(plain.totals.steps, 2 + 59);
    assert_eq!(drafting.totals.steps, 2 + 10);
    let usage = found[0].0.finished().1;
    assert_eq!(usage.speculation.drafted, usage.speculation.accepted);
    assert_eq!(usage.speculation.accepted, 59 - 10);
    let status = drafting.status().speculation.unwrap();
    assert_eq!(status.lookup_accepted, 49);
    assert_eq!(plain.status().speculation, None);
}

#[test]
fn a_draft_that_makes_a_step_fail_is_no_fault_of_the_request() {
    let poison = 511;
    let mut scheduler = scheduler_with(EngineOptions {
        speculation: always(true, false),
        ..options()
    });
    let wrap = |inner| -> Box<dyn Runner> {
        Box::new(Failing {
            inner,
            poison,
            panics: false,
        })
    };
    scheduler.engine.sequences = scheduler.engine.sequences.wrap_runner(wrap);
    scheduler.engine.speculator.oracle = Some(Box::new(move |_, _| vec![poison]));
    let plan = Plan {
        tokens: tokens(60, 3).into_iter().map(|id| id.min(510)).collect(),
        max_tokens: 9,
        seed: 3,
        greedy: true,
        priority: 1,
        delay: 0,
        cancel_after: None,
    };
    let received = submit(&mut scheduler, plan.request());
    run_all(&mut scheduler);
    assert_eq!(received.tokens(), alone(&mut open(options()), &plan));
    assert_no_leak(&mut scheduler);
}

/// Greedy answers of a random model repeat themselves soon, so that drafts from the text stand; the gate
/// decides by itself.
#[test]
fn sessions_append_the_same_with_drafts() {
    let mut plain = open_with(options());
    for speculation in [
        always(true, false),
        always(false, true),
        always(true, true),
        SpeculationOptions {
            always: false,
            ..always(true, true)
        },
    ] {
        let mut drafting = open_with(EngineOptions {
            speculation,
            ..options()
        });
        let cancel = AtomicBool::new(false);
        let mut control = SyncControl {
            cancel: &cancel,
            progress: &mut |_, _| (),
        };
        let mut sessions = [plain.session().unwrap(), drafting.session().unwrap()];
        for turn in 0..3 {
            for (engine, session) in [&mut plain, &mut drafting].into_iter().zip(&mut sessions) {
                let mut prompt = session.tokens()[..session.position() * turn / 3].to_vec();
                prompt.extend(tokens(30, 3 + turn as u32));
                engine.sync(session, &prompt, &mut control).unwrap();
            }
            let mut sampler = Sampler::new(SamplerSettings {
                temperature: if turn == 1 { 0.3 } else { 0.0 },
                seed: 1,
                ..SamplerSettings::default()
            })
            .unwrap();
            for _ in 0..70 {
                assert_eq!(
                    sessions[0].logits(),
                    sessions[1].logits(),
                    "{speculation:?}"
                );
                let token = sampler.sample(sessions[0].logits());
                plain.append(&mut sessions[0], token).unwrap();
                drafting.append(&mut sessions[1], token).unwrap();
            }
        }
        let status = drafting.speculation().unwrap();
        if speculation.always {
            assert!(
                !speculation.prompt_lookup || status.lookup_accepted > 5,
                "{status:?}"
            );
            assert!(!speculation.mtp || status.mtp_drafted > 20, "{status:?}");
        }
        assert!(!status.mtp_failed);
        let [one, two] = sessions;
        plain.close(one);
        drafting.close(two);
    }
    assert_eq!(plain.speculation(), None);
}
