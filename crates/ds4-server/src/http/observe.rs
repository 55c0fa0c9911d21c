//! Around every request: its id, its record, and the moment when its answer has left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use http_body::{Frame, SizeHint};

use super::error::ErrorText;
use crate::observe::{CLIENT_LEFT, Metrics, RequestLog, RequestRecord, Trace};

/// Where what is observed goes.
#[derive(Clone, Debug)]
pub(super) struct Observer {
    pub(super) metrics: Arc<Metrics>,
    pub(super) log: Option<RequestLog>,
    pub(super) trace: Option<Arc<Trace>>,
}

/// Gives a request its record, and its answer the id.
pub(super) async fn observe(
    State(observer): State<Observer>,
    mut request: Request,
    next: Next,
) -> Response {
    let record = Arc::new(RequestRecord::new(
        request.method(),
        request.uri(),
        request.headers(),
        Arc::clone(&observer.metrics),
        observer.trace.as_ref(),
    ));
    let mut ending = Ending {
        record: Arc::clone(&record),
        log: observer.log,
        status: CLIENT_LEFT,
    };
    let is_head = request.method() == Method::HEAD;
    let is_anthropic = request.uri().path().starts_with("/v1/messages");
    request.extensions_mut().insert(Arc::clone(&record));
    let mut response = next.run(request).await;
    if let Some(ErrorText(text)) = response.extensions_mut().remove() {
        record.failed(&text);
    }
    if let Ok(id) = HeaderValue::from_str(record.id()) {
        // Each API's SDK reads it under its own name.
        if is_anthropic {
            response.headers_mut().insert("request-id", id.clone());
        }
        response.headers_mut().insert("x-request-id", id);
    }
    let status = response.status().as_u16();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    record.answered(status, content_type.and_then(|value| value.to_str().ok()));
    response.map(|body| {
        if is_head || body.is_end_stream() {
            ending.status = status;
        }
        Body::new(ObservedBody {
            body,
            status,
            ending,
        })
    })
}

/// Ends the record when the answer has left, or will not be wanted any more.
struct Ending {
    record: Arc<RequestRecord>,
    log: Option<RequestLog>,
    /// That the client left, until it is known that it did not.
    status: u16,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.record.end(self.status, self.log.as_ref());
    }
}

/// An answer on its way.
struct ObservedBody {
    body: Body,
    status: u16,
    ending: Ending,
}

impl HttpBody for ObservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(frame) = &polled {
            if let Some(Ok(frame)) = frame
                && let Some(bytes) = frame.data_ref()
            {
                self.ending.record.sent(bytes);
            }
            // A body of known length is not asked again after its end.
            if frame.is_none() || self.body.is_end_stream() {
                self.ending.status = self.status;
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
