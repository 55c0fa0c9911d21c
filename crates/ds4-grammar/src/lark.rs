//! Lark grammars: looked through before the grammar library reads them.

use serde_json::Value;

use crate::limits::{MAX_LARK_BYTES, MAX_LARK_NESTING};
use crate::{GrammarError, pattern, schema};

/// Checks the length, the nesting of brackets, since the library's reader recurses, and what regular
/// expressions and schemas inside may cost.
pub(crate) fn check(text: &str, place: &str) -> Result<(), GrammarError> {
    let too_large = |what, found, limit| GrammarError::TooLarge {
        what,
        place: place.to_owned(),
        found,
        limit,
    };
    if text.len() > MAX_LARK_BYTES {
        return Err(too_large("the length", text.len(), MAX_LARK_BYTES));
    }
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(&byte) = text.as_bytes().get(at) {
        let rest = &text[at..];
        let mut length = 1;
        match byte {
            b'"' => length = literal(rest),
            b'/' if rest.starts_with("//") => length = rest.find('\n').unwrap_or(rest.len()),
            b'/' => {
                length = literal(rest);
                // One that is not closed is the library's to report.
                if let Some(regex) = rest[1..length].strip_suffix('/') {
                    pattern::check(regex, place)?;
                }
            }
            b'%' if rest.starts_with("%json") => {
                let mut values =
                    serde_json::Deserializer::from_str(&rest["%json".len()..]).into_iter::<Value>();
                // A mistake in it is the library's to report.
                if let Some(Ok(mut value)) = values.next() {
                    schema::check(&mut value, &format!("{place}, %json"))?;
                    length = "%json".len() + values.byte_offset();
                }
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_LARK_NESTING {
            return Err(too_large("the nesting", depth, MAX_LARK_NESTING));
        }
        at += length;
        while !text.is_char_boundary(at) {
            at += 1;
        }
    }
    Ok(())
}

/// The length of a literal, whose quotation mark is the first byte: to the same, unescaped, or the end of
/// the line.
fn literal(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 1,
            b'\n' => return at,
            _ if byte == bytes[0] => return at + 1,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}
