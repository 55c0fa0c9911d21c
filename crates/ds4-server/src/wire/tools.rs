//! Tools that all dialects offer in much the same way.

use ds4_chat::ToolSchema;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::{Fields, RequestError};
use crate::turn::{OfferedTool, ToolKind};

/// Most tools of a request.
const MAX_TOOLS: usize = 1024;
/// Most calls of a conversation that wait for their results at a time.
const MAX_OPEN_CALLS: usize = 1024;
/// Longest name of a tool.
const MAX_NAME: usize = 128;

/// Tools in the making: what may be called, and what the prompt shows.
#[derive(Debug, Default)]
pub(crate) struct Tools {
    pub(crate) offered: Vec<OfferedTool>,
    pub(crate) shown: Vec<ToolSchema>,
}

impl Tools {
    /// Adds a tool: `path` is where the request names it, `schema` the object that the prompt shows,
    /// with the tool's full name.
    ///
    /// # Errors
    /// A bad or repeated name, too many tools, parameters that are no object.
    pub(crate) fn add(
        &mut self,
        path: &str,
        tool: OfferedTool,
        schema: &Map<String, Value>,
    ) -> Result<(), RequestError> {
        let name_path = format!("{path}.name");
        let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':' | '/');
        if tool.name.is_empty() || tool.name.len() > MAX_NAME || !tool.name.chars().all(valid) {
            return Err(RequestError::field(
                &name_path,
                format!(
                    "Invalid '{name_path}': string does not match pattern. Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'."
                ),
            ));
        }
        if self.offered.len() == MAX_TOOLS {
            return Err(RequestError::field(
                "tools",
                format!("Invalid 'tools': at most {MAX_TOOLS} are supported"),
            ));
        }
        if !tool.parameters.is_object() {
            return Err(RequestError::field(
                path,
                format!("Invalid '{path}': the parameters must be a JSON Schema object"),
            ));
        }
        // The same tool twice happens; two different ones under a name cannot be told apart.
        if let Some(earlier) = self.offered.iter().find(|other| other.name == tool.name) {
            if *earlier == tool {
                return Ok(());
            }
            return Err(RequestError::field(
                &name_path,
                format!(
                    "Invalid '{name_path}': another tool is already called `{}`",
                    tool.name
                ),
            ));
        }
        let text = serde_json::to_string(schema)
            .and_then(RawValue::from_string)
            .map_err(|error| RequestError::field(path, error.to_string()))?;
        self.shown.push(ToolSchema { function: text });
        self.offered.push(tool);
        Ok(())
    }

    /// Adds a function as OpenAI's APIs write it: name, description, parameters, strict.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub(crate) fn add_function(
        &mut self,
        fields: &Fields<'_>,
        path: &str,
        namespace: Option<&str>,
    ) -> Result<(), RequestError> {
        let name = fields.required_string("name")?;
        let strict = fields.boolean("strict")?.unwrap_or(false);
        let full_name = namespace.map_or_else(|| name.to_owned(), |space| joined(space, name));
        let parameters = match fields.get("parameters") {
            Some(parameters) => parameters.clone(),
            None => json!({"type": "object", "properties": {}}),
        };
        let mut shown = Map::new();
        shown.insert("name".to_owned(), Value::from(full_name.as_str()));
        for (key, value) in fields.map() {
            // What DeepSeek's service shows; the rest is for the server.
            if matches!(key.as_str(), "description" | "parameters") && !value.is_null() {
                shown.insert(key.clone(), value.clone());
            }
        }
        let tool = OfferedTool {
            name: full_name,
            namespace: namespace.map(|space| (space.to_owned(), name.to_owned())),
            kind: ToolKind::Function,
            parameters,
            strict,
        };
        self.add(path, tool, &shown)
    }
}

/// Refuses more calls at a time than anybody makes: each result is looked up among them.
///
/// # Errors
/// Too many.
pub(crate) fn check_open_calls(calls: usize, path: &str) -> Result<(), RequestError> {
    if calls <= MAX_OPEN_CALLS {
        return Ok(());
    }
    Err(RequestError::field(
        path,
        format!("Invalid '{path}': at most {MAX_OPEN_CALLS} calls can wait for their results"),
    ))
}

/// Name of a tool in a group, as DeepSeek's service joins them.
pub(crate) fn joined(namespace: &str, name: &str) -> String {
    if namespace.ends_with("__") {
        format!("{namespace}{name}")
    } else {
        format!("{namespace}__{name}")
    }
}
