//! `ds4 parse`: generated text to reasoning, content and tool calls.

use std::io;

use anyhow::Context;
use clap::Args;
use ds4_chat::{ParsedMessage, ParserOptions, parse};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::json_lines;
use crate::output::Output;

/// Arguments of `ds4 parse`.
///
/// Reads one object a line from standard input: "text", and "thinking" if the prompt ended in
/// <think>. Also understood: "tools" (default true), "starts_in_tool_calls", "continues_prefix".
/// Writes "reasoning", "content", "tool_calls"; and "repairs" and "ignored" where there are any.
/// Arguments are as generated: JSON, unless "repairs" says otherwise.
#[derive(Debug, Args)]
pub(crate) struct ParseArguments {}

#[derive(Deserialize)]
struct Record {
    text: String,
    #[serde(default)]
    thinking: bool,
    #[serde(default = "yes")]
    tools: bool,
    #[serde(default)]
    starts_in_tool_calls: bool,
    #[serde(default)]
    continues_prefix: bool,
}

fn yes() -> bool {
    true
}

/// Converts standard input to standard output.
pub(crate) fn run(_: &ParseArguments, output: &mut Output) -> anyhow::Result<()> {
    json_lines::convert(io::stdin().lock(), output, |line| {
        let record: Record =
            serde_json::from_str(line).context("expected an object with \"text\"")?;
        let options = ParserOptions {
            thinking: record.thinking,
            tools: record.tools,
            starts_in_tool_calls: record.starts_in_tool_calls,
            continues_prefix: record.continues_prefix,
            ..ParserOptions::default()
        };
        Ok(to_json(&parse(&record.text, options)))
    })
}

fn to_json(message: &ParsedMessage) -> Value {
    let calls: Vec<Value> = message
        .tool_calls
        .iter()
        .map(|call| json!({ "name": call.name, "arguments": call.arguments }))
        .collect();
    let mut value = json!({
        "reasoning": message.reasoning,
        "content": message.content,
        "tool_calls": calls,
    });
    if !message.repairs.is_empty() {
        let repairs = message
            .repairs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>();
        value["repairs"] = repairs.into();
    }
    if !message.ignored.is_empty() {
        value["ignored"] = message.ignored.as_str().into();
    }
    value
}
