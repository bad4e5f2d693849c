//! Where slots stand in a list of more than 256 entries.

use crate::entry::{Entry, SlotId};

/// Where each slot stands in a wide list: open addressing, 4 bytes a place, 3/8 to 3/4 full.
#[derive(Default)]
pub(super) struct Positions(pub(super) Vec<u32>);

impl Positions {
    const VACANT: u32 = u32::MAX;

    pub(super) fn find(&self, entries: &[Entry], slot: SlotId) -> Option<usize> {
        let mut place = self.start(slot);
        while self.0[place] != Self::VACANT {
            let at = self.0[place] as usize;
            if entries[at].slot() == slot {
                return Some(at);
            }
            place = self.after(place);
        }
        None
    }

    /// The place that holds position `at`, which is there.
    pub(super) fn place(&self, entries: &[Entry], at: usize) -> usize {
        let mut place = self.start(entries[at].slot());
        while self.0[place] as usize != at {
            place = self.after(place);
        }
        place
    }

    /// Notes the entry at `at`, which was just added.
    pub(super) fn insert(&mut self, entries: &[Entry], at: usize) {
        if entries.len() * 4 > self.0.len() * 3 {
            self.rebuild(entries, entries.len() * 2);
        } else {
            self.note(entries[at].slot(), at);
        }
    }

    /// Forgets the entry at `at` and closes the gap.
    pub(super) fn remove(&mut self, entries: &[Entry], at: usize) {
        let mut gap = self.place(entries, at);
        let mut place = gap;
        let mask = self.0.len() - 1;
        loop {
            place = self.after(place);
            let at = self.0[place];
            if at == Self::VACANT {
                break;
            }
            let start = self.start(entries[at as usize].slot());
            if place.wrapping_sub(start) & mask >= place.wrapping_sub(gap) & mask {
                self.0[gap] = at;
                gap = place;
            }
        }
        self.0[gap] = Self::VACANT;
    }

    pub(super) fn rebuild(&mut self, entries: &[Entry], room: usize) {
        self.0 = vec![Self::VACANT; (room * 4 / 3 + 1).next_power_of_two() / 2];
        if entries.len() * 4 > self.0.len() * 3 {
            self.0 = vec![Self::VACANT; self.0.len() * 2];
        }
        for (at, entry) in entries.iter().enumerate() {
            self.note(entry.slot(), at);
        }
    }

    pub(super) fn note(&mut self, slot: SlotId, at: usize) {
        let mut place = self.start(slot);
        while self.0[place] != Self::VACANT {
            place = self.after(place);
        }
        self.0[place] = at as u32;
    }

    /// Slots are our own dense numbers: a plain mix spreads them.
    pub(super) fn start(&self, slot: SlotId) -> usize {
        let mixed = u64::from(slot.get()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as usize & (self.0.len() - 1)
    }

    pub(super) fn after(&self, place: usize) -> usize {
        (place + 1) & (self.0.len() - 1)
    }
}
