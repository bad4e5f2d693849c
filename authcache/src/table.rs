//! The shared table: open addressing, one writer, readers that never wait.
//!
//! A bucket is one cache line: 5 slots of a 64-bit key (12 bytes each with the value), or 3 of a
//! 128-bit key. At the highest load of 3/4 that is 17 bytes per pair (28 with wide keys), twice
//! that just after growth.
//!
//! Rules that make it safe without locks:
//! - A slot's key is written once, before its value; a slot never gets another key. So a reader
//!   that sees a value (Acquire) sees the key it belongs to.
//! - Removal stores [`DEAD`]; the slot keeps its key and is taken up again by the same key.
//! - A full table is copied into a new one, without the dead, and the new one is put in place
//!   before anything is stored that it alone has. A reader that has learnt of a later store (by an
//!   epoch, by a notice) and loads the pointer afterwards therefore finds it.

use std::hash::BuildHasher;

/// Keyed at random; a model must probe the same way each time.
#[cfg(loom)]
use foldhash::quality::FixedState as HashState;
#[cfg(not(loom))]
use foldhash::quality::RandomState as HashState;

use crate::sync::{AtomicU32, AtomicU64, Ordering, Swap};

/// Rights: (principal, channel) in one word.
pub(crate) type PairTable = Table<1, 5>;
/// Ids: 128 bits in two words.
pub(crate) type IdTable = Table<2, 3>;

/// Value of a slot that was never used. A probe ends here.
const VACANT: u32 = 0;
/// Value of a slot whose key was removed. No caller stores it.
pub(crate) const DEAD: u32 = 1;

pub(crate) struct Table<const WORDS: usize, const SLOTS: usize> {
    current: Swap<Buckets<WORDS, SLOTS>>,
    hasher: HashState,
}

/// The licence to write to one table, and the writer's count of its slots.
pub(crate) struct Occupancy {
    /// Slots with a key, dead ones included.
    used: usize,
    /// Slots there are.
    slots: usize,
}

struct Buckets<const WORDS: usize, const SLOTS: usize> {
    buckets: Box<[Bucket<WORDS, SLOTS>]>,
    /// Number of buckets less one; the number is a power of two.
    mask: usize,
}

#[repr(align(64))]
struct Bucket<const WORDS: usize, const SLOTS: usize> {
    keys: [[AtomicU64; WORDS]; SLOTS],
    values: [AtomicU32; SLOTS],
}

impl<const WORDS: usize, const SLOTS: usize> Table<WORDS, SLOTS> {
    /// A table with room for `capacity` keys before it grows.
    pub(crate) fn new(capacity: usize) -> (Self, Occupancy) {
        let buckets = Buckets::with_room(capacity);
        let occupancy = Occupancy {
            used: 0,
            slots: buckets.slots(),
        };
        (
            Self {
                current: Swap::new(buckets),
                hasher: HashState::default(),
            },
            occupancy,
        )
    }

    /// The value of `key`, if it is there. One cache line in the ordinary case.
    pub(crate) fn get(&self, key: [u64; WORDS]) -> Option<u32> {
        let hash = self.hash(key);
        let value = self.current.with(|buckets| buckets.get(hash, key));
        (value > DEAD).then_some(value)
    }

    /// Stores `value` (at least 2) under `key`. When the table is full, it is replaced by one
    /// with room, into which only what `keep` approves is copied.
    pub(crate) fn set(
        &self,
        occupancy: &mut Occupancy,
        key: [u64; WORDS],
        value: u32,
        keep: impl Fn([u64; WORDS], u32) -> bool,
    ) {
        assert!(value > DEAD, "0 and 1 mark slots");
        let hash = self.hash(key);
        let known = self
            .current
            .with(|buckets| buckets.update(hash, key, value));
        if known {
            return;
        }
        if (occupancy.used + 1) * 4 > occupancy.slots * 3 {
            self.renew(occupancy, keep);
        }
        self.current
            .with(|buckets| buckets.insert(hash, key, value));
        occupancy.used += 1;
    }

    /// Removes `key`, if it is there.
    pub(crate) fn remove(&self, key: [u64; WORDS]) {
        let hash = self.hash(key);
        self.current.with(|buckets| buckets.update(hash, key, DEAD));
    }

    /// Bytes in use, without a predecessor that a reader may still look at.
    pub(crate) fn bytes(&self) -> usize {
        self.current
            .with(|buckets| buckets.buckets.len() * size_of::<Bucket<WORDS, SLOTS>>())
    }

    /// Copies what lives into a table with room for half as much again; that is twice the size, or
    /// the same if enough was dead.
    fn renew(&self, occupancy: &mut Occupancy, keep: impl Fn([u64; WORDS], u32) -> bool) {
        let old = self.current.full();
        let alive = old
            .entries()
            .filter(|&(key, value)| keep(key, value))
            .count();
        let new = Buckets::with_room(alive + alive / 2 + 1);
        for (key, value) in old.entries().filter(|&(key, value)| keep(key, value)) {
            new.insert(self.hash(key), key, value);
        }
        *occupancy = Occupancy {
            used: alive,
            slots: new.slots(),
        };
        self.current.store(new);
    }

    fn hash(&self, key: [u64; WORDS]) -> usize {
        self.hasher.hash_one(key) as usize
    }
}

impl<const WORDS: usize, const SLOTS: usize> Buckets<WORDS, SLOTS> {
    /// Enough buckets to hold `capacity` keys at a load of 3/4.
    fn with_room(capacity: usize) -> Self {
        let buckets = (capacity * 4)
            .div_ceil(SLOTS * 3)
            .max(1)
            .next_power_of_two();
        Self {
            buckets: std::iter::repeat_with(Bucket::new).take(buckets).collect(),
            mask: buckets - 1,
        }
    }

    fn slots(&self) -> usize {
        self.buckets.len() * SLOTS
    }

    fn get(&self, hash: usize, key: [u64; WORDS]) -> u32 {
        match self.find(hash, key) {
            Found::Slot(value) => value.load(Ordering::Acquire),
            Found::Vacant(..) => VACANT,
        }
    }

    /// Stores a value under a key that has a slot. False if it has none.
    fn update(&self, hash: usize, key: [u64; WORDS], value: u32) -> bool {
        match self.find(hash, key) {
            Found::Slot(slot) => {
                slot.store(value, Ordering::Release);
                true
            }
            Found::Vacant(..) => false,
        }
    }

    /// Gives a key its slot. The caller keeps a quarter of the slots vacant.
    fn insert(&self, hash: usize, key: [u64; WORDS], value: u32) {
        match self.find(hash, key) {
            Found::Slot(slot) => slot.store(value, Ordering::Release),
            Found::Vacant(bucket, slot) => {
                for (word, part) in bucket.keys[slot].iter().zip(key) {
                    word.store(part, Ordering::Relaxed);
                }
                // Publishes the key with it.
                bucket.values[slot].store(value, Ordering::Release);
            }
        }
    }

    fn find(&self, hash: usize, key: [u64; WORDS]) -> Found<'_, WORDS, SLOTS> {
        let mut at = hash;
        loop {
            let bucket = &self.buckets[at & self.mask];
            for (slot, (value, words)) in bucket.values.iter().zip(&bucket.keys).enumerate() {
                if value.load(Ordering::Acquire) == VACANT {
                    return Found::Vacant(bucket, slot);
                }
                if words
                    .iter()
                    .zip(key)
                    .all(|(word, part)| word.load(Ordering::Relaxed) == part)
                {
                    return Found::Slot(value);
                }
            }
            at = at.wrapping_add(1);
        }
    }

    fn entries(&self) -> impl Iterator<Item = ([u64; WORDS], u32)> {
        self.buckets.iter().flat_map(|bucket| {
            bucket
                .values
                .iter()
                .zip(&bucket.keys)
                .filter_map(|(value, words)| {
                    let value = value.load(Ordering::Relaxed);
                    let key = std::array::from_fn(|word| words[word].load(Ordering::Relaxed));
                    (value > DEAD).then_some((key, value))
                })
        })
    }
}

enum Found<'t, const WORDS: usize, const SLOTS: usize> {
    Slot(&'t AtomicU32),
    Vacant(&'t Bucket<WORDS, SLOTS>, usize),
}

impl<const WORDS: usize, const SLOTS: usize> Bucket<WORDS, SLOTS> {
    fn new() -> Self {
        Self {
            keys: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            values: std::array::from_fn(|_| AtomicU32::new(VACANT)),
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::HashMap;
    use std::sync::atomic::AtomicBool;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bucket_is_one_cache_line() {
        assert_eq!(size_of::<Bucket<1, 5>>(), 64);
        assert_eq!(size_of::<Bucket<2, 3>>(), 64);
    }

    #[test]
    fn pair_costs_17_bytes_at_full_load_and_34_after_growth() {
        let (table, mut occupancy) = PairTable::new(0);
        let mut most: f64 = 0.0;
        for key in 0..500_000u64 {
            table.set(&mut occupancy, [key << 32 | key], 2, |_, _| true);
            if key > 100_000 {
                most = most.max(table.bytes() as f64 / (key + 1) as f64);
            }
        }
        assert!(most < 35.0, "{most}");
        let (table, _) = PairTable::new(78_643);
        assert!(table.bytes() as f64 / 78_643.0 < 27.0);
    }

    #[test]
    fn dead_keys_do_not_make_the_table_grow_for_ever() {
        let (table, mut occupancy) = IdTable::new(100);
        for key in 0..100_000u64 {
            table.set(&mut occupancy, [key, !key], 2, |_, _| true);
            table.remove([key, !key]);
        }
        assert!(table.bytes() <= 64 * 128, "{}", table.bytes());
    }

    #[test]
    fn readers_find_every_key_while_the_table_grows() {
        const KEYS: u64 = 20_000;
        let (table, mut occupancy) = PairTable::new(4);
        table.set(&mut occupancy, [0], 2, |_, _| true);
        let done = AtomicBool::new(false);
        let grown = AtomicU64::new(1);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut rounds = 0u64;
                    while !done.load(Ordering::Acquire) {
                        let known = grown.load(Ordering::Acquire);
                        let key = rounds.wrapping_mul(0x9e37_79b9) % known;
                        assert_eq!(table.get([key]), Some(key as u32 + 2));
                        rounds += 1;
                    }
                });
            }
            for key in 1..KEYS {
                table.set(&mut occupancy, [key], key as u32 + 2, |_, _| true);
                grown.store(key + 1, Ordering::Release);
            }
            done.store(true, Ordering::Release);
        });
    }

    proptest! {
        #[test]
        fn table_agrees_with_a_map_under_growth(
            operations in prop::collection::vec((0u64..200, prop::option::of(2u32..)), 0..600),
        ) {
            let (pairs, mut pair_occupancy) = PairTable::new(0);
            let (ids, mut id_occupancy) = IdTable::new(0);
            let mut model = HashMap::new();
            for (key, value) in operations {
                match value {
                    Some(value) => {
                        pairs.set(&mut pair_occupancy, [key], value, |_, _| true);
                        ids.set(&mut id_occupancy, [7, key], value, |_, _| true);
                        model.insert(key, value);
                    }
                    None => {
                        pairs.remove([key]);
                        ids.remove([7, key]);
                        model.remove(&key);
                    }
                }
            }
            for key in 0..200 {
                prop_assert_eq!(pairs.get([key]), model.get(&key).copied());
                prop_assert_eq!(ids.get([7, key]), model.get(&key).copied());
                prop_assert_eq!(ids.get([key, 7]), None.or(model.get(&7).copied().filter(|_| key == 7)));
            }
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::*;
    use crate::epoch::EpochCell;
    use loom::sync::Arc;
    use loom::thread;

    /// The smallest table: one bucket, two slots of which are used before it grows.
    fn small() -> (Arc<Table<1, 3>>, Occupancy) {
        let buckets = Buckets {
            buckets: [Bucket::new()].into(),
            mask: 0,
        };
        let occupancy = Occupancy { used: 0, slots: 3 };
        let table = Table {
            current: Swap::new(buckets),
            hasher: HashState::default(),
        };
        (Arc::new(table), occupancy)
    }

    #[test]
    fn reader_sees_a_key_with_its_own_value_or_not_at_all() {
        loom::model(|| {
            let (table, mut occupancy) = small();
            let reader = {
                let table = Arc::clone(&table);
                thread::spawn(move || {
                    // A value seen before its key would seem to belong to key 0.
                    assert_eq!(table.get([0]), None);
                    assert!(matches!(table.get([1]), None | Some(11)));
                    assert!(matches!(table.get([2]), None | Some(22)));
                })
            };
            table.set(&mut occupancy, [1], 11, |_, _| true);
            table.set(&mut occupancy, [2], 22, |_, _| true);
            reader.join().unwrap();
            assert_eq!((table.get([1]), table.get([2])), (Some(11), Some(22)));
        });
    }

    #[test]
    fn reader_that_sees_the_new_epoch_sees_the_revoked_right() {
        loom::model(|| {
            let (table, mut occupancy) = small();
            table.set(&mut occupancy, [1], 11, |_, _| true);
            let epoch = Arc::new(EpochCell::default());
            let reader = {
                let (table, epoch) = (Arc::clone(&table), Arc::clone(&epoch));
                thread::spawn(move || {
                    let seen = epoch.now().get();
                    let right = table.get([1]);
                    assert!(seen == 0 || right == Some(99), "{seen} {right:?}");
                    // The stamp that would be kept is not newer than the right.
                })
            };
            table.set(&mut occupancy, [1], 99, |_, _| true);
            epoch.bump();
            reader.join().unwrap();
        });
    }

    #[test]
    fn revocation_after_growth_is_seen_with_its_epoch() {
        loom::model(|| {
            let (table, mut occupancy) = small();
            table.set(&mut occupancy, [1], 11, |_, _| true);
            table.set(&mut occupancy, [2], 22, |_, _| true);
            let epoch = Arc::new(EpochCell::default());
            let reader = {
                let (table, epoch) = (Arc::clone(&table), Arc::clone(&epoch));
                thread::spawn(move || {
                    let seen = epoch.now().get();
                    let right = table.get([1]);
                    assert!(matches!(right, Some(11 | 99)), "a key is never lost");
                    assert!(seen == 0 || right == Some(99));
                })
            };
            // The third key does not fit: a new table takes the place of the old one.
            table.set(&mut occupancy, [3], 33, |_, _| true);
            table.set(&mut occupancy, [1], 99, |_, _| true);
            epoch.bump();
            reader.join().unwrap();
        });
    }

    #[test]
    fn removed_key_stays_removed_and_comes_back_whole() {
        loom::model(|| {
            let (table, mut occupancy) = small();
            table.set(&mut occupancy, [1], 11, |_, _| true);
            let reader = {
                let table = Arc::clone(&table);
                thread::spawn(move || assert!(matches!(table.get([1]), None | Some(11 | 12))))
            };
            table.remove([1]);
            table.set(&mut occupancy, [1], 12, |_, _| true);
            reader.join().unwrap();
            assert_eq!(table.get([1]), Some(12));
        });
    }
}
