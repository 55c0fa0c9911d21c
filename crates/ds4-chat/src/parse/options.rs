//! What the parser is told about the prompt it continues.

/// How to read generated text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParserOptions {
    /// The prompt ended in `<think>`: reasoning comes first.
    pub thinking: bool,
    /// Tools were offered. Without, tool tags are ordinary text.
    pub tools: bool,
    /// The prompt itself opened the tool block ([`ToolChoice::Required`](crate::ToolChoice::Required)).
    pub starts_in_tool_calls: bool,
    /// The text continues a prefix of the answer, so newlines at its start belong to it.
    pub continues_prefix: bool,
    /// What a tool block inside unclosed reasoning means.
    pub blocks_in_reasoning: BlocksInReasoning,
    /// Where `&lt;` and the like in string values are decoded.
    pub entities: Entities,
}

impl Default for ParserOptions {
    fn default() -> Self {
        Self {
            thinking: false,
            tools: true,
            starts_in_tool_calls: false,
            continues_prefix: false,
            blocks_in_reasoning: BlocksInReasoning::default(),
            entities: Entities::default(),
        }
    }
}

impl ParserOptions {
    /// Options for an answer that starts with reasoning.
    pub fn thinking() -> Self {
        Self {
            thinking: true,
            ..Self::default()
        }
    }
}

/// What a tool block inside unclosed reasoning means.
///
/// A stream cannot wait for a `</think>` that may never come, so this is decided at the block's first
/// tag. A block in a code fence, or right behind an opening quotation mark or backtick, is a quotation
/// under either policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BlocksInReasoning {
    /// The model forgot `</think>`: reasoning ends, the calls count, and
    /// [`Repair::UnclosedThinking`](crate::Repair::UnclosedThinking) says so. DeepSeek's own parser does this.
    #[default]
    Call,
    /// Part of the reasoning.
    Text,
}

/// Where the five XML entities in string values are decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Entities {
    /// Only in parameters written as plain XML (`<parameter>`) or without a `string` attribute. In
    /// official DSML a string stands for itself, and decoding would corrupt edits of HTML.
    #[default]
    Unofficial,
    /// In every string value.
    Always,
    /// Nowhere.
    Never,
}
