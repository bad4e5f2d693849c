//! Dense arrays by index that grow without moving, so that readers need no lock.

use std::sync::OnceLock;

/// Size of the first part; each following part doubles what there is.
const FIRST_BITS: u32 = 6;
/// Enough parts for every `u32`.
const PARTS: usize = (33 - FIRST_BITS) as usize;

/// An array indexed by `u32` whose elements never move. Grows by whole parts of doubling size, so
/// at most half of it is unused. Elements are shared; they change through atomics.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
/// let words = authcache::Segments::<AtomicU64>::new();
/// assert!(words.get(1000).is_none());
/// words.grow(1000).store(7, Ordering::Relaxed);
/// assert_eq!(words.get(1000).unwrap().load(Ordering::Relaxed), 7);
/// ```
#[derive(Debug)]
pub struct Segments<T> {
    parts: [OnceLock<Box<[T]>>; PARTS],
}

impl<T: Default> Segments<T> {
    /// An empty array.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            parts: [const { OnceLock::new() }; PARTS],
        }
    }

    /// The element at `index`, made (with its whole part) if it was not there. Any thread may
    /// grow the array.
    pub fn grow(&self, index: u32) -> &T {
        let (part, offset) = place(index);
        let part = self.parts[part].get_or_init(|| {
            std::iter::repeat_with(T::default)
                .take(1 << (part as u32 + FIRST_BITS))
                .collect()
        });
        &part[offset]
    }
}

impl<T> Segments<T> {
    /// The element at `index`, if the array reaches so far.
    #[inline]
    #[must_use]
    pub fn get(&self, index: u32) -> Option<&T> {
        let (part, offset) = place(index);
        self.parts[part].get()?.get(offset)
    }

    /// All elements that were made, in the order of their indexes.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.parts
            .iter()
            .filter_map(OnceLock::get)
            .flat_map(|part| part.iter())
    }

    /// Bytes allocated for elements.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.parts
            .iter()
            .filter_map(OnceLock::get)
            .map(|part| size_of_val(&**part))
            .sum()
    }
}

impl<T: Default> Default for Segments<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// Part and offset of an index: parts begin at 0, 64, 192, 448, …
#[inline]
const fn place(index: u32) -> (usize, usize) {
    let shifted = index as u64 + (1 << FIRST_BITS);
    let bits = shifted.ilog2();
    (
        (bits - FIRST_BITS) as usize,
        (shifted - (1 << bits)) as usize,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_has_its_own_place() {
        assert_eq!(place(0), (0, 0));
        assert_eq!(place(63), (0, 63));
        assert_eq!(place(64), (1, 0));
        assert_eq!(place(191), (1, 127));
        assert_eq!(place(192), (2, 0));
        assert_eq!(place(u32::MAX), (PARTS - 1, 63));
    }

    #[test]
    fn growing_keeps_elements_where_they_are() {
        let numbers = Segments::<std::sync::atomic::AtomicU32>::new();
        let first: *const _ = numbers.grow(3);
        for index in 0..10_000 {
            numbers
                .grow(index)
                .store(index, std::sync::atomic::Ordering::Relaxed);
        }
        assert_eq!(first, numbers.get(3).unwrap() as *const _);
        for index in 0..10_000 {
            let value = numbers
                .get(index)
                .unwrap()
                .load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(value, index);
        }
        assert!(numbers.bytes() <= 2 * 4 * 10_000 + 256);
    }
}
