//! What operators see: ids, the request log, metrics, traces, the description of the routes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use ds4_server::{RequestLog, RequestReport, ServerSettings};
use ds4_testkit::scripted::{Plan, PlannedTurn};
use serde_json::{Value, json};

use crate::client::Connection;
use crate::test_server::{TestServer, says, shared, wait_for};

const KEY: &str = "very-secret-key-42";

type Reports = Arc<Mutex<Vec<RequestReport>>>;

fn logged(settings: ServerSettings) -> (Reports, ServerSettings) {
    let reports = Reports::default();
    let sink = Arc::clone(&reports);
    let log = RequestLog::new(move |report| sink.lock().unwrap().push(report.clone()));
    let settings = ServerSettings {
        log: Some(log),
        ..settings
    };
    (reports, settings)
}

fn wait_for_reports(reports: &Reports, count: usize) -> Vec<RequestReport> {
    wait_for("the reports", || reports.lock().unwrap().len() >= count);
    reports.lock().unwrap().clone()
}

fn chat(stream: bool) -> Value {
    json!({"model": "default", "messages": [{"role": "user", "content": "Hi"}], "stream": stream})
}

#[test]
fn every_answer_has_an_id_of_its_own() {
    let mut ids = Vec::new();
    for reply in [
        shared().get("/health"),
        shared().get("/nothing"),
        shared().get("/v1/chat/completions"),
        shared().post("/v1/chat/completions", &chat(false)),
        shared().post("/v1/chat/completions", &chat(true)),
        shared().post("/v1/chat/completions", &json!([])),
        shared().request("GET", "/health", &[("host", "evil.example")], b""),
    ] {
        ids.push(reply.header("x-request-id").expect("an id").to_owned());
    }
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count);
    let reply = shared().post("/v1/messages", &json!({}));
    assert_eq!(
        reply.header("request-id"),
        reply.header("x-request-id"),
        "where Anthropic's SDKs look"
    );
}

#[test]
fn a_line_for_each_request_says_what_it_took() {
    let (reports, settings) = logged(ServerSettings::default());
    let server = TestServer::start(vec![says("I think.</think>Hello there.")], settings);
    let reply = server.post("/v1/chat/completions", &chat(true));
    let id = reply.header("x-request-id").unwrap().to_owned();
    let report = wait_for_reports(&reports, 1)[0].clone();
    assert_eq!(report.id, id);
    assert_eq!(report.route, "/v1/chat/completions");
    assert_eq!((report.status, report.stream), (200, true));
    assert_eq!(report.finish, Some("stop"));
    assert_eq!(
        report.generated_tokens,
        server.service.outcomes()[0].generated
    );
    assert_eq!(
        report.prompt_tokens,
        Some(server.service.outcomes()[0].prompt.len())
    );
    assert!(report.reasoning_tokens > 0);
    assert!(report.first_token.unwrap() <= report.total);
    let line = report.to_string();
    assert!(!line.contains('\n'));
    for part in [
        "status=200",
        "finish=stop",
        "route=/v1/chat/completions",
        &id,
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }
    // Others' text cannot make lines or look like fields of its own.
    let mut body = chat(false);
    body["model"] = Value::from("x\nstatus=500 \"");
    assert_eq!(server.post("/v1/chat/completions", &body).status, 404);
    server.get("/v1/responses/resp_1");
    server.get("/a%0Ab");
    let all = wait_for_reports(&reports, 4);
    assert!(all.iter().all(|report| !report.to_string().contains('\n')));
    assert!(all[1].error.as_ref().unwrap().contains("does not exist"));
    assert_eq!(all[2].route, "/v1/responses/{id}");
    assert_eq!(all[3].status, 404);
}

#[test]
fn a_client_that_left_is_logged_as_such() {
    let (reports, settings) = logged(ServerSettings::default());
    let turn = PlannedTurn {
        text: format!("a</think>{}", "word ".repeat(500)),
        token_delay_ms: 20,
        ..PlannedTurn::default()
    };
    let server = TestServer::start(vec![turn], settings);
    for stream in [true, false] {
        let mut connection: Connection = server.begin("/v1/chat/completions", &chat(stream));
        if stream {
            connection.head().unwrap();
            connection.chunk().unwrap();
        }
        wait_for("the turn", || server.service.running() == 1);
        drop(connection);
        wait_for("its end", || server.service.running() == 0);
    }
    for report in wait_for_reports(&reports, 2) {
        assert_eq!(report.status, 499);
    }
}

/// Reads the text format by its grammar, as far as it is used here.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut types = BTreeMap::new();
    let mut samples = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none());
            continue;
        }
        if line.starts_with("# HELP ") {
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let name = series.split('{').next().unwrap();
        assert!(
            name.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
            "{name}"
        );
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .find(|family| types.contains_key(*family))
            .unwrap_or(name);
        let kind = types.get(family).expect("a type comes first");
        assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
        let value: f64 = value.parse().unwrap();
        assert!(samples.insert(series.to_owned(), value).is_none());
    }
    samples
}

#[test]
fn metrics_count_what_happened() {
    let turn = |token_delay_ms| PlannedTurn {
        text: "I think.</think>Hello there.".to_owned(),
        token_delay_ms,
        prefill_ms: 30,
        ..PlannedTurn::default()
    };
    let plan = Plan {
        // The last one is still running when its client leaves.
        turns: vec![turn(2), turn(2), turn(2), turn(500)],
        max_requests: Some(1),
    };
    let server = TestServer::start_plan(plan, ServerSettings::default());
    let before = samples(server.get("/metrics").text());
    assert_eq!(before["ds4_generated_tokens_total"], 0.0);
    for _ in 0..3 {
        server.post("/v1/chat/completions", &chat(true));
    }
    server.post("/v1/chat/completions", &json!({}));
    server.get("/no/such/path");
    let held = server.begin("/v1/chat/completions", &chat(true));
    wait_for("the first", || server.service.running() == 1);
    assert_eq!(
        server.post("/v1/chat/completions", &chat(false)).status,
        429
    );
    drop(held);
    wait_for("its end", || server.service.running() == 0);
    let series = |route: &str, method: &str, status: u16| {
        format!(
            "ds4_http_requests_total{{route=\"{route}\",method=\"{method}\",status=\"{status}\"}}"
        )
    };
    let chat_route = "/v1/chat/completions";
    let mut after = BTreeMap::new();
    wait_for("all counts", || {
        after = samples(server.get("/metrics").text());
        after.contains_key(&series(chat_route, "POST", 499))
    });
    assert_eq!(after[&series(chat_route, "POST", 200)], 3.0);
    assert_eq!(after[&series(chat_route, "POST", 400)], 1.0);
    assert_eq!(after[&series(chat_route, "POST", 429)], 1.0);
    assert_eq!(after[&series("other", "GET", 404)], 1.0);
    assert_eq!(after["ds4_requests_refused_total"], 1.0);
    let outcomes = server.service.outcomes();
    let generated: usize = outcomes.iter().map(|outcome| outcome.generated).sum();
    assert_eq!(after["ds4_generated_tokens_total"], generated as f64);
    assert!(after["ds4_cached_tokens_total{kind=\"live\"}"] > 0.0);
    assert!(after["ds4_time_to_first_token_seconds_count"] >= 3.0);
    // Each of them waited 30 ms at least.
    assert!(after["ds4_time_to_first_token_seconds_sum"] >= 0.09);
    assert_eq!(
        after["ds4_time_to_first_token_seconds_bucket{le=\"0.025\"}"],
        0.0
    );
    assert!(after["ds4_inter_token_seconds_count"] >= 3.0 * (outcomes[0].generated - 1) as f64);
    assert_eq!(after["ds4_http_requests_in_flight"], 1.0, "this one");
    let bound = |name: &str| after[&format!("ds4_inter_token_seconds_bucket{{le=\"{name}\"}}")];
    assert_eq!(bound("+Inf"), after["ds4_inter_token_seconds_count"]);
    assert!(bound("0.001") <= bound("1") && bound("1") <= bound("+Inf"));
}

fn traced(path: &Path) -> TestServer {
    let settings = ServerSettings {
        api_keys: vec![KEY.to_owned()],
        trace: Some(path.to_owned()),
        ..ServerSettings::default()
    };
    TestServer::start(vec![says("I think.</think>Hello there.")], settings)
}

fn traced_requests(server: &TestServer) {
    let bearer = format!("Bearer {KEY}");
    let body = json!({
        "messages": [{"role": "user", "content": format!("The key is {KEY}, is it not?")}],
        "stream": true,
    });
    for headers in [
        [("authorization", bearer.as_str()), ("x-note", "plain")],
        [("x-api-key", KEY), ("cookie", "crumbs")],
    ] {
        let body = body.to_string();
        let reply = server.request("POST", "/v1/chat/completions", &headers, body.as_bytes());
        assert_eq!(reply.status, 200);
    }
    assert_eq!(server.get("/v1/models").status, 401);
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_trace_file_tells_all_but_the_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("trace.jsonl");
    std::fs::write(&path, "").unwrap();
    let mut server = traced(&path);
    traced_requests(&server);
    server.wait_until_stopped();
    let text = std::fs::read_to_string(&path).unwrap();
    #[cfg(unix)]
    assert_eq!(mode(&path), 0o600);
    assert!(!text.contains(KEY), "{text}");
    assert!(!text.contains("crumbs"));
    let lines = lines(&text);
    let first = &lines[0];
    assert_eq!(first["kind"], "request");
    assert_eq!(first["headers"]["authorization"], "[redacted]");
    assert_eq!(first["headers"]["x-note"], "plain");
    let of_first: Vec<&Value> = lines
        .iter()
        .filter(|line| line["id"] == first["id"])
        .collect();
    let kind = |kind: &str| {
        let found = of_first.iter().find(|line| line["kind"] == kind);
        *found.unwrap_or_else(|| panic!("no {kind}"))
    };
    assert_eq!(kind("body")["body"]["stream"], true);
    let prompt = kind("prompt")["text"].as_str().unwrap();
    assert!(
        prompt.contains("The key is [redacted]") && prompt.ends_with("<think>"),
        "{prompt}"
    );
    assert_eq!(kind("generated")["text"], "I think.</think>Hello there.");
    assert_eq!(kind("answer")["status"], 200);
    let sent: String = of_first
        .iter()
        .filter(|line| line["kind"] == "sent")
        .filter_map(|line| line["text"].as_str())
        .collect();
    assert!(sent.ends_with("data: [DONE]\n\n"));
    assert!(
        kind("end")["report"]
            .as_str()
            .unwrap()
            .contains("status=200")
    );
}

#[test]
fn a_trace_directory_gets_a_file_for_each_request() {
    let directory = tempfile::tempdir().unwrap();
    let mut server = traced(directory.path());
    traced_requests(&server);
    server.wait_until_stopped();
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(directory.path()).unwrap() {
        let path = entry.unwrap().path();
        #[cfg(unix)]
        assert_eq!(mode(&path), 0o600);
        let lines = lines(&std::fs::read_to_string(&path).unwrap());
        assert!(lines.iter().all(|line| line["id"] == lines[0]["id"]));
        assert_eq!(lines.last().unwrap()["kind"], "end");
        ids.push(lines[0]["id"].clone());
    }
    assert_eq!(ids.len(), 3);
}

#[test]
fn the_description_names_every_route_and_every_named_route_is_there() {
    let reply = shared().get("/openapi.json");
    assert_eq!(reply.status, 200);
    let api = reply.json();
    assert_eq!(api["openapi"], "3.1.0");
    let schemas = api["components"]["schemas"].as_object().unwrap();
    let paths = api["paths"].as_object().unwrap();
    let mut named = Vec::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            named.push(format!("{method} {path}"));
            let method = method.to_ascii_uppercase();
            let reply = shared().request(&method, &path.replace("{id}", "default"), &[], b"{}");
            assert_ne!(reply.status, 405, "{method} {path}");
            assert!(
                !reply.text().contains("There is no"),
                "{method} {path} has no route"
            );
            // Every reference has its schema.
            let text = operation.to_string();
            for reference in text.split("#/components/schemas/").skip(1) {
                let name = reference.split('"').next().unwrap();
                assert!(schemas.contains_key(name), "{name}");
            }
        }
    }
    // What the project promises, by hand.
    for route in [
        "post /v1/chat/completions",
        "post /v1/completions",
        "post /v1/responses",
        "get /v1/responses/{id}",
        "delete /v1/responses/{id}",
        "post /v1/responses/{id}/cancel",
        "post /v1/messages",
        "post /v1/messages/count_tokens",
        "get /v1/models",
        "get /v1/models/{id}",
        "post /tokenize",
        "post /detokenize",
        "post /render",
        "get /health",
        "get /ready",
        "get /metrics",
        "get /v1/sessions",
        "get /openapi.json",
        "get /",
    ] {
        assert!(named.iter().any(|found| found == route), "{route}");
    }
    let ids: Vec<&str> = paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|operation| operation["operationId"].as_str().unwrap())
        .collect();
    let mut unique = ids.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), ids.len(), "operation ids are unique");
}

#[test]
fn the_page_lets_nothing_else_run() {
    let reply = shared().get("/");
    assert_eq!(reply.status, 200);
    let policy = reply.header("content-security-policy").unwrap().to_owned();
    assert!(policy.contains("default-src 'none'"));
    assert!(!policy.contains("unsafe"));
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap();
    let nonce = nonce.split('\'').next().unwrap();
    let page = reply.text();
    assert_eq!(
        page.matches(&format!("<script nonce=\"{nonce}\"")).count(),
        1
    );
    assert_eq!(page.matches("<script").count(), 1);
    assert_eq!(page.matches("<style").count(), 1);
    assert!(!page.contains("{{"), "all places are filled");
    for outside in ["http://", "https://", "//cdn", "@import", "url("] {
        let found = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!found.contains(outside), "{outside}");
    }
    let again = shared().get("/");
    assert_ne!(again.header("content-security-policy").unwrap(), policy);
    assert!(reply.header("x-request-id").is_some());
}
