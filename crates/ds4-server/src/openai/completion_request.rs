//! `POST /v1/completions`: request to a plain continuation.

use ds4_engine::{Priority, SamplerSettings};
use serde_json::Value;

use super::priority;
use crate::turn::AnswerFormat;
use crate::wire::{self, Fields, RequestError};

/// A text to go on from, as it is: no roles, no template.
#[derive(Clone, Debug)]
pub struct CompletionRequest {
    /// The model's name as the client wrote it.
    pub model: String,
    /// The text; control tokens in it are text.
    pub prompt: String,
    /// Its tokens, if the client sent tokens.
    pub prompt_ids: Option<Vec<u32>>,
    /// Form of the continuation.
    pub format: AnswerFormat,
    /// How tokens are chosen.
    pub sampling: SamplerSettings,
    /// Longest continuation in tokens.
    pub max_tokens: usize,
    /// Texts that end it.
    pub stop: Vec<String>,
    /// Who goes first.
    pub priority: Priority,
    /// Whether the prompt is repeated before the continuation.
    pub echo: bool,
    /// Whether it is streamed.
    pub stream: bool,
    /// Whether a stream ends with the usage.
    pub include_usage: bool,
}

/// Tokens when the client names no limit, as in OpenAI's API.
const DEFAULT_TOKENS: usize = 16;

/// Converts the body of a completions request.
///
/// # Errors
/// A field that is missing, of the wrong type or out of range, or that asks for something we do not do.
pub fn completion_request(
    body: &Value,
    defaults: &SamplerSettings,
) -> Result<CompletionRequest, RequestError> {
    let body = Fields::body(body)?;
    for name in ["n", "best_of"] {
        if body.integer(name)?.is_some_and(|n| n != 1) {
            return Err(RequestError::field(
                name,
                format!("Invalid {name} value (currently only {name} = 1 is supported)"),
            ));
        }
    }
    for (name, why) in [
        ("suffix", "filling in the middle is not supported"),
        ("logprobs", "use /v1/chat/completions for log probabilities"),
    ] {
        if body
            .get(name)
            .is_some_and(|value| value != 0 && value != false)
        {
            return Err(RequestError::unsupported(name, why));
        }
    }
    let (prompt, prompt_ids) = prompt(&body)?;
    Ok(CompletionRequest {
        model: body.string("model")?.unwrap_or("default").to_owned(),
        prompt,
        prompt_ids,
        format: match body.object("response_format")? {
            Some(fields) => wire::format(&fields)?,
            None => wire::guided(&body)?.unwrap_or_default(),
        },
        sampling: wire::sampling(&body, defaults)?,
        max_tokens: wire::max_tokens(&body, &["max_tokens"])?.unwrap_or(DEFAULT_TOKENS),
        stop: wire::stop(&body, "stop")?,
        priority: priority(&body)?,
        echo: body.boolean("echo")?.unwrap_or(false),
        stream: body.boolean("stream")?.unwrap_or(false),
        include_usage: match body.object("stream_options")? {
            Some(options) => options.boolean("include_usage")?.unwrap_or(false),
            None => false,
        },
    })
}

/// A text, or an array with one text, or token ids.
fn prompt(body: &Fields<'_>) -> Result<(String, Option<Vec<u32>>), RequestError> {
    let wrong = || {
        RequestError::field(
            "prompt",
            "Invalid 'prompt': expected one text, or one array of token ids",
        )
    };
    match body.required("prompt")? {
        Value::String(text) => Ok((text.clone(), None)),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] => Ok((text.clone(), None)),
            [Value::Array(ids)] => ids_of(ids)
                .map(|ids| (String::new(), Some(ids)))
                .ok_or_else(wrong),
            ids => ids_of(ids)
                .map(|ids| (String::new(), Some(ids)))
                .ok_or_else(wrong),
        },
        _ => Err(wrong()),
    }
}

fn ids_of(ids: &[Value]) -> Option<Vec<u32>> {
    ids.iter()
        .map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok()))
        .collect()
}
