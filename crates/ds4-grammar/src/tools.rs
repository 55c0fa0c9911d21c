//! Tool calls in DSML.

mod grammar;
mod parameter;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::GrammarError;

pub(crate) use grammar::tool_grammar;

/// An answer that may call tools.
///
/// Every call is whole, names a tool of the list, and has each parameter at most once, in any order up to
/// 64 of them and in the order of the schema beyond. The parameters that the schema declares are the only
/// ones, unless it says `additionalProperties` or declares none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolFormat {
    /// The tools.
    pub tools: Vec<ToolDefinition>,
    /// Whether there are calls.
    pub choice: ToolChoice,
    /// Several calls may come in one answer.
    pub parallel: bool,
    /// The prompt has opened the tool block, as `ds4_chat::ToolChoice::Required` does without thinking.
    pub starts_in_tool_calls: bool,
    /// The JSON schema of an answer without calls; any text if there is none.
    pub answer: Option<String>,
}

/// A tool as far as its calls go.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ToolDefinition {
    /// Its name.
    pub name: String,
    /// The JSON schema of its arguments, given as its text; anything if there is none.
    pub parameters: Option<String>,
    /// Arguments follow the schema exactly. Otherwise only their names do, and whether they are strings.
    pub strict: bool,
}

/// Whether an answer calls tools.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No calls.
    None,
    /// At least one call, and no text.
    Required,
    /// One call of this tool, and no text.
    Named(String),
}

impl ToolDefinition {
    /// Reads the `function` object of OpenAI's API: `name`, `parameters`, `strict`.
    ///
    /// # Errors
    /// Not such an object.
    pub fn from_function(function: &str) -> Result<Self, GrammarError> {
        #[derive(Deserialize)]
        struct Function<'a> {
            name: String,
            #[serde(borrow, default)]
            parameters: Option<&'a RawValue>,
            #[serde(default)]
            strict: Option<bool>,
        }
        let function: Function<'_> =
            serde_json::from_str(function).map_err(|error| GrammarError::NotJson {
                place: "the function of a tool".to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self {
            name: function.name,
            parameters: function.parameters.map(|schema| schema.get().to_owned()),
            strict: function.strict.unwrap_or(false),
        })
    }
}
