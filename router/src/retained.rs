//! Retained messages by channel and subtopic, on the channel's home shard.
//!
//! Up to 16 of a channel are a list; from the 17th on they are a tree by levels. A filter walks it
//! with a stack; nothing recurses.

use std::collections::HashMap;

use authcache::ChannelIndex;
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::filters::filter_matches;
use crate::shared::first_level;
use crate::tree::{Edges, Levels, NONE, Node, ROOT, levels};

/// Messages a channel may have before they become a tree, and when they become a list again.
const LINEAR_MAX: usize = 16;
const LINEAR_AGAIN: usize = 8;

/// The retained messages of one shard.
///
/// Per message: its subtopic, the value, and in a tree 32 bytes per level it does not share and
/// 16 to 32 for the edge.
pub struct Retained<T> {
    channels: HashMap<ChannelIndex, OfChannel<T>, FixedState>,
    weight: fn(&T) -> usize,
    len: usize,
    bytes: usize,
}

struct OfChannel<T> {
    list: Vec<Item<T>>,
    tree: Option<Box<Tree<T>>>,
}

struct Item<T> {
    subtopic: Box<str>,
    value: T,
}

struct Tree<T> {
    levels: Levels,
    edges: Edges,
    nodes: Vec<TreeNode>,
    free_nodes: Vec<Node>,
    values: Vec<Option<Item<T>>>,
    free_values: Vec<u32>,
}

#[derive(Copy, Clone)]
struct TreeNode {
    value: u32,
    parent: Node,
    /// Children are a ring-free double list: `+` and `#` walk it.
    first_child: Node,
    next: Node,
    previous: Node,
}

impl<T: Clone> Retained<T> {
    /// Nothing retained. `weight` is what a message counts in bytes.
    #[must_use]
    pub fn new(weight: fn(&T) -> usize) -> Self {
        Self {
            channels: HashMap::default(),
            weight,
            len: 0,
            bytes: 0,
        }
    }

    /// Retains a message in place of the one on the same subtopic, which is given back.
    /// [MQTT-3.3.1-5] [MQTT3-3.3.1-5] [MQTT3-3.3.1-7]
    pub fn set(&mut self, channel: ChannelIndex, subtopic: &str, value: T) -> Option<T> {
        self.bytes += (self.weight)(&value) + subtopic.len();
        self.len += 1;
        let former = self
            .channels
            .entry(channel)
            .or_default()
            .set(subtopic, value);
        self.uncount(subtopic, former)
    }

    /// Removes the message on a subtopic. [MQTT-3.3.1-6] [MQTT3-3.3.1-10]
    pub fn remove(&mut self, channel: ChannelIndex, subtopic: &str) -> Option<T> {
        let of_channel = self.channels.get_mut(&channel)?;
        let former = of_channel.remove(subtopic);
        if of_channel.len() == 0 {
            self.channels.remove(&channel);
        }
        self.uncount(subtopic, former)
    }

    /// The message on exactly this subtopic.
    #[must_use]
    pub fn get(&self, channel: ChannelIndex, subtopic: &str) -> Option<&T> {
        self.channels.get(&channel)?.get(subtopic)
    }

    /// Appends the messages of a channel whose subtopics match a filter. In `$SYS` a wildcard in
    /// the first level does not match `$…`; open namespaces have no such topics. [MQTT-4.7.2-1]
    pub fn matching(&self, channel: ChannelIndex, filter: &str, out: &mut Vec<T>) {
        let Some(of_channel) = self.channels.get(&channel) else {
            return;
        };
        match &of_channel.tree {
            Some(tree) if channel != ChannelIndex::SYS => {
                tree.matching(filter, &mut |item| out.push(item.value.clone()));
            }
            // `$SYS` is small and asked for rarely; the rule of its first level is kept in one place.
            Some(_) | None => {
                let first = first_level(channel, None);
                let matching = of_channel
                    .items()
                    .filter(|item| filter_matches(filter, &item.subtopic, first));
                out.extend(matching.map(|item| item.value.clone()));
            }
        }
    }

    /// Removes all messages of a channel that is gone.
    pub fn remove_channel(&mut self, channel: ChannelIndex) {
        if let Some(of_channel) = self.channels.remove(&channel) {
            self.len -= of_channel.len();
            for item in of_channel.items() {
                self.bytes -= (self.weight)(&item.value) + item.subtopic.len();
            }
        }
    }

    /// Removes the messages for which `gone` holds; walks all of them.
    pub fn remove_if(&mut self, gone: impl Fn(&T) -> bool) {
        let found: Vec<(ChannelIndex, Box<str>)> = self
            .iter()
            .filter(|(_, _, value)| gone(value))
            .map(|(channel, subtopic, _)| (channel, subtopic.into()))
            .collect();
        for (channel, subtopic) in found {
            self.remove(channel, &subtopic);
        }
    }

    /// Number of messages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is retained.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of messages and subtopics, by the weight given at the start.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All messages with their channels and subtopics, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (ChannelIndex, &str, &T)> {
        self.channels.iter().flat_map(|(&channel, of_channel)| {
            of_channel
                .items()
                .map(move |item| (channel, &*item.subtopic, &item.value))
        })
    }

    /// Checks the structure.
    ///
    /// # Panics
    /// If something does not fit.
    pub fn invariants(&self) {
        let len: usize = self.channels.values().map(OfChannel::len).sum();
        assert_eq!(len, self.len);
        let weight = |(_, subtopic, value): (_, &str, _)| (self.weight)(value) + subtopic.len();
        assert_eq!(self.iter().map(weight).sum::<usize>(), self.bytes);
        for of_channel in self.channels.values() {
            assert!(of_channel.len() > 0);
            if let Some(tree) = &of_channel.tree {
                tree.invariants();
            }
        }
    }

    fn uncount(&mut self, subtopic: &str, former: Option<T>) -> Option<T> {
        if let Some(former) = &former {
            self.len -= 1;
            self.bytes -= (self.weight)(former) + subtopic.len();
        }
        former
    }
}

impl<T> Default for OfChannel<T> {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            tree: None,
        }
    }
}

impl<T> OfChannel<T> {
    fn len(&self) -> usize {
        self.list.len()
            + self
                .tree
                .as_ref()
                .map_or(0, |tree| tree.values.len() - tree.free_values.len())
    }

    fn items(&self) -> impl Iterator<Item = &Item<T>> {
        self.list.iter().chain(
            self.tree
                .iter()
                .flat_map(|tree| tree.values.iter().flatten()),
        )
    }

    fn get(&self, subtopic: &str) -> Option<&T> {
        match &self.tree {
            Some(tree) => {
                let node = tree.find(subtopic)?;
                let value = tree.nodes[node as usize].value;
                tree.values
                    .get(value as usize)?
                    .as_ref()
                    .map(|item| &item.value)
            }
            None => self
                .list
                .iter()
                .find(|item| *item.subtopic == *subtopic)
                .map(|item| &item.value),
        }
    }

    fn set(&mut self, subtopic: &str, value: T) -> Option<T> {
        let item = Item {
            subtopic: subtopic.into(),
            value,
        };
        if let Some(tree) = &mut self.tree {
            return tree.set(item);
        }
        if let Some(old) = self
            .list
            .iter_mut()
            .find(|old| old.subtopic == item.subtopic)
        {
            return Some(std::mem::replace(old, item).value);
        }
        self.list.push(item);
        if self.list.len() > LINEAR_MAX {
            let mut tree = Box::new(Tree::default());
            for item in std::mem::take(&mut self.list) {
                tree.set(item);
            }
            self.tree = Some(tree);
        }
        None
    }

    fn remove(&mut self, subtopic: &str) -> Option<T> {
        let Some(tree) = &mut self.tree else {
            let at = self
                .list
                .iter()
                .position(|item| *item.subtopic == *subtopic)?;
            return Some(self.list.swap_remove(at).value);
        };
        let removed = tree.remove(subtopic);
        if tree.values.len() - tree.free_values.len() <= LINEAR_AGAIN {
            self.list = std::mem::take(&mut tree.values)
                .into_iter()
                .flatten()
                .collect();
            self.tree = None;
        }
        removed
    }
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self {
            levels: Levels::default(),
            edges: Edges::default(),
            nodes: vec![TreeNode::below(NONE, NONE)],
            free_nodes: Vec::new(),
            values: Vec::new(),
            free_values: Vec::new(),
        }
    }
}

impl TreeNode {
    const fn below(parent: Node, next: Node) -> Self {
        Self {
            value: NONE,
            parent,
            first_child: NONE,
            next,
            previous: NONE,
        }
    }
}

impl<T> Tree<T> {
    fn find(&self, subtopic: &str) -> Option<Node> {
        levels(subtopic).try_fold(ROOT, |node, level| {
            self.edges.get(node, self.levels.find(level))
        })
    }

    fn set(&mut self, item: Item<T>) -> Option<T> {
        let mut at = ROOT;
        for text in levels(&item.subtopic) {
            at = match self.edges.get(at, self.levels.find(text)) {
                Some(child) => child,
                None => self.make_child(at, text),
            };
        }
        let value = self.nodes[at as usize].value;
        if value != NONE {
            return self.values[value as usize]
                .replace(item)
                .map(|old| old.value);
        }
        self.nodes[at as usize].value = match self.free_values.pop() {
            Some(free) => {
                self.values[free as usize] = Some(item);
                free
            }
            None => {
                self.values.push(Some(item));
                (self.values.len() - 1) as u32
            }
        };
        None
    }

    fn make_child(&mut self, parent: Node, text: &str) -> Node {
        let next = self.nodes[parent as usize].first_child;
        let node = TreeNode::below(parent, next);
        let child = match self.free_nodes.pop() {
            Some(free) => {
                self.nodes[free as usize] = node;
                free
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as Node
            }
        };
        self.nodes[parent as usize].first_child = child;
        if next != NONE {
            self.nodes[next as usize].previous = child;
        }
        let level = self.levels.intern(text);
        self.edges.insert(parent, level, child);
        child
    }

    fn remove(&mut self, subtopic: &str) -> Option<T> {
        let mut at = self.find(subtopic)?;
        let value = std::mem::replace(&mut self.nodes[at as usize].value, NONE);
        let item = self.values.get_mut(value as usize)?.take()?;
        self.free_values.push(value);
        // Free what leads nowhere, upwards.
        let mut texts: SmallVec<[&str; 16]> = levels(subtopic).collect();
        while let Some(text) = texts.pop() {
            let node = self.nodes[at as usize];
            if node.value != NONE || node.first_child != NONE {
                break;
            }
            self.unlink(node);
            self.edges.remove(node.parent, self.levels.find(text));
            self.levels.release(text);
            self.free_nodes.push(at);
            at = node.parent;
        }
        Some(item.value)
    }

    fn unlink(&mut self, node: TreeNode) {
        if node.previous == NONE {
            self.nodes[node.parent as usize].first_child = node.next;
        } else {
            self.nodes[node.previous as usize].next = node.next;
        }
        if node.next != NONE {
            self.nodes[node.next as usize].previous = node.previous;
        }
    }

    fn matching<'t>(&'t self, filter: &str, found: &mut impl FnMut(&'t Item<T>)) {
        let wanted: SmallVec<[&str; 16]> = levels(filter).collect();
        let mut open: SmallVec<[(Node, u32); 32]> = SmallVec::new();
        open.push((ROOT, 0));
        while let Some((at, depth)) = open.pop() {
            match wanted.get(depth as usize) {
                None => self.give(at, found),
                Some(&"#") => {
                    self.give(at, found);
                    open.extend(self.children(at).map(|child| (child, depth)));
                }
                Some(&"+") => open.extend(self.children(at).map(|child| (child, depth + 1))),
                Some(level) => {
                    let child = self.edges.get(at, self.levels.find(level));
                    open.extend(child.map(|child| (child, depth + 1)));
                }
            }
        }
    }

    fn give<'t>(&'t self, at: Node, found: &mut impl FnMut(&'t Item<T>)) {
        let value = self.nodes[at as usize].value;
        if let Some(Some(item)) = self.values.get(value as usize) {
            found(item);
        }
    }

    fn children(&self, at: Node) -> impl Iterator<Item = Node> {
        let first = self.nodes[at as usize].first_child;
        std::iter::successors(Some(first), |&child| Some(self.nodes[child as usize].next))
            .take_while(|&child| child != NONE)
    }

    fn invariants(&self) {
        let live = self.nodes.len() - self.free_nodes.len();
        assert_eq!(
            live - 1,
            self.edges.len(),
            "each node but the root has one edge"
        );
        let mut seen = 0;
        let mut open = vec![ROOT];
        while let Some(at) = open.pop() {
            seen += 1;
            let node = self.nodes[at as usize];
            assert!(at == ROOT || node.value != NONE || node.first_child != NONE);
            for child in self.children(at) {
                assert_eq!(self.nodes[child as usize].parent, at);
                open.push(child);
            }
        }
        assert_eq!(seen, live);
    }
}

#[cfg(test)]
#[path = "retained_tests.rs"]
mod tests;
