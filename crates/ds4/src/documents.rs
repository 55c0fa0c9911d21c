//! The text that a model is measured on or calibrated with: plain text, or JSON lines.

use std::path::Path;

use anyhow::{Context, anyhow};
use ds4_chat::{Conversation, Vintage, render};
use ds4_tokenizer::{TokenId, Tokenizer};
use serde_json::Value;

use crate::failure::Hint;
use crate::loaded_model::Vocabulary;
use crate::model_file::read_text;
use crate::prompt_tokens;

/// Token ids of the documents in a file; `-` is standard input.
///
/// A file whose name ends in `.jsonl` has a document a line: a string, `{"text": …}`, `{"ids": …}` or a
/// conversation with `"messages"` as for `ds4 render`. Any other file is one document of plain text. Before
/// text comes the token that begins a sentence, as before a prompt; ids are taken as they are.
///
/// # Errors
/// A file that cannot be read, or a line that is no document, with its number.
pub(crate) fn read(
    path: &Path,
    vocabulary: &Vocabulary,
    vintage: Vintage,
) -> anyhow::Result<Vec<Vec<TokenId>>> {
    let text = read_text(path)?;
    let tokenizer = &vocabulary.tokenizer;
    let lines = path.extension().is_some_and(|ending| ending == "jsonl");
    if !lines {
        return Ok(vec![encode(tokenizer, &text)]);
    }
    let mut documents = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim().is_empty() {
            continue;
        }
        let document = document(line, tokenizer, vintage)
            .with_context(|| format!("line {} of `{}`", number + 1, path.display()))
            .hint(|| {
                "a line is a JSON string, or an object with \"text\", \"ids\" or \"messages\""
                    .to_owned()
            })?;
        documents.push(document);
    }
    Ok(documents)
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
    let mut ids = Vec::from_iter(tokenizer.bos());
    tokenizer.encode(text, &mut ids);
    ids
}

fn document(line: &str, tokenizer: &Tokenizer, vintage: Vintage) -> anyhow::Result<Vec<TokenId>> {
    let value: Value = serde_json::from_str(line).context("this is no JSON")?;
    match &value {
        Value::String(text) => Ok(encode(tokenizer, text)),
        Value::Object(fields) if fields.contains_key("messages") => {
            let conversation: Conversation =
                serde_json::from_value(value).context("this is no conversation")?;
            let prompt = render(&conversation, vintage)?;
            prompt_tokens::encode(tokenizer, prompt.pieces())
        }
        Value::Object(fields) => match (fields.get("text"), fields.get("ids")) {
            (Some(Value::String(text)), None) => Ok(encode(tokenizer, text)),
            (None, Some(ids)) => {
                let ids: Vec<TokenId> = serde_json::from_value(ids.clone())
                    .context("\"ids\" is no array of token ids")?;
                match ids.iter().find(|&&id| tokenizer.token_bytes(id).is_none()) {
                    Some(id) => Err(anyhow!("id {id} is not in the vocabulary")),
                    None => Ok(ids),
                }
            }
            _ => Err(anyhow!("the object has no text, ids or messages")),
        },
        _ => Err(anyhow!("this is neither a string nor an object")),
    }
}
