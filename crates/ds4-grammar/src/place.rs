//! Where the control token `｜DSML｜` may stand in an answer with tool calls.
//!
//! The grammar could say it, with texts that end in `<` or `</`; but text that may be anything is far
//! quicker to mask, so the grammar lets the token end any text and this says which.

/// What stands since the last control token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Text before the calls: a block begins a line, since behind other text it would be a quotation.
    Text { last: [Option<u8>; 2] },
    /// A tag whose `>` has not come.
    Tag(Vec<u8>),
    /// The value of a string parameter, which ends in `</`.
    Value { last: [Option<u8>; 2] },
    /// Where the grammar alone decides.
    Grammar,
}

const NOTHING: [Option<u8>; 2] = [None, None];

impl Place {
    /// Before any text of an answer.
    pub(crate) fn text() -> Self {
        Self::Text { last: NOTHING }
    }

    /// Behind the control token.
    pub(crate) fn behind_token() -> Self {
        Self::Tag(Vec::new())
    }

    pub(crate) fn advance(&mut self, text: &[u8]) {
        let mut rest = text;
        if let Self::Tag(tag) = self {
            let Some(&byte) = rest.first() else { return };
            let mut byte = byte;
            // Names have no quotation marks, so the first `">` ends the tag.
            loop {
                tag.push(byte);
                rest = &rest[1..];
                if tag.ends_with(b"\">") {
                    *self = if tag.ends_with(b"string=\"true\">") {
                        Self::Value { last: NOTHING }
                    } else {
                        Self::Grammar
                    };
                    break;
                }
                match rest.first() {
                    Some(&next) => byte = next,
                    None => return,
                }
            }
        }
        if let Self::Text { last } | Self::Value { last } = self {
            for &byte in &rest[rest.len().saturating_sub(2)..] {
                *last = [last[1], Some(byte)];
            }
        }
    }

    /// Whether the control token may come next, as far as the grammar agrees.
    pub(crate) fn allows_token(&self) -> bool {
        match self {
            Self::Text { last } => matches!(last, [None | Some(b'\n'), Some(b'<')]),
            Self::Value { last } => *last == [Some(b'<'), Some(b'/')],
            Self::Tag(_) | Self::Grammar => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(start: &Place, text: &str, allows: bool) {
        // However the text is cut.
        for cut in 0..=text.len() {
            let mut place = start.clone();
            place.advance(&text.as_bytes()[..cut]);
            place.advance(&text.as_bytes()[cut..]);
            assert_eq!(place.allows_token(), allows, "{text} cut at {cut}");
        }
    }

    #[test]
    fn a_block_begins_a_line_and_a_value_ends_in_a_slash() {
        for (text, allows) in [
            ("<", true),
            ("a\n\n<", true),
            ("a <", false),
            ("<<", false),
            ("\n", false),
        ] {
            check(&Place::text(), text, allows);
        }
        let tag = "parameter name=\"a>b\" string=\"true\">";
        for (value, allows) in [
            ("</", true),
            ("x</", true),
            ("<", false),
            ("x", false),
            ("</a", false),
        ] {
            check(&Place::behind_token(), &format!("{tag}{value}"), allows);
        }
        check(
            &Place::behind_token(),
            "parameter name=\"a\" string=\"false\">1</",
            true,
        );
        check(&Place::behind_token(), "invoke name=\"a\">\n<", true);
        check(&Place::behind_token(), "parameter>\n<", true);
    }
}
