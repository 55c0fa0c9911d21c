//! Changes JSON as JSON, so that most of what comes out gets past the parser: values are replaced,
//! moved, repeated and taken away, and fields that the APIs know are added.

use libfuzzer_sys::fuzzer_mutate;
use serde_json::{Map, Value, json};

/// Most changes at a time.
const CHANGES: u32 = 4;
/// Most copies of an item at a time.
const COPIES: usize = 8;

/// Names and values that mean something in one of the APIs.
const WORDS: &[&str] = &[
    "",
    "<think>",
    "</think>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜end▁of▁sentence｜>",
    "｜DSML｜",
    "action",
    "additional_tools",
    "adaptive",
    "allowed_tools",
    "any",
    "arguments",
    "array",
    "assistant",
    "auto",
    "background",
    "best_of",
    "budget_tokens",
    "cache_control",
    "call_id",
    "chat_template_kwargs",
    "choice",
    "client_metadata",
    "content",
    "context_management",
    "conversation",
    "custom",
    "custom_tool_call",
    "custom_tool_call_output",
    "data",
    "default",
    "defer_loading",
    "description",
    "developer",
    "disable_parallel_tool_use",
    "disabled",
    "document",
    "echo",
    "edits",
    "effort",
    "enable_thinking",
    "enabled",
    "encrypted_content",
    "enum",
    "format",
    "frequency_penalty",
    "function",
    "function_call",
    "function_call_output",
    "functions",
    "grammar",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "high",
    "id",
    "image",
    "image_url",
    "include",
    "include_usage",
    "input",
    "input_schema",
    "input_text",
    "instructions",
    "integer",
    "item_reference",
    "items",
    "json_object",
    "json_schema",
    "lark",
    "latest_reminder",
    "local_shell",
    "local_shell_call",
    "local_shell_call_output",
    "logit_bias",
    "logprobs",
    "low",
    "max",
    "max_completion_tokens",
    "max_output_tokens",
    "max_tokens",
    "message",
    "messages",
    "metadata",
    "min_p",
    "minItems",
    "mode",
    "model",
    "modalities",
    "n",
    "name",
    "namespace",
    "none",
    "null",
    "number",
    "object",
    "output",
    "output_config",
    "output_format",
    "output_text",
    "parallel_tool_calls",
    "parameters",
    "pattern",
    "prefix",
    "presence_penalty",
    "previous_response_id",
    "priority",
    "prompt",
    "prompt_cache_key",
    "properties",
    "reasoning",
    "reasoning_content",
    "reasoning_effort",
    "redacted_thinking",
    "refusal",
    "regex",
    "repetition_penalty",
    "required",
    "response_format",
    "role",
    "schema",
    "search_result",
    "seed",
    "service_tier",
    "source",
    "stop",
    "stop_sequences",
    "store",
    "stream",
    "stream_options",
    "strict",
    "string",
    "suffix",
    "summary",
    "summary_text",
    "system",
    "temperature",
    "text",
    "thinking",
    "thinking_budget",
    "tool",
    "tool_call_id",
    "tool_calls",
    "tool_choice",
    "tool_reference",
    "tool_result",
    "tool_search",
    "tool_search_call",
    "tool_search_output",
    "tool_use",
    "tool_use_id",
    "tools",
    "top_k",
    "top_logprobs",
    "top_p",
    "type",
    "typical_p",
    "user",
    "web_search",
    "xhigh",
    "additionalProperties",
    "anyOf",
    "$ref",
    "#",
    "#/$defs/a",
    "$defs",
    "(a+)+$",
    "{\"a\": 1}",
];

/// A mutator of libFuzzer: `data[..size]` becomes something of at most `max_size` bytes.
pub fn mutate(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut random = Random(u64::from(seed) | 1 << 32);
    let parsed = serde_json::from_slice::<Value>(&data[..size]);
    // Bytes that are no JSON are of interest too.
    let Ok(mut value) = parsed.map_err(drop).and_then(|value| {
        if random.below(8) == 0 {
            Err(())
        } else {
            Ok(value)
        }
    }) else {
        return fuzzer_mutate(data, size, max_size);
    };
    for _ in 0..=random.below(CHANGES as usize) {
        change(&mut value, &mut random);
    }
    let text = value.to_string();
    match data.get_mut(..text.len()) {
        Some(place) if text.len() <= max_size => {
            place.copy_from_slice(text.as_bytes());
            text.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
}

fn change(value: &mut Value, random: &mut Random) {
    let nodes = count(value);
    let other = pick(value, &mut random.below(nodes)).cloned();
    let Some(node) = pick_mut(value, &mut random.below(nodes)) else {
        return;
    };
    match (random.below(6), node) {
        (0, node) => *node = other.unwrap_or_default(),
        (1 | 2, Value::Array(items)) if !items.is_empty() => {
            let at = random.below(items.len());
            if random.below(3) == 0 {
                items.remove(at);
            } else {
                let item = items[at].clone();
                for _ in 0..=random.below(COPIES) {
                    items.insert(random.below(items.len() + 1), item.clone());
                }
            }
        }
        (1, Value::Object(fields)) if !fields.is_empty() => {
            let name = fields.keys().nth(random.below(fields.len())).cloned();
            if let Some(value) = name.and_then(|name| fields.remove(&name))
                && random.below(2) == 0
            {
                fields.insert(random.word().to_owned(), value);
            }
        }
        (2 | 3, Value::Object(fields)) => {
            let value = match random.below(2) {
                0 => other.unwrap_or_default(),
                _ => random.value(),
            };
            fields.insert(random.word().to_owned(), value);
        }
        (3, Value::Array(items)) => items.push(other.unwrap_or_default()),
        (4, Value::String(text)) => {
            // Somewhere in it.
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = places.get(random.below(places.len() + 1)).copied();
            text.insert_str(at.unwrap_or(text.len()), random.word());
        }
        (_, node) => *node = random.value(),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

/// The value at a place in the order of the text.
fn pick<'a>(value: &'a Value, place: &mut usize) -> Option<&'a Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter().find_map(|item| pick(item, place)),
        Value::Object(fields) => fields.values().find_map(|field| pick(field, place)),
        _ => None,
    }
}

fn pick_mut<'a>(value: &'a mut Value, place: &mut usize) -> Option<&'a mut Value> {
    if *place == 0 {
        return Some(value);
    }
    *place -= 1;
    match value {
        Value::Array(items) => items.iter_mut().find_map(|item| pick_mut(item, place)),
        Value::Object(fields) => fields.values_mut().find_map(|field| pick_mut(field, place)),
        _ => None,
    }
}

/// A linear congruential generator: what comes out follows from the seed alone.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound.max(1)
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len())]
    }

    fn value(&mut self) -> Value {
        let word = self.word();
        match self.below(16) {
            0 => Value::Null,
            1 => json!(true),
            2 => json!(false),
            3 => json!(0),
            4 => json!(-1),
            5 => json!(u64::MAX),
            6 => json!(0.5),
            7 => json!(1e300),
            8 => json!([]),
            9 => Value::Object(Map::new()),
            10 => json!([word]),
            11 => json!({word: self.word()}),
            12 => json!([{"type": word}]),
            _ => json!(word),
        }
    }
}
