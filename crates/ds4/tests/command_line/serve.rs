//! The server as a process: its end, and what it still knows at its next start.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::program::{command, home};
use crate::test_model;

/// Far longer than anything here takes, so that a test ends.
const PATIENCE: Duration = Duration::from_secs(60);

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
/// Thinks, says "OK", and ends.
const ANSWERS: [(&str, &str); 6] = [
    ("<think>", "h"),
    ("h", "m"),
    ("m", "</think>"),
    ("</think>", "O"),
    ("O", "K"),
    ("K", "<｜end▁of▁sentence｜>"),
];
/// Never ends by itself.
const GOES_ON: [(&str, &str); 4] = [("<think>", "a"), ("</think>", "a"), ("a", "z"), ("z", "a")];

struct Server {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Server {
    fn start(home: &Path, successors: &[(&str, &str)], arguments: &[&str]) -> Self {
        let model = home.join("script.gguf");
        if !model.exists() {
            test_model::write_script(&model, successors);
        }
        let mut child = command(home)
            .args(["serve", "--port", "0", "-m"])
            .arg(model)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Self {
            child,
            stderr,
            address: String::new(),
        };
        let line = server.line_with("listening on http://");
        server.address = line.split("http://").nth(1).unwrap().trim().to_owned();
        server.line_with("ready");
        server
    }

    /// The next line on standard error that contains a text.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).unwrap();
            assert!(read > 0, "the server ended without `{text}`");
            if line.contains(text) {
                return line;
            }
        }
    }

    fn begin(&self, path: &str, body: &Value) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.to_string();
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        stream
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let (status, answer) = read_answer(self.begin(path, body));
        assert_eq!(status, "200", "{answer}");
        answer
    }

    /// Status and body.
    fn get(&self, path: &str) -> (String, Value) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        read_answer(stream)
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("kill")
            .args([name, &id])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the server does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_answer(mut stream: TcpStream) -> (String, Value) {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap();
    (status.to_owned(), serde_json::from_str(body).unwrap())
}

fn streaming(max_tokens: usize) -> Value {
    json!({
        "messages": [{"role": "user", "content": "go"}], "max_tokens": max_tokens, "stream": true,
    })
}

/// Reads until the answer has begun.
fn read_start(stream: &mut TcpStream) {
    let mut start = Vec::new();
    while !String::from_utf8_lossy(&start).contains("reasoning_content") {
        let mut bytes = [0; 1024];
        let count = stream.read(&mut bytes).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&start));
        start.extend_from_slice(&bytes[..count]);
    }
}

#[test]
fn one_interrupt_lets_the_answer_end() {
    for signal in ["-INT", "-TERM"] {
        let home = home();
        let arguments = ["--no-kv-disk", "-c", "2000"];
        let mut server = Server::start(home.path(), &GOES_ON, &arguments);
        // Seconds of work on a busy machine, far below the time that it is given.
        let mut stream = server.begin(CHAT, &streaming(150));
        read_start(&mut stream);
        let told = Instant::now();
        server.signal(signal);
        server.line_with("stopping");
        let mut rest = String::new();
        stream.read_to_string(&mut rest).unwrap();
        assert!(
            rest.contains(r#""finish_reason":"length""#),
            "{signal} after {:?}: {rest}",
            told.elapsed()
        );
        assert!(rest.contains("data: [DONE]"), "{signal}: {rest}");
        assert_eq!(server.wait().code(), Some(0), "{signal}");
    }
}

#[test]
fn a_second_interrupt_ends_at_once() {
    for signals in [["-INT", "-INT"], ["-TERM", "-INT"], ["-TERM", "-TERM"]] {
        let home = home();
        let arguments = ["--no-kv-disk", "-c", "100000"];
        let mut server = Server::start(home.path(), &GOES_ON, &arguments);
        let mut stream = server.begin(CHAT, &streaming(90_000));
        read_start(&mut stream);
        server.signal(signals[0]);
        server.line_with("stopping");
        let told = Instant::now();
        server.signal(signals[1]);
        assert_eq!(server.wait().code(), Some(130), "{signals:?}");
        // Far less than the time that running requests have otherwise.
        assert!(told.elapsed() < Duration::from_secs(15), "{signals:?}");
    }
}

/// What was sampled before the restart is in the next prompt, reasoning that the client dropped
/// included, and the KV cache on disk reaches to its last token.
#[test]
fn a_conversation_goes_on_after_a_restart() {
    let home = home();
    let tool =
        json!({"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}});
    let mut body = json!({
        "messages": [{"role": "user", "content": "Hello"}], "tools": [tool], "temperature": 0,
    });
    let mut server = Server::start(home.path(), &ANSWERS, &["-c", "8000"]);
    // A checkpoint inside the prompt, at a multiple of 1024 tokens, must not be so near that one of
    // the end gains too little. A letter is a token.
    let count = server.post("/tokenize", &body)["count"].as_u64().unwrap();
    let more = (1024 + 600 - count % 1024) as usize;
    body["messages"][0]["content"] = format!("Hello{}", "x".repeat(more)).into();
    let first = server.post(CHAT, &body);
    let message = &first["choices"][0]["message"];
    assert_eq!(message["content"], "OK", "{first}");
    assert_eq!(message["reasoning_content"], "hm");
    server.signal("-INT");
    assert_eq!(server.wait().code(), Some(0));

    let mut server = Server::start(home.path(), &ANSWERS, &["-c", "8000"]);
    let messages = body["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": "OK"}));
    messages.push(json!({"role": "user", "content": "And now?"}));
    let next = server.post(CHAT, &body);
    let tokens = |pointer: &str| first.pointer(pointer).and_then(Value::as_u64).unwrap();
    let spent = tokens("/usage/prompt_tokens") + tokens("/usage/completion_tokens");
    let cached = |answer: &Value| {
        let details = &answer["usage"]["prompt_tokens_details"];
        details["cached_tokens"].as_u64().unwrap()
    };
    // All tokens of the first prompt and answer.
    assert!(cached(&next) >= spent, "{} of {spent}", cached(&next));
    server.signal("-TERM");
    assert_eq!(server.wait().code(), Some(0));

    // It was not found by chance: without the answers the reasoning is missing.
    std::fs::remove_dir_all(home.path().join(".cache/ds4/kv/answers")).unwrap();
    let server = Server::start(home.path(), &ANSWERS, &["-c", "8000"]);
    let without = cached(&server.post(CHAT, &body));
    assert!(without < spent, "{without} of {spent}");
}

/// A stored response is there after a restart, and after a crash; what goes on from it computes nothing
/// twice.
#[test]
fn a_stored_response_goes_on_after_a_restart() {
    let home = home();
    let mut server = Server::start(home.path(), &ANSWERS, &["-c", "8000"]);
    // Reasoning stays in the prompt where tools are offered. A letter is a token, and no checkpoint
    // inside the prompt may be too near to its end.
    let tool = json!({"name": "look", "parameters": {"type": "object"}});
    let chat = json!({
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": tool}],
    });
    let count = server.post("/tokenize", &chat)["count"].as_u64().unwrap();
    let input = "x".repeat((1024 + 600 - count % 1024) as usize);
    let mut tool = tool;
    tool["type"] = "function".into();
    let ask = |input: &str, previous: &Value| {
        json!({
            "input": input, "previous_response_id": previous, "tools": [tool], "temperature": 0,
        })
    };
    let first = server.post(RESPONSES, &ask(&input, &Value::Null));
    server.signal("-INT");
    assert_eq!(server.wait().code(), Some(0));

    let mut server = Server::start(home.path(), &ANSWERS, &["-c", "8000"]);
    let stored = |response: &Value| format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
    assert_eq!(server.get(&stored(&first)).1, first);
    let next = server.post(RESPONSES, &ask("y", &first["id"]));
    let usage = |response: &Value, pointer: &str| {
        let number = response["usage"].pointer(pointer).and_then(Value::as_u64);
        number.unwrap()
    };
    let cached = usage(&next, "/input_tokens_details/cached_tokens");
    let spent = usage(&first, "/total_tokens");
    assert!(cached >= spent, "{cached} of {spent}: {next}");
    // Killed as soon as it is written.
    let deadline = Instant::now() + PATIENCE;
    while server.get("/v1/sessions").1["responses"]["disk"]["written"] != 1 {
        assert!(Instant::now() < deadline, "the response is not written");
        std::thread::sleep(Duration::from_millis(10));
    }
    server.signal("-KILL");
    server.wait();

    let server = Server::start(home.path(), &ANSWERS, &["-c", "8000"]);
    for response in [&first, &next] {
        assert_eq!(&server.get(&stored(response)).1, response);
    }
}

#[test]
fn without_a_kv_cache_on_disk_no_response_is_kept() {
    let home = home();
    let arguments = ["--no-kv-disk", "-c", "2000"];
    let mut server = Server::start(home.path(), &ANSWERS, &arguments);
    let response = server.post(RESPONSES, &json!({"input": "x"}));
    let path = format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
    assert_eq!(server.get(&path).0, "200");
    server.signal("-INT");
    assert_eq!(server.wait().code(), Some(0));
    assert!(!home.path().join(".cache/ds4/kv").exists());
    let server = Server::start(home.path(), &ANSWERS, &arguments);
    assert_eq!(server.get(&path).0, "404");
}
