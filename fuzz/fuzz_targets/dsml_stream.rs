//! Any text, cut anywhere, parses like the whole: same message, same order of events, no panic.
#![no_main]

use ds4_chat::{BlocksInReasoning, Entities, Event, ParserOptions, StreamParser};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    // First byte: options. Second: seed of the cuts.
    let [flags, seed, text @ ..] = data else { return };
    let text = String::from_utf8_lossy(text);
    let options = ParserOptions {
        thinking: flags & 1 != 0,
        tools: flags & 2 == 0,
        starts_in_tool_calls: flags & 4 != 0,
        continues_prefix: flags & 8 != 0,
        blocks_in_reasoning: if flags & 16 != 0 { BlocksInReasoning::Text } else { BlocksInReasoning::Call },
        entities: if flags & 32 != 0 { Entities::Always } else { Entities::Unofficial },
    };

    let mut parser = StreamParser::new(options);
    let mut whole = parser.push(&text);
    whole.extend(parser.finish());

    let mut parser = StreamParser::new(options);
    let mut pieces = Vec::new();
    let (mut start, mut state) = (0, u32::from(*seed) + 1);
    while start < text.len() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let mut end = (start + 1 + (state >> 28) as usize).min(text.len());
        while !text.is_char_boundary(end) {
            end += 1;
        }
        pieces.extend(parser.push(&text[start..end]));
        start = end;
    }
    pieces.extend(parser.finish());
    assert_eq!(joined(whole), joined(pieces));
});

/// Joins neighbouring fragments of one kind.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), &event) {
            (Some(Event::Reasoning(last)), Event::Reasoning(text))
            | (Some(Event::Content(last)), Event::Content(text))
            | (Some(Event::Ignored(last)), Event::Ignored(text))
            | (Some(Event::ToolCallArguments { delta: last, .. }), Event::ToolCallArguments { delta: text, .. }) => {
                last.push_str(text);
            }
            _ => out.push(event),
        }
    }
    out
}
