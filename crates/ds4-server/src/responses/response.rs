//! `POST /v1/responses`: events to OpenAI's events, and the whole answer.
//!
//! The answer is put together item by item while it streams; without a stream the same events are
//! made and only the last is shown.

use serde_json::{Map, Value, json};

use crate::openai::token_logprob;
use crate::turn::{FinishReason, OfferedTool, ToolKind, TurnEvent, Usage};

/// What an answer carries.
#[derive(Clone, Debug)]
pub struct ResponseHeader {
    /// Id of the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// The settings of the request.
    pub echo: Map<String, Value>,
    /// The tools of the request, to tell what kind of call the client expects.
    pub tools: Vec<OfferedTool>,
}

/// An item that is not finished.
#[derive(Debug)]
enum Open {
    Reasoning {
        text: String,
    },
    Message {
        text: String,
        logprobs: Vec<Value>,
    },
    Call {
        call_id: String,
        name: String,
        arguments: String,
    },
}

/// Writes the events of an answer.
#[derive(Debug)]
pub struct ResponseStream {
    header: ResponseHeader,
    sequence: usize,
    output: Vec<Value>,
    open: Option<Open>,
    logprobs: Vec<Value>,
    finished: Option<Value>,
}

impl ResponseStream {
    /// A stream at its start.
    pub fn new(header: ResponseHeader) -> Self {
        Self {
            header,
            sequence: 0,
            output: Vec::new(),
            open: None,
            logprobs: Vec::new(),
            finished: None,
        }
    }

    /// The events before everything else.
    pub fn start(&mut self) -> Vec<Value> {
        ["response.created", "response.in_progress"]
            .into_iter()
            .map(|kind| {
                let response = self.response("in_progress", &Value::Null, &Value::Null, 0);
                self.number(json!({"type": kind, "response": response}))
            })
            .collect()
    }

    /// The answer, once it is finished.
    pub fn answer(&self) -> Option<&Value> {
        self.finished.as_ref()
    }

    /// The events of a failure after the first byte.
    pub fn failed(&mut self, message: &str, now: u64) -> Vec<Value> {
        let error = json!({"code": "server_error", "message": message});
        let mut response = self.response("failed", &Value::Null, &Value::Null, now);
        response["error"] = error;
        self.finished = Some(response.clone());
        vec![self.number(json!({"type": "response.failed", "response": response}))]
    }

    /// The events of an event, in order. `now` is in seconds since 1970.
    pub fn event(&mut self, event: &TurnEvent, now: u64) -> Vec<Value> {
        let mut out = Vec::new();
        match event {
            TurnEvent::Prefill { .. } => {}
            TurnEvent::Failed { message } => out.extend(self.failed(message, now)),
            TurnEvent::Logprobs(logprobs) => {
                let text = logprobs.iter().filter(|token| !token.reasoning);
                self.logprobs.extend(text.map(token_logprob));
            }
            TurnEvent::Reasoning(text) => self.reasoning(text, &mut out),
            TurnEvent::Text(text) => self.text(text, &mut out),
            TurnEvent::CallStart { id, name, .. } => {
                self.close("completed", "commentary", &mut out);
                self.open = Some(Open::Call {
                    call_id: id.clone(),
                    name: name.clone(),
                    arguments: String::new(),
                });
                let item = self.item("in_progress", "");
                out.push(self.number(json!({
                    "type": "response.output_item.added",
                    "item": item, "output_index": self.output.len(),
                })));
            }
            TurnEvent::CallArguments { delta, .. } => self.arguments(delta, &mut out),
            TurnEvent::CallEnd { complete, .. } => {
                let status = if *complete { "completed" } else { "incomplete" };
                self.close(status, "", &mut out);
            }
            TurnEvent::Finished(end) => {
                let cut = end.reason == FinishReason::Length;
                let cancelled = end.reason == FinishReason::Cancelled;
                let status = if cut || cancelled {
                    "incomplete"
                } else {
                    "completed"
                };
                self.close(status, "final_answer", &mut out);
                let (status, details) = match end.reason {
                    FinishReason::Length => ("incomplete", json!({"reason": "max_output_tokens"})),
                    FinishReason::Cancelled => ("cancelled", Value::Null),
                    _ => ("completed", Value::Null),
                };
                let response = self.response(status, &details, &usage(&end.usage), now);
                self.finished = Some(response.clone());
                let kind = match status {
                    "incomplete" => "response.incomplete",
                    "cancelled" => "response.cancelled",
                    _ => "response.completed",
                };
                out.push(self.number(json!({"type": kind, "response": response})));
            }
        }
        out
    }

    fn reasoning(&mut self, delta: &str, out: &mut Vec<Value>) {
        if !matches!(self.open, Some(Open::Reasoning { .. })) {
            self.close("completed", "commentary", out);
            self.open = Some(Open::Reasoning {
                text: String::new(),
            });
            self.added(json!({"type": "reasoning_text", "text": ""}), out);
        }
        if let Some(Open::Reasoning { text }) = &mut self.open {
            text.push_str(delta);
        }
        let event = json!({
            "type": "response.reasoning_text.delta", "content_index": 0, "delta": delta,
            "item_id": self.item_id(), "output_index": self.output.len(),
        });
        out.push(self.number(event));
    }

    fn text(&mut self, delta: &str, out: &mut Vec<Value>) {
        if !matches!(self.open, Some(Open::Message { .. })) {
            self.close("completed", "commentary", out);
            self.open = Some(Open::Message {
                text: String::new(),
                logprobs: Vec::new(),
            });
            self.added(
                json!({"type": "output_text", "annotations": [], "logprobs": [], "text": ""}),
                out,
            );
        }
        let fresh = std::mem::take(&mut self.logprobs);
        if let Some(Open::Message { text, logprobs }) = &mut self.open {
            text.push_str(delta);
            logprobs.extend_from_slice(&fresh);
        }
        let event = json!({
            "type": "response.output_text.delta", "content_index": 0, "delta": delta,
            "item_id": self.item_id(), "logprobs": fresh, "output_index": self.output.len(),
        });
        out.push(self.number(event));
    }

    fn arguments(&mut self, delta: &str, out: &mut Vec<Value>) {
        let custom = match &mut self.open {
            Some(Open::Call {
                name, arguments, ..
            }) => {
                arguments.push_str(delta);
                kind_of(&self.header.tools, name) != ToolKind::Function
            }
            _ => return,
        };
        // A free text shows its pieces only once it is read out of its JSON.
        if !custom {
            let event = json!({
                "type": "response.function_call_arguments.delta", "delta": delta,
                "item_id": self.item_id(), "output_index": self.output.len(),
            });
            out.push(self.number(event));
        }
    }

    /// The events that begin an item with one part.
    fn added(&mut self, part: Value, out: &mut Vec<Value>) {
        let item = self.item("in_progress", "final_answer");
        let event = json!({
            "type": "response.output_item.added",
            "item": item, "output_index": self.output.len(),
        });
        out.push(self.number(event));
        let event = json!({
            "type": "response.content_part.added", "content_index": 0,
            "item_id": self.item_id(), "output_index": self.output.len(), "part": part,
        });
        out.push(self.number(event));
    }

    /// Ends the item in progress.
    fn close(&mut self, status: &str, phase: &str, out: &mut Vec<Value>) {
        let Some(open) = &self.open else {
            return;
        };
        let (item_id, output_index) = (self.item_id(), self.output.len());
        let place = json!({"item_id": item_id, "output_index": output_index});
        let item = self.item(status, phase);
        let mut events = Vec::new();
        match open {
            Open::Reasoning { text } => {
                events.push(json!({
                    "type": "response.reasoning_text.done", "content_index": 0, "text": text,
                }));
                events.push(json!({
                    "type": "response.content_part.done", "content_index": 0,
                    "part": {"type": "reasoning_text", "text": text},
                }));
            }
            Open::Message { text, logprobs } => {
                events.push(json!({
                    "type": "response.output_text.done", "content_index": 0,
                    "logprobs": logprobs, "text": text,
                }));
                events.push(json!({
                    "type": "response.content_part.done", "content_index": 0,
                    "part": item["content"][0],
                }));
            }
            Open::Call {
                name, arguments, ..
            } => match kind_of(&self.header.tools, name) {
                ToolKind::Function => events.push(json!({
                    "type": "response.function_call_arguments.done", "arguments": arguments,
                })),
                ToolKind::Custom => {
                    let input = &item["input"];
                    events.push(json!({
                        "type": "response.custom_tool_call_input.delta", "delta": input,
                    }));
                    events.push(json!({
                        "type": "response.custom_tool_call_input.done", "input": input,
                    }));
                }
                ToolKind::LocalShell => {}
            },
        }
        for mut event in events {
            if let (Value::Object(event), Value::Object(place)) = (&mut event, &place) {
                event.extend(place.clone());
            }
            out.push(self.number(event));
        }
        out.push(self.number(json!({
            "type": "response.output_item.done", "item": item, "output_index": output_index,
        })));
        self.output.push(item);
        self.open = None;
    }

    fn item_id(&self) -> String {
        let (id, index) = (&self.header.id, self.output.len());
        let id = id.strip_prefix("resp_").unwrap_or(id);
        let prefix = match &self.open {
            Some(Open::Reasoning { .. }) => "rs",
            Some(Open::Message { .. }) | None => "msg",
            Some(Open::Call { name, .. }) => match kind_of(&self.header.tools, name) {
                ToolKind::Function => "fc",
                ToolKind::Custom => "ctc",
                ToolKind::LocalShell => "lsh",
            },
        };
        format!("{prefix}_{id}_{index}")
    }

    /// The item in progress as it stands.
    fn item(&self, status: &str, phase: &str) -> Value {
        let id = self.item_id();
        let begun = status == "in_progress";
        match &self.open {
            None => Value::Null,
            Some(Open::Reasoning { text }) => {
                let content = if begun {
                    json!([])
                } else {
                    json!([{"type": "reasoning_text", "text": text}])
                };
                // Nothing is hidden, but clients that send no reasoning back without it need one.
                let sealed = format!("{}-{}", self.header.id, self.output.len());
                // Once something follows, the reasoning is whole, whatever happens to the rest.
                json!({
                    "type": "reasoning", "id": id, "status": status, "content": content,
                    "summary": [], "encrypted_content": sealed,
                })
            }
            Some(Open::Message { text, logprobs }) => {
                let content = if begun {
                    json!([])
                } else {
                    json!([{
                        "type": "output_text", "annotations": [], "logprobs": logprobs, "text": text,
                    }])
                };
                json!({
                    "type": "message", "id": id, "status": status, "role": "assistant",
                    "phase": phase, "content": content,
                })
            }
            Some(Open::Call {
                call_id,
                name,
                arguments,
            }) => {
                let tool = self.header.tools.iter().find(|tool| tool.name == *name);
                let namespace = tool.and_then(|tool| tool.namespace.as_ref());
                let shown = namespace.map_or(name, |(_, inner)| inner);
                let mut item = match kind_of(&self.header.tools, name) {
                    ToolKind::Function => json!({
                        "type": "function_call", "id": id, "status": status,
                        "call_id": call_id, "name": shown, "arguments": arguments,
                    }),
                    ToolKind::Custom => json!({
                        "type": "custom_tool_call", "id": id, "status": status,
                        "call_id": call_id, "name": shown, "input": custom_input(arguments),
                    }),
                    ToolKind::LocalShell => json!({
                        "type": "local_shell_call", "id": id, "status": status,
                        "call_id": call_id, "action": shell_action(arguments),
                    }),
                };
                if let Some((space, _)) = namespace {
                    item["namespace"] = Value::from(space.as_str());
                }
                item
            }
        }
    }

    fn number(&mut self, mut event: Value) -> Value {
        event["sequence_number"] = Value::from(self.sequence);
        self.sequence += 1;
        event
    }

    /// The response object as it stands.
    fn response(&self, status: &str, details: &Value, usage: &Value, now: u64) -> Value {
        let completed = match status {
            "in_progress" => Value::Null,
            _ => Value::from(now),
        };
        let mut response = json!({
            "id": self.header.id,
            "object": "response",
            "created_at": self.header.created,
            "status": status,
            "background": false,
            "completed_at": completed,
            "content_filters": null,
            "error": null,
            "incomplete_details": details,
            "model": self.header.model,
            "moderation": null,
            "output": self.output,
            "usage": usage,
        });
        if let Value::Object(map) = &mut response {
            for (key, value) in &self.header.echo {
                map.insert(key.clone(), value.clone());
            }
        }
        response
    }
}

fn kind_of(tools: &[OfferedTool], name: &str) -> ToolKind {
    tools
        .iter()
        .find(|tool| tool.name == name)
        .map_or(ToolKind::Function, |tool| tool.kind)
}

/// The free text of a custom call.
fn custom_input(arguments: &str) -> String {
    match serde_json::from_str::<Value>(arguments) {
        Ok(value) => match &value["input"] {
            Value::String(input) => input.clone(),
            _ => arguments.to_owned(),
        },
        Err(_) => String::new(),
    }
}

fn shell_action(arguments: &str) -> Value {
    let mut action = match serde_json::from_str(arguments) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    action.insert("type".to_owned(), Value::from("exec"));
    action.entry("env").or_insert_with(|| json!({}));
    Value::Object(action)
}

/// Usage in the words of the Responses API.
fn usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.prompt,
        "input_tokens_details": {"cached_tokens": usage.cached},
        "output_tokens": usage.completion,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.prompt + usage.completion,
    })
}
