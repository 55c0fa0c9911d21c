//! Drafts from the text itself: what followed when its last tokens occurred before.

use ds4_model::TokenId;

/// Tokens that must be equal before a draft is made.
const SHORTEST: usize = 3;
/// Equal tokens beyond which a longer match says no more.
const LONGEST: usize = 32;
/// Places that are compared for one draft, the newest first.
const TRIES: usize = 16;
/// Chains of places by the hash of three tokens.
const CHAINS: usize = 1 << 14;
/// No place.
const NONE: u32 = u32::MAX;

/// The tokens of one sequence, and where every three of them occurred.
///
/// Every token is looked at once. Memory is 8 bytes a token and 64 KiB.
#[derive(Debug, Default)]
pub(crate) struct PromptLookup {
    tokens: Vec<TokenId>,
    /// By hash, the newest place behind three tokens; empty until there are any.
    heads: Vec<u32>,
    /// For each place, the one before it with the same hash.
    previous: Vec<u32>,
}

impl PromptLookup {
    /// Takes note of the tokens; they usually go on from those before.
    pub(crate) fn follow(&mut self, known: &[TokenId], next: TokenId) {
        let length = self.tokens.len();
        // A sequence that went back and on again has other tokens near its end.
        let goes_on = length <= known.len() && {
            let start = length.saturating_sub(LONGEST);
            self.tokens[start..] == known[start..length]
        };
        if !goes_on {
            self.forget();
        }
        for &token in &known[self.tokens.len()..] {
            self.push(token);
        }
        self.push(next);
    }

    fn forget(&mut self) {
        self.tokens.clear();
        self.previous.clear();
        self.heads.fill(NONE);
    }

    fn push(&mut self, token: TokenId) {
        self.tokens.push(token);
        let place = self.tokens.len();
        let mut before = NONE;
        if let (Some(chain), Ok(number)) = (self.chain(place), u32::try_from(place)) {
            if self.heads.is_empty() {
                self.heads.resize(CHAINS, NONE);
            }
            before = std::mem::replace(&mut self.heads[chain], number);
        }
        self.previous.push(before);
    }

    /// The chain of the three tokens before `place`.
    fn chain(&self, place: usize) -> Option<usize> {
        let last = &self.tokens[place.checked_sub(SHORTEST)?..place];
        let hash = last.iter().fold(0u64, |hash, &token| {
            (hash ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        Some((hash >> 40) as usize % CHAINS)
    }

    /// Puts what is likely to follow into `draft`, at most `most` tokens: what followed where the
    /// longest end of the text occurred before, the newest of equally long ones. Text that repeats
    /// itself is drafted to go on doing so.
    pub(crate) fn draft(&self, most: usize, draft: &mut Vec<TokenId>) {
        draft.clear();
        let end = self.tokens.len();
        let Some(&newest) = self.previous.last() else {
            return;
        };
        let (mut best, mut longest) = (NONE, SHORTEST - 1);
        let mut place = newest;
        for _ in 0..TRIES {
            if place == NONE || longest == LONGEST {
                break;
            }
            let at = place as usize;
            let pairs = self.tokens[..at].iter().rev();
            let pairs = pairs.zip(self.tokens.iter().rev()).take(LONGEST);
            let equal = pairs.take_while(|(a, b)| a == b).count();
            if equal > longest {
                (best, longest) = (place, equal);
            }
            place = self.previous[at - 1];
        }
        if best == NONE {
            return;
        }
        for next in best as usize..best as usize + most {
            let token = match self.tokens.get(next) {
                Some(&token) => token,
                None => draft[next - end],
            };
            draft.push(token);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn draft(tokens: &[TokenId], most: usize) -> Vec<TokenId> {
        let mut lookup = PromptLookup::default();
        let (next, known) = tokens.split_last().unwrap();
        lookup.follow(known, *next);
        let mut draft = Vec::new();
        lookup.draft(most, &mut draft);
        draft
    }

    #[test]
    fn what_followed_before_is_drafted() {
        let text = [1, 2, 3, 4, 5, 6, 9, 1, 2, 3];
        assert_eq!(draft(&text, 2), [4, 5]);
        assert_eq!(draft(&text, 7), [4, 5, 6, 9, 1, 2, 3]);
        assert_eq!(draft(&text, 0), []);
        assert_eq!(draft(&[1, 2, 4, 1, 2], 4), []);
        assert_eq!(draft(&[7], 4), []);
    }

    #[test]
    fn the_longest_end_counts_and_then_the_newest() {
        let text = [8, 1, 2, 3, 4, 9, 1, 2, 3, 5, 7, 1, 2, 3, 6, 8, 1, 2, 3];
        assert_eq!(draft(&text, 1), [4], "four tokens are equal");
        let text = [1, 2, 3, 4, 9, 1, 2, 3, 5, 7, 1, 2, 3];
        assert_eq!(draft(&text, 1), [5]);
    }

    #[test]
    fn a_repetition_goes_on() {
        assert_eq!(draft(&[4, 4, 4, 4], 5), [4, 4, 4, 4, 4]);
        assert_eq!(draft(&[1, 2, 1, 2, 1, 2], 5), [1, 2, 1, 2, 1]);
    }

    proptest! {
        /// Token by token or at once, with what was there before or not: the same drafts, and each
        /// follows three tokens that did occur before.
        #[test]
        fn it_does_not_matter_how_tokens_come(
            text in prop::collection::vec(0..4u32, 1..80),
            other in prop::collection::vec(0..4u32, 1..80),
            most in 0..9usize,
        ) {
            let expected = draft(&text, most);
            let mut lookup = PromptLookup::default();
            for end in 1..other.len() {
                lookup.follow(&other[..end], other[end]);
            }
            // Only the last tokens are compared with what was there; tests are shorter than that.
            if other.len() > 32 {
                lookup.forget();
            }
            for end in 0..text.len() {
                lookup.follow(&text[..end], text[end]);
            }
            let mut found = Vec::new();
            lookup.draft(most, &mut found);
            prop_assert_eq!(&found, &expected);
            if !found.is_empty() {
                let end = text.len();
                let occurs = |at: usize| text[at - 3..at] == text[end - 3..] && text[at] == found[0];
                prop_assert!((3..end).any(occurs));
            }
        }
    }
}
