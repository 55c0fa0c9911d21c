//! The program and its commands.

use clap::{Parser, Subcommand};

use super::{ChatArguments, ServeArguments};
use crate::commands::bench::BenchArguments;
use crate::commands::cache::CacheArguments;
use crate::commands::completions::CompletionsArguments;
use crate::commands::connect::ConnectArguments;
use crate::commands::detokenize::DetokenizeArguments;
use crate::commands::download::DownloadArguments;
use crate::commands::eval::EvalArguments;
use crate::commands::imatrix::ImatrixArguments;
use crate::commands::inspect::InspectArguments;
use crate::commands::logits::LogitsArguments;
use crate::commands::parse::ParseArguments;
use crate::commands::plan::PlanArguments;
use crate::commands::quality::QualityArguments;
use crate::commands::quantize::QuantizeArguments;
use crate::commands::render::RenderArguments;
use crate::commands::score::ScoreArguments;
use crate::commands::steer::SteerArguments;
use crate::commands::synth::SynthArguments;
use crate::commands::tokenize::TokenizeArguments;

const AFTER_HELP: &str = "\
Examples:
  ds4                                     chat; /help lists the chat's commands
  ds4 -p \"How do I save a session?\"       one answer
  ds4 --prompt-file question.txt --nothink > answer.txt
  ds4 --save-session trip -p \"Plan a day in Rome.\"
  ds4 --load-session trip                 go on where it ended
  ds4 inspect --model FILE.gguf           what is in a file
  ds4 download deepseek-v4-flash          fetch a model; without a name, list them

Exit codes: 0 success, 1 failure, 2 wrong usage, 130 stopped by Ctrl-C.";

/// DwarfStar: DeepSeek V4 on hardware that you own.
///
/// Without a command this is a chat, or one answer with -p or --prompt-file.
#[derive(Debug, Parser)]
#[command(
    name = "ds4",
    version,
    after_help = AFTER_HELP,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    max_term_width = 100
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) chat: ChatArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Download a published model; without a name, list them
    Download(DownloadArguments),
    /// Serve the APIs of OpenAI and Anthropic over HTTP
    Serve(ServeArguments),
    /// Tell a coding agent where the server is
    Connect(ConnectArguments),
    /// Show what is in a model file, and the memory it will take
    Inspect(InspectArguments),
    /// Show the memory for several contexts and KV cache types
    Plan(PlanArguments),
    /// Convert an official checkpoint to a GGUF file
    Quantize(QuantizeArguments),
    /// Write a model file with random weights, full-size or small, to measure and test
    Synth(SynthArguments),
    /// Collect which columns of the weights matter, for quantize
    Imatrix(ImatrixArguments),
    /// Measure how well a model predicts a text, alone and against another
    Score(ScoreArguments),
    /// Measure prefill and decode speed
    Bench(BenchArguments),
    /// Ask questions with known answers and count the right ones
    Eval(EvalArguments),
    /// Compare formats of weights and KV cache on questions with known answers
    Quality(QualityArguments),
    /// Make directions to steer a model along, from two sets of prompts
    Steer(SteerArguments),
    /// Write the teacher-forced logits of a token sequence
    Logits(LogitsArguments),
    /// Turn text into token ids, one JSON value a line
    Tokenize(TokenizeArguments),
    /// Turn token ids into text, one JSON value a line
    Detokenize(DetokenizeArguments),
    /// Turn conversations into prompts, one JSON value a line
    Render(RenderArguments),
    /// Split generated text into reasoning, content and tool calls, one JSON value a line
    Parse(ParseArguments),
    /// Show, check and shrink the KV cache on disk
    Cache(CacheArguments),
    /// Write a completion script for a shell
    Completions(CompletionsArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_misspelt_option_gets_a_suggestion() {
        let error = Arguments::try_parse_from(["ds4", "--promt", "x"]).unwrap_err();
        assert!(error.to_string().contains("--prompt"), "{error}");
    }

    #[test]
    fn the_last_thinking_option_wins() {
        let arguments =
            Arguments::try_parse_from(["ds4", "--nothink", "--thinking", "--think-max"]).unwrap();
        assert!(arguments.chat.thinking.think_max);
        assert!(!arguments.chat.thinking.nothink && !arguments.chat.thinking.think);
    }
}
