//! What the generating endpoints have in common.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use serde_json::Value;

use super::error::{ApiError, Dialect};
use super::models::check_model;
use super::request_body::read_json;
use super::router::AppState;
use crate::inference::{RunningTurn, TurnError};
use crate::observe::RequestRecord;
use crate::owner::Owner;
use crate::turn::{TurnEvent, TurnRequest};
use crate::wire::RequestError;

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A request that was read.
pub(super) struct Received {
    /// Its body.
    pub(super) json: Value,
    pub(super) sender: Sender,
}

/// Who sent a request, and where what becomes of it is noted.
pub(super) struct Sender {
    pub(super) owner: Owner,
    pub(super) record: Arc<RequestRecord>,
}

/// Reads the JSON body of a request.
///
/// # Errors
/// A body that cannot be read.
pub(super) async fn body(
    state: &AppState,
    dialect: Dialect,
    request: Request,
) -> Result<Received, ApiError> {
    let settings = &state.settings;
    let (parts, body) = request.into_parts();
    let json = read_json(
        &parts.headers,
        body,
        settings.max_body,
        settings.read_timeout,
    )
    .await
    .map_err(|error| ApiError::new(dialect, error))?;
    let record = parts.extensions.get::<Arc<RequestRecord>>();
    let (Some(record), Some(&owner)) = (record, parts.extensions.get::<Owner>()) else {
        let error = RequestError::new("the request was not guarded").with_status(500);
        return Err(ApiError::new(dialect, error));
    };
    record.body(&json);
    let record = Arc::clone(record);
    Ok(Received {
        json,
        sender: Sender { owner, record },
    })
}

/// Makes a turn ready on a thread that may take its time, and starts it.
pub(super) async fn start(
    state: &Arc<AppState>,
    dialect: Dialect,
    turn: TurnRequest,
    call_id_prefix: &'static str,
    sender: Sender,
) -> Result<RunningTurn, ApiError> {
    check_model(state, &turn.model).map_err(|error| ApiError::new(dialect, error))?;
    let Sender { owner, record } = sender;
    record.asked(&turn.model, turn.stream);
    let inference = Arc::clone(&state.inference);
    apart(dialect, move || {
        let prepared = inference.prepare(&turn, owner)?;
        inference.start(prepared, call_id_prefix, record)
    })
    .await
}

/// Does what may take its time on a thread that serves no sockets.
///
/// # Errors
/// Those of the work; a panic in it becomes one (500).
pub(super) async fn apart<T: Send + 'static>(
    dialect: Dialect,
    work: impl FnOnce() -> Result<T, TurnError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|error| ApiError::of_turn(dialect, error)),
        Err(_) => Err(ApiError::new(
            dialect,
            RequestError::new("internal error while preparing the request").with_status(500),
        )),
    }
}

/// Runs a turn to its end.
///
/// # Errors
/// It failed.
pub(super) async fn finish(dialect: Dialect, turn: &mut RunningTurn) -> Result<(), ApiError> {
    while let Some(event) = turn.next().await {
        if let TurnEvent::Failed { message } = event {
            let error = RequestError::new(message).with_status(500);
            return Err(ApiError::new(dialect, error));
        }
    }
    Ok(())
}
