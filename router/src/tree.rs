//! Parts shared by the trees of filters and of retained messages: interned levels and edges.

use std::collections::HashMap;

use foldhash::quality::RandomState;

/// Number of a level's text within one tree.
pub(crate) type Level = u32;
/// Number of a node within one tree. The root is 0.
pub(crate) type Node = u32;

pub(crate) const ROOT: Node = 0;
/// No node. Also what links use for "none".
pub(crate) const NONE: u32 = u32::MAX;
/// A level that no stored text has.
pub(crate) const UNKNOWN: Level = u32::MAX;

/// Texts of levels, each once, counted. The texts come from peers: the hash is keyed.
#[derive(Default)]
pub(crate) struct Levels {
    numbers: HashMap<Box<str>, Interned, RandomState>,
    free: Vec<Level>,
    next: Level,
}

struct Interned {
    level: Level,
    uses: u32,
}

impl Levels {
    /// The number of a text, [`UNKNOWN`] if it was not interned.
    pub(crate) fn find(&self, text: &str) -> Level {
        self.numbers
            .get(text)
            .map_or(UNKNOWN, |interned| interned.level)
    }

    /// The number of a text, with one more use.
    pub(crate) fn intern(&mut self, text: &str) -> Level {
        if let Some(interned) = self.numbers.get_mut(text) {
            interned.uses += 1;
            return interned.level;
        }
        let level = self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        self.numbers
            .insert(text.into(), Interned { level, uses: 1 });
        level
    }

    /// One use less.
    pub(crate) fn release(&mut self, text: &str) {
        let Some(interned) = self.numbers.get_mut(text) else {
            return;
        };
        interned.uses -= 1;
        if interned.uses == 0 {
            self.free.push(interned.level);
            self.numbers.remove(text);
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }
}

/// All edges of a tree: (node, level) to node, in one table with open addressing and linear
/// probing, at most 3/4 full. 12 bytes a slot, hence 16 to 32 per edge.
#[derive(Default)]
pub(crate) struct Edges {
    slots: Vec<Edge>,
    used: usize,
}

#[derive(Copy, Clone)]
struct Edge {
    from: Node,
    level: Level,
    to: Node,
}

impl Edges {
    pub(crate) fn get(&self, from: Node, level: Level) -> Option<Node> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = self.start(from, level);
        loop {
            let edge = self.slots[at];
            if edge.to == NONE {
                return None;
            }
            if edge.from == from && edge.level == level {
                return Some(edge.to);
            }
            at = self.after(at);
        }
    }

    /// Adds an edge that is not there yet.
    pub(crate) fn insert(&mut self, from: Node, level: Level, to: Node) {
        if (self.used + 1) * 4 > self.slots.len() * 3 {
            let size = (self.slots.len() * 2).max(16);
            let old = std::mem::replace(&mut self.slots, vec![Edge::VACANT; size]);
            for edge in old.into_iter().filter(|edge| edge.to != NONE) {
                self.place(edge);
            }
        }
        self.place(Edge { from, level, to });
        self.used += 1;
    }

    /// Removes an edge and closes the gap, so that probes stay short without tombstones.
    pub(crate) fn remove(&mut self, from: Node, level: Level) {
        if self.slots.is_empty() {
            return;
        }
        let mut gap = self.start(from, level);
        while (self.slots[gap].from, self.slots[gap].level) != (from, level) {
            if self.slots[gap].to == NONE {
                return;
            }
            gap = self.after(gap);
        }
        let mut at = gap;
        loop {
            at = self.after(at);
            let edge = self.slots[at];
            if edge.to == NONE {
                break;
            }
            // An edge may move back to the gap if that is not before the start of its probe.
            let mask = self.slots.len() - 1;
            let start = self.start(edge.from, edge.level);
            if at.wrapping_sub(start) & mask >= at.wrapping_sub(gap) & mask {
                self.slots[gap] = edge;
                gap = at;
            }
        }
        self.slots[gap] = Edge::VACANT;
        self.used -= 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.used
    }

    fn place(&mut self, edge: Edge) {
        let mut at = self.start(edge.from, edge.level);
        while self.slots[at].to != NONE {
            at = self.after(at);
        }
        self.slots[at] = edge;
    }

    /// Both numbers are our own and dense, so a plain mix spreads them.
    fn start(&self, from: Node, level: Level) -> usize {
        let key = u64::from(from) << 32 | u64::from(level);
        let mixed = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ mixed >> 32) as usize & (self.slots.len() - 1)
    }

    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.slots.len() - 1)
    }
}

impl Edge {
    const VACANT: Self = Self {
        from: NONE,
        level: NONE,
        to: NONE,
    };
}

/// Levels of a topic within its channel; none for the channel itself.
pub(crate) fn levels(text: &str) -> impl Iterator<Item = &str> {
    // By hand: levels are short, and `str::split` searches for each separator as in a long text.
    let mut rest = Some(text).filter(|text| !text.is_empty());
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(end) = text.bytes().position(|byte| byte == b'/') else {
            return rest.take();
        };
        rest = Some(&text[end + 1..]);
        Some(&text[..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn levels_are_numbered_once_and_freed() {
        let mut levels = Levels::default();
        let a = levels.intern("a");
        assert_eq!(levels.intern("a"), a);
        let b = levels.intern("b");
        assert_ne!(a, b);
        levels.release("a");
        assert_eq!(levels.find("a"), a);
        levels.release("a");
        assert_eq!(levels.find("a"), UNKNOWN);
        assert_eq!(levels.intern("c"), a);
        assert_eq!(levels.len(), 2);
    }

    proptest! {
        #[test]
        fn edges_agree_with_a_map(operations in prop::collection::vec((0u32..12, 0u32..12, any::<bool>()), 0..300)) {
            let mut edges = Edges::default();
            let mut model = HashMap::<_, _, RandomState>::default();
            for (number, (from, level, add)) in operations.into_iter().enumerate() {
                if !add {
                    edges.remove(from, level);
                    model.remove(&(from, level));
                } else {
                    model.entry((from, level)).or_insert_with(|| {
                        edges.insert(from, level, number as u32);
                        number as u32
                    });
                }
                prop_assert_eq!(edges.len(), model.len());
                for from in 0..12 {
                    for level in 0..12 {
                        prop_assert_eq!(edges.get(from, level), model.get(&(from, level)).copied());
                    }
                }
            }
        }
    }
}
