//! Rendering against the texts and ids of DeepSeek's released encoders.

mod golden;

use std::io::Read;

use ds4_chat::{
    ControlToken, Conversation, FunctionCall, ParserOptions, Piece, Vintage, parse, render,
    render_tool_calls,
};
use ds4_tokenizer::Tokenizer;

#[test]
fn every_golden_conversation_renders_exactly() {
    let rows = golden::rows("prompt_rendering");
    assert_eq!(rows.len(), 198);
    for row in rows {
        let conversation: Conversation = serde_json::from_str(&row["input"].to_string()).unwrap();
        let mut compared = 0;
        for (key, vintage) in [
            ("preview", Vintage::April),
            ("official", Vintage::Release0731),
        ] {
            let prompt = render(&conversation, vintage).unwrap();
            // The April encoder refuses the effort "low"; there is no text to compare then.
            if let Some(expected) = row["expected"][key]["text"].as_str() {
                assert_eq!(prompt.text(), expected, "{} {key}", row["id"]);
                compared += 1;
            }
            check_pieces(prompt.pieces());
        }
        let low = row["input"]["reasoning_effort"] == "low";
        assert_eq!(compared, if low { 1 } else { 2 }, "{}", row["id"]);
    }
}

/// Servers keep messages as JSON.
#[test]
fn messages_that_were_written_and_read_again_render_the_same() {
    for row in golden::rows("prompt_rendering") {
        let conversation: Conversation = serde_json::from_str(&row["input"].to_string()).unwrap();
        let mut again = conversation.clone();
        let written = serde_json::to_string(&conversation.messages).unwrap();
        again.messages = serde_json::from_str(&written).unwrap();
        assert_eq!(serde_json::to_string(&again.messages).unwrap(), written);
        let text = |conversation| render(conversation, Vintage::Release0731).unwrap().text();
        assert_eq!(text(&again), text(&conversation), "{}", row["id"]);
    }
}

/// Texts are never empty and never adjacent, so byte-pair merges see them whole.
fn check_pieces(pieces: &[Piece]) {
    assert!(matches!(pieces[0], Piece::Special(_)));
    for pair in pieces.windows(2) {
        assert!(
            !matches!(pair, [Piece::Text(_), Piece::Text(_)]),
            "{pair:?}"
        );
    }
    assert!(
        pieces
            .iter()
            .all(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()))
    );
}

/// The golden ids come from the whole text with control tokens recognised everywhere. Ours must be the
/// same, except where client text spells a control token: that stays text.
#[test]
fn pieces_give_the_golden_ids() {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../ds4-tokenizer/tests/data/deepseek-v4-tokenizer.json.gz"
    );
    let mut json = Vec::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap())
        .read_to_end(&mut json)
        .unwrap();
    let tokenizer = Tokenizer::from_json(&json).unwrap();
    for token in ControlToken::ALL {
        assert!(
            tokenizer
                .special(token.text())
                .is_some_and(|id| tokenizer.is_special(id)),
            "{token}"
        );
    }
    let mut injections = 0;
    for row in golden::rows("prompt_rendering") {
        let conversation: Conversation = serde_json::from_str(&row["input"].to_string()).unwrap();
        for (key, vintage) in [
            ("preview", Vintage::April),
            ("official", Vintage::Release0731),
        ] {
            let Some(expected) = row["expected"][key]["ids"].as_array() else {
                continue;
            };
            let expected: Vec<u64> = expected.iter().map(|id| id.as_u64().unwrap()).collect();
            let mut ids = Vec::new();
            for piece in render(&conversation, vintage).unwrap().pieces() {
                match piece {
                    Piece::Special(token) => ids.push(tokenizer.special(token.text()).unwrap()),
                    Piece::Text(text) => {
                        let start = ids.len();
                        tokenizer.encode(text, &mut ids);
                        assert!(
                            !ids[start..].iter().any(|&id| tokenizer.is_special(id)),
                            "{text}"
                        );
                    }
                    Piece::Sampled { .. } => unreachable!("nothing is replayed"),
                }
            }
            let ids: Vec<u64> = ids.into_iter().map(u64::from).collect();
            if row["id"]
                .as_str()
                .unwrap()
                .starts_with("special_tokens_in_user_text|")
            {
                injections += 1;
                assert_ne!(ids, expected);
                let decode = |ids: &[u64]| {
                    tokenizer.decode_lossy(
                        &ids.iter()
                            .map(|&id| u32::try_from(id).unwrap())
                            .collect::<Vec<_>>(),
                    )
                };
                assert_eq!(decode(&ids), decode(&expected), "{}", row["id"]);
            } else {
                assert_eq!(ids, expected, "{} {key}", row["id"]);
            }
        }
    }
    assert_eq!(injections, 11);
}

/// What is written is read back: names, values of every kind, order.
#[test]
fn rendered_calls_are_read_back() {
    let calls = [
        (
            "get_weather",
            r#"{"city": "Paris", "n": 3, "deep": {"k": [1, 2.5, null], "t": "a\"b"}}"#,
        ),
        ("now", "{}"),
        (
            "bash",
            r#"{"command": "echo 2>&1 && cat <<'E'\n</｜DSML｜tool_calls> & &amp; 日本\nE", "b": true}"#,
        ),
    ];
    let history: Vec<_> = calls
        .iter()
        .map(|(name, arguments)| FunctionCall::new(*name, arguments))
        .collect();
    let text = format!("Looking.\n\n{}", render_tool_calls(&history).text());
    let message = parse(&text, ParserOptions::default());
    assert_eq!(message.content, "Looking.");
    assert!(message.repairs.is_empty(), "{:?}", message.repairs);
    let read: Vec<_> = message
        .tool_calls
        .iter()
        .map(|call| (call.name.as_str(), call.arguments.as_str()))
        .collect();
    assert_eq!(read, calls);
}

#[test]
fn a_prefix_is_continued() {
    let text = |last: serde_json::Value, thinking: &str| {
        let input = serde_json::json!({
            "messages": [{"role": "user", "content": "q"}, last],
            "thinking_mode": thinking,
        });
        render(
            &serde_json::from_value::<Conversation>(input).unwrap(),
            Vintage::April,
        )
        .unwrap()
        .text()
    };
    let answer = serde_json::json!({"role": "assistant", "content": "The answer", "prefix": true});
    let thought =
        serde_json::json!({"role": "assistant", "reasoning_content": "Well", "prefix": true});
    let start = "<｜begin▁of▁sentence｜><｜User｜>q<｜Assistant｜>";
    // As deepseek-recipe renders chat/assistant_prefix.
    assert_eq!(
        text(answer.clone(), "thinking"),
        format!("{start}<think></think>The answer")
    );
    assert_eq!(text(answer, "chat"), format!("{start}</think>The answer"));
    assert_eq!(text(thought, "thinking"), format!("{start}<think>Well"));
}

#[test]
fn what_stands_beside_the_messages_is_written_after_the_system_text() {
    let input = serde_json::json!({
        "messages": [{"role": "user", "content": "json please"}],
        "response_format": {"type": "json_object"},
    });
    let prompt = render(
        &serde_json::from_value::<Conversation>(input).unwrap(),
        Vintage::April,
    )
    .unwrap();
    // As deepseek-recipe renders chat/rf_json_object_word.
    assert_eq!(
        prompt.text(),
        "<｜begin▁of▁sentence｜>\n\nYou are a helpful assistant designed to output JSON.\n## Response Format:\n\n\
         Reply with JSON object ONLY.<｜User｜>json please<｜Assistant｜></think>"
    );
    let required = |thinking: &str| {
        let input = serde_json::json!({
            "messages": [{"role": "user", "content": "q"}],
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
            "tool_choice": "required",
            "thinking_mode": thinking,
        });
        render(
            &serde_json::from_value::<Conversation>(input).unwrap(),
            Vintage::April,
        )
        .unwrap()
        .text()
    };
    assert!(required("chat").ends_with("<｜Assistant｜></think>\n\n<｜DSML｜tool_calls>\n"));
    assert!(required("thinking").ends_with("<｜Assistant｜><think>"));
}
