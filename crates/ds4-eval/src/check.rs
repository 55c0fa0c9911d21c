//! What a right answer is.

use std::fmt;

use ds4_chat::ParsedMessage;
use serde::Deserialize;
use serde_json::{Number, Value};

use crate::error::CaseProblem;
use crate::json_equality::equal;
use crate::pattern::Pattern;
use crate::text::{contains_whole, last_number};

/// What a right answer is. Text is the answer behind the reasoning.
#[derive(Debug, Clone)]
pub enum Check {
    /// Every pattern matches.
    Patterns(Vec<Pattern>),
    /// The last number equals this one.
    Number(f64),
    /// It contains this, as a whole word or number, whatever the case of letters.
    Contains(String),
    /// It is JSON and equal to this: numbers by value, keys in any order.
    Json(Value),
    /// It makes exactly these calls, in any order, and in the official form.
    ToolCalls(Vec<ExpectedCall>),
    /// It makes no call, and the pattern matches if there is one.
    NoToolCall(Option<Pattern>),
}

/// A call that the model is to make.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpectedCall {
    /// Name of the tool.
    pub name: String,
    /// Its arguments, compared as JSON.
    pub arguments: serde_json::Map<String, Value>,
}

/// An answer to judge.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Reasoning, text and calls.
    pub message: &'a ParsedMessage,
    /// Tokens of the reasoning.
    pub reasoning_tokens: usize,
}

/// What is wrong with an answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Wrong {
    /// The reasoning is too long for the question.
    #[error("the reasoning has {tokens} tokens, at most {limit} are expected")]
    LongReasoning {
        /// Tokens of the reasoning.
        tokens: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A pattern does not match.
    #[error("`{pattern}` does not match")]
    NoMatch {
        /// Which.
        pattern: String,
    },
    /// The answer has no number.
    #[error("there is no number in it")]
    NoNumber,
    /// The last number is another one.
    #[error("the last number is {found}")]
    OtherNumber {
        /// The last number.
        found: f64,
    },
    /// The text is not in the answer.
    #[error("`{text}` is not in it")]
    NotContained {
        /// The text.
        text: String,
    },
    /// The answer is no JSON.
    #[error("it is no JSON: {problem}")]
    NoJson {
        /// Where and why.
        problem: String,
    },
    /// The answer is other JSON.
    #[error("it is other JSON")]
    OtherJson,
    /// The answer calls no tool.
    #[error("it makes no call")]
    NoCall,
    /// A call was not written in the official form, or not to its end.
    #[error("the calls are malformed: {problem}")]
    MalformedCalls {
        /// The first mistake.
        problem: String,
    },
    /// The calls are others.
    #[error("the calls are others")]
    OtherCalls,
    /// There is a call where none is expected.
    #[error("it calls `{name}`")]
    UnexpectedCall {
        /// Name of the tool.
        name: String,
    },
}

impl Check {
    /// Compares an answer with what is expected.
    pub(crate) fn judge(&self, message: &ParsedMessage) -> Result<(), Wrong> {
        let answer = message.content.as_str();
        match self {
            Self::Patterns(patterns) => patterns.iter().try_for_each(|p| must_match(p, answer)),
            Self::Number(expected) => match last_number(answer) {
                None => Err(Wrong::NoNumber),
                Some(found) if found == *expected => Ok(()),
                Some(found) => Err(Wrong::OtherNumber { found }),
            },
            Self::Contains(text) if contains_whole(answer, text) => Ok(()),
            Self::Contains(text) => Err(Wrong::NotContained { text: text.clone() }),
            Self::Json(expected) => match serde_json::from_str::<Value>(answer) {
                Err(error) => Err(Wrong::NoJson {
                    problem: error.to_string(),
                }),
                Ok(found) if equal(&found, expected) => Ok(()),
                Ok(_) => Err(Wrong::OtherJson),
            },
            Self::ToolCalls(expected) => judge_calls(message, expected),
            Self::NoToolCall(pattern) => match message.tool_calls.first() {
                Some(call) => Err(Wrong::UnexpectedCall {
                    name: call.name.clone(),
                }),
                None => pattern.iter().try_for_each(|p| must_match(p, answer)),
            },
        }
    }
}

fn must_match(pattern: &Pattern, answer: &str) -> Result<(), Wrong> {
    if pattern.is_match(answer) {
        return Ok(());
    }
    Err(Wrong::NoMatch {
        pattern: pattern.as_str().to_owned(),
    })
}

fn judge_calls(message: &ParsedMessage, expected: &[ExpectedCall]) -> Result<(), Wrong> {
    if message.tool_calls.is_empty() {
        return Err(Wrong::NoCall);
    }
    // Clients of other servers would get no call out of what had to be mended.
    if let Some(repair) = message.repairs.first() {
        return Err(Wrong::MalformedCalls {
            problem: repair.to_string(),
        });
    }
    let mut open: Vec<&ExpectedCall> = expected.iter().collect();
    for call in &message.tool_calls {
        let arguments = call
            .valid_arguments()
            .and_then(|arguments| serde_json::from_str(&arguments).ok())
            .ok_or_else(|| Wrong::MalformedCalls {
                problem: format!("the arguments of `{}` are no JSON object", call.name),
            })?;
        let found = Value::Object(arguments);
        let place = open.iter().position(|expected| {
            expected.name == call.name && equal(&Value::Object(expected.arguments.clone()), &found)
        });
        match place {
            Some(place) => open.swap_remove(place),
            None => return Err(Wrong::OtherCalls),
        };
    }
    if open.is_empty() {
        Ok(())
    } else {
        Err(Wrong::OtherCalls)
    }
}

/// What is expected, for people.
impl fmt::Display for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Patterns(patterns) => {
                let texts: Vec<String> = patterns
                    .iter()
                    .map(|pattern| format!("/{}/", pattern.as_str()))
                    .collect();
                formatter.write_str(&texts.join(" and "))
            }
            Self::Number(number) => write!(formatter, "the number {number}"),
            Self::Contains(text) => write!(formatter, "\"{text}\""),
            Self::Json(value) => write!(formatter, "{value}"),
            Self::ToolCalls(calls) => {
                let texts: Vec<String> = calls
                    .iter()
                    .map(|call| format!("{}({})", call.name, Value::Object(call.arguments.clone())))
                    .collect();
                formatter.write_str(&texts.join(", "))
            }
            Self::NoToolCall(None) => formatter.write_str("no call"),
            Self::NoToolCall(Some(pattern)) => {
                write!(formatter, "no call, and /{}/", pattern.as_str())
            }
        }
    }
}

/// A check as written.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum CheckSource {
    Regex { pattern: String },
    All { patterns: Vec<String> },
    Number { value: Number },
    Contains { text: String },
    Json { value: Value },
    ToolCalls { calls: Vec<ExpectedCall> },
    NoToolCall { pattern: Option<String> },
}

impl TryFrom<CheckSource> for Check {
    type Error = CaseProblem;

    fn try_from(source: CheckSource) -> Result<Self, CaseProblem> {
        let empty = |what: &str| CaseProblem::Field {
            field: "check",
            problem: format!("{what} is empty, so every answer would be right or none"),
        };
        Ok(match source {
            CheckSource::Regex { pattern } => Self::Patterns(vec![Pattern::new(pattern)?]),
            CheckSource::All { patterns } if patterns.is_empty() => {
                return Err(empty("`patterns`"));
            }
            CheckSource::All { patterns } => Self::Patterns(
                patterns
                    .into_iter()
                    .map(Pattern::new)
                    .collect::<Result<_, _>>()?,
            ),
            CheckSource::Number { value } => {
                Self::Number(value.as_f64().ok_or_else(|| CaseProblem::Field {
                    field: "check",
                    problem: format!("{value} is no number that can be compared"),
                })?)
            }
            CheckSource::Contains { text } if text.is_empty() => return Err(empty("`text`")),
            CheckSource::Contains { text } => Self::Contains(text),
            CheckSource::Json { value } => Self::Json(value),
            CheckSource::ToolCalls { calls } if calls.is_empty() => return Err(empty("`calls`")),
            CheckSource::ToolCalls { calls } => Self::ToolCalls(calls),
            CheckSource::NoToolCall { pattern } => {
                Self::NoToolCall(pattern.map(Pattern::new).transpose()?)
            }
        })
    }
}
