//! `ds4 render`: conversations to prompts.

use std::io;

use anyhow::Context;
use clap::Args;
use ds4_chat::{Conversation, render};
use serde_json::json;

use crate::arguments::{VintageName, VocabularyArguments};
use crate::json_lines;
use crate::loaded_model::Vocabulary;
use crate::output::Output;
use crate::prompt_tokens;

/// Arguments of `ds4 render`.
///
/// Reads one conversation as JSON a line from standard input and writes one object with "text" and
/// "ids" a line.
#[derive(Debug, Args)]
pub(crate) struct RenderArguments {
    #[command(flatten)]
    vocabulary: VocabularyArguments,
    /// Prompt encoding [default: by the model's name, april with --tokenizer]
    #[arg(long, value_name = "NAME", value_enum)]
    vintage: Option<VintageName>,
}

/// Converts standard input to standard output.
pub(crate) fn run(arguments: &RenderArguments, output: &mut Output) -> anyhow::Result<()> {
    let vocabulary = Vocabulary::open(&arguments.vocabulary)?;
    let vintage = vocabulary.vintage(arguments.vintage);
    json_lines::convert(io::stdin().lock(), output, |line| {
        let conversation: Conversation =
            serde_json::from_str(line).context("expected a conversation as a JSON object")?;
        let prompt = render(&conversation, vintage)?;
        let ids = prompt_tokens::encode(&vocabulary.tokenizer, prompt.pieces())?;
        Ok(json!({ "text": prompt.text(), "ids": ids }))
    })
}
