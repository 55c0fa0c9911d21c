//! `POST /v1/completions`: plain continuation of a text.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::http::answer::{Received, Sender, apart, body, finish, now};
use crate::http::error::{ApiError, Dialect, json_response};
use crate::http::models::check_model;
use crate::http::router::AppState;
use crate::http::stream::{EventText, EventWriter, stream_turn};
use crate::inference::RunningTurn;
use crate::openai::{completion_request, finish_reason, usage};
use crate::random_id;
use crate::turn::TurnEvent;

const DIALECT: Dialect = Dialect::OpenAi {
    prompt_field: "prompt",
};

pub(crate) async fn completions(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    let failed = |error| ApiError::new(DIALECT, error);
    let request = completion_request(&json, state.inference.sampling()).map_err(failed)?;
    check_model(&state, &request.model).map_err(failed)?;
    let mut writer = CompletionWriter {
        id: random_id("cmpl-"),
        created: now(),
        model: request.model.clone(),
        include_usage: request.include_usage,
        echo: request.echo.then(|| request.prompt.clone()),
    };
    let Sender { owner, record } = sender;
    record.asked(&request.model, request.stream);
    let streams = request.stream;
    let inference = Arc::clone(&state.inference);
    let mut turn = apart(DIALECT, move || {
        let prepared = inference.prepare_completion(&request, owner)?;
        inference.start(prepared, "call_", record)
    })
    .await?;
    if streams {
        return Ok(stream_turn(turn, writer, state.settings.keep_alive));
    }
    finish(DIALECT, &mut turn).await?;
    let answer = turn.answer();
    let (reason, used) = match &answer.end {
        Some(end) => (Value::from(finish_reason(&end.reason)), end.usage),
        None => (Value::Null, turn.usage()),
    };
    let text = format!("{}{}", writer.echo.take().unwrap_or_default(), answer.text);
    let mut value = writer.chunk(&text, reason);
    value["usage"] = usage(&used, false);
    Ok(json_response(StatusCode::OK, &value))
}

struct CompletionWriter {
    id: String,
    created: u64,
    model: String,
    include_usage: bool,
    echo: Option<String>,
}

impl CompletionWriter {
    fn chunk(&self, text: &str, finish_reason: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [{
                "text": text, "index": 0, "logprobs": null, "finish_reason": finish_reason,
            }],
        })
    }
}

impl EventWriter for CompletionWriter {
    fn start(&mut self, _turn: &RunningTurn, out: &mut EventText) {
        match self.echo.take() {
            Some(prompt) => out.data(&self.chunk(&prompt, Value::Null)),
            None => out.comment("ok"),
        }
    }

    fn event(&mut self, event: &TurnEvent, _turn: &RunningTurn, out: &mut EventText) {
        match event {
            TurnEvent::Text(text) => out.data(&self.chunk(text, Value::Null)),
            TurnEvent::Finished(end) => {
                let mut chunk = self.chunk("", Value::from(finish_reason(&end.reason)));
                if self.include_usage {
                    chunk["usage"] = usage(&end.usage, false);
                }
                out.data(&chunk);
            }
            TurnEvent::Failed { message } => {
                out.data(&json!({"error": {
                    "message": message, "type": "server_error", "param": null, "code": "server_error",
                }}));
            }
            _ => {}
        }
    }

    fn sign_of_life(&mut self, out: &mut EventText) {
        out.comment("keep-alive");
    }

    fn end(&mut self, _turn: &RunningTurn, out: &mut EventText) {
        out.raw("data: [DONE]");
    }
}
