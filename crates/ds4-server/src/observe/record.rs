//! What is known of a request while it runs.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::metrics::{Metrics, RequestKey};
use super::report::{RequestLog, RequestReport};
use super::trace::{RequestTrace, Trace, fields};
use crate::turn::{FinishReason, Usage};

/// The status of a request whose client left before the end of the answer, as proxies log it.
pub(crate) const CLIENT_LEFT: u16 = 499;

/// Follows one request from its arrival to the end of its answer.
#[derive(Debug)]
pub(crate) struct RequestRecord {
    id: String,
    method: Method,
    path: String,
    time: SystemTime,
    started: Instant,
    metrics: Arc<Metrics>,
    trace: Option<RequestTrace>,
    figures: Mutex<Figures>,
}

#[derive(Debug, Default)]
struct Figures {
    route: Option<String>,
    model: Option<String>,
    stream: bool,
    queued: Option<Duration>,
    first_token: Option<Duration>,
    last_token: Option<Instant>,
    prompt: Option<usize>,
    usage: Usage,
    finish: Option<&'static str>,
    error: Option<String>,
}

impl RequestRecord {
    /// The record of a request that has just come.
    pub(crate) fn new(
        method: &Method,
        uri: &axum::http::Uri,
        headers: &HeaderMap,
        metrics: Arc<Metrics>,
        trace: Option<&Arc<Trace>>,
    ) -> Self {
        let id = format!("req_{:016x}", crate::random_bits());
        let time = SystemTime::now();
        let trace = trace.and_then(|trace| trace.request(&id, time));
        if let Some(trace) = &trace {
            trace.head(method.as_str(), &uri.to_string(), headers);
        }
        metrics.in_flight.fetch_add(1, Ordering::Relaxed);
        Self {
            id,
            method: method.clone(),
            path: uri.path().to_owned(),
            time,
            started: Instant::now(),
            metrics,
            trace,
            figures: Mutex::default(),
        }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request belongs to this route.
    pub(crate) fn route(&self, pattern: &str) {
        self.figures().route = Some(pattern.to_owned());
    }

    /// The body that came.
    pub(crate) fn body(&self, body: &Value) {
        if let Some(trace) = &self.trace {
            trace.write("body", fields(json!({"body": body})));
        }
    }

    /// What the client asks for.
    pub(crate) fn asked(&self, model: &str, stream: bool) {
        let mut figures = self.figures();
        figures.model = Some(model.to_owned());
        figures.stream = stream;
    }

    /// Whether the engine works on an answer that is not streamed.
    pub(crate) fn makes_whole_answer(&self) -> bool {
        let figures = self.figures();
        figures.prompt.is_some() && !figures.stream
    }

    /// Whether texts are wanted.
    pub(crate) fn is_traced(&self) -> bool {
        self.trace.is_some()
    }

    /// The prompt went to the engine; `text` is called if it is traced.
    pub(crate) fn prompt(&self, tokens: usize, text: impl FnOnce() -> String) {
        self.figures().prompt = Some(tokens);
        if let Some(trace) = &self.trace {
            trace.write("prompt", fields(json!({"tokens": tokens, "text": text()})));
        }
    }

    /// A token was sampled.
    pub(crate) fn token(&self) {
        let now = Instant::now();
        let mut figures = self.figures();
        match figures.last_token.replace(now) {
            Some(last) => self.metrics.inter_token.add(now - last),
            None => {
                let waited = now - self.started;
                figures.first_token = Some(waited);
                self.metrics.first_token.add(waited);
            }
        }
    }

    /// The engine has finished.
    pub(crate) fn queued(&self, queued: Duration) {
        self.figures().queued = Some(queued);
        self.metrics.queue.add(queued);
    }

    /// The answer is over, or as far as it came.
    pub(crate) fn generated(
        &self,
        usage: Usage,
        reason: Option<&FinishReason>,
        text: impl FnOnce() -> String,
    ) {
        let reason = reason.map(|reason| match reason {
            FinishReason::Stop => "stop",
            FinishReason::StopSequence(_) => "stop_sequence",
            FinishReason::Length => "length",
            FinishReason::ToolCalls => "tool_calls",
            FinishReason::Cancelled => "cancelled",
        });
        let mut figures = self.figures();
        figures.usage = usage;
        figures.finish = reason;
        drop(figures);
        self.metrics.generation.add(self.started.elapsed());
        if let Some(trace) = &self.trace {
            trace.write(
                "generated",
                fields(json!({
                    "text": text(), "finish": reason, "cached_tokens": usage.cached,
                    "generated_tokens": usage.completion,
                })),
            );
        }
    }

    /// The turn failed, or the request was refused.
    pub(crate) fn failed(&self, message: &str) {
        self.figures().error = Some(message.to_owned());
    }

    /// The head of the answer.
    pub(crate) fn answered(&self, status: u16, content_type: Option<&str>) {
        if let Some(trace) = &self.trace {
            trace.write(
                "answer",
                fields(json!({"status": status, "content_type": content_type})),
            );
        }
    }

    /// A part of the answer as it is sent.
    pub(crate) fn sent(&self, bytes: &[u8]) {
        if let Some(trace) = &self.trace {
            let text = String::from_utf8_lossy(bytes);
            trace.write("sent", fields(json!({"text": text})));
        }
    }

    /// The request is over. To be called once.
    pub(crate) fn end(&self, status: u16, log: Option<&RequestLog>) {
        self.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        let figures = self.figures();
        self.metrics.answered(RequestKey {
            route: figures.route.clone().unwrap_or_else(|| "other".to_owned()),
            method: known_method(&self.method),
            status,
        });
        let report = RequestReport {
            id: self.id.clone(),
            time: self.time,
            method: known_method(&self.method).to_owned(),
            route: match &figures.route {
                Some(route) => route.clone(),
                // Others' text in a log: no control characters, and not much of it.
                None => self
                    .path
                    .chars()
                    .take(100)
                    .flat_map(char::escape_default)
                    .collect(),
            },
            status,
            total: self.started.elapsed(),
            model: figures.model.clone(),
            stream: figures.stream,
            queued: figures.queued,
            first_token: figures.first_token,
            prompt_tokens: figures.prompt,
            cached_tokens: figures.usage.cached,
            generated_tokens: figures.usage.completion,
            reasoning_tokens: figures.usage.reasoning,
            finish: figures.finish,
            error: figures.error.clone(),
        };
        drop(figures);
        if let Some(trace) = &self.trace {
            trace.write("end", fields(json!({"report": report.to_string()})));
        }
        if let Some(log) = log {
            log.write(&report);
        }
    }
}

/// The method, if it is one of those that exist here.
fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
