//! One JSON value a line in, one a line out.

use std::io::{BufRead, BufReader, Read};

use anyhow::{Context, anyhow};
use serde_json::{Value, json};

use crate::failure;
use crate::output::Output;

/// Calls `convert` with every line of `input` and writes its result. Blank lines are passed over.
///
/// A line that cannot be converted gives `{"error": …}` in its place, and an error at the end.
///
/// # Errors
/// Bad lines, reported together after the last one; failing streams.
pub(crate) fn convert(
    input: impl Read,
    output: &mut Output,
    mut convert: impl FnMut(&str) -> anyhow::Result<Value>,
) -> anyhow::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let mut line = Vec::new();
    let (mut lines, mut refused) = (0usize, 0usize);
    loop {
        if input.buffer().is_empty() {
            // The next read may wait for somebody who waits for our answer.
            output.flush()?;
        }
        line.clear();
        if input
            .read_until(b'\n', &mut line)
            .context("cannot read standard input")?
            == 0
        {
            break;
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        lines += 1;
        let result = std::str::from_utf8(line)
            .map_err(|error| anyhow!("not UTF-8 from byte {} on", error.valid_up_to()))
            .and_then(&mut convert);
        let value = result.unwrap_or_else(|error| {
            refused += 1;
            json!({ "error": failure::describe(&error) })
        });
        output.line(&one_line(&value))?;
    }
    output.flush()?;
    if refused > 0 {
        return Err(anyhow!("{refused} of {lines} lines could not be converted"));
    }
    Ok(())
}

/// JSON without the characters that some readers take for the end of a line beside `\n` (those below
/// U+0020 JSON escapes anyway). They can only be inside of strings.
fn one_line(value: &Value) -> String {
    let json = value.to_string();
    if !json.contains(['\u{85}', '\u{2028}', '\u{2029}']) {
        return json;
    }
    json.replace('\u{85}', "\\u0085")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_stays_on_its_line_and_stays_itself() {
        let value = Value::from("a\nb\u{85}c\u{2028}d\u{2029}e\u{b}é");
        let json = one_line(&value);
        assert_eq!(json, r#""a\nb\u0085c\u2028d\u2029e\u000bé""#);
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
    }
}
