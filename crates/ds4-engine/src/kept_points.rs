//! Points that sequences can start from: the state after a prefix, with its pages by reference.
//!
//! Behind a prefix of tokens lie its compressed rows, in pages that never change, and its
//! *frontier*: windows and open contributions, which later tokens overwrite. A kept point is a
//! copy of the frontier on the host and a reference to each page. Any number of sequences can
//! start from it.

use ds4_model::{SequenceState, TokenId};

use crate::page_pool::PagePool;
use crate::prefix_tree::{NodeId, PrefixTree};

/// The state after a prefix.
#[derive(Debug)]
pub(crate) struct KeptPoint {
    pub(crate) state: SequenceState,
    pub(crate) pages: Vec<u32>,
    /// Logits of the next token; empty if they were not computed.
    pub(crate) logits: Vec<f32>,
    /// A request stopped here; otherwise it lies inside one.
    pub(crate) is_end: bool,
    /// It was read from disk, and no request has started from it yet.
    pub(crate) is_from_disk: bool,
    bytes: usize,
    last_used: u64,
}

/// All kept points, by their tokens, within a limit of memory.
#[derive(Debug)]
pub(crate) struct KeptPoints {
    tree: PrefixTree<KeptPoint>,
    bytes: usize,
    limit: usize,
    /// Counts lookups: the time by which points age.
    clock: u64,
}

/// How much likelier a request goes on from the end of an earlier one than from a point inside.
const END_WEIGHT: f64 = 4.0;

impl KeptPoints {
    /// Room for `limit` bytes of frontiers and logits.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            tree: PrefixTree::new(),
            bytes: 0,
            limit,
            clock: 0,
        }
    }

    /// Number of points.
    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    /// Bytes of all points.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Most bytes of all points.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    /// The longest point that is a prefix of `tokens`, and its length. A point at all of `tokens`
    /// counts only with logits, since nothing would be left to compute them.
    pub(crate) fn longest(&self, tokens: &[TokenId]) -> Option<(usize, &KeptPoint)> {
        let id = self.longest_id(tokens)?;
        Some((self.tree.depth(id), self.tree.get(id)?))
    }

    /// [`longest`](Self::longest) for use: it and the points before it are worth more from now on.
    pub(crate) fn longest_used(&mut self, tokens: &[TokenId]) -> Option<(usize, &KeptPoint)> {
        self.clock += 1;
        let used = self.longest_id(tokens)?;
        let mut id = Some(used);
        while let Some(at) = id {
            if let Some(point) = self.tree.get_mut(at) {
                point.last_used = self.clock;
            }
            id = self.tree.ancestor(at);
        }
        Some((self.tree.depth(used), self.tree.get(used)?))
    }

    /// The point at exactly `tokens`.
    pub(crate) fn at(&self, tokens: &[TokenId]) -> Option<&KeptPoint> {
        self.tree.find(tokens).and_then(|id| self.tree.get(id))
    }

    /// Whether the point at `tokens` comes from disk; asked once for each point.
    pub(crate) fn take_from_disk(&mut self, tokens: &[TokenId]) -> bool {
        let point = self.tree.find(tokens).and_then(|id| self.tree.get_mut(id));
        point.is_some_and(|point| std::mem::take(&mut point.is_from_disk))
    }

    /// Marks the point at `tokens` as read from disk.
    pub(crate) fn mark_from_disk(&mut self, tokens: &[TokenId]) {
        if let Some(point) = self.tree.find(tokens).and_then(|id| self.tree.get_mut(id)) {
            point.is_from_disk = true;
        }
    }

    fn longest_id(&self, tokens: &[TokenId]) -> Option<NodeId> {
        self.tree.longest(tokens, |depth, point| {
            depth < tokens.len() || !point.logits.is_empty()
        })
    }

    /// Whether there is a point at `tokens` already that a new one with `logits` would not better.
    /// It is then as good as new.
    pub(crate) fn refresh(&mut self, tokens: &[TokenId], logits: bool, is_end: bool) -> bool {
        let Some(point) = self.tree.find(tokens).and_then(|id| self.tree.get_mut(id)) else {
            return false;
        };
        if logits && point.logits.is_empty() {
            return false;
        }
        point.last_used = self.clock;
        point.is_end |= is_end;
        true
    }

    /// Makes room for a point of `bytes` bytes; `false` if it can never fit.
    pub(crate) fn make_room(&mut self, bytes: usize, pool: &mut PagePool) -> bool {
        if bytes > self.limit {
            return false;
        }
        while self.bytes + bytes > self.limit {
            if !self.drop_least(|_, _| true, pool) {
                return false;
            }
        }
        true
    }

    /// Keeps the state after `tokens`, with a reference to each page. [`make_room`](Self::make_room)
    /// comes before.
    pub(crate) fn insert(
        &mut self,
        tokens: &[TokenId],
        state: SequenceState,
        pages: &[u32],
        logits: &[f32],
        is_end: bool,
        pool: &mut PagePool,
    ) {
        let bytes = Self::point_bytes(
            state.layers.iter().map(Vec::len).sum::<usize>(),
            logits.len(),
        );
        pool.retain(pages);
        self.bytes += bytes;
        let point = KeptPoint {
            state,
            pages: pages.to_vec(),
            logits: logits.to_vec(),
            is_end,
            is_from_disk: false,
            bytes,
            last_used: self.clock,
        };
        if let Some(replaced) = self.tree.insert(tokens, point) {
            self.forget(&replaced, pool);
        }
    }

    /// Bytes that count for a point.
    pub(crate) fn point_bytes(frontier: usize, logits: usize) -> usize {
        frontier + 4 * logits
    }

    /// Drops the least valuable point so that pages become free, if possible one that alone holds
    /// its last page; `false` if there is none.
    pub(crate) fn drop_for_pages(&mut self, pool: &mut PagePool) -> bool {
        // The pages of a point inside a longer one are held by the longer one as well.
        let holds_alone = |point: &KeptPoint, pool: &PagePool| {
            let last = point.pages.last();
            last.is_some_and(|&page| !pool.is_shared(page))
        };
        self.drop_least(holds_alone, pool) || self.drop_least_leaf(pool)
    }

    /// Drops every point.
    pub(crate) fn clear(&mut self, pool: &mut PagePool) {
        while self.drop_least(|_, _| true, pool) {}
    }

    fn drop_least(
        &mut self,
        candidate: impl Fn(&KeptPoint, &PagePool) -> bool,
        pool: &mut PagePool,
    ) -> bool {
        let is_candidate = |&id: &NodeId| {
            self.tree
                .get(id)
                .is_some_and(|point| candidate(point, pool))
        };
        let least = self.least(self.tree.ids().filter(is_candidate));
        self.drop_point(least, pool)
    }

    fn drop_least_leaf(&mut self, pool: &mut PagePool) -> bool {
        let least = self.least(self.tree.ids().filter(|&id| self.tree.is_leaf(id)));
        self.drop_point(least, pool)
    }

    fn least(&self, ids: impl Iterator<Item = NodeId>) -> Option<NodeId> {
        ids.min_by(|&a, &b| self.value(a).total_cmp(&self.value(b)))
    }

    fn drop_point(&mut self, id: Option<NodeId>, pool: &mut PagePool) -> bool {
        let Some(point) = id.and_then(|id| self.tree.remove(id)) else {
            return false;
        };
        self.forget(&point, pool);
        true
    }

    fn forget(&mut self, point: &KeptPoint, pool: &mut PagePool) {
        self.bytes -= point.bytes;
        pool.release(&point.pages);
    }

    /// Tokens that a request saves by starting here and not at the point before, for each byte;
    /// less the longer nobody came by.
    fn value(&self, id: NodeId) -> f64 {
        let Some(point) = self.tree.get(id) else {
            return 0.0;
        };
        let before = self.tree.ancestor(id).map_or(0, |id| self.tree.depth(id));
        let saved = (self.tree.depth(id) - before) as f64;
        let weight = if self.tree.is_leaf(id) {
            END_WEIGHT
        } else {
            1.0
        };
        let age = (self.clock - point.last_used) as f64;
        saved * weight / (point.bytes.max(1) as f64 * (1.0 + age))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep(points: &mut KeptPoints, pool: &mut PagePool, tokens: &[TokenId]) {
        assert!(points.make_room(10, pool));
        let page = pool.take().unwrap();
        let state = SequenceState {
            layers: vec![vec![0; 10]],
        };
        points.insert(tokens, state, &[page], &[], false, pool);
        pool.release(&[page]);
    }

    fn lengths(points: &KeptPoints, tokens: &[TokenId]) -> Vec<usize> {
        (1..=tokens.len())
            .filter(|&length| points.tree.find(&tokens[..length]).is_some())
            .collect()
    }

    #[test]
    fn a_long_prompt_is_thinned_out_evenly_and_keeps_its_end() {
        let (mut points, mut pool) = (KeptPoints::new(50), PagePool::new(20));
        let tokens: Vec<TokenId> = (0..120).collect();
        for length in (10..=120).step_by(10) {
            keep(&mut points, &mut pool, &tokens[..length]);
            assert!(points.bytes() <= 50);
        }
        let kept = lengths(&points, &tokens);
        assert_eq!(kept.len(), 5);
        assert_eq!(kept.last(), Some(&120));
        let mut before = 0;
        for length in kept {
            assert!(length - before <= 40, "a gap of {}", length - before);
            before = length;
        }
        assert_eq!(pool.free(), 15);
    }

    #[test]
    fn what_nobody_uses_goes_first() {
        let (mut points, mut pool) = (KeptPoints::new(40), PagePool::new(20));
        let (old, used): (Vec<_>, Vec<_>) = ((0..40).collect(), (100..140).collect());
        for length in [20, 40] {
            keep(&mut points, &mut pool, &old[..length]);
            keep(&mut points, &mut pool, &used[..length]);
        }
        let next = [used.as_slice(), &[7]].concat();
        for _ in 0..20 {
            let found = points.longest_used(&next);
            assert_eq!(found.map(|(length, _)| length), Some(40));
        }
        assert_eq!(lengths(&points, &used), [20, 40]);
        for first in [200, 300] {
            keep(
                &mut points,
                &mut pool,
                &(first..first + 20).collect::<Vec<_>>(),
            );
        }
        assert_eq!(lengths(&points, &old), []);
        assert_eq!(lengths(&points, &used), [20, 40]);
        points.clear(&mut pool);
        assert_eq!((points.bytes(), pool.free()), (0, 20));
    }

    #[test]
    fn a_point_without_logits_is_no_end() {
        let (mut points, mut pool) = (KeptPoints::new(100), PagePool::new(20));
        let tokens: Vec<TokenId> = (0..40).collect();
        for length in [20, 40] {
            keep(&mut points, &mut pool, &tokens[..length]);
        }
        assert_eq!(points.longest(&tokens).map(|(length, _)| length), Some(20));
        assert!(!points.refresh(&tokens, true, true));
        assert!(points.refresh(&tokens, false, true));
    }
}
