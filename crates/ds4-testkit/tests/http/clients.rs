//! What agents and libraries send beside the essentials: served, or refused by the name of the field.
//!
//! `/render` shows what the server has understood.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::test_server::shared;

fn prompt(body: &Value) -> String {
    let reply = shared().post("/render", body);
    assert_eq!(reply.status, 200, "{}", reply.text());
    reply.json()["prompt"].as_str().unwrap().to_owned()
}

fn refused(reply: &Reply, named: &str) {
    assert_eq!(reply.status, 400, "{named}: {}", reply.text());
    let error = reply.json()["error"].clone();
    let named_by = [&error["param"], &error["message"]];
    assert!(
        named_by
            .iter()
            .any(|text| text.as_str().unwrap_or_default().contains(named)),
        "{named}: {error}"
    );
}

/// A request as Claude Code builds it.
fn claude() -> Value {
    json!({
        "model": "claude-sonnet-4-5", "max_tokens": 64, "stream": false,
        "metadata": {"user_id": "user_1_session_2"},
        "system": [
            {"type": "text", "text": "x-anthropic-billing-header: cc_version=2"},
            {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
        ],
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "medium"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "tools": [
            {"name": "Read", "description": "Reads a file", "input_schema": {"type": "object", "properties": {}}},
            {"name": "Rare", "description": "Seldom used", "defer_loading": true,
                "input_schema": {"type": "object", "properties": {}}},
            {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"},
        ],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]},
            {"role": "system", "content": "The date has changed."},
        ],
        "unheard_of": {"deep": [1, {"x": null}]},
    })
}

#[test]
fn a_request_of_claude_code_is_served() {
    let beta = [
        ("anthropic-version", "2023-06-01"),
        (
            "anthropic-beta",
            "context-management-2025-06-27,effort-2025-11-24",
        ),
    ];
    for path in [
        "/v1/messages?beta=true",
        "/v1/messages/count_tokens?beta=true",
    ] {
        let body = claude().to_string();
        let reply = shared().request("POST", path, &beta, body.as_bytes());
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
    let mut body = claude();
    body["api"] = json!("messages");
    let text = prompt(&body);
    assert!(!text.contains("billing"), "that is for Anthropic: {text}");
    for shown in ["You are an agent.", "Hello", "\"Read\"", "\"Rare\""] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    // In its place, not in front: requests stay extensions of each other.
    let reminder = text.find("The date has changed.").unwrap();
    assert!(text.find("Hello").unwrap() < reminder);
    assert!(text.ends_with("<think>"), "it thinks: {text}");
    body["thinking"] = json!({"type": "disabled"});
    assert!(prompt(&body).ends_with("</think>"), "it does not");
}

/// A request as Codex builds it.
fn codex() -> Value {
    json!({
        "model": "gpt-5-codex", "stream": false, "store": false, "instructions": "You are an agent.",
        "include": ["reasoning.encrypted_content"], "prompt_cache_key": "0199-a", "parallel_tool_calls": false,
        "client_metadata": {"x-codex-installation-id": "1"},
        "reasoning": {"effort": "medium", "summary": "auto"}, "text": {"verbosity": "low"}, "tool_choice": "auto",
        "max_output_tokens": 64,
        "tools": [
            {"type": "function", "name": "shell", "description": "Runs", "strict": false,
                "parameters": {"type": "object", "properties": {"command": {"type": "string"}}}},
            {"type": "namespace", "name": "mcp__files", "description": "Files", "tools": [
                {"type": "function", "name": "find", "parameters": {"type": "object", "properties": {}}}]},
            {"type": "custom", "name": "apply_patch", "description": "Patches",
                "format": {"type": "grammar", "syntax": "lark", "definition": "start: \"a\""}},
            {"type": "web_search", "external_web_access": false},
        ],
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rules first."}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
            {"type": "function_call", "call_id": "c", "namespace": "mcp__files", "name": "find", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": "found"},
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Rules later."}]},
        ],
        "unheard_of": {"deep": [1, {"x": null}]},
    })
}

#[test]
fn a_request_of_codex_is_served() {
    let reply = shared().post("/v1/responses", &codex());
    assert_eq!(reply.status, 200, "{}", reply.text());
    let response = reply.json();
    assert_eq!(response["status"], "completed");
    assert_eq!(response["store"], false);
    assert_eq!(response["prompt_cache_key"], "0199-a");
    // It was not stored, as asked.
    let id = response["id"].as_str().unwrap();
    assert_eq!(shared().get(&format!("/v1/responses/{id}")).status, 404);

    let text = prompt(&codex());
    for shown in [
        "You are an agent.",
        "\"shell\"",
        "\"mcp__files__find\"",
        "\"apply_patch\"",
    ] {
        assert!(text.contains(shown), "{shown} in {text}");
    }
    let place = |shown: &str| {
        text.find(shown)
            .unwrap_or_else(|| panic!("{shown} in {text}"))
    };
    assert!(place("Rules first.") < place("Hello") && place("Hello") < place("found"));
    assert!(place("found") < place("Rules later."), "in its place");
}

#[test]
fn unknown_fields_are_no_harm_in_any_api() {
    let odd = json!({"deep": [1, 2, {"x": null}]});
    for (path, mut body) in [
        (
            "/v1/chat/completions",
            json!({"messages": [{"role": "user", "content": "Hi", "odd": odd}]}),
        ),
        ("/v1/completions", json!({"prompt": "Hi"})),
        (
            "/v1/responses",
            json!({"input": [{"role": "user", "content": "Hi", "odd": odd}]}),
        ),
        (
            "/v1/messages",
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "odd": odd}]}]}),
        ),
    ] {
        body["max_tokens"] = json!(4);
        body["odd"] = odd.clone();
        let reply = shared().post(path, &body);
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
    }
}

#[test]
fn images_and_several_answers_are_refused_by_name() {
    let post = |path: &str, body: Value| shared().post(path, &body);
    let user = json!([{"role": "user", "content": "Hi"}]);
    refused(
        &post("/v1/chat/completions", json!({"messages": user, "n": 2})),
        "n",
    );
    refused(
        &post("/v1/completions", json!({"prompt": "Hi", "n": 2})),
        "n",
    );
    refused(
        &post("/v1/completions", json!({"prompt": "Hi", "best_of": 2})),
        "best_of",
    );
    let url = "data:image/png;base64,AAAA";
    let chat =
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]);
    refused(
        &post("/v1/chat/completions", json!({"messages": chat})),
        "image_url",
    );
    let input = json!([{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]);
    refused(
        &post("/v1/responses", json!({"input": input})),
        "input_image",
    );
    let source = json!({"type": "base64", "media_type": "image/png", "data": "AAAA"});
    let messages = json!([{"role": "user", "content": [{"type": "image", "source": source}]}]);
    refused(
        &post(
            "/v1/messages",
            json!({"max_tokens": 4, "messages": messages}),
        ),
        "image",
    );
}

/// More calls at a time than anybody makes: each of their results would be looked up among all.
#[test]
fn countless_open_calls_are_refused() {
    const CALLS: usize = 1025;
    let call =
        |id: usize| json!({"id": id.to_string(), "function": {"name": "f", "arguments": "{}"}});
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": (0..CALLS).map(call).collect::<Vec<_>>()},
    ]);
    let reply = shared().post("/v1/chat/completions", &json!({"messages": messages}));
    refused(&reply, "messages[1].tool_calls");
    let call =
        |id: usize| json!({"type": "tool_use", "id": id.to_string(), "name": "f", "input": {}});
    let messages = json!([
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": (0..CALLS).map(call).collect::<Vec<_>>()},
    ]);
    let reply = shared().post(
        "/v1/messages",
        &json!({"max_tokens": 4, "messages": messages}),
    );
    refused(&reply, "calls can wait");
    let call = |id: usize| json!({"type": "function_call", "call_id": id.to_string(), "name": "f"});
    let input: Vec<Value> = (0..CALLS).map(call).collect();
    refused(
        &shared().post("/v1/responses", &json!({"input": input})),
        "input",
    );
}
