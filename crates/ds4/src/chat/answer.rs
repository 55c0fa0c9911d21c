//! One answer: prefill, then a token at a time.

use std::time::Instant;

use anyhow::Context;
use ds4_chat::{ParsedMessage, ParserOptions};
use ds4_engine::{Engine, EngineError, Sampler, Session, SyncControl};
use ds4_tokenizer::{TokenId, Tokenizer};

use super::display::AnswerDisplay;
use super::transcript::PromptTokens;
use crate::generation::{Generation, Outcome};
use crate::interrupt::ArmedInterrupt;
use crate::output::Output;
use crate::progress::PrefillBar;

/// What an answer took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AnswerReport {
    pub(crate) outcome: Outcome,
    pub(crate) reused: usize,
    pub(crate) prefilled: usize,
    pub(crate) prefill_seconds: f64,
    pub(crate) generated: usize,
    pub(crate) decode_seconds: f64,
}

impl AnswerReport {
    /// Both speeds in one line.
    pub(crate) fn speeds(&self) -> String {
        let rate = |tokens: usize, seconds: f64| match seconds {
            seconds if seconds > 0.0 => format!(" at {:.2} t/s", tokens as f64 / seconds),
            _ => String::new(),
        };
        let reused = match self.reused {
            0 => String::new(),
            reused => format!(" (+{reused} reused)"),
        };
        format!(
            "prefill {} tokens{reused}{}, answer {} tokens{}",
            self.prefilled,
            rate(self.prefilled, self.prefill_seconds),
            self.generated,
            rate(self.generated, self.decode_seconds),
        )
    }
}

/// An answer and the tokens that it was sampled as, without the end of the sentence.
pub(crate) struct Answer {
    pub(crate) message: ParsedMessage,
    pub(crate) sampled: Vec<TokenId>,
    pub(crate) report: AnswerReport,
}

/// What is needed for an answer.
pub(crate) struct Generator<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) session: &'a mut Session,
    pub(crate) sampler: &'a mut Sampler,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) interrupt: &'a ArmedInterrupt<'a>,
    pub(crate) max_tokens: Option<usize>,
    pub(crate) thinking: bool,
}

impl Generator<'_> {
    /// Brings the session to the end of the prompt.
    ///
    /// It does so in steps whose ends the session can go back to: the history, because a session
    /// that was saved ends there and is to continue with the same bits; and before the last token
    /// when that is `<think>`, because the next prompt has `</think>` in its place.
    pub(crate) fn prefill(
        &mut self,
        prompt: &PromptTokens,
        output: &Output,
    ) -> anyhow::Result<AnswerReport> {
        let length = prompt.ids.len();
        let context = self.engine.options().context;
        if length >= context {
            // At least one token must fit behind the prompt.
            return Err(EngineError::ContextFull {
                tokens: length + 1,
                context,
            }
            .into());
        }
        let mut report = AnswerReport {
            outcome: Outcome::Finished,
            reused: 0,
            prefilled: 0,
            prefill_seconds: 0.0,
            generated: 0,
            decode_seconds: 0.0,
        };
        let held = self.session.tokens().iter().zip(&prompt.ids);
        let common = held.take_while(|(held, wanted)| held == wanted).count();
        let mut bar = PrefillBar::new(length - common, output);
        let start = Instant::now();
        let before_think = length - usize::from(self.thinking);
        let mut stages = vec![prompt.history, before_think, length];
        stages.retain(|&end| end > 0);
        stages.dedup();
        let mut first = true;
        for end in stages {
            let before = report.prefilled;
            let mut progress = |done, _| bar.update(before + done);
            let mut control = SyncControl {
                cancel: self.interrupt.cancel(),
                progress: &mut progress,
            };
            let stage = self
                .engine
                .sync(self.session, &prompt.ids[..end], &mut control)?;
            report.prefilled += stage.evaluated;
            if first {
                report.reused = stage.reused;
                first = false;
            }
            if stage.cancelled {
                report.outcome = Outcome::Interrupted;
                break;
            }
        }
        bar.finish();
        report.prefill_seconds = start.elapsed().as_secs_f64();
        Ok(report)
    }

    /// Samples the answer behind the prompt that the session holds.
    pub(crate) fn generate(
        &mut self,
        mut report: AnswerReport,
        mut display: AnswerDisplay<'_>,
    ) -> anyhow::Result<Answer> {
        let options = ParserOptions {
            thinking: self.thinking,
            tools: false,
            ..ParserOptions::default()
        };
        let generation = Generation {
            engine: &mut *self.engine,
            session: &mut *self.session,
            sampler: &mut *self.sampler,
            tokenizer: self.tokenizer,
            cancel: self.interrupt.cancel(),
            max_tokens: self.max_tokens,
            options,
        };
        let generated =
            generation.run(&mut |event| display.event(event).context("cannot write the answer"))?;
        display.finish().context("cannot write the answer")?;
        report.outcome = generated.outcome;
        report.generated = generated.sampled.len();
        report.decode_seconds = generated.seconds;
        Ok(Answer {
            message: generated.message,
            sampled: generated.sampled,
            report,
        })
    }
}
