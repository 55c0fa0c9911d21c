//! The control tokens that the V4 encoding writes.

use std::fmt;

/// A control token of the DeepSeek V4 vocabulary that a prompt may contain.
///
/// Only the encoding itself produces these; their spelling inside client text stays text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ControlToken {
    /// `<｜begin▁of▁sentence｜>`, once at the start.
    BeginOfSentence,
    /// `<｜end▁of▁sentence｜>`, after each assistant message.
    EndOfSentence,
    /// `<｜User｜>`
    User,
    /// `<｜Assistant｜>`
    Assistant,
    /// `<think>`
    ThinkStart,
    /// `</think>`
    ThinkEnd,
    /// `｜DSML｜`, the middle of every tool tag: `<` + `｜DSML｜` + `invoke …`.
    Dsml,
    /// `<｜latest_reminder｜>`
    LatestReminder,
    /// `<｜action｜>`, task token.
    Action,
    /// `<｜query｜>`, task token.
    Query,
    /// `<｜authority｜>`, task token.
    Authority,
    /// `<｜domain｜>`, task token.
    Domain,
    /// `<｜title｜>`, task token.
    Title,
    /// `<｜read_url｜>`, task token.
    ReadUrl,
}

impl ControlToken {
    /// Every control token, for building a table of ids.
    pub const ALL: [Self; 14] = [
        Self::BeginOfSentence,
        Self::EndOfSentence,
        Self::User,
        Self::Assistant,
        Self::ThinkStart,
        Self::ThinkEnd,
        Self::Dsml,
        Self::LatestReminder,
        Self::Action,
        Self::Query,
        Self::Authority,
        Self::Domain,
        Self::Title,
        Self::ReadUrl,
    ];

    /// The spelling under which the vocabulary lists the token.
    pub const fn text(self) -> &'static str {
        match self {
            Self::BeginOfSentence => "<｜begin▁of▁sentence｜>",
            Self::EndOfSentence => "<｜end▁of▁sentence｜>",
            Self::User => "<｜User｜>",
            Self::Assistant => "<｜Assistant｜>",
            Self::ThinkStart => "<think>",
            Self::ThinkEnd => "</think>",
            Self::Dsml => "｜DSML｜",
            Self::LatestReminder => "<｜latest_reminder｜>",
            Self::Action => "<｜action｜>",
            Self::Query => "<｜query｜>",
            Self::Authority => "<｜authority｜>",
            Self::Domain => "<｜domain｜>",
            Self::Title => "<｜title｜>",
            Self::ReadUrl => "<｜read_url｜>",
        }
    }
}

impl fmt::Display for ControlToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
