//! Which request goes where.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};

use super::error::{ApiError, Dialect};
use super::guard::{Guard, guard};
use super::routes::ROUTES;
use crate::inference::Inference;
use crate::observe::Metrics;
use crate::settings::ServerSettings;
use crate::wire::RequestError;

/// What all requests share.
pub(crate) struct AppState {
    pub(crate) settings: ServerSettings,
    pub(crate) inference: Arc<Inference>,
    pub(crate) metrics: Arc<Metrics>,
    /// The model's own name in requests.
    pub(crate) model_id: String,
    /// Seconds since 1970.
    pub(crate) started: u64,
}

impl AppState {
    pub(crate) fn new(
        settings: ServerSettings,
        inference: Arc<Inference>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            model_id: model_id(&inference.service().model().name),
            started: super::answer::now(),
            settings,
            inference,
            metrics,
        }
    }
}

/// A name for requests made of the name in the file.
fn model_id(name: &str) -> String {
    let mut id = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() || c == '.' {
            id.push(c.to_ascii_lowercase());
        } else if !id.ends_with('-') && !id.is_empty() {
            id.push('-');
        }
    }
    let id = id.trim_end_matches('-');
    if id.is_empty() {
        "deepseek-v4".to_owned()
    } else {
        id.to_owned()
    }
}

/// All routes.
pub(super) fn router(state: Arc<AppState>, admission: Arc<Guard>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        router = router.route(route.path, (route.handler)());
    }
    router
        .fallback(not_found)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(admission, guard))
        .with_state(state)
}

async fn not_found(request: Request) -> Response {
    refuse(
        &request,
        RequestError::new(format!(
            "There is no {} {} here",
            request.method(),
            request.uri().path()
        ))
        .with_status(404),
    )
}

async fn wrong_method(request: Request) -> Response {
    let wants = if request.method() == Method::GET {
        "POST"
    } else {
        "GET"
    };
    refuse(
        &request,
        RequestError::new(format!(
            "{} does not take {}, but {wants}",
            request.uri().path(),
            request.method()
        ))
        .with_status(405),
    )
}

fn refuse(request: &Request, error: RequestError) -> Response {
    let dialect = if request.uri().path().starts_with("/v1/messages") {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi {
            prompt_field: "messages",
        }
    };
    ApiError::new(dialect, error).into_response()
}
