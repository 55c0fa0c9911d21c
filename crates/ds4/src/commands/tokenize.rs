//! `ds4 tokenize`: text to token ids.

use std::io;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::arguments::VocabularyArguments;
use crate::json_lines;
use crate::loaded_model::Vocabulary;
use crate::output::Output;

/// Arguments of `ds4 tokenize`.
///
/// Reads one JSON value a line from standard input, a string or an object with "text", and writes
/// one array of ids a line.
#[derive(Debug, Args)]
pub(crate) struct TokenizeArguments {
    #[command(flatten)]
    vocabulary: VocabularyArguments,
    /// Recognise control tokens in the text; without it everything is plain text
    #[arg(long)]
    special: bool,
}

#[derive(Deserialize)]
struct Record {
    text: String,
}

/// Converts standard input to standard output.
pub(crate) fn run(arguments: &TokenizeArguments, output: &mut Output) -> anyhow::Result<()> {
    let tokenizer = Vocabulary::open(&arguments.vocabulary)?.tokenizer;
    json_lines::convert(io::stdin().lock(), output, |line| {
        let text = text_of(line)?;
        let mut ids = Vec::new();
        if arguments.special {
            tokenizer.encode_with_specials(&text, &mut ids);
        } else {
            tokenizer.encode(&text, &mut ids);
        }
        Ok(Value::from(ids))
    })
}

fn text_of(line: &str) -> anyhow::Result<String> {
    const EXPECTED: &str = "expected a JSON string, or an object with \"text\"";
    if line.starts_with('{') {
        return Ok(serde_json::from_str::<Record>(line).context(EXPECTED)?.text);
    }
    serde_json::from_str(line).context(EXPECTED)
}
