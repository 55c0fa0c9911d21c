//! The id in the path of a request.

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;

use super::error::{ApiError, Dialect};
use crate::wire::RequestError;

/// What a path names; refused as JSON, like everything else, if it is no text.
pub(super) struct PathId(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for PathId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(id)) => Ok(Self(id)),
            Err(_) => {
                let dialect = Dialect::OpenAi {
                    prompt_field: "messages",
                };
                let error = RequestError::new("the id in the path is not UTF-8");
                Err(ApiError::new(dialect, error))
            }
        }
    }
}
