//! The encoder: turns to pieces.

use super::dsml::{push_tool_calls, push_tools};
use super::turns::{Speaker, Turn, UserPart, turns};
use crate::prompt::Prompt;
use crate::python_json::{Json, JsonError};
use crate::{ControlToken, Conversation, ResponseFormat, Task, ThinkingMode, ToolChoice, Vintage};

/// Why a conversation cannot be rendered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    /// A developer message must say something.
    #[error("message {index}: a developer message needs content; remove it or fill it")]
    EmptyDeveloper {
        /// Place among the merged messages, from 0.
        index: usize,
    },
    /// A tool schema or response format is not JSON.
    #[error("message {index}: {what}: {source}")]
    Json {
        /// Place among the merged messages, from 0.
        index: usize,
        /// `tool schema` or `response format`.
        what: &'static str,
        /// Where and why.
        source: JsonError,
    },
}

const RESPONSE_SCHEMA: &str =
    "## Response Format:\n\nYou MUST strictly adhere to the following schema to reply:\n";
/// DeepSeek's service, by its own library.
const RESPONSE_JSON: &str = "You are a helpful assistant designed to output JSON.\n## Response Format:\n\nReply with JSON object ONLY.";

/// Renders a conversation, up to and including the token that opens the next answer.
///
/// # Errors
/// [`RenderError`] for a developer message without content and for schemas that are not JSON.
pub fn render(conversation: &Conversation, vintage: Vintage) -> Result<Prompt, RenderError> {
    let mut turns = turns(conversation);
    let thinking = conversation.thinking_mode == ThinkingMode::On;
    let tools_offered = turns.iter().any(|turn| !turn.tools.is_empty());
    let drop_thinking = conversation.drop_thinking && !tools_offered;
    if thinking && drop_thinking {
        let last_user = last_user(&turns);
        let mut index = 0;
        turns.retain(|turn| {
            index += 1;
            !matches!(turn.speaker, Speaker::Developer) || Some(index - 1) >= last_user
        });
    }
    let last_user = last_user(&turns);

    let mut prompt = Prompt::default();
    prompt.push(ControlToken::BeginOfSentence);
    if thinking
        && !turns.is_empty()
        && let Some(effort) = conversation.reasoning_effort
    {
        prompt.push_text(effort.prefix(vintage));
    }
    for index in 0..turns.len() {
        push_turn(
            &mut prompt,
            &turns,
            index,
            thinking && keeps_reasoning(index, last_user, drop_thinking),
        )?;
        let followed = turns.get(index + 1);
        if followed
            .is_none_or(|next| matches!(next.speaker, Speaker::Assistant | Speaker::LatestReminder))
        {
            let opens_thinking = thinking && (!drop_thinking || Some(index) >= last_user);
            push_transition(&mut prompt, &turns[index], thinking, opens_thinking);
        }
    }
    let opens_answer = turns.last().is_some_and(Turn::is_user_like);
    if conversation.tool_choice == ToolChoice::Required
        && tools_offered
        && !thinking
        && opens_answer
    {
        prompt.push_template("\n\n<｜DSML｜tool_calls>\n");
    }
    Ok(prompt)
}

fn last_user(turns: &[Turn<'_>]) -> Option<usize> {
    turns.iter().rposition(Turn::is_user_like)
}

fn keeps_reasoning(index: usize, last_user: Option<usize>, drop_thinking: bool) -> bool {
    !drop_thinking || Some(index) > last_user
}

fn push_turn(
    prompt: &mut Prompt,
    turns: &[Turn<'_>],
    index: usize,
    keeps_reasoning: bool,
) -> Result<(), RenderError> {
    let turn = &turns[index];
    let content = turn
        .message
        .map(|message| message.content.text())
        .unwrap_or_default();
    match &turn.speaker {
        Speaker::System => {
            prompt.push_text(&content);
            push_instructions(prompt, turn, index)?;
        }
        Speaker::Developer => {
            if content.is_empty() {
                return Err(RenderError::EmptyDeveloper { index });
            }
            prompt.push(ControlToken::User);
            prompt.push_text(&content);
            push_instructions(prompt, turn, index)?;
        }
        Speaker::User(parts) => {
            prompt.push(ControlToken::User);
            for (at, part) in parts.iter().enumerate() {
                if at > 0 {
                    prompt.push_text("\n\n");
                }
                match part {
                    UserPart::Text(text) => prompt.push_text(text),
                    UserPart::ToolResult { text, .. } => {
                        prompt.push_text("<tool_result>");
                        prompt.push_text(text);
                        prompt.push_text("</tool_result>");
                    }
                }
            }
        }
        Speaker::LatestReminder => {
            prompt.push(ControlToken::LatestReminder);
            prompt.push_text(&content);
        }
        Speaker::Assistant => {
            let Some(message) = turn.message else {
                return Ok(());
            };
            let continued = message.prefix && index + 1 == turns.len();
            // The answer to a task has no reasoning.
            let answers_task = index > 0 && turns[index - 1].task.is_some();
            if let Some(answer) = message.replay.filter(|_| !continued && !answers_task) {
                prompt.push_sampled(answer, keeps_reasoning);
                if !message.wo_eos {
                    prompt.push(ControlToken::EndOfSentence);
                }
                return Ok(());
            }
            if keeps_reasoning && !answers_task {
                prompt.push_text(message.reasoning_content.as_deref().unwrap_or_default());
                // A prefix of reasoning alone is continued as reasoning.
                if !(continued && content.is_empty() && message.tool_calls.is_empty()) {
                    prompt.push(ControlToken::ThinkEnd);
                }
            }
            prompt.push_text(&content);
            if !message.tool_calls.is_empty() {
                prompt.push_text("\n\n");
                push_tool_calls(prompt, message.tool_calls.iter().map(|call| &call.function));
            }
            if !message.wo_eos && !continued {
                prompt.push(ControlToken::EndOfSentence);
            }
        }
    }
    Ok(())
}

/// Tools and response format after the text of a system or developer message.
fn push_instructions(
    prompt: &mut Prompt,
    turn: &Turn<'_>,
    index: usize,
) -> Result<(), RenderError> {
    let json_error = |what| {
        move |source| RenderError::Json {
            index,
            what,
            source,
        }
    };
    if !turn.tools.is_empty() {
        prompt.push_text("\n\n");
        push_tools(prompt, &turn.tools).map_err(json_error("tool schema"))?;
    }
    if let Some(schema) = turn
        .message
        .and_then(|message| message.response_format.as_ref())
    {
        let schema = Json::read(schema.get()).map_err(json_error("response format"))?;
        if schema != Json::Literal("null") && schema != Json::Object(Vec::new()) {
            push_schema(prompt, &schema);
        }
    }
    match turn.response_format {
        None | Some(ResponseFormat::Text) => {}
        Some(ResponseFormat::JsonObject) => {
            prompt.push_text("\n\n");
            prompt.push_text(RESPONSE_JSON);
        }
        Some(ResponseFormat::JsonSchema { schema }) => {
            let schema = Json::read(&schema.to_string()).map_err(json_error("response format"))?;
            push_schema(prompt, &schema);
        }
    }
    Ok(())
}

fn push_schema(prompt: &mut Prompt, schema: &Json) {
    prompt.push_text("\n\n");
    prompt.push_text(RESPONSE_SCHEMA);
    prompt.push_text(&schema.to_text());
}

/// What opens the answer after the last message before an assistant's, a reminder's or the end.
fn push_transition(prompt: &mut Prompt, turn: &Turn<'_>, thinking: bool, opens_thinking: bool) {
    let task = match turn.task {
        None if turn.is_user_like() => {
            prompt.push(ControlToken::Assistant);
            prompt.push(if opens_thinking {
                ControlToken::ThinkStart
            } else {
                ControlToken::ThinkEnd
            });
            return;
        }
        None => return,
        Some(task) => task,
    };
    let token = match task {
        Task::Action => {
            prompt.push(ControlToken::Assistant);
            prompt.push(if thinking {
                ControlToken::ThinkStart
            } else {
                ControlToken::ThinkEnd
            });
            ControlToken::Action
        }
        Task::Query => ControlToken::Query,
        Task::Authority => ControlToken::Authority,
        Task::Domain => ControlToken::Domain,
        Task::Title => ControlToken::Title,
        Task::ReadUrl => ControlToken::ReadUrl,
    };
    prompt.push(token);
}
