//! The sampler against the definitions, written down again without regard to speed.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;

const DRAWS: usize = 100_000;

/// Nothing acts but the softmax.
fn plain() -> SamplerSettings {
    SamplerSettings {
        min_p: 0.0,
        seed: 7,
        ..SamplerSettings::default()
    }
}

/// Probabilities by definition: every step of the documentation on a full vector of doubles.
/// `answer` and `prompt` are what occurred before.
fn by_definition(
    logits: &[f32],
    settings: &SamplerSettings,
    mask: Option<&TokenMask>,
    prompt: &[TokenId],
    answer: &[TokenId],
) -> Vec<f64> {
    let mut logits: Vec<f64> = logits.iter().map(|&logit| f64::from(logit)).collect();
    for (id, logit) in logits.iter_mut().enumerate() {
        if logit.is_nan() || mask.is_some_and(|mask| !mask.allows(id as u32)) {
            *logit = f64::NEG_INFINITY;
        }
    }
    for &(id, bias) in settings.logit_bias.iter().flat_map(|biases| biases.iter()) {
        if let Some(logit) = logits.get_mut(id as usize) {
            *logit += f64::from(bias);
        }
    }
    let penalties = settings.penalties;
    let all: Vec<(u32, bool)> = prompt
        .iter()
        .map(|&id| (id, false))
        .chain(answer.iter().map(|&id| (id, true)))
        .collect();
    let start = match penalties.window {
        0 => 0,
        window => all.len().saturating_sub(window),
    };
    for (id, logit) in logits.iter_mut().enumerate() {
        let seen = all[start..].iter().filter(|seen| seen.0 == id as u32);
        let (total, in_answer) = (seen.clone().count(), seen.filter(|seen| seen.1).count());
        if total > 0 {
            let factor = f64::from(penalties.repetition);
            *logit = if *logit > 0.0 {
                *logit / factor
            } else {
                *logit * factor
            };
        }
        if in_answer > 0 {
            *logit -= f64::from(penalties.frequency) * in_answer as f64;
            *logit -= f64::from(penalties.presence);
        }
    }

    let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut p: Vec<f64> = logits
        .iter()
        .map(|logit| ((logit - max) / f64::from(settings.temperature)).exp())
        .collect();
    normalise(&mut p);
    if settings.top_k > 0 {
        let order = sorted(&p, |id| -p[id]);
        for &id in order.iter().skip(settings.top_k) {
            p[id] = 0.0;
        }
        normalise(&mut p);
    }
    let max = p.iter().copied().fold(0.0, f64::max);
    for p in &mut p {
        if *p < f64::from(settings.min_p) * max {
            *p = 0.0;
        }
    }
    normalise(&mut p);
    if settings.typical_p < 1.0 {
        let entropy: f64 = p.iter().filter(|&&p| p > 0.0).map(|p| -p * p.ln()).sum();
        let order = sorted(&p, |id| (-p[id].ln() - entropy).abs());
        keep_mass(&mut p, &order, f64::from(settings.typical_p));
    }
    if settings.top_p < 1.0 {
        let order = sorted(&p, |id| -p[id]);
        keep_mass(&mut p, &order, f64::from(settings.top_p));
    }
    p
}

fn sorted(p: &[f64], rank: impl Fn(usize) -> f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| rank(a).total_cmp(&rank(b)).then(a.cmp(&b)));
    order
}

fn keep_mass(p: &mut [f64], order: &[usize], mass: f64) {
    let mut sum = 0.0;
    for &id in order {
        if sum >= mass {
            p[id] = 0.0;
        }
        sum += p[id];
    }
    normalise(p);
}

fn normalise(p: &mut [f64]) {
    let sum: f64 = p.iter().sum();
    p.iter_mut().for_each(|p| *p /= sum);
}

/// Pearson's test: fails where chance would give such counts once in a million draws of this size.
fn assert_distributed(counts: &[usize], expected: &[f64]) {
    let total: usize = counts.iter().sum();
    let mut statistic = 0.0;
    let mut degrees = -1.0;
    for (&count, &p) in counts.iter().zip(expected) {
        if p == 0.0 {
            assert_eq!(count, 0, "an impossible token was drawn");
            continue;
        }
        let mean = p * total as f64;
        statistic += (count as f64 - mean).powi(2) / mean;
        degrees += 1.0;
    }
    if degrees == 0.0 {
        return;
    }
    // Wilson and Hilferty's approximation of the quantile; 4.75 is the normal one.
    let spread = 2.0 / (9.0 * degrees);
    let bound = degrees * (1.0 - spread + 4.75 * f64::sqrt(spread)).powi(3);
    assert!(
        statistic < bound,
        "chi-squared {statistic} at {degrees} degrees: {counts:?} for {expected:?}"
    );
}

const LOGITS: [f32; 8] = [1.0, 3.0, 2.0, -1.0, 2.5, 0.0, 2.9, 1.5];

#[test]
fn draws_are_distributed_as_defined() {
    let bias: Arc<[(u32, f32)]> = Arc::new([(3, 3.5), (1, -1.0), (99, 5.0), (3, 0.5)]);
    let variants = [
        plain(),
        SamplerSettings {
            temperature: 0.4,
            ..plain()
        },
        SamplerSettings {
            temperature: 3.0,
            ..plain()
        },
        SamplerSettings {
            top_k: 3,
            ..plain()
        },
        SamplerSettings {
            min_p: 0.3,
            ..plain()
        },
        SamplerSettings {
            typical_p: 0.5,
            ..plain()
        },
        SamplerSettings {
            top_p: 0.7,
            ..plain()
        },
        SamplerSettings {
            logit_bias: Some(bias.clone()),
            ..plain()
        },
        SamplerSettings {
            temperature: 1.3,
            top_k: 7,
            min_p: 0.02,
            typical_p: 0.95,
            top_p: 0.9,
            logit_bias: Some(bias),
            penalties: Penalties {
                repetition: 1.2,
                frequency: 0.3,
                presence: 0.4,
                window: 5,
            },
            ..plain()
        },
    ];
    let (prompt, answer) = ([1, 1, 2, 4], [4, 6, 4]);
    for settings in variants {
        let mut sampler = Sampler::new(settings.clone()).unwrap();
        sampler.begin(&prompt);
        answer.iter().for_each(|&token| sampler.accept(token));
        let mut counts = [0; LOGITS.len()];
        for _ in 0..DRAWS {
            counts[sampler.sample(&LOGITS) as usize] += 1;
        }
        let expected = by_definition(&LOGITS, &settings, None, &prompt, &answer);
        assert_distributed(&counts, &expected);
    }
}

fn any_settings() -> impl Strategy<Value = SamplerSettings> {
    let share = || prop_oneof![Just(1.0f32), Just(0.0), 0.01f32..1.0];
    let penalties = (
        prop_oneof![Just(1.0f32), 0.5f32..2.0],
        prop_oneof![Just(0.0f32), -2f32..2.0],
        prop_oneof![Just(0.0f32), -2f32..2.0],
        0usize..9,
    )
        .prop_map(|(repetition, frequency, presence, window)| Penalties {
            repetition,
            frequency,
            presence,
            window,
        });
    let bias = prop::option::of(prop::collection::vec((0u32..80, -5f32..5.0), 0..4));
    (
        0.05f32..5.0,
        prop_oneof![Just(0usize), 1usize..80],
        prop_oneof![Just(0.0f32), 0.0f32..0.5],
        share(),
        share(),
        penalties,
        bias,
    )
        .prop_map(
            |(temperature, top_k, min_p, typical_p, top_p, penalties, bias)| SamplerSettings {
                temperature,
                top_k,
                min_p,
                typical_p,
                top_p,
                penalties,
                logit_bias: bias.map(Arc::from),
                seed: 1,
            },
        )
}

fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    // Halves give ties.
    let logit = prop_oneof![
        8 => -12f32..12.0,
        4 => (-8i8..8).prop_map(|half| f32::from(half) / 2.0),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(f32::NAN),
    ];
    prop::collection::vec(logit, 1..70)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_step_is_as_defined(
        logits in any_logits(),
        settings in any_settings(),
        prompt in prop::collection::vec(0u32..70, 0..12),
        answer in prop::collection::vec(0u32..70, 0..12),
        allowed in prop::option::of(prop::collection::vec(0u32..70, 1..40)),
    ) {
        let mask = allowed.map(|ids| {
            let mut mask = TokenMask::new(logits.len());
            ids.iter().for_each(|&id| mask.allow(id));
            mask
        });
        let mut sampler = Sampler::new(settings.clone()).unwrap();
        sampler.begin(&prompt);
        answer.iter().for_each(|&token| sampler.accept(token));
        let is_empty = mask.as_ref().is_some_and(|mask| mask.words().iter().all(|&word| word == 0));
        let Ok(distribution) = sampler.distribution(&logits, mask.as_ref()) else {
            prop_assert!(is_empty);
            return Ok(());
        };
        prop_assert!(!is_empty);
        let sum: f64 = distribution.iter().map(|(_, p)| p).sum();
        prop_assert!((sum - 1.0).abs() < 1e-9);
        let expected = by_definition(&logits, &settings, mask.as_ref(), &prompt, &answer);
        if expected.iter().any(|p| p.is_nan()) {
            // Everything is impossible.
            return Ok(());
        }
        // Where a bound falls between two tokens that differ by rounding only, either may stay.
        let found: Vec<f64> = (0..logits.len()).map(|id| distribution.probability(id as u32)).collect();
        let largest = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        if largest >= 1e-4 {
            prop_assert!(is_near_a_bound(&logits, &settings, mask.as_ref(), &prompt, &answer, &found),
                "{found:?}\n{expected:?}");
        }
    }

    /// Nothing of the smallest set can go: without its least likely token it falls short.
    #[test]
    fn the_top_p_set_is_minimal(logits in prop::collection::vec(-6f32..6.0, 2..300), top_p in 0.01f32..0.99) {
        let mut sampler = Sampler::new(SamplerSettings { top_p, ..plain() }).unwrap();
        let kept: Vec<u32> = sampler.distribution(&logits, None).unwrap().iter().map(|(id, _)| id).collect();
        let p = by_definition(&logits, &plain(), None, &[], &[]);
        let mut kept: Vec<f64> = kept.iter().map(|&id| p[id as usize]).collect();
        kept.sort_by(|a, b| b.total_cmp(a));
        let sum: f64 = kept.iter().sum();
        let least = kept.last().copied().unwrap();
        prop_assert!(sum >= f64::from(top_p) - 1e-6);
        prop_assert!(sum - least < f64::from(top_p) + 1e-6);
        let outside = p.iter().filter(|&&p| p > least * (1.0 + 1e-5)).count();
        prop_assert!(outside <= kept.len(), "a likelier token was dropped");
    }

    #[test]
    fn a_sampled_token_is_always_allowed(
        logits in any_logits(),
        settings in any_settings(),
        infinite in prop::option::of(0usize..70),
        allowed in prop::collection::vec(0u32..90, 1..6),
        vocabulary in 1usize..90,
        greedy in any::<bool>(),
    ) {
        let mut logits = logits;
        if let Some(logit) = infinite.and_then(|at| logits.get_mut(at)) {
            *logit = f32::INFINITY;
        }
        let mut mask = TokenMask::new(vocabulary);
        allowed.iter().for_each(|&id| mask.allow(id));
        let temperature = if greedy { 0.0 } else { settings.temperature };
        let mut sampler = Sampler::new(SamplerSettings { temperature, ..settings }).unwrap();
        match sampler.sample_masked(&logits, &mask) {
            Ok(token) => prop_assert!(mask.allows(token) && (token as usize) < logits.len()),
            Err(EmptyMask) => prop_assert!((0..logits.len() as u32).all(|id| !mask.allows(id))),
        }
    }

    #[test]
    fn logprobs_are_the_log_softmax(logits in any_logits(), top in 0usize..80, chosen in 0u32..80) {
        let p = by_definition(&logits, &plain(), None, &[], &[]);
        let mut alternatives = Vec::new();
        let found = logprobs(&logits, chosen, top, &mut alternatives);
        let close = |found: f32, p: f64| f64::from(found) == p.ln() || (f64::from(found) - p.ln()).abs() < 1e-5;
        if p.iter().any(|p| p.is_nan()) {
            prop_assert!(alternatives.is_empty() && found == f32::NEG_INFINITY);
            return Ok(());
        }
        prop_assert!(close(found, p.get(chosen as usize).copied().unwrap_or(0.0)));
        // By logit, so that the order does not hang on rounding.
        let rank = |id: usize| if logits[id].is_nan() { f64::INFINITY } else { -f64::from(logits[id]) };
        let mut expected = sorted(&p, rank);
        expected.retain(|&id| logits[id] > f32::NEG_INFINITY);
        expected.truncate(top);
        let ids: Vec<usize> = alternatives.iter().map(|other| other.token as usize).collect();
        prop_assert_eq!(&ids, &expected);
        for other in &alternatives {
            prop_assert!(close(other.logprob, p[other.token as usize]));
        }
    }

    /// Whatever was drafted from whatever, a greedy answer is the greedy answer.
    #[test]
    fn a_greedy_target_ignores_drafts(logits in prop::collection::vec(-6f32..6.0, 1..40), drafted in 0u32..40, certain in any::<bool>()) {
        let mut sampler = Sampler::new(SamplerSettings { temperature: 0.0, ..plain() }).unwrap();
        let expected = sampler.sample(&logits);
        let mut draft = Distribution::default();
        if certain {
            draft.set_certain(drafted);
        } else {
            draft.set_softmax(&logits, logits.iter().copied().fold(f32::MIN, f32::max), 5.0, 0.0);
        }
        let token = match sampler.verify(&logits, None, &draft, drafted).unwrap() {
            Verdict::Accepted => drafted,
            Verdict::Replaced(token) => token,
        };
        prop_assert_eq!(token, expected);
    }
}

/// Whether slightly other bounds give what was found.
fn is_near_a_bound(
    logits: &[f32],
    settings: &SamplerSettings,
    mask: Option<&TokenMask>,
    prompt: &[TokenId],
    answer: &[TokenId],
    found: &[f64],
) -> bool {
    let nudges = [1.0 - 1e-4, 1.0, 1.0 + 1e-4];
    nudges.iter().any(|min_p| {
        nudges.iter().any(|typical_p| {
            nudges.iter().any(|top_p| {
                let settings = SamplerSettings {
                    min_p: settings.min_p * min_p,
                    typical_p: nudged(settings.typical_p, *typical_p),
                    top_p: nudged(settings.top_p, *top_p),
                    ..settings.clone()
                };
                let expected = by_definition(logits, &settings, mask, prompt, answer);
                let same = |(found, expected): (&f64, &f64)| (found - expected).abs() < 1e-3;
                found.iter().zip(&expected).all(same)
                    // Ties by rounding may go to another token of the same probability.
                    || equal_sorted(found, &expected)
            })
        })
    })
}

fn nudged(share: f32, factor: f32) -> f32 {
    if share < 1.0 { share * factor } else { share }
}

fn equal_sorted(a: &[f64], b: &[f64]) -> bool {
    let sorted = |values: &[f64]| {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        values
    };
    let pairs = sorted(a).into_iter().zip(sorted(b));
    pairs.into_iter().all(|(a, b)| (a - b).abs() < 1e-3)
}

#[test]
fn speculation_keeps_the_distribution() {
    let targets = [
        plain(),
        SamplerSettings {
            temperature: 0.7,
            top_p: 0.8,
            ..plain()
        },
    ];
    // A good draft, a bad one, one that cannot give what the target can, a certain one.
    let drafts: [&[f32]; 4] = [
        &[1.1, 2.8, 2.2, -1.0, 2.4, 0.1, 2.9, 1.4],
        &[3.0, -1.0, 0.0, 2.0, -2.0, 1.0, 0.0, 0.5],
        &[
            f32::NEG_INFINITY,
            1.0,
            f32::NEG_INFINITY,
            3.0,
            0.0,
            0.0,
            0.0,
            0.0,
        ],
        &[0.0, 0.0, 50.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ];
    for settings in targets {
        for logits in drafts {
            let mut drafter = Sampler::new(SamplerSettings {
                seed: 99,
                ..plain()
            })
            .unwrap();
            let mut sampler = Sampler::new(settings.clone()).unwrap();
            let q = by_definition(logits, &plain(), None, &[], &[]);
            let p = by_definition(&LOGITS, &settings, None, &[], &[]);
            let draft = drafter.distribution(logits, None).unwrap().clone();
            let mut counts = [0; LOGITS.len()];
            let mut accepted = 0;
            for _ in 0..DRAWS {
                let drafted = draft.draw(drafter.uniform()).unwrap();
                let token = match sampler.verify(&LOGITS, None, &draft, drafted).unwrap() {
                    Verdict::Accepted => {
                        accepted += 1;
                        drafted
                    }
                    Verdict::Replaced(token) => token,
                };
                counts[token as usize] += 1;
            }
            assert_distributed(&counts, &p);
            // The best that any such rule can do.
            let overlap: f64 = p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum();
            assert_distributed(&[accepted, DRAWS - accepted], &[overlap, 1.0 - overlap]);
        }
    }
}

#[test]
fn a_draft_that_its_distribution_excludes_counts_as_certain() {
    let mut draft = Distribution::default();
    draft.set_certain(0);
    let mut sampler = Sampler::new(plain()).unwrap();
    let mut counts = [0; LOGITS.len()];
    for _ in 0..DRAWS {
        let token = match sampler.verify(&LOGITS, None, &draft, 1).unwrap() {
            Verdict::Accepted => 1,
            Verdict::Replaced(token) => token,
        };
        counts[token as usize] += 1;
    }
    assert_distributed(&counts, &by_definition(&LOGITS, &plain(), None, &[], &[]));
}

#[test]
fn zero_temperature_picks_the_lowest_of_the_likeliest() {
    let mut sampler = Sampler::new(SamplerSettings {
        temperature: 0.0,
        ..plain()
    })
    .unwrap();
    assert_eq!(sampler.sample(&[f32::NAN, 1.0, 2.0, 2.0]), 2);
    assert_eq!(sampler.sample(&[f32::NEG_INFINITY; 3]), 0);
    assert_eq!(sampler.sample(&[]), 0);
}

#[test]
fn numbers_that_are_none_break_nothing() {
    for temperature in [0.0, f32::MIN_POSITIVE, 1.0, 100.0] {
        let settings = SamplerSettings {
            temperature,
            top_p: 0.9,
            typical_p: 0.9,
            ..plain()
        };
        let mut sampler = Sampler::new(settings).unwrap();
        let infinite = [0.0, f32::INFINITY, f32::NAN, f32::INFINITY];
        assert_eq!(sampler.sample(&infinite), 1);
        assert_eq!(sampler.sample(&[f32::NAN; 4]), 0);
        assert_eq!(sampler.sample(&[f32::NAN, f32::MIN, f32::NAN]), 1);
        assert_eq!(sampler.sample(&[f32::MIN, f32::MAX]), 1);
        let mut mask = TokenMask::new(4);
        assert_eq!(sampler.sample_masked(&[0.0; 4], &mask), Err(EmptyMask));
        mask.allow(2);
        assert_eq!(sampler.sample_masked(&infinite, &mask), Ok(2));
        assert_eq!(sampler.sample_masked(&[f32::NAN; 4], &mask), Ok(2));
    }
    let mut alternatives = Vec::new();
    let infinite = [0.0, f32::INFINITY, f32::NAN, f32::INFINITY];
    let half = logprobs(&infinite, 3, 9, &mut alternatives);
    assert!((half - 0.5f32.ln()).abs() < 1e-6);
    assert_eq!(alternatives.len(), 2);
}

#[test]
fn equal_seeds_draw_equal_tokens() {
    let draw = |seed| {
        let mut sampler = Sampler::new(SamplerSettings { seed, ..plain() }).unwrap();
        (0..64).map(|_| sampler.sample(&LOGITS)).collect::<Vec<_>>()
    };
    assert_eq!(draw(3), draw(3));
    assert_ne!(draw(3), draw(4));
}

#[test]
fn an_answer_begins_without_the_last_ones_penalties() {
    let settings = SamplerSettings {
        temperature: 0.0,
        penalties: Penalties {
            presence: 2.0,
            ..Penalties::default()
        },
        ..plain()
    };
    let mut sampler = Sampler::new(settings).unwrap();
    let logits = [1.0, 0.5];
    sampler.accept(0);
    assert_eq!(sampler.sample(&logits), 1);
    sampler.begin(&[0, 0]);
    assert_eq!(sampler.sample(&logits), 0);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let refused = |settings: SamplerSettings| Sampler::new(settings).unwrap_err().name;
    let penalties = Penalties::default();
    let name = refused(SamplerSettings {
        top_p: f32::NAN,
        ..plain()
    });
    assert_eq!(name, "top-p");
    let name = refused(SamplerSettings {
        temperature: -1.0,
        ..plain()
    });
    assert_eq!(name, "the temperature");
    let name = refused(SamplerSettings {
        logit_bias: Some(Arc::new([(1, 0.5), (2, f32::INFINITY)])),
        ..plain()
    });
    assert_eq!(name, "the bias of a logit");
    let name = refused(SamplerSettings {
        penalties: Penalties {
            repetition: 0.0,
            ..penalties
        },
        ..plain()
    });
    assert_eq!(name, "the repetition penalty");
    let name = refused(SamplerSettings {
        penalties: Penalties {
            window: usize::MAX,
            ..penalties
        },
        ..plain()
    });
    assert_eq!(name, "the window of the penalties");
}
