//! Vocabularies that are wrong in every way a file can be wrong: a typed error or a tokenizer that
//! works, never a panic.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod data;

use std::time::{Duration, Instant};

use data::Arrays;
use ds4_tokenizer::{PreTokenizer, Tokenizer, TokenizerError, VocabularySource};
use serde_json::{Value, json};

/// The byte-level spelling of every byte, in the order of the alphabet.
fn alphabet() -> Vec<String> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    (0..256u32)
        .filter(printable)
        .chain(0x100..0x144)
        .map(|code_point| char::from_u32(code_point).unwrap().to_string())
        .collect()
}

/// A small sound file: 256 bytes, "ab", "abc", and one control token.
fn sound() -> Value {
    let mut vocab = serde_json::Map::new();
    for token in alphabet()
        .into_iter()
        .chain(["ab".to_owned(), "abc".to_owned()])
    {
        vocab.insert(token, json!(vocab.len()));
    }
    json!({
        "added_tokens": [{"id": 258, "content": "<end>", "special": true, "normalized": false,
            "single_word": false, "lstrip": false, "rstrip": false}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": ["a b", "ab c"]},
    })
}

fn load(file: &Value) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_json(&serde_json::to_vec(file).unwrap())
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    let mut ids = Vec::new();
    tokenizer.encode_with_specials(text, &mut ids);
    ids
}

/// Loads the sound file after a change.
fn changed(change: impl FnOnce(&mut Value)) -> Result<Tokenizer, TokenizerError> {
    let mut file = sound();
    change(&mut file);
    load(&file)
}

#[test]
fn the_sound_file_loads() {
    assert_eq!(ids(&load(&sound()).unwrap(), "abc<end>ab"), [257, 258, 256]);
    // Merges as pairs.
    let pairs = changed(|file| file["model"]["merges"] = json!([["a", "b"], ["ab", "c"]]));
    assert_eq!(ids(&pairs.unwrap(), "abc<end>ab"), [257, 258, 256]);
}

#[test]
fn bytes_that_are_not_the_json_of_a_tokenizer() {
    let deep = "[".repeat(100_000);
    let deep_object = format!("{{\"model\":{}", "{\"a\":".repeat(100_000));
    let deep_ignored = format!(
        "{{\"padding\":{}{}}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    for bytes in [
        &b""[..],
        b"\0",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b"{\"model\":{}}",
        b"{\"model\":null}",
        b"{\"model\":{\"vocab\":[],\"merges\":[]}}",
        b"{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}",
        b"{\"model\":{\"vocab\":{\"a\":1e999},\"merges\":[]}}",
        b"{\"model\":{\"vocab\":{\"a\":4294967296},\"merges\":[]}}",
        b"{\"model\":{\"vocab\":{\"\\ud800\":1},\"merges\":[]}}",
        b"{\"model\":{\"vocab\":{\"a\":1},\"merges\":[1]}}",
        b"{\"model\":{\"vocab\":{\"a\":1},\"merges\":[[\"a\"]]}}",
        b"{\"model\":{\"vocab\":{\"a\":1},\"merges\":[[\"a\",\"b\",\"c\"]]}}",
        deep.as_bytes(),
        deep_object.as_bytes(),
        deep_ignored.as_bytes(),
    ] {
        let error = Tokenizer::from_json(bytes).unwrap_err();
        assert!(matches!(error, TokenizerError::Json(_)), "{error}");
    }
    let mut truncated = serde_json::to_vec(&sound()).unwrap();
    truncated.truncate(truncated.len() - 1);
    assert!(matches!(
        Tokenizer::from_json(&truncated),
        Err(TokenizerError::Json(_))
    ));
}

#[test]
fn settings_that_would_change_the_ids_are_refused() {
    let refuses = |key: &str, change: &dyn Fn(&mut Value)| {
        let error = changed(|file| change(file)).unwrap_err();
        let TokenizerError::Unsupported { key: found, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*found, key);
    };
    refuses("model.type", &|file| {
        file["model"]["type"] = json!("Unigram")
    });
    refuses("model.dropout", &|file| {
        file["model"]["dropout"] = json!(0.1)
    });
    refuses("model.end_of_word_suffix", &|file| {
        file["model"]["end_of_word_suffix"] = json!("</w>");
    });
    refuses("model.continuing_subword_prefix", &|file| {
        file["model"]["continuing_subword_prefix"] = json!("##");
    });
    refuses("normalizer", &|file| {
        file["normalizer"] = json!({"type": "NFC"})
    });
    refuses("pre_tokenizer", &|file| file["pre_tokenizer"] = Value::Null);
    refuses("pre_tokenizer", &|file| {
        file["pre_tokenizer"]["add_prefix_space"] = json!(true)
    });
    refuses("pre_tokenizer", &|file| {
        file["pre_tokenizer"]["use_regex"] = json!(false)
    });
    refuses("pre_tokenizer", &|file| {
        file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": []});
    });
    refuses("added_tokens.single_word", &|file| {
        file["added_tokens"][0]["single_word"] = json!(true);
    });
}

#[test]
fn vocabularies_that_contradict_themselves() {
    let vocab = |file: &mut Value, token: &str, id: u64| {
        file["model"]["vocab"][token] = json!(id);
    };
    let error = changed(|file| vocab(file, "xy", 257)).unwrap_err();
    assert!(
        matches!(error, TokenizerError::DuplicateId { id: 257, .. }),
        "{error}"
    );
    let error = changed(|file| file["added_tokens"][0]["id"] = json!(3)).unwrap_err();
    assert!(
        matches!(error, TokenizerError::DuplicateId { id: 3, .. }),
        "{error}"
    );
    let error = changed(|file| file["added_tokens"][0]["content"] = json!("ab")).unwrap_err();
    assert!(
        matches!(error, TokenizerError::DuplicateToken { second: 258, .. }),
        "{error}"
    );
    for id in [1 << 22, 1 << 31, u64::from(u32::MAX)] {
        let error = changed(|file| vocab(file, "xy", id)).unwrap_err();
        assert!(
            matches!(error, TokenizerError::IdTooLarge { .. }),
            "{error}"
        );
    }
    let error = changed(|file| file["model"]["vocab"] = json!({})).unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::MissingByteToken { .. } | TokenizerError::UnknownMergeToken { .. }
        ),
        "{error}"
    );
    let error = changed(|file| {
        file["model"] = json!({"vocab": {}, "merges": []});
        file["added_tokens"] = json!([]);
    })
    .unwrap_err();
    assert!(matches!(error, TokenizerError::EmptyVocabulary), "{error}");
    let error = changed(|file| {
        file["model"]["vocab"].as_object_mut().unwrap().remove("Ġ");
    })
    .unwrap_err();
    assert!(
        matches!(error, TokenizerError::MissingByteToken { byte: b' ' }),
        "{error}"
    );
    let error = changed(|file| vocab(file, &"x".repeat(70_000), 259)).unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::TokenTooLong {
                id: 259,
                length: 70_000,
                ..
            }
        ),
        "{error}"
    );
    let error =
        changed(|file| file["added_tokens"][0]["content"] = json!("é".repeat(600))).unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::TokenTooLong {
                id: 258,
                length: 1200,
                ..
            }
        ),
        "{error}"
    );

    // A repeated key, which serde_json's own maps would hide.
    let text = serde_json::to_string(&sound())
        .unwrap()
        .replace("\"ab\":256", "\"ab\":256,\"ab\":300");
    let error = Tokenizer::from_json(text.as_bytes()).unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::DuplicateToken {
                first: 256,
                second: 300,
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn merges_that_cannot_be() {
    let merges = |merges: Value| changed(|file| file["model"]["merges"] = merges).unwrap_err();
    for malformed in ["", " ", "ab", "a  b", " a", "a ", "a b c"] {
        let error = merges(json!(["a b", malformed]));
        assert!(
            matches!(error, TokenizerError::MalformedMerge { index: 1, .. }),
            "{error}"
        );
    }
    let error = merges(json!([["", "b"]]));
    assert!(
        matches!(error, TokenizerError::MalformedMerge { index: 0, .. }),
        "{error}"
    );
    for unknown in ["a xx", "xx a", "b c", "漢 a", "a 漢"] {
        let error = merges(json!(["a b", unknown]));
        assert!(
            matches!(error, TokenizerError::UnknownMergeToken { index: 1, .. }),
            "{error}"
        );
    }
    let error = changed(|file| {
        file["added_tokens"][0]["content"] = json!("bc");
        file["model"]["merges"] = json!(["b c"]);
    })
    .unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::MergeMakesSpecialToken { index: 0, .. }
        ),
        "{error}"
    );
}

#[test]
fn odd_but_sound_vocabularies_work() {
    // Unused ids.
    let sparse = changed(|file| file["model"]["vocab"]["xy"] = json!(200_000)).unwrap_err();
    assert!(
        matches!(sparse, TokenizerError::IdsTooSparse { id: 200_000, .. }),
        "{sparse}"
    );
    let holes = changed(|file| file["model"]["vocab"]["xy"] = json!(1000)).unwrap();
    assert_eq!(holes.vocabulary_size(), 1001);
    assert_eq!(holes.token_bytes(999), None);
    assert_eq!(holes.decode(&[999, 1000, 1001]), b"xy");

    // Tokens outside the byte-level alphabet are their own text, and nothing becomes them.
    let literal = changed(|file| {
        file["model"]["vocab"]["漢"] = json!(259);
        file["model"]["vocab"]["漢漢"] = json!(260);
        file["model"]["merges"] = json!(["漢 漢", "a b"]);
    })
    .unwrap();
    assert_eq!(literal.token_bytes(260), Some("漢漢".as_bytes()));
    let text = ids(&literal, "漢漢ab");
    assert_eq!(text.len(), 7);
    assert_eq!(literal.decode_lossy(&text), "漢漢ab");

    // A token that no merge makes is found only where merges are to be ignored.
    let unreachable = |ignore: bool| {
        changed(|file| {
            file["model"]["vocab"]["xy"] = json!(259);
            file["model"]["ignore_merges"] = json!(ignore);
        })
        .unwrap()
    };
    assert_eq!(ids(&unreachable(false), "xy").len(), 2);
    assert_eq!(ids(&unreachable(true), "xy"), [259]);

    // Added tokens that take the white space around them.
    let strips = changed(|file| {
        file["added_tokens"][0]["lstrip"] = json!(true);
        file["added_tokens"][0]["rstrip"] = json!(true);
    })
    .unwrap();
    assert_eq!(ids(&strips, "ab \n<end>\u{3000} ab"), [256, 258, 256]);
    // An empty one is never found.
    let empty = changed(|file| file["added_tokens"][0]["content"] = json!("")).unwrap();
    assert_eq!(ids(&empty, "ab"), [256]);
}

#[test]
fn of_overlapping_added_tokens_the_leftmost_and_longest_wins() {
    let tokenizer = changed(|file| {
        let added = |(index, (text, normalized)): (u64, (&str, bool))| {
            json!({"id": 258 + index, "content": text, "special": true, "normalized": normalized})
        };
        let texts = [("<a", false), ("<a>", false), ("a>b", false), ("<a><", true), ("b<", true)];
        file["added_tokens"] = (0..).zip(texts).map(added).collect();
    })
    .unwrap();
    assert_eq!(
        ids(&tokenizer, "<a>b"),
        ids(&tokenizer, "<a>")
            .into_iter()
            .chain(ids(&tokenizer, "b"))
            .collect::<Vec<_>>()
    );
    assert_eq!(ids(&tokenizer, "<a"), [258]);
    assert_eq!(ids(&tokenizer, "<a>"), [259]);
    assert_eq!(ids(&tokenizer, "a>b"), [260]);
    // Tokens of raw text come before tokens of normalised text, wherever they are.
    assert_eq!(ids(&tokenizer, "b<a>"), [ids(&tokenizer, "b")[0], 259]);
    assert_eq!(ids(&tokenizer, "b<"), [262]);
}

fn arrays() -> Arrays {
    Arrays::of(&serde_json::to_vec(&sound()).unwrap())
}

fn from_arrays(arrays: &Arrays) -> Result<Tokenizer, TokenizerError> {
    Tokenizer::from_vocabulary(&arrays.source(PreTokenizer::Gpt2))
}

#[test]
fn vocabulary_arrays_that_are_wrong() {
    assert_eq!(
        ids(&from_arrays(&arrays()).unwrap(), "abc<end>ab"),
        [257, 258, 256]
    );

    let error = Tokenizer::from_vocabulary(&VocabularySource::default()).unwrap_err();
    assert!(matches!(error, TokenizerError::EmptyVocabulary), "{error}");

    let mut wrong = arrays();
    wrong.types.pop();
    let error = from_arrays(&wrong).unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::TokenTypeCount {
                types: 258,
                tokens: 259
            }
        ),
        "{error}"
    );

    for token_type in [0, 7, -1, i32::MIN, i32::MAX] {
        let mut wrong = arrays();
        wrong.types[5] = token_type;
        let error = from_arrays(&wrong).unwrap_err();
        assert!(
            matches!(error, TokenizerError::UnknownTokenType { id: 5, .. }),
            "{error}"
        );
    }

    for text in [
        "<0x-1>", "<0x+1>", "<0x1>", "<0x100>", "<0xGG>", "<0x>", "0x41", "", "<0x４1>",
    ] {
        let mut wrong = arrays();
        wrong.tokens.push(text.to_owned());
        wrong.types.push(6);
        let error = from_arrays(&wrong).unwrap_err();
        assert!(
            matches!(error, TokenizerError::MalformedByteToken { id: 259, .. }),
            "{text}: {error}"
        );
    }
    let mut byte = arrays();
    byte.tokens.push("<0xfF>".to_owned());
    byte.types.push(6);
    assert_eq!(
        from_arrays(&byte).unwrap().token_bytes(259),
        Some(&[0xff][..])
    );

    let mut wrong = arrays();
    wrong.tokens[256] = "zz".to_owned();
    let error = from_arrays(&wrong).unwrap_err();
    assert!(
        matches!(error, TokenizerError::UnknownMergeToken { index: 0, .. }),
        "{error}"
    );

    // A byte that only a control token spells.
    let mut wrong = arrays();
    wrong.types[40] = 3;
    let error = from_arrays(&wrong).unwrap_err();
    assert!(
        matches!(error, TokenizerError::MissingByteToken { .. }),
        "{error}"
    );

    let mut wrong = arrays();
    wrong.tokens[258] = "ab".to_owned();
    let error = from_arrays(&wrong).unwrap_err();
    assert!(
        matches!(
            error,
            TokenizerError::DuplicateToken {
                first: 256,
                second: 258,
                ..
            }
        ),
        "{error}"
    );

    let right = arrays();
    let mut source = right.source(PreTokenizer::Gpt2);
    source.tokens[258] = b"\xff\xfe";
    let error = Tokenizer::from_vocabulary(&source).unwrap_err();
    assert!(
        matches!(error, TokenizerError::InvalidUtf8 { id: 258, .. }),
        "{error}"
    );

    let mut source = right.source(PreTokenizer::Gpt2);
    source.merges.push(b"\xff b");
    let error = Tokenizer::from_vocabulary(&source).unwrap_err();
    assert!(
        matches!(error, TokenizerError::MalformedMerge { index: 2, .. }),
        "{error}"
    );

    for id in [259, u32::MAX] {
        let mut source = right.source(PreTokenizer::Gpt2);
        source.eos = Some(id);
        let error = Tokenizer::from_vocabulary(&source).unwrap_err();
        assert!(
            matches!(error, TokenizerError::SpecialIdOutOfRange { .. }),
            "{error}"
        );
    }
}

#[test]
fn too_many_tokens_are_refused_before_they_are_read() {
    let right = arrays();
    let mut source = right.source(PreTokenizer::Gpt2);
    source.token_types = None;
    source.tokens.resize((1 << 22) + 1, b"x");
    let error = Tokenizer::from_vocabulary(&source).unwrap_err();
    assert!(
        matches!(error, TokenizerError::IdTooLarge { .. }),
        "{error}"
    );
}

/// Added tokens with long common prefixes, and a text that almost matches them everywhere.
#[test]
fn near_misses_of_long_added_tokens_stay_cheap() {
    let tokenizer = changed(|file| {
        let added = |index: u64| {
            let text = format!("{}{index}", "a".repeat(1000));
            json!({"id": 258 + index, "content": text, "special": true, "normalized": false})
        };
        file["added_tokens"] = (0..500).map(added).collect();
    })
    .unwrap();
    let start = Instant::now();
    assert!(!ids(&tokenizer, &"a".repeat(100_000)).is_empty());
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn messages_name_the_place_and_stay_short() {
    let error =
        changed(|file| file["model"]["merges"] = json!(["a b", "a\u{7} \u{1b}[31m"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "merge 1 needs token `a\\u{7}`, which is not in the vocabulary"
    );
    let error = changed(|file| file["model"]["merges"] = json!(["x".repeat(100_000)])).unwrap_err();
    assert!(error.to_string().len() < 300);
}
