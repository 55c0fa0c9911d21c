//! An answer: sampled token by token, and sorted into reasoning, content and tool calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use ds4_chat::{Event, ParsedMessage, ParserOptions, StreamParser};
use ds4_engine::{Engine, Sampler, Session};
use ds4_tokenizer::{TokenId, Tokenizer};

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The model ended it.
    Finished,
    /// The longest answer allowed.
    TokenLimit,
    /// No room in the context.
    ContextFull,
    /// Ctrl-C.
    Interrupted,
}

/// What an answer is made with. The session holds the prompt.
pub(crate) struct Generation<'a> {
    pub(crate) engine: &'a mut Engine,
    pub(crate) session: &'a mut Session,
    pub(crate) sampler: &'a mut Sampler,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) cancel: &'a AtomicBool,
    /// Longest answer; `None` until the context is full.
    pub(crate) max_tokens: Option<usize>,
    /// How the text is to be read.
    pub(crate) options: ParserOptions,
}

/// An answer and the tokens that it was sampled as, without the end of the sentence.
pub(crate) struct Generated {
    pub(crate) message: ParsedMessage,
    pub(crate) sampled: Vec<TokenId>,
    pub(crate) outcome: Outcome,
    pub(crate) seconds: f64,
}

impl Generation<'_> {
    /// Samples the answer and calls `on_event` with what each token adds.
    ///
    /// # Errors
    /// Those of the engine and of `on_event`.
    pub(crate) fn run(
        self,
        on_event: &mut dyn FnMut(&Event) -> anyhow::Result<()>,
    ) -> anyhow::Result<Generated> {
        let mut parser = StreamParser::new(self.options);
        let mut decoder = self.tokenizer.stream_decoder();
        let mut message = ParsedMessage::default();
        let mut sampled = Vec::new();
        let mut take = |events: Vec<Event>| {
            for event in events {
                on_event(&event)?;
                message.add(event);
            }
            anyhow::Ok(())
        };
        let start = Instant::now();
        let outcome = loop {
            if self.cancel.load(Ordering::Relaxed) {
                break Outcome::Interrupted;
            }
            if Some(sampled.len()) == self.max_tokens {
                break Outcome::TokenLimit;
            }
            let token = self.sampler.sample(self.session.logits());
            if Some(token) == self.tokenizer.eos() {
                break Outcome::Finished;
            }
            sampled.push(token);
            take(parser.push(decoder.push(token)))?;
            if self.session.position() == self.engine.options().context {
                break Outcome::ContextFull;
            }
            self.engine.append(self.session, token)?;
        };
        let seconds = start.elapsed().as_secs_f64();
        take(parser.push(decoder.finish()))?;
        take(parser.finish())?;
        Ok(Generated {
            message,
            sampled,
            outcome,
            seconds,
        })
    }
}
