//! The body of a request as JSON, within limits.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::wire::RequestError;

/// Most values of a body. A value takes some hundred bytes of memory but two of a body, so that a
/// body within its limit could take the memory of all. A prompt of a million token ids fits.
const MAX_VALUES: usize = 1_200_000;
/// From how many bytes on a body is parsed on a thread that serves no sockets.
const LONG: usize = 1 << 18;

/// Reads a JSON body of at most `limit` bytes.
///
/// # Errors
/// A body that is too long (413), too slow (408), no JSON or of too many values (400).
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
    if bytes.len() < LONG {
        return parse_body(&bytes);
    }
    match tokio::task::spawn_blocking(move || parse_body(&bytes)).await {
        Ok(parsed) => parsed,
        Err(_) => Err(RequestError::new("internal error while reading the body").with_status(500)),
    }
}

/// Reads JSON that came from outside, with bounds on its depth and its number of values.
///
/// # Errors
/// No JSON, or too many values (400).
pub fn parse_body(bytes: &[u8]) -> Result<Value, RequestError> {
    if has_more_values(bytes, MAX_VALUES) {
        return Err(RequestError::new(format!(
            "the body holds more than {MAX_VALUES} values"
        )));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| RequestError::new(format!("the body is not valid JSON: {error}")))
}

/// Whether JSON text holds more values than `limit`, by the marks before them.
fn has_more_values(json: &[u8], limit: usize) -> bool {
    // No body of this length can.
    if json.len() <= limit {
        return false;
    }
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for &byte in json {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b',' | b'[' | b'{' => count += 1,
                _ => {}
            }
        }
    }
    count > limit
}

fn too_long(limit: usize) -> RequestError {
    RequestError::new(format!("the body is longer than {limit} bytes"))
        .with_status(StatusCode::PAYLOAD_TOO_LARGE.as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_outside_of_texts() {
        let json = br#"{"a": [1, 2, {"b": "x,[{\"},{\\"}, []], "c": "\u0022,,,"}"#;
        assert!(serde_json::from_slice::<Value>(json).is_ok());
        // { [ , , { , [ ,
        assert!(has_more_values(json, 7));
        assert!(!has_more_values(json, 8));
    }
}
