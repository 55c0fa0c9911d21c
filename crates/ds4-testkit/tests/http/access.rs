//! Who may call: keys, host names, pages of other sites.

use std::sync::OnceLock;

use ds4_server::ServerSettings;

use crate::client::{Reply, exchange};
use crate::test_server::{TestServer, says, shared};

const KEY: &str = "key-one-123";
const SITE: &str = "http://app.example:3000";

fn guarded() -> &'static TestServer {
    static SERVER: OnceLock<TestServer> = OnceLock::new();
    SERVER.get_or_init(|| {
        let settings = ServerSettings {
            api_keys: vec![KEY.to_owned(), "key-two-456".to_owned()],
            allowed_hosts: vec!["box.lan".to_owned()],
            allowed_origins: vec![SITE.to_owned()],
            ..ServerSettings::default()
        };
        TestServer::start(vec![says("Yes.</think>Yes.")], settings)
    })
}

fn models(headers: &[(&str, &str)]) -> Reply {
    guarded().request("GET", "/v1/models", headers, b"")
}

#[test]
fn a_key_opens_as_bearer_and_as_x_api_key() {
    for headers in [
        [("authorization", "Bearer key-one-123")],
        [("authorization", "bearer key-two-456")],
        [("x-api-key", KEY)],
        [("X-Api-Key", "key-two-456")],
    ] {
        assert_eq!(models(&headers).status, 200, "{headers:?}");
    }
    // Clients that send both mean the one that fits.
    let both = [("authorization", "Bearer dummy"), ("x-api-key", KEY)];
    assert_eq!(models(&both).status, 200);
}

#[test]
fn without_the_right_key_nothing_opens() {
    for headers in [
        &[][..],
        &[("authorization", "Bearer key-one-12")],
        &[("authorization", "Bearer key-one-1234")],
        &[("authorization", "Basic key-one-123")],
        &[("authorization", "Bearer ")],
        &[("authorization", KEY)],
        &[("x-api-key", "")],
        &[("x-api-key", "KEY-ONE-123")],
        &[("cookie", "key-one-123")],
    ] {
        let reply = models(headers);
        assert_eq!(reply.status, 401, "{headers:?}");
        assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        assert_eq!(reply.json()["error"]["code"], "invalid_api_key");
    }
    for (method, path) in [
        ("POST", "/v1/chat/completions"),
        ("POST", "/v1/responses"),
        ("GET", "/v1/responses/resp_x"),
        ("GET", "/ready"),
        ("GET", "/v1/sessions"),
        ("POST", "/tokenize"),
        ("GET", "/nothing"),
    ] {
        let reply = guarded().request(method, path, &[], b"");
        assert_eq!(reply.status, 401, "{method} {path}");
    }
    let reply = guarded().request("POST", "/v1/messages", &[], b"{}");
    assert_eq!(reply.status, 401);
    assert_eq!(reply.json()["type"], "error");
    assert_eq!(reply.json()["error"]["type"], "authentication_error");
    assert_eq!(guarded().get("/health").status, 200, "open to monitors");
}

#[test]
fn a_foreign_host_name_is_refused() {
    let port = guarded().address.port();
    for good in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        format!("127.0.0.1:{port}"),
        format!("[::1]:{port}"),
        "LOCALHOST.".to_owned(),
        "ds4.localhost".to_owned(),
        format!("box.lan:{port}"),
    ] {
        let reply = models(&[("host", &good), ("x-api-key", KEY)]);
        assert_eq!(reply.status, 200, "{good}");
    }
    for bad in [
        "evil.example",
        "localhost.evil.example",
        "evil.example:8000",
        "10.0.0.1",
        "127.0.0.1.evil.example",
        "",
        "[",
        "box.lan.evil.example",
    ] {
        let reply = models(&[("host", bad), ("x-api-key", KEY)]);
        assert_eq!(reply.status, 403, "{bad}");
        assert_eq!(reply.json()["error"]["type"], "permission_error");
    }
    let none = exchange(guarded().address, "GET /v1/models HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(none.status, 400 | 403), "{}", none.status);
    // A proxy in front may have looked at the other one.
    for [first, second] in [
        ["localhost", "evil.example"],
        ["evil.example", "localhost"],
        ["localhost", "localhost"],
    ] {
        let two = format!(
            "GET /v1/models HTTP/1.1\r\nhost: {first}\r\nhost: {second}\r\nx-api-key: {KEY}\r\n\r\n"
        );
        let reply = exchange(guarded().address, two).unwrap();
        assert!(matches!(reply.status, 400 | 403), "{}", reply.status);
    }
    let absolute = "GET http://evil.example/v1/models HTTP/1.1\r\nhost: localhost\r\n\r\n";
    assert_eq!(exchange(guarded().address, absolute).unwrap().status, 403);
}

#[test]
fn pages_of_other_sites_are_refused_unless_listed() {
    for origin in ["http://evil.example", "null", "http://localhost:3000"] {
        let reply = shared().request("GET", "/v1/models", &[("origin", origin)], b"");
        assert_eq!(reply.status, 403, "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
        let preflight = shared().request(
            "OPTIONS",
            "/v1/chat/completions",
            &[
                ("origin", origin),
                ("access-control-request-method", "POST"),
            ],
            b"",
        );
        assert_eq!(preflight.status, 403, "{origin}");
        assert_eq!(preflight.header("access-control-allow-origin"), None);
    }
    // The server's own page.
    let host = shared().address.to_string();
    let own = format!("http://{host}");
    let headers = [("host", host.as_str()), ("origin", own.as_str())];
    let reply = shared().request("GET", "/v1/models", &headers, b"");
    assert_eq!(reply.status, 200);
}

#[test]
fn a_listed_site_gets_a_preflight_and_answers() {
    let headers = [
        ("origin", SITE),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "authorization, content-type, x-api-key, anthropic-version",
        ),
    ];
    let preflight = guarded().request("OPTIONS", "/v1/chat/completions", &headers, b"");
    // Without a key: a browser sends none here.
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some(SITE));
    let allowed = preflight.header("access-control-allow-headers").unwrap();
    for name in [
        "authorization",
        "content-type",
        "x-api-key",
        "anthropic-version",
    ] {
        assert!(
            allowed.to_ascii_lowercase().contains(name),
            "{name} in {allowed}"
        );
    }
    let reply = models(&[("origin", SITE), ("x-api-key", KEY)]);
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("access-control-allow-origin"), Some(SITE));
    assert_eq!(reply.header("vary"), Some("Origin"));
    let refused = models(&[("origin", SITE)]);
    assert_eq!(refused.status, 401);
    assert_eq!(
        refused.header("access-control-allow-origin"),
        Some(SITE),
        "the page may read why"
    );
}
