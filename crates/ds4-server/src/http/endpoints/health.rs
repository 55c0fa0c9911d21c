//! `GET /health`, `/ready`, `/metrics` and `/v1/sessions`.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use ds4_engine::{GateState, Priority};
use serde_json::{Value, json};

use crate::disk::WriteStatus;
use crate::http::error::json_response;
use crate::http::router::AppState;
use crate::observe::exposition;
use crate::owner::Owner;

/// The server is there. Says nothing else: it needs no key.
pub(crate) async fn health() -> Response {
    json_response(StatusCode::OK, &json!({"status": "ok"}))
}

/// The model is loaded and takes requests.
pub(crate) async fn ready(State(state): State<Arc<AppState>>) -> Response {
    let status = state.inference.service().status();
    let facts = state.inference.service().model();
    json_response(
        StatusCode::OK,
        &json!({
            "status": "ready",
            "model": state.model_id,
            "name": facts.name,
            "fingerprint": facts.fingerprint.to_string(),
            "backend": facts.backend,
            "context": facts.context,
            "kv_cache_type": facts.kv_format.name(),
            "queued": status.queued,
            "running": status.running.len(),
        }),
    )
}

/// Figures for Prometheus.
pub(crate) async fn metrics(State(state): State<Arc<AppState>>) -> Response {
    let service = state.inference.service();
    let text = exposition(&state.metrics, &service.status(), service.model());
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

/// The description of all routes.
pub(crate) async fn openapi() -> Response {
    json_response(StatusCode::OK, &crate::http::openapi::openapi())
}

/// What the engine is doing: its requests of the caller, and figures of all.
pub(crate) async fn sessions(
    State(state): State<Arc<AppState>>,
    Extension(owner): Extension<Owner>,
) -> Response {
    let status = state.inference.service().status();
    let running: Vec<_> = status
        .running
        .iter()
        .filter(|request| state.inference.is_of(request.id, owner))
        .map(|request| {
            json!({
                "id": request.id.0,
                "priority": match request.priority {
                    Priority::Background => "low",
                    Priority::Normal => "normal",
                    Priority::Interactive => "high",
                },
                "prompt_tokens": request.prompt,
                "prefilled_tokens": request.prefilled,
                "generated_tokens": request.generated,
            })
        })
        .collect();
    let (memory, totals) = (&status.memory, &status.totals);
    let disk = status.disk.as_ref().map(|disk| {
        json!({
            "checkpoints": disk.checkpoints,
            "bytes": disk.bytes,
            "limit": disk.max_bytes,
            "read_only": disk.read_only,
            "saved": disk.saved,
            "bytes_written": disk.bytes_written,
            "restored": disk.restored,
            "pending": disk.pending,
            "failures": disk.failures,
            "last_failure": disk.last_failure,
        })
    });
    let (answers, bytes, store) = state.inference.replay_status();
    let replay = json!({"answers": answers, "bytes": bytes, "disk": written(store)});
    let (stored, bytes, store) = state.inference.responses().status();
    let responses = json!({"stored": stored, "bytes": bytes, "disk": written(store)});
    let speculation = status.speculation.map(|speculation| {
        json!({
            "gate": match speculation.gate {
                GateState::Measuring => "measuring",
                GateState::Open => "open",
                GateState::Closed => "closed",
            },
            "row_cost": speculation.row_cost,
            "lookup": {
                "drafted": speculation.lookup_drafted, "accepted": speculation.lookup_accepted,
            },
            "mtp": {"drafted": speculation.mtp_drafted, "accepted": speculation.mtp_accepted},
        })
    });
    json_response(
        StatusCode::OK,
        &json!({
            "running": running,
            "slots": status.slots,
            "queued": status.queued,
            "queue_capacity": status.queue_capacity,
            "pages": {"total": memory.pages, "free": memory.free_pages, "running": memory.running_pages},
            "kept": {
                "points": memory.kept_points,
                "bytes": memory.kept_bytes,
                "limit": memory.kept_bytes_limit,
            },
            "disk": disk,
            "replay": replay,
            "responses": responses,
            "speculation": speculation,
            "cached_tokens": {
                "live": totals.cached_live, "kept": totals.cached_kept, "disk": totals.cached_disk,
            },
            "prompt_tokens": totals.prompt_tokens,
            "prefilled_tokens": totals.prefilled_tokens,
            "generated_tokens": totals.generated_tokens,
            "speed": {"prefill": status.speed.prefill, "decode": status.speed.decode},
        }),
    )
}

/// How writing to disk goes.
fn written(store: Option<WriteStatus>) -> Value {
    store.map_or(Value::Null, |store| {
        json!({
            "written": store.written, "lost": store.lost, "last_failure": store.last_failure,
        })
    })
}
