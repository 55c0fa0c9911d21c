//! Rendering against the texts and ids of DeepSeek's released encoders.

mod golden;

use ds4_chat::{Conversation, Piece, Vintage, render};

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
