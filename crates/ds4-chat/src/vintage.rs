//! The two published vintages of the encoding, and their reasoning-effort prefixes.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Which release of the weights a prompt is for. Only the reasoning-effort prefix differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Vintage {
    /// The preview of April 2026.
    #[default]
    April,
    /// The release of 31 July 2026 and later.
    Release0731,
}

impl Vintage {
    /// Chooses the vintage by a model's name: a month and day of `0731` or later in it (also as
    /// `2026-07-31` or `20260731`) means [`Vintage::Release0731`], as does a version above V4
    /// (`V4.1`); anything else is the April preview.
    pub fn from_model_name(name: &str) -> Self {
        let digits_of = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
        let month_day = |part: &str| {
            let part = match part.len() {
                4 => part,
                8 => part.get(4..)?,
                _ => return None,
            };
            let (month, day) = (part.get(..2)?.parse().ok()?, part.get(2..)?.parse().ok()?);
            ((1..=12u8).contains(&month) && (1..=31u8).contains(&day)).then_some((month, day))
        };
        let late = parts.iter().enumerate().any(|(at, part)| {
            if !digits_of(part) {
                return false;
            }
            // A year on its own starts a date in three parts.
            if part.len() == 4 && part.starts_with("20") {
                let joined = parts.get(at + 1..at + 3).map(|rest| rest.concat());
                return joined
                    .filter(|joined| joined.len() == 4 && digits_of(joined))
                    .and_then(|joined| month_day(&joined))
                    .is_some_and(|date| date >= (7, 31));
            }
            month_day(part).is_some_and(|date| date >= (7, 31))
        });
        let lower = name.to_ascii_lowercase();
        if late || lower.contains("v4.1") || lower.contains("v4-1") {
            Self::Release0731
        } else {
            Self::April
        }
    }
}

impl FromStr for Vintage {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "april" | "preview" => Ok(Self::April),
            "0731" | "official" => Ok(Self::Release0731),
            _ => Err(UnknownName {
                what: "vintage",
                name: name.to_owned(),
                expected: "april or 0731",
            }),
        }
    }
}

/// A name outside a closed set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} \"{name}\": expected {expected}")]
pub struct UnknownName {
    what: &'static str,
    name: String,
    expected: &'static str,
}

/// How hard the model is asked to think; read only in thinking mode.
///
/// The names of other APIs map as DeepSeek's service maps them: `minimal` is low, `medium` and
/// `xhigh` are high.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReasoningEffort {
    /// No prefix.
    #[serde(alias = "minimal")]
    Low,
    /// April: no prefix. 0731: "Absolute maximum".
    #[serde(alias = "medium", alias = "xhigh")]
    High,
    /// April: "Absolute maximum". 0731: "Beyond maximum".
    Max,
}

impl FromStr for ReasoningEffort {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "low" | "minimal" => Ok(Self::Low),
            "high" | "medium" | "xhigh" => Ok(Self::High),
            "max" => Ok(Self::Max),
            _ => Err(UnknownName {
                what: "reasoning effort",
                name: name.to_owned(),
                expected: "low, high or max",
            }),
        }
    }
}

const ABSOLUTE_MAXIMUM: &str = "Reasoning Effort: Absolute maximum with no shortcuts permitted.\n\
    You MUST be very thorough in your thinking and comprehensively decompose the problem to resolve the root cause, \
    rigorously stress-testing your logic against all potential paths, edge cases, and adversarial scenarios.\n\
    Explicitly write out your entire deliberation process, documenting every intermediate step, considered \
    alternative, and rejected hypothesis to ensure absolutely no assumption is left unchecked.\n\n";

const BEYOND_MAXIMUM: &str = "Reasoning Effort: Beyond maximum — exhaustive, relentless, and uncompromising.\n\
    You MUST reason with the utmost depth and rigor, leaving absolutely nothing to chance: exhaustively decompose the \
    problem into its most fundamental components, trace every causal chain to its root, and resolve the underlying \
    cause rather than any surface symptom.\n\
    Do not stop reasoning until you have independently verified the solution from multiple angles and are certain \
    that no assumption remains unchecked and no error remains undiscovered.\n\n";

impl ReasoningEffort {
    /// The text before the first message in thinking mode; empty where the vintage has none.
    pub fn prefix(self, vintage: Vintage) -> &'static str {
        match (vintage, self) {
            (_, Self::Low) | (Vintage::April, Self::High) => "",
            (Vintage::April, Self::Max) | (Vintage::Release0731, Self::High) => ABSOLUTE_MAXIMUM,
            (Vintage::Release0731, Self::Max) => BEYOND_MAXIMUM,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn model_names_tell_the_vintage() {
        for name in [
            "DeepSeek-V4-Flash-0731",
            "deepseek-v4-pro-0801",
            "DeepSeek V4 Flash 2026-07-31",
            "DeepSeek-V4.1-Flash-1017",
            "v4_flash_20261001",
        ] {
            assert_eq!(
                Vintage::from_model_name(name),
                Vintage::Release0731,
                "{name}"
            );
        }
        for name in [
            "DeepSeek-V4-Flash",
            "DeepSeek-V4-Pro-0424",
            "",
            "deepseek4 2026",
            "flash 284B 9999",
            "v4-2048",
        ] {
            assert_eq!(Vintage::from_model_name(name), Vintage::April, "{name}");
        }
    }
}
