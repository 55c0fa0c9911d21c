//! `POST /v1/messages` and `POST /v1/messages/count_tokens`

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use crate::anthropic::{MessageHeader, MessageStream, message_answer, messages_request};
use crate::http::answer::{Received, apart, body, finish, start};
use crate::http::error::{ApiError, Dialect, json_response};
use crate::http::models::check_model;
use crate::http::router::AppState;
use crate::http::stream::{EventText, EventWriter, stream_turn};
use crate::inference::RunningTurn;
use crate::random_id;
use crate::turn::TurnEvent;

const DIALECT: Dialect = Dialect::Anthropic;

pub(crate) async fn messages(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    let inference = &state.inference;
    let request = messages_request(&json, inference.sampling(), inference.thinking(), true)
        .map_err(|error| ApiError::new(DIALECT, error))?;
    let (model, streams) = (request.model.clone(), request.stream);
    let id = random_id("msg_");
    let mut turn = start(&state, DIALECT, request, "toolu_", sender).await?;
    if streams {
        let writer = MessageWriter {
            header: MessageHeader {
                id,
                model,
                usage: turn.usage(),
            },
            stream: None,
        };
        return Ok(stream_turn(turn, writer, state.settings.keep_alive));
    }
    finish(DIALECT, &mut turn).await?;
    let header = MessageHeader {
        id,
        model,
        usage: turn.usage(),
    };
    Ok(json_response(
        StatusCode::OK,
        &message_answer(&header, turn.answer()),
    ))
}

pub(crate) async fn count_tokens(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    let inference = Arc::clone(&state.inference);
    let failed = |error| ApiError::new(DIALECT, error);
    let request = messages_request(&json, inference.sampling(), inference.thinking(), false)
        .map_err(failed)?;
    check_model(&state, &request.model).map_err(failed)?;
    let (tokens, _) = apart(DIALECT, move || {
        Ok(inference.prompt_tokens(&request, sender.owner)?)
    })
    .await?;
    Ok(json_response(
        StatusCode::OK,
        &json!({"input_tokens": tokens.len()}),
    ))
}

struct MessageWriter {
    header: MessageHeader,
    /// Begun with the first real event: by then it is known how much of the prompt was found.
    stream: Option<MessageStream>,
}

impl MessageWriter {
    fn begin(&mut self, turn: &RunningTurn, out: &mut EventText) -> &mut MessageStream {
        let header = &mut self.header;
        self.stream.get_or_insert_with(|| {
            header.usage = turn.usage();
            let stream = MessageStream::new(header.clone());
            out.named(&stream.start());
            stream
        })
    }
}

impl EventWriter for MessageWriter {
    fn start(&mut self, _turn: &RunningTurn, out: &mut EventText) {
        // The head of the answer must not wait.
        out.comment("ok");
    }

    fn event(&mut self, event: &TurnEvent, turn: &RunningTurn, out: &mut EventText) {
        let stream = self.begin(turn, out);
        if let TurnEvent::Failed { message } = event {
            out.named(&MessageStream::error(message));
            return;
        }
        for event in stream.event(event) {
            out.named(&event);
        }
    }

    fn sign_of_life(&mut self, out: &mut EventText) {
        out.named(&MessageStream::ping());
    }

    fn end(&mut self, _turn: &RunningTurn, _out: &mut EventText) {}
}
