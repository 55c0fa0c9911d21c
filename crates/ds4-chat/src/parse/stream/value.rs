//! Values of parameters.

use super::{Flow, Follows, MAX_GAP, State, StreamParser};
use crate::parse::call::MAX_NESTING;
use crate::parse::tag::{Name, Partial, Scan, Tag, scan};
use crate::{Entities, Repair};

impl StreamParser {
    /// A parameter without a `string` attribute: an object if parameters follow, else a string.
    pub(super) fn undeclared_step(&mut self, dsml: bool, at_end: bool) -> Flow {
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

    pub(super) fn declare(&mut self, dsml: bool, nested: bool) {
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

    pub(super) fn value_step(&mut self, at_end: bool) -> Flow {
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
