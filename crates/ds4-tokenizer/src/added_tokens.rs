//! Finding control and user-defined tokens in text.
//!
//! The order is that of Hugging Face's `tokenizers`: one leftmost-longest pass for the tokens that
//! match raw text, then a second one, over the pieces that are left, for those that match
//! normalised text. (The supported tokenizers normalise nothing, but the order still decides
//! between tokens that overlap.)

use crate::TokenId;
use crate::unicode_class::{Class, class_of};

/// A token that text is searched for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AddedToken {
    pub(crate) text: String,
    pub(crate) id: TokenId,
    /// Searched for in the second pass.
    pub(crate) normalized: bool,
    /// Also takes the white space before it.
    pub(crate) strip_left: bool,
    /// Also takes the white space after it.
    pub(crate) strip_right: bool,
}

/// A part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    Text(&'t str),
    Added(TokenId),
}

/// All added tokens of a vocabulary.
#[derive(Debug)]
pub(crate) struct AddedTokens {
    raw: Matcher,
    normalized: Matcher,
}

impl AddedTokens {
    /// Tokens with empty text are never found.
    pub(crate) fn new(tokens: Vec<AddedToken>) -> Self {
        let (normalized, raw) = tokens.into_iter().partition(|token| token.normalized);
        Self {
            raw: Matcher::new(raw),
            normalized: Matcher::new(normalized),
        }
    }

    pub(crate) fn id_of(&self, text: &str) -> Option<TokenId> {
        self.raw.id_of(text).or_else(|| self.normalized.id_of(text))
    }

    /// Calls `piece` with the added tokens of `text` and the text between them, in order.
    pub(crate) fn split<'t>(&self, text: &'t str, mut piece: impl FnMut(Piece<'t>)) {
        self.raw.split(text, &mut |part| match part {
            Piece::Text(text) => self.normalized.split(text, &mut piece),
            Piece::Added(_) => piece(part),
        });
    }
}

#[derive(Debug)]
struct Matcher {
    /// Sorted by text, so that the candidates with a common prefix are adjacent.
    tokens: Vec<AddedToken>,
    /// The candidates by their first byte, as a range of `tokens`.
    by_first_byte: Vec<(u32, u32)>,
}

impl Matcher {
    fn new(mut tokens: Vec<AddedToken>) -> Self {
        tokens.retain(|token| !token.text.is_empty());
        tokens.sort_unstable();
        let by_first_byte = (0..=255u8)
            .map(|byte| {
                let below = |token: &AddedToken| token.text.as_bytes()[0] < byte;
                let upto = |token: &AddedToken| token.text.as_bytes()[0] <= byte;
                (
                    tokens.partition_point(below) as u32,
                    tokens.partition_point(upto) as u32,
                )
            })
            .collect();
        Self {
            tokens,
            by_first_byte,
        }
    }

    fn id_of(&self, text: &str) -> Option<TokenId> {
        let found = self
            .tokens
            .binary_search_by(|token| token.text.as_str().cmp(text));
        found.ok().map(|index| self.tokens[index].id)
    }

    /// The longest token that `text` starts with.
    fn longest_prefix(&self, text: &[u8]) -> Option<&AddedToken> {
        let (low, high) = self.by_first_byte[usize::from(*text.first()?)];
        let mut candidates = &self.tokens[low as usize..high as usize];
        let mut longest = None;
        let mut depth = 1; // this much of `text` and of all candidates agrees
        while let (Some(first), Some(last)) = (candidates.first(), candidates.last()) {
            // Sorted, so what the outermost have in common all have, and the shortest is first.
            let common = common_prefix(first.text.as_bytes(), last.text.as_bytes());
            let is_prefix = text[depth..].starts_with(&first.text.as_bytes()[depth..common]);
            if !is_prefix {
                break;
            }
            depth = common;
            if first.text.len() == depth {
                longest = Some(first);
                candidates = &candidates[1..];
                continue;
            }
            let Some(&byte) = text.get(depth) else { break };
            let at_depth = |token: &AddedToken| token.text.as_bytes().get(depth).copied();
            let low = candidates.partition_point(|token| at_depth(token) < Some(byte));
            let high = candidates.partition_point(|token| at_depth(token) <= Some(byte));
            candidates = &candidates[low..high];
        }
        longest
    }

    fn split<'t>(&self, text: &'t str, piece: &mut impl FnMut(Piece<'t>)) {
        let bytes = text.as_bytes();
        let mut unmatched = 0;
        let mut position = 0;
        while position < bytes.len() {
            let (low, high) = self.by_first_byte[usize::from(bytes[position])];
            if low == high {
                position += 1;
                continue;
            }
            let Some(token) = self.longest_prefix(&bytes[position..]) else {
                position += 1;
                continue;
            };
            let mut start = position;
            position += token.text.len();
            let mut end = position;
            if token.strip_left {
                start = trim_end(&text[..start]).len();
            }
            if token.strip_right {
                end += text[end..].len() - trim_start(&text[end..]).len();
            }
            // White space that the token before has taken stays taken.
            if unmatched < start {
                piece(Piece::Text(&text[unmatched..start]));
            }
            piece(Piece::Added(token.id));
            unmatched = end;
        }
        if unmatched < text.len() {
            piece(Piece::Text(&text[unmatched..]));
        }
    }
}

fn common_prefix(left: &[u8], right: &[u8]) -> usize {
    left.iter()
        .zip(right)
        .take_while(|(left, right)| left == right)
        .count()
}

fn is_white_space(character: char) -> bool {
    class_of(u32::from(character)) == Class::WhiteSpace
}

fn trim_end(text: &str) -> &str {
    text.trim_end_matches(is_white_space)
}

fn trim_start(text: &str) -> &str {
    text.trim_start_matches(is_white_space)
}
