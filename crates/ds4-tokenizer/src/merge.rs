//! Byte-pair merging: which pairs merge, in which order, and the algorithm that applies them.
//!
//! The result is that of the definition: while any adjacent pair has a merge, apply the merge of
//! lowest rank, leftmost first. A shallow tree of minima finds it, so that a word of n bytes costs
//! O(n log n) whatever its content.

use crate::TokenId;
use crate::character::Character;
use crate::hash::Hash;
use crate::whole_characters::WholeCharacters;

/// No merge.
pub(crate) const NONE: u32 = u32::MAX;

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
    /// Characters that may be taken for one symbol from the start.
    whole_characters: WholeCharacters,
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
            whole_characters: WholeCharacters::default(),
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

    /// From now on starts with the symbols of `whole_characters` where they occur.
    pub(crate) fn set_whole_characters(&mut self, whole_characters: WholeCharacters) {
        self.whole_characters = whole_characters;
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

/// A node of the doubly linked list of a word's symbols. `previous` and `next` are indices; the
/// number of symbols ends the list.
#[derive(Clone, Copy, Debug)]
struct Symbol {
    token: TokenId,
    previous: usize,
    next: usize,
}

impl Merger {
    /// Appends the tokens of `word`, which is UTF-8. Returns the highest rank of the merges that
    /// it took, 0 if none.
    pub(crate) fn encode(
        &mut self,
        table: &MergeTable,
        word: &[u8],
        out: &mut Vec<TokenId>,
    ) -> u32 {
        self.symbols.clear();
        if word.is_ascii() {
            self.push_bytes(table, word);
            self.ranks.fill(table.byte_pair_ranks(word));
        } else {
            self.push_characters(table, word);
            let pairs = self.symbols.windows(2);
            self.ranks
                .fill(pairs.map(|pair| table.rank(pair[0].token, pair[1].token)));
        }

        let end = self.symbols.len();
        let mut highest = 0;
        let symbols = self.symbols.as_mut_slice();
        while let Some((rank, position)) = self.ranks.minimum() {
            highest = highest.max(rank);
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
        highest
    }

    fn push_bytes(&mut self, table: &MergeTable, bytes: &[u8]) {
        for &byte in bytes {
            self.push(table.byte_tokens[usize::from(byte)]);
        }
    }

    fn push_characters(&mut self, table: &MergeTable, word: &[u8]) {
        let mut position = 0;
        while let Some(character) = Character::at(word, position) {
            let next = position + character.length;
            match table.whole_characters.token_of(character.code_point) {
                Some(token) => self.push(token),
                None => self.push_bytes(table, &word[position..next]),
            }
            position = next;
        }
    }

    #[inline]
    fn push(&mut self, token: TokenId) {
        let index = self.symbols.len();
        self.symbols.push(Symbol {
            token,
            previous: index.wrapping_sub(1),
            next: index + 1,
        });
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

    fn check(merges: &[Merge], whole: WholeCharacters, word: &[u8]) -> Result<(), TestCaseError> {
        let mut table = MergeTable::new(std::array::from_fn(|byte| byte as TokenId), merges);
        table.set_whole_characters(whole);
        let mut merger = Merger::default();
        for _ in 0..2 {
            let mut tokens = Vec::new();
            merger.encode(&table, word, &mut tokens);
            prop_assert_eq!(&tokens, &by_definition(merges, word));
        }
        Ok(())
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
            check(&merges, WholeCharacters::default(), &word)?;
        }

        /// Merges inside characters and across their borders, in any order: whatever characters
        /// are found to be safe, starting with them changes nothing.
        #[test]
        fn starting_with_whole_characters_changes_nothing(
            picks in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..40),
            moves in prop::collection::vec(any::<[prop::sample::Index; 2]>(), 0..40),
            word in "[aé字孙Ā]{0,40}",
        ) {
            // Every token is the bytes that it stands for; a merge joins two of them.
            let mut spelled: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
            let mut merges = Vec::new();
            let mut join = |left: TokenId, right: TokenId| {
                let bytes = [left, right].map(|id| spelled[id as usize].as_slice()).concat();
                let known = spelled.iter().position(|other| *other == bytes);
                let made = known.unwrap_or_else(|| {
                    spelled.push(bytes);
                    spelled.len() - 1
                }) as TokenId;
                merges.push(Merge { left, right, made });
                made
            };
            let mut usable: Vec<TokenId> = "aé字孙Ā".bytes().map(TokenId::from).collect();
            for character in ["é", "字", "孙", "Ā"] {
                let parts = character.bytes().map(TokenId::from);
                let whole = parts.reduce(&mut join);
                usable.extend(whole);
            }
            for [left, right] in &picks {
                usable.push(join(*left.get(&usable), *right.get(&usable)));
            }
            for [one, other] in &moves {
                let (one, other) = (one.index(merges.len()), other.index(merges.len()));
                merges.swap(one, other);
            }

            let table = MergeTable::new(std::array::from_fn(|byte| byte as TokenId), &merges);
            let whole = WholeCharacters::find(&table, &merges, spelled.len(), |id| {
                &spelled[id as usize]
            });
            check(&merges, whole, word.as_bytes())?;
        }
    }
}
