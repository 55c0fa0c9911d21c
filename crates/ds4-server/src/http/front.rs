//! What clients meet before the model is loaded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use serde_json::json;
use tower_service::Service;

use super::error::json_response;
use super::observe::{Observer, observe};

/// Stands before all routes; lets requests through once there is a model.
#[derive(Debug, Default)]
pub(crate) struct Front {
    routes: OnceLock<Router>,
    done: AtomicUsize,
    total: AtomicUsize,
}

impl Front {
    /// The router of the front.
    pub(super) fn router(front: Arc<Self>, observer: Observer) -> Router {
        Router::new()
            .fallback(pass)
            .with_state(front)
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
    if request.uri().path() == "/health" {
        return json_response(StatusCode::OK, &json!({"status": "ok"}));
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
    response
}
