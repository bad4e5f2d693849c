//! Subscriber lists by channel: live entries first, dormant ones behind.
//!
//! A list has a head of 16 bytes. Up to three entries are in the head itself; up to 256 are in a
//! block of a power of two of entries; more are in a vector with a map of positions:
//!
//! | entries | bytes per entry |
//! | ---: | --- |
//! | 1 / 2 / 3 | 16 / 8 / 5.3 |
//! | 4 / 5 / 8 / 9 | 8 / 9.6 / 6 / 8.9 |
//! | 10 | 8 |
//! | 256 | 4.1 |
//! | above | 4 to 8 for the vector and 5.3 to 10.7 for its positions |
//!
//! Blocks come from chunks of 16 KiB per size; removal of a channel gives its block back.

mod blocks;
mod positions;

use blocks::Blocks;
use positions::Positions;

use crate::entry::{Entry, SlotId};
use crate::heads::Heads;
use authcache::ChannelIndex;

/// Entries of the smallest and the largest block, as powers of two.
const SMALLEST: u32 = 2;
const LARGEST: u32 = 8;
/// A vector with this many entries or fewer becomes a block again.
const WIDE_MIN: usize = 160;

/// The lists of one shard.
#[derive(Default)]
pub(crate) struct Lists {
    heads: Heads,
    blocks: [Blocks; (LARGEST - SMALLEST + 1) as usize],
    wide: Vec<Wide>,
    free_wide: Vec<u32>,
}

/// A list as a reader sees it.
#[derive(Copy, Clone)]
pub(crate) struct View<'a> {
    pub(crate) entries: &'a [Entry],
    pub(crate) live: usize,
    /// Whether some entry is `filtered`; may be true for dormant ones alone.
    pub(crate) filtered: bool,
    /// Whether some entry is `bare`; may be true for dormant ones alone.
    pub(crate) bare: bool,
}

impl<'a> View<'a> {
    pub(crate) fn live(&self) -> &'a [Entry] {
        &self.entries[..self.live]
    }
}

/// Head of a list. Layout of the first word: 3 bits of form (0 to 3: that many entries inline,
/// 4: block, 5: wide), 1 bit "judged", then
/// - inline: 2 bits of live entries and 26 bits of the stamp; words 1 to 3 are the entries.
/// - block: 4 bits of size; word 1 is number and live entries, word 2 the block, word 3 the stamp.
/// - wide: nothing; word 1 is its place.
///
/// The 26 bits of an inline stamp repeat after 67 million bumps of the domain's epoch. A list of
/// three that nobody has published to in all that time is then taken for judged once.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Head {
    first: u32,
    /// Entries, or numbers in their clothes: safe code cannot see one memory as both.
    words: [Entry; 3],
}

const FORM: u32 = 0b111;
const BLOCK: u32 = 4;
const WIDE: u32 = 5;
const JUDGED: u32 = 1 << 3;
const LIVE_SHIFT: u32 = 4;
const SIZE_SHIFT: u32 = 4;
const STAMP_SHIFT: u32 = 6;

impl Head {
    pub(crate) const fn is_empty(&self) -> bool {
        self.first & FORM == 0
    }

    const fn of([first, second, third, fourth]: [u32; 4]) -> Self {
        let words = [
            Entry::from_bits(second),
            Entry::from_bits(third),
            Entry::from_bits(fourth),
        ];
        Self { first, words }
    }

    const fn numbers(&self) -> [u32; 4] {
        let [second, third, fourth] = self.words;
        [self.first, second.bits(), third.bits(), fourth.bits()]
    }

    fn set(&mut self, word: usize, number: u32) {
        self.words[word - 1] = Entry::from_bits(number);
    }

    const fn get(&self, word: usize) -> u32 {
        self.words[word - 1].bits()
    }
}

/// More than 256 entries.
#[derive(Default)]
struct Wide {
    entries: Vec<Entry>,
    live: usize,
    stamp: u32,
    filtered: u32,
    bare: u32,
    positions: Positions,
}

/// The entries of a list, to be rearranged.
struct Arrangement<'a> {
    entries: &'a mut [Entry],
    positions: Option<&'a mut Positions>,
}

impl Lists {
    pub(crate) fn view(&self, channel: ChannelIndex) -> Option<View<'_>> {
        let head = self.heads.get(channel)?;
        Some(self.view_of(head))
    }

    /// Where a slot stands, and its entry.
    pub(crate) fn find(&self, channel: ChannelIndex, slot: SlotId) -> Option<(usize, Entry)> {
        let head = self.heads.get(channel)?;
        let entries = self.view_of(head).entries;
        let at = match head.first & FORM {
            WIDE => self.wide[head.get(1) as usize]
                .positions
                .find(entries, slot)?,
            _ => entries.iter().position(|entry| entry.slot() == slot)?,
        };
        Some((at, entries[at]))
    }

    pub(crate) fn is_live(&self, channel: ChannelIndex, slot: SlotId) -> bool {
        let live = self.view(channel).map_or(0, |view| view.live);
        self.find(channel, slot).is_some_and(|(at, _)| at < live)
    }

    /// Whether the list was judged at this stamp. An absent list was.
    pub(crate) fn is_judged(&self, channel: ChannelIndex, stamp: u32) -> bool {
        let Some(head) = self.heads.get(channel) else {
            return true;
        };
        let same = match head.first & FORM {
            BLOCK => head.get(3) == stamp,
            WIDE => self.wide[head.get(1) as usize].stamp == stamp,
            _ => head.first >> STAMP_SHIFT == stamp & (u32::MAX >> STAMP_SHIFT),
        };
        same && head.first & JUDGED != 0
    }

    /// Judges all entries, dormant ones too, and stamps the list.
    pub(crate) fn judge(
        &mut self,
        channel: ChannelIndex,
        stamp: u32,
        mut may: impl FnMut(SlotId) -> bool,
    ) {
        let Some(mut head) = self.heads.get(channel).copied() else {
            return;
        };
        let mut list = self.arrangement(&mut head);
        let mut live = 0;
        for at in 0..list.entries.len() {
            if may(list.entries[at].slot()) {
                list.swap(live, at);
                live += 1;
            }
        }
        self.set_live_count(&mut head, live);
        self.set_stamp(&mut head, stamp);
        self.heads.put(channel, head);
    }

    /// The next route judges the list again.
    pub(crate) fn unjudge(&mut self, channel: ChannelIndex) {
        if let Some(mut head) = self.heads.get(channel).copied() {
            head.first &= !JUDGED;
            self.heads.put(channel, head);
        }
    }

    /// Adds an entry whose slot is not in the list, as a live one.
    pub(crate) fn insert(&mut self, channel: ChannelIndex, entry: Entry) {
        let mut head = self.heads.get(channel).copied().unwrap_or_default();
        let live = self.view_of(&head).live;
        self.push(&mut head, entry);
        let mut list = self.arrangement(&mut head);
        let last = list.entries.len() - 1;
        list.swap(live, last);
        self.set_live_count(&mut head, live + 1);
        self.heads.put(channel, head);
    }

    /// Puts another entry of the same slot in its place.
    pub(crate) fn replace(&mut self, channel: ChannelIndex, at: usize, entry: Entry) {
        let Some(mut head) = self.heads.get(channel).copied() else {
            return;
        };
        if head.first & FORM == WIDE {
            let wide = &mut self.wide[head.get(1) as usize];
            wide.count(wide.entries[at], u32::wrapping_sub);
            wide.count(entry, u32::wrapping_add);
        }
        self.arrangement(&mut head).entries[at] = entry;
        self.heads.put(channel, head);
    }

    /// Moves an entry to the live or the dormant part.
    pub(crate) fn set_live(&mut self, channel: ChannelIndex, slot: SlotId, on: bool) {
        let Some((at, _)) = self.find(channel, slot) else {
            return;
        };
        let Some(mut head) = self.heads.get(channel).copied() else {
            return;
        };
        let live = self.view_of(&head).live;
        let mut list = self.arrangement(&mut head);
        if on && at >= live {
            list.swap(at, live);
            self.set_live_count(&mut head, live + 1);
        } else if !on && at < live {
            list.swap(at, live - 1);
            self.set_live_count(&mut head, live - 1);
        }
        self.heads.put(channel, head);
    }

    pub(crate) fn remove(&mut self, channel: ChannelIndex, slot: SlotId) -> Option<Entry> {
        self.set_live(channel, slot, false);
        let (at, entry) = self.find(channel, slot)?;
        let mut head = *self.heads.get(channel)?;
        let mut list = self.arrangement(&mut head);
        let last = list.entries.len() - 1;
        list.swap(at, last);
        self.pop(&mut head);
        if head.is_empty() {
            self.heads.remove(channel)
        } else {
            self.heads.put(channel, head)
        }
        Some(entry)
    }

    /// Drops a whole list and tells who was in it.
    pub(crate) fn remove_channel(&mut self, channel: ChannelIndex) -> Vec<SlotId> {
        let entries = self.view(channel).map_or(&[][..], |view| view.entries);
        let slots: Vec<SlotId> = entries.iter().map(|entry| entry.slot()).collect();
        for &slot in &slots {
            self.remove(channel, slot);
        }
        slots
    }

    pub(crate) fn channels(&self) -> impl Iterator<Item = ChannelIndex> {
        self.heads.channels()
    }

    /// Bytes allocated.
    pub(crate) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(Blocks::bytes).sum();
        let wide: usize = self
            .wide
            .iter()
            .map(|wide| 4 * (wide.entries.capacity() + wide.positions.0.len()))
            .sum();
        self.heads.bytes() + blocks + wide
    }

    fn view_of<'a>(&'a self, head: &'a Head) -> View<'a> {
        let [first, second, third, _] = head.numbers();
        match first & FORM {
            BLOCK => {
                let (count, live) = ((second & 0xffff) as usize, (second >> 16) as usize);
                let size = first >> SIZE_SHIFT & 0xf;
                View::scan(&self.blocks[class(size)].get(size, third)[..count], live)
            }
            WIDE => {
                let wide = &self.wide[second as usize];
                View {
                    entries: &wide.entries,
                    live: wide.live,
                    filtered: wide.filtered > 0,
                    bare: wide.bare > 0,
                }
            }
            count => {
                let live = first >> LIVE_SHIFT & 0b11;
                View::scan(&head.words[..count as usize], live as usize)
            }
        }
    }

    fn arrangement<'a>(&'a mut self, head: &'a mut Head) -> Arrangement<'a> {
        let [first, second, third, _] = head.numbers();
        match first & FORM {
            BLOCK => {
                let size = first >> SIZE_SHIFT & 0xf;
                let entries = self.blocks[class(size)].get_mut(size, third);
                let count = (second & 0xffff) as usize;
                Arrangement {
                    entries: &mut entries[..count],
                    positions: None,
                }
            }
            WIDE => {
                let wide = &mut self.wide[second as usize];
                Arrangement {
                    entries: &mut wide.entries,
                    positions: Some(&mut wide.positions),
                }
            }
            count => Arrangement {
                entries: &mut head.words[..count as usize],
                positions: None,
            },
        }
    }

    fn set_live_count(&mut self, head: &mut Head, live: usize) {
        match head.first & FORM {
            BLOCK => head.set(1, head.get(1) & 0xffff | (live as u32) << 16),
            WIDE => self.wide[head.get(1) as usize].live = live,
            _ => head.first = head.first & !(0b11 << LIVE_SHIFT) | (live as u32) << LIVE_SHIFT,
        }
    }

    fn set_stamp(&mut self, head: &mut Head, stamp: u32) {
        head.first |= JUDGED;
        match head.first & FORM {
            BLOCK => head.set(3, stamp),
            WIDE => self.wide[head.get(1) as usize].stamp = stamp,
            _ => {
                let rest = head.first & ((1 << STAMP_SHIFT) - 1);
                head.first = rest | stamp << STAMP_SHIFT;
            }
        }
    }

    /// Adds an entry behind all others.
    fn push(&mut self, head: &mut Head, entry: Entry) {
        let count = self.view_of(head).entries.len();
        match head.first & FORM {
            BLOCK => {
                let size = head.first >> SIZE_SHIFT & 0xf;
                if count < 1 << size {
                    head.set(1, head.get(1) + 1);
                    self.blocks[class(size)].get_mut(size, head.get(2))[count] = entry;
                } else if size < LARGEST {
                    self.move_to_block(head, size + 1);
                    self.push(head, entry);
                } else {
                    self.move_to_wide(head);
                    self.push(head, entry);
                }
            }
            WIDE => {
                let wide = &mut self.wide[head.get(1) as usize];
                wide.entries.push(entry);
                wide.count(entry, u32::wrapping_add);
                wide.positions.insert(&wide.entries, count);
            }
            3 => {
                self.move_to_block(head, SMALLEST);
                self.push(head, entry);
            }
            _ => {
                head.first += 1;
                head.words[count] = entry;
            }
        }
    }

    /// Removes the entry behind all others, which is dormant.
    fn pop(&mut self, head: &mut Head) {
        let count = self.view_of(head).entries.len() - 1;
        match head.first & FORM {
            BLOCK => {
                head.set(1, head.get(1) - 1);
                let size = head.first >> SIZE_SHIFT & 0xf;
                if size == SMALLEST && count <= 1 {
                    self.move_to_inline(head);
                } else if size > SMALLEST && count * 8 <= 3 << size {
                    self.move_to_block(head, size - 1);
                }
            }
            WIDE => {
                let wide = &mut self.wide[head.get(1) as usize];
                wide.positions.remove(&wide.entries, count);
                if let Some(entry) = wide.entries.pop() {
                    wide.count(entry, u32::wrapping_sub);
                }
                if count <= WIDE_MIN {
                    self.move_to_block(head, LARGEST);
                }
            }
            _ => head.first -= 1,
        }
    }

    /// Copies a list into a block of `1 << size` entries.
    fn move_to_block(&mut self, head: &mut Head, size: u32) {
        let (entries, state) = self.take(head);
        let block = self.blocks[class(size)].take(size);
        self.blocks[class(size)].get_mut(size, block)[..entries.len()].copy_from_slice(&entries);
        *head = Head::of([BLOCK | size << SIZE_SHIFT, entries.len() as u32, block, 0]);
        self.restore(head, state);
    }

    fn move_to_inline(&mut self, head: &mut Head) {
        let (entries, state) = self.take(head);
        *head = Head::of([entries.len() as u32, 0, 0, 0]);
        head.words[..entries.len()].copy_from_slice(&entries);
        self.restore(head, state);
    }

    fn move_to_wide(&mut self, head: &mut Head) {
        let (entries, state) = self.take(head);
        let mut wide = Wide {
            entries,
            ..Wide::default()
        };
        for at in 0..wide.entries.len() {
            wide.count(wide.entries[at], u32::wrapping_add);
        }
        wide.positions
            .rebuild(&wide.entries, wide.entries.len() * 2);
        let place = self.free_wide.pop().unwrap_or_else(|| {
            self.wide.push(Wide::default());
            (self.wide.len() - 1) as u32
        });
        self.wide[place as usize] = wide;
        *head = Head::of([WIDE, place, 0, 0]);
        self.restore(head, state);
    }

    /// Takes the entries out and gives their storage back.
    fn take(&mut self, head: &mut Head) -> (Vec<Entry>, Kept) {
        let view = self.view_of(head);
        let (live, entries) = (view.live, view.entries.to_vec());
        let [first, second, third, fourth] = head.numbers();
        let judged = first & JUDGED != 0;
        let stamp = match first & FORM {
            BLOCK => {
                self.blocks[class(first >> SIZE_SHIFT & 0xf)]
                    .free
                    .push(third);
                Some(fourth)
            }
            WIDE => {
                self.free_wide.push(second);
                Some(std::mem::take(&mut self.wide[second as usize]).stamp)
            }
            // The upper bits are not known: judged again in the new form.
            _ => None,
        };
        (
            entries,
            Kept {
                live,
                stamp: stamp.filter(|_| judged),
            },
        )
    }

    fn restore(&mut self, head: &mut Head, kept: Kept) {
        self.set_live_count(head, kept.live);
        if let Some(stamp) = kept.stamp {
            self.set_stamp(head, stamp);
        }
    }

    /// Panics if something inside does not fit.
    pub(crate) fn invariants(&self) {
        for channel in self.channels() {
            let Some(view) = self.view(channel) else {
                panic!("a channel has a head")
            };
            assert!(view.live <= view.entries.len() && !view.entries.is_empty());
            assert!(view.filtered || view.entries.iter().all(|entry| !entry.filtered()));
            assert!(view.bare || view.entries.iter().all(|entry| !entry.bare()));
            for (at, entry) in view.entries.iter().enumerate() {
                let found = self.find(channel, entry.slot());
                assert_eq!(
                    found,
                    Some((at, *entry)),
                    "each slot stands once, where it is found"
                );
            }
        }
    }
}

/// What a list keeps when its storage changes.
struct Kept {
    live: usize,
    stamp: Option<u32>,
}

impl<'a> View<'a> {
    /// A short list is looked through for its flags: it is read for delivery anyway.
    fn scan(entries: &'a [Entry], live: usize) -> Self {
        let filtered = entries.iter().any(|entry| entry.filtered());
        let bare = entries.iter().any(|entry| entry.bare());
        Self {
            entries,
            live,
            filtered,
            bare,
        }
    }
}

impl Arrangement<'_> {
    fn swap(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        if let Some(positions) = &mut self.positions {
            let (place_a, place_b) = (
                positions.place(self.entries, a),
                positions.place(self.entries, b),
            );
            positions.0[place_a] = b as u32;
            positions.0[place_b] = a as u32;
        }
        self.entries.swap(a, b);
    }
}

impl Wide {
    fn count(&mut self, entry: Entry, step: impl Fn(u32, u32) -> u32) {
        self.filtered = step(self.filtered, u32::from(entry.filtered()));
        self.bare = step(self.bare, u32::from(entry.bare()));
    }
}

const fn class(size: u32) -> usize {
    (size - SMALLEST) as usize
}
