//! Properties that hold for every text and every sequence of ids.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod data;

use std::time::{Duration, Instant};

use data::v4_from_json;
use ds4_tokenizer::{SpecialTokens, TokenId, Tokenizer};
use proptest::prelude::*;

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
    let mut ids = Vec::new();
    tokenizer.encode(text, &mut ids);
    ids
}

/// Any text, with control tokens, white space and long runs more often than by chance.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => any::<String>(),
        2 => "[ \t\r\n\u{3000}a1.]{1,12}",
        2 => "[一-龥ぁ-ヿa-z]{1,40}",
        1 => Just("<｜User｜>".to_owned()),
        1 => Just("</think>".to_owned()),
        1 => ("[a-z \n👍]", 1..400usize).prop_map(|(text, count)| text.repeat(count)),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn decoding_restores_the_text(text in texts()) {
        let tokenizer = v4_from_json();
        let plain = encode(&tokenizer, &text);
        prop_assert_eq!(tokenizer.decode(&plain), text.as_bytes());
        prop_assert_eq!(&tokenizer.decode_lossy(&plain), &text);
        prop_assert!(!plain.iter().any(|&id| tokenizer.is_special(id)));

        let mut ids = Vec::new();
        tokenizer.encode_with_specials(&text, &mut ids);
        prop_assert_eq!(tokenizer.decode(&ids), text.as_bytes());
    }

    #[test]
    fn encoding_appends(text in texts()) {
        let tokenizer = v4_from_json();
        let mut ids = vec![7];
        tokenizer.encode(&text, &mut ids);
        prop_assert_eq!(ids[0], 7);
        prop_assert_eq!(&ids[1..], encode(&tokenizer, &text));
    }

    /// Ids in any order, so most tokens of partial characters meet the wrong neighbours.
    #[test]
    fn a_stream_gives_what_decoding_at_once_gives(
        ids in prop::collection::vec(prop_oneof![0..129_300u32, 3..260u32, 128_790..128_830u32], 0..40),
    ) {
        let tokenizer = v4_from_json();
        let mut decoder = tokenizer.stream_decoder();
        let mut text = String::new();
        for &id in &ids {
            text.push_str(decoder.push(id));
        }
        text.push_str(decoder.finish());
        prop_assert_eq!(text, tokenizer.decode_lossy(&ids));

        let mut decoder = tokenizer.stream_decoder_with(SpecialTokens::Hide);
        let mut text = String::new();
        for &id in &ids {
            text.push_str(decoder.push(id));
        }
        text.push_str(decoder.finish());
        let shown: Vec<TokenId> =
            ids.into_iter().filter(|&id| !tokenizer.is_special(id)).collect();
        prop_assert_eq!(text, tokenizer.decode_lossy(&shown));
    }

    #[test]
    fn a_stream_of_valid_text_has_no_replacement_characters(text in texts()) {
        let tokenizer = v4_from_json();
        let mut decoder = tokenizer.stream_decoder();
        let mut decoded = String::new();
        for id in encode(&tokenizer, &text) {
            decoded.push_str(decoder.push(id));
            prop_assert!(text.starts_with(&decoded));
        }
        prop_assert!(!decoder.is_inside_character());
        prop_assert_eq!(decoder.finish(), "");
        prop_assert_eq!(decoded, text);
    }
}

#[test]
fn a_character_comes_only_when_it_is_complete() {
    let tokenizer = v4_from_json();
    // The bytes of U+1F99A one by one: single-byte tokens exist for all of them.
    let bytes = "🦚".as_bytes();
    let single = |byte: u8| {
        (0..1000)
            .find(|&id| tokenizer.token_bytes(id) == Some(&[byte][..]))
            .unwrap()
    };
    let mut decoder = tokenizer.stream_decoder();
    for &byte in &bytes[..3] {
        assert_eq!(decoder.push(single(byte)), "");
        assert!(decoder.is_inside_character());
    }
    assert_eq!(decoder.push(single(bytes[3])), "🦚");

    // Cut short by the end, by other text, and by a control token.
    assert_eq!(decoder.push(single(bytes[0])), "");
    assert_eq!(decoder.finish(), "\u{fffd}");
    assert_eq!(decoder.finish(), "");
    decoder.push(single(bytes[0]));
    assert_eq!(decoder.push(single(b'a')), "\u{fffd}a");
    decoder.push(single(bytes[0]));
    assert_eq!(decoder.push(128_822), "\u{fffd}</think>");
    assert_eq!(decoder.push(u32::MAX), "");
}

/// Quadratic behaviour would take minutes for any of these; a second each is ample without it.
#[test]
fn long_runs_take_linear_time() {
    let tokenizer = v4_from_json();
    for (piece, count) in [
        ("a", 200_000),
        ("\n", 1_000_000),
        (" ", 1_000_000),
        ("\t\r", 500_000),
        ("é", 300_000),
        ("ab", 300_000),
        ("字", 300_000),
        ("!", 500_000),
        ("\u{301}", 300_000),
        ("1", 500_000),
        ("\0", 500_000),
        ("<", 500_000),
        ("<｜", 300_000),
        ("<think", 200_000),
        (" \u{301}\n", 200_000),
    ] {
        let text = piece.repeat(count);
        let start = Instant::now();
        let ids = encode(&tokenizer, &text);
        let mut with_specials = Vec::new();
        tokenizer.encode_with_specials(&text, &mut with_specials);
        let elapsed = start.elapsed();
        assert_eq!(tokenizer.decode(&ids), text.as_bytes());
        assert!(
            elapsed < Duration::from_secs(10),
            "{count} times {piece:?}: {elapsed:?}"
        );
    }
}

#[test]
fn threads_share_a_tokenizer() {
    let tokenizer = v4_from_json();
    let text = "The quick brown fox, 狐狸 123456 — naïve café\n\n".repeat(50);
    let expected = encode(&tokenizer, &text);
    let fresh = Tokenizer::from_json(data::v4_json()).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(encode(&fresh, &text), expected));
        }
    });
}
