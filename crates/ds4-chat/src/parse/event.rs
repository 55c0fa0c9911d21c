//! What the parser reports.

use std::fmt;
use std::ops::Range;

/// One step of a parsed stream. Text comes in fragments, to be concatenated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// More reasoning.
    Reasoning(String),
    /// More of the answer.
    Content(String),
    /// A tool call begins.
    ToolCallStart {
        /// Place among the calls of this answer, from 0.
        index: usize,
        /// Name of the tool.
        name: String,
    },
    /// More of a call's arguments, a fragment of JSON.
    ToolCallArguments {
        /// Place of the call.
        index: usize,
        /// The fragment.
        delta: String,
    },
    /// A tool call ended.
    ToolCallEnd {
        /// Place of the call.
        index: usize,
        /// False if the text ended inside the call: its arguments are only the start of JSON.
        complete: bool,
    },
    /// Text that belongs nowhere: inside a tool block between tags, or after its end.
    Ignored(String),
    /// Something was mended.
    Repaired(Repair),
}

/// What the parser had to mend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repair {
    /// A tool block began inside reasoning: `</think>` was missing.
    UnclosedThinking,
    /// A `</think>` outside reasoning was dropped.
    StrayThinkEnd,
    /// A tag was not spelled officially: bars, spaces, quotation marks, plain XML.
    TagSpelling {
        /// As generated, at most 80 characters.
        found: String,
    },
    /// Calls without the opening `tool_calls` tag.
    MissingBlockStart,
    /// An end tag was missing and was assumed.
    MissingEndTag {
        /// `parameter`, `invoke` or `tool_calls`.
        tag: &'static str,
    },
    /// A parameter did not say whether it is a string; it was taken as one.
    MissingStringAttribute {
        /// Place of the call.
        index: usize,
        /// Name of the parameter.
        parameter: String,
    },
    /// Parameters inside a parameter became an object.
    NestedParameters {
        /// Place of the call.
        index: usize,
        /// Name of the outer parameter.
        parameter: String,
    },
    /// The call's body was JSON instead of parameters.
    BareJson {
        /// Place of the call.
        index: usize,
    },
    /// XML entities in a string value were decoded.
    EntitiesDecoded {
        /// Place of the call.
        index: usize,
        /// Name of the parameter.
        parameter: String,
    },
    /// A parameter was given twice; the arguments contain both, and JSON readers take the last.
    DuplicateParameter {
        /// Place of the call.
        index: usize,
        /// Name of the parameter.
        parameter: String,
    },
    /// A value that should be JSON is not. The arguments contain it as generated;
    /// [`ToolCall::valid_arguments`](crate::ToolCall::valid_arguments) makes it a string.
    InvalidJson {
        /// Place of the call.
        index: usize,
        /// Name of the parameter; empty for a body of bare JSON.
        parameter: String,
        /// Bytes of the arguments that hold the value.
        span: Range<usize>,
    },
    /// An end tag that ends nothing was dropped.
    OrphanEndTag {
        /// As generated, at most 80 characters.
        found: String,
    },
    /// A tag without the name it needs was dropped.
    MissingName {
        /// As generated, at most 80 characters.
        found: String,
    },
    /// Text between the tags of a block was set aside ([`Event::Ignored`]).
    TextBetweenTags,
    /// Text after the tool block was set aside ([`Event::Ignored`]).
    TextAfterToolCalls,
    /// The text ended inside this call.
    TruncatedToolCall {
        /// Place of the call.
        index: usize,
    },
    /// The text ended before the end of the tool block.
    UnterminatedBlock,
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnclosedThinking => f.write_str("reasoning was not closed before the tool block"),
            Self::StrayThinkEnd => f.write_str("</think> outside reasoning was dropped"),
            Self::TagSpelling { found } => write!(f, "unofficial tag spelling: {found}"),
            Self::MissingBlockStart => f.write_str("the opening tool_calls tag was missing"),
            Self::MissingEndTag { tag } => write!(f, "the end tag of {tag} was missing"),
            Self::MissingStringAttribute { index, parameter } => {
                write!(
                    f,
                    "call {index}: parameter {parameter} has no string attribute, taken as a string"
                )
            }
            Self::NestedParameters { index, parameter } => {
                write!(
                    f,
                    "call {index}: nested parameters of {parameter} became an object"
                )
            }
            Self::BareJson { index } => write!(f, "call {index}: JSON instead of parameters"),
            Self::EntitiesDecoded { index, parameter } => {
                write!(f, "call {index}: entities in {parameter} were decoded")
            }
            Self::DuplicateParameter { index, parameter } => {
                write!(f, "call {index}: parameter {parameter} was given twice")
            }
            Self::InvalidJson {
                index, parameter, ..
            } => {
                write!(f, "call {index}: the value of {parameter} is not JSON")
            }
            Self::OrphanEndTag { found } => {
                write!(f, "an end tag without a start was dropped: {found}")
            }
            Self::MissingName { found } => write!(f, "a tag without a name was dropped: {found}"),
            Self::TextBetweenTags => f.write_str("text between tool tags was set aside"),
            Self::TextAfterToolCalls => f.write_str("text after the tool block was set aside"),
            Self::TruncatedToolCall { index } => {
                write!(f, "call {index}: the text ended inside it")
            }
            Self::UnterminatedBlock => f.write_str("the text ended inside the tool block"),
        }
    }
}
