//! Long and hostile texts take time in proportion to their length and hold nothing back for long.

use ds4_chat::{Event, ParserOptions, StreamParser, parse};

const LONG: usize = 10 << 20;

/// Feeds `text` in pieces of about `size` bytes; gives the bytes of all fragments.
fn feed(text: &str, size: usize) -> usize {
    let mut parser = StreamParser::new(ParserOptions::default());
    let mut bytes = 0;
    let mut count = |events: Vec<Event>| {
        for event in events {
            bytes += match event {
                Event::Content(text) | Event::Reasoning(text) | Event::Ignored(text) => text.len(),
                Event::ToolCallArguments { delta, .. } => delta.len(),
                _ => 0,
            };
        }
    };
    let mut start = 0;
    while start < text.len() {
        let mut end = (start + size).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        count(parser.push(&text[start..end]));
        start = end;
    }
    count(parser.finish());
    bytes
}

#[test]
fn hostile_texts_end() {
    let open = "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\">";
    let value = format!("{open}<｜DSML｜parameter name=\"a\" string=\"true\">");
    for unit in [
        "<",
        "\n",
        " ",
        "</think",
        "<｜DSML｜",
        "<｜DSML｜invoke ",
        "`<｜DSML｜invoke name=\"x\">",
        "</｜DSML｜invoke>\n",
    ] {
        for prefix in ["", open, &value] {
            let text = format!("{prefix}{}", unit.repeat(LONG / 4 / unit.len()));
            feed(&text, 16);
            feed(&text, text.len());
        }
    }
    let in_a_tag = format!("<｜DSML｜invoke name=\"{}", "x".repeat(LONG));
    assert!(feed(&in_a_tag, 1) >= LONG);
}

#[test]
fn many_calls_parse() {
    let call = "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n";
    let text = format!(
        "<｜DSML｜tool_calls>\n{}</｜DSML｜tool_calls>",
        call.repeat(4096)
    );
    let message = parse(&text, ParserOptions::default());
    assert_eq!(message.tool_calls.len(), 4096);
    assert!(
        message
            .tool_calls
            .iter()
            .all(|call| call.complete && call.arguments == "{\"a\": \"1\"}")
    );
    assert!(message.repairs.is_empty());
}

#[test]
fn deep_nesting_is_bounded() {
    let text = format!(
        "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\">{}",
        "<｜DSML｜parameter name=\"a\">".repeat(100_000)
    );
    let message = parse(&text, ParserOptions::default());
    assert_eq!(message.tool_calls.len(), 1);
    assert!(!message.tool_calls[0].complete);
}

#[test]
fn an_unclosed_block_is_not_held_back() {
    let mut parser = StreamParser::new(ParserOptions::default());
    parser.push("<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"true\">");
    for _ in 0..1000 {
        let events = parser.push("some text ");
        assert!(
            matches!(&events[..], [Event::ToolCallArguments { delta, .. }] if delta == "some text ")
        );
    }
}
