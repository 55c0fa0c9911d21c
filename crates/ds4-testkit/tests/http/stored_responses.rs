//! Responses that clients can ask for again, over restarts of the server.

use std::fs;
use std::path::{Path, PathBuf};

use ds4_server::ServerSettings;
use ds4_testkit::scripted::Plan;
use serde_json::{Value, json};

use crate::client::Reply;
use crate::test_server::{TestServer, says, tokenizer, wait_for};

const SAID: &str = "Let  me think.</think>Hello there.";
const KEYS: [&str; 2] = ["key-of-one", "key-of-two"];
const PATH: &str = "/v1/responses";

fn start(directory: &Path) -> TestServer {
    let plan = Plan {
        turns: vec![says(SAID)],
        max_requests: None,
    };
    let settings = ServerSettings {
        api_keys: KEYS.map(str::to_owned).to_vec(),
        ..ServerSettings::default()
    };
    TestServer::start_keeping(plan, settings, Some(directory))
}

fn ask(server: &TestServer, key: &str, method: &str, path: &str, body: &Value) -> Reply {
    let body = body.to_string();
    let body = if method == "POST" {
        body.as_bytes()
    } else {
        b""
    };
    server.request(method, path, &[("x-api-key", key)], body)
}

fn create(server: &TestServer, body: &Value) -> Value {
    let reply = ask(server, KEYS[0], "POST", PATH, body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()
}

fn status(server: &TestServer, key: &str, method: &str, id: &str) -> u16 {
    ask(server, key, method, &format!("{PATH}/{id}"), &Value::Null).status
}

/// With tools all reasoning stays in the prompt.
fn with_tools(mut body: Value) -> Value {
    body["tools"] = json!([{"type": "function", "name": "look", "parameters": {"type": "object"}}]);
    body
}

fn id(response: &Value) -> &str {
    response["id"].as_str().unwrap()
}

/// The files of responses, oldest first.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.join("responses")).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_stored_response_is_there_after_a_restart_and_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = start(directory.path());
    let first = create(&before, &with_tools(json!({"input": "Hi"})));
    let next = json!({"input": "And?", "previous_response_id": id(&first), "stream": true});
    let next = with_tools(next);
    let streamed = ask(&before, KEYS[0], "POST", PATH, &next).events();
    let second = streamed.last().unwrap().json()["response"].clone();
    let unstored = create(&before, &json!({"input": "Hi", "store": false}));
    before.wait_until_stopped();
    let mut sampled = before.service.outcomes()[1].prompt.clone();
    tokenizer().encode_with_specials(SAID, &mut sampled);
    drop(before);
    assert_eq!(files(directory.path()).len(), 2);

    let server = start(directory.path());
    for response in [&first, &second] {
        let path = format!("{PATH}/{}", id(response));
        let found = ask(&server, KEYS[0], "GET", &path, &Value::Null);
        assert_eq!(found.text(), response.to_string(), "to the last byte");
    }
    assert_eq!(status(&server, KEYS[0], "GET", id(&unstored)), 404);
    let next = json!({"input": "And now?", "previous_response_id": id(&second)});
    let third = create(&server, &with_tools(next));
    // Everything before is what it was, the model's own words to the token.
    let prompt = server.service.outcomes()[0].prompt.clone();
    assert!(prompt.starts_with(&sampled));
    let next = json!({"input": "Well?", "previous_response_id": id(&third)});
    let fourth = create(&server, &with_tools(next));
    let usage = |response: &Value, pointer: &str| {
        let number = response["usage"].pointer(pointer).and_then(Value::as_u64);
        number.unwrap()
    };
    assert_eq!(
        usage(&fourth, "/input_tokens_details/cached_tokens"),
        usage(&third, "/total_tokens")
    );
    let sessions = ask(&server, KEYS[0], "GET", "/v1/sessions", &Value::Null).json();
    assert_eq!(sessions["responses"]["stored"], 4, "{sessions}");
    assert_eq!(sessions["responses"]["disk"]["lost"], 0);
}

#[test]
fn another_key_finds_nothing_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let response = create(&start(directory.path()), &json!({"input": "Hi"}));
    let server = start(directory.path());
    let onward = json!({"input": "And?", "previous_response_id": id(&response)});
    for (key, expected) in [(KEYS[1], 404), (KEYS[0], 200)] {
        assert_eq!(status(&server, key, "GET", id(&response)), expected);
        assert_eq!(ask(&server, key, "POST", PATH, &onward).status, expected);
        let path = format!("{PATH}/{}/cancel", id(&response));
        assert_eq!(
            ask(&server, key, "POST", &path, &json!({})).status,
            expected
        );
        assert_eq!(status(&server, key, "DELETE", id(&response)), expected);
    }
}

#[test]
fn a_deleted_response_has_no_file_and_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let (kept, gone) = {
        let server = start(directory.path());
        let kept = create(&server, &json!({"input": "Hi"}));
        let gone = create(&server, &json!({"input": "A secret"}));
        // Whether it is written by now or not.
        assert_eq!(status(&server, KEYS[0], "DELETE", id(&gone)), 200);
        wait_for("writing", || files(directory.path()).len() == 1);
        (kept, gone)
    };
    let server = start(directory.path());
    assert_eq!(status(&server, KEYS[0], "GET", id(&gone)), 404);
    assert_eq!(status(&server, KEYS[0], "DELETE", id(&gone)), 404);
    assert_eq!(status(&server, KEYS[0], "DELETE", id(&kept)), 200);
    assert!(files(directory.path()).is_empty());
    drop(server);
    let server = start(directory.path());
    assert_eq!(status(&server, KEYS[0], "GET", id(&kept)), 404);
}

#[test]
fn a_response_whose_file_cannot_be_removed_is_not_called_deleted() {
    let directory = tempfile::tempdir().unwrap();
    let response = create(&start(directory.path()), &json!({"input": "Hi"}));
    let server = start(directory.path());
    let file = files(directory.path()).remove(0);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::write(file.join("x"), "in the way").unwrap();
    let path = format!("{PATH}/{}", id(&response));
    let reply = ask(&server, KEYS[0], "DELETE", &path, &Value::Null);
    assert_eq!(reply.status, 500);
    let message = reply.json()["error"]["message"].to_string();
    assert!(message.contains("could not be removed"), "{message}");
    assert_eq!(status(&server, KEYS[0], "GET", id(&response)), 404);
}

#[test]
fn damaged_and_foreign_files_are_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    let all: Vec<Value> = {
        let server = start(directory.path());
        let asked = ["one", "two", "three", "four"];
        let asked = asked.map(|input| create(&server, &json!({"input": input})));
        asked.into()
    };
    let names = files(directory.path());
    let mut bytes = fs::read(&names[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&names[0], bytes).unwrap();
    let bytes = fs::read(&names[1]).unwrap();
    fs::write(&names[1], &bytes[..100]).unwrap();
    fs::write(&names[2], "something else").unwrap();
    fs::write(names[0].with_file_name("notes.txt"), "mine").unwrap();
    let server = start(directory.path());
    let found: Vec<u16> = all
        .iter()
        .map(|response| status(&server, KEYS[0], "GET", id(response)))
        .collect();
    assert_eq!(found, [404, 404, 404, 200]);
    create(&server, &json!({"input": "It goes on"}));
}

#[test]
fn the_oldest_responses_make_room() {
    let directory = tempfile::tempdir().unwrap();
    // The directory of the test servers holds 1 MiB.
    let input = "internationalization ".repeat(1500);
    let count = 60;
    let all: Vec<Value> = {
        let server = start(directory.path());
        let one = |n: usize| create(&server, &json!({"input": format!("{n} {input}")}));
        (0..count).map(one).collect()
    };
    let lengths = files(directory.path()).into_iter();
    let bytes: u64 = lengths.map(|file| file.metadata().unwrap().len()).sum();
    assert!(bytes <= 1 << 20, "{bytes}");
    let server = start(directory.path());
    let found: Vec<bool> = all
        .iter()
        .map(|response| status(&server, KEYS[0], "GET", id(response)) == 200)
        .collect();
    let first = found.iter().position(|&found| found).unwrap();
    assert!(found[first..].iter().all(|&found| found), "{found:?}");
    assert!(first > 0 && count - first > 10, "{found:?}");
}
