//! A whole answer, parsed.

use std::ops::Range;

use super::{Event, ParserOptions, Repair, StreamParser};
use crate::python_json::write_string;

/// A parsed answer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ParsedMessage {
    /// The reasoning, without its `</think>`.
    pub reasoning: String,
    /// The answer.
    pub content: String,
    /// The calls, the last of which may be incomplete.
    pub tool_calls: Vec<ToolCall>,
    /// Text that belongs to none of these: between the tags of a tool block, or after its end.
    pub ignored: String,
    /// What was mended, in order.
    pub repairs: Vec<Repair>,
}

impl ParsedMessage {
    /// Takes in one more event.
    pub fn add(&mut self, event: Event) {
        match event {
            Event::Reasoning(text) => self.reasoning.push_str(&text),
            Event::Content(text) => self.content.push_str(&text),
            Event::Ignored(text) => self.ignored.push_str(&text),
            Event::ToolCallStart { name, .. } => {
                self.tool_calls.push(ToolCall {
                    name,
                    ..ToolCall::default()
                });
            }
            Event::ToolCallArguments { index, delta } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.arguments.push_str(&delta);
                }
            }
            Event::ToolCallEnd { index, complete } => {
                if let Some(call) = self.tool_calls.get_mut(index) {
                    call.complete = complete;
                }
            }
            Event::Repaired(repair) => {
                if let Repair::InvalidJson { index, span, .. } = &repair
                    && let Some(call) = self.tool_calls.get_mut(*index)
                {
                    call.invalid.push(span.clone());
                }
                self.repairs.push(repair);
            }
        }
    }
}

impl FromIterator<Event> for ParsedMessage {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        let mut message = Self::default();
        events.into_iter().for_each(|event| message.add(event));
        message
    }
}

/// A tool call as generated.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCall {
    /// Name of the tool.
    pub name: String,
    /// The arguments as streamed. JSON, if the call is complete and no value was malformed.
    pub arguments: String,
    /// False if the text ended inside the call. Such a call must not be carried out.
    pub complete: bool,
    invalid: Vec<Range<usize>>,
}

impl ToolCall {
    /// The arguments as a valid JSON object, with malformed values as strings; `None` if the call is
    /// incomplete or its body was no object.
    pub fn valid_arguments(&self) -> Option<String> {
        if !self.complete {
            return None;
        }
        let mut valid = String::with_capacity(self.arguments.len());
        let mut start = 0;
        for span in &self.invalid {
            valid.push_str(self.arguments.get(start..span.start)?);
            write_string(self.arguments.get(span.clone())?, &mut valid);
            start = span.end;
        }
        valid.push_str(self.arguments.get(start..)?);
        serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&valid).ok()?;
        Some(valid)
    }
}

/// Parses a whole generated text, by feeding [`StreamParser`] once.
pub fn parse(text: &str, options: ParserOptions) -> ParsedMessage {
    let mut parser = StreamParser::new(options);
    let mut message = ParsedMessage::default();
    parser
        .push(text)
        .into_iter()
        .for_each(|event| message.add(event));
    parser
        .finish()
        .into_iter()
        .for_each(|event| message.add(event));
    message
}
