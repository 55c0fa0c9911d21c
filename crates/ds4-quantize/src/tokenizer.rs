//! `tokenizer.json` and its companions to the tokenizer keys of a GGUF file (gguf-layout section 1).
//!
//! Token types follow llama.cpp's converter: added tokens that are marked special, or are spelt like
//! one, are control tokens; other added tokens are user-defined.

use std::collections::HashMap;

use ds4_gguf::{Array, Metadata, Value};
use serde_json::Value as Json;

use crate::checkpoint::Checkpoint;
use crate::error::QuantizeError;

const NORMAL: i32 = 1;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Adds the tokenizer keys to `metadata`.
pub(crate) fn add_tokenizer(
    checkpoint: &Checkpoint,
    chat_template: Option<&str>,
    metadata: &mut Metadata,
) -> Result<(), QuantizeError> {
    let json = checkpoint
        .json("tokenizer.json")?
        .ok_or_else(|| refuse("the file is missing in the checkpoint"))?;
    let settings = checkpoint.json("tokenizer_config.json")?;
    let generation = checkpoint.json("generation_config.json")?;
    let vocabulary = Vocabulary::read(&json, checkpoint.config().vocab_size)?;
    let merges = merges(&json)?;
    let size = vocabulary.tokens.len() as u64;

    metadata.insert("tokenizer.ggml.model", "gpt2")?;
    metadata.insert("tokenizer.ggml.pre", "joyai-llm")?;
    let ids = special_ids(
        checkpoint,
        settings.as_ref(),
        generation.as_ref(),
        &vocabulary,
    );
    metadata.insert(
        "tokenizer.ggml.tokens",
        Value::Array(Array::of_strings(&vocabulary.tokens)),
    )?;
    metadata.insert(
        "tokenizer.ggml.token_type",
        Value::Array(Array::from(vocabulary.types.as_slice())),
    )?;
    metadata.insert(
        "tokenizer.ggml.merges",
        Value::Array(Array::of_strings(&merges)),
    )?;
    for (key, id) in [
        ("tokenizer.ggml.bos_token_id", ids[0]),
        ("tokenizer.ggml.eos_token_id", ids[1]),
        ("tokenizer.ggml.padding_token_id", ids[2]),
    ] {
        if let Some(id) = id {
            if id >= size {
                return Err(refuse(format!(
                    "`{key}` is {id}, but there are {size} tokens"
                )));
            }
            metadata.insert(key, id as u32)?;
        }
    }
    let setting = |name: &str| settings.as_ref().and_then(|json| json.get(name));
    let flag = |name, default| setting(name).and_then(Json::as_bool).unwrap_or(default);
    metadata.insert("tokenizer.ggml.add_bos_token", flag("add_bos_token", true))?;
    metadata.insert("tokenizer.ggml.add_eos_token", flag("add_eos_token", false))?;
    let template = match chat_template {
        Some(text) => Some(text.to_owned()),
        None => match setting("chat_template").and_then(Json::as_str) {
            Some(text) => Some(text.to_owned()),
            None => checkpoint.text("chat_template.jinja")?,
        },
    };
    if let Some(template) = template {
        metadata.insert("tokenizer.chat_template", template.as_str())?;
    }
    Ok(())
}

struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, u64>,
}

impl Vocabulary {
    /// Tokens in the order of their ids. Ids that nothing has become `[PADn]`.
    fn read(json: &Json, size: u64) -> Result<Self, QuantizeError> {
        let kind = json
            .pointer("/model/type")
            .and_then(Json::as_str)
            .unwrap_or("BPE");
        if kind != "BPE" {
            return Err(refuse(format!("the model is `{kind}`, expected `BPE`")));
        }
        let listed = json
            .pointer("/model/vocab")
            .and_then(Json::as_object)
            .ok_or_else(|| refuse("`model.vocab` is missing"))?;
        let mut slots: Vec<Option<(String, i32)>> = vec![None; size as usize];
        let mut ids = HashMap::new();
        let mut put = |text: &str, id: Option<u64>, kind| {
            let slot = id
                .and_then(|id| slots.get_mut(usize::try_from(id).ok()?))
                .ok_or_else(|| {
                    refuse(format!(
                        "token {text:?} has the id {}, but config.json says vocab_size {size}",
                        id.map_or("none".to_owned(), |id| id.to_string())
                    ))
                })?;
            match slot {
                Some((other, _)) if other != text => {
                    return Err(refuse(format!(
                        "tokens {other:?} and {text:?} have the same id"
                    )));
                }
                _ => *slot = Some((text.to_owned(), kind)),
            }
            ids.insert(text.to_owned(), id.unwrap_or(0));
            Ok(())
        };
        for (text, id) in listed {
            put(text, id.as_u64(), NORMAL)?;
        }
        let added = json.get("added_tokens").and_then(Json::as_array);
        for token in added.into_iter().flatten() {
            let text = token
                .get("content")
                .and_then(Json::as_str)
                .ok_or_else(|| refuse("an entry of `added_tokens` has no `content`"))?;
            let special = token
                .get("special")
                .and_then(Json::as_bool)
                .unwrap_or(false);
            let kind = if special || is_spelt_special(text) {
                CONTROL
            } else {
                USER_DEFINED
            };
            put(text, token.get("id").and_then(Json::as_u64), kind)?;
        }
        let (tokens, types) = slots
            .into_iter()
            .enumerate()
            .map(|(id, slot)| slot.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
            .unzip();
        Ok(Self { tokens, types, ids })
    }
}

/// DeepSeek's own tokenizer files do not mark all of these as special.
fn is_spelt_special(text: &str) -> bool {
    [("<｜", "｜>"), ("<|", "|>")]
        .iter()
        .any(|(start, end)| text.starts_with(start) && text.ends_with(end))
}

/// "left right" in order of rank; newer files have pairs instead.
fn merges(json: &Json) -> Result<Vec<String>, QuantizeError> {
    let merges = json
        .pointer("/model/merges")
        .and_then(Json::as_array)
        .ok_or_else(|| refuse("`model.merges` is missing"))?;
    merges
        .iter()
        .enumerate()
        .map(|(index, merge)| {
            let text = match merge {
                Json::String(text) => Some(text.clone()),
                Json::Array(pair) => match pair.as_slice() {
                    [Json::String(left), Json::String(right)] => Some(format!("{left} {right}")),
                    _ => None,
                },
                _ => None,
            };
            text.filter(|text| {
                text.split(' ').count() == 2 && !text.starts_with(' ') && !text.ends_with(' ')
            })
            .ok_or_else(|| refuse(format!("merge {index} is {merge}, expected two tokens")))
        })
        .collect()
}

/// Ids of begin, end and padding: by the token's text in `tokenizer_config.json`, else by the id in
/// `config.json`, else in `generation_config.json`.
fn special_ids(
    checkpoint: &Checkpoint,
    settings: Option<&Json>,
    generation: Option<&Json>,
    vocabulary: &Vocabulary,
) -> [Option<u64>; 3] {
    let config = checkpoint.config();
    [
        ("bos_token", "bos_token_id", &config.bos_token_id),
        ("eos_token", "eos_token_id", &config.eos_token_id),
        ("pad_token", "pad_token_id", &config.pad_token_id),
    ]
    .map(|(text_key, id_key, configured)| {
        let by_text = settings
            .and_then(|json| json.get(text_key))
            .and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()))
            .and_then(|text| vocabulary.ids.get(text).copied());
        by_text
            .or_else(|| configured.as_ref().and_then(first_id))
            .or_else(|| {
                generation
                    .and_then(|json| json.get(id_key))
                    .and_then(first_id)
            })
    })
}

/// An id, or the first of a list of them.
fn first_id(value: &Json) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| value.as_array()?.first()?.as_u64())
}

fn refuse(problem: impl Into<String>) -> QuantizeError {
    QuantizeError::Tokenizer {
        problem: problem.into(),
    }
}
