//! Drafting tokens.

use clap::{Args, ValueEnum};

/// What drafts tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum SpeculationName {
    /// All that the model has, while measurements say that it is faster
    #[default]
    Auto,
    /// Nothing
    Off,
    /// The text itself: what followed when the last tokens occurred before
    Lookup,
    /// The model's MTP block
    Mtp,
}

/// Whether and how several tokens are computed in one step. Answers stay the same.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Speculation")]
pub(crate) struct SpeculationArguments {
    /// What drafts tokens, for the model to confirm several in one step; answers stay the same
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    pub(crate) speculation: SpeculationName,
    /// File with the model's MTP block, if it is not in the model's own: a GGUF file, or a name
    #[arg(long, value_name = "MODEL")]
    pub(crate) mtp: Option<String>,
}
