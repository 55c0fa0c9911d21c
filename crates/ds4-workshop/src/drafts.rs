//! What drafting gains: the same tokens with and without, in turn.
//!
//! Two engines on the same file decode the same workloads, some tokens the one, then some the other, so
//! that what else the machine does meets both. The tokens of an edit and of noise are given, as if the
//! model said them, so that they measure the machine and not the model; a greedy answer is the model's
//! own.

use std::sync::atomic::Ordering;
use std::time::Instant;

use ds4_engine::{Engine, Session, SyncControl};
use ds4_model::TokenId;
use serde::Serialize;

use crate::Control;
use crate::error::WorkshopError;
use crate::random::Random;

/// Tokens between two changes of an edit, on average.
const UNCHANGED: usize = 40;
/// Tokens that an engine decodes before it is the other's turn.
const TURN: usize = 10;

/// What is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Workload {
    /// The prompt again, with a token changed, left out or put in now and then: a file rewritten by an
    /// agent.
    Edit,
    /// What the model says, the likeliest token each time.
    Greedy,
    /// Random tokens: nothing can be foreseen.
    Noise,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Edit, Self::Greedy, Self::Noise];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Greedy => "greedy",
            Self::Noise => "noise",
        }
    }
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DraftOptions {
    /// The prompts; each is a repetition.
    pub prompts: Vec<Vec<TokenId>>,
    /// Tokens decoded behind each prompt.
    pub gen_tokens: usize,
    /// A token that is never generated.
    pub eos: Option<TokenId>,
}

impl DraftOptions {
    /// Tokens that the engines must hold.
    pub fn context(&self) -> usize {
        let longest = self.prompts.iter().map(Vec::len).max().unwrap_or(0);
        longest + self.gen_tokens
    }
}

/// Figures for one workload.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DraftRow {
    /// Which.
    pub workload: Workload,
    /// Tokens decoded by each engine.
    pub tokens: usize,
    /// Steps of the model with drafts; without, it is one a token.
    pub steps: u64,
    /// Tokens drafted.
    pub drafted: u64,
    /// Of those, accepted.
    pub accepted: u64,
    /// Seconds without drafts.
    pub plain_seconds: f64,
    /// Seconds with them.
    pub seconds: f64,
    /// Whether all logits, and so all tokens, were the same bits.
    pub same: bool,
}

impl DraftRow {
    /// How many times as fast it is with drafts.
    pub fn gain(&self) -> f64 {
        self.plain_seconds / self.seconds.max(f64::MIN_POSITIVE)
    }
}

/// Measures all workloads. `plain` drafts nothing; both hold [`DraftOptions::context`] tokens.
///
/// # Errors
/// No prompt, a failure of an engine, or [`WorkshopError::Cancelled`].
pub fn compare_drafts(
    plain: &mut Engine,
    drafting: &mut Engine,
    options: &DraftOptions,
    control: &mut Control<'_>,
) -> Result<Vec<DraftRow>, WorkshopError> {
    if options.prompts.iter().any(Vec::is_empty) || options.prompts.is_empty() {
        return Err(WorkshopError::Setting {
            name: "the number of prompts",
            found: options.prompts.len().to_string(),
            expected: "at least 1, none of them empty".to_owned(),
        });
    }
    let mut rows = Vec::new();
    let total = Workload::ALL.len() * options.prompts.len();
    for workload in Workload::ALL {
        let (steps, before) = (drafting.steps(), drafting.speculation().unwrap_or_default());
        let mut row = DraftRow {
            workload,
            tokens: 0,
            steps: 0,
            drafted: 0,
            accepted: 0,
            plain_seconds: 0.0,
            seconds: 0.0,
            same: true,
        };
        let mut prefilled = 0;
        for (number, prompt) in options.prompts.iter().enumerate() {
            (control.progress)(rows.len() * options.prompts.len() + number, total);
            let answer = answer(workload, prompt, options, plain.shape().vocabulary, number);
            let task = Task {
                prompt,
                answer: answer.as_deref(),
                options,
                // Whoever comes second finds a warmer machine.
                is_swapped: number % 2 == 1,
            };
            let [first, second] = decode_both([&mut *plain, &mut *drafting], &task, control)?;
            row.tokens += options.gen_tokens;
            row.plain_seconds += first.seconds;
            row.seconds += second.seconds;
            row.same &= first.digest == second.digest;
            prefilled += second.prefill_steps;
        }
        let after = drafting.speculation().unwrap_or_default();
        row.steps = drafting.steps() - steps - prefilled;
        row.drafted = after.drafted() - before.drafted();
        row.accepted = after.accepted() - before.accepted();
        rows.push(row);
    }
    (control.progress)(total, total);
    Ok(rows)
}

/// The given answer; `None` where the model decides.
fn answer(
    workload: Workload,
    prompt: &[TokenId],
    options: &DraftOptions,
    vocabulary: usize,
    seed: usize,
) -> Option<Vec<TokenId>> {
    let mut random = Random::new(seed as u64 + 1);
    match workload {
        Workload::Greedy => None,
        Workload::Noise => Some(random.tokens(options.gen_tokens, vocabulary)),
        Workload::Edit => {
            let mut answer = Vec::with_capacity(options.gen_tokens);
            let mut source = prompt.iter().cycle();
            while answer.len() < options.gen_tokens {
                let token = source.next().copied()?;
                let other = random.below(vocabulary) as TokenId;
                match random.below(3 * UNCHANGED) {
                    0 => answer.push(other),
                    1 => {}
                    2 => answer.extend([token, other]),
                    _ => answer.push(token),
                }
            }
            answer.truncate(options.gen_tokens);
            Some(answer)
        }
    }
}

/// What both engines decode.
#[derive(Clone, Copy)]
struct Task<'a> {
    prompt: &'a [TokenId],
    /// The given answer, if the model does not decide.
    answer: Option<&'a [TokenId]>,
    options: &'a DraftOptions,
    /// Whether the second begins.
    is_swapped: bool,
}

/// What an engine has decoded.
#[derive(Clone, Copy, Default)]
struct Decoded {
    seconds: f64,
    prefill_steps: u64,
    /// Of all logits.
    digest: u64,
    tokens: usize,
}

fn decode_both(
    [first, second]: [&mut Engine; 2],
    task: &Task<'_>,
    control: &mut Control<'_>,
) -> Result<[Decoded; 2], WorkshopError> {
    first.forget_kept();
    second.forget_kept();
    let mut session = first.session()?;
    let result = second.session().map_err(WorkshopError::from);
    let result = result.and_then(|mut other| {
        let sides = [(&mut *first, &mut session), (&mut *second, &mut other)];
        let result = take_turns(sides, task, control);
        second.close(other);
        result
    });
    first.close(session);
    result
}

fn take_turns(
    mut sides: [(&mut Engine, &mut Session); 2],
    task: &Task<'_>,
    control: &mut Control<'_>,
) -> Result<[Decoded; 2], WorkshopError> {
    let mut decoded = [Decoded::default(); 2];
    for ((engine, session), decoded) in sides.iter_mut().zip(&mut decoded) {
        let steps = engine.steps();
        let mut sync = SyncControl {
            cancel: control.cancel,
            progress: &mut |_, _| (),
        };
        if engine.sync(session, task.prompt, &mut sync)?.cancelled {
            return Err(WorkshopError::Cancelled);
        }
        decoded.prefill_steps = engine.steps() - steps;
        decoded.digest = mix(0, session.logits());
    }
    let mut turn = usize::from(task.is_swapped);
    while decoded
        .iter()
        .any(|decoded| decoded.tokens < task.options.gen_tokens)
    {
        for at in [turn % 2, (turn + 1) % 2] {
            if control.cancel.load(Ordering::Relaxed) {
                return Err(WorkshopError::Cancelled);
            }
            let (engine, session) = &mut sides[at];
            decode_some(engine, session, task, &mut decoded[at])?;
        }
        turn += 1;
    }
    Ok(decoded)
}

/// The next tokens of one engine.
fn decode_some(
    engine: &mut Engine,
    session: &mut Session,
    task: &Task<'_>,
    decoded: &mut Decoded,
) -> Result<(), WorkshopError> {
    let end = (decoded.tokens + TURN).min(task.options.gen_tokens);
    for index in decoded.tokens..end {
        let token = match task.answer {
            Some(answer) => answer[index],
            None => likeliest(session.logits(), task.options.eos),
        };
        let start = Instant::now();
        engine.append(session, token)?;
        decoded.seconds += start.elapsed().as_secs_f64();
        decoded.digest = mix(decoded.digest, session.logits());
    }
    decoded.tokens = end;
    Ok(())
}

fn mix(digest: u64, logits: &[f32]) -> u64 {
    logits.iter().fold(digest, |digest, logit| {
        (digest ^ u64::from(logit.to_bits()))
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(23)
    })
}

fn likeliest(logits: &[f32], eos: Option<TokenId>) -> TokenId {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, &logit) in logits.iter().enumerate() {
        if logit > best.1 && Some(id as TokenId) != eos {
            best = (id as TokenId, logit);
        }
    }
    best.0
}
