//! Cases as written, and answers as the parser gives them.

use ds4_chat::{ParserOptions, Vintage, parse, render};
use proptest::prelude::*;

use super::*;

fn case(fields: &str) -> Result<Case, CaseProblem> {
    Case::from_json(&format!(
        "{{\"id\": \"a/1\", \"category\": \"c\", \"max_tokens\": 9, \
         \"messages\": [{{\"role\": \"user\", \"content\": \"?\"}}], {fields}}}"
    ))
}

fn checked(check: &str) -> Case {
    case(&format!("\"check\": {check}")).unwrap()
}

/// Whether an answer without reasoning is right.
fn is_right(check: &str, text: &str) -> bool {
    let answer = Answer {
        message: &parse(text, ParserOptions::default()),
        reasoning_tokens: 0,
    };
    checked(check).judge(&answer).is_ok()
}

fn call(name: &str, parameters: &[(&str, bool, &str)]) -> String {
    let parameters: String = parameters
        .iter()
        .map(|(name, string, value)| {
            format!(
                "<｜DSML｜parameter name=\"{name}\" string=\"{string}\">{value}</｜DSML｜parameter>\n"
            )
        })
        .collect();
    format!("<｜DSML｜invoke name=\"{name}\">\n{parameters}</｜DSML｜invoke>\n")
}

fn block(calls: &[String]) -> String {
    format!(
        "\n\n<｜DSML｜tool_calls>\n{}</｜DSML｜tool_calls>",
        calls.concat()
    )
}

#[test]
fn text_is_judged_behind_the_reasoning() {
    let case = checked(r#"{"kind": "contains", "text": "blue"}"#);
    let judge = |text| {
        let answer = Answer {
            message: &parse(text, ParserOptions::thinking()),
            reasoning_tokens: 3,
        };
        case.judge(&answer)
    };
    assert_eq!(judge("Red?</think>Blue."), Ok(()));
    let missing = Wrong::NotContained {
        text: "blue".to_owned(),
    };
    assert_eq!(judge("blue</think>Red."), Err(missing.clone()));
    // Reasoning without end is no answer.
    assert_eq!(judge("blue"), Err(missing));
}

#[test]
fn each_kind_accepts_and_refuses() {
    let regex = r#"{"kind": "regex", "pattern": "(?i)\\bds4 plan\\b"}"#;
    assert!(is_right(regex, "Run `ds4 plan`."));
    assert!(!is_right(regex, "Run `ds4 planet`."));

    let all = r#"{"kind": "all", "patterns": ["one", "two"]}"#;
    assert!(is_right(all, "two, one"));
    assert!(!is_right(all, "one"));

    let number = r#"{"kind": "number", "value": 42}"#;
    assert!(is_right(number, "6 * 7 = 42."));
    assert!(!is_right(number, "42 is not 43"));
    assert!(!is_right(number, "none"));

    let json = r#"{"kind": "json", "value": {"a": 1, "b": ["x", null]}}"#;
    assert!(is_right(json, " {\"b\": [\"x\", null], \"a\": 1.0}\n"));
    assert!(!is_right(json, "{\"a\": 1}"));
    assert!(!is_right(json, "Here: {\"a\": 1, \"b\": [\"x\", null]}"));
    assert!(!is_right(json, &"[".repeat(100_000)));

    let none = r#"{"kind": "no_tool_call", "pattern": "cannot"}"#;
    assert!(is_right(none, "I cannot do that."));
    assert!(!is_right(none, "Done."));
    assert!(!is_right(
        none,
        &format!("I cannot{}", block(&[call("f", &[])]))
    ));
}

#[test]
fn calls_are_a_set_with_equal_arguments() {
    let check = r#"{"kind": "tool_calls", "calls": [
        {"name": "f", "arguments": {"n": 3, "s": "x"}},
        {"name": "g", "arguments": {}}]}"#
        .replace('\n', " ");
    let (f, g) = (
        call("f", &[("s", true, "x"), ("n", false, "3")]),
        call("g", &[]),
    );
    assert!(is_right(&check, &block(&[f.clone(), g.clone()])));
    assert!(is_right(&check, &block(&[g.clone(), f.clone()])));
    // One too few, one twice, one too many.
    assert!(!is_right(&check, &block(std::slice::from_ref(&f))));
    assert!(!is_right(&check, &block(&[f.clone(), f.clone()])));
    assert!(!is_right(
        &check,
        &block(&[f.clone(), g.clone(), g.clone()])
    ));
    // Another type, another name, a missing parameter.
    let other = |call| !is_right(&check, &block(&[call, g.clone()]));
    assert!(other(call("f", &[("s", true, "x"), ("n", true, "3")])));
    assert!(other(call("F", &[("s", true, "x"), ("n", false, "3")])));
    assert!(other(call("f", &[("s", true, "x")])));
    // No call, a block without end, JSON that is none.
    assert!(!is_right(&check, "I would call f and g."));
    let whole = block(&[f, g.clone()]);
    assert!(!is_right(&check, &whole[..whole.len() - 10]));
    assert!(other(call("f", &[("s", true, "x"), ("n", false, "three")])));
}

#[test]
fn reasoning_beyond_its_limit_is_wrong() {
    let case = case(
        r#""check": {"kind": "number", "value": 5}, "reasoning_max_tokens": 4, "thinking": "high""#,
    )
    .unwrap();
    let judge = |reasoning_tokens| {
        case.judge(&Answer {
            message: &parse("2+3</think>5", ParserOptions::thinking()),
            reasoning_tokens,
        })
    };
    assert_eq!(judge(4), Ok(()));
    let long = Wrong::LongReasoning {
        tokens: 5,
        limit: 4,
    };
    assert_eq!(judge(5), Err(long));
}

#[test]
fn the_conversation_holds_tools_format_and_thinking() {
    let case = case(
        r#""check": {"kind": "contains", "text": "x"}, "thinking": "high",
           "tools": [{"type": "function", "function": {"name": "probe", "parameters": {}}}],
           "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"k": 7}}}"#,
    )
    .unwrap();
    assert!(case.offers_tools());
    let prompt = render(&case.conversation(), Vintage::April).unwrap().text();
    assert!(
        prompt.contains("\"probe\"") && prompt.contains("\"k\": 7"),
        "{prompt}"
    );
    assert!(prompt.ends_with("<｜Assistant｜><think>"), "{prompt}");
}

#[test]
fn mistakes_are_refused_with_the_field() {
    for (fields, expected) in [
        (r#""check": {"kind": "magic"}"#, "magic"),
        (r#""check": {"kind": "regex"}"#, "pattern"),
        (
            r#""check": {"kind": "regex", "pattern": "("}"#,
            "the pattern `(`",
        ),
        (
            r#""check": {"kind": "all", "patterns": []}"#,
            "`patterns` is empty",
        ),
        (
            r#""check": {"kind": "contains", "text": ""}"#,
            "`text` is empty",
        ),
        (
            r#""check": {"kind": "tool_calls", "calls": []}"#,
            "`calls` is empty",
        ),
        (
            r#""check": {"kind": "tool_calls", "calls": [{"name": "f", "arguments": 3}]}"#,
            "map",
        ),
        (r#""check": {"kind": "number", "value": "4"}"#, "number"),
        (
            r#""check": {"kind": "contains", "text": "x"}, "max_token": 3"#,
            "max_token",
        ),
        (
            r#""check": {"kind": "contains", "text": "x"}, "thinking": "low""#,
            "low",
        ),
        (
            r#""check": {"kind": "contains", "text": "x"}, "response_format": {"type": "json_schema"}"#,
            "no schema",
        ),
        (r#""tools": []"#, "check"),
    ] {
        let problem = case(fields).unwrap_err().to_string();
        assert!(problem.contains(expected), "{fields}: {problem}");
    }
    let with = |id: &str, messages: &str, tokens: &str| {
        Case::from_json(&format!(
            "{{\"id\": \"{id}\", \"category\": \"c\", \"max_tokens\": {tokens}, \
             \"messages\": {messages}, \"check\": {{\"kind\": \"contains\", \"text\": \"x\"}}}}"
        ))
        .unwrap_err()
        .to_string()
    };
    let messages = r#"[{"role": "user", "content": "?"}]"#;
    assert!(with("", messages, "1").contains("`id`"));
    assert!(with("\\u001b[2J", messages, "1").contains("control characters"));
    assert!(with(&"x".repeat(129), messages, "1").contains("129 characters"));
    assert!(with("a", "[]", "1").contains("`messages`"));
    assert!(with("a", messages, "0").contains("`max_tokens`"));
    assert!(with("a", messages, "99999999999").contains("`max_tokens`"));
    assert!(with("a", messages, "-1").contains("not a case"));
    // Values nested deeper than any reader's stack.
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(
        case(&format!(
            "\"check\": {{\"kind\": \"json\", \"value\": {deep}}}"
        ))
        .is_err()
    );
}

proptest! {
    /// Whatever is written in a case or an answer, nothing panics.
    #[test]
    fn nothing_panics(line in ".{0,200}", answer in ".{0,200}", text in ".{1,8}") {
        let _ = Case::from_json(&line);
        let message = parse(&answer, ParserOptions::default());
        for check in [
            Check::Contains(text.clone()),
            Check::Number(1.0),
            Check::Json(Value::Null),
            Check::ToolCalls(Vec::new()),
            Check::NoToolCall(None),
        ] {
            let _ = check.judge(&message);
        }
    }

    /// A word is found in any sentence that quotes it.
    #[test]
    fn quoted_words_are_found(before in "[a-z ]{0,9}", word in "[a-z0-9]{1,9}(-[0-9]{1,3})?") {
        let answer = format!("{before} \"{}\".", word.to_uppercase());
        let check = serde_json::json!({"kind": "contains", "text": word}).to_string();
        prop_assert!(is_right(&check, &answer));
    }
}
