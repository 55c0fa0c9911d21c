//! Drafts from the text itself: what followed when its last tokens occurred before.

use std::collections::VecDeque;

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

/// How many tokens at the end of the text are the same where a draft comes from: more of them make it
/// likelier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum MatchLength {
    /// Three or four.
    #[default]
    Short,
    /// Five to eight.
    Medium,
    /// More.
    Long,
}

impl MatchLength {
    fn of(tokens: usize) -> Self {
        match tokens {
            0..=4 => Self::Short,
            5..=8 => Self::Medium,
            _ => Self::Long,
        }
    }
}

/// What became of tokens that were foreseen, drafted or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreseen {
    /// What they were foreseen from.
    pub(crate) length: MatchLength,
    /// Tokens that came.
    pub(crate) judged: usize,
    /// Of those, foreseen ones: all, or all but the last.
    pub(crate) accepted: usize,
}

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
    /// The last draft, without what has come of it.
    foreseen: VecDeque<TokenId>,
    foreseen_from: MatchLength,
}

impl PromptLookup {
    /// Takes note of the tokens; they usually go on from those before. Says what became of the last draft.
    pub(crate) fn follow(&mut self, known: &[TokenId], next: TokenId) -> Option<Foreseen> {
        // The same again: the sequence had no place in the last step.
        if let Some((&last, before)) = self.tokens.split_last()
            && last == next
            && before.len() == known.len()
            && before.ends_with(&known[known.len().saturating_sub(LONGEST)..])
        {
            return None;
        }
        let length = self.tokens.len();
        // A sequence that went back and on again has other tokens near its end.
        let goes_on = length <= known.len() && {
            let start = length.saturating_sub(LONGEST);
            self.tokens[start..] == known[start..length]
        };
        if !goes_on {
            self.forget();
        }
        let new = &known[self.tokens.len()..];
        if new.len() > self.foreseen.len() {
            // A prompt that goes on is not what was to be foreseen.
            self.foreseen.clear();
        }
        let mut result = Foreseen {
            length: self.foreseen_from,
            judged: 0,
            accepted: 0,
        };
        for &token in new.iter().chain([&next]) {
            if let Some(expected) = self.foreseen.pop_front() {
                result.judged += 1;
                if expected == token {
                    result.accepted += 1;
                } else {
                    self.foreseen.clear();
                }
            }
            self.push(token);
        }
        (result.judged > 0).then_some(result)
    }

    /// Takes a draft as if it were from the text.
    #[cfg(test)]
    pub(crate) fn foresee(&mut self, draft: &[TokenId]) {
        self.foreseen = draft.iter().copied().collect();
        self.foreseen_from = MatchLength::default();
    }

    fn forget(&mut self) {
        self.tokens.clear();
        self.previous.clear();
        self.heads.fill(NONE);
        self.foreseen.clear();
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
    pub(crate) fn draft(&mut self, most: usize, draft: &mut Vec<TokenId>) -> MatchLength {
        draft.clear();
        let length = self.find(most, draft);
        self.foreseen.clear();
        self.foreseen.extend(draft.iter());
        self.foreseen_from = MatchLength::of(length);
        self.foreseen_from
    }

    /// Puts the draft into `draft`, and says how many tokens are equal where it comes from.
    fn find(&self, most: usize, draft: &mut Vec<TokenId>) -> usize {
        let end = self.tokens.len();
        let Some(&newest) = self.previous.last() else {
            return 0;
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
            return 0;
        }
        for next in best as usize..best as usize + most {
            let token = match self.tokens.get(next) {
                Some(&token) => token,
                None => draft[next - end],
            };
            draft.push(token);
        }
        longest
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

    #[test]
    fn what_became_of_a_draft_is_seen() {
        let text = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3];
        let mut lookup = PromptLookup::default();
        assert_eq!(lookup.follow(&text[..9], text[9]), None);
        let mut found = Vec::new();
        assert_eq!(lookup.draft(4, &mut found), MatchLength::Short);
        assert_eq!(found, [4, 5, 6, 7]);
        let seen = |judged, accepted| Foreseen {
            length: MatchLength::Short,
            judged,
            accepted,
        };
        assert_eq!(lookup.follow(&text[..9], text[9]), None, "nothing new");
        // One came, then two in one step of which the last is another, then one without a guess.
        assert_eq!(lookup.follow(&text, 4), Some(seen(1, 1)));
        let text = [&text[..], &[4, 5]].concat();
        assert_eq!(lookup.follow(&text, 8), Some(seen(2, 1)));
        let text = [&text[..], &[8]].concat();
        assert_eq!(lookup.follow(&text, 9), None);
        // A new prompt was not to be foreseen.
        assert_eq!(lookup.draft(4, &mut found), MatchLength::Short);
        assert_eq!(found, []);
        let text = [&text[..], &[9, 4, 5]].concat();
        assert_eq!(lookup.follow(&text, 8), None);
        lookup.draft(2, &mut found);
        assert_eq!(found, [9, 4]);
        let text = [&text[..], &[8, 9, 4, 5]].concat();
        assert_eq!(lookup.follow(&text, 1), None);
    }

    #[test]
    fn longer_matches_are_told_apart() {
        let repeated = |length: u32| {
            let once: Vec<TokenId> = (0..length).collect();
            [&once[..], &[1000], &once[..]].concat()
        };
        let found = |length| {
            let text = repeated(length);
            let mut lookup = PromptLookup::default();
            lookup.follow(&text[..text.len() - 1], text[text.len() - 1]);
            lookup.draft(1, &mut Vec::new())
        };
        assert_eq!(found(4), MatchLength::Short);
        assert_eq!(found(5), MatchLength::Medium);
        assert_eq!(found(8), MatchLength::Medium);
        assert_eq!(found(9), MatchLength::Long);
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
