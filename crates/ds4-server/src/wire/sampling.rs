//! The sampling fields, which all dialects spell alike.

use ds4_engine::SamplerSettings;

use super::{Fields, RequestError};

/// Most stop texts of a request, and their longest length in bytes.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 4096;
/// Most entries of a logit bias, as in OpenAI's API.
const MAX_BIASES: usize = 1024;

/// Reads `temperature`, `top_p`, `top_k`, `min_p` and `seed` over the server's defaults.
///
/// # Errors
/// A value out of range, by name.
pub(crate) fn sampling(
    body: &Fields<'_>,
    defaults: &SamplerSettings,
) -> Result<SamplerSettings, RequestError> {
    let mut settings = defaults.clone();
    let range = |name: &str, low: f64, high: f64, open: bool| {
        let value = body.number(name)?;
        match value {
            Some(value) if value < low || value > high || (open && value <= low) => {
                let bracket = if open { '(' } else { '[' };
                Err(RequestError::field(
                    name,
                    format!(
                        "Invalid {name} value, the valid range of {name} is {bracket}{low}, {high}]"
                    ),
                ))
            }
            value => Ok(value.map(|value| value as f32)),
        }
    };
    if let Some(temperature) = range("temperature", 0.0, 2.0, false)? {
        settings.temperature = temperature;
    }
    if let Some(top_p) = range("top_p", 0.0, 1.0, true)? {
        settings.top_p = top_p;
    }
    if let Some(min_p) = range("min_p", 0.0, 1.0, false)? {
        settings.min_p = min_p;
    }
    if let Some(top_k) = body.integer("top_k")? {
        // -1 is how some clients say "all".
        settings.top_k = usize::try_from(top_k.max(0)).unwrap_or(0);
    }
    settings.seed = match body.integer("seed")? {
        Some(seed) => seed.cast_unsigned(),
        // Equal requests without a seed are to differ.
        None => crate::random_bits(),
    };
    for (name, low, high) in [
        ("frequency_penalty", -2.0, 2.0),
        ("presence_penalty", -2.0, 2.0),
        ("repetition_penalty", 0.01, 100.0),
    ] {
        if let Some(value) = range(name, low, high, false)? {
            match name {
                "frequency_penalty" => settings.penalties.frequency = value,
                "presence_penalty" => settings.penalties.presence = value,
                _ => settings.penalties.repetition = value,
            }
        }
    }
    if let Some(typical) = range("typical_p", 0.0, 1.0, true)? {
        settings.typical_p = typical;
    }
    if let Some(bias) = logit_bias(body)? {
        settings.logit_bias = Some(bias.into());
    }
    Ok(settings)
}

/// Reads a limit on the answer under any of `names`; the first that is there counts.
pub(crate) fn max_tokens(body: &Fields<'_>, names: &[&str]) -> Result<Option<usize>, RequestError> {
    for name in names {
        if let Some(tokens) = body.integer(name)? {
            return match usize::try_from(tokens) {
                Ok(tokens) if tokens > 0 => Ok(Some(tokens)),
                _ => Err(RequestError::field(
                    name,
                    format!("Invalid {name} value, it must be at least 1"),
                )),
            };
        }
    }
    Ok(None)
}

/// Reads stop texts: one string or an array.
pub(crate) fn stop(body: &Fields<'_>, name: &str) -> Result<Vec<String>, RequestError> {
    use serde_json::Value;
    let wrong = |expected: &str| {
        RequestError::field(name, format!("Invalid '{name}': expected {expected}"))
    };
    let stops: Vec<String> = match body.get(name) {
        None => Vec::new(),
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(items)) => items
            .iter()
            .take(MAX_STOPS + 1)
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| wrong("a string or an array of strings"))?,
        Some(_) => return Err(wrong("a string or an array of strings")),
    };
    if stops.len() > MAX_STOPS {
        return Err(wrong(&format!("at most {MAX_STOPS} texts")));
    }
    if stops
        .iter()
        .any(|text| text.is_empty() || text.len() > MAX_STOP_BYTES)
    {
        return Err(wrong(&format!("texts of 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(stops)
}

/// Reads `logit_bias`: token ids as text to numbers of at most 100.
fn logit_bias(body: &Fields<'_>) -> Result<Option<Vec<(u32, f32)>>, RequestError> {
    let Some(fields) = body.object("logit_bias")? else {
        return Ok(None);
    };
    let wrong = || {
        RequestError::field(
            "logit_bias",
            format!(
                "Invalid 'logit_bias': expected at most {MAX_BIASES} token ids with values from -100 to 100"
            ),
        )
    };
    if fields.map().len() > MAX_BIASES {
        return Err(wrong());
    }
    let mut bias = Vec::with_capacity(fields.map().len());
    for (id, value) in fields.map() {
        let id: u32 = id.parse().map_err(|_| wrong())?;
        let value = value.as_f64().filter(|value| value.abs() <= 100.0);
        bias.push((id, value.ok_or_else(wrong)? as f32));
    }
    Ok(Some(bias))
}
