//! Generated strings over all Unicode classes, against ids from Hugging Face's `tokenizers`
//! 0.23.3 (`data/generate_cases.py` makes them).

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod data;

use data::{gunzip, v4_from_arrays, v4_from_json};
use ds4_tokenizer::{TokenId, Tokenizer};

struct Case {
    kind: String,
    text: String,
    ids: Vec<TokenId>,
    plain_ids: Vec<TokenId>,
}

fn cases() -> Vec<Case> {
    let bytes = gunzip(include_bytes!("data/generated_cases.jsonl.gz"));
    let text = String::from_utf8(bytes).unwrap();
    text.split_terminator('\n')
        .map(|line| {
            let row: Vec<serde_json::Value> = serde_json::from_str(line).unwrap();
            let ids = |index: usize| serde_json::from_value(row[index].clone()).unwrap();
            Case {
                kind: row[0].as_str().unwrap().to_owned(),
                text: row[1].as_str().unwrap().to_owned(),
                ids: ids(2),
                plain_ids: ids(if row.len() == 4 { 3 } else { 2 }),
            }
        })
        .collect()
}

fn check_all(tokenizer: &Tokenizer) {
    let cases = cases();
    assert!(cases.len() > 13_000);
    let mut ids = Vec::new();
    for Case {
        kind,
        text,
        ids: expected,
        plain_ids,
    } in &cases
    {
        ids.clear();
        tokenizer.encode_with_specials(text, &mut ids);
        assert_eq!(&ids, expected, "{kind}, with added tokens: {text:?}");
        ids.clear();
        tokenizer.encode(text, &mut ids);
        assert_eq!(&ids, plain_ids, "{kind}, plain: {text:?}");
        assert_eq!(tokenizer.decode(&ids), text.as_bytes(), "{kind}");
    }
}

#[test]
fn generated_cases_from_json() {
    check_all(&v4_from_json());
}

#[test]
fn generated_cases_from_vocabulary_arrays() {
    check_all(&v4_from_arrays(true));
}
