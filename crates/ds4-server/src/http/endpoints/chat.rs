//! `POST /v1/chat/completions`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use ds4_chat::ThinkingMode;

use crate::http::answer::{Received, body, finish, now, start};
use crate::http::error::{ApiError, Dialect, json_response};
use crate::http::router::AppState;
use crate::http::stream::{EventText, EventWriter, stream_turn};
use crate::inference::RunningTurn;
use crate::openai::{ChatHeader, ChatStream, chat_answer, chat_request};
use crate::random_id;
use crate::turn::TurnEvent;

const DIALECT: Dialect = Dialect::OpenAi {
    prompt_field: "messages",
};

pub(crate) async fn chat(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    let inference = &state.inference;
    let request = chat_request(&json, inference.sampling(), inference.thinking())
        .map_err(|error| ApiError::new(DIALECT, error))?;
    let header = ChatHeader {
        id: random_id("chatcmpl-"),
        created: now(),
        model: request.turn.model.clone(),
        thinking: request.turn.conversation.thinking_mode == ThinkingMode::On,
    };
    let streams = request.turn.stream;
    let mut turn = start(&state, DIALECT, request.turn, "call_", sender).await?;
    if streams {
        let writer = ChatWriter(ChatStream::new(header, request.include_usage));
        return Ok(stream_turn(turn, writer, state.settings.keep_alive));
    }
    finish(DIALECT, &mut turn).await?;
    Ok(json_response(
        StatusCode::OK,
        &chat_answer(&header, turn.answer()),
    ))
}

struct ChatWriter(ChatStream);

impl EventWriter for ChatWriter {
    fn start(&mut self, _turn: &RunningTurn, out: &mut EventText) {
        out.data(&self.0.start());
    }

    fn event(&mut self, event: &TurnEvent, _turn: &RunningTurn, out: &mut EventText) {
        if let TurnEvent::Failed { message } = event {
            out.data(&ChatStream::error(message));
        } else if let Some(chunk) = self.0.event(event) {
            out.data(&chunk);
        }
    }

    fn sign_of_life(&mut self, out: &mut EventText) {
        out.comment("keep-alive");
    }

    fn end(&mut self, _turn: &RunningTurn, out: &mut EventText) {
        out.raw("data: [DONE]");
    }
}
