//! What every request passes before its endpoint: host, origin, key.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::error::{ApiError, Dialect};
use super::router::AppState;
use super::routes::is_open;
use crate::observe::RequestRecord;
use crate::wire::RequestError;

/// Checks a request and lets it pass.
pub(crate) async fn guard(
    State(state): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> Response {
    if let Some(record) = request.extensions().get::<Arc<RequestRecord>>()
        && let Some(pattern) = request.extensions().get::<MatchedPath>()
    {
        record.route(pattern.as_str());
    }
    let path = request.uri().path();
    let dialect = if path.starts_with("/v1/messages") {
        Dialect::Anthropic
    } else {
        Dialect::OpenAi {
            prompt_field: "messages",
        }
    };
    let host = host_of(&request);
    if !host.is_some_and(|host| is_known_host(&host, &state)) {
        let error = RequestError::new(
            "the Host header names no host of this server; start it with --allow-host NAME to use another",
        );
        return ApiError::new(dialect, error.with_status(403)).into_response();
    }
    let origin = request.headers().get(header::ORIGIN).cloned();
    let allowed = origin.as_ref().and_then(|origin| allow(origin, &state));
    // A page of another site: a browser sends simple requests even where it may not read the answer.
    if origin.is_some() && allowed.is_none() && !is_own(request.headers()) {
        let error = RequestError::new(
            "requests from pages of other sites are off; start the server with --allow-origin to let them",
        );
        return ApiError::new(dialect, error.with_status(403)).into_response();
    }
    if request.method() == Method::OPTIONS {
        return preflight(request.headers(), allowed);
    }
    if !is_open(path) && !state.settings.api_keys.is_empty() && !has_key(request.headers(), &state)
    {
        let error = RequestError::new(
            "a valid API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
        )
        .with_code("invalid_api_key");
        let response = ApiError::new(dialect, error.with_status(401)).into_response();
        return with_origin(response, allowed);
    }
    with_origin(next.run(request).await, allowed)
}

/// The host that the client believes to talk to, without its port.
fn host_of(request: &Request) -> Option<String> {
    let text = match request.uri().host() {
        Some(host) => host.to_owned(),
        None => request
            .headers()
            .get(header::HOST)?
            .to_str()
            .ok()?
            .to_owned(),
    };
    let host = match text.strip_prefix('[') {
        // An IPv6 address in brackets.
        Some(rest) => rest.split(']').next()?,
        None => text.split(':').next()?,
    };
    Some(host.trim_end_matches('.').to_ascii_lowercase())
}

fn is_known_host(host: &str, state: &AppState) -> bool {
    let own = state.settings.address.ip();
    let is_own_address = host.parse::<std::net::IpAddr>().is_ok_and(|address| {
        // Bound to all addresses, any address is its own; names are still checked.
        address.is_loopback() || address == own || own.is_unspecified()
    });
    is_own_address
        || host == "localhost"
        || host.ends_with(".localhost")
        || state
            .settings
            .allowed_hosts
            .iter()
            .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(host))
}

fn allow(origin: &HeaderValue, state: &AppState) -> Option<HeaderValue> {
    let origins = &state.settings.allowed_origins;
    let listed = origins
        .iter()
        .any(|allowed| allowed == "*" || origin.as_bytes() == allowed.as_bytes());
    listed.then(|| origin.clone())
}

/// Whether the page that sends the request is the server's own.
fn is_own(headers: &HeaderMap) -> bool {
    let (Some(origin), Some(host)) = (headers.get(header::ORIGIN), headers.get(header::HOST))
    else {
        return false;
    };
    let (Ok(origin), Ok(host)) = (origin.to_str(), host.to_str()) else {
        return false;
    };
    let origin = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    origin.is_some_and(|origin| origin.eq_ignore_ascii_case(host))
}

fn has_key(headers: &HeaderMap, state: &AppState) -> bool {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| {
            let (scheme, key) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        });
    let key = headers
        .get("x-api-key")
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    let given = [bearer, key];
    // Hashes are of one length, and all keys are compared: the time tells nothing.
    let mut found = subtle::Choice::from(0);
    for given in given.into_iter().flatten() {
        let given = blake3::hash(given.as_bytes());
        for hash in &state.key_hashes {
            found |= given.as_bytes().ct_eq(hash);
        }
    }
    found.into()
}

fn with_origin(mut response: Response, origin: Option<HeaderValue>) -> Response {
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("x-request-id, request-id, retry-after"),
        );
    }
    response
}

/// What a browser asks before it sends a request of another site's page.
fn preflight(asked: &HeaderMap, origin: Option<HeaderValue>) -> Response {
    let mut response = with_origin(StatusCode::NO_CONTENT.into_response(), origin.clone());
    if origin.is_some() {
        let headers = response.headers_mut();
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET, POST, DELETE"),
        );
        // The site is trusted with any header; `*` would not mean Authorization.
        if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
        }
        headers.insert(
            header::ACCESS_CONTROL_MAX_AGE,
            HeaderValue::from_static("600"),
        );
    }
    response
}
