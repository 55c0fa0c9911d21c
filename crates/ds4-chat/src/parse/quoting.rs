//! Tells a quotation of a tool tag from a call.

/// Follows text to know whether what comes next stands in a Markdown code fence or right behind an
/// opening quotation mark or backtick.
#[derive(Debug, Default)]
pub(super) struct Quoting {
    /// The fence character, inside a fence.
    fence: Option<char>,
    line: Line,
    /// The last two characters.
    last: [Option<char>; 2],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// Spaces at the start of a line, then `count` fence characters.
    Start {
        mark: char,
        count: u8,
    },
    Body,
}

impl Default for Line {
    fn default() -> Self {
        Self::Start {
            mark: ' ',
            count: 0,
        }
    }
}

impl Quoting {
    pub(super) fn follow(&mut self, text: &str) {
        for character in text.chars() {
            self.line = match (self.line, character) {
                (_, '\n') => Line::default(),
                (Line::Body, _) => Line::Body,
                (Line::Start { mark: ' ', .. }, ' ') => self.line,
                (Line::Start { mark: ' ', .. }, '`' | '~') => Line::Start {
                    mark: character,
                    count: 1,
                },
                (Line::Start { mark, count: 2 }, _) if mark == character => {
                    self.fence = match self.fence {
                        None => Some(mark),
                        Some(open) if open == mark => None,
                        open => open,
                    };
                    Line::Body
                }
                (Line::Start { mark, count }, _) if mark == character => Line::Start {
                    mark,
                    count: count + 1,
                },
                _ => Line::Body,
            };
            self.last = [self.last[1], Some(character)];
        }
    }

    pub(super) fn in_fence(&self) -> bool {
        self.fence.is_some()
    }

    /// Right behind a quotation mark or backtick that opens, that is, follows space or nothing.
    pub(super) fn in_quotation(&self) -> bool {
        let opens =
            self.last[0].is_none_or(|before| before.is_whitespace() || "([{:".contains(before));
        opens && self.last[1].is_some_and(|mark| "`\"'“‘«".contains(mark))
    }
}

#[cfg(test)]
mod tests {
    use super::Quoting;

    #[test]
    fn tells_quotations() {
        let after = |text: &str| {
            let mut quoting = Quoting::default();
            quoting.follow(text);
            (quoting.in_fence(), quoting.in_quotation())
        };
        assert_eq!(after("see `"), (false, true));
        assert_eq!(after("`x`"), (false, false));
        assert_eq!(after("he said \"hi\""), (false, false));
        assert_eq!(after("“"), (false, true));
        assert_eq!(after("a\n```xml\n"), (true, false));
        assert_eq!(after("a\n  ```xml\nb\n```\n"), (false, false));
        assert_eq!(after("~~~\n```\n"), (true, false));
        assert_eq!(after("a ```b"), (false, false));
    }
}
