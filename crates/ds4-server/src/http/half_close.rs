//! Clients that end their side of the connection and still wait for the answer.
//!
//! A client that has left and one that only says that it sends nothing more look the same: an end
//! of the stream. What tells them apart is that the system of one that has left resets the connection when
//! more comes. So such a client is sent something that it skips, again and again, until it takes the
//! answer or the connection is reset.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::sleep;
use tower_service::Service;

use crate::observe::RequestRecord;

/// How often a client that has ended its side is asked whether it is there.
const PROBE: Duration = Duration::from_secs(1);
/// How often the system is asked for news of a connection that tells none by itself.
const POLL: Duration = Duration::from_millis(250);

/// Whether the client of a connection has ended its side of it.
#[derive(Clone, Debug)]
struct ClientSide(watch::Receiver<bool>);

impl ClientSide {
    /// Waits until it has.
    async fn ended(&mut self) {
        if self.0.wait_for(|ended| *ended).await.is_err() {
            // The connection is not watched any more: there is nobody to wait for.
            std::future::pending().await
        }
    }
}

/// Follows the client's side of a connection.
pub(super) struct ClientWatch {
    stream: Arc<TcpStream>,
    ended: watch::Sender<bool>,
}

impl ClientWatch {
    pub(super) fn new(stream: Arc<TcpStream>) -> Self {
        let ended = watch::Sender::new(false);
        Self { stream, ended }
    }

    /// Passes requests of this connection on, so that [`answer_patiently`] knows whose they are.
    pub(super) fn service(&self, router: Router) -> WatchedService {
        WatchedService {
            router,
            side: ClientSide(self.ended.subscribe()),
        }
    }

    /// Waits until the client has certainly left.
    pub(super) async fn gone(self) {
        loop {
            match self.stream.peek(&mut [0]).await {
                Ok(0) => break,
                Err(_) => return,
                // The next request waits in front of what could tell an end.
                Ok(_) => {
                    let ready = self.stream.ready(Interest::READABLE).await;
                    if ready.is_ok_and(|ready| ready.is_read_closed()) {
                        break;
                    }
                    sleep(POLL).await;
                }
            }
        }
        self.ended.send_replace(true);
        while let Ok(None) = self.stream.take_error() {
            sleep(POLL).await;
        }
    }
}

/// The routes, for the requests of one connection.
#[derive(Clone)]
pub(super) struct WatchedService {
    router: Router,
    side: ClientSide,
}

impl<B> Service<axum::http::Request<B>> for WatchedService
where
    Router: Service<axum::http::Request<B>>,
{
    type Response = <Router as Service<axum::http::Request<B>>>::Response;
    type Error = <Router as Service<axum::http::Request<B>>>::Error;
    type Future = <Router as Service<axum::http::Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<axum::http::Request<B>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: axum::http::Request<B>) -> Self::Future {
        request.extensions_mut().insert(self.side.clone());
        self.router.call(request)
    }
}

/// Answers a request; one whose client has ended its side gets signs of life with the answer.
pub(super) async fn answer_patiently(mut request: Request, next: Next) -> Response {
    let side = request.extensions_mut().remove::<ClientSide>();
    let record = request.extensions().get::<Arc<RequestRecord>>().cloned();
    let (Some(mut side), Some(record)) = (side, record) else {
        return next.run(request).await;
    };
    let mut answer = Box::pin(next.run(request));
    let answered = tokio::select! {
        biased;
        response = &mut answer => Some(response),
        () = until_probed(&mut side, &record) => None,
    };
    match answered {
        // Other answers are short, or come all at once.
        Some(response) if is_event_stream(&response) => {
            response.map(|body| probed(body, side, ": keep-alive\n\n"))
        }
        Some(response) => response,
        None => {
            // The status is told before it is known. Space before JSON means nothing.
            let whole = stream::once(answer).flat_map(|response| {
                // After the first byte there is nothing more to tell but the body.
                response.into_body().into_data_stream()
            });
            let mut response = Response::new(probed(Body::from_stream(whole), side, " "));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            );
            response
        }
    }
}

/// Waits until the client has ended its side, and the engine is working on an answer that is to come
/// in one piece: from then on there is nothing that could be refused.
async fn until_probed(side: &mut ClientSide, record: &RequestRecord) {
    side.ended().await;
    loop {
        sleep(PROBE).await;
        if record.makes_whole_answer() {
            return;
        }
    }
}

fn is_event_stream(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// A body with a sign of life in each pause, once the client has ended its side.
fn probed(body: Body, side: ClientSide, sign: &'static str) -> Body {
    let state = (body.into_data_stream(), side);
    Body::from_stream(stream::unfold(
        state,
        move |(mut body, mut side)| async move {
            let pause = async {
                side.ended().await;
                sleep(PROBE).await;
            };
            let part = tokio::select! {
                biased;
                part = body.next() => part?,
                () = pause => Ok(Bytes::from_static(sign.as_bytes())),
            };
            Some((part, (body, side)))
        },
    ))
}
