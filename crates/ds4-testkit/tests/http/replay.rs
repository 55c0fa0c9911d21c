//! What the model sampled goes back to it, after a restart too, and to nobody else.

use std::path::Path;

use ds4_server::ServerSettings;
use ds4_testkit::scripted::Plan;
use serde_json::{Value, json};

use crate::client::Reply;
use crate::test_server::{TestServer, says, tokenizer};

/// No rendering of the parsed call gives these spaces again.
const CALL: &str = "Look  it up.</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n\
    <｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n\
    <｜DSML｜parameter name=\"days\" string=\"false\">{ \"n\" :  3 }</｜DSML｜parameter>\n\
    </｜DSML｜invoke>\n</｜DSML｜tool_calls>";
const KEYS: [&str; 2] = ["key-of-one", "key-of-two"];

fn keyed() -> ServerSettings {
    ServerSettings {
        api_keys: KEYS.map(str::to_owned).to_vec(),
        ..ServerSettings::default()
    }
}

fn start(directory: &Path, settings: ServerSettings) -> TestServer {
    let plan = Plan {
        turns: vec![says(CALL), says("Cold.</think>It is cold.")],
        max_requests: None,
    };
    TestServer::start_keeping(plan, settings, Some(directory))
}

fn post(server: &TestServer, key: &str, path: &str, body: &Value) -> Reply {
    let body = body.to_string();
    server.request("POST", path, &[("x-api-key", key)], body.as_bytes())
}

fn question() -> Value {
    json!({
        "messages": [{"role": "user", "content": "Weather in Oslo?"}],
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "object"}},
        }}}],
    })
}

/// The question, the call as a client sends it back that rewrites JSON and drops reasoning, and what
/// came out.
fn with_result(answer: &Value) -> Value {
    let mut message = answer["choices"][0]["message"].clone();
    message.as_object_mut().unwrap().remove("reasoning_content");
    message["tool_calls"][0]["function"]["arguments"] =
        Value::from(r#"{"days":{"n":3},"city":"Oslo","added":null}"#);
    let id = message["tool_calls"][0]["id"].clone();
    let mut body = question();
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(message);
    messages.push(json!({"role": "tool", "tool_call_id": id, "content": "-3"}));
    body
}

#[test]
fn a_restart_does_not_break_the_conversation() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = start(directory.path(), keyed());
    let answer = post(&before, KEYS[0], "/v1/chat/completions", &question()).json();
    assert_eq!(
        answer["choices"][0]["finish_reason"], "tool_calls",
        "{answer}"
    );
    before.wait_until_stopped();
    let mut sampled = before.service.outcomes()[0].prompt.clone();
    tokenizer().encode_with_specials(CALL, &mut sampled);
    drop(before);

    let server = start(directory.path(), keyed());
    let again = with_result(&answer);
    for (key, is_own) in [(KEYS[0], true), (KEYS[1], false)] {
        let rendered = post(&server, key, "/render", &again).json();
        let ids: Vec<u32> = serde_json::from_value(rendered["tokens"].clone()).unwrap();
        assert_eq!(ids.starts_with(&sampled), is_own, "{key}");
        let text = tokenizer().decode_lossy(&ids);
        assert_eq!(
            text.contains("Look  it up."),
            is_own,
            "hidden reasoning: {text}"
        );
    }
    // The rest of a conversation goes on the same way.
    let next = post(&server, KEYS[0], "/v1/chat/completions", &again).json();
    assert!(next["choices"][0].is_object(), "{next}");
    assert!(server.service.outcomes()[0].prompt.starts_with(&sampled));
    let sessions = server.request("GET", "/v1/sessions", &[("x-api-key", KEYS[0])], b"");
    assert_eq!(sessions.json()["replay"]["answers"], 2);
}

/// The same conversation word for word, but under another key.
#[test]
fn another_key_gets_nothing_of_a_conversation() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Plan {
        turns: vec![says("A secret thought.</think>Yes.")],
        max_requests: None,
    };
    let server = TestServer::start_keeping(plan, keyed(), Some(directory.path()));
    let mut body = question();
    post(&server, KEYS[0], "/v1/chat/completions", &body);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "Yes."}));
    messages.push(json!({"role": "user", "content": "And now?"}));
    for (key, is_own) in [(KEYS[0], true), (KEYS[1], false)] {
        let rendered = post(&server, key, "/render", &body).json();
        let ids: Vec<u32> = serde_json::from_value(rendered["tokens"].clone()).unwrap();
        let text = tokenizer().decode_lossy(&ids);
        assert_eq!(text.contains("A secret thought."), is_own, "{key}: {text}");
    }
}

#[test]
fn another_key_cannot_address_a_response() {
    let directory = tempfile::tempdir().unwrap();
    let server = start(directory.path(), keyed());
    let made = post(&server, KEYS[0], "/v1/responses", &json!({"input": "Hi"})).json();
    let id = made["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    let request = |key: &str, method: &str, path: &str| {
        server
            .request(method, path, &[("x-api-key", key)], b"")
            .status
    };
    assert_eq!(request(KEYS[1], "GET", &path), 404);
    assert_eq!(request(KEYS[1], "DELETE", &path), 404);
    assert_eq!(request(KEYS[1], "POST", &format!("{path}/cancel")), 404);
    let onward = json!({"input": "And?", "previous_response_id": id});
    assert_eq!(post(&server, KEYS[1], "/v1/responses", &onward).status, 404);
    assert_eq!(post(&server, KEYS[0], "/v1/responses", &onward).status, 200);
    assert_eq!(request(KEYS[0], "GET", &path), 200);
    assert_eq!(request(KEYS[0], "DELETE", &path), 200);
}

#[test]
fn a_key_sees_only_its_own_requests_running() {
    let turn = ds4_testkit::scripted::PlannedTurn {
        prefill_ms: 60_000,
        ..says("a</think>b")
    };
    let server = TestServer::start(vec![turn], keyed());
    let mut connection = crate::client::Connection::open(server.address);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "stream": true});
    connection.send(crate::client::request_text(
        "POST",
        "/v1/chat/completions",
        &[("x-api-key", KEYS[0])],
        body.to_string().as_bytes(),
    ));
    connection.head().unwrap();
    let running = |key: &str| {
        let reply = server.request("GET", "/v1/sessions", &[("x-api-key", key)], b"");
        reply.json()["running"].as_array().unwrap().len()
    };
    assert_eq!((running(KEYS[0]), running(KEYS[1])), (1, 0));
}
