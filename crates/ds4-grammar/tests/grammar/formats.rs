//! Each kind of format.

use ds4_grammar::Format;
use serde_json::json;

use crate::support::{follows, schema};

#[track_caller]
fn check(format: &Format, fits: &[&str], does_not: &[&str]) {
    for text in fits {
        follows(format, text, false).unwrap_or_else(|why| panic!("{text}: {why:?}"));
    }
    for text in does_not {
        assert!(follows(format, text, false).is_err(), "{text} fits");
    }
}

#[test]
fn json_object() {
    check(
        &Format::JsonObject,
        &[
            "{}",
            r#"{"a":1}"#,
            "{\n  \"a\": [1, 2.5e3, null],\n  \"ü\": {\"b\": \"\\u00e9 \\\"x\\\" \u{1f600}\"}\n}",
        ],
        &[
            "[]",
            "{",
            r#"{"a":1,}"#,
            r#"{"a":01}"#,
            "{} {}",
            "{'a':1}",
            "x{}",
        ],
    );
}

#[test]
fn json_schema() {
    let person = schema(&json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "pattern": "^[A-Z][a-z]+$"},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "mail": {"anyOf": [{"type": "string", "format": "email"}, {"type": "null"}]}
        },
        "required": ["name", "age"],
        "additionalProperties": false
    }));
    check(
        &person,
        &[
            r#"{"name":"Ada","age":36}"#,
            r#"{"name": "Ada", "age": 36, "mail": "ada@example.org"}"#,
            r#"{"name":"Ada","age":0,"mail":null}"#,
        ],
        &[
            r#"{"name":"ada","age":36}"#,
            r#"{"name":"Ada","age":151}"#,
            r#"{"name":"Ada"}"#,
            r#"{"name":"Ada","age":36,"x":1}"#,
            r#"{"name":"Ada","age":36,"mail":"ada"}"#,
        ],
    );
}

#[test]
fn regex() {
    let regex = |text: &str| Format::Regex(text.to_owned());
    check(
        &regex(r"^\d{3}-[a-z]+$"),
        &["123-abc"],
        &["12-abc", "123-", "123-abc "],
    );
    check(&regex("(?i)yes|no"), &["yes", "NO"], &["maybe", ""]);
    check(&regex(r"a/b\\c"), &[r"a/b\c"], &["a/b"]);
}

#[test]
fn lark() {
    let format = Format::Lark(
        "start: expr\nexpr: NUMBER (OPERATOR NUMBER)*\nNUMBER: /[0-9]+/\nOPERATOR: /[+*]/"
            .to_owned(),
    );
    check(&format, &["1+2*33"], &["1+", "+1", "1 + 2"]);
}

#[test]
fn choice() {
    let choice =
        |texts: &[&str]| Format::Choice(texts.iter().map(|&text| text.to_owned()).collect());
    check(
        &choice(&["a", "ab", "quo\"te\n", "\u{1f600}"]),
        &["a", "ab", "quo\"te\n", "\u{1f600}"],
        &["", "b", "abc", "A"],
    );
    check(&choice(&["", "x"]), &["", "x"], &["xx"]);
    check(&choice(&[""]), &[""], &["x"]);
}
