//! Streams over time: signs of life, clients that leave, many at once.

use std::time::{Duration, Instant};

use ds4_engine::FinishReason;
use ds4_server::ServerSettings;
use ds4_testkit::scripted::{Plan, PlannedTurn};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::test_server::{TestServer, says, wait_for};

fn slow(text: &str, prefill_ms: u64, token_delay_ms: u64) -> PlannedTurn {
    PlannedTurn {
        text: text.to_owned(),
        token_delay_ms,
        prefill_ms,
        ..PlannedTurn::default()
    }
}

fn lively() -> ServerSettings {
    ServerSettings {
        keep_alive: Duration::from_millis(100),
        ..ServerSettings::default()
    }
}

fn chat(stream: bool) -> Value {
    json!({"messages": [{"role": "user", "content": "Hi"}], "stream": stream})
}

fn messages(stream: bool) -> Value {
    json!({"max_tokens": 500, "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
}

#[test]
fn a_long_prefill_is_no_silence() {
    let server = TestServer::start(vec![slow("a</think>b", 1500, 0)], lively());
    for (path, body) in [
        ("/v1/chat/completions", chat(true)),
        ("/v1/completions", json!({"prompt": "a", "stream": true})),
        ("/v1/responses", json!({"input": "a", "stream": true})),
        ("/v1/messages", messages(true)),
    ] {
        let started = Instant::now();
        let mut connection = server.begin(path, &body);
        let head = connection.head().unwrap();
        assert_eq!(head.status, 200);
        let first = connection.chunk().unwrap();
        assert!(!first.is_empty());
        assert!(
            started.elapsed() < Duration::from_millis(1400),
            "{path}: the head waited for the prefill"
        );
        let (mut alive, mut all) = (0, first);
        while let Some(chunk) = connection.chunk() {
            let text = String::from_utf8(chunk.clone()).unwrap();
            let sign = match path {
                "/v1/messages" => text == "event: ping\ndata: {\"type\":\"ping\"}\n\n",
                _ => text == ": keep-alive\n\n",
            };
            alive += usize::from(sign);
            all.extend(chunk);
        }
        // 1.5 s in silences of at most 0.1 s; a busy machine may lose some.
        assert!(alive >= 4, "{path}: {alive} signs of life");
        let all = String::from_utf8(all).unwrap();
        let end = match path {
            "/v1/messages" => "event: message_stop",
            "/v1/responses" => "event: response.completed",
            _ => "data: [DONE]",
        };
        assert!(all.contains(end), "{path}: {all}");
    }
}

#[test]
fn deltas_come_while_tokens_are_made() {
    let text = format!("t</think>{}", "one two three four ".repeat(10));
    let server = TestServer::start(vec![slow(&text, 0, 30)], lively());
    let mut connection = server.begin("/v1/chat/completions", &chat(true));
    connection.head().unwrap();
    while let Some(chunk) = connection.chunk() {
        if String::from_utf8(chunk).unwrap().contains("one") {
            break;
        }
    }
    assert!(
        server.service.outcomes().is_empty(),
        "the first word came while the rest was not made"
    );
}

/// A client that leaves frees the engine, whatever phase its request is in.
#[test]
fn a_client_that_leaves_cancels() {
    let long = "word ".repeat(3000);
    let turns = vec![
        slow(&format!("a</think>{long}"), 60_000, 5),
        slow(&format!("a</think>{long}"), 60_000, 5),
        slow(&format!("a</think>{long}"), 0, 20),
        slow(&format!("a</think>{long}"), 0, 20),
        slow(&format!("a</think>{long}"), 0, 20),
    ];
    let server = TestServer::start(turns, lively());
    let mut ended = 0;
    let mut left = |what: &str, connection: Connection| {
        wait_for("the start of the turn", || {
            server.service.running() == 1 || server.service.outcomes().len() > ended
        });
        drop(connection);
        ended += 1;
        wait_for(what, || server.service.outcomes().len() == ended);
        let outcomes = server.service.outcomes();
        let last = outcomes.last().unwrap();
        assert_eq!(last.reason, FinishReason::Cancelled, "{what}");
        assert!(last.generated < 1000, "{what}");
    };
    left(
        "cancel in the prefill of a whole answer",
        server.begin("/v1/chat/completions", &chat(false)),
    );
    let mut connection = server.begin("/v1/messages", &messages(true));
    connection.head().unwrap();
    left("cancel in the prefill of a stream", connection);
    let mut connection = server.begin("/v1/chat/completions", &chat(true));
    connection.head().unwrap();
    for _ in 0..5 {
        connection.chunk().unwrap();
    }
    left("cancel in the middle of a stream", connection);
    left(
        "cancel in the middle of a whole answer",
        server.begin("/v1/messages", &messages(false)),
    );
    let body = json!({"input": "Hi", "stream": true});
    let mut connection = server.begin("/v1/responses", &body);
    connection.head().unwrap();
    connection.chunk().unwrap();
    left("cancel of a response", connection);
    assert_eq!(server.service.running(), 0);
}

/// Leaving before there is anything to cancel.
#[test]
fn a_client_that_leaves_early_starts_nothing() {
    let server = TestServer::start(vec![says("a</think>b")], lively());
    let body = chat(false).to_string();
    let text = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    for cut in [0, 1, 20, 60, text.len() - body.len(), text.len() - 1] {
        let mut connection = Connection::open(server.address);
        connection.send(&text[..cut]);
        drop(connection);
    }
    assert_eq!(server.get("/health").status, 200);
    assert_eq!(server.service.running(), 0);
    assert!(server.service.outcomes().is_empty());
}

#[test]
fn a_response_can_be_cancelled_by_its_id() {
    let long = slow(&format!("a</think>{}", "word ".repeat(3000)), 0, 20);
    let server = TestServer::start(vec![long], lively());
    let body = json!({"input": "Hi", "stream": true});
    let mut connection = server.begin("/v1/responses", &body);
    connection.head().unwrap();
    let first = String::from_utf8(connection.chunk().unwrap()).unwrap();
    let data = first.lines().find_map(|line| line.strip_prefix("data: "));
    let created: Value = serde_json::from_str(data.unwrap()).unwrap();
    let id = created["response"]["id"].as_str().unwrap();
    let reply = server.post(&format!("/v1/responses/{id}/cancel"), &json!({}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.json()["status"], "cancelled");
    let mut all = String::new();
    while let Some(chunk) = connection.chunk() {
        all.push_str(&String::from_utf8(chunk).unwrap());
    }
    assert_eq!(server.service.outcomes()[0].reason, FinishReason::Cancelled);
}

#[test]
fn a_full_queue_is_told_with_a_time() {
    let plan = Plan {
        turns: vec![slow("a</think>b", 60_000, 0)],
        max_requests: Some(1),
    };
    let server = TestServer::start_plan(plan, lively());
    let first = server.begin("/v1/chat/completions", &chat(true));
    wait_for("the first request", || server.service.running() == 1);
    let reply = server.post("/v1/chat/completions", &chat(false));
    assert_eq!(reply.status, 429);
    assert_eq!(reply.header("retry-after"), Some("2"), "rounded up");
    assert_eq!(reply.json()["error"]["code"], "rate_limit_exceeded");
    let reply = server.post("/v1/messages", &messages(true));
    assert_eq!(reply.status, 429, "before the first byte of the stream");
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    drop(first);
    wait_for("the place of who left", || server.service.running() == 0);
}

#[test]
fn many_stream_at_once_and_none_gets_anothers_text() {
    let turns: Vec<PlannedTurn> = (0..24)
        .map(|n| {
            slow(
                &format!("t{n}</think>{}", format!("n{n} ").repeat(40)),
                20,
                2,
            )
        })
        .collect();
    let server = TestServer::start(turns, lively());
    let texts: Vec<String> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..24)
            .map(|_| {
                scope.spawn(|| {
                    let reply = server.post("/v1/chat/completions", &chat(true));
                    let events = reply.events();
                    events
                        .iter()
                        .filter(|event| event.data.as_deref().is_some_and(|data| data != "[DONE]"))
                        .filter_map(|event| {
                            event.json()["choices"][0]["delta"]["content"]
                                .as_str()
                                .map(str::to_owned)
                        })
                        .collect::<String>()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect()
    });
    let mut seen: Vec<&str> = texts
        .iter()
        .map(|text| {
            let words: Vec<&str> = text.split_whitespace().collect();
            assert_eq!(words.len(), 40);
            assert!(words.iter().all(|word| *word == words[0]), "{text}");
            words[0]
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 24);
}

#[test]
fn a_failure_after_the_first_byte_is_an_event_of_the_api() {
    let turn = PlannedTurn {
        error: Some("a kernel broke".to_owned()),
        ..says("a</think>half an ans")
    };
    let server = TestServer::start(vec![turn], lively());
    let events = server.post("/v1/chat/completions", &chat(true)).events();
    let error = events[events.len() - 2].json();
    let message = error["error"]["message"].as_str().unwrap();
    assert!(message.contains("a kernel broke"), "{message}");
    assert_eq!(events.last().unwrap().data.as_deref(), Some("[DONE]"));
    let events = server.post("/v1/messages", &messages(true)).events();
    let last = events.last().unwrap();
    assert_eq!(last.name.as_deref(), Some("error"));
    assert_eq!(last.json()["type"], "error");
    assert_eq!(last.json()["error"]["type"], "api_error");
    let body = json!({"input": "Hi", "stream": true});
    let events = server.post("/v1/responses", &body).events();
    let last = events.last().unwrap();
    assert_eq!(last.name.as_deref(), Some("response.failed"));
    assert_eq!(last.json()["response"]["status"], "failed");
    // Whole answers have a status to tell it.
    for (path, body) in [
        ("/v1/chat/completions", chat(false)),
        ("/v1/completions", json!({"prompt": "a"})),
        ("/v1/responses", json!({"input": "a"})),
        ("/v1/messages", messages(false)),
    ] {
        let reply = server.post(path, &body);
        assert_eq!(reply.status, 500, "{path}: {}", reply.text());
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains("a kernel broke"), "{path}: {message}");
    }
    assert_eq!(server.service.running(), 0);
}
