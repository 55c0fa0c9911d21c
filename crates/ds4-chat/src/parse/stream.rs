//! The streaming parser.

use super::call::{Call, MAX_NESTING};
use super::output::Output;
use super::quoting::Quoting;
use super::tag::{MAX_TAG, Name, Partial, Scan, Tag, scan};
use super::{BlocksInReasoning, Entities, Event, ParserOptions, Repair};

const THINK_END: &str = "</think>";
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

    // --- reasoning and content ---

    fn text_step(&mut self, at_end: bool) -> Flow {
        let rest = self.rest();
        let plain = rest.find(['<', '\n']).unwrap_or(rest.len());
        if plain > 0 {
            self.emit_text(plain);
            return Flow::Continue;
        }
        let newlines = rest.bytes().take_while(|&byte| byte == b'\n').count();
        if newlines > 0 {
            self.at += newlines;
            if !self.at_start {
                self.newlines += newlines;
            }
            return Flow::Continue;
        }
        if rest.starts_with(THINK_END) {
            return self.think_end();
        }
        if THINK_END.starts_with(rest) && !at_end {
            return Flow::Wait;
        }
        if self.options.tools {
            match scan(rest) {
                Scan::Tag(tag) => {
                    if let Some(flow) = self.tag_in_text(tag, at_end) {
                        return flow;
                    }
                }
                Scan::Incomplete(partial) if !at_end => return self.wait_for(partial),
                // Cut off by the end: a tag, unless it is plain XML or would not have counted.
                Scan::Incomplete(
                    Partial::Dsml { closing }
                    | Partial::Named {
                        closing,
                        dsml: true,
                        ..
                    },
                ) if !self.is_quoted(true) && !self.is_text_in_reasoning(closing) => {
                    if closing {
                        let found = shortened(rest);
                        self.output.repaired(Repair::OrphanEndTag { found });
                        self.at = self.input.len();
                    } else {
                        self.open_block();
                    }
                    return Flow::Wait;
                }
                Scan::Incomplete(_) | Scan::Text => {}
            }
        }
        self.emit_text(1);
        Flow::Continue
    }

    fn think_end(&mut self) -> Flow {
        self.at += THINK_END.len();
        if self.state == State::Reasoning {
            self.state = State::Content;
            self.newlines = 0;
            self.at_start = true;
            self.quoting = Quoting::default();
            self.in_quoted_block = false;
        } else {
            self.flush_newlines();
            self.at_start = false;
            self.output.repaired(Repair::StrayThinkEnd);
        }
        Flow::Continue
    }

    /// A whole tag in reasoning or content; `None` if it is text.
    fn tag_in_text(&mut self, tag: Tag, at_end: bool) -> Option<Flow> {
        if self.is_quoted(tag.dsml) {
            self.in_quoted_block = !(tag.closing && tag.name == Name::ToolCalls);
            return None;
        }
        if self.is_text_in_reasoning(tag.closing || !tag.dsml) {
            return None;
        }
        if tag.closing {
            if !tag.dsml {
                return None;
            }
            let found = self.take_tag(&tag);
            self.output.repaired(Repair::OrphanEndTag { found });
            return Some(Flow::Continue);
        }
        if !tag.dsml {
            // Plain XML is a call only as a whole: the block's tag, then an invoke tag.
            if tag.name != Name::ToolCalls {
                return None;
            }
            match self.follows(tag.length, |next| next == Name::Invoke) {
                Follows::Yes => {}
                Follows::Undecided if !at_end => return Some(Flow::Wait),
                _ => return None,
            }
        }
        self.open_block();
        if tag.name == Name::ToolCalls {
            self.report_spelling(&tag);
            self.at += tag.length;
        } else {
            self.output.repaired(Repair::MissingBlockStart);
        }
        Some(Flow::Continue)
    }

    /// In reasoning only the official opening tags count, if any.
    fn is_text_in_reasoning(&self, closing_or_plain: bool) -> bool {
        self.state == State::Reasoning
            && (closing_or_plain || self.options.blocks_in_reasoning == BlocksInReasoning::Text)
    }

    fn open_block(&mut self) {
        if self.state == State::Reasoning {
            self.output.repaired(Repair::UnclosedThinking);
        }
        self.newlines = 0;
        self.state = State::Block;
    }

    fn is_quoted(&self, dsml: bool) -> bool {
        let fenced = self.quoting.in_fence() && (!dsml || self.state == State::Reasoning);
        let ends_line = self.newlines > 0;
        fenced
            || (self.in_quoted_block && self.newlines < 2)
            || (!ends_line && self.quoting.in_quotation())
    }

    fn emit_text(&mut self, length: usize) {
        self.flush_newlines();
        let text = &self.input[self.at..self.at + length];
        self.quoting.follow(text);
        match self.state {
            State::Reasoning => self.output.reasoning(text),
            _ => self.output.content(text),
        }
        self.at += length;
        self.at_start = false;
    }

    fn flush_newlines(&mut self) {
        if self.newlines == 0 {
            return;
        }
        if self.newlines > 1 {
            self.in_quoted_block = false;
        }
        let text = "\n".repeat(std::mem::take(&mut self.newlines));
        self.quoting.follow(&text);
        match self.state {
            State::Reasoning => self.output.reasoning(&text),
            _ => self.output.content(&text),
        }
    }

    // --- between tags ---

    fn between_step(&mut self, at_end: bool) -> Flow {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 && !self.in_text {
            self.at += blank;
            return Flow::Continue;
        }
        if rest.starts_with('{') && self.open_bare_json() {
            return Flow::Continue;
        }
        let rest = self.rest();
        match scan(rest) {
            Scan::Tag(tag) => {
                self.in_text = false;
                self.tag_in_block(tag);
            }
            Scan::Incomplete(_) if at_end => return Flow::Wait,
            Scan::Incomplete(partial) => return self.wait_for(partial),
            Scan::Text => {
                let start = usize::from(rest.starts_with('<'));
                let length = rest[start..].find('<').map_or(rest.len(), |at| at + start);
                self.ignore(length, Repair::TextBetweenTags);
                self.in_text = true;
            }
        }
        Flow::Continue
    }

    /// A call whose body is a JSON object, not parameters.
    fn open_bare_json(&mut self) -> bool {
        let call = self.call.as_mut().filter(|call| call.is_empty());
        let Some(call) = call.filter(|_| self.state == State::Arguments && !self.in_text) else {
            return false;
        };
        self.output.repaired(Repair::BareJson { index: call.index });
        let dsml = call.dsml;
        call.open_value(String::new(), false, dsml, false, &mut self.output);
        self.state = State::BareJson;
        true
    }

    fn tag_in_block(&mut self, tag: Tag) {
        let in_call = self.state == State::Arguments;
        match (tag.name, tag.closing) {
            (Name::Invoke | Name::Parameter, false) if tag.attribute.is_none() => {
                let found = shortened(&self.rest()[..tag.length]);
                self.ignore(tag.length, Repair::MissingName { found });
            }
            (Name::Invoke, false) => {
                self.close_call(true);
                self.report_spelling(&tag);
                self.at += tag.length;
                let name = tag.attribute.unwrap_or_default();
                self.start_call(name, tag.dsml);
                if tag.self_closing {
                    self.close_call(false);
                }
            }
            (Name::Parameter, false) if in_call => {
                self.report_spelling(&tag);
                self.at += tag.length;
                self.open_parameter(tag);
            }
            (Name::ToolCalls | Name::Parameter, false) => {
                self.ignore(tag.length, Repair::TextBetweenTags);
            }
            (Name::ToolCalls, true) => {
                self.close_call(true);
                self.report_spelling(&tag);
                self.at += tag.length;
                self.state = State::Done;
                self.reported_text = false;
            }
            (Name::Invoke, true) if in_call => {
                self.report_spelling(&tag);
                self.at += tag.length;
                self.close_call(false);
            }
            (Name::Parameter, true)
                if self
                    .call
                    .as_mut()
                    .is_some_and(|call| call.close_object(&mut self.output)) =>
            {
                self.report_spelling(&tag);
                self.at += tag.length;
            }
            (Name::Invoke | Name::Parameter, true) => {
                let found = self.take_tag(&tag);
                self.output.repaired(Repair::OrphanEndTag { found });
            }
        }
    }

    fn start_call(&mut self, name: String, dsml: bool) {
        self.call = Some(Call::start(self.calls, name, dsml, &mut self.output));
        self.calls += 1;
        self.state = State::Arguments;
    }

    /// Ends the open call, if there is one.
    fn close_call(&mut self, end_tag_missing: bool) {
        if let Some(call) = self.call.take() {
            if end_tag_missing {
                self.output
                    .repaired(Repair::MissingEndTag { tag: "invoke" });
            }
            call.close(&mut self.output);
        }
        self.state = State::Block;
    }

    fn open_parameter(&mut self, tag: Tag) {
        let Some(call) = &mut self.call else { return };
        let name = tag.attribute.unwrap_or_default();
        call.key(&name, &mut self.output);
        match tag.string {
            Some(is_string) => {
                let decode = match self.options.entities {
                    Entities::Always => true,
                    Entities::Unofficial => !tag.dsml,
                    Entities::Never => false,
                };
                call.open_value(name, is_string, tag.dsml, decode, &mut self.output);
                self.state = State::Value;
                if tag.self_closing {
                    call.close_value(&mut self.output);
                    self.state = State::Arguments;
                }
            }
            None => {
                self.undeclared = name;
                self.state = State::Undeclared { dsml: tag.dsml };
            }
        }
    }

    // --- values ---

    /// A parameter without a `string` attribute: an object if parameters follow, else a string.
    fn undeclared_step(&mut self, dsml: bool, at_end: bool) -> Flow {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        if blank > 0 && self.blanks.len() <= MAX_GAP {
            let take = rest.chars().next().map_or(0, char::len_utf8);
            self.blanks.push_str(&self.input[self.at..self.at + take]);
            self.at += take;
            return Flow::Continue;
        }
        let nested = match scan(rest) {
            Scan::Tag(Tag {
                name: Name::Parameter,
                closing: false,
                attribute: Some(_),
                ..
            }) => true,
            Scan::Incomplete(partial) if rest.starts_with('<') && !at_end => {
                return self.wait_for(partial);
            }
            _ => false,
        };
        let nested = nested
            && self
                .call
                .as_ref()
                .is_some_and(|call| call.nesting() < MAX_NESTING);
        self.declare(dsml, nested);
        Flow::Continue
    }

    fn declare(&mut self, dsml: bool, nested: bool) {
        let blanks = std::mem::take(&mut self.blanks);
        let parameter = std::mem::take(&mut self.undeclared);
        let Some(call) = &mut self.call else { return };
        if nested {
            call.open_object(parameter, &mut self.output);
            self.state = State::Arguments;
        } else {
            self.output.repaired(Repair::MissingStringAttribute {
                index: call.index,
                parameter: parameter.clone(),
            });
            let decode = self.options.entities != Entities::Never;
            call.open_value(parameter, true, dsml, decode, &mut self.output);
            call.value_text(&blanks, &mut self.output);
            self.state = State::Value;
        }
    }

    fn value_step(&mut self, at_end: bool) -> Flow {
        let (dsml, decode) = self
            .call
            .as_ref()
            .and_then(|call| call.value.as_ref())
            .map_or((true, false), |value| (value.dsml, value.decode));
        let rest = self.rest();
        let plain = rest
            .find(|c| c == '<' || (decode && c == '&'))
            .unwrap_or(rest.len());
        if plain > 0 {
            self.emit_value(plain);
            return Flow::Continue;
        }
        if rest.starts_with('&') {
            match entity(rest) {
                Some((character, length)) => {
                    self.at += length;
                    if let Some(call) = &mut self.call {
                        call.value_entity(character, &mut self.output);
                    }
                }
                None if !at_end && ENTITIES.iter().any(|(entity, _)| entity.starts_with(rest)) => {
                    return Flow::Wait;
                }
                None => self.emit_value(1),
            }
            return Flow::Continue;
        }
        match scan(rest) {
            Scan::Tag(tag) if tag.closing && (tag.dsml || !dsml) => {
                // In a value, the end tag of something larger counts only if what follows fits:
                // otherwise it is part of the value.
                let fits = match tag.name {
                    Name::Parameter => Follows::Yes,
                    Name::Invoke => self.follows(tag.length, |next| next != Name::Parameter),
                    Name::ToolCalls => self.follows(tag.length, |_| false),
                };
                match fits {
                    Follows::Undecided if !at_end => return Flow::Wait,
                    Follows::No => self.emit_value(1),
                    Follows::Yes | Follows::Undecided => self.end_value(&tag),
                }
                Flow::Continue
            }
            Scan::Incomplete(partial) if !at_end => self.wait_for(partial),
            Scan::Incomplete(
                Partial::Dsml { closing: true }
                | Partial::Named {
                    closing: true,
                    dsml: true,
                    ..
                },
            ) => {
                // The end cut the end tag.
                if let Some(call) = &mut self.call {
                    call.close_value(&mut self.output);
                }
                self.state = State::Arguments;
                self.at = self.input.len();
                Flow::Wait
            }
            _ => {
                self.emit_value(1);
                Flow::Continue
            }
        }
    }

    fn end_value(&mut self, tag: &Tag) {
        let is_bare = self.state == State::BareJson;
        self.blanks.clear();
        if let Some(call) = &mut self.call {
            call.close_value(&mut self.output);
        }
        self.state = State::Arguments;
        if tag.name == Name::Parameter && !is_bare {
            self.report_spelling(tag);
            self.at += tag.length;
        } else if !is_bare {
            // The larger end tag is read next, where it belongs.
            self.output
                .repaired(Repair::MissingEndTag { tag: "parameter" });
        }
    }

    fn emit_value(&mut self, length: usize) {
        let Some(call) = &mut self.call else { return };
        let mut text = &self.input[self.at..self.at + length];
        self.at += length;
        if self.state == State::BareJson {
            // Blanks at the end belong to the layout.
            let trimmed = text.trim_end();
            if trimmed.is_empty() {
                self.blanks.push_str(text);
                return;
            }
            let blanks = std::mem::replace(&mut self.blanks, text[trimmed.len()..].to_owned());
            call.value_text(&blanks, &mut self.output);
            text = trimmed;
        }
        call.value_text(text, &mut self.output);
    }

    // --- after the block, and shared steps ---

    fn done_step(&mut self) -> Flow {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        if !self.reported_text && blank > 0 {
            self.at += blank;
        } else {
            self.ignore(rest.len(), Repair::TextAfterToolCalls);
        }
        Flow::Continue
    }

    fn ignore(&mut self, length: usize, why: Repair) {
        let is_text = matches!(why, Repair::TextBetweenTags | Repair::TextAfterToolCalls);
        if !is_text || !std::mem::replace(&mut self.reported_text, true) {
            self.output.repaired(why);
        }
        self.output.ignored(&self.input[self.at..self.at + length]);
        self.at += length;
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

    /// What stands in the input at the end is the start of a tag: as much of it as counts.
    fn finish_partial(&mut self) {
        if let State::Undeclared { dsml } = self.state {
            self.declare(dsml, false);
        }
        let rest = self.input[self.at..].to_owned();
        if rest.is_empty() {
            return;
        }
        let Scan::Incomplete(Partial::Named {
            name,
            closing: false,
            dsml,
        }) = scan(&rest)
        else {
            return;
        };
        let Some((_, attribute)) = rest.split_once("name=") else {
            return;
        };
        match (self.state, name) {
            // A name that is whole is known.
            (State::Block | State::Arguments, Name::Invoke) => {
                if let Some((name, _)) = attribute
                    .strip_prefix('"')
                    .and_then(|name| name.split_once('"'))
                {
                    self.close_call(true);
                    self.start_call(name.to_owned(), dsml);
                }
            }
            // The start of the key is the start of what the arguments would have become.
            (State::Arguments, Name::Parameter) => {
                let Some(call) = &mut self.call else { return };
                let key = attribute.split(' ').next().unwrap_or_default();
                let text = format!("{}{key}", call.separator());
                call.write(&text, &mut self.output);
                if attribute.len() > key.len() {
                    call.write(": ", &mut self.output);
                }
            }
            _ => {}
        }
    }
}

enum Follows {
    Yes,
    No,
    /// The text ended first.
    Undecided,
}

const ENTITIES: [(&str, &str); 5] = [
    ("&amp;", "&"),
    ("&lt;", "<"),
    ("&gt;", ">"),
    ("&quot;", "\""),
    ("&apos;", "'"),
];

fn entity(text: &str) -> Option<(&'static str, usize)> {
    ENTITIES
        .iter()
        .find(|(entity, _)| text.starts_with(entity))
        .map(|&(entity, character)| (character, entity.len()))
}

/// At most 80 characters.
fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
