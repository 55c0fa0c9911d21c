//! What is on disk, in memory: a tree of segments with the checkpoints that end on them.
//!
//! The parent of a segment is the one before it; the root of a model key is a segment
//! that has no file. A lookup walks down from the root as long as there are segments.

use std::collections::{HashMap, HashSet};

use crate::chain::{self, CheckpointId, ModelKey, SegmentName, TokenId};
use crate::format::{Manifest, segment_file_bytes};

/// A segment, or the root of a key.
#[derive(Debug, Default)]
struct Node {
    /// `None` for a root.
    parent: Option<SegmentName>,
    /// Size of its file.
    file_bytes: u64,
    on_disk: bool,
    children: usize,
    /// Checkpoints whose last whole span this is.
    ends: Vec<CheckpointId>,
    /// Plans to save behind it.
    pins: usize,
}

impl Node {
    fn is_unused(&self) -> bool {
        self.children == 0 && self.ends.is_empty() && self.pins == 0
    }
}

/// A checkpoint of the index.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As in its file, but for the names of the segments: the tree has them.
    pub(crate) manifest: Manifest,
    /// The segment that it ends on, or the root.
    pub(crate) last: SegmentName,
    pub(crate) last_used: u64,
    pub(crate) hits: u64,
    /// Of `hits`, those that the usage file does not know yet.
    pub(crate) new_hits: u64,
    /// Hits that somebody holds.
    pub(crate) pins: usize,
}

/// A spot in a chain of segments, kept in the tree while it is planned to save there.
#[derive(Debug)]
pub(crate) struct PlanSpot {
    /// The deepest segment of the tree, or the root.
    pub(crate) pinned: SegmentName,
    /// Which spans have no segment on disk.
    pub(crate) missing: Vec<usize>,
}

#[derive(Debug, Default)]
pub(crate) struct Index {
    nodes: HashMap<SegmentName, Node>,
    entries: HashMap<CheckpointId, Entry>,
    /// Segments on disk that no checkpoint needs, with their sizes.
    orphans: HashMap<SegmentName, u64>,
    /// Checkpoints that turned out to be damaged, until they are saved anew.
    refused: HashSet<CheckpointId>,
    /// Segments that turned out to be damaged, until they are written anew.
    refused_segments: HashSet<SegmentName>,
}

impl Index {
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn entry(&self, id: &CheckpointId) -> Option<&Entry> {
        self.entries.get(id)
    }

    pub(crate) fn entry_mut(&mut self, id: &CheckpointId) -> Option<&mut Entry> {
        self.entries.get_mut(id)
    }

    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Adds a checkpoint. Segments that were not known are taken as not on disk.
    pub(crate) fn insert(&mut self, mut manifest: Manifest, last_used: u64, hits: u64) {
        // A checkpoint that is replaced keeps what is known of its use.
        let (new_hits, pins) = self
            .entries
            .get(&manifest.id)
            .map_or((0, 0), |entry| (entry.new_hits, entry.pins));
        self.refused.remove(&manifest.id);
        let segments = std::mem::take(&mut manifest.segments);
        let root = chain::root(&manifest.key);
        let last = segments.last().copied().unwrap_or(root);
        let id = manifest.id;
        let file_bytes = segment_file_bytes(manifest.key.span_tokens, manifest.segment_bytes);
        let entry = Entry {
            manifest,
            last,
            last_used,
            hits,
            new_hits,
            pins,
        };
        let replaced = self.entries.insert(id, entry).is_some();
        // From the end, up to the first that is there: the ones before are there, too.
        let mut child_is_new = false;
        let mut span = segments.len();
        loop {
            let name = if span == 0 { root } else { segments[span - 1] };
            let is_new = !self.nodes.contains_key(&name);
            let node = self.nodes.entry(name).or_default();
            node.children += usize::from(child_is_new);
            if span == segments.len() && !replaced {
                node.ends.push(id);
            }
            if is_new && span > 0 {
                node.parent = Some(if span == 1 { root } else { segments[span - 2] });
                node.file_bytes = file_bytes;
                if let Some(bytes) = self.orphans.remove(&name) {
                    node.on_disk = true;
                    node.file_bytes = bytes;
                }
            }
            if !is_new || span == 0 {
                break;
            }
            child_is_new = true;
            span -= 1;
        }
    }

    /// Takes a checkpoint out. Segments that nobody needs any more become orphans.
    pub(crate) fn remove(&mut self, id: &CheckpointId) -> Option<Entry> {
        self.refused.remove(id);
        let entry = self.entries.remove(id)?;
        if let Some(node) = self.nodes.get_mut(&entry.last) {
            node.ends.retain(|end| end != id);
        }
        self.release(entry.last);
        Some(entry)
    }

    /// Drops a segment, and those before it, as far as nobody needs them.
    fn release(&mut self, name: SegmentName) {
        let mut next = Some(name);
        while let Some(name) = next {
            if !self.nodes.get(&name).is_some_and(Node::is_unused) {
                return;
            }
            let Some(node) = self.nodes.remove(&name) else {
                return;
            };
            if node.on_disk {
                self.orphans.insert(name, node.file_bytes);
            }
            next = node.parent;
            if let Some(parent) = next.and_then(|name| self.nodes.get_mut(&name)) {
                parent.children -= 1;
            }
        }
    }

    /// The longest checkpoint that is a prefix of `tokens` and has all its segments.
    pub(crate) fn longest_prefix(
        &self,
        key: &ModelKey,
        tokens: &[TokenId],
    ) -> Option<CheckpointId> {
        let mut name = chain::root(key);
        let mut longest = None;
        let mut rest = tokens;
        loop {
            let Some(node) = self.nodes.get(&name) else {
                return longest;
            };
            if node.parent.is_some() && !node.on_disk {
                return longest;
            }
            let here = node
                .ends
                .iter()
                .filter(|id| !self.refused.contains(*id))
                .filter_map(|id| self.entries.get(id))
                .filter(|entry| rest.starts_with(&entry.manifest.tail))
                .max_by_key(|entry| entry.manifest.tail.len());
            if let Some(entry) = here {
                longest = Some(entry.manifest.id);
            }
            let Some((span, behind)) = rest.split_at_checked(key.span()) else {
                return longest;
            };
            name = chain::next(&name, span);
            rest = behind;
        }
    }

    /// Keeps the segments that `names` has in the tree.
    pub(crate) fn pin_chain(&mut self, root: SegmentName, names: &[SegmentName]) -> PlanSpot {
        let mut pinned = root;
        let mut missing = Vec::new();
        for (span, name) in names.iter().enumerate() {
            match self.nodes.get(name) {
                Some(node) => {
                    pinned = *name;
                    if !node.on_disk {
                        missing.push(span);
                    }
                }
                // Nor are those behind it. Orphans may go at any time, so they do not count.
                None => {
                    missing.extend(span..names.len());
                    break;
                }
            }
        }
        self.nodes.entry(pinned).or_default().pins += 1;
        PlanSpot { pinned, missing }
    }

    /// How many of these segments are not on disk.
    pub(crate) fn count_missing(&self, names: &[SegmentName]) -> usize {
        let there = |name: &&SegmentName| self.nodes.get(*name).is_some_and(|node| node.on_disk);
        names.len() - names.iter().filter(there).count()
    }

    pub(crate) fn unpin_chain(&mut self, pinned: SegmentName) {
        if let Some(node) = self.nodes.get_mut(&pinned) {
            node.pins = node.pins.saturating_sub(1);
        }
        self.release(pinned);
    }

    /// A segment's file is there and sound.
    pub(crate) fn segment_written(&mut self, name: &SegmentName) {
        self.refused_segments.remove(name);
        if let Some(node) = self.nodes.get_mut(name) {
            node.on_disk = true;
        }
    }

    /// A segment's file is not there any more.
    pub(crate) fn segment_removed(&mut self, name: &SegmentName) {
        self.refused_segments.remove(name);
        if let Some(node) = self.nodes.get_mut(name) {
            node.on_disk = false;
        }
        self.orphans.remove(name);
    }

    /// Takes over a listing of the segments' folder; gives the names that no checkpoint needs.
    pub(crate) fn set_listing(&mut self, listed: &HashSet<SegmentName>) -> Vec<SegmentName> {
        for (name, node) in &mut self.nodes {
            node.on_disk = listed.contains(name) && !self.refused_segments.contains(name);
        }
        self.orphans.retain(|name, _| listed.contains(name));
        listed
            .iter()
            .filter(|name| !self.nodes.contains_key(*name) && !self.orphans.contains_key(*name))
            .copied()
            .collect()
    }

    pub(crate) fn add_orphan(&mut self, name: SegmentName, bytes: u64) {
        if !self.nodes.contains_key(&name) {
            self.orphans.insert(name, bytes);
        }
    }

    pub(crate) fn orphans(&self) -> Vec<(SegmentName, u64)> {
        self.orphans
            .iter()
            .map(|(name, bytes)| (*name, *bytes))
            .collect()
    }

    /// Never finds this checkpoint again, until it is saved anew.
    pub(crate) fn refuse(&mut self, id: CheckpointId) {
        self.refused.insert(id);
    }

    /// Finds this checkpoint again: its file is sound now.
    pub(crate) fn accept(&mut self, id: &CheckpointId) {
        self.refused.remove(id);
    }

    /// Takes this segment as missing, until it is written anew.
    pub(crate) fn refuse_segment(&mut self, name: SegmentName) {
        self.segment_removed(&name);
        self.refused_segments.insert(name);
    }

    pub(crate) fn is_refused(&self, id: &CheckpointId) -> bool {
        self.refused.contains(id)
    }

    pub(crate) fn is_refused_segment(&self, name: &SegmentName) -> bool {
        self.refused_segments.contains(name)
    }

    /// All segments of a checkpoint are there.
    pub(crate) fn is_complete(&self, entry: &Entry) -> bool {
        !self.is_refused(&entry.manifest.id)
            && self
                .path(entry.last)
                .all(|(_, node)| node.on_disk || node.parent.is_none())
    }

    /// A segment and those before it, the root included.
    fn path(&self, last: SegmentName) -> impl Iterator<Item = (SegmentName, &Node)> {
        let mut next = Some(last);
        std::iter::from_fn(move || {
            let name = next?;
            let node = self.nodes.get(&name)?;
            next = node.parent;
            Some((name, node))
        })
    }

    /// Segments on disk, those that nobody needs included.
    pub(crate) fn segments(&self) -> usize {
        self.nodes.values().filter(|node| node.on_disk).count() + self.orphans.len()
    }

    /// Bytes on disk that checkpoints need.
    pub(crate) fn needed_bytes(&self) -> u64 {
        let segments: u64 = self
            .nodes
            .values()
            .filter(|node| node.on_disk)
            .map(|node| node.file_bytes)
            .sum();
        let checkpoints: u64 = self
            .entries
            .values()
            .map(|entry| entry.manifest.file_bytes)
            .sum();
        segments + checkpoints
    }

    /// All bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.needed_bytes() + self.orphans.values().sum::<u64>()
    }

    /// Bytes of a checkpoint with all its segments.
    pub(crate) fn whole_bytes(&self, entry: &Entry) -> u64 {
        let segments: u64 = self
            .path(entry.last)
            .filter(|(_, node)| node.on_disk)
            .map(|(_, node)| node.file_bytes)
            .sum();
        entry.manifest.file_bytes + segments
    }

    /// Bytes that removing a checkpoint alone frees.
    pub(crate) fn own_bytes(&self, entry: &Entry) -> u64 {
        let mut bytes = entry.manifest.file_bytes;
        for (depth, (_, node)) in self.path(entry.last).enumerate() {
            let (children, ends) = if depth == 0 { (0, 1) } else { (1, 0) };
            if node.children != children || node.ends.len() != ends || node.pins > 0 {
                break;
            }
            if node.on_disk {
                bytes += node.file_bytes;
            }
        }
        bytes
    }

    /// Seconds of prefill that the best shorter checkpoint of the same conversation saves.
    ///
    /// Of a checkpoint that ends within an earlier span only the tokens up to that span
    /// are known to agree; it is taken as a prefix, which is wrong by less than a span.
    pub(crate) fn seconds_without(&self, entry: &Entry) -> f64 {
        for (depth, (_, node)) in self.path(entry.last).enumerate() {
            let shorter = node
                .ends
                .iter()
                .filter_map(|id| self.entries.get(id))
                .filter(|other| {
                    depth > 0
                        || (other.manifest.tail.len() < entry.manifest.tail.len()
                            && entry.manifest.tail.starts_with(&other.manifest.tail))
                })
                .map(|other| other.manifest.prefill_seconds)
                .fold(f64::NEG_INFINITY, f64::max);
            if shorter > f64::NEG_INFINITY {
                return shorter;
            }
        }
        0.0
    }

    /// Bytes that cannot be evicted now: of checkpoints that somebody holds, and of the
    /// segments in `chain`.
    pub(crate) fn held_bytes(&self, chain: &[SegmentName]) -> u64 {
        let mut seen: HashSet<SegmentName> = HashSet::new();
        let mut bytes = 0;
        let held = self.entries.values().filter(|entry| entry.pins > 0);
        let mut starts: Vec<SegmentName> = Vec::new();
        for entry in held {
            bytes += entry.manifest.file_bytes;
            starts.push(entry.last);
        }
        let pinned = self.nodes.iter().filter(|(_, node)| node.pins > 0);
        starts.extend(pinned.map(|(name, _)| *name));
        starts.extend(chain);
        for start in starts {
            for (name, node) in self.path(start) {
                if !seen.insert(name) {
                    break;
                }
                if node.on_disk {
                    bytes += node.file_bytes;
                }
            }
        }
        bytes
    }
}
