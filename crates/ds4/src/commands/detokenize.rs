//! `ds4 detokenize`: token ids to text.

use std::io;

use anyhow::{Context, anyhow};
use clap::Args;
use ds4_tokenizer::TokenId;
use serde::Deserialize;
use serde_json::Value;

use crate::arguments::VocabularyArguments;
use crate::json_lines;
use crate::loaded_model::Vocabulary;
use crate::output::Output;

/// Arguments of `ds4 detokenize`.
///
/// Reads one JSON value a line from standard input, an array of ids or an object with "ids", and
/// writes one string a line. Bytes that are not UTF-8 become U+FFFD; control tokens their text.
#[derive(Debug, Args)]
pub(crate) struct DetokenizeArguments {
    #[command(flatten)]
    vocabulary: VocabularyArguments,
}

#[derive(Deserialize)]
struct Record {
    ids: Vec<TokenId>,
}

/// Converts standard input to standard output.
pub(crate) fn run(arguments: &DetokenizeArguments, output: &mut Output) -> anyhow::Result<()> {
    let tokenizer = Vocabulary::open(&arguments.vocabulary)?.tokenizer;
    json_lines::convert(io::stdin().lock(), output, |line| {
        let ids = ids_of(line)?;
        if let Some(id) = ids.iter().find(|&&id| tokenizer.token_bytes(id).is_none()) {
            let size = tokenizer.vocabulary_size();
            return Err(anyhow!("id {id} is not in the vocabulary of {size} tokens"));
        }
        Ok(Value::from(tokenizer.decode_lossy(&ids)))
    })
}

/// Token ids as a JSON array, or as an object with `ids`.
pub(super) fn ids_of(json: &str) -> anyhow::Result<Vec<TokenId>> {
    const EXPECTED: &str = "expected a JSON array of token ids, or an object with \"ids\"";
    if json.trim_start().starts_with('{') {
        return Ok(serde_json::from_str::<Record>(json).context(EXPECTED)?.ids);
    }
    serde_json::from_str(json).context(EXPECTED)
}
