//! Sampled tokens to events: text in whole characters, reasoning, answer and tool calls apart, stop
//! texts cut off.

use ds4_chat::{Event, ParserOptions, StopMatcher, StreamParser};
use ds4_tokenizer::{StreamDecoder, TokenId, Tokenizer};

use super::{FinishReason, TokenLogprob, TurnEvent};

/// How the tokens of an answer are read.
#[derive(Clone, Debug)]
pub(crate) struct AssemblerOptions {
    /// What the prompt ended in.
    pub(crate) parser: ParserOptions,
    /// Texts that end the answer.
    pub(crate) stop: Vec<String>,
    /// Start of call ids, as the dialect has them: `call_`, `toolu_`.
    pub(crate) call_id_prefix: &'static str,
}

/// Why generation ended, as the engine says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum GenerationEnd {
    /// A token that ends the answer.
    EndToken,
    /// No more tokens allowed.
    Length,
    /// Cancelled.
    Cancelled,
}

/// Turns the tokens of one answer into events.
#[derive(Debug)]
pub(crate) struct Assembler {
    tokenizer: Tokenizer,
    decoder: StreamDecoder,
    parser: StreamParser,
    stop: StopMatcher,
    call_id_prefix: &'static str,
    /// A call in progress.
    calls: usize,
    completion: usize,
    reasoning: usize,
    stopped_by: Option<String>,
}

impl Assembler {
    pub(crate) fn new(tokenizer: &Tokenizer, options: AssemblerOptions) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            decoder: tokenizer.stream_decoder(),
            parser: StreamParser::new(options.parser),
            stop: StopMatcher::new(options.stop),
            call_id_prefix: options.call_id_prefix,
            calls: 0,
            completion: 0,
            reasoning: 0,
            stopped_by: None,
        }
    }

    /// Takes the next sampled token. Returns false when the answer is over whatever would follow.
    pub(crate) fn token(&mut self, id: TokenId, out: &mut Vec<TurnEvent>) -> bool {
        self.completion += 1;
        let was_reasoning = self.parser.is_reasoning();
        let events = self.parser.push(self.decoder.push(id));
        if was_reasoning && self.parser.is_reasoning() {
            self.reasoning += 1;
        }
        self.add(events, out);
        self.stopped_by.is_none() && !self.parser.is_done()
    }

    /// Whether the tokens so far are reasoning.
    pub(crate) fn is_reasoning(&self) -> bool {
        self.parser.is_reasoning()
    }

    /// Tokens so far: all, and those of the reasoning.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.completion, self.reasoning)
    }

    /// Ends the answer: gives what was held back, and why it ended.
    pub(crate) fn finish(mut self, end: GenerationEnd, out: &mut Vec<TurnEvent>) -> FinishReason {
        if self.stopped_by.is_none() {
            let rest = self.decoder.finish().to_owned();
            let events = self.parser.push(&rest);
            self.add(events, out);
        }
        let parser = std::mem::replace(
            &mut self.parser,
            StreamParser::new(ParserOptions::default()),
        );
        if self.stopped_by.is_none() {
            let events = parser.finish();
            self.add(events, out);
        }
        if self.stopped_by.is_none() {
            let rest = self.stop.finish();
            push_text(rest, out);
        }
        match (self.stopped_by, end) {
            (Some(text), _) => FinishReason::StopSequence(text),
            (None, GenerationEnd::Cancelled) => FinishReason::Cancelled,
            (None, GenerationEnd::Length) => FinishReason::Length,
            (None, GenerationEnd::EndToken) if self.calls > 0 => FinishReason::ToolCalls,
            (None, GenerationEnd::EndToken) => FinishReason::Stop,
        }
    }

    /// A token and its alternatives in bytes.
    pub(crate) fn logprob(
        &self,
        token: (TokenId, f32),
        top: &[(TokenId, f32)],
        reasoning: bool,
    ) -> TokenLogprob {
        let bytes = |&(id, logprob): &(TokenId, f32)| super::TopLogprob {
            bytes: self
                .tokenizer
                .token_bytes(id)
                .map(<[u8]>::to_vec)
                .unwrap_or_default(),
            logprob,
        };
        TokenLogprob {
            token: bytes(&token),
            top: top.iter().map(bytes).collect(),
            reasoning,
        }
    }

    fn add(&mut self, events: Vec<Event>, out: &mut Vec<TurnEvent>) {
        for event in events {
            if self.stopped_by.is_some() {
                return;
            }
            match event {
                Event::Reasoning(text) => out.push(TurnEvent::Reasoning(text)),
                Event::Content(text) => {
                    let safe = self.stop.push(&text);
                    push_text(safe, out);
                    self.stopped_by = self.stop.matched().map(str::to_owned);
                }
                Event::ToolCallStart { index, name } => {
                    // The answer's text is over: nothing more can complete a stop text.
                    let rest = self.stop.finish();
                    push_text(rest, out);
                    self.calls += 1;
                    out.push(TurnEvent::CallStart {
                        index,
                        id: call_id(self.call_id_prefix),
                        name,
                    });
                }
                Event::ToolCallArguments { index, delta } => {
                    out.push(TurnEvent::CallArguments { index, delta });
                }
                Event::ToolCallEnd { index, complete } => {
                    out.push(TurnEvent::CallEnd { index, complete });
                }
                // Markup that the model got wrong is no answer; repairs are for the log.
                Event::Ignored(_) | Event::Repaired(_) => {}
            }
        }
    }
}

fn push_text(text: String, out: &mut Vec<TurnEvent>) {
    if !text.is_empty() {
        out.push(TurnEvent::Text(text));
    }
}

/// A call id that nobody can guess: 128 random bits.
fn call_id(prefix: &str) -> String {
    crate::random_id(prefix)
}
