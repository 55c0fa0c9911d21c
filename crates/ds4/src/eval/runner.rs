//! Cases to answers to verdicts.

use anyhow::Context;
use ds4_chat::{ControlToken, ParserOptions, Vintage, render};
use ds4_engine::{Engine, Sampler, SamplerSettings, Session, SyncControl};
use ds4_eval::{Answer, Case, ContinuationScore, Thinking, Wrong};
use ds4_tokenizer::{TokenId, Tokenizer};

use super::progress::CaseBar;
use super::schedule::{Turn, schedule};
use super::teacher_forcing::score_continuation;
use crate::generation::{Generation, Outcome};
use crate::interrupt::ArmedInterrupt;
use crate::output::Output;
use crate::prompt_tokens;

/// Why a case counts as wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum Failure {
    /// The answer is wrong.
    #[error(transparent)]
    Wrong(#[from] Wrong),
    /// The prompt leaves no room for an answer.
    #[error("its {tokens} tokens do not fit the context of {context}")]
    TooLong { tokens: usize, context: usize },
}

/// What became of one case.
#[derive(Debug, Clone)]
pub(crate) struct CaseResult {
    /// Place among the cases asked.
    pub(crate) case: usize,
    pub(crate) verdict: Result<(), Failure>,
    pub(crate) prompt_tokens: usize,
    /// The tokens of the answer, with the end of the sentence if the model ended it.
    pub(crate) answer: Vec<TokenId>,
    /// How likely the model finds the answer that is judged token by token.
    pub(crate) fidelity: Option<ContinuationScore>,
    pub(crate) answer_tokens: usize,
    pub(crate) reasoning_tokens: usize,
    /// The model did not end the answer itself.
    pub(crate) cut_off: bool,
    /// The answer as generated, control tokens included.
    pub(crate) text: String,
}

/// The results of all cases, or of those before Ctrl-C.
pub(crate) struct Results {
    /// In the order of the cases.
    pub(crate) results: Vec<CaseResult>,
    /// Prompt tokens that were computed; the others were there from a case before.
    pub(crate) prefilled: usize,
    pub(crate) interrupted: bool,
}

/// Whose answers are judged token by token, beside being right or wrong.
#[derive(Clone, Copy)]
pub(crate) enum Judged<'a> {
    /// Nobody's.
    None,
    /// Those that the model gives.
    Own,
    /// Those that another model gave to the same prompts, in the order of the cases.
    Reference(&'a [CaseResult]),
}

/// Cases with their prompts.
pub(crate) struct Runner<'a> {
    cases: &'a [&'a Case],
    prompts: Vec<Vec<TokenId>>,
    tokenizer: &'a Tokenizer,
    think_end: Option<TokenId>,
}

impl<'a> Runner<'a> {
    /// Makes the prompts of all cases.
    ///
    /// # Errors
    /// A case that cannot be written as a prompt, with its id.
    pub(crate) fn new(
        cases: &'a [&'a Case],
        tokenizer: &'a Tokenizer,
        vintage: Vintage,
    ) -> anyhow::Result<Self> {
        let prompt = |case: &&Case| {
            let prompt = render(&case.conversation(), vintage)?;
            prompt_tokens::encode(tokenizer, prompt.pieces())
        };
        let prompts = cases
            .iter()
            .map(|case| prompt(case).with_context(|| format!("cannot ask case `{}`", case.id)))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self {
            cases,
            prompts,
            tokenizer,
            think_end: tokenizer.special(ControlToken::ThinkEnd.text()),
        })
    }

    /// Tokens that the longest case can need.
    pub(crate) fn context(&self) -> usize {
        let needed = self.prompts.iter().zip(self.cases);
        needed
            .map(|(prompt, case)| prompt.len() + case.max_tokens)
            .max()
            .unwrap_or(1)
    }

    /// The prompts in tokens.
    pub(crate) fn prompts(&self) -> &[Vec<TokenId>] {
        &self.prompts
    }

    /// Asks every case, greedily.
    ///
    /// # Errors
    /// Those of the engine; a wrong answer is none.
    pub(crate) fn run(
        &self,
        engine: &mut Engine,
        judged: Judged<'_>,
        interrupt: &ArmedInterrupt<'_>,
        output: &Output,
    ) -> anyhow::Result<Results> {
        let turns = schedule(&self.prompts);
        let work = turns.iter().map(|turn| self.work(turn)).sum();
        let bar = CaseBar::new(turns.len(), work, output);
        let mut sampler = Sampler::new(SamplerSettings {
            temperature: 0.0,
            ..SamplerSettings::default()
        })?;
        let mut session = engine.session()?;
        let mut results = Results {
            results: Vec::with_capacity(turns.len()),
            prefilled: 0,
            interrupted: false,
        };
        let (mut done, mut right) = (0, 0);
        for turn in &turns {
            let asked = results.results.len();
            bar.update(done, asked, right);
            let mut show = |part: usize| bar.update(done + part, asked, right);
            let mut asking = Asking {
                engine: &mut *engine,
                session: &mut session,
                sampler: &mut sampler,
                interrupt,
                judged,
            };
            let result = self
                .ask(turn, &mut asking, &mut results.prefilled, &mut show)
                .with_context(|| format!("failed in case `{}`", self.cases[turn.prompt].id))?;
            let Some(result) = result else {
                results.interrupted = true;
                break;
            };
            right += usize::from(result.verdict.is_ok());
            done += self.work(turn);
            results.results.push(result);
        }
        engine.close(session);
        results.results.sort_by_key(|result| result.case);
        Ok(results)
    }

    /// A guess of how long a case takes, in tokens.
    fn work(&self, turn: &Turn) -> usize {
        let prompt = &self.prompts[turn.prompt];
        prompt.len() - turn.reused + self.cases[turn.prompt].max_tokens
    }

    /// The result of one case; `None` after Ctrl-C.
    fn ask(
        &self,
        turn: &Turn,
        asking: &mut Asking<'_>,
        prefilled: &mut usize,
        show: &mut dyn FnMut(usize),
    ) -> anyhow::Result<Option<CaseResult>> {
        let (case, prompt) = (self.cases[turn.prompt], &self.prompts[turn.prompt]);
        let mut result = CaseResult {
            case: turn.prompt,
            verdict: Ok(()),
            prompt_tokens: prompt.len(),
            answer: Vec::new(),
            fidelity: None,
            answer_tokens: 0,
            reasoning_tokens: 0,
            cut_off: false,
            text: String::new(),
        };
        let context = asking.engine.options().context;
        if prompt.len() >= context {
            result.verdict = Err(Failure::TooLong {
                tokens: prompt.len(),
                context,
            });
            return Ok(Some(result));
        }
        let before = *prefilled;
        for &end in turn.stops.iter().chain([&prompt.len()]) {
            let done = *prefilled - before;
            let report = asking.engine.sync(
                asking.session,
                &prompt[..end],
                &mut SyncControl {
                    cancel: asking.interrupt.cancel(),
                    progress: &mut |part, _| show(done + part),
                },
            )?;
            *prefilled += report.evaluated;
            if report.cancelled {
                return Ok(None);
            }
        }
        let thinking = case.thinking != Thinking::Off;
        let generated = Generation {
            engine: &mut *asking.engine,
            session: &mut *asking.session,
            sampler: &mut *asking.sampler,
            tokenizer: self.tokenizer,
            cancel: asking.interrupt.cancel(),
            max_tokens: Some(case.max_tokens),
            options: ParserOptions {
                thinking,
                tools: case.offers_tools(),
                ..ParserOptions::default()
            },
        }
        .run(&mut |_| Ok(()))?;
        if generated.outcome == Outcome::Interrupted {
            return Ok(None);
        }
        let sampled = &generated.sampled;
        result.answer_tokens = sampled.len();
        result.reasoning_tokens = match thinking {
            false => 0,
            // Reasoning without end is all there is.
            true => sampled
                .iter()
                .position(|&id| Some(id) == self.think_end)
                .unwrap_or(sampled.len()),
        };
        result.cut_off = generated.outcome != Outcome::Finished;
        result.text = self.tokenizer.decode_lossy(sampled);
        result.answer.clone_from(sampled);
        if generated.outcome == Outcome::Finished {
            result.answer.extend(self.tokenizer.eos());
        }
        let judged = match asking.judged {
            Judged::None => None,
            Judged::Own => Some(&result.answer),
            Judged::Reference(results) => results.get(turn.prompt).map(|result| &result.answer),
        };
        if let Some(target) = judged {
            let mut control = SyncControl {
                cancel: asking.interrupt.cancel(),
                progress: &mut |_, _| {},
            };
            let (engine, session) = (&mut *asking.engine, &mut *asking.session);
            result.fidelity = score_continuation(engine, session, prompt, target, &mut control)?;
            if result.fidelity.is_none() {
                return Ok(None);
            }
        }
        let answer = Answer {
            message: &generated.message,
            reasoning_tokens: result.reasoning_tokens,
        };
        result.verdict = case.judge(&answer).map_err(Failure::from);
        Ok(Some(result))
    }
}

/// What every case is asked with.
struct Asking<'a> {
    engine: &'a mut Engine,
    session: &'a mut Session,
    sampler: &'a mut Sampler,
    interrupt: &'a ArmedInterrupt<'a>,
    judged: Judged<'a>,
}
