//! What the program's request log says of a request.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::timestamp::timestamp;

/// One request when it is over. Displayed as a line of `key=value` pairs.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestReport {
    /// Its id, as in the answer's `x-request-id`.
    pub id: String,
    /// When it came.
    pub time: SystemTime,
    /// Its method.
    pub method: String,
    /// The route's pattern, or the path where there is no route.
    pub route: String,
    /// Status of the answer; 499 if the client left before its end.
    pub status: u16,
    /// From its arrival to the end of the answer.
    pub total: Duration,
    /// The model's name as the client wrote it.
    pub model: Option<String>,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// In the engine's queue.
    pub queued: Option<Duration>,
    /// From its arrival to the first token.
    pub first_token: Option<Duration>,
    /// Tokens of the prompt, if it came to that.
    pub prompt_tokens: Option<usize>,
    /// Of these, tokens found in the cache.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub generated_tokens: usize,
    /// Of these, tokens of reasoning.
    pub reasoning_tokens: usize,
    /// Why the answer ended.
    pub finish: Option<&'static str>,
    /// Why there is none.
    pub error: Option<String>,
}

impl fmt::Display for RequestReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "time={} id={} method={} route={} status={} total_ms={}",
            timestamp(self.time),
            self.id,
            self.method,
            self.route,
            self.status,
            self.total.as_millis()
        )?;
        if let Some(model) = &self.model {
            let shown: String = model.chars().take(100).collect();
            write!(f, " model={shown:?} stream={}", self.stream)?;
        }
        if let Some(queued) = self.queued {
            write!(f, " queued_ms={}", queued.as_millis())?;
        }
        if let Some(first) = self.first_token {
            write!(f, " first_token_ms={}", first.as_millis())?;
        }
        if let Some(prompt) = self.prompt_tokens {
            write!(
                f,
                " prompt_tokens={prompt} cached_tokens={} generated_tokens={} reasoning_tokens={}",
                self.cached_tokens, self.generated_tokens, self.reasoning_tokens
            )?;
        }
        if let Some(finish) = self.finish {
            write!(f, " finish={finish}")?;
        }
        if let Some(error) = &self.error {
            let shown: String = error.chars().take(300).collect();
            write!(f, " error={shown:?}")?;
        }
        Ok(())
    }
}

/// Takes the reports of requests. Called on threads that serve sockets: it must be quick.
#[derive(Clone)]
pub struct RequestLog(Arc<dyn Fn(&RequestReport) + Send + Sync>);

impl RequestLog {
    /// A log that calls `write` for each request.
    pub fn new(write: impl Fn(&RequestReport) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    pub(crate) fn write(&self, report: &RequestReport) {
        (self.0)(report);
    }
}

impl fmt::Debug for RequestLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestLog")
    }
}
