//! A subscriber's place in a shard, and the slab of them.

use authcache::PrincipalIndex;
use codec::mqtt::ReasonCode;
use router::SlotId;
use session::{Cold, Hot, Machine, Now, OutBuffer};

use crate::shard::backlog::Backlog;
use crate::shard::tally::Tally;
use crate::shard::wires::Token;

/// One place: a session with or without its wire, or a connection on its way to one.
///
/// The hot line comes first; the second line holds what a delivery or an event needs besides.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot<W> {
    pub(crate) hot: Hot,
    pub(crate) out: Option<Box<OutBuffer>>,
    pub(crate) backlog: Option<Box<Backlog>>,
    /// Input that is not consumed: an incomplete packet, or what waits for an answer.
    pub(crate) partial: Option<Box<Vec<u8>>>,
    pub(crate) cold: Cold,
    pub(crate) wire: Option<W>,
    pub(crate) generation: u32,
    /// Next slot of the same principal, `NONE` at the end.
    pub(crate) next_of_principal: u32,
    /// The one before it, `NONE` at the start.
    pub(crate) previous_of_principal: u32,
    /// While an answer is awaited: until when, in milliseconds modulo 2^24 (4.6 hours).
    awaited_until_ms: [u8; 3],
    pub(crate) marks: Marks,
}

/// What is going on with a slot besides its machine's state.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Marks(u8);

impl Marks {
    /// In the list of those to flush.
    pub(crate) const TOUCHED: Marks = Marks(1);
    /// Not read: an answer is awaited.
    pub(crate) const WAITING: Marks = Marks(2);
    /// Has input left over from this turn.
    pub(crate) const HUNGRY: Marks = Marks(4);
    /// Taken from the slab.
    pub(crate) const USED: Marks = Marks(8);
    /// Not read: its answers fill the backlog.
    pub(crate) const PAUSED: Marks = Marks(16);
    /// A deadline for the connection's progress is set: one is enough, however often it blocks.
    pub(crate) const TIMED: Marks = Marks(32);

    /// Its input waits until less is owed to long lists.
    pub(crate) const HELD: Marks = Marks(64);
    /// Its peer is gone; what it said before is looked at first.
    pub(crate) const GONE: Marks = Marks(128);

    pub(crate) fn has(self, mark: Marks) -> bool {
        self.0 & mark.0 != 0
    }

    pub(crate) fn set(&mut self, mark: Marks) {
        self.0 |= mark.0;
    }

    pub(crate) fn clear(&mut self, mark: Marks) {
        self.0 &= !mark.0;
    }
}

/// Two cache lines, the hot one first (a million idle connections are a million of these).
const _: () = assert!(std::mem::size_of::<Slot<crate::reactor::tcp::End>>() == 128);

/// The lowest 24 bits: no deadline for an answer is further away than ten minutes.
fn below_2_24(at: Now) -> [u8; 3] {
    let [a, b, c, ..] = at.as_millis().to_le_bytes();
    [a, b, c]
}

/// End of a list of slots.
pub(crate) const NONE: u32 = u32::MAX;

impl<W> Slot<W> {
    pub(crate) fn machine(&mut self) -> Machine<'_> {
        Machine::new(&mut self.hot, &mut self.cold)
    }

    /// An answer is awaited until `at`.
    pub(crate) fn await_until(&mut self, at: Now) {
        self.awaited_until_ms = below_2_24(at);
    }

    /// Whether the deadline at `at` is that of the answer that is awaited now.
    pub(crate) fn is_awaited_until(&self, at: Now) -> bool {
        self.awaited_until_ms == below_2_24(at)
    }

    /// Whether a delivery can be written at once.
    pub(crate) fn is_ready(&self) -> bool {
        self.wire.is_some() && self.backlog.is_none() && self.hot.is_live()
    }

    /// Says why and ends the connection.
    pub(crate) fn fail(&mut self, code: ReasonCode, pool: &mut Pool) {
        let mut out = self.out.take().unwrap_or_else(|| pool.out());
        out.mark(None);
        self.machine().fail(code, &mut out.bytes);
        self.out = Some(out);
    }
}

/// Buffers between two uses: at most so many, and none that grew large.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    out: Vec<Box<OutBuffer>>,
    partial: Vec<Box<Vec<u8>>>,
}

impl Pool {
    /// 1024 buffers of at most 64 KiB each: 64 MiB a shard at worst, after a turn that filled all.
    const KEPT: usize = 1024;
    const BYTES_KEPT: usize = 64 << 10;

    pub(crate) fn out(&mut self) -> Box<OutBuffer> {
        self.out.pop().unwrap_or_default()
    }

    pub(crate) fn give_out(&mut self, mut buffer: Box<OutBuffer>) {
        if self.out.len() < Pool::KEPT && buffer.bytes.capacity() <= Pool::BYTES_KEPT {
            buffer.clear();
            self.out.push(buffer);
        }
    }

    pub(crate) fn partial(&mut self) -> Box<Vec<u8>> {
        self.partial.pop().unwrap_or_default()
    }

    pub(crate) fn give_partial(&mut self, mut buffer: Box<Vec<u8>>) {
        if self.partial.len() < Pool::KEPT && buffer.capacity() <= Pool::BYTES_KEPT {
            buffer.clear();
            self.partial.push(buffer);
        }
    }
}

/// Slots by number. A freed number is used again, under another generation.
#[derive(Debug)]
pub(crate) struct Slab<W> {
    slots: Vec<Slot<W>>,
    /// One for each slot.
    tallies: Vec<Tally>,
    free: Vec<u32>,
    /// Generation of a number's first occupant.
    first_generation: u32,
}

impl<W> Slab<W> {
    /// Slots are named by 25 bits in a router entry.
    const MAX: usize = 1 << 25;

    /// A slab whose tokens are told from those of an earlier one by `first_generation`.
    pub(crate) fn new(first_generation: u32) -> Slab<W> {
        Slab {
            slots: Vec::new(),
            tallies: Vec::new(),
            free: Vec::new(),
            first_generation,
        }
    }

    /// A fresh slot; `None` when 2^25 are in use.
    pub(crate) fn insert(&mut self, listener: u8, now: Now) -> Option<SlotId> {
        let at = match self.free.pop() {
            Some(at) => at,
            None if self.slots.len() < Slab::<W>::MAX => {
                self.slots.push(Slot {
                    hot: Hot::new(0, now),
                    out: None,
                    backlog: None,
                    partial: None,
                    cold: Cold::Closed,
                    wire: None,
                    generation: self.first_generation,
                    next_of_principal: NONE,
                    previous_of_principal: NONE,
                    awaited_until_ms: [0; 3],
                    marks: Marks::default(),
                });
                self.tallies.push(Tally::default());
                self.slots.len() as u32 - 1
            }
            None => return None,
        };
        let slot = &mut self.slots[at as usize];
        slot.hot = Hot::new(listener, now);
        slot.cold = Cold::AwaitConnect;
        slot.marks = Marks::USED;
        slot.next_of_principal = NONE;
        slot.previous_of_principal = NONE;
        Some(SlotId::new(at))
    }

    /// Frees a slot whose wire and buffers are gone.
    pub(crate) fn remove(&mut self, id: SlotId) {
        let slot = &mut self.slots[id.index()];
        debug_assert!(slot.wire.is_none() && slot.marks.has(Marks::USED));
        slot.generation = slot.generation.wrapping_add(1);
        slot.cold = Cold::Closed;
        slot.hot = Hot::new(0, Now::default());
        slot.marks = Marks::default();
        slot.out = None;
        slot.backlog = None;
        slot.partial = None;
        self.free.push(id.get());
    }

    #[inline]
    pub(crate) fn slot(&self, id: SlotId) -> &Slot<W> {
        &self.slots[id.index()]
    }

    #[inline]
    pub(crate) fn slot_mut(&mut self, id: SlotId) -> &mut Slot<W> {
        &mut self.slots[id.index()]
    }

    /// The slot, if `token` names its present occupant.
    pub(crate) fn current(&mut self, token: Token) -> Option<&mut Slot<W>> {
        self.slots
            .get_mut(token.slot.index())
            .filter(|slot| slot.generation == token.generation && slot.marks.has(Marks::USED))
    }

    pub(crate) fn token(&self, id: SlotId) -> Token {
        Token {
            slot: id,
            generation: self.slot(id).generation,
        }
    }

    /// How many slots there are, free ones included.
    pub(crate) fn len(&self) -> usize {
        self.slots.len()
    }

    /// What happened in a slot.
    #[inline]
    pub(crate) fn tally_mut(&mut self, id: SlotId) -> &mut Tally {
        &mut self.tallies[id.index()]
    }

    #[inline]
    pub(crate) fn principal(&self, id: SlotId) -> PrincipalIndex {
        self.slot(id).hot.principal
    }

    /// Whether any slot is in use.
    pub(crate) fn any_used(&self) -> bool {
        self.free.len() < self.slots.len()
    }

    /// The slots in use.
    pub(crate) fn used(&self) -> impl Iterator<Item = SlotId> + '_ {
        self.slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.marks.has(Marks::USED))
            .map(|(at, _)| SlotId::new(at as u32))
    }
}
