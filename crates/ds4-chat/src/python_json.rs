//! JSON as the official encoder writes it: Python's `json.dumps(value, ensure_ascii=False)`.
//!
//! Works from the client's own JSON text, so that integers of any size survive. Python's rules: `, `
//! and `: ` as separators, the last of equal keys at the place of the first, floats in their shortest
//! form with an exponent below 1e-4 and from 1e16.

use std::collections::HashMap;
use std::fmt::Write as _;

/// Why a JSON text could not be rewritten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid JSON at byte {offset}: {reason}")]
pub struct JsonError {
    /// Byte offset in the JSON text.
    pub offset: usize,
    /// What was wrong there.
    pub reason: String,
}

/// Nesting accepted in schemas and arguments.
const MAX_DEPTH: usize = 256;

/// A JSON value, numbers still as written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    /// `null`, `true` or `false`.
    Literal(&'static str),
    /// A number as the client wrote it.
    Number(String),
    String(String),
    Array(Vec<Json>),
    /// Keys are distinct.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one JSON value that fills `text`.
    pub(crate) fn read(text: &str) -> Result<Self, JsonError> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.whitespace();
        if reader.at < text.len() {
            Err(reader.error("text after the value"))
        } else {
            Ok(value)
        }
    }

    /// Appends the value as Python writes it.
    pub(crate) fn write(&self, out: &mut String) {
        match self {
            Self::Literal(word) => out.push_str(word),
            Self::Number(number) => write_number(number, out),
            Self::String(text) => write_string(text, out),
            Self::Array(values) => {
                out.push('[');
                for (index, value) in values.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    value.write(out);
                }
                out.push(']');
            }
            Self::Object(entries) => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    if index > 0 {
                        out.push_str(", ");
                    }
                    write_string(key, out);
                    out.push_str(": ");
                    value.write(out);
                }
                out.push('}');
            }
        }
    }

    pub(crate) fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

/// Appends a JSON string, quotes included.
pub(crate) fn write_string(text: &str, out: &mut String) {
    out.push('"');
    escape_into(text, out);
    out.push('"');
}

/// Appends the inside of a JSON string. Works piecewise: every character is escaped on its own.
pub(crate) fn escape_into(text: &str, out: &mut String) {
    let mut start = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[start..at]);
        if escape.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        start = at + 1;
    }
    out.push_str(&text[start..]);
}

fn write_number(number: &str, out: &mut String) {
    if !number.contains(['.', 'e', 'E']) {
        out.push_str(if number == "-0" { "0" } else { number });
        return;
    }
    // The grammar was checked by the reader, so this is a number or an overflow to infinity.
    let value: f64 = number.parse().unwrap_or(f64::INFINITY);
    if value.is_infinite() {
        out.push_str(if value < 0.0 { "-Infinity" } else { "Infinity" });
        return;
    }
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        out.push_str(&plain);
        if !plain.contains('.') {
            out.push_str(".0");
        }
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{mantissa}e{sign}{:02}", exponent.unsigned_abs());
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn error(&self, reason: impl Into<String>) -> JsonError {
        JsonError {
            offset: self.at,
            reason: reason.into(),
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn whitespace(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Skips whitespace, then takes `byte` if it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.whitespace();
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn value(&mut self, depth: usize) -> Result<Json, JsonError> {
        if depth > MAX_DEPTH {
            return Err(self.error(format!("nested deeper than {MAX_DEPTH}")));
        }
        self.whitespace();
        match self.peek() {
            Some(b'"') => Ok(Json::String(self.string()?)),
            Some(b'[') => self.array(depth),
            Some(b'{') => self.object(depth),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => ["null", "true", "false"]
                .into_iter()
                .find(|word| self.text[self.at..].starts_with(word))
                .map(|word| {
                    self.at += word.len();
                    Json::Literal(word)
                })
                .ok_or_else(|| self.error("expected a value")),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut values = Vec::new();
        if self.take(b']') {
            return Ok(Json::Array(values));
        }
        loop {
            values.push(self.value(depth + 1)?);
            if self.take(b']') {
                return Ok(Json::Array(values));
            }
            if !self.take(b',') {
                return Err(self.error("expected , or ]"));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Json, JsonError> {
        self.at += 1;
        let mut entries: Vec<(String, Json)> = Vec::new();
        let mut places: HashMap<String, usize> = HashMap::new();
        if self.take(b'}') {
            return Ok(Json::Object(entries));
        }
        loop {
            self.whitespace();
            if self.peek() != Some(b'"') {
                return Err(self.error("expected a key in quotes"));
            }
            let key = self.string()?;
            if !self.take(b':') {
                return Err(self.error("expected :"));
            }
            let value = self.value(depth + 1)?;
            if let Some(&place) = places.get(&key) {
                entries[place].1 = value;
            } else {
                places.insert(key.clone(), entries.len());
                entries.push((key, value));
            }
            if self.take(b'}') {
                return Ok(Json::Object(entries));
            }
            if !self.take(b',') {
                return Err(self.error("expected , or }"));
            }
        }
    }

    fn number(&mut self) -> Result<Json, JsonError> {
        let start = self.at;
        while matches!(
            self.peek(),
            Some(b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E')
        ) {
            self.at += 1;
        }
        let number = &self.text[start..self.at];
        if serde_json::from_str::<&serde_json::value::RawValue>(number).is_err() {
            self.at = start;
            return Err(self.error("malformed number"));
        }
        Ok(Json::Number(number.to_owned()))
    }

    fn string(&mut self) -> Result<String, JsonError> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut end = start + 1;
        loop {
            match bytes.get(end) {
                None => return Err(self.error("unterminated string")),
                Some(b'"') => break,
                Some(b'\\') => end += 2,
                Some(_) => end += 1,
            }
        }
        let quoted = self
            .text
            .get(start..=end)
            .ok_or_else(|| self.error("malformed escape"))?;
        let string = serde_json::from_str(quoted).map_err(|error| self.error(error.to_string()))?;
        self.at = end + 1;
        Ok(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(json: &str, python: &str) {
        assert_eq!(Json::read(json).unwrap().to_text(), python);
    }

    // Right-hand sides printed by CPython 3.12: json.dumps(json.loads(x), ensure_ascii=False).
    #[test]
    fn writes_as_python_does() {
        check(
            r#" {"a":[1,2.50,null],"b":{}} "#,
            r#"{"a": [1, 2.5, null], "b": {}}"#,
        );
        check(
            "[1e-7,1e23,1E5,0.0001,0.00001,1e16,123456789012345680.0,1e15,-0,-0.0,5e-324,1.7976931348623157e308]",
            "[1e-07, 1e+23, 100000.0, 0.0001, 1e-05, 1e+16, 1.2345678901234568e+17, 1000000000000000.0, 0, -0.0, 5e-324, 1.7976931348623157e+308]",
        );
        check(
            "123456789012345678901234567890",
            "123456789012345678901234567890",
        );
        check("1e400", "Infinity");
        check(
            r#""\u00e9\/\u0001\b\f\ud83d\ude00\u007f""#,
            "\"é/\\u0001\\b\\f😀\u{7f}\"",
        );
        check(r#"{"k":1,"j":2,"k":3}"#, r#"{"k": 3, "j": 2}"#);
    }

    #[test]
    fn says_where_json_is_wrong() {
        for (text, offset) in [
            ("[1,]", 3),
            ("{\"a\" 1}", 5),
            ("01", 0),
            ("\"a", 0),
            ("1 2", 2),
            ("\"\\", 0),
            ("", 0),
        ] {
            assert_eq!(Json::read(text).unwrap_err().offset, offset, "{text}");
        }
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::read(&nested(256)).is_ok());
        assert!(Json::read(&nested(258)).is_err());
        assert!(Json::read(&nested(1_000_000)).is_err());
    }
}
