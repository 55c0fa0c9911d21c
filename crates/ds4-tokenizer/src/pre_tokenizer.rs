//! Splitting text into the words that BPE works on.
//!
//! The expressions of the two supported pre-tokenizers are matched by hand, with the semantics of
//! a backtracking engine that searches leftmost and tries alternatives in order. All text is kept:
//! what no alternative matches becomes a word of its own, as `tokenizers`' `Isolated` does.

use crate::character::Character;
use crate::unicode_class::Class;

/// How text is split into words before the merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PreTokenizer {
    /// DeepSeek V3 and V4: three expressions, each applied to the pieces of the one before.
    ///
    /// 1. `\p{N}{1,3}`
    /// 2. `[一-龥぀-ゟ゠-ヿ]+`
    /// 3. ``[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+|
    ///    ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+``
    #[default]
    DeepSeek,
    /// GPT-2:
    /// `'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
}

impl PreTokenizer {
    /// The pre-tokenizer that GGUF's `tokenizer.ggml.pre` names, if it is a supported one.
    #[must_use]
    pub fn from_gguf_name(name: &str) -> Option<Self> {
        match name {
            // llama.cpp gives these the same three expressions.
            "joyai-llm" | "deepseek-v3" | "hunyuan-dense" => Some(Self::DeepSeek),
            "gpt-2" => Some(Self::Gpt2),
            _ => None,
        }
    }

    /// Calls `word` with every word of `text`, in order.
    pub(crate) fn split<'t>(self, text: &'t str, mut word: impl FnMut(&'t [u8])) {
        match self {
            Self::DeepSeek => split_deepseek(text.as_bytes(), &mut word),
            Self::Gpt2 => split_isolated(text.as_bytes(), match_gpt2, &mut word),
        }
    }
}

/// The end of the run of characters from `position` on that all satisfy `belongs`.
#[inline]
fn run(text: &[u8], mut position: usize, belongs: impl Fn(Character) -> bool) -> usize {
    while let Some(character) = Character::at(text, position) {
        if !belongs(character) {
            break;
        }
        position += character.length;
    }
    position
}

fn is_letter_or_mark(character: Character) -> bool {
    matches!(character.class(), Class::Letter | Class::Mark)
}

fn is_punctuation_or_symbol(character: Character) -> bool {
    character.class() == Class::PunctuationOrSymbol
}

/// The first two expressions cut the text into pieces; a piece is the whole world for the third,
/// whose look-ahead takes the end of a piece for the end of the text.
fn split_deepseek<'t>(text: &'t [u8], word: &mut impl FnMut(&'t [u8])) {
    let mut position = 0;
    while let Some(first) = Character::at(text, position) {
        let end;
        if first.class() == Class::Number {
            end = (0..3).fold(position, |end, _| match Character::at(text, end) {
                Some(next) if next.class() == Class::Number => end + next.length,
                _ => end,
            });
            word(&text[position..end]); // no alternative of the third expression matches numbers
        } else {
            end = if first.is_cjk_or_kana() {
                run(text, position, Character::is_cjk_or_kana)
            } else {
                run(text, position, |character| {
                    character.class() != Class::Number && !character.is_cjk_or_kana()
                })
            };
            split_isolated(&text[position..end], match_deepseek, word);
        }
        position = end;
    }
}

/// Emits the matches of an expression and the text between them. `match_at` gives the end of the
/// match at a position.
fn split_isolated<'t>(
    text: &'t [u8],
    match_at: impl Fn(&[u8], usize, Character) -> Option<usize>,
    word: &mut impl FnMut(&'t [u8]),
) {
    let mut unmatched = 0;
    let mut position = 0;
    while let Some(first) = Character::at(text, position) {
        let Some(end) = match_at(text, position, first) else {
            position += first.length;
            continue;
        };
        if unmatched < position {
            word(&text[unmatched..position]);
        }
        word(&text[position..end]);
        position = end;
        unmatched = end;
    }
    if unmatched < text.len() {
        word(&text[unmatched..]);
    }
}

/// The third expression of DeepSeek at `position`.
fn match_deepseek(text: &[u8], position: usize, first: Character) -> Option<usize> {
    let class = first.class();
    let second = position + first.length;

    // [!-/:-@[-`{-~][A-Za-z]+
    if class == Class::PunctuationOrSymbol && first.length == 1 {
        let is_ascii_letter =
            |c: Character| c.length == 1 && (c.code_point as u8).is_ascii_alphabetic();
        let end = run(text, second, is_ascii_letter);
        if end > second {
            return Some(end);
        }
    }

    // [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
    // A mark may stand for the optional character or begin the run: the match is the same.
    match class {
        Class::Letter | Class::Mark => return Some(run(text, second, is_letter_or_mark)),
        Class::Other | Class::Number | Class::WhiteSpace if !first.is_newline() => {
            let end = run(text, second, is_letter_or_mark);
            if end > second {
                return Some(end);
            }
        }
        _ => {}
    }

    //  ?[\p{P}\p{S}]+[\r\n]*
    if class == Class::PunctuationOrSymbol || first.code_point == 0x20 {
        let end = run(text, second, is_punctuation_or_symbol);
        if class == Class::PunctuationOrSymbol || end > second {
            return Some(run(text, end, Character::is_newline));
        }
    }

    // \s*[\r\n]+|\s+(?!\S)|\s+
    (class == Class::WhiteSpace).then(|| match_white_space(text, position, true))
}

/// GPT-2's expression at `position`; some alternative matches every character.
fn match_gpt2(text: &[u8], position: usize, first: Character) -> Option<usize> {
    let rest = &text[position..];
    for suffix in ["'s", "'d", "'m", "'t", "'ll", "'ve", "'re"] {
        if rest.starts_with(suffix.as_bytes()) {
            return Some(position + suffix.len());
        }
    }

    // The three alternatives with an optional space each take a run of one kind.
    let kind = |class| match class {
        Class::Letter => Some(Class::Letter),
        Class::Number => Some(Class::Number),
        Class::WhiteSpace => None,
        Class::Mark | Class::PunctuationOrSymbol | Class::Other => Some(Class::Other),
    };
    let start = if first.code_point == 0x20 {
        position + 1
    } else {
        position
    };
    let begin = Character::at(text, start).and_then(|character| kind(character.class()));
    if begin.is_some() {
        return Some(run(text, start, |character| {
            kind(character.class()) == begin
        }));
    }

    // \s+(?!\S)|\s+
    Some(match_white_space(text, position, false))
}

/// The end of `\s+(?!\S)|\s+` at a white-space character, with `\s*[\r\n]+` tried first where
/// `newlines` says so.
fn match_white_space(text: &[u8], position: usize, newlines: bool) -> usize {
    let mut last = position;
    let mut after_newline = None;
    let mut end = position;
    while let Some(character) = Character::at(text, end) {
        if character.class() != Class::WhiteSpace {
            break;
        }
        last = end;
        end += character.length;
        if character.is_newline() {
            after_newline = Some(end);
        }
    }
    match after_newline {
        Some(after_newline) if newlines => after_newline,
        // The look-ahead leaves the last character to the next word, if that is not all there is.
        _ if end < text.len() && last > position => last,
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pre_tokenizer: PreTokenizer, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        pre_tokenizer.split(text, |word| words.push(std::str::from_utf8(word).unwrap()));
        words
    }

    #[test]
    fn deepseek_words() {
        // By hand from the three expressions.
        let check = |text, expected: &[&str]| {
            assert_eq!(words(PreTokenizer::DeepSeek, text), expected, "{text:?}");
        };
        check("", &[]);
        check("Hello, world!", &["Hello", ",", " world", "!"]);
        check("12345٣x", &["123", "45٣", "x"]);
        check("a  123", &["a", "  ", "123"]);
        check("a  b", &["a", " ", " b"]);
        check(".foo,Bar ,Bar", &[".foo", ",Bar", " ,", "Bar"]);
        check("é.é", &["é", ".", "é"]);
        check("漢字かな・カナ", &["漢字かな", "・", "カナ"]);
        check("漢字abc", &["漢字", "abc"]);
        check("x \r\n \n y", &["x", " \r\n \n", " y"]);
        check("!?\n\n a", &["!?\n\n", " a"]);
        check("\0\0a\0", &["\0", "\0a", "\0"]);
        check("👨\u{200d}👩", &["👨", "\u{200d}", "👩"]);
        check("\u{301}a 𝒜", &["\u{301}a", " 𝒜"]);
        check("\ta\t\tb\t", &["\ta", "\t", "\tb", "\t"]);
    }

    #[test]
    fn gpt2_words() {
        let check = |text, expected: &[&str]| {
            assert_eq!(words(PreTokenizer::Gpt2, text), expected, "{text:?}");
        };
        check("it's  we'll 12", &["it", "'s", " ", " we", "'ll", " 12"]);
        check("a\n\n b", &["a", "\n\n", " b"]);
        check("e\u{301}x !?", &["e", "\u{301}", "x", " !?"]);
        check("  ", &["  "]);
    }
}
