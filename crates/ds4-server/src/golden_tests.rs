//! Streams and prompts against DeepSeek's own library (`stream_events`, `api_to_prompt`).

use std::io::Read;

use ds4_chat::{ParserOptions, Vintage, render};
use ds4_engine::SamplerSettings;
use ds4_tokenizer::Tokenizer;
use flate2::read::GzDecoder;
use serde_json::{Value, json};

use crate::anthropic::{MessageHeader, MessageStream, message_answer, messages_request};
use crate::openai::{ChatHeader, ChatStream, chat_answer, chat_request};
use crate::responses::{ResponseHeader, ResponseStream, responses_request};
use crate::turn::{
    Answer, Assembler, AssemblerOptions, FinishReason, GenerationEnd, Thinking, ToolUse, TurnEnd,
    TurnEvent, TurnRequest, Usage,
};
use crate::wire::RequestError;

const STREAMS: &[u8] = include_bytes!("../../ds4-chat/tests/data/stream_events.jsonl.gz");
const REQUESTS: &[u8] = include_bytes!("../tests/data/api_to_prompt.jsonl.gz");
const TOKENIZER: &[u8] =
    include_bytes!("../../ds4-tokenizer/tests/data/deepseek-v4-tokenizer.json.gz");
const HIGH: Thinking = Thinking::On(ds4_chat::ReasoningEffort::High);

fn unpacked(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    GzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

fn rows(bytes: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(unpacked(bytes)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn events(row: &Value, turn: &TurnRequest, tokenizer: &Tokenizer) -> Vec<TurnEvent> {
    let thinking = turn.conversation.thinking_mode == ds4_chat::ThinkingMode::On;
    let mut assembler = Assembler::new(
        tokenizer,
        AssemblerOptions {
            parser: ParserOptions {
                thinking,
                tools: !turn.tools.is_empty(),
                starts_in_tool_calls: !thinking && turn.tool_use == ToolUse::Required,
                ..ParserOptions::default()
            },
            stop: turn.stop.clone(),
            call_id_prefix: "call_",
        },
    );
    let mut ids = Vec::new();
    tokenizer.encode_with_specials(row["generated_text"].as_str().unwrap(), &mut ids);
    let mut out = Vec::new();
    for id in ids {
        if !assembler.token(id, &mut out) {
            break;
        }
    }
    let end = match row["backend_finish"].as_str().unwrap() {
        "length" => GenerationEnd::Length,
        _ => GenerationEnd::EndToken,
    };
    let (completion, reasoning) = assembler.counts();
    let reason = assembler.finish(end, &mut out);
    out.push(TurnEvent::Finished(TurnEnd {
        reason,
        usage: Usage {
            prompt: 10,
            cached: 0,
            completion,
            reasoning,
        },
    }));
    out
}

/// Removes what differs from run to run: ids and times.
fn normal(mut value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "id" | "signature" => *value = Value::from("ID"),
                        "created" => *value = Value::from(0),
                        // Theirs leaves out tokens of newlines that are cut off.
                        "reasoning_tokens" => *value = Value::from(0),
                        _ => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    walk(&mut value);
    value
}

/// Joins neighbouring fragments of one text, which are cut elsewhere in every implementation.
fn join(events: Vec<Value>, fragment: impl Fn(&mut Value) -> Option<&mut Value>) -> Vec<Value> {
    let mut out: Vec<Value> = Vec::new();
    for mut event in events {
        if let Some(text) = fragment(&mut event) {
            let text = std::mem::replace(text, Value::from(""))
                .as_str()
                .unwrap()
                .to_owned();
            if let Some(last) = out.last_mut() {
                let mut blank = last.clone();
                if let (Some(before), Some(held)) = (fragment(&mut blank), fragment(last)) {
                    let joined = format!("{}{text}", before.as_str().unwrap());
                    *before = Value::from("");
                    if blank == event {
                        *held = Value::from(joined);
                        continue;
                    }
                }
            }
            if let Some(held) = fragment(&mut event) {
                *held = Value::from(text);
            }
        }
        out.push(event);
    }
    out
}

fn chat_fragment(event: &mut Value) -> Option<&mut Value> {
    if !event["choices"][0]["finish_reason"].is_null() {
        return None;
    }
    let delta = event.pointer_mut("/choices/0/delta")?;
    if delta.get("role").is_some() {
        return None;
    }
    let path = if delta.get("tool_calls").is_some() {
        if delta.pointer("/tool_calls/0/id").is_some() {
            return None;
        }
        "/tool_calls/0/function/arguments"
    } else if delta.get("reasoning_content").is_some_and(Value::is_string) {
        "/reasoning_content"
    } else {
        "/content"
    };
    delta.pointer_mut(path)
}

fn message_fragment(event: &mut Value) -> Option<&mut Value> {
    let delta = event.get_mut("delta")?;
    match delta.get("type")?.as_str()? {
        "thinking_delta" => delta.get_mut("thinking"),
        "text_delta" => delta.get_mut("text"),
        "input_json_delta" => delta.get_mut("partial_json"),
        _ => None,
    }
}

/// Rows in which we differ on purpose (`crates/ds4-chat/DECISIONS.md`).
fn differs_on_purpose(id: &str) -> bool {
    // A whole text at once: theirs counts the tokens behind the stop text too.
    if id.starts_with("stop_sequence") && id.ends_with("one_chunk") {
        return true;
    }
    let name = id.split('|').next().unwrap();
    [
        // A value without a `string` attribute is a string; the call does not get lost.
        "tool_string_flag_missing",
        "tool_extra_spaces",
        // The format is enforced while sampling, text before the JSON cannot come up.
        "json_bare",
        // Generation ends with the tool block; theirs reads on, and counts it.
        "tool_in_reasoning",
        // A value that is no JSON; the grammar keeps it from coming up.
        "tool_bad_json_value",
    ]
    .contains(&name)
}

#[test]
fn chat_streams_equal_those_of_the_official_library() {
    let tokenizer = Tokenizer::from_json(&unpacked(TOKENIZER)).unwrap();
    let mut compared = 0;
    for row in rows(STREAMS) {
        let id = row["id"].as_str().unwrap();
        if !id.contains("|chat|") || differs_on_purpose(id) {
            continue;
        }
        let request = chat_request(&row["request"], &SamplerSettings::default(), HIGH).unwrap();
        let events = events(&row, &request.turn, &tokenizer);
        let header = ChatHeader {
            id: "x".to_owned(),
            created: 0,
            model: request.turn.model.clone(),
            thinking: request.turn.conversation.thinking_mode == ds4_chat::ThinkingMode::On,
        };
        let mut stream = ChatStream::new(header.clone(), request.include_usage);
        let mut ours = vec![stream.start()];
        ours.extend(events.iter().filter_map(|event| stream.event(event)));
        let theirs = row["events"].as_array().unwrap();
        let theirs = theirs
            .iter()
            .map(|event| normal(event[1].clone()))
            .collect();
        let ours: Vec<Value> = ours.into_iter().map(normal).collect();
        assert_eq!(
            join(ours, chat_fragment),
            join(theirs, chat_fragment),
            "{id}"
        );
        let mut answer = Answer::default();
        events.iter().for_each(|event| answer.add(event));
        assert_eq!(
            normal(chat_answer(&header, &answer)),
            normal(row["final"].clone()),
            "{id}"
        );
        compared += 1;
    }
    assert!(compared >= 40, "{compared}");
}

#[test]
fn message_streams_equal_those_of_the_official_library() {
    let tokenizer = Tokenizer::from_json(&unpacked(TOKENIZER)).unwrap();
    let mut compared = 0;
    for row in rows(STREAMS) {
        let id = row["id"].as_str().unwrap();
        if !id.contains("|messages|") || differs_on_purpose(id) {
            continue;
        }
        let turn =
            messages_request(&row["request"], &SamplerSettings::default(), HIGH, true).unwrap();
        let events = events(&row, &turn, &tokenizer);
        let header = MessageHeader {
            id: "x".to_owned(),
            model: turn.model.clone(),
            usage: Usage {
                prompt: 10,
                ..Usage::default()
            },
        };
        let mut stream = MessageStream::new(header.clone());
        let mut ours = vec![stream.start()];
        for event in &events {
            ours.extend(stream.event(event));
        }
        // Signs of life depend on the clock.
        let theirs = row["events"].as_array().unwrap().iter();
        let theirs = theirs
            .map(|event| normal(event[1].clone()))
            .filter(|event| event["type"] != "ping")
            .collect();
        let ours: Vec<Value> = ours.into_iter().map(normal).collect();
        assert_eq!(
            join(ours, message_fragment),
            join(theirs, message_fragment),
            "{id}"
        );
        let mut answer = Answer::default();
        events.iter().for_each(|event| answer.add(event));
        assert_eq!(
            normal(message_answer(&header, &answer)),
            normal(row["final"].clone()),
            "{id}"
        );
        compared += 1;
    }
    assert!(compared >= 40, "{compared}");
}

fn response_fragment(event: &mut Value) -> Option<&mut Value> {
    let kind = event.get("type")?.as_str()?;
    if !kind.ends_with(".delta") {
        return None;
    }
    event.get_mut("delta")
}

/// Ids and times of responses; the numbering depends on how text is cut.
fn normal_response(value: Value) -> Value {
    fn walk(value: &mut Value) {
        match value {
            Value::Object(map) => {
                for (key, value) in map.iter_mut() {
                    match key.as_str() {
                        "item_id" | "call_id" | "encrypted_content" => *value = Value::from("ID"),
                        "created_at" | "completed_at" | "sequence_number" => {
                            *value = Value::from(u8::from(!value.is_null()));
                        }
                        _ => walk(value),
                    }
                }
            }
            Value::Array(items) => items.iter_mut().for_each(walk),
            _ => {}
        }
    }
    let mut value = normal(value);
    walk(&mut value);
    // Answers are kept for a later request unless the client forbids it.
    if let Some(store) = value.pointer_mut("/response/store") {
        *store = Value::from(false);
    }
    value
}

#[test]
fn response_streams_equal_those_of_the_official_library() {
    let tokenizer = Tokenizer::from_json(&unpacked(TOKENIZER)).unwrap();
    let mut compared = 0;
    for row in rows(STREAMS) {
        let id = row["id"].as_str().unwrap();
        // A call that is cut off is not called completed.
        let cut = id.starts_with("tool_truncated")
            && (row["backend_finish"] == "stop" || id.starts_with("tool_truncated_after_invoke"));
        if !id.contains("|responses|") || differs_on_purpose(id) || cut {
            continue;
        }
        let request =
            responses_request(&row["request"], &[], &SamplerSettings::default(), HIGH).unwrap();
        let events = events(&row, &request.turn, &tokenizer);
        let mut stream = ResponseStream::new(ResponseHeader {
            id: "resp_x".to_owned(),
            created: 1,
            model: request.turn.model.clone(),
            echo: request.echo.clone(),
            tools: request.turn.tools.clone(),
        });
        let mut ours = stream.start();
        for event in &events {
            ours.extend(stream.event(event, 2));
        }
        let numbers: Vec<_> = ours
            .iter()
            .map(|event| event["sequence_number"].clone())
            .collect();
        assert!((0..numbers.len()).map(Value::from).eq(numbers), "{id}");
        let theirs = row["events"].as_array().unwrap().iter();
        let theirs = theirs
            .map(|event| normal_response(event[1].clone()))
            .collect();
        let ours: Vec<Value> = ours.into_iter().map(normal_response).collect();
        let (ours, theirs) = (
            join(ours, response_fragment),
            join(theirs, response_fragment),
        );
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert_eq!(ours, theirs, "{id}");
        }
        assert_eq!(ours.len(), theirs.len(), "{id}");
        compared += 1;
    }
    assert!(compared >= 36, "{compared}");
}

fn turn_of(row: &Value) -> Result<TurnRequest, RequestError> {
    let defaults = SamplerSettings::default();
    match row["api"].as_str().unwrap() {
        "chat" => chat_request(&row["request"], &defaults, HIGH).map(|request| request.turn),
        "messages" => messages_request(&row["request"], &defaults, HIGH, true),
        _ => responses_request(&row["request"], &[], &defaults, HIGH).map(|request| request.turn),
    }
}

/// Requests that we treat otherwise than DeepSeek's service, on purpose.
const OTHERWISE: &[&str] = &[
    // Served: the model's name has a default, developer messages are instructions, JSON is
    // guaranteed by the grammar, strict schemas too, forced calls work while thinking.
    "chat/no_model",
    "chat/developer",
    "chat/rf_json_object",
    "chat/tools_strict",
    "chat/seed_neg",
    "chat/tools_required",
    "chat/tools_named",
    "messages/redacted_thinking",
    "messages/tools_any_off",
    "messages/tools_any",
    "messages/tools_tool",
    "messages/json_schema",
    "messages/output_format_legacy",
    // Refused by name instead of shown as `[Unsupported Image]` or ignored.
    "chat/image_part",
    "messages/image",
    "chat/functions_legacy",
    // Blank arguments are no parameters (crates/ds4-chat/DECISIONS.md), and a call without
    // arguments has a blank line.
    "chat/tool_args_empty",
    "chat/tool_loop_no_tools",
    "chat/latest_reminder",
    // OpenRouter's name of the field is understood.
    "chat/reasoning_field",
    "responses/tools_required",
    "responses/text_json_object",
    // Choosing among the tools is understood.
    "responses/tools_allowed",
    // Without OpenAI's store there is nothing that it could refer to.
    "responses/item_reference",
    // The client's own description of its tool is shown.
    "responses/tools_custom",
    // A call without arguments has a blank line (crates/ds4-chat/DECISIONS.md).
    "responses/loop_summary_only",
];

#[test]
fn requests_become_the_prompts_of_the_official_library() {
    let mut wrong = Vec::new();
    let mut compared = 0;
    for row in rows(REQUESTS) {
        let id = row["id"].as_str().unwrap();
        if OTHERWISE.contains(&id) {
            continue;
        }
        let found = turn_of(&row);
        match (row["expected"].get("prompt"), found) {
            (Some(prompt), Ok(turn)) => {
                let ours = render(&turn.conversation, Vintage::Release0731)
                    .unwrap()
                    .text();
                if ours != prompt.as_str().unwrap() {
                    wrong.push(json!({"id": id, "ours": ours, "theirs": prompt}));
                }
            }
            (None, Err(_)) => {}
            (Some(_), Err(error)) => wrong.push(json!({"id": id, "error": error.message})),
            (None, Ok(_)) => wrong.push(json!({"id": id, "accepted": row["expected"]})),
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(compared >= 45, "{compared}");
}

#[test]
fn finish_reasons_are_told_apart() {
    let tokenizer = Tokenizer::from_json(&unpacked(TOKENIZER)).unwrap();
    let row = json!({"generated_text": "one two END three", "backend_finish": "stop"});
    let request = json!({
        "messages": [{"role": "user", "content": "q"}], "stop": "END",
        "thinking": {"type": "disabled"},
    });
    let turn = chat_request(&request, &SamplerSettings::default(), HIGH)
        .unwrap()
        .turn;
    let events = events(&row, &turn, &tokenizer);
    let Some(TurnEvent::Finished(end)) = events.last() else {
        panic!("{events:?}");
    };
    assert_eq!(end.reason, FinishReason::StopSequence("END".to_owned()));
}
