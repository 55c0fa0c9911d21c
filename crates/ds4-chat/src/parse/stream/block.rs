//! Between the tags of a tool block, and after it.

use super::{Flow, State, StreamParser, shortened};
use crate::parse::call::Call;
use crate::parse::tag::{Name, Partial, Scan, Tag, scan};
use crate::{Entities, Repair};

impl StreamParser {
    pub(super) fn between_step(&mut self, at_end: bool) -> Flow {
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

    pub(super) fn start_call(&mut self, name: String, dsml: bool) {
        self.call = Some(Call::start(self.calls, name, dsml, &mut self.output));
        self.calls += 1;
        self.state = State::Arguments;
    }

    /// Ends the open call, if there is one.
    pub(super) fn close_call(&mut self, end_tag_missing: bool) {
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

    pub(super) fn done_step(&mut self) -> Flow {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        if !self.reported_text && blank > 0 {
            self.at += blank;
        } else {
            self.ignore(rest.len(), Repair::TextAfterToolCalls);
        }
        Flow::Continue
    }

    pub(super) fn ignore(&mut self, length: usize, why: Repair) {
        let is_text = matches!(why, Repair::TextBetweenTags | Repair::TextAfterToolCalls);
        if !is_text || !std::mem::replace(&mut self.reported_text, true) {
            self.output.repaired(why);
        }
        self.output.ignored(&self.input[self.at..self.at + length]);
        self.at += length;
    }

    /// What stands in the input at the end is the start of a tag: as much of it as counts.
    pub(super) fn finish_partial(&mut self) {
        if let State::Undeclared { dsml } = self.state {
            self.declare(dsml, false);
        }
        let rest = self.input[self.at..].to_owned();
        if rest.is_empty() {
            return;
        }
        let (name, dsml) = match scan(&rest) {
            Scan::Incomplete(Partial::Named {
                name,
                closing: false,
                dsml,
            }) => (name, dsml),
            // Nothing but the rest of this end tag was missing from the call.
            Scan::Incomplete(
                Partial::Dsml { closing: true } | Partial::Named { closing: true, .. },
            ) if self.state == State::Arguments => return self.close_call(true),
            _ => return,
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
