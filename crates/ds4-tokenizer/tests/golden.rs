//! Token ids that Hugging Face's `tokenizers` 0.23.3 gave for the official vocabulary.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod data;

use data::{gunzip, json_lines, v4_from_arrays, v4_from_json};
use ds4_tokenizer::Tokenizer;
use serde_json::Value;

fn ids(row: &Value, key: &str) -> Option<Vec<u32>> {
    let ids = row.get(key)?.as_array()?;
    Some(
        ids.iter()
            .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
            .collect(),
    )
}

fn check_all(tokenizer: &Tokenizer) {
    let rows = json_lines(include_bytes!("data/tokenizer_cases.jsonl.gz"));
    assert_eq!(rows.len(), 1235);
    for row in rows {
        let text = row["text"].as_str().unwrap();
        let with_added = ids(&row, "ids").unwrap();
        let without = ids(&row, "ids_without_added_tokens").unwrap_or_else(|| with_added.clone());

        let mut actual = Vec::new();
        tokenizer.encode_with_specials(text, &mut actual);
        assert_eq!(actual, with_added, "with added tokens: {text:?}");
        assert_eq!(tokenizer.decode(&actual), text.as_bytes());
        actual.clear();
        tokenizer.encode(text, &mut actual);
        assert_eq!(actual, without, "plain: {text:?}");
        assert_eq!(tokenizer.decode(&actual), text.as_bytes());
    }
}

#[test]
fn all_cases_from_json() {
    check_all(&v4_from_json());
}

#[test]
fn all_cases_from_vocabulary_arrays() {
    check_all(&v4_from_arrays(true));
}

#[test]
fn all_cases_without_token_types() {
    check_all(&v4_from_arrays(false));
}

#[test]
fn facts_of_the_official_vocabulary() {
    for tokenizer in [v4_from_json(), v4_from_arrays(true), v4_from_arrays(false)] {
        assert_eq!(tokenizer.vocabulary_size(), 129_280);
        assert_eq!(
            (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
            (Some(0), Some(1), Some(2))
        );
        for (text, id) in [
            ("<｜begin▁of▁sentence｜>", 0),
            ("<｜User｜>", 128_803),
            ("<｜Assistant｜>", 128_804),
            ("<think>", 128_821),
            ("</think>", 128_822),
            ("｜DSML｜", 128_825),
            ("<｜image｜>", 129_279),
        ] {
            assert_eq!(tokenizer.special(text), Some(id));
            assert!(tokenizer.is_special(id));
            assert_eq!(tokenizer.token_bytes(id), Some(text.as_bytes()));
        }
        assert_eq!(tokenizer.special("the"), None);
        assert!(!tokenizer.is_special(223));
        assert_eq!(tokenizer.token_bytes(223), Some(&b" "[..]));
        assert_eq!(tokenizer.token_bytes(129_280), None);
    }
}

#[test]
fn every_added_token_is_found_in_text_and_only_when_asked_for() {
    let tokenizer = v4_from_json();
    let (mut found, mut ids) = (0, Vec::new());
    for id in 0..tokenizer.vocabulary_size() as u32 {
        if !tokenizer.is_special(id) {
            continue;
        }
        found += 1;
        let token = tokenizer.decode_lossy(&[id]);
        let text = format!("a{token} {token}中");
        ids.clear();
        tokenizer.encode_with_specials(&text, &mut ids);
        assert_eq!(
            ids.iter().filter(|&&other| other == id).count(),
            2,
            "{text}"
        );
        ids.clear();
        tokenizer.encode(&text, &mut ids);
        assert!(
            !ids.iter().any(|&other| tokenizer.is_special(other)),
            "{text}"
        );
        assert_eq!(tokenizer.decode(&ids), text.as_bytes());
    }
    assert_eq!(found, 1283);
}

/// The toy tokenizer's file splits like GPT-2; the GGUF made from it names DeepSeek's splits.
#[test]
fn the_toy_tokenizer_loads() {
    let json = gunzip(include_bytes!("data/kq-tiny-tokenizer.json.gz"));
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    assert_eq!(tokenizer.vocabulary_size(), 512);
    assert_eq!(tokenizer.bos(), Some(0));
    let mut ids = Vec::new();
    tokenizer.encode_with_specials("<｜begin▁of▁sentence｜>yP It's", &mut ids);
    assert_eq!(&ids[..2], [0, 260]);
    assert_eq!(
        tokenizer.decode_lossy(&ids),
        "<｜begin▁of▁sentence｜>yP It's"
    );
}
