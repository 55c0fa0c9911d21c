//! `ds4 eval` on models whose answers are known.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::program::{Finished, Program, home};
use crate::test_model;

/// A model that thinks "hm" and answers "OK".
const THINKS: [(&str, &str); 6] = [
    ("<think>", "h"),
    ("h", "m"),
    ("m", "</think>"),
    ("</think>", "O"),
    ("O", "K"),
    ("K", "<｜end▁of▁sentence｜>"),
];

fn case(id: &str, category: &str, question: &str, check: Value) -> Value {
    json!({
        "id": id,
        "category": category,
        "messages": [{"role": "user", "content": question}],
        "max_tokens": 8,
        "check": check,
    })
}

fn contains(text: &str) -> Value {
    json!({"kind": "contains", "text": text})
}

fn write_cases(path: &Path, cases: &[Value]) {
    let lines: Vec<String> = cases.iter().map(|case| format!("{case}\n")).collect();
    fs::write(path, lines.concat()).unwrap();
}

fn eval(home: &Path, model: &str, arguments: &[&str]) -> Finished {
    Program::new(home)
        .args(["eval", "cases.jsonl", "--model", model])
        .args(arguments)
        .run()
}

#[test]
fn right_answers_are_counted_by_category() {
    let home = home();
    test_model::write_script(&home.path().join("script.gguf"), &THINKS);
    let mut thinks = case("b/2", "b", "x", contains("ok"));
    thinks["thinking"] = "high".into();
    let mut thinks_too_long = thinks.clone();
    thinks_too_long["id"] = "b/3".into();
    thinks_too_long["reasoning_max_tokens"] = 1.into();
    let mut cut = case("b/4", "b", "x", contains("ok"));
    cut["max_tokens"] = 1.into();
    write_cases(
        &home.path().join("cases.jsonl"),
        &[
            case("a/1", "a", "one", contains("ok")),
            case("a/2", "a", "two", contains("no")),
            thinks,
            thinks_too_long,
            cut,
        ],
    );
    let report = |arguments: &[&str]| -> Value {
        let stdout = eval(home.path(), "script.gguf", arguments).success();
        serde_json::from_str(&stdout).unwrap()
    };
    let all = report(&["--json", "--report", "report.json"]);
    assert_eq!(all["scores"], json!({"a": 0.5, "b": 1.0 / 3.0}));
    assert_eq!(all["counts"]["b"]["right"], 1);
    assert_eq!(all["counts"]["b"]["total"], 3);
    assert_eq!(all["total"]["right"], 2);
    assert_eq!(all["cut_off"], 1);
    assert_eq!(all["tokens"]["answers"], 2 + 2 + 5 + 5 + 1);
    assert_eq!(all["tokens"]["reasoning"], 2 + 2);
    assert_eq!(all["settings"]["model"], "script.gguf");

    let written = fs::read_to_string(home.path().join("report.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    assert_eq!(written["scores"], all["scores"]);
    let answers: Vec<&Value> = written["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| &case["answer"])
        .collect();
    assert_eq!(answers, ["OK", "OK", "hm</think>OK", "hm</think>OK", "O"]);
    let wrong = written["cases"][3]["wrong"].as_str().unwrap();
    assert!(wrong.contains("2 tokens, at most 1"), "{wrong}");

    assert_eq!(
        report(&["--json", "--limit", "1"])["scores"],
        json!({"a": 1.0, "b": 1.0})
    );
    assert_eq!(
        report(&["--json", "--category", "a"])["scores"],
        json!({"a": 0.5})
    );
}

#[test]
fn the_table_and_the_wrong_cases_are_for_people() {
    let home = home();
    test_model::write_script(&home.path().join("script.gguf"), &THINKS);
    write_cases(
        &home.path().join("cases.jsonl"),
        &[
            case("a/1", "a", "one", contains("ok")),
            case("a/2", "a", "to\u{1b}[2J", contains("no")),
        ],
    );
    let shown = eval(home.path(), "script.gguf", &["--show"]).success();
    // No escape sequence of a case reaches the terminal.
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], "a/2");
    assert!(
        lines[1].starts_with("  prompt    ") && lines[1].ends_with("</think>"),
        "{shown}"
    );
    assert_eq!(lines[2], "  expected  \"no\"");
    assert_eq!(lines[3], "  got       OK");
    assert_eq!(lines[4], "  wrong     `no` is not in it");
    assert_eq!(lines[6], "category  right  of  share  95% interval");
    assert_eq!(lines[7], "a             1   2  50.0%      9 to 91%");
    assert!(!shown.contains("a/1"), "{shown}");
}

#[test]
fn answers_are_those_of_the_chat_whatever_was_asked_before() {
    let home = home();
    test_model::write_noise(&home.path().join("noise.gguf"), "noise");
    let beginning = "abcabc ".repeat(20);
    let questions: Vec<String> = ["", "x", "xyz", "y", "xyw"]
        .iter()
        .map(|end| format!("{beginning}{end}"))
        .collect();
    let cases: Vec<Value> = questions
        .iter()
        .enumerate()
        .map(|(index, question)| case(&index.to_string(), "c", question, contains("?")))
        .collect();
    write_cases(&home.path().join("cases.jsonl"), &cases);
    let stdout = eval(home.path(), "noise.gguf", &["--json", "--report", "r.json"]).success();
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    let report = fs::read_to_string(home.path().join("r.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let mut alone = 0;
    for (index, question) in questions.iter().enumerate() {
        let chat = Program::new(home.path())
            .args(["-m", "noise.gguf", "-c", "512", "--system", "", "--nothink"])
            .args(["--temp", "0", "-n", "8", "-p", question])
            .run()
            .success();
        let case = &report["cases"][index];
        let answer = case["answer"].as_str().unwrap();
        assert_eq!(answer.trim_start(), chat.trim(), "{question}");
        alone += case["prompt_tokens"].as_u64().unwrap();
    }
    assert_eq!(summary["tokens"]["prompts"], alone);
    // The common beginning was computed once.
    let prefilled = summary["tokens"]["prefilled"].as_u64().unwrap();
    assert!(prefilled < alone / 2, "{prefilled} of {alone}");
}

#[test]
fn a_prompt_beyond_the_context_is_a_wrong_answer() {
    let home = home();
    let mut long = case("long", "c", &"word ".repeat(60_000), contains("?"));
    long["max_tokens"] = 1.into();
    let mut short = case(
        "short",
        "c",
        "Who are you?",
        contains("small demonstration model"),
    );
    short["max_tokens"] = 80.into();
    write_cases(&home.path().join("cases.jsonl"), &[long, short]);
    let stdout = eval(home.path(), "ds4-nano", &["--json", "--report", "r.json"]).success();
    let summary: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["scores"], json!({"c": 0.5}));
    let report = fs::read_to_string(home.path().join("r.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let wrong = report["cases"][0]["wrong"].as_str().unwrap();
    assert!(wrong.contains("do not fit the context"), "{wrong}");
    assert_eq!(report["cases"][1]["right"], true);
}

#[test]
fn files_that_are_no_cases_are_refused() {
    let home = home();
    let path = home.path().join("cases.jsonl");
    let valid = case("a", "c", "?", contains("x")).to_string();
    for (content, expected) in [
        (String::new(), "holds no case"),
        ("{}".to_owned(), "line 1: not a case: missing field"),
        (
            format!("{valid}\n{valid}"),
            "line 2: the id `a` is there twice",
        ),
        (
            valid.replace("contains", "magic"),
            "unknown variant `magic`",
        ),
        (
            valid.replace("\"check\"", "\"chek\""),
            "unknown field `chek`",
        ),
        ("\u{1f}\u{8b}no gzip".to_owned(), "line 1"),
    ] {
        fs::write(&path, &content).unwrap();
        let error = eval(home.path(), "ds4-nano", &[]).failure(1);
        assert!(error.contains(expected), "{content}: {error}");
    }
    fs::write(&path, &valid).unwrap();
    let error = eval(home.path(), "ds4-nano", &["--category", "d"]).failure(2);
    assert!(error.contains("no category `d`; there are c"), "{error}");
    eval(home.path(), "ds4-nano", &["--limit", "0"]).failure(2);
    eval(home.path(), "ds4-nano", &["--json", "--show"]).failure(2);
}
