//! A map from topic filters to values that finds all values whose filter matches a topic.
//!
//! Up to 16 filters are a list that is compared one by one (about 6 ns each, all in one place).
//! From the 17th on they are a tree: levels are interned, all edges lie in one table, a node knows
//! its `+` child and its `#` value. Matching is a loop over a stack of nodes with at most two
//! probes per level and live branch; nothing recurses.
//!
//! Cost of a filter in the tree: 24 bytes per node it does not share, 16 to 32 per edge, its value,
//! and the text of levels seen for the first time.

use smallvec::SmallVec;

use crate::tree::{Edges, Levels, NONE, Node, ROOT, UNKNOWN, levels};

/// Filters a list may have before it becomes a tree.
const LINEAR_MAX: usize = 16;
/// Filters at which a tree becomes a list again; lower, so that churn does not rebuild each time.
const LINEAR_AGAIN: usize = 8;

pub(crate) struct Filters<V> {
    /// Filters and values, while there are few.
    list: Vec<(Box<str>, V)>,
    tree: Option<Box<Tree<V>>>,
}

struct Tree<V> {
    levels: Levels,
    edges: Edges,
    nodes: Vec<TreeNode>,
    free_nodes: Vec<Node>,
    /// The filter is kept beside the value for the way back to a list.
    values: Vec<Option<(Box<str>, V)>>,
    free_values: Vec<u32>,
}

#[derive(Copy, Clone)]
struct TreeNode {
    /// Value of the filter that ends here.
    exact: u32,
    /// Value of the filter that ends in `#` below.
    multi: u32,
    /// Child for `+`.
    single: Node,
    parent: Node,
    /// Children, `+` included.
    children: u32,
    /// Whether it is its parent's `+` child.
    is_single: bool,
}

impl TreeNode {
    const fn below(parent: Node, is_single: bool) -> Self {
        Self {
            exact: NONE,
            multi: NONE,
            single: NONE,
            parent,
            children: 0,
            is_single,
        }
    }

    const fn is_empty(&self) -> bool {
        self.exact == NONE && self.multi == NONE && self.children == 0
    }
}

/// Whether wildcards in the first level match a level that begins with `$`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstLevel {
    /// The text is a part of a topic: its first level is not the topic's.
    Inner,
    /// The text is a whole topic: they do not. [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
    OfTopic,
}

impl<V> Default for Filters<V> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            tree: None,
        }
    }
}

impl<V> Filters<V> {
    pub(crate) fn len(&self) -> usize {
        match &self.tree {
            Some(tree) => tree.len(),
            None => self.list.len(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of exactly this filter. [MQTT-3.10.4-1] [MQTT3-3.10.4-1]
    pub(crate) fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        match &mut self.tree {
            Some(tree) => tree.get_mut(filter),
            None => self
                .list
                .iter_mut()
                .find(|(other, _)| **other == *filter)
                .map(|(_, value)| value),
        }
    }

    /// The value of a filter, made if it is new.
    pub(crate) fn get_or_insert_with(&mut self, filter: &str, make: impl FnOnce() -> V) -> &mut V {
        if self.tree.is_none() && self.list.len() >= LINEAR_MAX && self.get_mut(filter).is_none() {
            let mut tree = Box::new(Tree::default());
            for (filter, value) in std::mem::take(&mut self.list) {
                tree.get_or_insert_with(&filter, || value);
            }
            self.tree = Some(tree);
        }
        if let Some(tree) = &mut self.tree {
            return tree.get_or_insert_with(filter, make);
        }
        let at = self
            .list
            .iter()
            .position(|(other, _)| **other == *filter)
            .unwrap_or_else(|| {
                self.list.push((filter.into(), make()));
                self.list.len() - 1
            });
        &mut self.list[at].1
    }

    pub(crate) fn remove(&mut self, filter: &str) -> Option<V> {
        let Some(tree) = &mut self.tree else {
            let at = self.list.iter().position(|(other, _)| **other == *filter)?;
            return Some(self.list.swap_remove(at).1);
        };
        let removed = tree.remove(filter)?;
        if tree.len() <= LINEAR_AGAIN {
            self.list = std::mem::take(&mut tree.values)
                .into_iter()
                .flatten()
                .collect();
            self.tree = None;
        }
        Some(removed)
    }

    /// Calls `found` with each value whose filter matches the topic.
    pub(crate) fn matching<'f>(
        &'f self,
        topic: &str,
        first: FirstLevel,
        mut found: impl FnMut(&'f V),
    ) {
        match &self.tree {
            Some(tree) => tree.matching(topic, first, found),
            None => {
                for (filter, value) in &self.list {
                    if filter_matches(filter, topic, first) {
                        found(value);
                    }
                }
            }
        }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = (&str, &V)> {
        let tree = self
            .tree
            .iter()
            .flat_map(|tree| tree.values.iter().flatten());
        self.list
            .iter()
            .chain(tree)
            .map(|(filter, value)| (&**filter, value))
    }

    /// Panics if something inside does not fit.
    pub(crate) fn invariants(&self) {
        if let Some(tree) = &self.tree {
            assert!(self.list.is_empty() && tree.len() > LINEAR_AGAIN);
            tree.invariants();
        } else {
            assert!(self.list.len() <= LINEAR_MAX);
        }
    }
}

impl<V> Default for Tree<V> {
    fn default() -> Self {
        Self {
            levels: Levels::default(),
            edges: Edges::default(),
            nodes: vec![TreeNode::below(NONE, false)],
            free_nodes: Vec::new(),
            values: Vec::new(),
            free_values: Vec::new(),
        }
    }
}

impl<V> Tree<V> {
    fn len(&self) -> usize {
        self.values.len() - self.free_values.len()
    }

    fn get_mut(&mut self, filter: &str) -> Option<&mut V> {
        let (node, multi) = self.find(filter)?;
        let node = &self.nodes[node as usize];
        let value = if multi { node.multi } else { node.exact };
        let value = self.values.get_mut(value as usize)?;
        value.as_mut().map(|(_, value)| value)
    }

    fn get_or_insert_with(&mut self, filter: &str, make: impl FnOnce() -> V) -> &mut V {
        let (node, multi) = self.grow(filter);
        let node = &mut self.nodes[node as usize];
        let place = if multi {
            &mut node.multi
        } else {
            &mut node.exact
        };
        if *place == NONE {
            let value = Some((filter.into(), make()));
            *place = match self.free_values.pop() {
                Some(at) => {
                    self.values[at as usize] = value;
                    at
                }
                None => {
                    self.values.push(value);
                    (self.values.len() - 1) as u32
                }
            };
        }
        let value = self.values[*place as usize].as_mut();
        &mut value.expect("a node names a value that is there").1
    }

    fn remove(&mut self, filter: &str) -> Option<V> {
        let (at, multi) = self.find(filter)?;
        let node = &mut self.nodes[at as usize];
        let place = if multi {
            &mut node.multi
        } else {
            &mut node.exact
        };
        let value = std::mem::replace(place, NONE);
        let (filter, removed) = self.values.get_mut(value as usize)?.take()?;
        self.free_values.push(value);
        self.prune(at, &filter, multi);
        Some(removed)
    }

    /// Frees nodes that lead nowhere, from the end of a removed filter towards the root.
    fn prune(&mut self, mut at: Node, filter: &str, multi: bool) {
        let mut upwards = levels(filter).collect::<SmallVec<[&str; 16]>>();
        if multi {
            upwards.pop();
        }
        while at != ROOT && self.nodes[at as usize].is_empty() {
            let Some(level) = upwards.pop() else { return };
            let node = self.nodes[at as usize];
            if node.is_single {
                self.nodes[node.parent as usize].single = NONE;
            } else {
                self.edges.remove(node.parent, self.levels.find(level));
                self.levels.release(level);
            }
            self.nodes[node.parent as usize].children -= 1;
            self.free_nodes.push(at);
            at = node.parent;
        }
    }

    /// The node at which a filter ends, and whether it ends in `#`.
    fn find(&self, filter: &str) -> Option<(Node, bool)> {
        let mut node = ROOT;
        for level in levels(filter) {
            node = match level {
                "#" => return Some((node, true)),
                "+" => Some(self.nodes[node as usize].single).filter(|&node| node != NONE)?,
                _ => self.edges.get(node, self.levels.find(level))?,
            };
        }
        Some((node, false))
    }

    /// As [`Tree::find`], making what is missing.
    fn grow(&mut self, filter: &str) -> (Node, bool) {
        let mut at = ROOT;
        for level in levels(filter) {
            at = match level {
                "#" => return (at, true),
                "+" if self.nodes[at as usize].single != NONE => self.nodes[at as usize].single,
                "+" => {
                    let child = self.make_node(at, true);
                    self.nodes[at as usize].single = child;
                    child
                }
                _ => match self.edges.get(at, self.levels.find(level)) {
                    Some(child) => child,
                    None => {
                        let child = self.make_node(at, false);
                        let level = self.levels.intern(level);
                        self.edges.insert(at, level, child);
                        child
                    }
                },
            };
        }
        (at, false)
    }

    fn make_node(&mut self, parent: Node, is_single: bool) -> Node {
        self.nodes[parent as usize].children += 1;
        let node = TreeNode::below(parent, is_single);
        match self.free_nodes.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as Node
            }
        }
    }

    fn matching<'f>(&'f self, topic: &str, first: FirstLevel, mut found: impl FnMut(&'f V)) {
        let topic_levels: SmallVec<[u32; 16]> =
            levels(topic).map(|level| self.levels.find(level)).collect();
        let guarded = first == FirstLevel::OfTopic && topic.starts_with('$');
        let mut open: SmallVec<[(Node, u32); 16]> = SmallVec::new();
        open.push((ROOT, 0));
        let mut found = |value: u32| {
            if let Some(Some((_, value))) = self.values.get(value as usize) {
                found(value);
            }
        };
        while let Some((at, depth)) = open.pop() {
            let node = &self.nodes[at as usize];
            let wildcards = !(guarded && at == ROOT);
            if wildcards {
                // `#` includes its parent level.
                found(node.multi);
            }
            let Some(&level) = topic_levels.get(depth as usize) else {
                found(node.exact);
                continue;
            };
            if wildcards && node.single != NONE {
                open.push((node.single, depth + 1));
            }
            if level != UNKNOWN
                && let Some(child) = self.edges.get(at, level)
            {
                open.push((child, depth + 1));
            }
        }
    }

    fn invariants(&self) {
        let live = self.nodes.len() - self.free_nodes.len();
        let freed: std::collections::HashSet<_> = self.free_nodes.iter().collect();
        let singles = self.nodes.iter().enumerate();
        let singles = singles
            .filter(|(at, node)| !freed.contains(&(*at as u32)) && node.is_single)
            .count();
        assert_eq!(
            live - 1,
            self.edges.len() + singles,
            "each node but the root has one edge"
        );
        assert!(self.levels.len() <= self.edges.len());
        for (at, node) in self.nodes.iter().enumerate().skip(1) {
            assert!(
                freed.contains(&(at as u32)) || !node.is_empty(),
                "no node leads nowhere"
            );
        }
    }
}

/// Whether a valid filter matches a valid topic (MQTT 5, 4.7.1), byte by byte: what both have in
/// common, then the wildcard that ended it. A topic has no wildcards, so none is overlooked.
pub(crate) fn filter_matches(filter: &str, topic: &str, first: FirstLevel) -> bool {
    if first == FirstLevel::OfTopic && topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.as_bytes(), topic.as_bytes());
    if filter.is_empty() || topic.is_empty() {
        // Without a level.
        return filter == b"#" || filter == topic;
    }
    loop {
        let common = common_prefix(filter, topic);
        (filter, topic) = (&filter[common..], &topic[common..]);
        match filter {
            [] => return topic.is_empty(),
            [b'+', behind @ ..] => {
                let level = topic.iter().position(|byte| *byte == b'/');
                (filter, topic) = (behind, &topic[level.unwrap_or(topic.len())..]);
            }
            [b'#', ..] => return true,
            // `#` includes its parent level.
            _ => return topic.is_empty() && filter == b"/#",
        }
    }
}

/// Bytes that two texts have in common from their start, compared eight at a time.
#[inline]
fn common_prefix(one: &[u8], other: &[u8]) -> usize {
    let (one_words, other_words) = (one.as_chunks::<8>().0, other.as_chunks::<8>().0);
    let mut common = 0;
    for (one, other) in one_words.iter().zip(other_words) {
        let differs = u64::from_le_bytes(*one) ^ u64::from_le_bytes(*other);
        if differs != 0 {
            return common + differs.trailing_zeros() as usize / 8;
        }
        common += 8;
    }
    let rest = one[common..].iter().zip(&other[common..]);
    common + rest.take_while(|(one, other)| one == other).count()
}

#[cfg(test)]
#[path = "filters_tests.rs"]
mod tests;
