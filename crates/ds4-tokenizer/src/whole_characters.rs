//! Characters whose bytes always merge into one token before anything else touches them.
//!
//! Chinese text is long words of three-byte characters, and most merges only put its characters
//! together. Those merges can be skipped where their outcome is certain. Let a character c encode
//! to the single token t with merges of rank at most R. In any word c becomes t, and starting with t
//! changes nothing, if
//!
//! 1. every merge of a proper prefix of c with what stands before it has a rank above R, and so has
//!    every merge of a proper suffix of c with a character after it: since c offers a merge of rank
//!    at most R until it is whole, none of these comes first;
//! 2. every merge that takes t has a rank above R: it could not have come earlier either.
//!
//! Both hold for nearly all characters of a trained vocabulary, and are checked one by one.

use crate::TokenId;
use crate::merge::{Merge, MergeTable, Merger, NONE};

/// Characters of the basic plane are looked up directly.
const CODE_POINTS: usize = 0x1_0000;

/// The token of each character that may be taken whole.
#[derive(Debug, Default)]
pub(crate) struct WholeCharacters {
    /// By code point; [`NONE`] where there is none.
    tokens: Vec<TokenId>,
}

impl WholeCharacters {
    /// `bytes_of` gives the bytes of the plain tokens below `size`, and nothing for all others.
    pub(crate) fn find<'t>(
        table: &MergeTable,
        merges: &[Merge],
        size: usize,
        bytes_of: impl Fn(TokenId) -> &'t [u8],
    ) -> Self {
        // The lowest rank of the merges that take a token, on either side; `before_character`:
        // those with a token on the right that does not continue a character.
        let mut as_left = vec![NONE; size];
        let mut as_right = vec![NONE; size];
        let mut before_character = vec![NONE; size];
        let lower = |place: &mut u32, rank: usize| *place = (*place).min(rank as u32);
        for (rank, merge) in merges.iter().enumerate() {
            lower(&mut as_left[merge.left as usize], rank);
            lower(&mut as_right[merge.right as usize], rank);
            if !bytes_of(merge.right)
                .first()
                .is_some_and(|&byte| is_continuation(byte))
            {
                lower(&mut before_character[merge.left as usize], rank);
            }
        }

        let mut tokens = vec![NONE; CODE_POINTS];
        let mut merger = Merger::default();
        let mut encoded = Vec::new();
        let mut encode = |bytes: &[u8]| {
            encoded.clear();
            let rank = merger.encode(table, bytes, &mut encoded);
            match encoded[..] {
                [token] => Some((token, rank)),
                _ => None,
            }
        };
        for id in 0..size as TokenId {
            let bytes = bytes_of(id);
            let Some(code_point) = multi_byte_character(bytes) else {
                continue;
            };
            let Some((token, rank)) = encode(bytes).filter(|&(token, _)| token == id) else {
                continue;
            };
            let is_taken_later = as_left[token as usize] > rank && as_right[token as usize] > rank;
            // Parts that do not encode to one token never stand there as one.
            let is_undisturbed = (1..bytes.len()).all(|middle| {
                let (prefix, suffix) = bytes.split_at(middle);
                encode(prefix).is_none_or(|(prefix, _)| as_right[prefix as usize] > rank)
                    && encode(suffix)
                        .is_none_or(|(suffix, _)| before_character[suffix as usize] > rank)
            });
            if is_taken_later && is_undisturbed {
                tokens[code_point] = token;
            }
        }
        Self { tokens }
    }

    #[inline]
    pub(crate) fn token_of(&self, code_point: u32) -> Option<TokenId> {
        let token = self.tokens.get(code_point as usize).copied();
        token.filter(|&token| token != NONE)
    }
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xc0 == 0x80
}

/// The code point of a single character of two or three bytes.
fn multi_byte_character(bytes: &[u8]) -> Option<usize> {
    if !matches!(bytes.len(), 2 | 3) {
        return None;
    }
    let mut characters = std::str::from_utf8(bytes).ok()?.chars();
    let first = characters.next()?;
    characters.next().is_none().then_some(first as usize)
}
