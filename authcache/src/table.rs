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

use foldhash::quality::RandomState;

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
    hasher: RandomState,
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
                hasher: RandomState::default(),
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

    /// Copies what lives into a table that is at most half as full as allowed.
    fn renew(&self, occupancy: &mut Occupancy, keep: impl Fn([u64; WORDS], u32) -> bool) {
        let old = self.current.full();
        let alive = old
            .entries()
            .filter(|&(key, value)| keep(key, value))
            .count();
        let new = Buckets::with_room(alive * 2 + 1);
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
