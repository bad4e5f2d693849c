//! A shard: one thread's slots, subscribers, inbox and timers, as a value that somebody drives.
//!
//! The reactor drives it over epoll and sockets, the simulator over virtual wires. Neither the
//! clock nor a socket is reached from here: the moment is an argument, bytes come in through
//! [`Shard::input`] and leave through [`Wires`].

#![expect(
    clippy::box_collection,
    clippy::vec_box,
    reason = "a slot holds 8 bytes for a buffer that is seldom there, and the pool keeps the boxes"
)]

mod anew;
pub(crate) mod backlog;
pub(crate) mod env;
mod groups;
pub(crate) mod identity;
pub(crate) mod inbox;
mod lease;
mod loss;
pub(crate) mod notice;
pub(crate) mod outlets;
pub(crate) mod retain;
pub(crate) mod roster;
pub(crate) mod route;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod subscribe;
mod takeover;
pub(crate) mod tally;
pub(crate) mod timers;
mod turn;
mod wide;
pub(crate) mod wires;

use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use authcache::{Cause, PrincipalIndex};
use codec::mqtt::{FIXED_HEADER_MAX, QoS, ReasonCode, packet_len};
use router::{Retained, SlotId, Subs};
use session::{Message, Now, Receipt, RightsQuestion, Step};

use crate::metrics::{Closed, LayerFault};
use crate::shard::env::Env;
use crate::shard::inbox::{Batch, RetainedGive};
use crate::shard::outlets::Outlets;
use crate::shard::roster::Roster;
use crate::shard::slot::Marks;
use crate::shard::takeover::Takeovers;
use crate::shard::tally::Tallies;
use crate::shard::timers::{Due, Wheel};
#[cfg(test)]
pub(crate) use crate::shard::wide::OWED_AT_ALL_MAX;
use crate::shard::wide::Wide;
use crate::shard::wires::{Readable, Token, Wires};
use crate::sys::Sys;

/// One shard. Everything in it is touched by one thread only.
pub(crate) struct Shard<W: Wires> {
    pub(crate) env: Env<W::Wire>,
    pub(crate) outlets: Outlets<W>,
    pub(crate) subs: Subs,
    pub(crate) retained: Retained<Arc<Message>>,
    pub(crate) roster: Roster,
    pub(crate) outboxes: Vec<Batch<W::Wire>>,
    pub(crate) wheel: Wheel,
    /// Slots with input left over.
    hungry: Vec<Token>,
    /// Rounds to acknowledge when this turn's bytes are out.
    fences: Vec<u64>,
    /// As `fences`, for the rounds before a shutdown.
    drains: usize,
    /// Who was shut out by a revision whose fence has not come: connections that were identified
    /// before may still arrive.
    shut_out: Vec<(u64, PrincipalIndex, Cause)>,
    /// Connections that were identified and wait for a right of their will.
    claiming: Vec<Token>,
    /// Connections that end when they lose a right, and some that are gone.
    revocable: HashSet<SlotId>,
    /// Subscribers of the run at hand that cannot take its frames as they are.
    slow: Vec<(SlotId, usize)>,
    inbox: Vec<Batch<W::Wire>>,
    /// Connections on their way in what was taken from the inbox.
    arriving: usize,
    due: Vec<Token>,
    /// What new subscribers have not been given yet of what is retained.
    replays: VecDeque<RetainedGive>,
    /// Whether some of them have room now.
    replaying: bool,
    /// What is owed to lists too long for one turn.
    wide: Wide,
    /// Deliveries made since the count began anew.
    spent: usize,
    /// As `spent`, for what other shards posted, in this turn.
    spent_for_others: usize,
    /// Wills that wait for a right to be told, or for a lease.
    pub(crate) wills: Vec<(Option<RightsQuestion>, Arc<Message>)>,
    /// Since when there is no lease.
    without_lease: Option<Now>,
    takeovers: Takeovers<W::Wire>,
    tallies: Tallies,
    /// How far the shard's life has come.
    stage: Stage,
    pub(crate) sys: Sys,
}

/// The life of a shard.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Stage {
    /// Control has not told its state yet, or not again since the shard began anew.
    Waiting,
    /// Clients are served.
    Serving,
    /// Nothing new is read or accepted; what was accepted goes out.
    Draining,
    /// Everybody was told goodbye.
    Over,
}

/// Packets off the fast path that one connection may have carried out in a turn.
const STEPS_MAX: usize = 64;

/// As how many more of them a SUBSCRIBE counts that asks for what is retained: a whole store is
/// looked through for it.
const REPLAY_STEPS: usize = 7;

impl<W: Wires> Shard<W> {
    pub(crate) fn new(
        env: Env<W::Wire>,
        wires: W,
        subs: Subs,
        incarnation: u64,
        sys_interval_s: u32,
    ) -> Shard<W> {
        let outboxes = (0..env.shared.shards()).map(|_| Batch::default()).collect();
        let wheel = Wheel::new(env.now);
        Shard {
            outlets: Outlets::new(wires, 0),
            subs,
            retained: Retained::new(|message| message.weight()),
            roster: Roster::new(incarnation),
            outboxes,
            wheel,
            hungry: Vec::new(),
            fences: Vec::new(),
            drains: 0,
            shut_out: Vec::new(),
            claiming: Vec::new(),
            revocable: HashSet::new(),
            slow: Vec::new(),
            inbox: Vec::new(),
            arriving: 0,
            due: Vec::new(),
            replays: VecDeque::new(),
            replaying: false,
            wide: Wide::new(env.shared.limits.fanout_slice),
            spent: 0,
            spent_for_others: 0,
            wills: Vec::new(),
            without_lease: None,
            takeovers: Takeovers::default(),
            tallies: Tallies::default(),
            stage: Stage::Waiting,
            sys: Sys::new(sys_interval_s),
            env,
        }
    }

    /// A connection was accepted. `None` when there is no room for it.
    pub(crate) fn accepted(&mut self, wire: W::Wire, listener: u8) -> Option<Token> {
        let wire = self.outlets.wires.place(wire)?;
        let limits = &self.env.shared.limits;
        let before = self.env.shared.connections.fetch_add(1, Ordering::Relaxed);
        // Past 105 % they are closed at accept; up to there they are told why.
        let most = limits.max_connections + limits.max_connections / 20;
        let id = if before < most || limits.max_connections == 0 {
            self.outlets.slots.insert(listener, self.env.now)
        } else {
            None
        };
        let Some(id) = id else {
            self.env.shared.connections.fetch_sub(1, Ordering::Relaxed);
            self.env.counters.closed(Closed::Refused);
            self.outlets.wires.close(wire);
            return None;
        };
        self.env.counters.accepted.add(1);
        let token = self.outlets.slots.token(id);
        let at = self.env.now.plus_millis(limits.connect_timeout_ms);
        self.outlets.deadlines.insert(at, token, Due::Connect);
        self.outlets.wires.attach(&wire, token);
        self.outlets.slots.slot_mut(id).wire = Some(wire);
        Some(token)
    }

    /// A connection was closed as it was accepted: its address has too many.
    pub(crate) fn turned_away(&self) {
        self.env.counters.closed(Closed::Refused);
    }

    /// Something below a connection's machine panicked.
    pub(crate) fn panicked(&self) {
        self.env.counters.panics.add(1);
        tracing::error!("a connection's layers panicked; it is closed");
    }

    /// A peer did something wrong below MQTT.
    pub(crate) fn broke(&mut self, token: Token, layer: LayerFault) {
        self.env.counters.layer_faulted(layer);
        if self.outlets.slots.current(token).is_some() {
            self.close(token.slot, Closed::Protocol);
        }
    }

    /// The wire of `token`, if its connection is to be read now. Without a lease only those are
    /// that have to be refused.
    pub(crate) fn readable(&mut self, token: Token) -> Readable<'_, W::End> {
        let leased = self.env.may_serve();
        let Some(slot) = self.outlets.slots.current(token) else {
            return Readable::Gone;
        };
        if !leased && slot.hot.is_live() {
            return Readable::Later;
        }
        let held = slot.marks.has(Marks::WAITING) || slot.marks.has(Marks::PAUSED);
        if held || self.stage == Stage::Draining {
            return Readable::WhenWatched;
        }
        if slot.marks.has(Marks::HUNGRY) {
            return Readable::Later;
        }
        slot.wire.as_mut().map_or(Readable::Gone, Readable::Now)
    }

    /// Whether a connection has not had its CONNACK.
    pub(crate) fn is_new(&mut self, token: Token) -> bool {
        let slot = self.outlets.slots.current(token);
        slot.is_some_and(|slot| !slot.hot.is_live())
    }

    /// Bytes came for the present occupant of a slot.
    pub(crate) fn input(&mut self, token: Token, bytes: &[u8]) {
        self.catch_up();
        self.env.counters.wire_bytes_in.add(bytes.len() as u64);
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        let mut bytes = bytes;
        if let Some(mut partial) = slot.partial.take() {
            // What comes behind the packet that had begun is looked at where it lies. Before its
            // CONNACK a connection may leave this slot, with all it has sent.
            let live = slot.hot.is_live();
            let missing = live.then(|| missing(&partial, bytes)).flatten();
            let (first, rest) = bytes.split_at(missing.unwrap_or(bytes.len()));
            partial.extend_from_slice(first);
            self.consume(token, partial);
            if rest.is_empty() {
                return;
            }
            let Some(slot) = self.outlets.slots.current(token) else {
                return;
            };
            let stopped = slot.marks.has(Marks::HUNGRY) || slot.marks.has(Marks::WAITING);
            if stopped || slot.partial.is_some() {
                let mut partial = match slot.partial.take() {
                    Some(partial) => partial,
                    None => self.outlets.pool.partial(),
                };
                partial.extend_from_slice(rest);
                return self.keep(token, partial);
            }
            bytes = rest;
        }
        let used = self.steps(token, bytes);
        if used < bytes.len() {
            let mut partial = self.outlets.pool.partial();
            partial.extend_from_slice(&bytes[used..]);
            self.keep(token, partial);
        }
    }

    pub(super) fn consume(&mut self, token: Token, mut partial: Box<Vec<u8>>) {
        let used = self.steps(token, &partial);
        if used >= partial.len() {
            self.outlets.pool.give_partial(partial);
        } else {
            partial.drain(..used);
            self.keep(token, partial);
        }
    }

    pub(super) fn keep(&mut self, token: Token, partial: Box<Vec<u8>>) {
        match self.outlets.slots.current(token) {
            Some(slot) => slot.partial = Some(partial),
            None => self.outlets.pool.give_partial(partial),
        }
    }

    /// Marks a slot whose kept input can be looked at.
    pub(crate) fn hungry(&mut self, id: SlotId) {
        let token = self.outlets.slots.token(id);
        let marks = &mut self.outlets.slots.slot_mut(id).marks;
        if !marks.has(Marks::HUNGRY) {
            marks.set(Marks::HUNGRY);
            self.hungry.push(token);
        }
    }

    /// Steps the machine of `token` through `input`; how much was consumed.
    pub(super) fn steps(&mut self, token: Token, input: &[u8]) -> usize {
        let id = token.slot;
        let mut at = 0;
        let mut slow = 0;
        let mut acknowledged = false;
        while at < input.len() {
            let Some(slot) = self.outlets.slots.current(token) else {
                return input.len();
            };
            let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
            let start = out.bytes.len();
            let rules = self.env.rules(id, slot.hot.listener);
            // A fault in one machine ends its connection, never the shard.
            let stepped = catch_unwind(AssertUnwindSafe(|| {
                slot.machine().step(&input[at..], &rules, &mut out.bytes)
            }));
            out.claim(start);
            self.outlets.put_out(id, out);
            let Ok((used, step)) = stepped else {
                self.env.counters.panics.add(1);
                tracing::error!("a connection's machine panicked; its connection is closed");
                self.close(id, Closed::Internal);
                return input.len();
            };
            at += used;
            match step {
                Step::Run(run) => {
                    let bytes = run.frames.len() as u64;
                    self.env
                        .counters
                        .message_in(QoS::AtMostOnce, u64::from(run.count), bytes);
                    self.outlets.slots.tally_mut(id).received(run.count);
                    let added = self.wide.added();
                    self.route_run(&run);
                    if self.has_to_wait(id, added) {
                        break;
                    }
                    continue;
                }
                Step::Incomplete => break,
                Step::Done => acknowledged = true,
                Step::Publish(publication, receipt) => {
                    let message = &publication.0;
                    self.env.counters.message_in(message.qos(), 1, used as u64);
                    self.outlets.slots.tally_mut(id).received(1);
                    let told = self.outlets.slots.slot(id).hot.is_version5();
                    let added = self.wide.added();
                    let code = self.route_publication(&publication, told);
                    if receipt != Receipt::None {
                        self.answer(id, |machine, out| machine.published(receipt, code, out));
                    }
                    if self.has_to_wait(id, added) {
                        break;
                    }
                }
                Step::Refused(why, count) => {
                    self.env.counters.refused(why, u64::from(count));
                    acknowledged = true;
                }
                Step::Health => self.env.counters.health.add(1),
                Step::Subscribe(request) => {
                    if self.subscribe(id, request) {
                        slow += REPLAY_STEPS;
                    }
                }
                Step::Unsubscribe(request) => self.unsubscribe(id, request),
                Step::Wait(question) => {
                    self.ask_rights(token, question);
                    break;
                }
                Step::Identify(what) => {
                    if self.identify(token, what, &input[at..]) {
                        return input.len();
                    }
                    break;
                }
                Step::Claim(_) => {
                    self.claim(token, &input[at..]);
                    return input.len();
                }
                Step::Close(code) => {
                    self.close(id, closed_by(code));
                    return input.len();
                }
            }
            slow += 1;
            if slow >= STEPS_MAX {
                self.hungry(id);
                break;
            }
        }
        if acknowledged && self.outlets.slots.current(token).is_some() {
            self.outlets.pump(&self.env, id);
        }
        at
    }

    /// Whether a connection's further packets have to wait for another turn: this one has made
    /// deliveries enough, or the connection has just added to much that is owed.
    fn has_to_wait(&mut self, id: SlotId, added: u64) -> bool {
        let owes = self.wide.added() != added && self.wide.is_much();
        if owes {
            self.outlets.slots.slot_mut(id).marks.set(Marks::HELD);
        }
        let waits = owes || self.is_spent();
        if waits {
            self.hungry(id);
        }
        waits
    }

    /// Whether enough deliveries were made that what is left to read waits for the next turn.
    pub(crate) fn is_spent(&self) -> bool {
        self.spent >= self.wide.slice()
    }

    /// Lets the machine of a slot write to its peer.
    pub(crate) fn answer(
        &mut self,
        id: SlotId,
        write: impl FnOnce(&mut session::Machine<'_>, &mut Vec<u8>),
    ) {
        let slot = self.outlets.slots.slot_mut(id);
        let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
        let start = out.bytes.len();
        write(&mut slot.machine(), &mut out.bytes);
        out.claim(start);
        self.outlets.put_out(id, out);
    }

    /// The peer of a wire is gone. What it said before and was not looked at yet still counts: its
    /// last word may be a DISCONNECT that removes its will.
    pub(crate) fn lost(&mut self, token: Token) {
        match self.outlets.slots.current(token) {
            Some(slot) if slot.marks.has(Marks::HUNGRY) => slot.marks.set(Marks::GONE),
            Some(_) => self.close(token.slot, Closed::Lost),
            None => {}
        }
    }

    /// A wire takes bytes again.
    pub(crate) fn writable(&mut self, token: Token) {
        if !self.outlets.writable(&self.env, token) {
            self.lost(token);
        }
    }
}

/// How many of `bytes` end the packet that begins with `partial`, if it ends in them.
fn missing(partial: &[u8], bytes: &[u8]) -> Option<usize> {
    let mut head = [0; FIXED_HEADER_MAX];
    let mut len = 0;
    for (to, from) in head.iter_mut().zip(partial.iter().chain(bytes)) {
        *to = *from;
        len += 1;
    }
    let missing = packet_len(&head[..len])?.checked_sub(partial.len())?;
    (missing <= bytes.len()).then_some(missing)
}

fn closed_by(code: ReasonCode) -> Closed {
    if code == ReasonCode::SUCCESS || code == ReasonCode::DISCONNECT_WITH_WILL_MESSAGE {
        Closed::Client
    } else {
        Closed::Protocol
    }
}
