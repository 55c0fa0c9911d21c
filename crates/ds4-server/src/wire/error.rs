//! Why a request is refused.

use thiserror::Error;

/// A request that cannot be served as it is. Each dialect writes it in its own shape.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct RequestError {
    /// HTTP status.
    pub status: u16,
    /// What is wrong and, where it is not obvious, what to do.
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// A word for programs.
    pub code: Option<&'static str>,
}

impl RequestError {
    /// A bad request as a whole.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            status: 400,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A bad field.
    pub(crate) fn field(param: &str, message: impl Into<String>) -> Self {
        Self {
            param: Some(param.to_owned()),
            ..Self::new(message)
        }
    }

    /// A field that means something we do not do; refused by name, never ignored.
    pub(crate) fn unsupported(param: &str, why: &str) -> Self {
        Self {
            code: Some("unsupported_parameter"),
            ..Self::field(param, format!("Unsupported parameter: '{param}': {why}"))
        }
    }

    pub(crate) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    pub(crate) fn with_code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }
}
