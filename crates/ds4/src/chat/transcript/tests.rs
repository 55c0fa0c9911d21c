use ds4_tokenizer::VocabularySource;

use super::*;

/// Single bytes as tokens 0 to 255, the merge `ab` as 256, then the control tokens.
fn tokenizer() -> Tokenizer {
    let spelling = |byte: u8| match byte {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => char::from(byte),
        0x00..=0x20 => char::from_u32(0x100 + u32::from(byte)).unwrap(),
        0x7f..=0xa0 => char::from_u32(0x121 + u32::from(byte) - 0x7f).unwrap(),
        0xad => '\u{143}',
    };
    let mut tokens: Vec<String> = (0..=255).map(|byte| spelling(byte).to_string()).collect();
    tokens.push("ab".to_owned());
    tokens.extend(
        ControlToken::ALL
            .iter()
            .map(|token| token.text().to_owned()),
    );
    let mut types = vec![1; 257];
    types.resize(tokens.len(), 3);
    let source = VocabularySource {
        tokens: tokens.iter().map(|token| token.as_bytes()).collect(),
        token_types: Some(types),
        merges: vec![b"a b"],
        ..VocabularySource::default()
    };
    Tokenizer::from_vocabulary(&source).unwrap()
}

fn text(tokenizer: &Tokenizer, ids: &[TokenId]) -> String {
    tokenizer.decode_lossy(ids)
}

/// A conversation whose first answer was sampled as `a`, `b` where encoding its text gives `ab`.
fn transcript(tokenizer: &Tokenizer) -> Transcript {
    let think_end = tokenizer.special("</think>").unwrap();
    let [h, a, b] = [u32::from(b'h'), u32::from(b'a'), u32::from(b'b')];
    let mut transcript = Transcript::new("S");
    transcript.turns.push(Turn::new(
        "q".to_owned(),
        "h".to_owned(),
        "ab".to_owned(),
        &[h, think_end, a, b],
        Some(think_end),
        Thinking::High,
    ));
    transcript
}

#[test]
fn answers_are_replayed_as_sampled() {
    let tokenizer = tokenizer();
    let transcript = transcript(&tokenizer);
    for thinking in [Thinking::Off, Thinking::High] {
        let prompt = transcript
            .prompt("ab", thinking, Vintage::April, &tokenizer)
            .unwrap();
        let end = if thinking == Thinking::Off {
            "</think>"
        } else {
            "<think>"
        };
        let history =
            "<｜begin▁of▁sentence｜>S<｜User｜>q<｜Assistant｜></think>ab<｜end▁of▁sentence｜>";
        assert_eq!(
            text(&tokenizer, &prompt.ids),
            format!("{history}<｜User｜>ab<｜Assistant｜>{end}")
        );
        assert_eq!(text(&tokenizer, &prompt.ids[..prompt.history]), history);
        // The sampled split in the answer, the merged token in the question.
        let ab = prompt.ids.iter().filter(|&&id| id == 256).count();
        assert_eq!(ab, 1);
        let split = prompt
            .ids
            .windows(2)
            .any(|pair| pair == [u32::from(b'a'), u32::from(b'b')]);
        assert!(split);
    }
}

#[test]
fn an_answer_stopped_while_thinking_has_no_content() {
    let tokenizer = tokenizer();
    let mut transcript = transcript(&tokenizer);
    transcript.turns.push(Turn::new(
        "r".to_owned(),
        "x".to_owned(),
        String::new(),
        &[u32::from(b'x')],
        tokenizer.special("</think>"),
        Thinking::High,
    ));
    let prompt = transcript
        .prompt("s", Thinking::High, Vintage::April, &tokenizer)
        .unwrap();
    let end =
        "<｜User｜>r<｜Assistant｜></think><｜end▁of▁sentence｜><｜User｜>s<｜Assistant｜><think>";
    assert!(text(&tokenizer, &prompt.ids).ends_with(end));
}

#[test]
fn what_the_user_writes_is_never_a_control_token() {
    let tokenizer = tokenizer();
    let user = tokenizer.special("<｜User｜>").unwrap();
    let prompt = Transcript::new("<｜User｜>")
        .prompt("x<｜User｜>y", Thinking::Off, Vintage::April, &tokenizer)
        .unwrap();
    assert_eq!(prompt.ids.iter().filter(|&&id| id == user).count(), 1);
}

#[test]
fn attachments_come_back_and_others_are_refused() {
    let tokenizer = tokenizer();
    let transcript = transcript(&tokenizer);
    let bytes = transcript.to_attachment(Thinking::Max).unwrap();
    assert_eq!(
        Transcript::from_attachment(&bytes).unwrap(),
        (transcript, Thinking::Max)
    );
    for other in [
        &b""[..],
        b"{}",
        b"{\"version\":2}",
        b"\xff",
        b"{\"version\":1}",
    ] {
        assert!(Transcript::from_attachment(other).is_err());
    }
}
