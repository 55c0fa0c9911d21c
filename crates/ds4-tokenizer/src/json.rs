//! A vocabulary from Hugging Face's `tokenizer.json`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::added_tokens::AddedToken;
use crate::error::{MAX_VOCABULARY_SIZE, TokenizerError, excerpt};
use crate::pre_tokenizer::PreTokenizer;
use crate::source::split_merge;
use crate::vocabulary::{RawToken, RawVocabulary, TokenId, TokenKind};

/// Unused ids that any vocabulary may have: few lines of JSON must not ask for much memory.
const MAX_HOLES: usize = 1 << 16;

/// The parts of the file that decide about token ids. The decoder and the post-processor are
/// fixed by the model being byte-level: no ids are added around a text.
#[derive(Deserialize)]
pub(crate) struct TokenizerFile<'a> {
    #[serde(borrow, default)]
    added_tokens: Vec<AddedTokenEntry<'a>>,
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(borrow)]
    model: Model<'a>,
}

#[derive(Deserialize)]
struct AddedTokenEntry<'a> {
    id: TokenId,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default)]
    special: bool,
    #[serde(default)]
    normalized: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default)]
    single_word: bool,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(default, rename = "type", borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(borrow)]
    vocab: VocabEntries<'a>,
    #[serde(borrow)]
    merges: Vec<MergeEntry<'a>>,
}

/// The entries of `model.vocab` in the file's order, repeated keys included.
struct VocabEntries<'a>(Vec<(Text<'a>, TokenId)>);

/// A string, borrowed from the file unless it has escapes.
#[derive(Clone)]
struct Text<'a>(Cow<'a, str>);

/// `"left right"` or `["left", "right"]`.
enum MergeEntry<'a> {
    Line(Text<'a>),
    Pair(Text<'a>, Text<'a>),
}

impl<'a> TokenizerFile<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, TokenizerError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// The pre-tokenizer, after a check that nothing else would change the ids.
    pub(crate) fn pre_tokenizer(&self) -> Result<PreTokenizer, TokenizerError> {
        let unsupported = |key, found: &dyn fmt::Display, supported| {
            Err(TokenizerError::Unsupported {
                key,
                found: excerpt(&found.to_string()),
                supported,
            })
        };
        if let Some(kind) = &self.model.kind
            && kind != "BPE"
        {
            return unsupported("model.type", kind, "BPE");
        }
        if let Some(dropout) = self.model.dropout
            && dropout != 0.0
        {
            return unsupported("model.dropout", &dropout, "null");
        }
        for (key, affix) in [
            (
                "model.continuing_subword_prefix",
                &self.model.continuing_subword_prefix,
            ),
            ("model.end_of_word_suffix", &self.model.end_of_word_suffix),
        ] {
            if let Some(affix) = affix
                && !affix.is_empty()
            {
                return unsupported(key, affix, "null");
            }
        }
        let is_identity = match &self.normalizer {
            Value::Null => true,
            normalizer => {
                normalizer["type"] == "Sequence"
                    && normalizer["normalizers"]
                        .as_array()
                        .is_some_and(Vec::is_empty)
            }
        };
        if !is_identity {
            return unsupported("normalizer", &self.normalizer, "null or an empty sequence");
        }
        if let Some(token) = self.added_tokens.iter().find(|token| token.single_word) {
            return unsupported("added_tokens.single_word", &token.content, "false");
        }
        match pre_tokenizer_of(&self.pre_tokenizer) {
            Some(pre_tokenizer) => Ok(pre_tokenizer),
            None => unsupported(
                "pre_tokenizer",
                &self.pre_tokenizer,
                "the splits of DeepSeek V3 and V4, or ByteLevel with use_regex and without \
                 add_prefix_space",
            ),
        }
    }

    pub(crate) fn to_raw(&self) -> Result<RawVocabulary<'_>, TokenizerError> {
        let base = self.model.vocab.0.iter().map(|(_, id)| *id);
        let added = self.added_tokens.iter().map(|token| token.id);
        let Some(largest) = base.chain(added).max() else {
            return Err(TokenizerError::EmptyVocabulary);
        };
        if largest as usize >= MAX_VOCABULARY_SIZE {
            return Err(TokenizerError::IdTooLarge {
                id: u64::from(largest),
            });
        }
        let entries = self.model.vocab.0.len() + self.added_tokens.len();
        if largest as usize >= MAX_HOLES + 4 * entries {
            return Err(TokenizerError::IdsTooSparse {
                id: u64::from(largest),
                entries,
            });
        }
        let mut tokens: Vec<Option<RawToken<'_>>> = vec![None; largest as usize + 1];
        for (Text(text), id) in &self.model.vocab.0 {
            put(
                &mut tokens,
                *id,
                RawToken {
                    text,
                    kind: TokenKind::Text,
                },
            )?;
        }
        let mut added = Vec::with_capacity(self.added_tokens.len());
        for token in &self.added_tokens {
            let kind = if token.special {
                TokenKind::Control
            } else {
                TokenKind::UserDefined
            };
            put(
                &mut tokens,
                token.id,
                RawToken {
                    text: &token.content,
                    kind,
                },
            )?;
            added.push(AddedToken {
                text: token.content.clone().into_owned(),
                id: token.id,
                normalized: token.normalized,
                strip_left: token.lstrip,
                strip_right: token.rstrip,
            });
        }

        let merges = self
            .model
            .merges
            .iter()
            .enumerate()
            .map(|(index, merge)| match merge {
                MergeEntry::Pair(Text(left), Text(right))
                    if left.is_empty() || right.is_empty() =>
                {
                    Err(TokenizerError::MalformedMerge {
                        index,
                        merge: excerpt(&format!("{left} {right}")),
                    })
                }
                MergeEntry::Pair(Text(left), Text(right)) => Ok((&**left, &**right)),
                MergeEntry::Line(Text(line)) => {
                    split_merge(line).ok_or_else(|| TokenizerError::MalformedMerge {
                        index,
                        merge: excerpt(line),
                    })
                }
            });
        Ok(RawVocabulary {
            tokens,
            merges: merges.collect::<Result<_, _>>()?,
            added,
            ignore_merges: self.model.ignore_merges,
            special_if_not_made: false,
        })
    }
}

/// Sets a token; one that `added_tokens` repeats from the base vocabulary takes the new kind.
fn put<'t>(
    tokens: &mut [Option<RawToken<'t>>],
    id: TokenId,
    token: RawToken<'t>,
) -> Result<(), TokenizerError> {
    let place = &mut tokens[id as usize];
    match place {
        Some(first) if first.text != token.text || token.kind == TokenKind::Text => {
            Err(TokenizerError::DuplicateId {
                id,
                first: excerpt(first.text),
                second: excerpt(token.text),
            })
        }
        _ => {
            *place = Some(token);
            Ok(())
        }
    }
}

/// DeepSeek's three expressions, with escapes in place of the line breaks of the third.
const DEEPSEEK_SPLITS: [&str; 3] = [
    r"\p{N}{1,3}",
    "[一-龥\u{3040}-ゟ゠-ヿ]+",
    concat!(
        r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##,
        r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
];

fn pre_tokenizer_of(value: &Value) -> Option<PreTokenizer> {
    let alone = std::slice::from_ref(value);
    let steps = if value["type"] == "Sequence" {
        value["pretokenizers"].as_array()?.as_slice()
    } else {
        alone
    };
    let (byte_level, splits) = steps.split_last()?;
    if byte_level["type"] != "ByteLevel" || byte_level["add_prefix_space"] != false {
        return None;
    }
    // The file's format has true for an absent `use_regex`.
    let use_regex = byte_level
        .get("use_regex")
        .is_none_or(|value| value == true);
    if splits.is_empty() {
        return use_regex.then_some(PreTokenizer::Gpt2);
    }
    let matches = splits.len() == DEEPSEEK_SPLITS.len()
        && splits.iter().zip(DEEPSEEK_SPLITS).all(|(split, expected)| {
            split["type"] == "Split"
                && split["behavior"] == "Isolated"
                && split["invert"] == false
                && split["pattern"]["Regex"].as_str().is_some_and(|pattern| {
                    pattern.replace('\r', r"\r").replace('\n', r"\n") == expected
                })
        });
    (matches && !use_regex).then_some(PreTokenizer::DeepSeek)
}

impl<'de: 'a, 'a> Deserialize<'de> for VocabEntries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = VocabEntries<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a map from tokens to ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(VocabEntries(entries))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;
        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a token")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(TextVisitor)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for MergeEntry<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Merge;
        impl<'de> Visitor<'de> for Merge {
            type Value = MergeEntry<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a merge: \"left right\" or [\"left\", \"right\"]")
            }

            fn visit_borrowed_str<E>(self, line: &'de str) -> Result<Self::Value, E> {
                Ok(MergeEntry::Line(Text(Cow::Borrowed(line))))
            }

            fn visit_str<E>(self, line: &str) -> Result<Self::Value, E> {
                Ok(MergeEntry::Line(Text(Cow::Owned(line.to_owned()))))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut pair: A) -> Result<Self::Value, A::Error> {
                match (pair.next_element()?, pair.next_element()?) {
                    (Some(left), Some(right)) => {
                        if pair.next_element::<Text<'_>>()?.is_some() {
                            return Err(A::Error::invalid_length(3, &self));
                        }
                        Ok(MergeEntry::Pair(left, right))
                    }
                    (left, _) => Err(A::Error::invalid_length(usize::from(left.is_some()), &self)),
                }
            }
        }
        deserializer.deserialize_any(Merge)
    }
}
