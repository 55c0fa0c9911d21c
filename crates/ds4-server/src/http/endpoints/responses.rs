//! `POST /v1/responses`, and the responses that are kept.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use ds4_chat::{Content, FunctionCall, Message, Role, ToolCallMessage};
use serde_json::json;
use serde_json::value::to_raw_value;

use crate::http::answer::{Received, body, now, start};
use crate::http::error::{ApiError, Dialect, json_response, json_text_response};
use crate::http::request_path::PathId;
use crate::http::router::AppState;
use crate::http::stream::{EventText, EventWriter, stream_turn};
use crate::inference::RunningTurn;
use crate::owner::Owner;
use crate::random_id;
use crate::responses::{
    KeptResponse, ResponseHeader, ResponseStream, previous_response_id, responses_request,
};
use crate::turn::{Answer, TurnEvent};
use crate::wire::RequestError;

const DIALECT: Dialect = Dialect::OpenAi {
    prompt_field: "input",
};

fn failed(error: RequestError) -> ApiError {
    ApiError::new(DIALECT, error)
}

fn unknown(id: &str) -> ApiError {
    let error = RequestError::field(
        "previous_response_id",
        format!(
            "Response with id '{id}' not found: it was not stored, or is forgotten; send the whole input"
        ),
    );
    failed(error.with_status(404).with_code("response_not_found"))
}

pub(crate) async fn create_response(
    State(state): State<Arc<AppState>>,
    request: Request,
) -> Result<Response, ApiError> {
    let Received { json, sender } = body(&state, DIALECT, request).await?;
    let owner = sender.owner;
    let before = match previous_response_id(&json).map_err(failed)? {
        None => Vec::new(),
        Some(id) => state
            .inference
            .responses()
            .history(owner, id)
            .ok_or_else(|| unknown(id))?,
    };
    let inference = &state.inference;
    let request = responses_request(&json, &before, inference.sampling(), inference.thinking())
        .map_err(failed)?;
    let header = ResponseHeader {
        id: random_id("resp_"),
        created: now(),
        model: request.turn.model.clone(),
        echo: request.echo,
        tools: request.turn.tools.clone(),
    };
    let streams = request.turn.stream;
    let mut turn = start(&state, DIALECT, request.turn, "call_", sender).await?;
    let keeper = Keeper {
        id: header.id.clone(),
        owner,
        history: request.store.then_some(request.history),
        state: Arc::clone(&state),
    };
    if request.store {
        state
            .inference
            .responses()
            .begin(&header.id, owner, turn.id());
    }
    let mut stream = ResponseStream::new(header);
    if streams {
        let writer = ResponseWriter { stream, keeper };
        return Ok(stream_turn(turn, writer, state.settings.keep_alive));
    }
    stream.start();
    let mut failure = None;
    while let Some(event) = turn.next().await {
        stream.event(&event, now());
        if let TurnEvent::Failed { message } = event {
            failure = Some(message);
        }
    }
    keeper.keep(&stream, turn.answer());
    match (failure, stream.answer()) {
        (None, Some(answer)) => Ok(json_response(StatusCode::OK, answer)),
        (failure, _) => {
            let message = failure.unwrap_or_else(|| "the answer has no end".to_owned());
            Err(failed(RequestError::new(message).with_status(500)))
        }
    }
}

pub(crate) async fn get_response(
    State(state): State<Arc<AppState>>,
    Extension(owner): Extension<Owner>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let kept = state.inference.responses();
    match kept.get(owner, &id) {
        Some(response) => Ok(json_text_response(StatusCode::OK, response.get())),
        None => Err(unknown(&id)),
    }
}

pub(crate) async fn delete_response(
    State(state): State<Arc<AppState>>,
    Extension(owner): Extension<Owner>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let removal = state.inference.responses().remove(owner, &id);
    let removal = removal.ok_or_else(|| unknown(&id))?;
    // "Deleted" is said only when it is so, also after a crash.
    match tokio::task::spawn_blocking(move || removal.finish()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            let error = RequestError::new(format!(
                "the response is forgotten, but its file could not be removed: {error}"
            ));
            return Err(failed(error.with_status(500)));
        }
        Err(_) => {
            let error = RequestError::new("internal error while removing the response");
            return Err(failed(error.with_status(500)));
        }
    }
    Ok(json_response(
        StatusCode::OK,
        &json!({"id": id, "object": "response", "deleted": true}),
    ))
}

pub(crate) async fn cancel_response(
    State(state): State<Arc<AppState>>,
    Extension(owner): Extension<Owner>,
    PathId(id): PathId,
) -> Result<Response, ApiError> {
    let running = state.inference.responses().running(owner, &id);
    match running {
        Some(request) => {
            state.inference.service().cancel(request);
            Ok(json_response(
                StatusCode::OK,
                &json!({"id": id, "object": "response", "status": "cancelled"}),
            ))
        }
        None => get_response(State(state), Extension(owner), PathId(id)).await,
    }
}

/// Puts a finished response where later requests find it.
struct Keeper {
    id: String,
    owner: Owner,
    /// `None` if the client does not want it kept.
    history: Option<Vec<Message>>,
    state: Arc<AppState>,
}

impl Keeper {
    fn keep(&self, stream: &ResponseStream, answer: &Answer) {
        let (Some(history), Some(response)) = (&self.history, stream.answer()) else {
            return;
        };
        // A value is always JSON.
        let Ok(response) = to_raw_value(response) else {
            return;
        };
        let mut history = history.clone();
        history.push(message_of(answer));
        self.state.inference.responses().finish(KeptResponse {
            id: self.id.clone(),
            owner: self.owner,
            response,
            history,
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // A client that left, or a failure: nothing is running under this id any more.
        self.state.inference.responses().end(&self.id);
    }
}

/// An answer as the message that the next request goes on from.
fn message_of(answer: &Answer) -> Message {
    let mut message = Message::new(Role::Assistant, "");
    message.content = Content::Text(answer.text.clone());
    if !answer.reasoning.is_empty() {
        message.reasoning_content = Some(answer.reasoning.clone());
    }
    for call in answer.calls.iter().filter(|call| call.complete) {
        message.tool_calls.push(ToolCallMessage {
            id: Some(call.id.clone()),
            function: FunctionCall::new(call.name.as_str(), &call.arguments),
        });
    }
    message
}

struct ResponseWriter {
    stream: ResponseStream,
    keeper: Keeper,
}

impl EventWriter for ResponseWriter {
    fn start(&mut self, _turn: &RunningTurn, out: &mut EventText) {
        for event in self.stream.start() {
            out.named(&event);
        }
    }

    fn event(&mut self, event: &TurnEvent, _turn: &RunningTurn, out: &mut EventText) {
        for event in self.stream.event(event, now()) {
            out.named(&event);
        }
    }

    fn sign_of_life(&mut self, out: &mut EventText) {
        out.comment("keep-alive");
    }

    fn end(&mut self, turn: &RunningTurn, _out: &mut EventText) {
        self.keeper.keep(&self.stream, turn.answer());
    }
}
