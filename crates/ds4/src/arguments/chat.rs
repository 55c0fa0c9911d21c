//! Options of the chat and of single answers.

use std::path::PathBuf;

use clap::Args;

use super::engine::positive;
use super::{EngineArguments, ModelArgument, SpeculationArguments, SteeringArguments, VintageName};

/// Everything that `ds4` takes without a command.
#[derive(Debug, Clone, Args)]
pub(crate) struct ChatArguments {
    /// Answer this and exit
    #[arg(short, long, value_name = "TEXT", conflicts_with = "prompt_file")]
    pub(crate) prompt: Option<String>,
    /// Answer what is in this file and exit; - reads standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) prompt_file: Option<PathBuf>,
    /// Instructions for the model (also -sys); an empty text means none
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    #[command(flatten)]
    pub(crate) model: ModelArgument,
    /// Tokens that the conversation can hold [default: 32768, or less if the model has less]
    #[arg(short, long, value_name = "N", value_parser = positive)]
    pub(crate) ctx: Option<usize>,
    /// Longest answer in tokens, thinking included [default: until the context is full]
    #[arg(short = 'n', long, value_name = "N", value_parser = positive)]
    pub(crate) tokens: Option<usize>,
    /// Start from a saved session, without prefill
    #[arg(long, value_name = "NAME")]
    pub(crate) load_session: Option<String>,
    /// Save the session under this name after every answer
    #[arg(long, value_name = "NAME")]
    pub(crate) save_session: Option<String>,
    /// Write the thinking to standard output also where that is no terminal
    #[arg(long)]
    pub(crate) show_thinking: bool,
    /// Only answers, warnings and errors
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Prompt encoding [default: by the model's name]
    #[arg(long, value_name = "NAME", value_enum)]
    pub(crate) vintage: Option<VintageName>,
    #[command(flatten)]
    pub(crate) thinking: ThinkingArguments,
    #[command(flatten)]
    pub(crate) sampling: SamplingArguments,
    #[command(flatten)]
    pub(crate) steering: SteeringArguments,
    #[command(flatten)]
    pub(crate) speculation: SpeculationArguments,
    #[command(flatten)]
    pub(crate) engine: EngineArguments,
}

/// How much the model thinks before it answers; the last one given counts.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Thinking")]
pub(crate) struct ThinkingArguments {
    /// Think before answering (the default)
    #[arg(long, visible_alias = "thinking", overrides_with_all = ["nothink", "think_max", "think"])]
    pub(crate) think: bool,
    /// Answer at once
    #[arg(long, overrides_with_all = ["think", "think_max", "nothink"])]
    pub(crate) nothink: bool,
    /// Think as hard as possible; needs --ctx 393216 or more
    #[arg(long, overrides_with_all = ["think", "nothink", "think_max"])]
    pub(crate) think_max: bool,
}

impl ThinkingArguments {
    /// Whether the user chose.
    pub(crate) fn is_given(&self) -> bool {
        self.think || self.nothink || self.think_max
    }
}

/// How tokens are chosen.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Sampling")]
pub(crate) struct SamplingArguments {
    /// Temperature; 0 always takes the most likely token [default: 1]
    #[arg(long, value_name = "F")]
    pub(crate) temp: Option<f32>,
    /// Only the smallest set of tokens with this probability together [default: 1]
    #[arg(long, value_name = "F")]
    pub(crate) top_p: Option<f32>,
    /// Only the N most likely tokens, 0 for all [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) top_k: Option<usize>,
    /// Only tokens this likely, as a share of the likeliest [default: 0.05]
    #[arg(long, value_name = "F")]
    pub(crate) min_p: Option<f32>,
    /// Seed of the random numbers [default: another one each time]
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}
