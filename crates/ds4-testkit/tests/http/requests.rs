//! Bodies that are wrong, odd or far too much: refused by name, or served; never a crash.

use serde_json::{Value, json};

use crate::client::Reply;
use crate::test_server::{CONTEXT, shared};

const CHAT: &str = "/v1/chat/completions";

fn user() -> Value {
    json!([{"role": "user", "content": "Hi"}])
}

/// A chat request with more fields.
fn chat(extra: Value) -> Reply {
    let mut body = json!({"model": "default", "messages": user(), "max_tokens": 4});
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    shared().post(CHAT, &body)
}

/// Refused with 400 and this field named.
fn refused(reply: &Reply, param: &str) {
    assert_eq!(reply.status, 400, "{param}: {}", reply.text());
    let found = reply.json()["error"]["param"].clone();
    let found = found.as_str().unwrap_or_default();
    assert!(found.starts_with(param), "{found} instead of {param}");
}

fn raw(body: &[u8]) -> Reply {
    shared().request("POST", CHAT, &[], body)
}

#[test]
fn bodies_that_are_no_json_are_refused_in_every_dialect() {
    let deep = "[".repeat(100_000);
    let deep_object = r#"{"a":"#.repeat(100_000);
    let deep_whole = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [&[u8]; 14] = [
        b"",
        b"null",
        b"[]",
        b"\"text\"",
        b"{",
        b"{\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}",
        br#"{"messages":[{"role":"user","content":"\ud800"}]}"#,
        br#"{"messages":[{"role":"user","content":"\udc00\ud800"}]}"#,
        br#"{"temperature":NaN}"#,
        br#"{"temperature":1e999}"#,
        b"{} {}",
        deep.as_bytes(),
        deep_object.as_bytes(),
        deep_whole.as_bytes(),
    ];
    for path in [CHAT, "/v1/completions", "/v1/responses", "/tokenize"] {
        for body in bodies {
            let reply = shared().request("POST", path, &[], body);
            let start = String::from_utf8_lossy(&body[..body.len().min(40)]);
            assert_eq!(reply.status, 400, "{path} {start}");
            assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
        }
    }
    for path in ["/v1/messages", "/v1/messages/count_tokens"] {
        for body in bodies {
            let reply = shared().request("POST", path, &[], body);
            assert_eq!(reply.status, 400);
            let error = reply.json();
            assert_eq!(error["type"], "error");
            assert_eq!(error["error"]["type"], "invalid_request_error");
        }
    }
}

/// Small values take far more memory than their text.
#[test]
fn a_body_of_countless_values_is_refused() {
    let mut body = br#"{"prompt":["#.to_vec();
    body.extend_from_slice(&b"0,".repeat(1_000_000));
    body.extend_from_slice(b"0]}");
    let reply = shared().request("POST", "/v1/completions", &[], &body);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
    let nested = "[".repeat(1_500_000);
    let reply = shared().request("POST", "/v1/completions", &[], nested.as_bytes());
    assert!(reply.text().contains("values"), "{}", reply.text());
}

#[test]
fn the_last_of_two_equal_fields_counts() {
    let body = br#"{"messages":3,"model":"default","messages":[{"role":"user","content":"Hi"}]}"#;
    assert_eq!(raw(body).status, 200);
}

#[test]
fn unknown_fields_are_no_harm() {
    let reply = chat(json!({
        "unheard_of": {"deep": [1, 2, {"x": null}]}, "metadata": {"a": "b"}, "store": false,
        "client_metadata": {}, "prompt_cache_key": "k", "user": "u", "verbosity": "low",
    }));
    assert_eq!(reply.status, 200, "{}", reply.text());
}

#[test]
fn numbers_out_of_range_are_refused_by_name() {
    for (name, value) in [
        ("max_tokens", json!(0)),
        ("max_tokens", json!(-1)),
        ("max_tokens", json!(18_446_744_073_709_551_615_u64)),
        ("max_tokens", json!(1.5)),
        ("max_tokens", json!("4")),
        ("max_tokens", json!(1e300)),
        ("temperature", json!(-0.1)),
        ("temperature", json!(2.1)),
        ("temperature", json!("hot")),
        ("top_p", json!(0)),
        ("top_p", json!(1.1)),
        ("min_p", json!(-1)),
        ("frequency_penalty", json!(3)),
        ("top_logprobs", json!(21)),
        ("n", json!(2)),
        ("n", json!(0)),
        ("seed", json!(1.5)),
        ("stream", json!("yes")),
    ] {
        refused(&chat(json!({name: value})), name);
    }
    for (name, value) in [
        ("max_tokens", json!(9_007_199_254_740_991_u64)),
        ("max_tokens", json!(4.0)),
        ("temperature", json!(-0.0)),
        ("temperature", json!(0)),
        ("n", json!(1)),
        ("seed", json!(-7)),
        ("seed", json!(i64::MAX)),
        ("top_k", json!(-1)),
        ("top_k", json!(i64::MAX)),
    ] {
        let reply = chat(json!({name: value}));
        assert_eq!(reply.status, 200, "{name} {value}: {}", reply.text());
    }
}

#[test]
fn stop_texts_have_limits() {
    refused(&chat(json!({"stop": ""})), "stop");
    refused(&chat(json!({"stop": ["a", ""]})), "stop");
    refused(&chat(json!({"stop": vec!["x"; 50_000]})), "stop");
    refused(&chat(json!({"stop": "x".repeat(1_000_000)})), "stop");
    refused(&chat(json!({"stop": [1]})), "stop");
    refused(&chat(json!({"stop": {"a": 1}})), "stop");
    assert_eq!(chat(json!({"stop": null})).status, 200);
    let reply = chat(json!({"stop": ["there"], "max_tokens": 100}));
    let answer = reply.json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Hello ");
    assert_eq!(answer["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_logit_bias_names_tokens() {
    for bad in [
        json!({"x": 1}),
        json!({"-1": 1}),
        json!({"4294967296": 1}),
        json!({"1": 101}),
        json!({"1": "a"}),
        json!([1]),
        json!({"1.0": 1}),
    ] {
        refused(&chat(json!({"logit_bias": bad})), "logit_bias");
    }
    let many: serde_json::Map<String, Value> =
        (0..5000).map(|id| (id.to_string(), json!(1))).collect();
    refused(&chat(json!({"logit_bias": many})), "logit_bias");
    assert_eq!(chat(json!({"logit_bias": {"5": -100}})).status, 200);
}

#[test]
fn messages_must_make_a_conversation() {
    for (messages, param) in [
        (json!([]), "messages"),
        (json!({}), "messages"),
        (json!("Hi"), "messages"),
        (json!([1]), "messages[0]"),
        (json!([{"content": "Hi"}]), "messages[0].role"),
        (
            json!([{"role": "wizard", "content": "Hi"}]),
            "messages[0].role",
        ),
        (json!([{"role": 1, "content": "Hi"}]), "messages[0].role"),
        (
            json!([{"role": "user", "content": null}]),
            "messages[0].content",
        ),
        (
            json!([{"role": "user", "content": 3}]),
            "messages[0].content",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]),
            "messages[0].content[0].type",
        ),
        (
            json!([{"role": "user", "content": [{"type": "text"}]}]),
            "messages[0].content[0].text",
        ),
        (
            json!([{"role": "user", "content": "Hi"}, {"role": "tool", "content": "r", "tool_call_id": "x"}]),
            "messages",
        ),
        (
            json!([{"role": "user", "content": "Hi"},
                {"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
                {"role": "user", "content": "no result"}]),
            "messages",
        ),
    ] {
        refused(&chat(json!({"messages": messages})), param);
    }
    let missing = shared().post(CHAT, &json!({"model": "default"}));
    refused(&missing, "messages");
    for good in [
        json!([{"role": "user", "content": []}]),
        json!([{"role": "user", "content": ""}]),
        json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]),
        json!([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}, {"role": "user", "content": "b"}]),
        json!([{"role": "developer", "content": "d"}, {"role": "user", "content": "a"}]),
    ] {
        let reply = chat(json!({"messages": good}));
        assert_eq!(reply.status, 200, "{good}: {}", reply.text());
    }
}

/// Ids of calls that clients lose or use twice: refused or served, but the server goes on.
#[test]
fn call_ids_may_be_missing_or_repeated() {
    let call = |id: Value| json!({"id": id, "type": "function", "function": {"name": "f", "arguments": "{}"}});
    let result = |id: Value| json!({"role": "tool", "tool_call_id": id, "content": "r"});
    let mut without = call(json!("a"));
    without.as_object_mut().unwrap().remove("id");
    for (calls, results) in [
        (json!([without]), vec![result(json!("a"))]),
        (json!([call(Value::Null)]), vec![result(Value::Null)]),
        (json!([call(json!(7))]), vec![result(json!(7))]),
        (
            json!([call(json!("a")), call(json!("a"))]),
            vec![result(json!("a")), result(json!("a"))],
        ),
        (json!([call(json!("a"))]), vec![result(json!("b"))]),
        (
            json!([call(json!("a"))]),
            vec![result(json!("a")), result(json!("a"))],
        ),
        (
            json!([call(json!("a")), call(json!("b"))]),
            vec![result(json!("b")), result(json!("a"))],
        ),
        (json!([call(json!(""))]), vec![result(json!(""))]),
        (
            json!([call(json!("x".repeat(100_000)))]),
            vec![result(json!("x".repeat(100_000)))],
        ),
    ] {
        let mut messages = vec![
            json!({"role": "user", "content": "Hi"}),
            json!({"role": "assistant", "content": null, "tool_calls": calls}),
        ];
        messages.extend(results);
        let reply = chat(json!({"messages": messages}));
        let shown: String = calls.to_string().chars().take(200).collect();
        assert!(
            matches!(reply.status, 200 | 400),
            "{} {shown}: {}",
            reply.status,
            reply.text()
        );
        if reply.status == 400 {
            refused(&reply, "messages");
        }
    }
}

#[test]
fn anthropic_messages_must_make_a_conversation() {
    let post = |messages: Value| {
        let body = json!({"model": "claude-x", "max_tokens": 4, "messages": messages});
        shared().post("/v1/messages", &body)
    };
    for bad in [
        json!([]),
        json!([{"role": "wizard", "content": "Hi"}]),
        json!([{"role": "user", "content": null}]),
        json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]),
        json!([{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "content": "r"}]}]),
        json!([{"role": "assistant", "content": [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]},
            {"role": "user", "content": "no result"}]),
    ] {
        let reply = post(bad.clone());
        assert_eq!(reply.status, 400, "{bad}");
        assert_eq!(reply.json()["error"]["type"], "invalid_request_error");
        assert!(
            !reply.json()["error"]["message"]
                .as_str()
                .unwrap()
                .is_empty()
        );
    }
    let body = json!({"model": "claude-x", "messages": user()});
    let reply = shared().post("/v1/messages", &body);
    assert_eq!(reply.status, 400, "max_tokens is missing");
}

#[test]
fn tools_have_names_and_bounds() {
    let tool = |name: &str| json!({"type": "function", "function": {"name": name, "parameters": {"type": "object"}}});
    for bad in [
        json!([{"type": "function"}]),
        json!([{"type": "function", "function": {"name": ""}}]),
        json!([{"type": "function", "function": {"name": 1}}]),
        json!([{"type": "telepathy", "function": {"name": "f"}}]),
        json!([1]),
        json!({}),
    ] {
        refused(&chat(json!({"tools": bad})), "tools");
    }
    // The same one twice is one; two under a name cannot be told apart.
    let reply = chat(json!({"tools": [tool("f"), tool("f")]}));
    assert_eq!(reply.status, 200, "{}", reply.text());
    let mut other = tool("f");
    other["function"]["parameters"] = json!({"type": "object", "required": ["x"]});
    refused(&chat(json!({"tools": [tool("f"), other]})), "tools");
    let choice = json!({"type": "function", "function": {"name": "g"}});
    refused(
        &chat(json!({"tools": [tool("f")], "tool_choice": choice})),
        "tool_choice",
    );
    refused(&chat(json!({"tool_choice": "required"})), "tool_choice");
    let many =
        |count: usize| -> Vec<Value> { (0..count).map(|n| tool(&format!("tool_{n}"))).collect() };
    refused(&chat(json!({"tools": many(4096)})), "tools");
    let reply = chat(json!({"tools": many(1000)}));
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
}

#[test]
fn schemas_that_cannot_be_kept_are_refused() {
    let format = |schema: Value| {
        chat(json!({"response_format": {
            "type": "json_schema", "json_schema": {"name": "s", "schema": schema},
        }}))
    };
    for bad in [
        json!({"type": "object", "properties": {"a": {"$ref": "#/nowhere"}}}),
        json!({"type": "string", "pattern": "\\x{110000}"}),
        json!({"type": "string", "pattern": "("}),
        json!({"type": "teapot"}),
        json!(3),
    ] {
        let reply = format(bad.clone());
        assert_eq!(reply.status, 400, "{bad}: {}", reply.text());
    }
    for odd in [
        json!({"$ref": "#"}),
        json!({"type": "array", "items": {"type": "integer"}, "minItems": 1_000_000_000}),
        json!({"type": "string", "pattern": "(a+)+$"}),
    ] {
        let reply = format(odd.clone());
        assert!(
            matches!(reply.status, 200 | 400),
            "{odd}: {} {}",
            reply.status,
            reply.text()
        );
    }
}

#[test]
fn a_prompt_that_is_too_long_is_told_by_numbers() {
    let long = "word ".repeat(2 * CONTEXT);
    let reply = chat(json!({"messages": [{"role": "user", "content": long}]}));
    assert_eq!(reply.status, 400);
    let error = &reply.json()["error"];
    assert_eq!(error["code"], "context_length_exceeded");
    assert_eq!(error["n_ctx"], CONTEXT);
    assert!(error["n_prompt_tokens"].as_u64() > Some(CONTEXT as u64));
    for (path, body) in [
        ("/v1/responses", json!({"input": long})),
        ("/v1/completions", json!({"prompt": long})),
        (
            "/v1/messages",
            json!({"max_tokens": 4, "messages": [{"role": "user", "content": long}]}),
        ),
    ] {
        let reply = shared().post(path, &body);
        assert_eq!(reply.status, 400, "{path}");
        let message = reply.json()["error"]["message"]
            .as_str()
            .unwrap()
            .to_owned();
        assert!(message.contains("tokens"), "{message}");
    }
}

#[test]
fn an_empty_prompt_is_refused() {
    let reply = shared().post("/v1/completions", &json!({"prompt": []}));
    assert_eq!(reply.status, 400, "{}", reply.text());
    let reply = shared().post("/v1/completions", &json!({"prompt": [4_000_000_000_u64]}));
    assert_eq!(reply.status, 400, "{}", reply.text());
    let reply = shared().post("/v1/completions", &json!({"prompt": ["a", "b"]}));
    assert_eq!(reply.status, 400, "two prompts: {}", reply.text());
}

/// What a user writes is text, also where it spells the model's own marks.
#[test]
fn control_tokens_in_a_users_text_stay_text() {
    const MARKS: [&str; 7] = [
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
        "<think>",
        "</think>",
        "｜DSML｜",
    ];
    let id_of = |mark: &str| {
        let reply = shared().post("/tokenize", &json!({"text": mark, "add_special": true}));
        let tokens = reply.json()["tokens"].clone();
        assert_eq!(tokens.as_array().unwrap().len(), 1, "{mark} is one token");
        tokens[0].as_u64().unwrap()
    };
    let tokens_of = |text: &str| -> Vec<u64> {
        let bodies = [
            json!({"messages": [{"role": "system", "content": text}, {"role": "user", "content": text},
                {"role": "assistant", "content": text}, {"role": "user", "content": [{"type": "text", "text": text}]}]}),
            json!({"api": "messages", "system": text, "messages": [{"role": "user", "content": text}]}),
            json!({"instructions": text, "input": [{"role": "user", "content": text}]}),
        ];
        let mut all = Vec::new();
        for body in bodies {
            let reply = shared().post("/render", &body);
            assert_eq!(reply.status, 200, "{}", reply.text());
            let tokens = reply.json()["tokens"].clone();
            all.extend(tokens.as_array().unwrap().iter().filter_map(Value::as_u64));
        }
        all
    };
    let plain = tokens_of("plain");
    for mark in MARKS {
        let id = id_of(mark);
        let count = |tokens: &[u64]| tokens.iter().filter(|&&token| token == id).count();
        assert_eq!(
            count(&tokens_of(&format!("a {mark} b"))),
            count(&plain),
            "{mark} became a control token"
        );
    }
}
