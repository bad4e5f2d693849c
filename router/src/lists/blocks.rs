//! Blocks of a power of two of entries, from chunks of 16 KiB.

use crate::entry::Entry;

/// Entries of a chunk of blocks, as a power of two.
const CHUNK: u32 = 12;

#[derive(Default)]
pub(super) struct Blocks {
    chunks: Vec<Box<[Entry]>>,
    pub(super) free: Vec<u32>,
    next: u32,
}

impl Blocks {
    pub(super) fn take(&mut self, size: u32) -> u32 {
        if let Some(block) = self.free.pop() {
            return block;
        }
        if self.next as usize >> (CHUNK - size) == self.chunks.len() {
            self.chunks.push(vec![Entry::default(); 1 << CHUNK].into());
        }
        self.next += 1;
        self.next - 1
    }

    pub(super) fn get(&self, size: u32, block: u32) -> &[Entry] {
        let (chunk, from) = Self::place(size, block);
        &self.chunks[chunk][from..from + (1 << size)]
    }

    pub(super) fn get_mut(&mut self, size: u32, block: u32) -> &mut [Entry] {
        let (chunk, from) = Self::place(size, block);
        &mut self.chunks[chunk][from..from + (1 << size)]
    }

    pub(super) const fn place(size: u32, block: u32) -> (usize, usize) {
        let per_chunk = CHUNK - size;
        (
            block as usize >> per_chunk,
            (block as usize & ((1 << per_chunk) - 1)) << size,
        )
    }

    pub(super) fn bytes(&self) -> usize {
        (self.chunks.len() << CHUNK) * size_of::<Entry>()
    }
}
