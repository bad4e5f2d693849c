//! A bounded map that forgets what is old.

use std::collections::HashMap;
use std::hash::Hash;

/// Keeps every entry for at least one period and at most two, unless more than `capacity` come in a
/// period: then the older half goes early. Every operation takes constant time.
pub(crate) struct Recent<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    turned_ms: u64,
    period_ms: u64,
    capacity: usize,
}

impl<K: Hash + Eq, V> Recent<K, V> {
    pub(crate) fn new(period_ms: u64, capacity: usize) -> Recent<K, V> {
        Recent {
            young: HashMap::new(),
            old: HashMap::new(),
            turned_ms: 0,
            period_ms,
            capacity,
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K, now_ms: u64) -> Option<&mut V> {
        self.turn(now_ms);
        match self.young.get_mut(key) {
            Some(value) => Some(value),
            None => self.old.get_mut(key),
        }
    }

    pub(crate) fn insert(&mut self, key: K, value: V, now_ms: u64) {
        self.turn(now_ms);
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
            self.turned_ms = now_ms;
        }
        self.old.remove(&key);
        self.young.insert(key, value);
    }

    /// Entries that are kept, some of them too old to be given.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    fn turn(&mut self, now_ms: u64) {
        let since = now_ms.saturating_sub(self.turned_ms);
        if since < self.period_ms {
            return;
        }
        self.old = std::mem::take(&mut self.young);
        if since >= 2 * self.period_ms {
            self.old.clear();
        }
        self.turned_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_live_one_period_and_not_longer_than_two() {
        let mut recent = Recent::new(100, 10);
        recent.insert("a", 1, 50);
        assert!(recent.get_mut(&"a", 149).is_some());
        assert!(recent.get_mut(&"a", 250).is_none());
        recent.insert("b", 1, 300);
        assert!(recent.get_mut(&"b", 1_000).is_none());
    }

    #[test]
    fn the_oldest_go_first_when_too_many_come() {
        let mut recent = Recent::new(100, 10);
        for n in 0..100 {
            recent.insert(n, n, 1);
        }
        assert!(recent.get_mut(&99, 1).is_some());
        assert!(recent.get_mut(&0, 1).is_none());
        assert!(recent.len() <= 20);
    }
}
