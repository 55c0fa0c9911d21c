//! What an answer must look like, as a grammar.

use ds4_grammar::{Format, GrammarError, PendingFactory, ToolChoice, ToolDefinition, ToolFormat};

use crate::turn::{AnswerFormat, ToolUse, TurnRequest};
use crate::wire::RequestError;

/// The grammar of a turn; `None` if anything may be said.
///
/// Waits for the factory on first use, and compiles: not for a thread that serves sockets.
///
/// # Errors
/// A format that cannot be guaranteed, by name.
pub(crate) fn grammar(
    factory: &PendingFactory,
    turn: &TurnRequest,
    starts_in_tool_calls: bool,
) -> Result<Option<ds4_grammar::Grammar>, RequestError> {
    let Some(format) = format(turn, starts_in_tool_calls) else {
        return Ok(None);
    };
    factory
        .wait()
        .and_then(|factory| factory.prepare(&format))
        .map(Some)
        .map_err(|error| refused(turn, &error))
}

fn format(turn: &TurnRequest, starts_in_tool_calls: bool) -> Option<Format> {
    let answer = match &turn.format {
        AnswerFormat::JsonSchema(schema) => Some(schema.to_string()),
        AnswerFormat::JsonObject => Some(r#"{"type": "object"}"#.to_owned()),
        _ => None,
    };
    if !turn.tools.is_empty() {
        let (choice, among) = match &turn.tool_use {
            ToolUse::Auto => (ToolChoice::Auto, None),
            ToolUse::None => (ToolChoice::None, None),
            ToolUse::Required => (ToolChoice::Required, None),
            ToolUse::Named(name) => (ToolChoice::Named(name.clone()), None),
            ToolUse::Among {
                names,
                required: true,
            } => (ToolChoice::Required, Some(names)),
            ToolUse::Among {
                names,
                required: false,
            } => (ToolChoice::Auto, Some(names)),
        };
        let tools = turn
            .tools
            .iter()
            .filter(|tool| among.is_none_or(|names| names.contains(&tool.name)))
            .map(|tool| ToolDefinition {
                name: tool.name.clone(),
                parameters: Some(tool.parameters.to_string()),
                strict: tool.strict,
            })
            .collect();
        return Some(Format::Tools(ToolFormat {
            tools,
            choice,
            parallel: turn.parallel_tool_calls,
            starts_in_tool_calls,
            answer,
        }));
    }
    match &turn.format {
        AnswerFormat::Text => None,
        AnswerFormat::JsonObject => Some(Format::JsonObject),
        AnswerFormat::JsonSchema(schema) => Some(Format::JsonSchema(schema.to_string())),
        AnswerFormat::Regex(regex) => Some(Format::Regex(regex.clone())),
        AnswerFormat::Lark(lark) => Some(Format::Lark(lark.clone())),
        AnswerFormat::Choice(choices) => Some(Format::Choice(choices.clone())),
    }
}

fn refused(turn: &TurnRequest, error: &GrammarError) -> RequestError {
    let param = if turn.tools.is_empty() {
        "response_format"
    } else {
        "tools"
    };
    let refused = RequestError::field(param, format!("Invalid '{param}': {error}"));
    match error {
        GrammarError::Busy => refused.with_status(429),
        GrammarError::Vocabulary { .. } => refused.with_status(500),
        _ => refused.with_code("invalid_schema"),
    }
}
