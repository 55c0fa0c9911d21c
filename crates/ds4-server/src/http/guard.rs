//! What every request passes before its endpoint: host, origin, key.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use super::error::{ApiError, Dialect};
use super::routes::is_open;
use crate::observe::RequestRecord;
use crate::owner::Owner;
use crate::settings::ServerSettings;
use crate::wire::RequestError;

/// Knows who may call.
#[derive(Debug)]
pub(crate) struct Guard {
    /// Of the server.
    address: IpAddr,
    allowed_hosts: Vec<String>,
    allowed_origins: Vec<String>,
    /// Hashes of the keys, and who holds them.
    keys: Vec<([u8; 32], Owner)>,
}

/// A request that may go on.
pub(super) struct Admitted {
    /// Whose it is.
    pub(super) owner: Owner,
    /// The site whose page may read the answer.
    origin: Option<HeaderValue>,
}

impl Admitted {
    /// Tells the browser that the page may read the answer.
    pub(super) fn mark(self, response: Response) -> Response {
        with_origin(response, self.origin)
    }
}

/// Checks a request and lets it pass.
pub(super) async fn guard(
    State(guard): State<Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Response {
    if let Some(record) = request.extensions().get::<Arc<RequestRecord>>()
        && let Some(pattern) = request.extensions().get::<MatchedPath>()
    {
        record.route(pattern.as_str());
    }
    match guard.admit(&request) {
        Ok(admitted) => {
            request.extensions_mut().insert(admitted.owner);
            admitted.mark(next.run(request).await)
        }
        Err(refusal) => *refusal,
    }
}

impl Guard {
    /// The guard of a server with these settings.
    pub(super) fn new(settings: &ServerSettings) -> Self {
        let keys = settings.api_keys.iter();
        Self {
            address: settings.address.ip(),
            allowed_hosts: settings.allowed_hosts.clone(),
            allowed_origins: settings.allowed_origins.clone(),
            keys: keys
                .map(|key| (*blake3::hash(key.as_bytes()).as_bytes(), Owner::of_key(key)))
                .collect(),
        }
    }

    /// Lets a request pass.
    ///
    /// # Errors
    /// The answer to one that may not, or that a browser only sends to ask.
    pub(super) fn admit(&self, request: &Request) -> Result<Admitted, Box<Response>> {
        let path = request.uri().path();
        let dialect = if path.starts_with("/v1/messages") {
            Dialect::Anthropic
        } else {
            Dialect::OpenAi {
                prompt_field: "messages",
            }
        };
        let refuse = |error: RequestError| ApiError::new(dialect, error).into_response();
        let host = host_of(request);
        if !host.is_some_and(|host| self.is_known_host(&host)) {
            let error = RequestError::new(
                "the Host header names no host of this server; start it with --allow-host NAME to use another",
            );
            return Err(Box::new(refuse(error.with_status(403))));
        }
        let origin = request.headers().get(header::ORIGIN);
        let allowed = origin.filter(|origin| self.allows(origin)).cloned();
        // A page of another site: a browser sends simple requests even where it may not read the answer.
        if origin.is_some() && allowed.is_none() && !is_own(request.headers()) {
            let error = RequestError::new(
                "requests from pages of other sites are off; start the server with --allow-origin to let them",
            );
            return Err(Box::new(refuse(error.with_status(403))));
        }
        if request.method() == Method::OPTIONS {
            return Err(Box::new(preflight(request.headers(), allowed)));
        }
        let owner = if self.keys.is_empty() {
            Some(Owner::ANYBODY)
        } else {
            let holder = self.holder(request.headers());
            // What is open to all is nobody's.
            holder.or_else(|| is_open(path).then_some(Owner::ANYBODY))
        };
        let Some(owner) = owner else {
            let error = RequestError::new(
                "a valid API key is needed: send it as `Authorization: Bearer KEY` or `x-api-key: KEY`",
            )
            .with_code("invalid_api_key");
            let response = refuse(error.with_status(401));
            return Err(Box::new(with_origin(response, allowed)));
        };
        Ok(Admitted {
            owner,
            origin: allowed,
        })
    }

    fn is_known_host(&self, host: &str) -> bool {
        let own = self.address;
        let is_own_address = host.parse::<IpAddr>().is_ok_and(|address| {
            // Bound to all addresses, any address is its own; names are still checked.
            address.is_loopback() || address == own || own.is_unspecified()
        });
        is_own_address
            || host == "localhost"
            || host.ends_with(".localhost")
            || self
                .allowed_hosts
                .iter()
                .any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(host))
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.allowed_origins
            .iter()
            .any(|allowed| allowed == "*" || origin.as_bytes() == allowed.as_bytes())
    }

    /// Who holds the key that a request shows.
    fn holder(&self, headers: &HeaderMap) -> Option<Owner> {
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
        // Hashes are of one length, and all keys are compared: the time tells nothing.
        let mut found = Choice::from(0);
        let mut place = 0_u64;
        for given in [bearer, key].into_iter().flatten() {
            let given = blake3::hash(given.as_bytes());
            for (index, (hash, _)) in self.keys.iter().enumerate() {
                let fits = given.as_bytes().ct_eq(hash) & !found;
                place.conditional_assign(&(index as u64), fits);
                found |= fits;
            }
        }
        let (_, owner) = self.keys.get(usize::try_from(place).ok()?)?;
        bool::from(found).then_some(*owner)
    }
}

/// The host that the client believes to talk to, without its port; `None` if it names none, or several.
fn host_of(request: &Request) -> Option<String> {
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        // A proxy may have looked at the other one.
        return None;
    }
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
