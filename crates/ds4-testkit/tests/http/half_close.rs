//! Clients that end their side after the request, and still read.

use std::time::Duration;

use ds4_engine::FinishReason;
use ds4_server::ServerSettings;
use ds4_testkit::scripted::{Plan, PlannedTurn};
use serde_json::{Value, json};

use crate::client::{Connection, request_text};
use crate::test_server::{TestServer, says, shared, wait_for};

/// Longer than a client is asked whether it is there.
const SLOW_MS: u64 = 2500;

fn requests(stream: bool) -> [(&'static str, Value); 4] {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    [
        (
            "/v1/chat/completions",
            json!({"messages": messages, "stream": stream}),
        ),
        ("/v1/completions", json!({"prompt": "a", "stream": stream})),
        ("/v1/responses", json!({"input": "a", "stream": stream})),
        (
            "/v1/messages",
            json!({"max_tokens": 500, "messages": messages, "stream": stream}),
        ),
    ]
}

/// Quick answers and slow ones, whole and streamed, in every dialect, at the same time.
#[test]
fn a_client_that_sends_nothing_more_gets_its_answer() {
    let slow = PlannedTurn {
        prefill_ms: SLOW_MS,
        ..says("a</think>Hello there.")
    };
    let server = TestServer::start(vec![slow], ServerSettings::default());
    for server in [shared(), &server] {
        let mut open = Vec::new();
        for stream in [false, true] {
            for (path, body) in requests(stream) {
                let mut connection = server.begin(path, &body);
                connection.finish_sending();
                open.push((path, stream, connection));
            }
        }
        for (path, stream, mut connection) in open {
            let reply = connection.reply().unwrap_or_else(|| panic!("{path}"));
            assert_eq!(reply.status, 200, "{path}");
            assert!(reply.text().contains("there"), "{path}");
            if stream {
                assert!(reply.events().len() > 2);
            } else {
                assert!(reply.json().is_object());
            }
            assert!(connection.is_closed_by_server(), "{path}");
        }
    }
}

#[test]
fn requests_in_a_row_before_the_end_are_all_answered() {
    let mut connection = Connection::open(shared().address);
    let (path, body) = &requests(false)[0];
    let one = request_text("POST", path, &[], body.to_string().as_bytes());
    connection.send(one.repeat(3));
    connection.finish_sending();
    for _ in 0..3 {
        assert_eq!(connection.reply().unwrap().status, 200);
    }
    assert!(connection.is_closed_by_server());
}

/// What is refused is refused with its status, and a failure is told.
#[test]
fn errors_reach_a_client_that_sends_nothing_more() {
    let mut connection = shared().begin("/v1/chat/completions", &json!({"messages": 1}));
    connection.finish_sending();
    assert_eq!(connection.reply().unwrap().status, 400);
    let broken = PlannedTurn {
        prefill_ms: SLOW_MS,
        error: Some("the device is gone".to_owned()),
        ..says("a")
    };
    let server = TestServer::start(vec![broken], ServerSettings::default());
    let (path, body) = &requests(false)[0];
    let mut connection = server.begin(path, body);
    connection.finish_sending();
    let reply = connection.reply().unwrap();
    let message = reply.json()["error"]["message"].to_string();
    assert!(message.contains("the device is gone"), "{message}");
}

/// Ending its side and then leaving: the work is cancelled all the same.
#[test]
fn a_client_that_leaves_after_it_ended_its_side_cancels() {
    let slow = PlannedTurn {
        prefill_ms: 60_000,
        ..says("a</think>b")
    };
    let plan = Plan {
        turns: vec![slow],
        max_requests: None,
    };
    let server = TestServer::start_plan(plan, ServerSettings::default());
    let mut open = Vec::new();
    for stream in [false, true] {
        for (path, body) in requests(stream) {
            let mut connection = server.begin(path, &body);
            connection.finish_sending();
            open.push(connection);
        }
    }
    wait_for("the start of all", || {
        server.service.running() == open.len()
    });
    std::thread::sleep(Duration::from_millis(SLOW_MS));
    assert_eq!(server.service.running(), open.len(), "they still wait");
    let count = open.len();
    drop(open);
    wait_for("the cancel of all", || {
        server.service.outcomes().len() == count
    });
    for outcome in server.service.outcomes() {
        assert_eq!(outcome.reason, FinishReason::Cancelled);
    }
}
