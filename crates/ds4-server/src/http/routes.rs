//! The one table of routes: the router and `/openapi.json` are made of it.

use std::sync::Arc;

use axum::routing::{MethodRouter, delete, get, post};

use super::endpoints;
use super::models;
use super::page::page;
use super::router::AppState;

/// What a route answers with.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answers {
    /// JSON of this schema.
    Json(&'static str),
    /// The same, or server-sent events if the request says `"stream": true`.
    JsonOrEvents(&'static str),
    /// Text of this media type.
    Text(&'static str),
}

/// One route.
#[derive(Debug)]
pub(super) struct Route {
    /// As OpenAPI spells it.
    pub(super) method: &'static str,
    /// As the router spells it.
    pub(super) path: &'static str,
    pub(super) tag: &'static str,
    pub(super) summary: &'static str,
    /// Schema of the request's body.
    pub(super) request: Option<&'static str>,
    pub(super) answers: Answers,
    /// Whether it needs no key.
    pub(super) open: bool,
    pub(super) handler: fn() -> MethodRouter<Arc<AppState>>,
}

const fn reading(
    tag: &'static str,
    path: &'static str,
    summary: &'static str,
    answers: Answers,
    handler: fn() -> MethodRouter<Arc<AppState>>,
) -> Route {
    Route {
        method: "get",
        path,
        tag,
        summary,
        request: None,
        answers,
        open: false,
        handler,
    }
}

const fn posting(
    tag: &'static str,
    path: &'static str,
    summary: &'static str,
    request: &'static str,
    answers: Answers,
    handler: fn() -> MethodRouter<Arc<AppState>>,
) -> Route {
    Route {
        method: "post",
        request: Some(request),
        ..reading(tag, path, summary, answers, handler)
    }
}

const OPENAI: &str = "OpenAI";
const ANTHROPIC: &str = "Anthropic";
const TEXT: &str = "Text";
const SERVER: &str = "Server";

/// All routes.
pub(super) static ROUTES: &[Route] = &[
    posting(
        OPENAI,
        "/v1/chat/completions",
        "Generate an answer to a conversation",
        "ChatRequest",
        Answers::JsonOrEvents("ChatAnswer"),
        || post(endpoints::chat),
    ),
    posting(
        OPENAI,
        "/v1/completions",
        "Continue a text as it is, without a template",
        "CompletionRequest",
        Answers::JsonOrEvents("CompletionAnswer"),
        || post(endpoints::completions),
    ),
    posting(
        OPENAI,
        "/v1/responses",
        "Generate a response to input items",
        "ResponseRequest",
        Answers::JsonOrEvents("Response"),
        || post(endpoints::create_response),
    ),
    reading(
        OPENAI,
        "/v1/responses/{id}",
        "A response that was stored",
        Answers::Json("Response"),
        || get(endpoints::get_response),
    ),
    Route {
        method: "delete",
        ..reading(
            OPENAI,
            "/v1/responses/{id}",
            "Forget a stored response",
            Answers::Json("Deleted"),
            || delete(endpoints::delete_response),
        )
    },
    posting(
        OPENAI,
        "/v1/responses/{id}/cancel",
        "Cancel a response that is being generated",
        "Empty",
        Answers::Json("Response"),
        || post(endpoints::cancel_response),
    ),
    reading(
        OPENAI,
        "/v1/models",
        "The names of the model",
        Answers::Json("ModelList"),
        || get(models::list),
    ),
    reading(
        OPENAI,
        "/v1/models/{*id}",
        "The model under one of its names",
        Answers::Json("Model"),
        || get(models::get),
    ),
    posting(
        ANTHROPIC,
        "/v1/messages",
        "Generate the next message of a conversation",
        "MessagesRequest",
        Answers::JsonOrEvents("Message"),
        || post(endpoints::messages),
    ),
    posting(
        ANTHROPIC,
        "/v1/messages/count_tokens",
        "Tokens of the prompt of a conversation",
        "MessagesRequest",
        Answers::Json("TokenCount"),
        || post(endpoints::count_tokens),
    ),
    posting(
        TEXT,
        "/tokenize",
        "Token ids of a text or a conversation",
        "TokenizeRequest",
        Answers::Json("Tokens"),
        || post(endpoints::tokenize),
    ),
    posting(
        TEXT,
        "/detokenize",
        "Text of token ids",
        "DetokenizeRequest",
        Answers::Json("DetokenizedText"),
        || post(endpoints::detokenize),
    ),
    posting(
        TEXT,
        "/render",
        "The prompt that a request of any of the APIs becomes",
        "RenderRequest",
        Answers::Json("RenderedPrompt"),
        || post(endpoints::render),
    ),
    Route {
        open: true,
        ..reading(
            SERVER,
            "/health",
            "The server is there",
            Answers::Json("Health"),
            || get(endpoints::health),
        )
    },
    reading(
        SERVER,
        "/ready",
        "The model is loaded; before that 503 with the progress",
        Answers::Json("Ready"),
        || get(endpoints::ready),
    ),
    reading(
        SERVER,
        "/metrics",
        "Figures for Prometheus",
        Answers::Text("text/plain"),
        || get(endpoints::metrics),
    ),
    reading(
        SERVER,
        "/v1/sessions",
        "What the engine is doing",
        Answers::Json("Sessions"),
        || get(endpoints::sessions),
    ),
    reading(
        SERVER,
        "/openapi.json",
        "This description",
        Answers::Json("OpenApi"),
        || get(endpoints::openapi),
    ),
    Route {
        open: true,
        ..reading(
            SERVER,
            "/",
            "A page to chat with the model",
            Answers::Text("text/html"),
            || get(page),
        )
    },
    // Clients that were told a base address without /v1.
    posting(
        OPENAI,
        "/chat/completions",
        "As /v1/chat/completions",
        "ChatRequest",
        Answers::JsonOrEvents("ChatAnswer"),
        || post(endpoints::chat),
    ),
    posting(
        OPENAI,
        "/responses",
        "As /v1/responses",
        "ResponseRequest",
        Answers::JsonOrEvents("Response"),
        || post(endpoints::create_response),
    ),
    reading(
        OPENAI,
        "/models",
        "As /v1/models",
        Answers::Json("ModelList"),
        || get(models::list),
    ),
];

/// Whether a path needs no key.
pub(super) fn is_open(path: &str) -> bool {
    ROUTES.iter().any(|route| route.open && route.path == path)
}
