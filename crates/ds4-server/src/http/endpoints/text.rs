//! `POST /tokenize`, `/detokenize` and `/render`: what the model sees.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::answer::{Received, apart, body};
use crate::http::error::{ApiError, Dialect, json_response};
use crate::http::router::AppState;
use crate::owner::Owner;
use crate::turn::TurnRequest;
use crate::wire::{Fields, RequestError};

const DIALECT: Dialect = Dialect::OpenAi {
    prompt_field: "messages",
};

/// `{"text": …}` (also `content`, `prompt`) or a conversation, to `{"tokens": […], "count": N}`.
pub(crate) async fn tokenize(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    apart(DIALECT, move || {
        let ids = tokens_of(&state, &json, sender.owner)?;
        let limit = state.inference.service().model().context;
        Ok(json_response(
            StatusCode::OK,
            &json!({"tokens": ids, "count": ids.len(), "max_model_len": limit}),
        ))
    })
    .await
}

fn tokens_of(state: &AppState, json: &Value, owner: Owner) -> Result<Vec<u32>, RequestError> {
    let fields = Fields::body(json)?;
    let mut text = None;
    for name in ["text", "content", "prompt"] {
        text = text.or(fields.string(name)?);
    }
    let Some(text) = text else {
        let turn = turn_of(state, json)?;
        return Ok(state.inference.prompt_tokens(&turn, owner)?.0);
    };
    let special = match fields.boolean("add_special")? {
        Some(special) => special,
        None => fields.boolean("parse_special")?.unwrap_or(false),
    };
    let mut ids = Vec::new();
    let tokenizer = state.inference.tokenizer();
    if special {
        tokenizer.encode_with_specials(text, &mut ids);
    } else {
        tokenizer.encode(text, &mut ids);
    }
    Ok(ids)
}

/// `{"tokens": […]}` to `{"text": …}`.
pub(crate) async fn detokenize(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let json = body(&state, DIALECT, request).await?.json;
    apart(DIALECT, move || {
        let tokens = Fields::body(&json)?.required("tokens")?;
        let vocabulary = state.inference.tokenizer().vocabulary_size();
        let id_of = |id: &Value| {
            let id = u32::try_from(id.as_u64()?).ok()?;
            ((id as usize) < vocabulary).then_some(id)
        };
        let ids: Option<Vec<u32>> = tokens
            .as_array()
            .and_then(|tokens| tokens.iter().map(id_of).collect());
        let ids = ids.ok_or_else(|| {
            RequestError::field(
                "tokens",
                format!("Invalid 'tokens': expected an array of ids below {vocabulary}"),
            )
        })?;
        let text = state.inference.tokenizer().decode_lossy(&ids);
        // Several spellings, for several families of clients.
        Ok(json_response(
            StatusCode::OK,
            &json!({"text": text, "content": text, "prompt": text}),
        ))
    })
    .await
}

/// A request of any of the APIs to `{"prompt": …, "tokens": N}`.
pub(crate) async fn render(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    apart(DIALECT, move || {
        let turn = turn_of(&state, &json)?;
        let prompt = state.inference.prompt_text(&turn)?;
        let (ids, _) = state.inference.prompt_tokens(&turn, sender.owner)?;
        Ok(json_response(
            StatusCode::OK,
            &json!({"prompt": prompt, "tokens": ids, "count": ids.len()}),
        ))
    })
    .await
}

/// The turn of a request in any dialect: named by `api`, else told by its fields.
fn turn_of(state: &AppState, json: &Value) -> Result<TurnRequest, RequestError> {
    let inference = &state.inference;
    let (sampling, thinking) = (inference.sampling(), inference.thinking());
    let api = Fields::body(json)?.string("api")?;
    let api = api.unwrap_or_else(|| {
        let blocks = json["messages"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|message| message["content"].as_array())
            .flatten()
            .any(|block| block["type"] == "tool_use" || block["type"] == "tool_result");
        if json.get("input").is_some() {
            "responses"
        } else if blocks || json.get("system").is_some() || json.get("anthropic_version").is_some()
        {
            "messages"
        } else {
            "chat"
        }
    });
    match api {
        "chat" => crate::openai::chat_request(json, sampling, thinking).map(|request| request.turn),
        "messages" => crate::anthropic::messages_request(json, sampling, thinking, false),
        "responses" => crate::responses::responses_request(json, &[], sampling, thinking)
            .map(|request| request.turn),
        other => Err(RequestError::field(
            "api",
            format!("Invalid 'api': `{other}`, expected chat, messages or responses"),
        )),
    }
}
