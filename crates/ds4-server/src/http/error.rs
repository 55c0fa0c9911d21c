//! Errors in the shape of each dialect.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::inference::TurnError;
use crate::wire::RequestError;

/// Whose shape an error has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// OpenAI's APIs; `prompt_field` is the field that holds the prompt.
    OpenAi {
        /// `messages`, `prompt` or `input`.
        prompt_field: &'static str,
    },
    /// Anthropic's API.
    Anthropic,
}

/// What an error answer says, for the log.
#[derive(Clone, Debug)]
pub(super) struct ErrorText(pub(super) String);

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    pub(crate) dialect: Dialect,
    pub(crate) error: RequestError,
    pub(crate) retry_after: Option<Duration>,
    /// Fields beside the message.
    pub(crate) extra: Vec<(&'static str, Value)>,
}

impl ApiError {
    pub(crate) fn new(dialect: Dialect, error: RequestError) -> Self {
        Self {
            dialect,
            error,
            retry_after: None,
            extra: Vec::new(),
        }
    }

    /// An error of a turn that has not begun.
    pub(crate) fn of_turn(dialect: Dialect, error: TurnError) -> Self {
        match error {
            TurnError::Request(error) => Self::new(dialect, error),
            TurnError::TooLong { tokens, context } => {
                let field = match dialect {
                    Dialect::OpenAi { prompt_field } => prompt_field,
                    Dialect::Anthropic => "messages",
                };
                let message = format!(
                    "Prompt has {tokens} tokens, but the configured context size is {context} tokens"
                );
                let error =
                    RequestError::field(field, message).with_code("context_length_exceeded");
                Self {
                    extra: vec![
                        ("n_prompt_tokens", Value::from(tokens)),
                        ("n_ctx", Value::from(context)),
                    ],
                    ..Self::new(dialect, error)
                }
            }
            TurnError::Busy {
                message,
                retry_after,
            } => Self {
                retry_after: Some(retry_after),
                ..Self::new(
                    dialect,
                    RequestError::new(message)
                        .with_status(429)
                        .with_code("rate_limit_exceeded"),
                )
            },
            TurnError::Unavailable(message) => Self {
                retry_after: Some(Duration::from_secs(5)),
                ..Self::new(
                    dialect,
                    RequestError::new(message)
                        .with_status(503)
                        .with_code("server_unavailable"),
                )
            },
        }
    }

    fn body(&self) -> Value {
        let mut inner = match self.dialect {
            Dialect::OpenAi { .. } => json!({
                "message": self.error.message,
                "type": openai_type(self.error.status),
                "param": self.error.param,
                "code": self.error.code.unwrap_or_else(|| openai_type(self.error.status)),
            }),
            Dialect::Anthropic => json!({
                "type": anthropic_type(self.error.status),
                "message": self.error.message,
            }),
        };
        for (name, value) in &self.extra {
            inner[*name] = value.clone();
        }
        match self.dialect {
            Dialect::OpenAi { .. } => json!({"error": inner}),
            Dialect::Anthropic => json!({"type": "error", "error": inner}),
        }
    }
}

fn openai_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        429 => "rate_limit_error",
        500.. => "server_error",
        _ => "invalid_request_error",
    }
}

fn anthropic_type(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        503 => "overloaded_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = json_response(status, &self.body());
        response
            .extensions_mut()
            .insert(ErrorText(self.error.message.clone()));
        if let Some(after) = self.retry_after {
            let seconds = after.as_secs_f64().ceil().max(1.0) as u64;
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.error.status == 401 {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response {
    json_text_response(status, value.to_string())
}

/// An answer that is JSON already.
pub(crate) fn json_text_response(status: StatusCode, text: impl Into<String>) -> Response {
    let mut response = Response::new(Body::from(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
