//! Bytes that are no proper HTTP, or too much or too little of it.

use std::time::{Duration, Instant};

use ds4_server::ServerSettings;
use serde_json::json;

use crate::client::{Connection, exchange, request_text};
use crate::test_server::{TestServer, says, shared, wait_for};

const CHAT: &str = r#"{"messages":[{"role":"user","content":"Hi"}]}"#;

/// The server must still answer properly.
fn still_works() {
    let reply = shared().request("POST", "/v1/chat/completions", &[], CHAT.as_bytes());
    assert_eq!(reply.status, 200);
}

#[test]
fn a_head_that_is_no_http_ends_the_connection() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: localhost\r\nbad header\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\xff\xfe\xfd\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost : localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\r\n folded\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\x00b\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: a\rb\r\n\r\n",
        b"GET  /health HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nhost: localhost\r\n\r\n",
    ] {
        let mut connection = Connection::open(shared().address);
        connection.try_send(bytes);
        connection.finish_sending();
        if let Some(reply) = connection.reply() {
            assert!(
                (400..600).contains(&reply.status),
                "{} for {bytes:?}",
                reply.status
            );
        }
    }
    still_works();
}

#[test]
fn a_length_must_be_one_number() {
    for lines in [
        "content-length: -1",
        "content-length: 1e3",
        "content-length: 45, 46",
        "content-length: 99999999999999999999999",
        "content-length: 45\r\ncontent-length: 46",
        "content-length: 0x2d",
        "content-length: ",
    ] {
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n{CHAT}"
        );
        if let Some(reply) = exchange(shared().address, text) {
            assert!(
                matches!(reply.status, 400 | 413),
                "{} for {lines}",
                reply.status
            );
        }
    }
    still_works();
}

/// Two lengths could make a proxy and the server see different requests in the same bytes.
#[test]
fn a_length_beside_chunks_smuggles_nothing() {
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let text = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\
         transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n",
        7 + hidden.len()
    );
    let mut connection = Connection::open(shared().address);
    connection.send(text);
    let reply = connection.reply().expect("an answer");
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(connection.is_closed_by_server(), "no second answer");
    still_works();
}

/// What one reader takes for chunks and another for none could hide a request as well.
#[test]
fn an_odd_transfer_encoding_smuggles_nothing() {
    let hidden = "GET /v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for lines in [
        "transfer-encoding: xchunked",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: identity",
        "transfer-encoding: \x0bchunked",
        "transfer-encoding: gzip, chunked",
        "transfer-encoding: chunked\r\ntransfer-encoding: identity",
    ] {
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n\
             2\r\n{{}}\r\n0\r\n\r\n{hidden}"
        );
        let mut connection = Connection::open(shared().address);
        connection.try_send(text.as_bytes());
        connection.finish_sending();
        let mut replies = 0;
        while let Some(reply) = connection.reply() {
            replies += 1;
            assert!(
                (400..600).contains(&reply.status) || replies == 2,
                "{} for {lines}",
                reply.status
            );
        }
        // Taken as chunks the second request is one; else it is part of what was refused.
        let is_chunked = lines.ends_with("gzip, chunked");
        assert!(replies <= 1 + usize::from(is_chunked), "{lines}");
    }
    still_works();
}

/// Refused in the shape of the API, whatever the path and the method are.
#[test]
fn odd_paths_and_methods_are_refused_as_json() {
    for (method, path) in [
        ("GET", "/v1/responses/%ff"),
        ("DELETE", "/v1/responses/%ff%fe"),
        ("GET", "/v1/models/%c3%28"),
        ("GET", "/v1/models/%zz"),
        ("GET", "/v1/responses/..%2f..%2fetc%2fpasswd"),
        ("GET", "//v1/models"),
        ("GET", "/v1/../v1/models"),
        ("TRACE", "/v1/models"),
        ("PUT", "/v1/models"),
        ("PATCH", "/v1/responses/resp_x"),
        ("BREW", "/v1/chat/completions"),
    ] {
        let reply = shared().request(method, path, &[], b"");
        assert!(
            matches!(reply.status, 400 | 404 | 405),
            "{} for {method} {path}",
            reply.status
        );
        let kind = reply.json()["error"]["type"].clone();
        assert!(kind.is_string(), "{method} {path}: {}", reply.text());
    }
    let tunnel = "CONNECT localhost:80 HTTP/1.1\r\nhost: localhost\r\n\r\n";
    if let Some(reply) = exchange(shared().address, tunnel) {
        assert!((400..600).contains(&reply.status), "{}", reply.status);
    }
    still_works();
}

#[test]
fn chunks_must_be_proper() {
    for chunks in [
        "ffffffffffffffffffff\r\nx",
        "-1\r\n\r\n",
        "zz\r\n",
        "2\r\n{}XX0\r\n\r\n",
    ] {
        let text = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
             transfer-encoding: chunked\r\n\r\n{chunks}"
        );
        let mut connection = Connection::open(shared().address);
        connection.try_send(text.as_bytes());
        connection.finish_sending();
        if let Some(reply) = connection.reply() {
            assert_eq!(reply.status, 400, "{chunks:?}");
        }
    }
    let size = CHAT.len();
    let good = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
         transfer-encoding: chunked\r\n\r\n{size:x};name=value\r\n{CHAT}\r\n0\r\n\r\n"
    );
    assert_eq!(exchange(shared().address, good).unwrap().status, 200);
}

#[test]
fn a_head_has_a_limit() {
    let address = shared().address;
    let long = "x".repeat(200 << 10);
    let reply = exchange(
        address,
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\nx-long: {long}\r\n\r\n"),
    );
    assert!(reply.is_none_or(|reply| reply.status == 431));
    let many: String = (0..2000).map(|n| format!("x-{n}: 1\r\n")).collect();
    let reply = exchange(
        address,
        format!("GET /health HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
    );
    assert!(reply.is_none_or(|reply| reply.status == 431));
    let reply = exchange(
        address,
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
    );
    assert!(reply.is_none_or(|reply| matches!(reply.status, 414 | 431)));
    still_works();
}

#[test]
fn a_body_has_a_limit() {
    // Told beforehand: refused without reading it.
    let mut connection = Connection::open(shared().address);
    connection.send(
        "POST /v1/messages HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9000000000\r\n\r\n",
    );
    let reply = connection.reply().unwrap();
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["error"]["type"], "request_too_large");
    // Found out while it comes.
    let mut connection = Connection::open(shared().address);
    connection.send(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n\
         transfer-encoding: chunked\r\n\r\n",
    );
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..64 {
        if !connection.try_send(chunk.as_bytes()) {
            break;
        }
    }
    if let Some(reply) = connection.reply() {
        assert_eq!(reply.status, 413);
    }
    still_works();
}

#[test]
fn requests_in_a_row_are_answered_in_order() {
    let mut connection = Connection::open(shared().address);
    let chat = request_text("POST", "/v1/chat/completions", &[], CHAT.as_bytes());
    let mut bytes = request_text("GET", "/health", &[], b"");
    bytes.extend(&chat);
    bytes.extend(request_text("GET", "/v1/models/default", &[], b""));
    bytes.extend(request_text("GET", "/nothing", &[], b""));
    connection.send(bytes);
    assert_eq!(connection.reply().unwrap().json()["status"], "ok");
    assert_eq!(
        connection.reply().unwrap().json()["object"],
        "chat.completion"
    );
    assert_eq!(connection.reply().unwrap().json()["id"], "default");
    assert_eq!(connection.reply().unwrap().status, 404);
}

#[test]
fn slow_clients_lose_their_place() {
    let settings = ServerSettings {
        read_timeout: Duration::from_millis(400),
        max_connections: 4,
        ..ServerSettings::default()
    };
    let server = TestServer::start(vec![says("a</think>b")], settings);
    // As many as there are places: one silent, one that sends its head byte by byte, one that
    // stops in its body, one that is idle after a request.
    let mut silent = Connection::open(server.address);
    let mut dripping = Connection::open(server.address);
    let mut stuck = Connection::open(server.address);
    stuck.send("POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{");
    let mut idle = Connection::open(server.address);
    idle.send(request_text("GET", "/health", &[], b""));
    assert_eq!(idle.reply().unwrap().status, 200);
    let started = Instant::now();
    for byte in b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-slow: 0123456789abcdef" {
        if !dripping.try_send(&[*byte]) || started.elapsed() > Duration::from_secs(20) {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    if let Some(reply) = dripping.reply() {
        assert_eq!(reply.status, 408);
    }
    if let Some(reply) = silent.reply() {
        assert_eq!(reply.status, 408);
    }
    let reply = stuck.reply().expect("told why");
    assert_eq!(reply.status, 408);
    assert!(idle.is_closed_by_server());
    assert_eq!(server.get("/health").status, 200, "the places are free");
}

#[test]
fn a_client_that_reads_nothing_is_cut_off() {
    let settings = ServerSettings {
        write_timeout: Duration::from_millis(300),
        keep_alive: Duration::from_millis(50),
        ..ServerSettings::default()
    };
    let long = says(&format!(
        "a</think>{}",
        "many words come here ".repeat(1500)
    ));
    let server = TestServer::start(vec![long], settings);
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "stream": true});
    // Many in a row: their answers are more than the system holds for a client.
    let body = body.to_string();
    let one = request_text("POST", "/v1/chat/completions", &[], body.as_bytes());
    let mut unread = Connection::open(server.address);
    unread.send(one.repeat(40));
    wait_for("the first turn", || !server.service.outcomes().is_empty());
    let connections = || open_sockets_of(server.address.port());
    wait_for("the end of the connection", || connections() == 0);
    assert!(server.service.outcomes().len() < 40);
    drop(unread);
}

/// Established connections to a port of this machine, as the system lists them.
fn open_sockets_of(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let local = format!("0100007F:{port:04X}");
    table
        .lines()
        .skip(1)
        .filter(|line| {
            let mut fields = line.split_whitespace();
            fields.nth(1) == Some(local.as_str()) && fields.nth(1) == Some("01")
        })
        .count()
}
