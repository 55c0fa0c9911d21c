//! One question.

use ds4_chat::{Conversation, Message, ReasoningEffort, ResponseFormat, ThinkingMode, ToolSchema};
use serde::Deserialize;
use serde_json::Value;

use crate::check::{Answer, Check, CheckSource, Wrong};
use crate::error::CaseProblem;

/// Longest id and category, in characters.
const LONGEST_NAME: usize = 128;

/// Most tokens that a case may ask for.
const MOST_TOKENS: usize = 1 << 20;

/// How much the model thinks before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Thinking {
    /// It answers at once.
    #[default]
    Off,
    /// It thinks.
    High,
    /// It thinks as hard as possible.
    Max,
}

/// A question and how its answer is judged.
#[derive(Debug, Clone)]
pub struct Case {
    /// Name, unique in its file.
    pub id: String,
    /// What it measures; scores are per category.
    pub category: String,
    /// Thinking before the answer.
    pub thinking: Thinking,
    /// Longest answer in tokens, thinking included.
    pub max_tokens: usize,
    /// What a right answer is.
    pub check: Check,
    /// The answer is wrong if its reasoning has more tokens.
    pub reasoning_max_tokens: Option<usize>,
    messages: Vec<Message>,
    tools: Vec<ToolSchema>,
    response_format: Option<ResponseFormat>,
}

impl Case {
    /// Reads a case from a line of JSON.
    ///
    /// # Errors
    /// No JSON, unknown or missing fields, values out of range, patterns that do not compile.
    pub fn from_json(line: &str) -> Result<Self, CaseProblem> {
        serde_json::from_str::<CaseSource>(line)?.try_into()
    }

    /// What the model is asked.
    pub fn conversation(&self) -> Conversation {
        let (thinking_mode, reasoning_effort) = match self.thinking {
            Thinking::Off => (ThinkingMode::Off, None),
            Thinking::High => (ThinkingMode::On, Some(ReasoningEffort::High)),
            Thinking::Max => (ThinkingMode::On, Some(ReasoningEffort::Max)),
        };
        Conversation {
            messages: self.messages.clone(),
            thinking_mode,
            reasoning_effort,
            tools: self.tools.clone(),
            response_format: self.response_format.clone(),
            ..Conversation::default()
        }
    }

    /// Whether the model may call tools.
    pub fn offers_tools(&self) -> bool {
        !self.tools.is_empty()
            || self
                .messages
                .iter()
                .any(|message| !message.tools.is_empty())
    }

    /// Compares an answer with what is expected.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn judge(&self, answer: &Answer<'_>) -> Result<(), Wrong> {
        if let Some(limit) = self.reasoning_max_tokens
            && answer.reasoning_tokens > limit
        {
            return Err(Wrong::LongReasoning {
                tokens: answer.reasoning_tokens,
                limit,
            });
        }
        self.check.judge(answer.message)
    }
}

/// A case as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CaseSource {
    id: String,
    category: String,
    messages: Vec<Message>,
    #[serde(default)]
    tools: Option<Vec<ToolSchema>>,
    #[serde(default)]
    response_format: Option<ResponseFormatSource>,
    #[serde(default)]
    thinking: Thinking,
    max_tokens: usize,
    check: CheckSource,
    #[serde(default)]
    reasoning_max_tokens: Option<usize>,
}

/// The response format, with its schema where OpenAI's chat API has it, or beside the type.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormatSource {
    Text,
    JsonObject,
    JsonSchema {
        schema: Option<Value>,
        json_schema: Option<NamedSchema>,
    },
}

#[derive(Deserialize)]
struct NamedSchema {
    schema: Value,
}

impl TryFrom<ResponseFormatSource> for ResponseFormat {
    type Error = CaseProblem;

    fn try_from(source: ResponseFormatSource) -> Result<Self, CaseProblem> {
        Ok(match source {
            ResponseFormatSource::Text => Self::Text,
            ResponseFormatSource::JsonObject => Self::JsonObject,
            ResponseFormatSource::JsonSchema {
                schema,
                json_schema,
            } => Self::JsonSchema {
                schema: json_schema
                    .map(|named| named.schema)
                    .or(schema)
                    .ok_or_else(|| CaseProblem::Field {
                        field: "response_format",
                        problem: "it has no schema".to_owned(),
                    })?,
            },
        })
    }
}

impl TryFrom<CaseSource> for Case {
    type Error = CaseProblem;

    fn try_from(source: CaseSource) -> Result<Self, CaseProblem> {
        check_name("id", &source.id)?;
        check_name("category", &source.category)?;
        if source.messages.is_empty() {
            return Err(CaseProblem::Field {
                field: "messages",
                problem: "it is empty".to_owned(),
            });
        }
        if !(1..=MOST_TOKENS).contains(&source.max_tokens) {
            return Err(CaseProblem::Field {
                field: "max_tokens",
                problem: format!("it is {}, expected 1 to {MOST_TOKENS}", source.max_tokens),
            });
        }
        Ok(Self {
            id: source.id,
            category: source.category,
            thinking: source.thinking,
            max_tokens: source.max_tokens,
            check: source.check.try_into()?,
            reasoning_max_tokens: source.reasoning_max_tokens,
            messages: source.messages,
            tools: source.tools.unwrap_or_default(),
            response_format: source.response_format.map(TryInto::try_into).transpose()?,
        })
    }
}

/// Names are shown on terminals and are keys of the scores.
fn check_name(field: &'static str, name: &str) -> Result<(), CaseProblem> {
    let length = name.chars().count();
    let problem = if !(1..=LONGEST_NAME).contains(&length) {
        format!("it has {length} characters, expected 1 to {LONGEST_NAME}")
    } else if name.chars().any(char::is_control) {
        "it has control characters".to_owned()
    } else {
        return Ok(());
    };
    Err(CaseProblem::Field { field, problem })
}

#[cfg(test)]
mod tests;
