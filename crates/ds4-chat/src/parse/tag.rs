//! Recognises one tool tag at the start of a text, in its official form and in those that models
//! produce by mistake: missing, doubled or ASCII bars, stray spaces, curly quotation marks, plain XML.

/// Longest tag in bytes; what is longer is text.
pub(super) const MAX_TAG: usize = 1024;
/// Longest run of bars or spaces on either side of `DSML`.
const MAX_RUN: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    ToolCalls,
    Invoke,
    Parameter,
}

impl Name {
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::ToolCalls => "tool_calls",
            Self::Invoke => "invoke",
            Self::Parameter => "parameter",
        }
    }
}

/// A recognised tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) name: Name,
    pub(super) closing: bool,
    pub(super) self_closing: bool,
    /// With `DSML`; otherwise plain XML.
    pub(super) dsml: bool,
    /// The `name` attribute, as written.
    pub(super) attribute: Option<String>,
    /// The `string` attribute.
    pub(super) string: Option<bool>,
    /// Bytes from `<` through `>`.
    pub(super) length: usize,
}

impl Tag {
    /// The spelling that the released encoder gives this tag.
    pub(super) fn official(&self) -> String {
        let slash = if self.closing { "/" } else { "" };
        let mut text = format!("<{slash}｜DSML｜{}", self.name.text());
        if !self.closing && self.name != Name::ToolCalls {
            text.push_str(" name=\"");
            text.push_str(self.attribute.as_deref().unwrap_or_default());
            text.push('"');
            if let Some(string) = self.string {
                text.push_str(if string {
                    " string=\"true\""
                } else {
                    " string=\"false\""
                });
            }
        }
        text.push('>');
        text
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scan {
    /// No tag starts here.
    Text,
    /// More text decides.
    Incomplete(Partial),
    Tag(Tag),
}

/// How far a tag has come when the text ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Partial {
    /// Could still be ordinary text.
    Undecided,
    /// `DSML` with its bars has been seen.
    Dsml { closing: bool },
    /// The name too: only attributes or `>` are missing.
    Named {
        name: Name,
        closing: bool,
        dsml: bool,
    },
}

/// What a cursor step found.
enum Step<T> {
    Found(T),
    Absent,
    /// The text ended first.
    End,
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn skip(&mut self, accept: impl Fn(char) -> bool) -> usize {
        let rest = self.rest();
        let length = rest.find(|c: char| !accept(c)).unwrap_or(rest.len());
        self.at += length;
        rest[..length].chars().count()
    }

    /// Takes one of the words; the first that fits.
    fn word<T: Copy>(&mut self, words: &[(&str, T)]) -> Step<T> {
        let rest = self.rest();
        for &(word, value) in words {
            if rest.starts_with(word) {
                self.at += word.len();
                return Step::Found(value);
            }
        }
        if words.iter().any(|(word, _)| word.starts_with(rest)) {
            Step::End
        } else {
            Step::Absent
        }
    }
}

fn is_bar(c: char) -> bool {
    matches!(c, '｜' | '|')
}

/// Looks for a tag at the start of `text`.
pub(super) fn scan(text: &str) -> Scan {
    if !text.starts_with('<') {
        return Scan::Text;
    }
    let mut cursor = Cursor { text, at: 1 };
    let mut closing = cursor.rest().starts_with('/');
    cursor.at += usize::from(closing);
    let run = cursor.skip(|c| is_bar(c) || c == ' ');
    if run > MAX_RUN {
        return Scan::Text;
    }
    if run > 0 && cursor.rest().starts_with('/') {
        cursor.at += 1;
        closing = true;
    }
    let dsml = match cursor.word(&[("DSML", ())]) {
        Step::Found(()) => {
            let run = cursor.skip(|c| is_bar(c) || c == ' ');
            if run > MAX_RUN {
                return Scan::Text;
            }
            if cursor.rest().is_empty() {
                let partial = if run > 0 {
                    Partial::Dsml { closing }
                } else {
                    Partial::Undecided
                };
                return Scan::Incomplete(partial);
            }
            if run == 0 {
                return Scan::Text;
            }
            if cursor.rest().starts_with('/') {
                cursor.at += 1;
                closing = true;
            }
            true
        }
        Step::End => return Scan::Incomplete(Partial::Undecided),
        Step::Absent if run > 0 => return Scan::Text,
        Step::Absent => false,
    };
    let partial = if dsml {
        Partial::Dsml { closing }
    } else {
        Partial::Undecided
    };
    let names = [
        ("tool_calls", Name::ToolCalls),
        ("invoke", Name::Invoke),
        ("parameter", Name::Parameter),
    ];
    let name = match cursor.word(&names) {
        Step::Found(name) => name,
        Step::End => return Scan::Incomplete(partial),
        // DeepSeek's parser also takes `</｜DSML｜ calls>`.
        Step::Absent if dsml && closing => match cursor.word(&[("calls", ())]) {
            Step::Found(()) => Name::ToolCalls,
            Step::End => return Scan::Incomplete(partial),
            Step::Absent => return Scan::Text,
        },
        Step::Absent => return Scan::Text,
    };
    let mut tag = Tag {
        name,
        closing,
        self_closing: false,
        dsml,
        attribute: None,
        string: None,
        length: 0,
    };
    match cursor.peek() {
        None => {
            return Scan::Incomplete(Partial::Named {
                name,
                closing,
                dsml,
            });
        }
        Some(c) if c.is_ascii_alphanumeric() || "_-.".contains(c) => return Scan::Text,
        Some(_) => {}
    }
    match attributes(&mut cursor, &mut tag) {
        Step::Found(()) if cursor.at <= MAX_TAG => {
            tag.length = cursor.at;
            Scan::Tag(tag)
        }
        Step::End if text.len() <= MAX_TAG => Scan::Incomplete(Partial::Named {
            name,
            closing,
            dsml,
        }),
        _ => Scan::Text,
    }
}

/// Reads attributes through `>`.
fn attributes(cursor: &mut Cursor<'_>, tag: &mut Tag) -> Step<()> {
    loop {
        cursor.skip(|c| c.is_ascii_whitespace() || is_bar(c));
        let Some(next) = cursor.peek() else {
            return Step::End;
        };
        match next {
            '>' => {
                cursor.at += 1;
                return Step::Found(());
            }
            '/' => {
                cursor.at += 1;
                tag.self_closing = true;
                continue;
            }
            // An end tag without its `>`, followed by the next tag.
            '<' if tag.closing => return Step::Found(()),
            c if c.is_ascii_alphabetic() => {}
            _ => return Step::Absent,
        }
        let start = cursor.at;
        cursor.skip(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        let key = &cursor.text[start..cursor.at];
        cursor.skip(|c| c.is_ascii_whitespace());
        match cursor.peek() {
            None => return Step::End,
            Some('=') => cursor.at += 1,
            // An attribute without a value says nothing.
            Some(_) => continue,
        }
        cursor.skip(|c| c.is_ascii_whitespace());
        let value = match quoted(cursor) {
            Step::Found(value) => value,
            Step::End => return Step::End,
            Step::Absent => return Step::Absent,
        };
        match key {
            "name" => tag.attribute = Some(value.to_owned()),
            "string" => tag.string = Some(!value.trim().eq_ignore_ascii_case("false")),
            _ => {}
        }
    }
}

fn quoted<'a>(cursor: &mut Cursor<'a>) -> Step<&'a str> {
    let Some(open) = cursor.peek() else {
        return Step::End;
    };
    let ends = |c: char| match open {
        '"' => c == '"',
        '\'' => c == '\'',
        '“' | '”' | '„' | '‟' => "“”„‟\"".contains(c),
        '‘' | '’' => "‘’'".contains(c),
        _ => c.is_ascii_whitespace() || is_bar(c) || c == '>',
    };
    let is_quoted = "\"'“”„‟‘’".contains(open);
    if is_quoted {
        cursor.at += open.len_utf8();
    } else if matches!(open, '<' | '>' | '/') {
        return Step::Absent;
    }
    let rest = cursor.rest();
    let Some(length) = rest.find(ends) else {
        return Step::End;
    };
    cursor.at += length;
    if is_quoted && let Some(close) = cursor.peek() {
        cursor.at += close.len_utf8();
    }
    Step::Found(&rest[..length])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn tag(text: &str) -> Tag {
        match scan(text) {
            Scan::Tag(tag) => tag,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn official_tags_are_their_own_spelling() {
        for text in [
            "<｜DSML｜tool_calls>",
            "</｜DSML｜tool_calls>",
            "<｜DSML｜invoke name=\"a b\">",
            "</｜DSML｜invoke>",
            "<｜DSML｜parameter name=\"x\" string=\"true\">",
            "<｜DSML｜parameter name=\"\" string=\"false\">",
            "</｜DSML｜parameter>",
        ] {
            let tag = tag(&format!("{text}tail"));
            assert_eq!((tag.official().as_str(), tag.length), (text, text.len()));
        }
    }

    #[test]
    fn misspelled_tags_are_recognised() {
        for (text, official) in [
            ("<DSML｜tool_calls>", "<｜DSML｜tool_calls>"),
            ("<｜DSML｜｜tool_calls>", "<｜DSML｜tool_calls>"),
            ("<｜｜DSML｜｜tool_calls>", "<｜DSML｜tool_calls>"),
            ("<|DSML|tool_calls>", "<｜DSML｜tool_calls>"),
            (
                "<｜DSML｜ parameter name=\"a\" string=\"true\">",
                "<｜DSML｜parameter name=\"a\" string=\"true\">",
            ),
            (
                "<｜DSML｜parameter name=“a” string=“false”>",
                "<｜DSML｜parameter name=\"a\" string=\"false\">",
            ),
            (
                "<｜DSML｜parameter  string='True' name = a｜>",
                "<｜DSML｜parameter name=\"a\" string=\"true\">",
            ),
            ("<invoke name=\"f\">", "<｜DSML｜invoke name=\"f\">"),
            ("</parameter>", "</｜DSML｜parameter>"),
            ("</｜DSML｜ calls>", "</｜DSML｜tool_calls>"),
            ("<｜/DSML｜invoke>", "</｜DSML｜invoke>"),
            ("<｜DSML｜/invoke>", "</｜DSML｜invoke>"),
            ("</｜DSML｜invoke｜>", "</｜DSML｜invoke>"),
            ("</｜DSML｜invoke\n<", "</｜DSML｜invoke>"),
        ] {
            assert_eq!(tag(text).official(), official, "{text}");
        }
    }

    #[test]
    fn text_is_text() {
        for text in [
            "<", "<p", "</", "<｜", "<｜DSM", "<|D", "< ", "<tool_", "<invok", "<DSML",
        ] {
            assert_eq!(scan(text), Scan::Incomplete(Partial::Undecided), "{text}");
        }
        for text in [
            "<x",
            "< b",
            "<<",
            "<｜ D ",
            "<DSMLinvoke",
            "<invoked",
            "<tool_callsx>",
            "<｜DSML｜foo",
            "<||||||||||",
            "<a>",
        ] {
            assert_eq!(scan(text), Scan::Text, "{text}");
        }
        assert_eq!(
            scan("</｜DSML｜"),
            Scan::Incomplete(Partial::Dsml { closing: true })
        );
        let long = format!("<invoke name=\"{}", "x".repeat(2000));
        assert_eq!(scan(&long), Scan::Text);
        assert_eq!(scan(&format!("{long}\">")), Scan::Text);
    }
}
