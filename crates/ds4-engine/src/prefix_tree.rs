//! A radix tree over token ids: values at prefixes, found by the longest match.

use ds4_model::TokenId;

/// A node that holds a value. Valid until that value is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeId(usize);

const ROOT: NodeId = NodeId(0);

/// Values of `T` at token lists. Lists with a common prefix share its tokens.
///
/// Every node but the root holds a value or has at least two children, so there are fewer than
/// two nodes for each value.
#[derive(Debug)]
pub(crate) struct PrefixTree<T> {
    /// The root is the first; unused places have neither value nor children.
    nodes: Vec<Node<T>>,
    unused: Vec<usize>,
    values: usize,
}

#[derive(Debug)]
struct Node<T> {
    parent: NodeId,
    /// Tokens from the parent to here; empty only in the root.
    edge: Vec<TokenId>,
    /// Tokens from the root to here.
    depth: usize,
    /// Their edges begin with different tokens.
    children: Vec<NodeId>,
    value: Option<T>,
}

impl<T> PrefixTree<T> {
    pub(crate) fn new() -> Self {
        Self {
            nodes: vec![Node {
                parent: ROOT,
                edge: Vec::new(),
                depth: 0,
                children: Vec::new(),
                value: None,
            }],
            unused: Vec::new(),
            values: 0,
        }
    }

    /// Number of values.
    pub(crate) fn len(&self) -> usize {
        self.values
    }

    /// All nodes with a value.
    pub(crate) fn ids(&self) -> impl Iterator<Item = NodeId> {
        let nodes = self.nodes.iter().enumerate();
        nodes
            .filter(|(_, node)| node.value.is_some())
            .map(|(index, _)| NodeId(index))
    }

    /// The value at `id`.
    pub(crate) fn get(&self, id: NodeId) -> Option<&T> {
        self.node(id).value.as_ref()
    }

    /// The value at `id`, to be changed.
    pub(crate) fn get_mut(&mut self, id: NodeId) -> Option<&mut T> {
        self.node_mut(id).value.as_mut()
    }

    /// Tokens from the root to `id`.
    pub(crate) fn depth(&self, id: NodeId) -> usize {
        self.node(id).depth
    }

    /// Whether no longer list with a value begins with that of `id`.
    pub(crate) fn is_leaf(&self, id: NodeId) -> bool {
        self.node(id).children.is_empty()
    }

    /// The nearest node with a value on the way from `id` to the root.
    pub(crate) fn ancestor(&self, id: NodeId) -> Option<NodeId> {
        let mut id = id;
        while id != ROOT {
            id = self.node(id).parent;
            if self.node(id).value.is_some() {
                return Some(id);
            }
        }
        None
    }

    /// The longest list that `tokens` begins with and whose value is `usable`, given its length.
    pub(crate) fn longest(
        &self,
        tokens: &[TokenId],
        usable: impl Fn(usize, &T) -> bool,
    ) -> Option<NodeId> {
        let mut best = None;
        let mut id = ROOT;
        loop {
            let node = self.node(id);
            if let Some(value) = &node.value
                && usable(node.depth, value)
            {
                best = Some(id);
            }
            match self.child(id, &tokens[node.depth..]) {
                Some((child, matched)) if matched == self.node(child).edge.len() => id = child,
                _ => return best,
            }
        }
    }

    /// The node with a value at exactly `tokens`.
    pub(crate) fn find(&self, tokens: &[TokenId]) -> Option<NodeId> {
        self.longest(tokens, |depth, _| depth == tokens.len())
    }

    /// Puts `value` at `tokens`, of which there must be at least one; gives back what it replaces.
    pub(crate) fn insert(&mut self, tokens: &[TokenId], value: T) -> Option<T> {
        let mut id = ROOT;
        loop {
            let depth = self.node(id).depth;
            let rest = &tokens[depth..];
            if rest.is_empty() {
                let replaced = self.node_mut(id).value.replace(value);
                self.values += usize::from(replaced.is_none());
                return replaced;
            }
            id = match self.child(id, rest) {
                Some((child, matched)) if matched < self.node(child).edge.len() => {
                    self.split(child, matched)
                }
                Some((child, _)) => child,
                None => self.attach(id, rest.to_vec()),
            };
        }
    }

    /// Takes the value at `id` out.
    pub(crate) fn remove(&mut self, id: NodeId) -> Option<T> {
        let value = self.node_mut(id).value.take()?;
        self.values -= 1;
        let parent = self.node(id).parent;
        if id != ROOT && self.node(id).children.is_empty() {
            self.node_mut(parent).children.retain(|&child| child != id);
            self.free(id);
            self.join(parent);
        } else {
            self.join(id);
        }
        Some(value)
    }

    /// The child of `id` whose edge begins as `rest` does, and how many tokens they share.
    fn child(&self, id: NodeId, rest: &[TokenId]) -> Option<(NodeId, usize)> {
        let first = rest.first()?;
        let mut children = self.node(id).children.iter();
        let child = *children.find(|&&child| self.node(child).edge.first() == Some(first))?;
        let edge = self.node(child).edge.iter();
        Some((child, edge.zip(rest).take_while(|(a, b)| a == b).count()))
    }

    /// A new node below `parent`.
    fn attach(&mut self, parent: NodeId, edge: Vec<TokenId>) -> NodeId {
        let node = Node {
            parent,
            depth: self.node(parent).depth + edge.len(),
            edge,
            children: Vec::new(),
            value: None,
        };
        let id = self.unused.pop().unwrap_or(self.nodes.len());
        if id == self.nodes.len() {
            self.nodes.push(node);
        } else {
            self.nodes[id] = node;
        }
        self.node_mut(parent).children.push(NodeId(id));
        NodeId(id)
    }

    /// A new node inside the edge of `id`, after `tokens` of it.
    fn split(&mut self, id: NodeId, tokens: usize) -> NodeId {
        let node = self.node_mut(id);
        let (parent, tail) = (node.parent, node.edge.split_off(tokens));
        let head = std::mem::replace(&mut node.edge, tail);
        self.node_mut(parent).children.retain(|&child| child != id);
        let middle = self.attach(parent, head);
        self.node_mut(id).parent = middle;
        self.node_mut(middle).children.push(id);
        middle
    }

    /// Joins `id` with its only child if it has no purpose of its own.
    fn join(&mut self, id: NodeId) {
        let node = self.node(id);
        if id == ROOT || node.value.is_some() {
            return;
        }
        let &[child] = node.children.as_slice() else {
            return;
        };
        let parent = node.parent;
        let mut edge = std::mem::take(&mut self.node_mut(id).edge);
        edge.append(&mut self.node_mut(child).edge);
        let node = self.node_mut(child);
        (node.edge, node.parent) = (edge, parent);
        for place in &mut self.node_mut(parent).children {
            if *place == id {
                *place = child;
            }
        }
        self.free(id);
    }

    fn free(&mut self, id: NodeId) {
        self.node_mut(id).children.clear();
        self.unused.push(id.0);
    }

    fn node(&self, id: NodeId) -> &Node<T> {
        &self.nodes[id.0]
    }

    fn node_mut(&mut self, id: NodeId) -> &mut Node<T> {
        &mut self.nodes[id.0]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// Short lists over few tokens share many prefixes.
    fn list() -> impl Strategy<Value = Vec<TokenId>> {
        prop::collection::vec(0..3u32, 1..9)
    }

    fn check_structure(tree: &PrefixTree<u32>) {
        for (index, node) in tree.nodes.iter().enumerate() {
            if tree.unused.contains(&index) {
                continue;
            }
            assert!(index == 0 || node.value.is_some() || node.children.len() >= 2);
            for &child in &node.children {
                let child = tree.node(child);
                assert_eq!(child.parent, NodeId(index));
                assert_eq!(child.depth, node.depth + child.edge.len());
            }
        }
    }

    proptest! {
        /// The tree and a sorted map of whole lists say the same.
        #[test]
        fn it_is_a_map_with_prefix_search(
            steps in prop::collection::vec((list(), any::<bool>()), 1..60),
            queries in prop::collection::vec(list(), 1..20),
        ) {
            let mut tree = PrefixTree::new();
            let mut map = BTreeMap::new();
            for (number, (tokens, remove)) in steps.into_iter().enumerate() {
                let found = tree.find(&tokens);
                prop_assert_eq!(found.and_then(|id| tree.get(id)), map.get(&tokens));
                if remove {
                    let removed = found.and_then(|id| tree.remove(id));
                    prop_assert_eq!(removed, map.remove(&tokens));
                } else {
                    let number = number as u32;
                    prop_assert_eq!(tree.insert(&tokens, number), map.insert(tokens, number));
                }
                prop_assert_eq!(tree.len(), map.len());
                prop_assert_eq!(tree.ids().count(), map.len());
                check_structure(&tree);
            }
            for query in queries {
                let expected = (1..=query.len()).rev().find_map(|length| map.get(&query[..length]));
                let found = tree.longest(&query, |_, _| true);
                prop_assert_eq!(found.and_then(|id| tree.get(id)), expected);
                if let Some(id) = found {
                    let length = tree.depth(id);
                    let above = (1..length).rev().find_map(|length| map.get(&query[..length]));
                    prop_assert_eq!(tree.ancestor(id).and_then(|id| tree.get(id)), above);
                    let longer = map.keys().any(|list| list.len() > length && list.starts_with(&query[..length]));
                    prop_assert_eq!(tree.is_leaf(id), !longer);
                }
            }
        }
    }
}
