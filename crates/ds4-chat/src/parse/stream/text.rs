//! Reasoning and content, and where a tool block begins.

use super::{Flow, Follows, State, StreamParser, shortened};
use crate::Repair;
use crate::parse::BlocksInReasoning;
use crate::parse::quoting::Quoting;
use crate::parse::tag::{Name, Partial, Scan, Tag, scan};

const THINK_END: &str = "</think>";

impl StreamParser {
    pub(super) fn text_step(&mut self, at_end: bool) -> Flow {
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

    pub(super) fn flush_newlines(&mut self) {
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
}
