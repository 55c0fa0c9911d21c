//! The many ways in which clients say whether to think.

use ds4_chat::ReasoningEffort;

use super::{Fields, RequestError};
use crate::turn::Thinking;

/// How a request wants to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThinkingChoice {
    /// Whether and how hard; `None` if the request does not say.
    pub(crate) thinking: Option<Thinking>,
    /// Longest reasoning in tokens.
    pub(crate) budget: Option<usize>,
}

/// Reads `thinking`, `think`, `enable_thinking`, `chat_template_kwargs`, `reasoning_effort`,
/// `reasoning.effort` and `output_config.effort`.
///
/// A switch turned off wins over an effort, since clients leave the effort in their configuration.
///
/// # Errors
/// An unknown name, or a budget that is no positive number.
pub(crate) fn thinking(body: &Fields<'_>) -> Result<ThinkingChoice, RequestError> {
    let mut switch = None;
    let mut budget = None;
    if let Some(value) = body.get("thinking") {
        if let Some(on) = value.as_bool() {
            switch = Some(on);
        } else {
            let fields = Fields::at(value, body.path_of("thinking"))?;
            switch = match fields.string("type")? {
                Some("enabled" | "adaptive") => Some(true),
                Some("disabled") => Some(false),
                None => None,
                Some(other) => {
                    return Err(RequestError::field(
                        "thinking.type",
                        format!(
                            "Invalid 'thinking.type': `{other}`, expected `enabled`, `disabled` or `adaptive`"
                        ),
                    ));
                }
            };
            budget = positive(&fields, "budget_tokens")?;
        }
    }
    for name in ["think", "enable_thinking"] {
        switch = body.boolean(name)?.or(switch);
    }
    if let Some(fields) = body.object("chat_template_kwargs")? {
        for name in ["thinking", "enable_thinking"] {
            switch = fields.boolean(name)?.or(switch);
        }
    }
    if let Some(tokens) = positive(body, "thinking_budget")? {
        budget = Some(tokens);
    }
    let mut effort = None;
    if let Some(name) = body.string("reasoning_effort")? {
        effort = Some(read_effort("reasoning_effort", name)?);
    }
    for (object, field) in [("reasoning", "effort"), ("output_config", "effort")] {
        if let Some(fields) = body.object(object)?
            && let Some(name) = fields.string(field)?
        {
            effort = Some(read_effort(&fields.path_of(field), name)?);
        }
    }
    let thinking = match (switch, effort) {
        (Some(false), _) => Some(Thinking::Off),
        (_, Some(effort)) => Some(effort),
        (Some(true), None) => Some(Thinking::On(ReasoningEffort::High)),
        (None, None) => None,
    };
    Ok(ThinkingChoice { thinking, budget })
}

fn read_effort(param: &str, name: &str) -> Result<Thinking, RequestError> {
    Thinking::from_effort(name).ok_or_else(|| {
        RequestError::field(
            param,
            format!(
                "Invalid '{param}': `{name}`, expected none, minimal, low, medium, high, xhigh or max"
            ),
        )
    })
}

fn positive(fields: &Fields<'_>, name: &str) -> Result<Option<usize>, RequestError> {
    match fields.integer(name)? {
        None => Ok(None),
        Some(value) => match usize::try_from(value) {
            Ok(value) if value > 0 => Ok(Some(value)),
            _ => {
                let path = fields.path_of(name);
                Err(RequestError::field(
                    &path,
                    format!("Invalid '{path}': it must be at least 1"),
                ))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(body: Value) -> Result<ThinkingChoice, RequestError> {
        thinking(&Fields::body(&body)?)
    }

    #[test]
    fn every_dialect_of_thinking_is_understood() {
        let off = Some(Thinking::Off);
        let on = |effort| Some(Thinking::On(effort));
        let cases = [
            (json!({}), None),
            (
                json!({"thinking": {"type": "disabled", "budget_tokens": 1024}}),
                off,
            ),
            (
                json!({"thinking": {"type": "adaptive", "display": "x"}}),
                on(ReasoningEffort::High),
            ),
            (json!({"thinking": true}), on(ReasoningEffort::High)),
            (json!({"think": false}), off),
            (
                json!({"chat_template_kwargs": {"enable_thinking": false}}),
                off,
            ),
            (json!({"reasoning_effort": "none"}), off),
            (
                json!({"reasoning_effort": "minimal"}),
                on(ReasoningEffort::Low),
            ),
            (
                json!({"reasoning": {"effort": "xhigh", "summary": "auto"}}),
                on(ReasoningEffort::High),
            ),
            (
                json!({"output_config": {"effort": "max"}}),
                on(ReasoningEffort::Max),
            ),
            (
                json!({"thinking": {"type": "disabled"}, "reasoning_effort": "max"}),
                off,
            ),
            (json!({"thinking": null, "reasoning": null}), None),
        ];
        for (body, expected) in cases {
            assert_eq!(read(body.clone()).unwrap().thinking, expected, "{body}");
        }
        let budget = read(json!({"thinking": {"type": "enabled", "budget_tokens": 1024}})).unwrap();
        assert_eq!(budget.budget, Some(1024));
    }

    #[test]
    fn unknown_names_and_budgets_are_refused_by_name() {
        for (body, param) in [
            (json!({"thinking": {"type": "maybe"}}), "thinking.type"),
            (json!({"reasoning_effort": "bogus"}), "reasoning_effort"),
            (
                json!({"reasoning": {"effort": "bogus"}}),
                "reasoning.effort",
            ),
            (
                json!({"thinking": {"type": "enabled", "budget_tokens": 0}}),
                "thinking.budget_tokens",
            ),
        ] {
            assert_eq!(read(body).unwrap_err().param.as_deref(), Some(param));
        }
    }
}
