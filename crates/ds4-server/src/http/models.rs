//! `GET /v1/models`, and which names a request may use.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::error::{ApiError, Dialect, json_response};
use super::request_path::PathId;
use super::router::AppState;
use crate::wire::RequestError;

const OPENAI: Dialect = Dialect::OpenAi {
    prompt_field: "messages",
};
/// Names that always mean the loaded model.
const ALIASES: [&str; 6] = [
    "default",
    "ds4",
    "deepseek-chat",
    "deepseek-reasoner",
    "deepseek-v4-flash",
    "deepseek-v4-pro",
];
/// Clients with built-in names, which cannot always be told another.
const CLIENT_NAMES: [&str; 3] = ["claude-", "gpt-", "codex"];

/// Refuses names that no client means our model by.
///
/// # Errors
/// An unknown name (404).
pub(super) fn check_model(state: &AppState, name: &str) -> Result<(), RequestError> {
    let known = ALIASES.contains(&name)
        || name == state.model_id
        || state.settings.aliases.iter().any(|alias| alias == name)
        || CLIENT_NAMES.iter().any(|prefix| name.starts_with(prefix));
    if known {
        return Ok(());
    }
    Err(RequestError::field(
        "model",
        format!(
            "The model `{name}` does not exist here; use `{}` or `default`",
            state.model_id
        ),
    )
    .with_status(404)
    .with_code("model_not_found"))
}

/// `GET /v1/models`
pub(super) async fn list(State(state): State<Arc<AppState>>) -> Response {
    let data: Vec<Value> = names(&state).map(|name| model(&state, name)).collect();
    let first = data.first().map(|model| model["id"].clone());
    let last = data.last().map(|model| model["id"].clone());
    // Anthropic's clients read the last three, OpenAI's do not mind them.
    let list = json!({
        "object": "list", "data": data, "has_more": false, "first_id": first, "last_id": last,
    });
    json_response(StatusCode::OK, &list)
}

/// `GET /v1/models/{id}`
pub(super) async fn get(State(state): State<Arc<AppState>>, PathId(id): PathId) -> Response {
    match check_model(&state, &id) {
        Ok(()) => json_response(StatusCode::OK, &model(&state, &id)),
        Err(error) => ApiError::new(OPENAI, error).into_response(),
    }
}

fn names(state: &AppState) -> impl Iterator<Item = &str> {
    let others = ["deepseek-v4-flash", "default"].into_iter();
    let others = others.filter(|name| *name != state.model_id);
    std::iter::once(state.model_id.as_str())
        .chain(state.settings.aliases.iter().map(String::as_str))
        .chain(others)
}

fn model(state: &AppState, id: &str) -> Value {
    let facts = state.inference.service().model();
    json!({
        "id": id,
        "object": "model",
        "type": "model",
        "created": state.started,
        "created_at": "2026-01-01T00:00:00Z",
        "owned_by": "ds4",
        "name": facts.name,
        "display_name": facts.name,
        "context_length": facts.context,
        "max_model_len": facts.context,
        "top_provider": {
            "context_length": facts.context,
            "max_completion_tokens": facts.context.min(crate::turn::DEFAULT_MAX_TOKENS),
            "is_moderated": false,
        },
        "supported_parameters": [
            "tools", "tool_choice", "parallel_tool_calls", "response_format", "max_tokens",
            "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "frequency_penalty",
            "presence_penalty", "repetition_penalty", "logit_bias", "logprobs", "top_logprobs",
            "stop", "seed", "stream", "reasoning_effort",
        ],
    })
}
