//! The streaming parser.

mod block;
mod text;
mod value;

use super::call::Call;
use super::output::Output;
use super::quoting::Quoting;
use super::tag::{MAX_TAG, Name, Partial, Scan, Tag, scan};
use super::{Event, ParserOptions, Repair};

/// Whitespace looked through for what follows a tag.
const MAX_GAP: usize = 256;

/// Parses generated text piece by piece. The events, their fragments joined, do not depend on how
/// the text was cut. Holds back only what could be part of a tag (at most about a kilobyte, and runs
/// of newlines as a count); takes time linear in the text.
#[derive(Debug)]
pub struct StreamParser {
    options: ParserOptions,
    state: State,
    /// Text not yet decided, from `at`.
    input: String,
    at: usize,
    /// Everything up to the end of the input is inside a tag that lacks its `>`.
    awaits_tag_end: bool,
    output: Output,
    /// Newlines held back: they vanish before a tool block, and before `</think>`.
    newlines: usize,
    /// Newlines at the start of a section vanish.
    at_start: bool,
    quoting: Quoting,
    /// Inside a block that is a quotation.
    in_quoted_block: bool,
    call: Option<Call>,
    calls: usize,
    /// The parameter without a `string` attribute that has just begun.
    undeclared: String,
    /// Blanks at the end of a bare JSON body, or at the start of a value without a `string` attribute.
    blanks: String,
    /// Text between the tags of this block, or after it, has been reported.
    reported_text: bool,
    /// Between tags, text has begun: blanks are part of it.
    in_text: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reasoning,
    Content,
    /// Inside the block, between calls.
    Block,
    /// Inside a call, between parameters.
    Arguments,
    /// After a parameter tag without a `string` attribute; `dsml` of the tag.
    Undeclared {
        dsml: bool,
    },
    /// Inside a value.
    Value,
    /// Inside a body of JSON.
    BareJson,
    /// After the block.
    Done,
}

/// Whether a step can be followed by another.
#[derive(PartialEq, Eq)]
enum Flow {
    Continue,
    Wait,
}

impl StreamParser {
    /// A parser at the start of an answer.
    pub fn new(options: ParserOptions) -> Self {
        let state = match options {
            ParserOptions {
                starts_in_tool_calls: true,
                ..
            } => State::Block,
            ParserOptions { thinking: true, .. } => State::Reasoning,
            _ => State::Content,
        };
        Self {
            options,
            state,
            input: String::new(),
            at: 0,
            awaits_tag_end: false,
            output: Output::default(),
            newlines: 0,
            at_start: !options.continues_prefix,
            quoting: Quoting::default(),
            in_quoted_block: false,
            call: None,
            calls: 0,
            undeclared: String::new(),
            blanks: String::new(),
            reported_text: false,
            in_text: false,
        }
    }

    /// Takes the next piece of text.
    pub fn push(&mut self, text: &str) -> Vec<Event> {
        self.input.push_str(text);
        if self.awaits_tag_end
            && self.input.len() - self.at <= MAX_TAG
            && !text.contains(['>', '<'])
        {
            return Vec::new();
        }
        self.awaits_tag_end = false;
        while self.step(false) == Flow::Continue {}
        self.input.drain(..self.at);
        self.at = 0;
        self.output.take()
    }

    /// Ends the text: decides what was held back and closes what is open.
    pub fn finish(mut self) -> Vec<Event> {
        while self.step(true) == Flow::Continue {}
        self.finish_partial();
        if let Some(call) = self.call.take() {
            call.truncate(&mut self.output);
        }
        match self.state {
            State::Reasoning | State::Content => self.flush_newlines(),
            State::Done => {}
            _ => self.output.repaired(Repair::UnterminatedBlock),
        }
        self.output.take()
    }

    /// The tool block has ended: nothing that follows counts, generation can stop.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// The text so far ends inside reasoning.
    pub fn is_reasoning(&self) -> bool {
        self.state == State::Reasoning
    }

    fn rest(&self) -> &str {
        &self.input[self.at..]
    }

    fn step(&mut self, at_end: bool) -> Flow {
        if self.at == self.input.len() {
            return Flow::Wait;
        }
        match self.state {
            State::Reasoning | State::Content => self.text_step(at_end),
            State::Block | State::Arguments => self.between_step(at_end),
            State::Undeclared { dsml } => self.undeclared_step(dsml, at_end),
            State::Value | State::BareJson => self.value_step(at_end),
            State::Done => self.done_step(),
        }
    }

    /// Steps over a tag and returns it for a report.
    fn take_tag(&mut self, tag: &Tag) -> String {
        let found = shortened(&self.rest()[..tag.length]);
        self.at += tag.length;
        found
    }

    fn report_spelling(&mut self, tag: &Tag) {
        let found = &self.rest()[..tag.length];
        if found != tag.official() {
            let found = shortened(found);
            self.output.repaired(Repair::TagSpelling { found });
        }
    }

    fn wait_for(&mut self, partial: Partial) -> Flow {
        self.awaits_tag_end = matches!(partial, Partial::Named { .. });
        Flow::Wait
    }

    /// Whether, after a tag of this length and blanks, another follows that `fits`: an invoke tag that
    /// opens or a tool_calls tag that closes.
    fn follows(&self, length: usize, fits: impl Fn(Name) -> bool) -> Follows {
        let after = &self.rest()[length..];
        let next = after.trim_start();
        if after.len() - next.len() > MAX_GAP {
            return Follows::No;
        }
        if next.is_empty() {
            return Follows::Undecided;
        }
        if !next.starts_with('<') {
            return Follows::No;
        }
        match scan(next) {
            Scan::Tag(tag) if fits(tag.name) && (tag.closing == (tag.name == Name::ToolCalls)) => {
                Follows::Yes
            }
            Scan::Incomplete(Partial::Undecided | Partial::Dsml { .. }) => Follows::Undecided,
            Scan::Incomplete(Partial::Named { name, closing, .. })
                if fits(name) && closing == (name == Name::ToolCalls) =>
            {
                Follows::Undecided
            }
            _ => Follows::No,
        }
    }
}

enum Follows {
    Yes,
    No,
    /// The text ended first.
    Undecided,
}

/// At most 80 characters.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
