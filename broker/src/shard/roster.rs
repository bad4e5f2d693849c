//! Sessions at home on this shard: claim, takeover, resume, park, end.

use std::hash::{BuildHasher, Hash, Hasher};

use authcache::{EntityId, PrincipalIndex};
use codec::mqtt::ReasonCode;
use hashbrown::{HashMap, HashTable};
use router::{ShardId, SlotId};
use session::{Cold, Departure, IdentifyOutcome, Refusal, Session, SessionKey};

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::inbox::{Arrival, Post};
use crate::shard::slot::{Marks, NONE};
use crate::shard::timers::Due;
use crate::shard::wires::{Token, Wires};

/// Which session is in which slot, and which slots a principal has.
///
/// Keys are not stored again: an entry is a slot number, and its session says what it is.
#[derive(Debug)]
pub(crate) struct Roster {
    sessions: HashTable<SlotId>,
    principals: HashMap<PrincipalIndex, Held, foldhash::quality::RandomState>,
    hash: foldhash::quality::RandomState,
    /// Number of the last claim; the highest owns. A counter of the shard, not of the key, so that
    /// no key's number can start again.
    epoch: u64,
}

/// The sessions of one principal on this shard: a list through their slots.
#[derive(Debug)]
struct Held {
    first: u32,
    count: usize,
}

impl Roster {
    /// A roster whose claims are numbered above those of all earlier starts.
    pub(crate) fn new(incarnation: u64) -> Roster {
        Roster::above(incarnation << 40)
    }

    /// A roster whose claims are numbered from behind `epoch`.
    pub(crate) fn above(epoch: u64) -> Roster {
        Roster {
            sessions: HashTable::new(),
            principals: HashMap::default(),
            hash: foldhash::quality::RandomState::default(),
            epoch,
        }
    }

    /// Number of the last claim.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    fn hash(&self, principal: PrincipalIndex, client_id: &str) -> u64 {
        self.hash.hash_one((principal, client_id))
    }
}

/// The shard that is home to a session: the same whichever shard accepts the connection.
pub(crate) fn home_of(principal: EntityId, client_id: &str, shards: usize, seed: u64) -> ShardId {
    let mut hasher = foldhash::quality::FixedState::with_seed(seed).build_hasher();
    principal.hash(&mut hasher);
    client_id.hash(&mut hasher);
    ShardId::new((hasher.finish() % shards as u64) as u8)
}

impl<W: Wires> Shard<W> {
    /// [`session::Step::Claim`]: sends the connection to its session's home, which may be here.
    pub(crate) fn claim(&mut self, token: Token, unread: &[u8]) {
        self.outlets.flush_slot(&self.env, token.slot);
        let slot = self.outlets.slots.slot_mut(token.slot);
        let listener = slot.hot.listener;
        let (Some(pending), Some(wire)) = (slot.machine().take_pending(), slot.wire.take()) else {
            return self.close(token.slot, Closed::Internal);
        };
        let wire = self.outlets.wires.take(wire);
        self.forget_buffers(token.slot);
        self.outlets.slots.remove(token.slot);
        let directory = self.env.shared.cache.directory();
        let key = pending.key();
        // What is anchored has a Client Identifier that nobody else has: it is at home anywhere.
        let home = if self.outlets.wires.is_anchored(&wire) {
            self.env.id
        } else {
            home_of(
                directory.principal_id(key.principal),
                &key.client_id,
                self.env.shared.shards(),
                self.env.shared.seed,
            )
        };
        let mut arrival = Arrival {
            wire,
            pending,
            listener,
            at_home: home == self.env.id,
            unread: unread.to_vec(),
        };
        if arrival.at_home {
            self.arrive(arrival);
        } else {
            let Some(wire) = self.outlets.wires.hand_over(arrival.wire, home) else {
                return self.lost_on_the_way();
            };
            arrival.wire = wire;
            self.outboxes[home.index()]
                .posts
                .push(Post::Arrival(Box::new(arrival)));
        }
    }

    /// A connection has come to its session's home: joins them, in one turn.
    ///
    /// The old connection is closed before the new one hears a byte, so a session never has two
    /// owners. [MQTT-3.1.4-3] [MQTT3-3.1.4-2]
    pub(crate) fn arrive(&mut self, arrival: Arrival<W::Wire>) {
        let key = arrival.pending.key();
        let persistent = arrival.pending.is_persistent();
        if let Some(refusal) = self.refuses(&key, persistent, arrival.listener) {
            return self.refuse_arrival(arrival, refusal, Closed::Refused);
        }
        let now = self.env.now;
        let interval_ms = self.env.shared.limits.takeover_interval_ms;
        let owner = self.find(&key);
        let owner = owner.filter(|owner| self.outlets.slots.slot(*owner).wire.is_some());
        if let Some(owner) = owner {
            if let Some(at) = self.takeovers.too_early(owner, now, interval_ms) {
                return self.delay_takeover(at, arrival);
            }
            self.env.counters.takeovers.add(1);
            self.fail(owner, ReasonCode::SESSION_TAKEN_OVER, Closed::TakenOver);
        }
        self.supersede_delayed(&key);
        let Arrival {
            wire,
            pending,
            listener,
            at_home,
            unread,
        } = arrival;
        let Some(wire) = self.outlets.wires.place(wire) else {
            return self.lost_on_the_way();
        };
        let clean_start = pending.clean_start();
        let mut resumed = None;
        let place = match self.find(&key) {
            Some(parked) if clean_start => {
                self.end_parked(parked);
                self.outlets.slots.insert(listener, self.env.now)
            }
            Some(parked) => {
                resumed = self.outlets.slots.slot_mut(parked).machine().take_parked();
                Some(parked)
            }
            None => self.outlets.slots.insert(listener, self.env.now),
        };
        let Some(id) = place else {
            return self.turn_away(wire);
        };
        self.roster.epoch += 1;
        let epoch = self.roster.epoch;
        let is_new = resumed.is_none();
        if owner.is_some() {
            self.takeovers.note(id, now, interval_ms);
        }
        let before = self.outlets.slots.token(id);
        let slot = self.outlets.slots.slot_mut(id);
        slot.generation = slot.generation.wrapping_add(1);
        slot.hot = session::Hot::new(listener, now);
        slot.wire = Some(wire);
        let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
        let rules = self.env.rules(id, listener);
        slot.machine()
            .attach(pending, resumed, epoch, &rules, &mut out.bytes);
        let silence = slot.hot.silence_ends_s();
        let credentials_end = slot.machine().credentials_end();
        self.outlets.put_out(id, out);
        let token = self.outlets.slots.token(id);
        if let Some(wire) = &self.outlets.slots.slot(id).wire {
            attach(&mut self.outlets.wires, wire, token, at_home);
        }
        self.note_revocable(id);
        self.note_seen(key.principal);
        if let Some(at) = silence {
            self.wheel.insert(token, at);
        }
        if let Some(at) = credentials_end {
            self.outlets.deadlines.insert(at, token, Due::Credentials);
        }
        self.env.counters.connections.add(1);
        self.env.counters.connected.add(1);
        if is_new {
            self.env.counters.sessions.add(1);
            self.enter(id, &key);
        } else {
            self.subs.member_ready(id, true);
            self.replays_follow(before, id);
            self.outlets.pump(&self.env, id);
        }
        if !unread.is_empty() {
            let mut partial = self.outlets.pool.partial();
            partial.extend_from_slice(&unread);
            self.outlets.slots.slot_mut(id).partial = Some(partial);
            self.hungry(id);
        }
    }

    /// Why a claim is not granted, if it is not.
    fn refuses(&self, key: &SessionKey, persistent: bool, listener: u8) -> Option<Refusal> {
        if !self.env.may_serve() {
            return Some(Refusal::Unavailable);
        }
        let directory = self.env.shared.cache.directory();
        // It may have been disabled while it was on its way.
        if !directory.principal_facts(key.principal).live {
            return Some(Refusal::NotAuthorized);
        }
        let limit = self.env.shared.limits.max_sessions_per_principal;
        // In an open namespace all who are nobody in particular are one principal.
        let one = self.env.listeners[usize::from(listener)].open.is_none();
        let many = self
            .roster
            .principals
            .get(&key.principal)
            .is_some_and(|held| held.count >= limit);
        if persistent && one && many && self.find(key).is_none() {
            let held = self
                .slots_of(key.principal)
                .into_iter()
                .filter(|id| match &self.outlets.slots.slot(*id).cold {
                    Cold::Live(live) => live.session().expiry() > 0,
                    Cold::Parked(_) => true,
                    Cold::AwaitConnect | Cold::Authenticating(_) | Cold::Closed => false,
                })
                .count();
            if held >= limit {
                return Some(Refusal::Quota);
            }
        }
        None
    }

    pub(super) fn refuse_arrival(
        &mut self,
        arrival: Arrival<W::Wire>,
        refusal: Refusal,
        why: Closed,
    ) {
        let Arrival {
            wire,
            pending,
            listener,
            at_home,
            ..
        } = arrival;
        let Some(wire) = self.outlets.wires.place(wire) else {
            return self.lost_on_the_way();
        };
        let Some(id) = self.outlets.slots.insert(listener, self.env.now) else {
            return self.turn_away(wire);
        };
        let token = self.outlets.slots.token(id);
        attach(&mut self.outlets.wires, &wire, token, at_home);
        let slot = self.outlets.slots.slot_mut(id);
        slot.wire = Some(wire);
        slot.cold = Cold::Authenticating(pending);
        let mut out = self.outlets.pool.out();
        let rules = self.env.rules(id, listener);
        let outcome = IdentifyOutcome::Refused(refusal);
        slot.machine().identified(outcome, &rules, &mut out.bytes);
        self.outlets.put_out(id, out);
        self.close(id, why);
    }

    /// Closes a connection for which there is no slot.
    fn turn_away(&mut self, wire: W::End) {
        self.outlets.wires.close(wire);
        self.uncount(Closed::Refused);
    }

    /// A connection did not reach its session's home: its peer finds it closed.
    fn lost_on_the_way(&self) {
        self.uncount(Closed::Internal);
    }

    fn uncount(&self, why: Closed) {
        let connections = &self.env.shared.connections;
        connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        self.env.counters.closed(why);
    }

    /// Says why, and closes.
    pub(crate) fn fail(&mut self, id: SlotId, code: ReasonCode, why: Closed) {
        let slot = self.outlets.slots.slot_mut(id);
        slot.fail(code, &mut self.outlets.pool);
        self.close(id, why);
    }

    /// Sends what was written, closes the wire, and does what the end of a connection means for
    /// its session: park or end, will now or later.
    pub(crate) fn close(&mut self, id: SlotId, why: Closed) {
        self.outlets.flush_slot(&self.env, id);
        let slot = self.outlets.slots.slot_mut(id);
        let was_live = slot.hot.is_live();
        if let Some(wire) = slot.wire.take() {
            self.outlets.wires.close(wire);
            self.env
                .shared
                .connections
                .fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            self.env.counters.closed(why);
        }
        self.forget_buffers(id);
        let before = self.outlets.slots.token(id);
        let slot = self.outlets.slots.slot_mut(id);
        slot.generation = slot.generation.wrapping_add(1);
        slot.marks.clear(Marks::WAITING);
        slot.marks.clear(Marks::PAUSED);
        slot.marks.clear(Marks::HUNGRY);
        slot.marks.clear(Marks::TIMED);
        slot.marks.clear(Marks::HELD);
        slot.marks.clear(Marks::GONE);
        if was_live {
            self.env.counters.connections.sub(1);
        }
        let principal = slot.hot.principal;
        match slot.machine().disconnected(self.env.now) {
            Departure::Stranger => self.outlets.slots.remove(id),
            Departure::Parked(parked, will) => {
                let token = self.outlets.slots.token(id);
                if let Some(at) = parked.ends_at {
                    self.outlets.deadlines.insert(at, token, Due::SessionEnd);
                }
                if let Some(at) = parked.will_at {
                    self.outlets.deadlines.insert(at, token, Due::Will);
                }
                self.subs.member_ready(id, false);
                self.replays_follow(before, id);
                self.redispatch(id, false);
                if let Some(will) = will {
                    self.publish_will(will, principal, id);
                }
            }
            Departure::Ended(session) => self.end_session(id, *session),
        }
    }

    /// Ends a session whose client is not there.
    pub(crate) fn end_parked(&mut self, id: SlotId) {
        let session = self.outlets.slots.slot_mut(id).machine().take_parked();
        if let Some(session) = session {
            self.end_session(id, *session);
        }
    }

    /// A session is over: its will is due, its subscriptions go, its messages with them; what it
    /// held for shared groups goes to other members.
    fn end_session(&mut self, id: SlotId, mut session: Session) {
        self.leave(id, &session);
        let will = session.take_will();
        let principal = session.principal();
        for record in session.subscriptions() {
            self.subs
                .unsubscribe(id, record.channel, &record.filter, record.share.as_deref());
        }
        self.env
            .counters
            .subscriptions
            .sub(session.subscriptions().len() as u64);
        self.env.counters.sessions.sub(1);
        self.note_ended(id, session.subscriptions().len());
        self.outlets.slots.slot_mut(id).cold = Cold::Parked(Box::new(session));
        self.redispatch(id, true);
        self.outlets.slots.remove(id);
        if let Some(will) = will {
            self.publish_will(will, principal, id);
        }
    }

    fn forget_buffers(&mut self, id: SlotId) {
        let slot = self.outlets.slots.slot_mut(id);
        slot.backlog = None;
        if let Some(out) = slot.out.take() {
            self.outlets.pool.give_out(out);
        }
        if let Some(partial) = self.outlets.slots.slot_mut(id).partial.take() {
            self.outlets.pool.give_partial(partial);
        }
    }

    /// The slot of a session, if it exists here.
    pub(crate) fn find(&self, key: &SessionKey) -> Option<SlotId> {
        let hash = self.roster.hash(key.principal, &key.client_id);
        let slots = &self.outlets.slots;
        self.roster
            .sessions
            .find(hash, |id| {
                session_of(&slots.slot(*id).cold).is_some_and(|session| {
                    session.principal() == key.principal && session.client_id() == &*key.client_id
                })
            })
            .copied()
    }

    fn enter(&mut self, id: SlotId, key: &SessionKey) {
        let Shard {
            roster, outlets, ..
        } = self;
        let hash = roster.hash(key.principal, &key.client_id);
        let state = &roster.hash;
        let slots = &outlets.slots;
        roster.sessions.insert_unique(hash, id, |id| {
            session_of(&slots.slot(*id).cold).map_or(0, |session| {
                state.hash_one((session.principal(), session.client_id()))
            })
        });
        let held = roster.principals.entry(key.principal).or_insert(Held {
            first: NONE,
            count: 0,
        });
        let next = std::mem::replace(&mut held.first, id.get());
        held.count += 1;
        if next != NONE {
            outlets
                .slots
                .slot_mut(SlotId::new(next))
                .previous_of_principal = id.get();
        }
        let slot = outlets.slots.slot_mut(id);
        slot.next_of_principal = next;
        slot.previous_of_principal = NONE;
    }

    /// Takes a slot, whose session was taken out of it, off the lists.
    fn leave(&mut self, id: SlotId, session: &Session) {
        let hash = self.roster.hash(session.principal(), session.client_id());
        if let Ok(entry) = self.roster.sessions.find_entry(hash, |known| *known == id) {
            entry.remove();
        }
        let slot = self.outlets.slots.slot(id);
        let (next, previous) = (slot.next_of_principal, slot.previous_of_principal);
        if next != NONE {
            self.outlets
                .slots
                .slot_mut(SlotId::new(next))
                .previous_of_principal = previous;
        }
        if previous != NONE {
            self.outlets
                .slots
                .slot_mut(SlotId::new(previous))
                .next_of_principal = next;
        }
        if let Some(held) = self.roster.principals.get_mut(&session.principal()) {
            held.count -= 1;
            if held.first == id.get() {
                held.first = next;
            }
            if held.count == 0 {
                self.roster.principals.remove(&session.principal());
            }
        }
    }

    /// The slots of a principal's sessions.
    pub(crate) fn slots_of(&self, principal: PrincipalIndex) -> Vec<SlotId> {
        let mut found = Vec::new();
        let mut at = self
            .roster
            .principals
            .get(&principal)
            .map_or(NONE, |held| held.first);
        while at != NONE {
            let id = SlotId::new(at);
            found.push(id);
            at = self.outlets.slots.slot(id).next_of_principal;
        }
        found
    }
}

/// Begins to report a wire that has arrived in its slot.
fn attach<W: Wires>(wires: &mut W, wire: &W::End, token: Token, at_home: bool) {
    if at_home {
        wires.attach_again(wire, token);
    } else {
        wires.attach(wire, token);
    }
}

pub(crate) fn session_of(cold: &Cold) -> Option<&Session> {
    match cold {
        Cold::Live(live) => Some(live.session()),
        Cold::Parked(session) => Some(session),
        Cold::AwaitConnect | Cold::Authenticating(_) | Cold::Closed => None,
    }
}
