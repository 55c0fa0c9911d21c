//! The form of the answer, as OpenAI's APIs and their extensions write it.

use ds4_chat::ResponseFormat;
use serde_json::Value;

use super::{Fields, RequestError};
use crate::turn::AnswerFormat;

/// Reads a format object: `text`, `json_object`, `json_schema`, `regex`, `lark`, `choice`.
///
/// The schema may stand in `json_schema.schema` (chat) or in `schema` (Responses, Messages).
///
/// # Errors
/// An unknown type, or a part that is missing.
pub(crate) fn format(fields: &Fields<'_>) -> Result<AnswerFormat, RequestError> {
    Ok(match fields.required_string("type")? {
        "text" => AnswerFormat::Text,
        "json_object" => AnswerFormat::JsonObject,
        "json_schema" => {
            let inner = fields.object("json_schema")?;
            let holder = inner.as_ref().unwrap_or(fields);
            let schema = holder.required("schema")?;
            if !schema.is_object() && !schema.is_boolean() {
                let path = holder.path_of("schema");
                return Err(RequestError::field(
                    &path,
                    format!("Invalid '{path}': expected a JSON Schema object"),
                ));
            }
            AnswerFormat::JsonSchema(schema.clone())
        }
        "regex" => AnswerFormat::Regex(
            match fields.string("regex")? {
                Some(regex) => regex,
                None => fields.required_string("pattern")?,
            }
            .to_owned(),
        ),
        "lark" | "grammar" => AnswerFormat::Lark(
            match fields.string("lark")? {
                Some(lark) => lark,
                None => fields.required_string("grammar")?,
            }
            .to_owned(),
        ),
        "choice" => {
            let path = fields.path_of("choices");
            let choices = match fields.array("choices")? {
                Some(choices) => choices,
                None => fields.array("choice")?.unwrap_or_default(),
            };
            let choices: Option<Vec<String>> = choices
                .iter()
                .map(|choice| choice.as_str().map(str::to_owned))
                .collect();
            match choices {
                Some(choices) if !choices.is_empty() => AnswerFormat::Choice(choices),
                _ => {
                    return Err(RequestError::field(
                        &path,
                        format!("Invalid '{path}': expected an array of strings"),
                    ));
                }
            }
        }
        other => {
            let path = fields.path_of("type");
            return Err(RequestError::field(
                &path,
                format!(
                    "Invalid '{path}': `{other}`, expected text, json_object, json_schema, regex, lark or choice"
                ),
            ));
        }
    })
}

/// What the prompt says about the format.
pub(crate) fn shown(format: &AnswerFormat) -> Option<ResponseFormat> {
    match format {
        AnswerFormat::JsonObject => Some(ResponseFormat::JsonObject),
        AnswerFormat::JsonSchema(schema) => Some(ResponseFormat::JsonSchema {
            schema: schema.clone(),
        }),
        AnswerFormat::Text
        | AnswerFormat::Regex(_)
        | AnswerFormat::Lark(_)
        | AnswerFormat::Choice(_) => None,
    }
}

/// Reads vLLM's `guided_*` fields, which stand beside the messages.
///
/// # Errors
/// A field of the wrong type.
pub(crate) fn guided(body: &Fields<'_>) -> Result<Option<AnswerFormat>, RequestError> {
    if let Some(schema) = body.get("guided_json") {
        // Some clients send the schema as text.
        let schema = match schema {
            Value::String(text) => serde_json::from_str(text).map_err(|error| {
                RequestError::field("guided_json", format!("Invalid 'guided_json': {error}"))
            })?,
            schema => schema.clone(),
        };
        return Ok(Some(AnswerFormat::JsonSchema(schema)));
    }
    if let Some(regex) = body.string("guided_regex")? {
        return Ok(Some(AnswerFormat::Regex(regex.to_owned())));
    }
    if let Some(grammar) = body.string("guided_grammar")? {
        return Ok(Some(AnswerFormat::Lark(grammar.to_owned())));
    }
    if let Some(choices) = body.array("guided_choice")? {
        let choices: Option<Vec<String>> = choices
            .iter()
            .map(|choice| choice.as_str().map(str::to_owned))
            .collect();
        return choices
            .filter(|choices| !choices.is_empty())
            .map(|choices| Some(AnswerFormat::Choice(choices)))
            .ok_or_else(|| {
                RequestError::field(
                    "guided_choice",
                    "Invalid 'guided_choice': expected an array of strings",
                )
            });
    }
    Ok(None)
}
