//! Byte-pair merging: which pairs merge, in which order, and the algorithm that applies them.
//!
//! The result is that of the definition: while any adjacent pair has a merge, apply the merge of
//! lowest rank, leftmost first. A shallow tree of minima finds it, so that a word of n bytes costs
//! O(n log n) whatever its content.

use crate::TokenId;
use crate::hash::Hash;

/// No merge.
const NONE: u32 = u32::MAX;

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
}

/// Applies merges to words; keeps its memory from word to word.
#[derive(Debug, Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    ranks: MinimumTree,
}

/// A node of the doubly linked list of a word's symbols, indexed by the position of its first
/// byte. `previous` and `next` are positions; the word's length ends the list.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    token: TokenId,
    previous: usize,
    next: usize,
}

impl Merger {
    /// Appends the tokens of `word`.
    pub(crate) fn encode(&mut self, table: &MergeTable, word: &[u8], out: &mut Vec<TokenId>) {
        let end = word.len();
        self.symbols.clear();
        self.symbols
            .extend(word.iter().enumerate().map(|(position, &byte)| Symbol {
                token: table.byte_tokens[usize::from(byte)],
                previous: position.wrapping_sub(1),
                next: position + 1,
            }));
        self.ranks.fill(table.byte_pair_ranks(word));

        let symbols = self.symbols.as_mut_slice();
        while let Some((rank, position)) = self.ranks.minimum() {
            let token = table.made[rank as usize];
            let Symbol { previous, next, .. } = symbols[position];
            let after = symbols[next].next;
            symbols[position].token = token;
            symbols[position].next = after;
            if after < end {
                symbols[after].previous = position;
                self.ranks.set(next, NONE);
                self.ranks
                    .set(position, table.rank(token, symbols[after].token));
            } else {
                self.ranks.set(position, NONE);
            }
            if position > 0 {
                self.ranks
                    .set(previous, table.rank(symbols[previous].token, token));
            }
        }

        let mut position = 0;
        while position < end {
            out.push(symbols[position].token);
            position = symbols[position].next;
        }
    }
}

/// Children of a node of [`MinimumTree`]; eight ranks are two vector registers.
const FAN_OUT: usize = 8;

/// The ranks of a word's pairs by position, under a tree of minima.
#[derive(Debug, Default)]
struct MinimumTree {
    /// The ranks, then on each level the minima of the nodes of the one below, up to one node.
    /// Unused places are [`NONE`].
    levels: Vec<Vec<[u32; FAN_OUT]>>,
    /// How many of `levels` the current word uses.
    depth: usize,
}

impl MinimumTree {
    fn fill(&mut self, mut ranks: impl Iterator<Item = u32>) {
        self.depth = 0;
        let mut nodes = self.level(0);
        while let Some(first) = ranks.next() {
            let mut node = [NONE; FAN_OUT];
            node[0] = first;
            for (place, rank) in node[1..].iter_mut().zip(&mut ranks) {
                *place = rank;
            }
            nodes.push(node);
        }
        self.levels[0] = nodes;
        self.depth = 1;
        while self.levels[self.depth - 1].len() > 1 {
            let mut above = self.level(self.depth);
            above.extend(self.levels[self.depth - 1].chunks(FAN_OUT).map(|below| {
                let mut node = [NONE; FAN_OUT];
                for (place, below) in node.iter_mut().zip(below) {
                    *place = minimum(below);
                }
                node
            }));
            self.levels[self.depth] = above;
            self.depth += 1;
        }
    }

    /// The memory of a level, taken out and emptied.
    fn level(&mut self, index: usize) -> Vec<[u32; FAN_OUT]> {
        if index == self.levels.len() {
            self.levels.push(Vec::new());
        }
        let mut nodes = std::mem::take(&mut self.levels[index]);
        nodes.clear();
        nodes
    }

    /// The lowest rank and its leftmost position.
    fn minimum(&self) -> Option<(u32, usize)> {
        let levels = &self.levels[..self.depth];
        let lowest = minimum(levels.last()?.first()?);
        if lowest == NONE {
            return None;
        }
        let mut position = 0;
        for level in levels.iter().rev() {
            let child = level[position].iter().position(|&rank| rank == lowest)?;
            position = position * FAN_OUT + child;
        }
        Some((lowest, position))
    }

    fn set(&mut self, mut position: usize, mut rank: u32) {
        for level in &mut self.levels[..self.depth] {
            let node = &mut level[position / FAN_OUT];
            let place = &mut node[position % FAN_OUT];
            if *place == rank {
                break;
            }
            *place = rank;
            rank = minimum(node);
            position /= FAN_OUT;
        }
    }
}

#[inline]
fn minimum(node: &[u32; FAN_OUT]) -> u32 {
    node.iter().fold(NONE, |low, &rank| low.min(rank))
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
        fn merging_follows_the_definition(
            pairs in prop::collection::vec((0..20u32, 0..20u32), 0..24),
            word in prop::collection::vec(0..3u8, 0..600),
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

            let mut merger = Merger::default();
            for _ in 0..2 {
                let mut tokens = Vec::new();
                merger.encode(&table, &word, &mut tokens);
                prop_assert_eq!(&tokens, &expected);
            }
        }
    }
}
