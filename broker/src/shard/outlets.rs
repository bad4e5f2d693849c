//! The slots of a shard and the way out of them: append, deliver, flush.

use std::sync::Arc;

use authcache::{Action, ChannelIndex};
use codec::mqtt::QoS;
use router::SlotId;
use session::{Delivered, DropReason, Message, OutBuffer, Receiving};

use crate::shard::backlog::{Backlog, Frames, packet_ids, publishes};
use crate::shard::env::Env;
use crate::shard::slot::{Marks, Pool, Slab, Slot};
use crate::shard::timers::{Deadlines, Due};
use crate::shard::wires::{Sent, SlowPolicy, Token, Watch, Wires};

/// Slots, wires, and who has something to send.
pub(crate) struct Outlets<W: Wires> {
    pub(crate) slots: Slab<W::End>,
    pub(crate) pool: Pool,
    pub(crate) wires: W,
    pub(crate) deadlines: Deadlines,
    touched: Vec<SlotId>,
    /// Bytes put into out-buffers since all were sent last.
    pending: usize,
    /// Bytes that blocked wires took in this turn.
    drained: usize,
    /// Peers found gone while something was sent to them; closed at the end of the turn.
    lost: Vec<Token>,
}

/// An out-buffer is sent before the turn ends when it grows to this many bytes.
const OUT_MAX: usize = 256 << 10;

/// Frames of so many bytes are sent from where they lie: to copy them costs more than a send of
/// their own. In simulations few, so that both ways are gone.
const DIRECT_MIN: usize = if cfg!(test) { 512 } else { 32 << 10 };

/// All out-buffers are sent before the turn ends when they hold this many bytes together: a burst
/// for many subscribers must not be kept once for each of them.
const PENDING_MAX: usize = 32 << 20;

/// Bytes of its backlog that a wire is given before others have their turn, and that all wires are
/// given in one turn: readers that were slow must not hold up those who are not.
const DRAIN_MAX: usize = 128 << 10;
const DRAIN_TURN_MAX: usize = 16 << 20;

/// Reading stops while more than this waits of the answers to a connection's own packets. Messages
/// from others do not stop it: their receiver has to be heard, also to say that it is alive or wants
/// no more of them.
const PAUSE_BYTES: usize = 64 << 10;

impl<W: Wires> Outlets<W> {
    pub(crate) fn new(wires: W, first_generation: u32) -> Outlets<W> {
        Outlets {
            slots: Slab::new(first_generation),
            pool: Pool::default(),
            wires,
            deadlines: Deadlines::default(),
            touched: Vec::new(),
            pending: 0,
            drained: 0,
            lost: Vec::new(),
        }
    }

    /// A turn begins.
    pub(crate) fn begin(&mut self) {
        self.drained = 0;
    }

    /// Appends frames to a subscriber as they are; whoever is blocked waits for one shared copy.
    #[inline]
    pub(crate) fn append(
        &mut self,
        env: &Env<W::Wire>,
        id: SlotId,
        channel: ChannelIndex,
        frames: &[u8],
        count: u32,
        shared: &mut Option<Arc<[u8]>>,
    ) {
        if frames.len() >= DIRECT_MIN && self.send_direct(env, id, channel, frames, count) {
            return;
        }
        let slot = self.slots.slot_mut(id);
        if let Some(backlog) = &mut slot.backlog {
            if backlog.bytes() + frames.len() > env.shared.limits.outbound_queue_bytes {
                let policy = slot.wire.as_ref().map(|wire| self.wires.slow_policy(wire));
                match policy.unwrap_or_default() {
                    SlowPolicy::DropNewest => {
                        env.counters.dropped(DropReason::SlowQos0, u64::from(count));
                        return;
                    }
                    SlowPolicy::DropOldest => {
                        let most = env.shared.limits.outbound_queue_bytes;
                        backlog.make_room(frames.len(), most, |frames| {
                            env.counters
                                .dropped(DropReason::SlowQos0, publishes(frames));
                        });
                    }
                    SlowPolicy::Close => {
                        env.counters.dropped(DropReason::SlowQos0, u64::from(count));
                        if let Some(wire) = &slot.wire {
                            self.wires.overloaded(wire);
                        }
                        let generation = slot.generation;
                        self.lost.push(Token {
                            slot: id,
                            generation,
                        });
                        return;
                    }
                }
            }
            let copy = shared.get_or_insert_with(|| Arc::from(frames));
            backlog.push(Some(channel), Frames::Shared(Arc::clone(copy)));
            env.counters
                .message_out(QoS::AtMostOnce, u64::from(count), frames.len() as u64);
            self.slots.tally_mut(id).gave(count);
            return;
        }
        let out = slot.out.get_or_insert_with(|| self.pool.out());
        out.mark(Some(channel));
        out.bytes.extend_from_slice(frames);
        let full = out.bytes.len() >= OUT_MAX;
        env.counters
            .message_out(QoS::AtMostOnce, u64::from(count), frames.len() as u64);
        self.slots.tally_mut(id).gave(count);
        self.touch(id);
        if full {
            self.flush_slot(env, id);
        }
        self.added(env, frames.len());
    }

    /// Sends frames behind what is in the out-buffer; `false` if they have to wait.
    fn send_direct(
        &mut self,
        env: &Env<W::Wire>,
        id: SlotId,
        channel: ChannelIndex,
        frames: &[u8],
        count: u32,
    ) -> bool {
        let slot = self.slots.slot(id);
        if !env.may_serve() || slot.backlog.is_some() {
            return false;
        }
        #[cfg(test)]
        if let Some(wire) = &slot.wire {
            self.wires.sends_directly(wire);
        }
        self.flush_slot(env, id);
        let token = self.slots.token(id);
        if self.lost.last() == Some(&token) {
            // Its peer is gone.
            return true;
        }
        let slot = self.slots.slot_mut(id);
        let (None, Some(wire)) = (&slot.backlog, &mut slot.wire) else {
            return false;
        };
        let sent = self.wires.send(wire, frames);
        env.counters
            .message_out(QoS::AtMostOnce, u64::from(count), frames.len() as u64);
        self.slots.tally_mut(id).gave(count);
        match sent {
            Sent::Taken(taken) => {
                env.counters.wire_bytes_out.add(taken as u64);
                if taken < frames.len() {
                    let mut out = self.pool.out();
                    out.mark(Some(channel));
                    out.bytes.extend_from_slice(frames);
                    self.fall_behind(env, id, &out, taken);
                    self.pool.give_out(out);
                }
            }
            Sent::Gone => self.lost.push(token),
        }
        true
    }

    /// Delivers one message by all its rules.
    pub(crate) fn deliver(
        &mut self,
        env: &Env<W::Wire>,
        id: SlotId,
        message: &Arc<Message>,
        how: &Receiving<'_>,
    ) -> Delivered {
        let token = self.slots.token(id);
        let slot = self.slots.slot_mut(id);
        let rules = env.rules(id, slot.hot.listener);
        let blocked = slot.backlog.is_some();
        let mut out = match &slot.backlog {
            // What cannot be written now goes behind the backlog.
            Some(_) => self.pool.out(),
            None => slot.out.take().unwrap_or_else(|| self.pool.out()),
        };
        let before = out.bytes.len();
        let mut delivered =
            slot.machine()
                .deliver(message, how, !blocked, &rules, &mut out, |reason| {
                    env.counters.dropped(reason, 1);
                });
        let written = out.bytes.len() - before;
        if let Some(backlog) = &mut slot.backlog {
            if written > 0 {
                let most = env.shared.limits.outbound_queue_bytes;
                let wire = slot.wire.as_ref();
                let policy = wire.map(|wire| self.wires.slow_policy(wire));
                if policy == Some(SlowPolicy::DropOldest) {
                    backlog.make_room(written, most, |frames| {
                        env.counters
                            .dropped(DropReason::SlowQos0, publishes(frames));
                    });
                }
                if backlog.bytes() + written > most {
                    if let (Some(SlowPolicy::Close), Some(wire)) = (policy, wire) {
                        self.wires.overloaded(wire);
                        self.lost.push(token);
                    }
                    delivered = Delivered::Dropped(DropReason::SlowQos0);
                } else {
                    let count = env.counters.published(&mut out);
                    backlog.push_all(&out);
                    self.slots.tally_mut(id).gave(count);
                }
            }
            self.pool.give_out(out);
        } else if out.bytes.is_empty() {
            self.pool.give_out(out);
        } else {
            let count = env.counters.published(&mut out);
            let full = out.bytes.len() >= OUT_MAX;
            slot.out = Some(out);
            self.slots.tally_mut(id).gave(count);
            self.touch(id);
            if full {
                self.flush_slot(env, id);
            }
            self.added(env, written);
        }
        match delivered {
            Delivered::Sent | Delivered::Queued => {}
            Delivered::QueuedDroppingOldest => env.counters.dropped(DropReason::QueueFull, 1),
            Delivered::Dropped(reason) => env.counters.dropped(reason, 1),
        }
        delivered
    }

    /// Sends what the session's window has room for.
    pub(crate) fn pump(&mut self, env: &Env<W::Wire>, id: SlotId) {
        let slot = self.slots.slot_mut(id);
        if !slot.is_ready() {
            return;
        }
        let rules = env.rules(id, slot.hot.listener);
        let mut out = slot.out.take().unwrap_or_else(|| self.pool.out());
        let counters = &env.counters;
        slot.machine().pump(&rules, OUT_MAX, &mut out, |reason| {
            counters.dropped(reason, 1)
        });
        let count = counters.published(&mut out);
        self.slots.tally_mut(id).gave(count);
        self.put_out(id, out);
    }

    /// Gives an out-buffer back to its slot, or to the pool if nothing is in it.
    #[inline]
    pub(crate) fn put_out(&mut self, id: SlotId, out: Box<OutBuffer>) {
        if out.bytes.is_empty() {
            self.pool.give_out(out);
        } else {
            self.slots.slot_mut(id).out = Some(out);
            self.touch(id);
        }
    }

    #[inline]
    pub(crate) fn touch(&mut self, id: SlotId) {
        let marks = &mut self.slots.slot_mut(id).marks;
        if !marks.has(Marks::TOUCHED) {
            marks.set(Marks::TOUCHED);
            self.touched.push(id);
        }
    }

    /// One send per touched connection; the peers that turned out to be gone.
    pub(crate) fn flush(&mut self, env: &Env<W::Wire>) -> Vec<Token> {
        self.flush_touched(env);
        std::mem::take(&mut self.lost)
    }

    /// Counts bytes put into an out-buffer; sends all of them when they are many.
    #[inline]
    fn added(&mut self, env: &Env<W::Wire>, bytes: usize) {
        self.pending += bytes;
        if self.pending >= PENDING_MAX && env.may_serve() {
            self.flush_touched(env);
        }
    }

    fn flush_touched(&mut self, env: &Env<W::Wire>) {
        self.pending = 0;
        let mut touched = std::mem::take(&mut self.touched);
        for id in touched.drain(..) {
            self.slots.slot_mut(id).marks.clear(Marks::TOUCHED);
            self.flush_slot(env, id);
        }
        // The list's room is used again, unless a slot was touched meanwhile.
        if self.touched.is_empty() {
            self.touched = touched;
        }
    }

    /// Whether something is still to be sent.
    pub(crate) fn has_touched(&self) -> bool {
        !self.touched.is_empty()
    }

    /// Sends a slot's out-buffer; what is not taken becomes its backlog. Without a lease no message
    /// is: it waits where it is judged again. (Threats R-4.)
    pub(crate) fn flush_slot(&mut self, env: &Env<W::Wire>, id: SlotId) {
        let token = self.slots.token(id);
        let slot = self.slots.slot_mut(id);
        let Some(out) = slot.out.take() else { return };
        let Some(wire) = &mut slot.wire else {
            self.pool.give_out(out);
            return;
        };
        if let Some(backlog) = &mut slot.backlog {
            backlog.push_all(&out);
            self.pool.give_out(out);
            self.pause(id);
            return;
        }
        // What a connection itself is told goes out: no right is needed for it.
        let sent = if env.may_serve() || out.is_own() {
            self.wires.send(wire, &out.bytes)
        } else {
            Sent::Taken(0)
        };
        let taken = match sent {
            Sent::Taken(taken) => taken,
            Sent::Gone => {
                self.lost.push(token);
                self.pool.give_out(out);
                return;
            }
        };
        env.counters.wire_bytes_out.add(taken as u64);
        if taken < out.bytes.len() {
            self.fall_behind(env, id, &out, taken);
        }
        self.pool.give_out(out);
    }

    /// A wire took only the first `taken` bytes: the others become its backlog.
    fn fall_behind(&mut self, env: &Env<W::Wire>, id: SlotId, out: &OutBuffer, taken: usize) {
        let token = self.slots.token(id);
        let slot = self.slots.slot_mut(id);
        let Some(wire) = &slot.wire else { return };
        slot.backlog = Some(Box::new(Backlog::behind(out, taken, env.now.as_millis())));
        let read = !slot.marks.has(Marks::WAITING);
        self.wires.watch(wire, token, Watch { read, write: true });
        if !slot.marks.has(Marks::TIMED) {
            slot.marks.set(Marks::TIMED);
            let at = env
                .now
                .plus_millis(env.shared.limits.write_stall_timeout_ms);
            self.deadlines.insert(at, token, Due::WriteStall);
        }
        self.pause(id);
    }

    /// Stops reading from a connection whose backlog grows by what it is owed itself.
    fn pause(&mut self, id: SlotId) {
        let token = self.slots.token(id);
        let slot = self.slots.slot_mut(id);
        let waits = slot
            .backlog
            .as_ref()
            .is_some_and(|backlog| backlog.answers() > PAUSE_BYTES);
        if waits && !slot.marks.has(Marks::PAUSED) {
            slot.marks.set(Marks::PAUSED);
            if let Some(wire) = &slot.wire {
                self.wires.watch(
                    wire,
                    token,
                    Watch {
                        read: false,
                        write: true,
                    },
                );
            }
        }
    }

    /// The wire takes bytes again. `false` when the peer is gone.
    pub(crate) fn writable(&mut self, env: &Env<W::Wire>, token: Token) -> bool {
        // Its wire is watched by level: it is told again in the next turn.
        if self.drained >= DRAIN_TURN_MAX {
            return true;
        }
        let Some(slot) = self.slots.current(token) else {
            return true;
        };
        let (Some(mut backlog), Some(wire)) = (slot.backlog.take(), &mut slot.wire) else {
            if let Some(wire) = &mut slot.wire
                && self.wires.resume(wire)
            {
                self.watch_as_marked(token.slot);
            }
            return true;
        };
        let principal = slot.hot.principal;
        let may = |channel| {
            env.gate
                .allows(principal, Action::Subscribe, channel)
                .is_ok()
        };
        let wires = &mut self.wires;
        let mut sent = 0;
        let mut revoked = Vec::new();
        let mut lost = 0;
        let drained = backlog.drain(
            env.now.as_millis(),
            may,
            |bytes| {
                if sent >= DRAIN_MAX {
                    return Some(0);
                }
                match wires.send(wire, bytes) {
                    Sent::Taken(taken) => {
                        sent += taken;
                        Some(taken)
                    }
                    Sent::Gone => None,
                }
            },
            |frames| {
                lost += publishes(frames);
                revoked.extend(packet_ids(frames));
            },
        );
        self.drained += sent;
        env.counters.wire_bytes_out.add(sent as u64);
        if lost > 0 {
            env.counters.dropped(DropReason::Revoked, lost);
            let mut machine = slot.machine();
            machine.outgoing_lost();
            for id in revoked {
                machine.abandoned(id);
            }
        }
        if drained.is_none() {
            return false;
        }
        if backlog.is_empty() {
            slot.marks.clear(Marks::PAUSED);
            let read = !slot.marks.has(Marks::WAITING);
            if let Some(wire) = &slot.wire {
                self.wires.watch(wire, token, Watch { read, write: false });
            }
            self.pump(env, token.slot);
        } else {
            let relieved = slot.marks.has(Marks::PAUSED) && backlog.answers() <= PAUSE_BYTES;
            slot.backlog = Some(backlog);
            if relieved {
                slot.marks.clear(Marks::PAUSED);
                self.watch_as_marked(token.slot);
            }
        }
        true
    }

    /// A channel is gone: what waits for it on a blocked wire goes with it.
    pub(crate) fn channel_removed(
        &mut self,
        env: &Env<W::Wire>,
        id: SlotId,
        channel: ChannelIndex,
    ) {
        let slot = self.slots.slot_mut(id);
        let Some(backlog) = &mut slot.backlog else {
            return;
        };
        let mut ids = Vec::new();
        let mut lost = 0;
        backlog.remove_channel(channel, |frames| {
            lost += publishes(frames);
            ids.extend(packet_ids(frames));
        });
        if lost > 0 {
            env.counters.dropped(DropReason::Revoked, lost);
            let mut machine = slot.machine();
            machine.outgoing_lost();
            for id in ids {
                machine.abandoned(id);
            }
        }
    }

    /// Deadlines of former occupants go before they are due, once they may outnumber the others: a
    /// session that is resumed often would leave one for each time it was parked.
    pub(crate) fn forget_stale_deadlines(&mut self) {
        let slots = &mut self.slots;
        self.deadlines.prune(|at, token, due| {
            slots.current(token).is_some_and(|slot| match due {
                Due::Credentials => slot.machine().credentials_end() == Some(at),
                _ => true,
            })
        });
    }

    /// Reads or does not read, as the slot's marks say.
    pub(crate) fn watch_as_marked(&mut self, id: SlotId) {
        let token = self.slots.token(id);
        let slot: &Slot<W::End> = self.slots.slot(id);
        let read = !slot.marks.has(Marks::WAITING) && !slot.marks.has(Marks::PAUSED);
        if let Some(wire) = &slot.wire {
            let write = slot.backlog.is_some();
            self.wires.watch(wire, token, Watch { read, write });
        }
    }
}
