//! Start, many connections, and the end.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ds4_engine::FinishReason;
use ds4_server::ServerSettings;
use ds4_testkit::scripted::PlannedTurn;
use serde_json::json;

use crate::client::{Connection, exchange, request_text};
use crate::test_server::{TestServer, wait_for};

fn slow(tokens: usize, token_delay_ms: u64) -> PlannedTurn {
    PlannedTurn {
        text: format!("a</think>{}", "word ".repeat(tokens)),
        token_delay_ms,
        ..PlannedTurn::default()
    }
}

fn hi() -> serde_json::Value {
    json!({"messages": [{"role": "user", "content": "Hi"}], "stream": true})
}

#[test]
fn before_the_model_is_loaded_clients_are_told_how_far_it_is() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let settings = ServerSettings {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        api_keys: vec!["key".to_owned()],
        ..ServerSettings::default()
    };
    let server = runtime.block_on(ds4_server::serve(settings)).unwrap();
    server.loading(3, 10);
    let status = |path: &str, headers: &[(&str, &str)]| {
        let bytes = request_text("GET", path, headers, b"");
        exchange(server.address(), bytes).unwrap().status
    };
    // Nobody learns more than later.
    let key = ("x-api-key", "key");
    assert_eq!(status("/ready", &[]), 401);
    assert_eq!(status("/ready", &[("x-api-key", "kex")]), 401);
    assert_eq!(status("/v1/models", &[]), 401);
    assert_eq!(status("/ready", &[key, ("host", "evil.example")]), 403);
    assert_eq!(status("/health", &[("host", "evil.example")]), 403);
    let origin = ("origin", "http://evil.example");
    assert_eq!(status("/ready", &[key, origin]), 403);
    let get = |path: &str| {
        exchange(server.address(), request_text("GET", path, &[key], b"")).expect("an answer")
    };
    assert_eq!(get("/health").status, 200);
    let ready = get("/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["loaded"], 3);
    assert_eq!(ready.json()["total"], 10);
    assert!(ready.header("retry-after").is_some());
    assert_eq!(get("/v1/models").status, 503);
    runtime.block_on(server.stop());
}

#[test]
fn a_stop_lets_a_running_stream_finish() {
    let mut server = TestServer::start(vec![slow(40, 25)], ServerSettings::default());
    let mut connection = server.begin("/v1/chat/completions", &hi());
    connection.head().unwrap();
    connection.chunk().unwrap();
    let mut idle = Connection::open(server.address);
    idle.send(request_text("GET", "/health", &[], b""));
    idle.reply().unwrap();
    server.begin_to_stop();
    assert!(idle.is_closed_by_server(), "nothing is running on it");
    let mut all = String::new();
    while let Some(chunk) = connection.chunk() {
        all.push_str(&String::from_utf8(chunk).unwrap());
    }
    assert!(all.ends_with("data: [DONE]\n\n"), "{all}");
    server.wait_until_stopped();
    let outcomes = server.service.outcomes();
    assert!(matches!(outcomes[0].reason, FinishReason::Stop { .. }));
    assert!(TcpStream::connect(server.address).is_err());
}

#[test]
fn a_stop_does_not_wait_for_ever() {
    let settings = ServerSettings {
        grace: Duration::from_millis(200),
        ..ServerSettings::default()
    };
    let mut server = TestServer::start(vec![slow(3000, 50)], settings);
    let mut connection = server.begin("/v1/chat/completions", &hi());
    connection.head().unwrap();
    let started = Instant::now();
    server.wait_until_stopped();
    assert!(started.elapsed() < Duration::from_secs(20));
    wait_for("the cancel", || server.service.outcomes().len() == 1);
    assert_eq!(server.service.outcomes()[0].reason, FinishReason::Cancelled);
}

/// The server in a process of its own.
struct Process {
    child: Child,
    address: SocketAddr,
}

impl Process {
    fn start(plan: &serde_json::Value) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("plan.json");
        std::fs::write(&path, plan.to_string()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_scripted-server"))
            .args(["--port", "0", "--plan"])
            .arg(&path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let address = line
            .trim()
            .strip_prefix("listening on http://")
            .expect("the server says where it listens");
        Self {
            address: address.parse().unwrap(),
            child,
        }
    }

    fn open_files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }

    fn threads(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/task", self.child.id()))
            .unwrap()
            .count()
    }

    fn get(&self, path: &str) -> u16 {
        let bytes = request_text("GET", path, &[("connection", "close")], b"");
        exchange(self.address, bytes).map_or(0, |reply| reply.status)
    }

    /// Ctrl-C.
    fn interrupt(&self) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn ten_thousand_connections_leave_nothing_behind() {
    let plan = json!({"turns": [{"text": "a</think>b"}]});
    let server = Process::start(&plan);
    let hello = request_text("GET", "/health", &[], b"");
    let chat = request_text(
        "POST",
        "/v1/chat/completions",
        &[],
        hi().to_string().as_bytes(),
    );
    // Whatever is made once is there before the count.
    for _ in 0..5 {
        assert_eq!(server.get("/health"), 200);
        assert_eq!(
            exchange(server.address, &chat).map(|reply| reply.status),
            Some(200)
        );
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = server.open_files();
    for wave in 0..40 {
        let mut open = Vec::new();
        for n in 0..250 {
            let Ok(mut stream) = TcpStream::connect(server.address) else {
                continue;
            };
            use std::io::Write;
            // Some say nothing, some half a request, some leave without reading the answer.
            let _ = match n % 4 {
                0 => Ok(()),
                1 => stream.write_all(&hello[..20]),
                2 => stream.write_all(&hello),
                _ if n % 20 == 3 => stream.write_all(&chat),
                _ => stream.write_all(&hello),
            };
            open.push(stream);
        }
        assert_eq!(open.len(), 250, "wave {wave}");
    }
    wait_for("the end of all connections", || {
        server.open_files() <= before
    });
    assert_eq!(server.get("/health"), 200);
    wait_for("the end of idle threads", || server.threads() < 64);
}

#[test]
fn an_interrupt_finishes_what_runs_and_exits_cleanly() {
    let plan = json!({"turns": [{"text": format!("a</think>{}", "word ".repeat(30)), "token_delay_ms": 20}]});
    let mut server = Process::start(&plan);
    let mut connection = Connection::open(server.address);
    connection.send(request_text(
        "POST",
        "/v1/messages",
        &[],
        json!({"max_tokens": 100, "stream": true, "messages": [{"role": "user", "content": "Hi"}]})
            .to_string()
            .as_bytes(),
    ));
    connection.head().unwrap();
    connection.chunk().unwrap();
    server.interrupt();
    let mut all = String::new();
    while let Some(chunk) = connection.chunk() {
        all.push_str(&String::from_utf8(chunk).unwrap());
    }
    assert!(all.contains("event: message_stop"), "{all}");
    assert!(server.child.wait().unwrap().success());
}
