//! The committed test data, unpacked.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::io::Read;
use std::sync::OnceLock;

use ds4_tokenizer::{PreTokenizer, Tokenizer, VocabularySource};
use flate2::read::GzDecoder;
use serde_json::Value;

pub(crate) fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    GzDecoder::new(packed).read_to_end(&mut bytes).unwrap();
    bytes
}

pub(crate) fn json_lines(packed: &[u8]) -> Vec<Value> {
    let bytes = gunzip(packed);
    let text = std::str::from_utf8(&bytes).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn v4_json() -> &'static [u8] {
    static JSON: OnceLock<Vec<u8>> = OnceLock::new();
    JSON.get_or_init(|| gunzip(include_bytes!("deepseek-v4-tokenizer.json.gz")))
}

pub(crate) fn v4_from_json() -> Tokenizer {
    static TOKENIZER: OnceLock<Tokenizer> = OnceLock::new();
    TOKENIZER
        .get_or_init(|| Tokenizer::from_json(v4_json()).unwrap())
        .clone()
}

/// The arrays that a converter would write into a GGUF file.
pub(crate) struct Arrays {
    pub(crate) tokens: Vec<String>,
    pub(crate) types: Vec<i32>,
    pub(crate) merges: Vec<String>,
}

impl Arrays {
    pub(crate) fn of(json: &[u8]) -> Self {
        let file: Value = serde_json::from_slice(json).unwrap();
        let vocab = file["model"]["vocab"].as_object().unwrap();
        let added = file["added_tokens"].as_array().unwrap();
        let mut entries: Vec<(usize, String, i32)> = vocab
            .iter()
            .map(|(token, id)| (id.as_u64().unwrap() as usize, token.clone(), 1))
            .collect();
        entries.extend(added.iter().map(|token| {
            let id = token["id"].as_u64().unwrap() as usize;
            let content = token["content"].as_str().unwrap();
            // llama.cpp's converter: special ones, and what looks special, are control tokens.
            let control = token["special"] == true || content.starts_with("<｜");
            (id, content.to_owned(), if control { 3 } else { 4 })
        }));
        let size = entries.iter().map(|entry| entry.0).max().unwrap() + 1;
        let mut tokens: Vec<String> = (0..size).map(|id| format!("[PAD{id}]")).collect();
        let mut types = vec![5; size];
        for (id, token, token_type) in entries {
            tokens[id] = token;
            types[id] = token_type;
        }
        let merge = |merge: &Value| match merge {
            Value::String(line) => line.clone(),
            pair => format!(
                "{} {}",
                pair[0].as_str().unwrap(),
                pair[1].as_str().unwrap()
            ),
        };
        let merges = file["model"]["merges"]
            .as_array()
            .unwrap()
            .iter()
            .map(merge)
            .collect();
        Self {
            tokens,
            types,
            merges,
        }
    }

    pub(crate) fn source(&self, pre_tokenizer: PreTokenizer) -> VocabularySource<'_> {
        VocabularySource {
            tokens: self.tokens.iter().map(String::as_bytes).collect(),
            token_types: Some(self.types.clone()),
            merges: self.merges.iter().map(String::as_bytes).collect(),
            pre_tokenizer,
            ..VocabularySource::default()
        }
    }
}

pub(crate) fn v4_from_arrays(with_types: bool) -> Tokenizer {
    static ARRAYS: OnceLock<Arrays> = OnceLock::new();
    let arrays = ARRAYS.get_or_init(|| Arrays::of(v4_json()));
    let mut source = arrays.source(PreTokenizer::DeepSeek);
    if !with_types {
        source.token_types = None;
    }
    Tokenizer::from_vocabulary(&source).unwrap()
}
