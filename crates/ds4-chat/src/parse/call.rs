//! Writes the JSON arguments of one call as its parameters arrive.

use std::collections::HashSet;

use super::output::Output;
use super::{Event, Repair};
use crate::python_json::{escape_into, write_string};

/// A call whose end has not come.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) index: usize,
    /// The call's own tag had `DSML`.
    pub(super) dsml: bool,
    /// Bytes of arguments written.
    written: usize,
    /// The keys of the objects that are open: the arguments, then parameters with parameters inside.
    objects: Vec<HashSet<String>>,
    /// The parameter whose value is being read.
    pub(super) value: Option<Value>,
}

/// A value being read.
#[derive(Debug)]
pub(super) struct Value {
    pub(super) parameter: String,
    /// Decides what ends it: a plain `</parameter>` does not end an official one.
    pub(super) dsml: bool,
    /// Whether entities are decoded.
    pub(super) decode: bool,
    kind: Kind,
    start: usize,
}

#[derive(Debug)]
enum Kind {
    String {
        decoded: bool,
    },
    /// The text so far, to be checked at the end.
    Json(String),
}

/// Deepest nesting of parameters; what is deeper is text.
pub(super) const MAX_NESTING: usize = 32;

impl Call {
    pub(super) fn start(index: usize, name: String, dsml: bool, output: &mut Output) -> Self {
        output.push(Event::ToolCallStart { index, name });
        Self {
            index,
            dsml,
            written: 0,
            objects: vec![HashSet::new()],
            value: None,
        }
    }

    /// Objects open inside the arguments.
    pub(super) fn nesting(&self) -> usize {
        self.objects.len() - 1
    }

    /// No parameter has been read.
    pub(super) fn is_empty(&self) -> bool {
        self.written == 0
    }

    pub(super) fn write(&mut self, json: &str, output: &mut Output) {
        self.written += json.len();
        output.arguments(self.index, json);
    }

    /// Writes the key of a parameter.
    pub(super) fn key(&mut self, parameter: &str, output: &mut Output) {
        let mut text = self.separator().to_owned();
        write_string(parameter, &mut text);
        text.push_str(": ");
        self.write(&text, output);
        let is_new = self
            .objects
            .last_mut()
            .is_none_or(|keys| keys.insert(parameter.to_owned()));
        if !is_new {
            output.repaired(Repair::DuplicateParameter {
                index: self.index,
                parameter: parameter.to_owned(),
            });
        }
    }

    /// Nothing is written in the innermost object.
    fn is_first(&self) -> bool {
        self.objects.last().is_none_or(HashSet::is_empty)
    }

    /// What stands before the next key.
    pub(super) fn separator(&self) -> &'static str {
        if self.is_first() { "{" } else { ", " }
    }

    pub(super) fn open_value(
        &mut self,
        parameter: String,
        is_string: bool,
        dsml: bool,
        decode: bool,
        output: &mut Output,
    ) {
        if is_string {
            self.write("\"", output);
        }
        let kind = if is_string {
            Kind::String { decoded: false }
        } else {
            Kind::Json(String::new())
        };
        self.value = Some(Value {
            parameter,
            dsml,
            decode: decode && is_string,
            kind,
            start: self.written,
        });
    }

    /// More of the value as generated.
    pub(super) fn value_text(&mut self, text: &str, output: &mut Output) {
        match self.value.as_mut().map(|value| &mut value.kind) {
            Some(Kind::String { .. }) => {
                let mut escaped = String::with_capacity(text.len() + 8);
                escape_into(text, &mut escaped);
                self.write(&escaped, output);
            }
            Some(Kind::Json(raw)) => {
                raw.push_str(text);
                self.write(text, output);
            }
            None => {}
        }
    }

    /// A decoded entity of the value.
    pub(super) fn value_entity(&mut self, character: &str, output: &mut Output) {
        if let Some(Value {
            kind: Kind::String { decoded },
            parameter,
            ..
        }) = &mut self.value
            && !std::mem::replace(decoded, true)
        {
            output.repaired(Repair::EntitiesDecoded {
                index: self.index,
                parameter: parameter.clone(),
            });
        }
        self.value_text(character, output);
    }

    pub(super) fn close_value(&mut self, output: &mut Output) {
        let Some(value) = self.value.take() else {
            return;
        };
        match value.kind {
            Kind::String { .. } => self.write("\"", output),
            Kind::Json(raw) => {
                if serde_json::from_str::<&serde_json::value::RawValue>(&raw).is_err() {
                    output.repaired(Repair::InvalidJson {
                        index: self.index,
                        parameter: value.parameter,
                        span: value.start..self.written,
                    });
                }
            }
        }
    }

    pub(super) fn open_object(&mut self, parameter: String, output: &mut Output) {
        output.repaired(Repair::NestedParameters {
            index: self.index,
            parameter,
        });
        self.objects.push(HashSet::new());
    }

    /// Closes the innermost object that a parameter holds; false if none is open.
    pub(super) fn close_object(&mut self, output: &mut Output) -> bool {
        if self.nesting() == 0 {
            return false;
        }
        self.write(if self.is_first() { "{}" } else { "}" }, output);
        self.objects.pop();
        true
    }

    /// Ends the call.
    pub(super) fn close(mut self, output: &mut Output) {
        while self.close_object(output) {
            output.repaired(Repair::MissingEndTag { tag: "parameter" });
        }
        if self.written == 0 {
            self.write("{}", output);
        } else if !self.is_first() {
            self.write("}", output);
        }
        output.push(Event::ToolCallEnd {
            index: self.index,
            complete: true,
        });
    }

    /// The text ended inside the call.
    pub(super) fn truncate(self, output: &mut Output) {
        output.repaired(Repair::TruncatedToolCall { index: self.index });
        output.push(Event::ToolCallEnd {
            index: self.index,
            complete: false,
        });
    }
}
