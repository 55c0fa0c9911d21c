//! `POST /v1/messages`: events to Anthropic's events, and the whole answer.

use serde_json::{Value, json};

use crate::turn::{Answer, AnswerCall, FinishReason, TurnEvent, Usage};

/// What an answer carries.
#[derive(Clone, Debug)]
pub struct MessageHeader {
    /// Id of the answer.
    pub id: String,
    /// The model's name.
    pub model: String,
    /// Tokens of the prompt and those found, as far as known at the start.
    pub usage: Usage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Thinking,
    Text,
    Call,
}

/// Writes the events of a stream: pairs of name and data.
#[derive(Debug)]
pub struct MessageStream {
    header: MessageHeader,
    open: Option<Block>,
    index: usize,
}

impl MessageStream {
    /// A stream at its start.
    pub fn new(header: MessageHeader) -> Self {
        Self {
            header,
            open: None,
            index: 0,
        }
    }

    /// The event before everything else.
    pub fn start(&self) -> Value {
        json!({"type": "message_start", "message": {
            "id": self.header.id,
            "type": "message",
            "role": "assistant",
            "model": self.header.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": usage(&Usage { completion: 0, ..self.header.usage }),
        }})
    }

    /// A sign of life; clients reset their watchdog only on real events.
    pub fn ping() -> Value {
        json!({"type": "ping"})
    }

    /// The event of an error after the first byte.
    pub fn error(message: &str) -> Value {
        json!({"type": "error", "error": {"type": "api_error", "message": message}})
    }

    /// The events of an event, in order.
    pub fn event(&mut self, event: &TurnEvent) -> Vec<Value> {
        let mut out = Vec::new();
        match event {
            TurnEvent::Prefill { .. } | TurnEvent::Logprobs(_) | TurnEvent::Failed { .. } => {}
            TurnEvent::Reasoning(text) => {
                self.need(
                    Block::Thinking,
                    &mut out,
                    || json!({"type": "thinking", "thinking": "", "signature": ""}),
                );
                out.push(self.delta(&json!({"type": "thinking_delta", "thinking": text})));
            }
            TurnEvent::Text(text) => {
                self.need(
                    Block::Text,
                    &mut out,
                    || json!({"type": "text", "text": ""}),
                );
                out.push(self.delta(&json!({"type": "text_delta", "text": text})));
            }
            TurnEvent::CallStart { id, name, .. } => {
                self.close(&mut out);
                self.open(
                    Block::Call,
                    &mut out,
                    json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
                );
            }
            TurnEvent::CallArguments { delta, .. } => {
                out.push(self.delta(&json!({"type": "input_json_delta", "partial_json": delta})));
            }
            TurnEvent::CallEnd { .. } => self.close(&mut out),
            TurnEvent::Finished(end) => {
                self.close(&mut out);
                let (reason, sequence) = stop_reason(&end.reason);
                out.push(json!({
                    "type": "message_delta",
                    "delta": {"stop_reason": reason, "stop_sequence": sequence},
                    "usage": usage(&end.usage),
                }));
                out.push(json!({"type": "message_stop"}));
            }
        }
        out
    }

    fn need(&mut self, block: Block, out: &mut Vec<Value>, content: impl FnOnce() -> Value) {
        if self.open != Some(block) {
            self.close(out);
            self.open(block, out, content());
        }
    }

    fn open(&mut self, block: Block, out: &mut Vec<Value>, content: Value) {
        self.open = Some(block);
        out.push(json!({
            "type": "content_block_start", "index": self.index, "content_block": content,
        }));
    }

    fn close(&mut self, out: &mut Vec<Value>) {
        let Some(block) = self.open.take() else {
            return;
        };
        if block == Block::Thinking {
            out.push(self.delta(&json!({"type": "signature_delta", "signature": self.header.id})));
        }
        out.push(json!({"type": "content_block_stop", "index": self.index}));
        self.index += 1;
    }

    fn delta(&self, delta: &Value) -> Value {
        json!({"type": "content_block_delta", "index": self.index, "delta": delta})
    }
}

/// The answer as one object.
pub fn message_answer(header: &MessageHeader, answer: &Answer) -> Value {
    let mut content = Vec::new();
    if !answer.reasoning.is_empty() {
        content.push(json!({
            "type": "thinking", "thinking": answer.reasoning, "signature": header.id,
        }));
    }
    if !answer.text.is_empty() {
        content.push(json!({"type": "text", "text": answer.text}));
    }
    for call in &answer.calls {
        content.push(json!({
            "type": "tool_use", "id": call.id, "name": call.name, "input": input(call),
        }));
    }
    let (reason, sequence) = match &answer.end {
        Some(end) => stop_reason(&end.reason),
        None => ("end_turn", Value::Null),
    };
    let used = answer.end.as_ref().map_or(header.usage, |end| end.usage);
    json!({
        "id": header.id,
        "type": "message",
        "role": "assistant",
        "model": header.model,
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage(&used),
    })
}

/// Arguments as an object. Those of a call that was cut off are not to be carried out.
fn input(call: &AnswerCall) -> Value {
    if !call.complete {
        return json!({});
    }
    match serde_json::from_str(&call.arguments) {
        Ok(Value::Object(map)) => Value::Object(map),
        _ => json!({"arguments": call.arguments}),
    }
}

fn stop_reason(reason: &FinishReason) -> (&'static str, Value) {
    match reason {
        FinishReason::Stop | FinishReason::Cancelled => ("end_turn", Value::Null),
        FinishReason::StopSequence(text) => ("stop_sequence", Value::from(text.as_str())),
        FinishReason::Length => ("max_tokens", Value::Null),
        FinishReason::ToolCalls => ("tool_use", Value::Null),
    }
}

/// Usage in Anthropic's words: the parts of the prompt add up.
pub(crate) fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt.saturating_sub(usage.cached),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.completion,
        "service_tier": "standard",
    })
}
