//! Messages to turns: tool results become part of user turns, in the order of their calls.

use std::collections::HashMap;

use crate::{Conversation, Message, ResponseFormat, Role, Task, ToolChoice, ToolSchema};

/// What goes between `<｜User｜>` and the next token, joined by blank lines.
pub(super) enum UserPart<'a> {
    Text(String),
    ToolResult { call: Option<&'a str>, text: String },
}

pub(super) enum Speaker<'a> {
    System,
    Developer,
    User(Vec<UserPart<'a>>),
    Assistant,
    LatestReminder,
}

/// A message after merging.
pub(super) struct Turn<'a> {
    pub(super) speaker: Speaker<'a>,
    /// `None` for a user turn, which is all in its parts.
    pub(super) message: Option<&'a Message>,
    pub(super) task: Option<Task>,
    pub(super) tools: Vec<&'a ToolSchema>,
    pub(super) response_format: Option<&'a ResponseFormat>,
}

impl Turn<'_> {
    pub(super) fn is_user_like(&self) -> bool {
        matches!(self.speaker, Speaker::User(_) | Speaker::Developer)
    }

    fn user_parts(&self) -> Option<&[UserPart<'_>]> {
        match &self.speaker {
            Speaker::User(parts) => Some(parts),
            _ => None,
        }
    }
}

/// Merges tool and user messages as the released encoder does, and puts what the caller gave beside
/// the messages on the last leading system message (or an empty one before them all).
pub(super) fn turns(conversation: &Conversation) -> Vec<Turn<'_>> {
    let mut turns: Vec<Turn<'_>> = Vec::with_capacity(conversation.messages.len() + 1);
    for message in &conversation.messages {
        let speaker = match message.role {
            Role::System => Speaker::System,
            Role::Developer => Speaker::Developer,
            Role::Assistant => Speaker::Assistant,
            Role::LatestReminder => Speaker::LatestReminder,
            Role::User | Role::Tool => {
                let is_tool = message.role == Role::Tool;
                let text = message.content.text();
                let part = if is_tool {
                    UserPart::ToolResult {
                        call: message.tool_call_id.as_deref(),
                        text,
                    }
                } else {
                    UserPart::Text(text)
                };
                // A user message does not join a turn that ends in a task token.
                if let Some(Turn {
                    speaker: Speaker::User(parts),
                    task,
                    ..
                }) = turns.last_mut()
                    && (is_tool || task.is_none())
                {
                    parts.push(part);
                    continue;
                }
                Speaker::User(vec![part])
            }
        };
        let is_user = matches!(speaker, Speaker::User(_));
        turns.push(Turn {
            speaker,
            message: (!is_user).then_some(message),
            task: message.task.filter(|_| message.role != Role::Tool),
            tools: if is_user {
                Vec::new()
            } else {
                message.tools.iter().collect()
            },
            response_format: None,
        });
    }
    add_beside(conversation, &mut turns);
    sort_results(&mut turns);
    turns
}

fn add_beside<'a>(conversation: &'a Conversation, turns: &mut Vec<Turn<'a>>) {
    if conversation.tool_choice == ToolChoice::None {
        turns.iter_mut().for_each(|turn| turn.tools.clear());
    } else if !conversation.tools.is_empty() {
        leading_system(turns).tools.extend(&conversation.tools);
    }
    if let Some(format) = &conversation.response_format
        && !matches!(format, ResponseFormat::Text)
    {
        leading_system(turns).response_format = Some(format);
    }
}

fn leading_system<'t, 'a>(turns: &'t mut Vec<Turn<'a>>) -> &'t mut Turn<'a> {
    let leading = turns
        .iter()
        .take_while(|turn| matches!(turn.speaker, Speaker::System))
        .count();
    if leading == 0 {
        let empty = Turn {
            speaker: Speaker::System,
            message: None,
            task: None,
            tools: Vec::new(),
            response_format: None,
        };
        turns.insert(0, empty);
    }
    &mut turns[leading.saturating_sub(1)]
}

/// Within each user turn the results take the order of the calls they answer; texts keep their places.
/// A result that answers no known call counts as the first.
fn sort_results(turns: &mut [Turn<'_>]) {
    let mut order: HashMap<&str, usize> = HashMap::new();
    for turn in turns {
        if let Some(message) = turn.message
            && matches!(turn.speaker, Speaker::Assistant)
            && !message.tool_calls.is_empty()
        {
            let ids = message
                .tool_calls
                .iter()
                .map(|call| call.id.as_deref().unwrap_or_default());
            order = ids
                .enumerate()
                .filter(|(_, id)| !id.is_empty())
                .map(|(at, id)| (id, at))
                .collect();
        }
        let is_result = |part: &&UserPart<'_>| matches!(part, UserPart::ToolResult { .. });
        if order.is_empty()
            || turn
                .user_parts()
                .map_or(0, |parts| parts.iter().filter(is_result).count())
                < 2
        {
            continue;
        }
        let Speaker::User(parts) = &mut turn.speaker else {
            continue;
        };
        let mut places = Vec::new();
        let mut results = Vec::new();
        for (place, part) in parts.iter_mut().enumerate() {
            if matches!(part, UserPart::ToolResult { .. }) {
                places.push(place);
                results.push(std::mem::replace(part, UserPart::Text(String::new())));
            }
        }
        results.sort_by_key(|part| match part {
            UserPart::ToolResult { call, .. } => {
                order.get(call.unwrap_or_default()).copied().unwrap_or(0)
            }
            UserPart::Text(_) => 0,
        });
        for (place, result) in places.into_iter().zip(results) {
            parts[place] = result;
        }
    }
}
