//! The body of a request as JSON, within limits.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::wire::RequestError;

/// Reads a JSON body of at most `limit` bytes.
///
/// # Errors
/// A body that is too long (413), too slow (408) or no JSON (400).
pub(crate) async fn read_json(
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    timeout: Duration,
) -> Result<Value, RequestError> {
    if let Some(length) = headers.get(header::CONTENT_LENGTH) {
        let length = length
            .to_str()
            .ok()
            .and_then(|text| text.parse::<u64>().ok());
        if length.is_some_and(|length| length > limit as u64) {
            return Err(too_long(limit));
        }
    }
    let bytes = match tokio::time::timeout(timeout, to_bytes(body, limit)).await {
        Err(_) => {
            return Err(RequestError::new(format!(
                "the body did not arrive within {} s",
                timeout.as_secs()
            ))
            .with_status(StatusCode::REQUEST_TIMEOUT.as_u16()));
        }
        Ok(Err(error)) => {
            let mut source: Option<&dyn std::error::Error> = Some(&error);
            while let Some(error) = source {
                if error.is::<http_body_util::LengthLimitError>() {
                    return Err(too_long(limit));
                }
                source = error.source();
            }
            return Err(RequestError::new(format!(
                "the body could not be read: {error}"
            )));
        }
        Ok(Ok(bytes)) => bytes,
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| RequestError::new(format!("the body is not valid JSON: {error}")))
}

fn too_long(limit: usize) -> RequestError {
    RequestError::new(format!("the body is longer than {limit} bytes"))
        .with_status(StatusCode::PAYLOAD_TOO_LARGE.as_u16())
}
