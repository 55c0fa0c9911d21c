//! Byte-pair merging: which pairs merge, in which order, and the algorithm that applies them.
//!
//! The result is that of the definition: while any adjacent pair has a merge, apply the merge of
//! lowest rank, leftmost first. Short words look for the minimum by scanning; long words use a
//! heap, so that a word of n bytes costs O(n log n) whatever its content.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::TokenId;
use crate::hash::Hash;

/// No merge.
const NONE: u32 = u32::MAX;

/// Words up to this many bytes are merged by scanning. Chosen by measurement: a scan of 128 ranks
/// costs about as much as the heap's bookkeeping for one merge.
const SCAN_LIMIT: usize = 128;

/// A slot of the open-addressing table; empty where `rank` is [`NONE`].
#[derive(Clone, Copy, Debug)]
struct Slot {
    left: TokenId,
    right: TokenId,
    rank: u32,
}

/// All merges, by pair.
#[derive(Debug)]
pub(crate) struct MergeTable {
    hash: Hash,
    /// A power of two of slots, at most half of them used.
    slots: Vec<Slot>,
    /// Rank of each pair of single bytes, at `first << 8 | second`: the pairs of the first pass.
    byte_pairs: Vec<u32>,
    /// The token of each single byte.
    byte_tokens: [TokenId; 256],
    /// The token that the merge of each rank makes.
    made: Vec<TokenId>,
}

/// One merge: `left` and `right` side by side become `made`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Merge {
    pub(crate) left: TokenId,
    pub(crate) right: TokenId,
    pub(crate) made: TokenId,
}

impl MergeTable {
    /// `merges` in order of rank. Of a pair that occurs twice the later merge counts, as in
    /// Hugging Face's `tokenizers`.
    pub(crate) fn new(byte_tokens: [TokenId; 256], merges: &[Merge]) -> Self {
        let slots = (merges.len() * 2).next_power_of_two().max(2);
        let mut table = Self {
            hash: Hash::random(),
            slots: vec![
                Slot {
                    left: 0,
                    right: 0,
                    rank: NONE
                };
                slots
            ],
            byte_pairs: vec![NONE; 1 << 16],
            byte_tokens,
            made: merges.iter().map(|merge| merge.made).collect(),
        };
        for (rank, merge) in merges.iter().enumerate() {
            let slot = table.slot_of(merge.left, merge.right);
            table.slots[slot] = Slot {
                left: merge.left,
                right: merge.right,
                rank: rank as u32, // fewer merges than tokens squared fit a file, far below 2^32
            };
        }
        for first in 0..256 {
            for second in 0..256 {
                table.byte_pairs[first << 8 | second] =
                    table.rank(byte_tokens[first], byte_tokens[second]);
            }
        }
        table
    }

    /// The slot that has the pair, or the empty one where it belongs.
    #[inline]
    fn slot_of(&self, left: TokenId, right: TokenId) -> usize {
        let mask = self.slots.len() - 1;
        let mut index = self.hash.pair(left, right) as usize & mask;
        loop {
            let slot = self.slots[index];
            if slot.rank == NONE || (slot.left == left && slot.right == right) {
                return index;
            }
            index = (index + 1) & mask;
        }
    }

    #[inline]
    fn rank(&self, left: TokenId, right: TokenId) -> u32 {
        self.slots[self.slot_of(left, right)].rank
    }

    fn byte_pair_ranks<'w>(&'w self, word: &'w [u8]) -> impl Iterator<Item = u32> + 'w {
        word.windows(2)
            .map(|pair| self.byte_pairs[usize::from(pair[0]) << 8 | usize::from(pair[1])])
    }

    /// Appends the tokens of `word`.
    pub(crate) fn encode(&self, word: &[u8], scratch: &mut Scratch, out: &mut Vec<TokenId>) {
        if word.len() <= SCAN_LIMIT {
            self.encode_by_scan(word, out);
        } else {
            scratch.encode(self, word, out);
        }
    }

    fn encode_by_scan(&self, word: &[u8], out: &mut Vec<TokenId>) {
        let mut tokens = [0; SCAN_LIMIT];
        let mut ranks = [NONE; SCAN_LIMIT]; // ranks[i]: of tokens i and i + 1
        let mut length = word.len();
        for (token, &byte) in tokens.iter_mut().zip(word) {
            *token = self.byte_tokens[usize::from(byte)];
        }
        for (rank, pair_rank) in ranks.iter_mut().zip(self.byte_pair_ranks(word)) {
            *rank = pair_rank;
        }
        while length > 1 {
            let lowest = ranks[..length - 1]
                .iter()
                .fold(NONE, |low, &rank| low.min(rank));
            if lowest == NONE {
                break;
            }
            let Some(at) = ranks[..length - 1].iter().position(|&rank| rank == lowest) else {
                break;
            };
            tokens[at] = self.made[lowest as usize];
            tokens.copy_within(at + 2..length, at + 1);
            ranks.copy_within(at + 1..length, at);
            length -= 1;
            ranks[length - 1] = NONE;
            if at + 1 < length {
                ranks[at] = self.rank(tokens[at], tokens[at + 1]);
            }
            if at > 0 {
                ranks[at - 1] = self.rank(tokens[at - 1], tokens[at]);
            }
        }
        out.extend_from_slice(&tokens[..length]);
    }
}

/// Memory for long words, reused from word to word.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    symbols: Vec<Symbol>,
    /// Rank and position of pairs that could merge; entries go stale as their symbols change.
    queue: BinaryHeap<Reverse<(u32, usize)>>,
}

/// A node of the doubly linked list of a word's symbols, indexed by the position of its first
/// byte. `previous` and `next` are positions; the word's length ends the list.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    token: TokenId,
    /// Rank of the pair of this symbol and the next, [`NONE`] also for symbols merged away.
    rank: u32,
    previous: usize,
    next: usize,
}

impl Scratch {
    fn encode(&mut self, table: &MergeTable, word: &[u8], out: &mut Vec<TokenId>) {
        let end = word.len();
        self.symbols.clear();
        self.symbols.extend(
            word.iter()
                .zip(table.byte_pair_ranks(word).chain([NONE]))
                .enumerate()
                .map(|(position, (&byte, rank))| Symbol {
                    token: table.byte_tokens[usize::from(byte)],
                    rank,
                    previous: position.wrapping_sub(1),
                    next: position + 1,
                }),
        );
        let symbols = &mut self.symbols;

        let mut entries = std::mem::take(&mut self.queue).into_vec();
        entries.clear();
        entries.extend(
            symbols
                .iter()
                .enumerate()
                .filter(|(_, symbol)| symbol.rank != NONE)
                .map(|(position, symbol)| Reverse((symbol.rank, position))),
        );
        self.queue = BinaryHeap::from(entries);

        while let Some(Reverse((rank, position))) = self.queue.pop() {
            let symbol = symbols[position];
            if symbol.rank != rank {
                continue; // stale
            }
            let token = table.made[rank as usize];
            let after = symbols[symbol.next].next;
            symbols[symbol.next].rank = NONE;
            let next_rank = if after < end {
                symbols[after].previous = position;
                table.rank(token, symbols[after].token)
            } else {
                NONE
            };
            symbols[position] = Symbol {
                token,
                rank: next_rank,
                next: after,
                ..symbol
            };
            if next_rank != NONE {
                self.queue.push(Reverse((next_rank, position)));
            }
            if position > 0 {
                let previous = &mut symbols[symbol.previous];
                previous.rank = table.rank(previous.token, token);
                if previous.rank != NONE {
                    self.queue.push(Reverse((previous.rank, symbol.previous)));
                }
            }
        }

        let mut position = 0;
        while position < end {
            out.push(symbols[position].token);
            position = symbols[position].next;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, by repeated search over the whole word.
    fn by_definition(merges: &[Merge], word: &[u8]) -> Vec<TokenId> {
        let mut tokens: Vec<TokenId> = word.iter().map(|&byte| TokenId::from(byte)).collect();
        let rank = |left, right| {
            merges
                .iter()
                .rposition(|merge| (merge.left, merge.right) == (left, right))
        };
        loop {
            let best = (1..tokens.len())
                .filter_map(|at| Some((rank(tokens[at - 1], tokens[at])?, at)))
                .min();
            let Some((rank, at)) = best else {
                return tokens;
            };
            tokens[at - 1] = merges[rank].made;
            tokens.remove(at);
        }
    }

    proptest! {
        /// Random merges over three letters, in random order: ranks and ids disagree, later pairs
        /// repeat earlier ones, some merges can never apply.
        #[test]
        fn both_algorithms_follow_the_definition(
            pairs in prop::collection::vec((0..20u32, 0..20u32), 0..24),
            word in prop::collection::vec(0..3u8, 0..200),
        ) {
            let token = |index: u32| if index < 3 { index } else { 253 + index };
            let merges: Vec<Merge> = pairs
                .iter()
                .enumerate()
                .map(|(index, &(left, right))| Merge {
                    left: token(left),
                    right: token(right),
                    made: token(3 + (index as u32 * 7) % 20),
                })
                .collect();
            let table = MergeTable::new(std::array::from_fn(|byte| byte as TokenId), &merges);
            let expected = by_definition(&merges, &word);

            let mut by_heap = Vec::new();
            Scratch::default().encode(&table, &word, &mut by_heap);
            prop_assert_eq!(&by_heap, &expected);
            if word.len() <= SCAN_LIMIT {
                let mut by_scan = Vec::new();
                table.encode_by_scan(&word, &mut by_scan);
                prop_assert_eq!(&by_scan, &expected);
            }
        }
    }
}
