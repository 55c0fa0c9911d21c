//! Every endpoint, whole and streamed.

use serde_json::{Value, json};

use crate::test_server::{CONTEXT, TestServer, says, shared};

fn question() -> Value {
    json!({"model": "default", "messages": [{"role": "user", "content": "Hi"}]})
}

fn streamed(mut body: Value) -> Value {
    body["stream"] = Value::from(true);
    body
}

#[test]
fn chat_answers_whole() {
    let reply = shared().post("/v1/chat/completions", &question());
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/json"));
    let answer = reply.json();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "default");
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "Hello there.");
    assert_eq!(choice["message"]["reasoning_content"], "I think.");
    assert_eq!(choice["finish_reason"], "stop");
    let usage = &answer["usage"];
    let (prompt, completion) = (&usage["prompt_tokens"], &usage["completion_tokens"]);
    assert_eq!(
        usage["total_tokens"].as_u64(),
        Some(prompt.as_u64().unwrap() + completion.as_u64().unwrap())
    );
}

#[test]
fn chat_streams() {
    let body = json!({
        "model": "default", "messages": [{"role": "user", "content": "Hi"}],
        "stream": true, "stream_options": {"include_usage": true},
    });
    let reply = shared().post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 200);
    assert_eq!(
        reply.header("content-type"),
        Some("text/event-stream; charset=utf-8")
    );
    let events = reply.events();
    assert_eq!(events.last().unwrap().data.as_deref(), Some("[DONE]"));
    let chunks: Vec<Value> = events[..events.len() - 1]
        .iter()
        .map(|event| event.json())
        .collect();
    let text = |field: &str| -> String {
        let deltas = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]);
        deltas.filter_map(|delta| delta[field].as_str()).collect()
    };
    assert_eq!(text("content"), "Hello there.");
    assert_eq!(text("reasoning_content"), "I think.");
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    let ids: Vec<&Value> = chunks.iter().map(|chunk| &chunk["id"]).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]));
    let last = chunks.last().unwrap();
    assert!(last["usage"]["completion_tokens"].as_u64() > Some(3));
}

#[test]
fn completions_answer_whole_and_streamed() {
    let body = json!({"model": "default", "prompt": "Once", "max_tokens": 3});
    let answer = shared().post("/v1/completions", &body).json();
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["choices"][0]["finish_reason"], "length");
    let whole = answer["choices"][0]["text"].as_str().unwrap().to_owned();
    assert!(!whole.is_empty());
    let events = shared().post("/v1/completions", &streamed(body)).events();
    let text: String = events
        .iter()
        .filter(|event| event.data.as_deref().is_some_and(|data| data != "[DONE]"))
        .filter_map(|event| {
            event.json()["choices"][0]["text"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(text, whole);
    assert_eq!(events.last().unwrap().data.as_deref(), Some("[DONE]"));
}

#[test]
fn responses_answer_are_kept_and_go_on() {
    let body = json!({"model": "default", "input": "Hi"});
    let answer = shared().post("/v1/responses", &body).json();
    assert_eq!(answer["object"], "response");
    assert_eq!(answer["status"], "completed");
    let kinds: Vec<&str> = answer["output"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|item| item["type"].as_str())
        .collect();
    assert_eq!(kinds, ["reasoning", "message"]);
    let id = answer["id"].as_str().unwrap();
    let path = format!("/v1/responses/{id}");
    assert_eq!(shared().get(&path).json()["id"], id);
    let next = json!({"model": "default", "input": "And?", "previous_response_id": id});
    let next = shared().post("/v1/responses", &next).json();
    assert!(
        next["usage"]["input_tokens"].as_u64() > answer["usage"]["input_tokens"].as_u64(),
        "the earlier turn is part of the prompt"
    );
    let cancelled = shared().post(&format!("{path}/cancel"), &json!({}));
    assert_eq!(cancelled.json()["status"], "completed", "it had ended");
    let deleted = shared().request("DELETE", &path, &[], b"");
    assert_eq!(deleted.json()["deleted"], true);
    assert_eq!(shared().get(&path).status, 404);
    let gone = json!({"model": "default", "input": "And?", "previous_response_id": id});
    let gone = shared().post("/v1/responses", &gone);
    assert_eq!(gone.status, 404);
    assert_eq!(gone.json()["error"]["param"], "previous_response_id");
}

#[test]
fn responses_stream_in_order() {
    let body = json!({"model": "default", "input": "Hi", "stream": true});
    let events = shared().post("/v1/responses", &body).events();
    let named: Vec<_> = events.iter().filter(|event| event.data.is_some()).collect();
    for (index, event) in named.iter().enumerate() {
        let data = event.json();
        assert_eq!(event.name.as_deref(), data["type"].as_str());
        assert_eq!(data["sequence_number"], index, "{data}");
    }
    assert_eq!(named[0].name.as_deref(), Some("response.created"));
    assert_eq!(
        named.last().unwrap().name.as_deref(),
        Some("response.completed")
    );
    let text: String = named
        .iter()
        .filter(|event| event.name.as_deref() == Some("response.output_text.delta"))
        .map(|event| event.json()["delta"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(text, "Hello there.");
}

#[test]
fn messages_answer_whole_and_streamed() {
    let body = json!({
        "model": "claude-sonnet-4-5", "max_tokens": 100,
        "messages": [{"role": "user", "content": "Hi"}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    });
    let answer = shared().post("/v1/messages?beta=true", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["type"], "message");
    assert_eq!(answer["stop_reason"], "end_turn");
    assert_eq!(answer["content"][0]["thinking"], "I think.");
    assert_eq!(answer["content"][1]["text"], "Hello there.");
    let events = shared().post("/v1/messages", &streamed(body)).events();
    let names: Vec<&str> = events
        .iter()
        .filter_map(|event| event.name.as_deref())
        .filter(|name| !name.ends_with("_delta") && *name != "ping")
        .collect();
    assert_eq!(
        names,
        [
            "message_start",
            "content_block_start",
            "content_block_stop",
            "content_block_start",
            "content_block_stop",
            "message_stop"
        ]
    );
    let text: String = events
        .iter()
        .filter(|event| event.name.as_deref() == Some("content_block_delta"))
        .filter_map(|event| event.json()["delta"]["text"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(text, "Hello there.");
}

#[test]
fn counted_tokens_are_those_of_the_prompt() {
    let body = json!({
        "model": "claude-x", "max_tokens": 5, "system": "Be short.",
        "messages": [{"role": "user", "content": "Hi"}],
    });
    let counted = shared().post("/v1/messages/count_tokens", &body).json()["input_tokens"].clone();
    let answer = shared().post("/v1/messages", &body).json();
    let usage = &answer["usage"];
    let sum = usage["input_tokens"].as_u64().unwrap()
        + usage["cache_read_input_tokens"].as_u64().unwrap_or(0)
        + usage["cache_creation_input_tokens"].as_u64().unwrap_or(0);
    assert_eq!(counted.as_u64(), Some(sum), "{usage}");
    let rendered = shared().post("/render", &body).json();
    assert_eq!(rendered["count"], counted);
    assert!(rendered["prompt"].as_str().unwrap().contains("Be short."));
}

#[test]
fn text_goes_to_tokens_and_back() {
    let text = "Grüße, 世界! <|x|> \u{1f600}";
    let tokens = shared().post("/tokenize", &json!({"text": text})).json();
    assert_eq!(
        tokens["count"].as_u64().unwrap() as usize,
        tokens["tokens"].as_array().unwrap().len()
    );
    let back = shared().post("/detokenize", &json!({"tokens": tokens["tokens"]}));
    assert_eq!(back.json()["text"], text);
    for bad in [
        json!([-1]),
        json!([1e9]),
        json!(["a"]),
        json!("a"),
        json!([4_294_967_296_u64]),
    ] {
        let reply = shared().post("/detokenize", &json!({"tokens": bad}));
        assert_eq!(reply.status, 400, "{bad}");
    }
}

#[test]
fn models_are_listed_and_every_listed_one_works() {
    let list = shared().get("/v1/models").json();
    let models = list["data"].as_array().unwrap();
    assert!(models.iter().any(|model| model["id"] == "default"));
    for model in models {
        let id = model["id"].as_str().unwrap();
        let one = shared().get(&format!("/v1/models/{id}"));
        assert_eq!(one.status, 200);
        assert_eq!(one.json()["context_length"], CONTEXT);
        let mut body = question();
        body["model"] = Value::from(id);
        assert_eq!(shared().post("/v1/chat/completions", &body).status, 200);
    }
    assert_eq!(shared().get("/v1/models/nobody/knows").status, 404);
    let mut body = question();
    body["model"] = Value::from("llama-3");
    let reply = shared().post("/v1/chat/completions", &body);
    assert_eq!(reply.status, 404);
    assert_eq!(reply.json()["error"]["code"], "model_not_found");
}

#[test]
fn state_is_told() {
    assert_eq!(shared().get("/health").json()["status"], "ok");
    let ready = shared().get("/ready").json();
    assert_eq!(ready["status"], "ready");
    assert_eq!(ready["context"], CONTEXT);
    let sessions = shared().get("/v1/sessions").json();
    assert!(sessions["running"].is_array());
    assert_eq!(sessions["queue_capacity"], 64);
}

#[test]
fn unknown_paths_and_methods_are_refused_in_the_dialect_of_the_path() {
    for path in [
        "/v1/nothing",
        "/v2",
        "/v1/chat/completions/",
        "/..%2f..%2fetc/passwd",
    ] {
        let reply = shared().get(path);
        assert_eq!(reply.status, 404, "{path}");
        let error = &reply.json()["error"];
        assert_eq!(error["type"], "not_found_error");
        assert!(error["message"].as_str().unwrap().contains("GET"));
    }
    let reply = shared().get("/v1/messages/nothing");
    assert_eq!(reply.status, 404);
    let error = reply.json();
    assert_eq!(error["type"], "error");
    assert_eq!(error["error"]["type"], "not_found_error");
    for (method, path) in [
        ("GET", "/v1/chat/completions"),
        ("PUT", "/v1/responses"),
        ("DELETE", "/v1/models"),
        ("POST", "/health"),
    ] {
        let reply = shared().request(method, path, &[], b"");
        assert_eq!(reply.status, 405, "{method} {path}");
        assert!(reply.header("allow").is_some(), "{method} {path}");
    }
    let reply = shared().get("/v1/messages");
    assert_eq!(reply.status, 405);
    assert_eq!(reply.json()["type"], "error");
}

#[test]
fn calls_come_back_in_every_dialect_and_go_in_again() {
    let call = "Look.</think>\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"get_weather\">\n\
        <｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n\
        </｜DSML｜invoke>\n</｜DSML｜tool_calls>";
    let turns = vec![
        says(call),
        says("Cold.</think>It is cold."),
        says(call),
        says(call),
    ];
    let server = TestServer::start(turns, ds4_server::ServerSettings::default());
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let tools = json!([{"type": "function", "function": {
        "name": "get_weather", "description": "Weather", "parameters": schema,
    }}]);
    let user = json!({"role": "user", "content": "Weather in Oslo?"});
    let body = json!({"model": "default", "messages": [user], "tools": tools});
    let answer = server.post("/v1/chat/completions", &body).json();
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let called = &choice["message"]["tool_calls"][0];
    assert_eq!(called["function"]["name"], "get_weather");
    let arguments: Value =
        serde_json::from_str(called["function"]["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Oslo"}));

    // The client sends the call back with other JSON: the sampled tokens are found all the same.
    let mut message = choice["message"].clone();
    message["tool_calls"][0]["function"]["arguments"] =
        Value::from(r#"{ "city":"Oslo", "extra": 1 }"#);
    message.as_object_mut().unwrap().remove("reasoning_content");
    let result = json!({"role": "tool", "tool_call_id": called["id"], "content": "-3"});
    let body = json!({
        "model": "default", "messages": [user, message, result], "tools": tools,
    });
    let next = server.post("/v1/chat/completions", &body).json();
    assert_eq!(next["choices"][0]["message"]["content"], "It is cold.");
    let spent = answer["usage"]["prompt_tokens"].as_u64().unwrap()
        + answer["usage"]["completion_tokens"].as_u64().unwrap();
    let cached = next["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64();
    // The tokens of prompt and answer, up to the end of the tool block.
    assert!(cached >= Some(spent), "{cached:?} of {spent}");

    let body = json!({
        "model": "claude-x", "max_tokens": 500, "messages": [user],
        "tools": [{"name": "get_weather", "input_schema": schema}],
    });
    let answer = server.post("/v1/messages", &body).json();
    assert_eq!(answer["stop_reason"], "tool_use", "{answer}");
    let block = answer["content"].as_array().unwrap().last().unwrap();
    assert_eq!(block["type"], "tool_use");
    assert_eq!(block["input"], json!({"city": "Oslo"}));

    let body = json!({
        "model": "default", "input": "Weather?", "stream": true,
        "tools": [{"type": "function", "name": "get_weather", "parameters": schema}],
    });
    let events = server.post("/v1/responses", &body).events();
    let done = events
        .iter()
        .find(|event| event.name.as_deref() == Some("response.function_call_arguments.done"))
        .expect("the call ends")
        .json();
    let arguments: Value = serde_json::from_str(done["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({"city": "Oslo"}));
}
