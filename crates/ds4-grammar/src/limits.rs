//! Bounds on what a client may ask for.

use std::time::Duration;

use llguidance::api::ParserLimits;

/// Longest schema, in bytes.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Longest Lark grammar, in bytes.
pub const MAX_LARK_BYTES: usize = 1 << 14;
/// Deepest nesting of brackets in a Lark grammar.
pub const MAX_LARK_NESTING: usize = 100;
/// Longest regular expression, in bytes.
pub const MAX_REGEX_BYTES: usize = 1 << 11;
/// Deepest nesting of groups in a regular expression.
pub const MAX_REGEX_NESTING: u32 = 50;
/// Deepest nesting of JSON in a schema.
pub const MAX_SCHEMA_DEPTH: usize = 100;
/// Most JSON values in a schema.
pub const MAX_SCHEMA_VALUES: usize = 50_000;
/// Longest string that a format names: a constant, a property, a choice.
pub const MAX_LITERAL_BYTES: usize = 1 << 12;
/// Most properties that one object schema declares or requires.
pub const MAX_PROPERTIES: usize = 1_000;
/// Most `patternProperties` of one object schema.
pub const MAX_PATTERN_PROPERTIES: usize = 16;
/// Largest `minLength`, `maxLength`, `minProperties` and `maxProperties`.
pub const MAX_COUNT: u64 = 10_000;
/// Largest least common multiple of all `multipleOf` in a schema, their points and trailing zeros left out:
/// remainders are states.
pub const MAX_MULTIPLE: u64 = 5_000;
/// Largest `minItems` and `maxItems`.
pub const MAX_ITEMS: u64 = 10_000;
/// Most strings to choose from.
pub const MAX_CHOICES: usize = 10_000;
/// Most tools.
pub const MAX_TOOLS: usize = 1024;
/// Most declared parameters of one tool.
pub const MAX_PARAMETERS: usize = 1000;

/// Bounds that can be set.
#[derive(Clone, Copy, Debug)]
pub struct GrammarLimits {
    /// How long one format may take to prepare.
    pub compile_time: Duration,
    /// How long the work on one token may take; an answer that needs more ends with an error.
    pub token_time: Duration,
    /// Formats that are prepared at the same time; each occupies a thread.
    pub compiling: usize,
    /// Prepared formats that are kept.
    pub cached: usize,
}

impl Default for GrammarLimits {
    fn default() -> Self {
        Self {
            compile_time: Duration::from_secs(5),
            token_time: Duration::from_millis(500),
            compiling: 2,
            cached: 64,
        }
    }
}

/// The bounds of the grammar library: work per format and per token, and memory per answer.
pub(crate) fn parser_limits() -> ParserLimits {
    ParserLimits {
        max_items_in_row: 2_000,
        initial_lexer_fuel: 1_000_000,
        step_lexer_fuel: 200_000,
        step_max_items: 50_000,
        // Up to 2 KiB each.
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
    }
}
