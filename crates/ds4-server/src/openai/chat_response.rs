//! `POST /v1/chat/completions`: events to chunks, and the whole answer.

use serde_json::{Value, json};

use crate::turn::{Answer, FinishReason, TokenLogprob, TopLogprob, TurnEvent, Usage};

/// What every chunk of an answer carries.
#[derive(Clone, Debug)]
pub struct ChatHeader {
    /// Id of the answer.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model's name.
    pub model: String,
    /// Whether reasoning comes first: its field is there even when empty.
    pub thinking: bool,
}

/// Writes the chunks of a stream.
#[derive(Debug)]
pub struct ChatStream {
    header: ChatHeader,
    include_usage: bool,
    logprobs: Vec<TokenLogprob>,
}

impl ChatStream {
    /// A stream at its start.
    pub fn new(header: ChatHeader, include_usage: bool) -> Self {
        Self {
            header,
            include_usage,
            logprobs: Vec::new(),
        }
    }

    /// The chunk before everything else.
    pub fn start(&self) -> Value {
        let delta = if self.header.thinking {
            json!({"role": "assistant", "content": null, "reasoning_content": ""})
        } else {
            json!({"role": "assistant", "content": ""})
        };
        self.chunk(delta, Value::Null, Value::Null, Value::Null)
    }

    /// The chunk of an event, if it has one.
    pub fn event(&mut self, event: &TurnEvent) -> Option<Value> {
        let (delta, finish_reason, usage) = match event {
            TurnEvent::Prefill { .. } | TurnEvent::CallEnd { .. } | TurnEvent::Failed { .. } => {
                return None;
            }
            TurnEvent::Logprobs(logprobs) => {
                self.logprobs.extend_from_slice(logprobs);
                return None;
            }
            TurnEvent::Reasoning(text) => (
                json!({"content": null, "reasoning_content": text}),
                Value::Null,
                Value::Null,
            ),
            TurnEvent::Text(text) => (self.content(text), Value::Null, Value::Null),
            TurnEvent::CallStart { index, id, name } => (
                json!({"tool_calls": [{
                    "index": index, "id": id, "type": "function",
                    "function": {"name": name, "arguments": ""},
                }]}),
                Value::Null,
                Value::Null,
            ),
            TurnEvent::CallArguments { index, delta } => (
                json!({"tool_calls": [{"index": index, "function": {"arguments": delta}}]}),
                Value::Null,
                Value::Null,
            ),
            TurnEvent::Finished(end) => {
                let usage = if self.include_usage {
                    usage(&end.usage, self.header.thinking)
                } else {
                    Value::Null
                };
                (
                    self.content(""),
                    Value::from(finish_reason(&end.reason)),
                    usage,
                )
            }
        };
        let logprobs = self.take_logprobs();
        Some(self.chunk(delta, logprobs, finish_reason, usage))
    }

    /// The chunk of an error after the first byte.
    pub fn error(message: &str) -> Value {
        json!({"error": {"message": message, "type": "server_error", "param": null, "code": "server_error"}})
    }

    fn content(&self, text: &str) -> Value {
        if self.header.thinking {
            json!({"content": text, "reasoning_content": null})
        } else {
            json!({"content": text})
        }
    }

    fn take_logprobs(&mut self) -> Value {
        if self.logprobs.is_empty() {
            return Value::Null;
        }
        logprobs(&std::mem::take(&mut self.logprobs))
    }

    fn chunk(&self, delta: Value, logprobs: Value, finish_reason: Value, usage: Value) -> Value {
        json!({
            "id": self.header.id,
            "object": "chat.completion.chunk",
            "created": self.header.created,
            "model": self.header.model,
            "system_fingerprint": null,
            "choices": [{
                "index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason,
            }],
            "usage": usage,
        })
    }
}

/// The answer as one object.
pub fn chat_answer(header: &ChatHeader, answer: &Answer) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if header.thinking {
        message["reasoning_content"] = Value::from(answer.reasoning.as_str());
    }
    if !answer.calls.is_empty() {
        message["tool_calls"] = answer
            .calls
            .iter()
            .enumerate()
            .map(|(index, call)| {
                json!({
                    "index": index, "id": call.id, "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                })
            })
            .collect();
    }
    let (reason, used) = match &answer.end {
        Some(end) => (finish_reason(&end.reason), end.usage),
        None => ("stop", Usage::default()),
    };
    let all_logprobs = if answer.logprobs.is_empty() {
        Value::Null
    } else {
        logprobs(&answer.logprobs)
    };
    json!({
        "id": header.id,
        "object": "chat.completion",
        "created": header.created,
        "model": header.model,
        "choices": [{
            "index": 0, "message": message, "logprobs": all_logprobs, "finish_reason": reason,
        }],
        "usage": usage(&used, header.thinking),
        "system_fingerprint": null,
    })
}

/// Our reasons in OpenAI's words.
pub(crate) fn finish_reason(reason: &FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::StopSequence(_) | FinishReason::Cancelled => "stop",
        FinishReason::Length => "length",
        FinishReason::ToolCalls => "tool_calls",
    }
}

/// Usage in OpenAI's words, with DeepSeek's cache fields beside.
pub(crate) fn usage(usage: &Usage, thinking: bool) -> Value {
    let mut value = json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.completion,
        "total_tokens": usage.prompt + usage.completion,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
    });
    if thinking {
        value["completion_tokens_details"] = json!({"reasoning_tokens": usage.reasoning});
    }
    value["prompt_cache_hit_tokens"] = Value::from(usage.cached);
    value["prompt_cache_miss_tokens"] = Value::from(usage.prompt - usage.cached.min(usage.prompt));
    value
}

fn logprobs(tokens: &[TokenLogprob]) -> Value {
    let list = |reasoning: bool| -> Value {
        tokens
            .iter()
            .filter(|token| token.reasoning == reasoning)
            .map(token_logprob)
            .collect()
    };
    json!({"content": list(false), "reasoning_content": list(true), "refusal": null})
}

/// A token with its alternatives, as OpenAI's APIs write it.
pub(crate) fn token_logprob(token: &TokenLogprob) -> Value {
    let mut value = one_logprob(&token.token);
    value["top_logprobs"] = token.top.iter().map(one_logprob).collect();
    value
}

fn one_logprob(token: &TopLogprob) -> Value {
    json!({
        "token": String::from_utf8_lossy(&token.bytes),
        // JSON has no infinity: an impossible token is -9999, as in OpenAI's API.
        "logprob": if token.logprob.is_finite() { f64::from(token.logprob) } else { -9999.0 },
        "bytes": token.bytes,
    })
}
