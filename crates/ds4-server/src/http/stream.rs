//! Server-sent events of a running turn, with signs of life.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::Response;
use futures_util::stream;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::inference::RunningTurn;
use crate::turn::TurnEvent;

/// How a dialect writes a turn.
pub(crate) trait EventWriter: Send + 'static {
    /// What comes before everything else.
    fn start(&mut self, turn: &RunningTurn, out: &mut EventText);
    /// What an event looks like.
    fn event(&mut self, event: &TurnEvent, turn: &RunningTurn, out: &mut EventText);
    /// What is sent when there is nothing to say.
    fn sign_of_life(&mut self, out: &mut EventText);
    /// Called once after the last event.
    fn end(&mut self, turn: &RunningTurn, out: &mut EventText);
}

/// Text of events in the making.
#[derive(Debug, Default)]
pub(crate) struct EventText(String);

impl EventText {
    /// An event without a name.
    pub(crate) fn data(&mut self, data: &Value) {
        self.0.push_str("data: ");
        self.0.push_str(&data.to_string());
        self.0.push_str("\n\n");
    }

    /// An event named by its `type`.
    pub(crate) fn named(&mut self, data: &Value) {
        if let Some(kind) = data["type"].as_str() {
            self.0.push_str("event: ");
            self.0.push_str(kind);
            self.0.push('\n');
        }
        self.data(data);
    }

    /// A line as it is.
    pub(crate) fn raw(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push_str("\n\n");
    }

    /// A comment, which clients skip.
    pub(crate) fn comment(&mut self, text: &str) {
        self.0.push_str(": ");
        self.raw(text);
    }
}

enum Stage {
    Start,
    Running,
    Done,
}

/// The answer that streams `turn`. Dropping it, as the server does when the client is gone, cancels
/// the turn.
pub(crate) fn stream_turn(
    turn: RunningTurn,
    writer: impl EventWriter,
    keep_alive: Duration,
) -> Response {
    let state = (turn, writer, Stage::Start);
    let events = stream::unfold(state, move |(mut turn, mut writer, stage)| async move {
        let mut out = EventText::default();
        let next = match stage {
            Stage::Done => return None,
            Stage::Start => {
                writer.start(&turn, &mut out);
                Stage::Running
            }
            Stage::Running => {
                // Progress that shows nothing is silence: the deadline stays.
                let deadline = Instant::now() + keep_alive;
                loop {
                    match timeout_at(deadline, turn.next()).await {
                        Ok(Some(event)) => {
                            writer.event(&event, &turn, &mut out);
                            if !out.0.is_empty() {
                                break Stage::Running;
                            }
                        }
                        Ok(None) => {
                            writer.end(&turn, &mut out);
                            break Stage::Done;
                        }
                        Err(_) => {
                            writer.sign_of_life(&mut out);
                            break Stage::Running;
                        }
                    }
                }
            }
        };
        Some((
            Ok::<_, Infallible>(Bytes::from(out.0)),
            (turn, writer, next),
        ))
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // Proxies that gather the answer would defeat the stream.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}
