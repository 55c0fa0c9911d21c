//! What clients meet before the model is loaded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::Response;
use serde_json::json;
use tower_service::Service;

use super::error::json_response;
use super::guard::Guard;
use super::half_close::answer_patiently;
use super::observe::{Observer, observe};

/// Stands before all routes; lets requests through once there is a model.
#[derive(Debug)]
pub(crate) struct Front {
    guard: Arc<Guard>,
    routes: OnceLock<Router>,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Front {
    pub(super) fn new(guard: Arc<Guard>) -> Self {
        Self {
            guard,
            routes: OnceLock::new(),
            done: AtomicUsize::new(0),
            total: AtomicUsize::new(0),
        }
    }

    /// Who may call.
    pub(super) fn guard(&self) -> &Arc<Guard> {
        &self.guard
    }

    /// The router of the front.
    pub(super) fn router(front: Arc<Self>, observer: Observer) -> Router {
        Router::new()
            .fallback(pass)
            .with_state(front)
            .layer(from_fn(answer_patiently))
            .layer(from_fn_with_state(observer, observe))
    }

    /// Parts of the model that are loaded.
    pub(crate) fn loading(&self, done: usize, total: usize) {
        self.done.store(done, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    /// Lets requests through.
    pub(crate) fn open(&self, routes: Router) {
        // A second model is not taken.
        let _ = self.routes.set(routes);
    }
}

async fn pass(State(front): State<Arc<Front>>, request: Request) -> Response {
    if let Some(routes) = front.routes.get() {
        let answer = routes.clone().call(request).await;
        return answer.unwrap_or_else(|never| match never {});
    }
    // The same as for the routes: a page on another site must not learn more now.
    let admitted = match front.guard.admit(&request) {
        Ok(admitted) => admitted,
        Err(refusal) => return *refusal,
    };
    if request.uri().path() == "/health" {
        return admitted.mark(json_response(StatusCode::OK, &json!({"status": "ok"})));
    }
    let done = front.done.load(Ordering::Relaxed);
    let total = front.total.load(Ordering::Relaxed);
    let mut response = json_response(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({
            "status": "loading", "loaded": done, "total": total,
            "type": "error",
            "error": {
                "type": "overloaded_error", "code": "model_loading", "param": null,
                "message": format!("the model is being loaded: {done} of {total} tensors"),
            },
        }),
    );
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
    admitted.mark(response)
}
