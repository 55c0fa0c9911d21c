//! Parsing against DeepSeek's two parsers, at every cut of the text.

mod golden;

use ds4_chat::{
    BlocksInReasoning, Event, ParsedMessage, ParserOptions, Repair, StreamParser, ToolCall, parse,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// The output of `ds4 parse`, in the form of the golden rows.
fn as_json(message: &ParsedMessage) -> Value {
    let calls: Vec<_> = message
        .tool_calls
        .iter()
        .map(|call| json!([call.name, call.arguments]))
        .collect();
    json!({"reasoning": message.reasoning, "content": message.content, "tool_calls": calls})
}

fn without_finish(expected: &Value) -> Value {
    json!({
        "reasoning": expected["reasoning"],
        "content": expected["content"],
        "tool_calls": expected["tool_calls"],
    })
}

fn options(thinking: bool) -> ParserOptions {
    ParserOptions {
        thinking,
        ..ParserOptions::default()
    }
}

#[test]
fn golden_texts_parse_as_deepseeks_parsers_do() {
    let rows = golden::rows("dsml_parsing");
    assert_eq!(rows.len(), 28);
    for row in rows {
        let message = parse(
            row["generated_text"].as_str().unwrap(),
            options(row["thinking"] == true),
        );
        let ours = as_json(&message);
        let (april, recipe) = (
            &row["official_april_parser"],
            without_finish(&row["recipe"]),
        );
        match row["id"].as_str().unwrap() {
            // Stop strings and JSON-only output are not the parser's; the April parser has neither.
            "stop_sequence" | "json_bare" => assert_eq!(&ours, april),
            // Both of DeepSeek's parsers lose the call.
            "tool_string_flag_missing" => {
                assert_eq!(
                    ours,
                    json!({"reasoning": "r", "content": "", "tool_calls": [["search", "{\"query\": \"x\"}"]]})
                );
                assert!(matches!(
                    message.repairs[..],
                    [Repair::MissingStringAttribute { .. }]
                ));
            }
            "tool_extra_spaces" => {
                assert_eq!(
                    ours,
                    json!({"reasoning": "r", "content": "", "tool_calls": [["search", "{\"query\": \"x\"}"]]})
                );
                assert!(
                    message
                        .repairs
                        .iter()
                        .all(|repair| matches!(repair, Repair::TagSpelling { .. }))
                );
                assert!(message.tool_calls[0].complete);
            }
            id => assert_eq!(ours, recipe, "{id}"),
        }
        // Whatever both agree on is ours too.
        if *april == recipe {
            assert_eq!(&ours, april, "{}", row["id"]);
        }
    }
}

#[test]
fn golden_streams_carry_the_same_text() {
    let mut texts = std::collections::BTreeSet::new();
    for row in golden::rows("stream_events") {
        texts.insert(row["generated_text"].as_str().unwrap().to_owned());
        let chat = &row["final"]["choices"][0]["message"];
        let id = row["id"].as_str().unwrap();
        let by_policy = [
            "stop_sequence",
            "json_bare",
            "tool_string_flag_missing",
            "tool_extra_spaces",
        ];
        if chat.is_null() || by_policy.iter().any(|case| id.starts_with(case)) {
            continue;
        }
        let thinking = row["request"]["thinking"]["type"] == "enabled";
        let message = parse(row["generated_text"].as_str().unwrap(), options(thinking));
        assert_eq!(
            message.content,
            chat["content"].as_str().unwrap_or_default(),
            "{id}"
        );
        assert_eq!(
            message.reasoning,
            chat["reasoning_content"].as_str().unwrap_or_default(),
            "{id}"
        );
        let empty = Vec::new();
        let calls = chat["tool_calls"].as_array().unwrap_or(&empty);
        assert_eq!(message.tool_calls.len(), calls.len(), "{id}");
        for (ours, theirs) in message.tool_calls.iter().zip(calls) {
            assert_eq!(ours.name, theirs["function"]["name"], "{id}");
            assert_eq!(ours.arguments, theirs["function"]["arguments"], "{id}");
        }
    }
    // Two of the 28 cases differ in how generation ended, not in text.
    assert_eq!(texts.len(), 27);
}

/// Feeds pieces and joins the fragments.
fn in_pieces<'a>(
    pieces: impl IntoIterator<Item = &'a str>,
    options: ParserOptions,
) -> (ParsedMessage, Vec<Event>) {
    let mut parser = StreamParser::new(options);
    let mut events: Vec<Event> = pieces
        .into_iter()
        .flat_map(|piece| parser.push(piece))
        .collect();
    events.extend(parser.finish());
    (events.iter().cloned().collect(), joined(events))
}

/// Joins neighbouring fragments of one kind.
fn joined(events: Vec<Event>) -> Vec<Event> {
    let mut out: Vec<Event> = Vec::new();
    for event in events {
        match (out.last_mut(), &event) {
            (Some(Event::Reasoning(last)), Event::Reasoning(text))
            | (Some(Event::Content(last)), Event::Content(text))
            | (Some(Event::Ignored(last)), Event::Ignored(text))
            | (
                Some(Event::ToolCallArguments { delta: last, .. }),
                Event::ToolCallArguments { delta: text, .. },
            ) => last.push_str(text),
            _ => out.push(event),
        }
    }
    out
}

#[track_caller]
fn check_every_cut(text: &str, options: ParserOptions) {
    let whole = in_pieces([text], options);
    for cut in (1..text.len()).filter(|&cut| text.is_char_boundary(cut)) {
        assert_eq!(
            in_pieces([&text[..cut], &text[cut..]], options),
            whole,
            "{text:?} cut at {cut}"
        );
    }
    let characters = text
        .char_indices()
        .map(|(at, c)| &text[at..at + c.len_utf8()]);
    assert_eq!(
        in_pieces(characters, options),
        whole,
        "{text:?} character by character"
    );
}

#[test]
fn cuts_do_not_matter() {
    for row in golden::rows("dsml_parsing") {
        for thinking in [true, false] {
            check_every_cut(row["generated_text"].as_str().unwrap(), options(thinking));
        }
    }
    for text in MALFORMED {
        for thinking in [true, false] {
            check_every_cut(text, options(thinking));
        }
    }
}

/// What models send in the real world, from the issues of several engines.
const MALFORMED: &[&str] = &[
    "think\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">1</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    "<DSML｜tool_calls>\n<DSML｜invoke name=\"f\">\n<DSML｜parameter name=\"a\" string=\"true\">1</DSML｜parameter>\n</DSML｜invoke>\n</DSML｜tool_calls>",
    "<｜DSML｜｜tool_calls><｜DSML｜｜invoke name=“f”><｜DSML｜｜parameter name=“a” string=“true”>1</｜DSML｜｜parameter></｜DSML｜｜invoke></｜DSML｜｜tool_calls>",
    "<|DSML|tool_calls>\n<|DSML|invoke name='f'>\n<|DSML| parameter name='a' string='true'>1</|DSML| parameter>\n</|DSML|invoke>\n</|DSML|tool_calls>",
    "ok <tool_calls>\n<invoke name=\"f\">\n<parameter name=\"a\" string=\"true\">a &amp;&amp; b &l</parameter>\n</invoke>\n</tool_calls>",
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"o\">\n<｜DSML｜parameter name=\"old\">x &lt;y&gt;</｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n{\"a\": [1, 2]}  \n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\"/>\n</｜DSML｜tool_calls>\n\nDone. </think> x",
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke>\nsome junk  here\n</｜DSML｜invoke>\n<｜DSML｜parameter name=\"q\" string=\"true\">z</｜DSML｜parameter>\n</｜DSML｜tool_calls>",
    "text </｜DSML｜invoke> more </｜DSML｜tool_calls>\n\nend",
    "the `<｜DSML｜tool_calls>` tag and \"<｜DSML｜invoke name=\"x\">\"\n\nthen\n\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
    "```\n<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>\n```\nquoted</think>ok",
    "<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">see </｜DSML｜invoke> and </｜DSML｜tool_calls> here</｜DSML｜parameter>\n</｜DSML｜invoke>",
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">x</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n<｜DSML｜parameter name=\"a\" string=\"false\">[1,</｜DSML｜tool_calls>",
    "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"a\" string=\"true\">x</｜DSML｜parameter\n</｜DSML｜invoke\n</｜DSML｜tool_calls",
    "a\n\n\n<｜DSML｜",
    "r</think>a\n</think>\n\n<｜DSML｜invoke name=\"get_wea",
    "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"ci",
    "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"city\" string=\"tr",
    "<｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"city\">  \n ",
    "<tool_calls>\n just xml <invoke name=\"x\"> and </parameter>",
];

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

fn calls(message: &ParsedMessage) -> Vec<(String, String)> {
    message
        .tool_calls
        .iter()
        .map(|call| (call.name.clone(), call.arguments.clone()))
        .collect()
}

#[test]
fn malformed_blocks_are_mended_and_reported() {
    let parsed = |at: usize| parse(MALFORMED[at], options(false));

    let message = parse(MALFORMED[0], options(true));
    assert_eq!(
        (message.reasoning.as_str(), message.content.as_str()),
        ("think", "")
    );
    assert_eq!(calls(&message), [call("f", "{\"a\": \"1\"}")]);
    assert_eq!(message.repairs, [Repair::UnclosedThinking]);

    for at in [1, 2, 3] {
        let message = parsed(at);
        assert_eq!(calls(&message), [call("f", "{\"a\": \"1\"}")]);
        assert_eq!(
            (message.content.as_str(), message.ignored.as_str()),
            ("", "")
        );
        assert_eq!(message.repairs.len(), 6);
        assert!(
            message
                .repairs
                .iter()
                .all(|repair| matches!(repair, Repair::TagSpelling { .. }))
        );
    }

    let message = parsed(4);
    assert_eq!(message.content, "ok ");
    assert_eq!(calls(&message), [call("f", "{\"a\": \"a && b &l\"}")]);
    assert!(message.repairs.contains(&Repair::EntitiesDecoded {
        index: 0,
        parameter: "a".to_owned()
    }));

    let message = parsed(5);
    assert_eq!(
        calls(&message),
        [call("f", "{\"o\": {\"old\": \"x <y>\", \"n\": 3}}")]
    );
    assert!(message.repairs.contains(&Repair::NestedParameters {
        index: 0,
        parameter: "o".to_owned()
    }));

    let message = parsed(6);
    assert_eq!(
        calls(&message),
        [call("f", "{\"a\": [1, 2]}"), call("g", "{}")]
    );
    assert_eq!(message.ignored, "Done. </think> x");
    assert!(message.repairs.contains(&Repair::TextAfterToolCalls));

    let message = parsed(7);
    assert_eq!(calls(&message), []);
    assert!(
        message.ignored.contains("some junk  here"),
        "{}",
        message.ignored
    );
    assert!(
        message
            .repairs
            .iter()
            .any(|repair| matches!(repair, Repair::MissingName { .. }))
    );

    let message = parsed(8);
    assert_eq!(message.content, "text  more \n\nend");
    assert_eq!(message.repairs.len(), 2);

    let message = parsed(9);
    assert!(
        message
            .content
            .starts_with("the `<｜DSML｜tool_calls>` tag")
            && message.content.ends_with("\"\n\nthen")
    );
    assert_eq!(calls(&message), [call("f", "{}")]);

    let message = parse(MALFORMED[10], options(true));
    assert_eq!(calls(&message), []);
    assert!(message.reasoning.ends_with("```\nquoted"));
    assert_eq!(message.content, "ok");

    let message = parsed(11);
    assert_eq!(
        calls(&message),
        [call(
            "f",
            "{\"a\": \"see </｜DSML｜invoke> and </｜DSML｜tool_calls> here\"}"
        )]
    );
    assert_eq!(
        message.repairs,
        [Repair::MissingBlockStart, Repair::UnterminatedBlock]
    );

    let message = parsed(12);
    assert_eq!(
        calls(&message),
        [call("f", "{\"a\": \"x\"}"), call("g", "{\"a\": [1,}")]
    );
    assert_eq!(
        message.tool_calls[1].valid_arguments().as_deref(),
        Some("{\"a\": \"[1,\"}")
    );

    let message = parsed(13);
    assert_eq!(calls(&message), [call("f", "{\"a\": \"x\"}")]);

    let message = parsed(14);
    assert_eq!((message.content.as_str(), message.repairs.len()), ("a", 1));

    let message = parse(MALFORMED[15], options(true));
    assert_eq!(
        (message.content.as_str(), message.tool_calls.len()),
        ("a\n", 0)
    );

    for (at, arguments) in [
        (16, "{\"ci"),
        (17, "{\"city\": "),
        (18, "{\"city\": \"  \\n "),
    ] {
        let message = parsed(at);
        assert_eq!(calls(&message), [call("f", arguments)]);
        assert!(!message.tool_calls[0].complete);
        assert!(
            message
                .repairs
                .contains(&Repair::TruncatedToolCall { index: 0 })
        );
    }

    let message = parsed(19);
    assert_eq!(
        (message.content.as_str(), message.repairs.len()),
        (MALFORMED[19], 0)
    );
}

#[test]
fn arguments_stream_as_they_arrive() {
    let mut parser = StreamParser::new(options(false));
    assert!(
        parser
            .push("<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"bash\"")
            .is_empty()
    );
    let start = Event::ToolCallStart {
        index: 0,
        name: "bash".to_owned(),
    };
    assert_eq!(parser.push(">\n"), [start]);
    let delta = |text: &str| Event::ToolCallArguments {
        index: 0,
        delta: text.to_owned(),
    };
    assert_eq!(
        parser.push("<｜DSML｜parameter name=\"command\" string=\"true\">echo \"partial\""),
        [delta("{\"command\": \"echo \\\"partial\\\"")]
    );
    assert_eq!(parser.push(" done</"), [delta(" done")]);
    assert!(parser.push("｜DSML").is_empty());
    assert_eq!(parser.push("｜parameter>"), [delta("\"")]);
    assert_eq!(
        parser.push("</｜DSML｜invoke>"),
        [
            delta("}"),
            Event::ToolCallEnd {
                index: 0,
                complete: true
            }
        ]
    );
    assert!(!parser.is_done());
    parser.push("\n</｜DSML｜tool_calls>");
    assert!(parser.is_done());
    assert!(parser.finish().is_empty());
}

#[test]
fn without_tools_tags_are_text() {
    let text = MALFORMED[1];
    let message = parse(
        text,
        ParserOptions {
            tools: false,
            ..options(false)
        },
    );
    assert_eq!(
        (message.content.as_str(), message.tool_calls.len()),
        (text, 0)
    );
}

#[test]
fn odd_values_become_valid_on_request() {
    let row = golden::rows("dsml_parsing")
        .into_iter()
        .find(|row| row["id"] == "tool_bad_json_value")
        .unwrap();
    let message = parse(row["generated_text"].as_str().unwrap(), options(true));
    assert_eq!(message.tool_calls[0].arguments, "{\"n\": three}");
    assert_eq!(
        message.tool_calls[0].valid_arguments().as_deref(),
        Some("{\"n\": \"three\"}")
    );
    assert!(matches!(message.repairs[..], [Repair::InvalidJson { .. }]));
    assert_eq!(ToolCall::default().valid_arguments(), None);
}

/// Text from what tags are made of, and where to cut it.
fn tag_soup() -> impl Strategy<Value = (String, Vec<prop::sample::Index>)> {
    let fragment = prop::sample::select(vec![
        "<｜DSML｜",
        "</｜DSML｜",
        "<DSML｜",
        "<|DSML|",
        "<",
        "</",
        "｜",
        "tool_calls>",
        "invoke name=\"f\">",
        "parameter name=\"a\" string=\"true\">",
        "parameter name=\"b\" string=\"false\">",
        "parameter name=\"c\">",
        "parameter>",
        "invoke>",
        "invoke",
        "/>",
        " ",
        "\n",
        "\n\n",
        "</think>",
        "<think>",
        "&lt;",
        "&am",
        "{\"a\": 1}",
        "`",
        "```\n",
        "<tool_calls>",
        "<invoke name='g'>",
        "</invoke>",
        "</parameter>",
        "é",
        "日本",
        "3",
        "\"",
    ]);
    let text = prop::collection::vec(fragment, 0..40).prop_map(|fragments| fragments.concat());
    (
        text,
        prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cuts_do_not_matter_in_tag_soup((text, cuts) in tag_soup(), flags in 0u8..8) {
        let options = ParserOptions {
            thinking: flags & 1 != 0,
            starts_in_tool_calls: flags & 2 != 0,
            blocks_in_reasoning: if flags & 4 != 0 { BlocksInReasoning::Text } else { BlocksInReasoning::Call },
            ..ParserOptions::default()
        };
        let whole = in_pieces([text.as_str()], options);
        let characters = text.char_indices().map(|(at, c)| &text[at..at + c.len_utf8()]);
        prop_assert_eq!(&in_pieces(characters, options), &whole);
        let boundaries: Vec<usize> = (0..=text.len()).filter(|&at| text.is_char_boundary(at)).collect();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| boundaries[cut.index(boundaries.len())]).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(&in_pieces(cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]), options), &whole);
        // A complete call can be made JSON, unless its body was malformed JSON without parameters.
        let has_body = |index| whole.0.repairs.contains(&Repair::BareJson { index });
        let calls = whole.0.tool_calls.iter().enumerate();
        for (_, call) in calls.filter(|(index, call)| call.complete && !has_body(*index)) {
            prop_assert!(call.valid_arguments().is_some(), "{}", call.arguments);
        }
    }
}
