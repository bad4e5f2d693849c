//! The shipped parts of one broker, driven by hand: shards, inboxes, link, and control's leader
//! at the other end of a virtual pipe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use authcache::feed::{Answer, Leader, LeaderEvent, LeaseTerms, LinkId, Snapshot};
use authcache::{AuthCache, Capacity, Change, EntityId, Identity};
use router::{Interest, ShardId, SharedGroups, Subs};
use session::{IdSource, Limits, ListenerRules, Now};

use super::database::Database;
use super::dice::Dice;
use super::net::{Net, SimWire, SimWires};
use crate::link::{Link, LinkListener};
use crate::metrics::{ControlCounters, Counters};
use crate::shard::Shard;
use crate::shard::env::Env;
use crate::shard::inbox::Inbox;
use crate::shard::shared::{ControlMailbox, Shared};

/// A shard and where its thread stands.
pub(super) struct Driven {
    pub(super) shard: Shard<SimWires>,
    woken: Arc<AtomicBool>,
    asleep: bool,
    /// Wires to serve in the turn under way; `None` between turns.
    turn: Option<Vec<usize>>,
    /// When the turn before the last one began.
    pub(super) last_turn: Now,
    turn_began: Now,
}

/// Something that control read and has not handed to its leader.
enum Read {
    Snapshot(LinkId, u64, Vec<Change>, Vec<Identity>),
    Answer(LinkId, u64, u64, Answer),
}

/// What a simulated broker is made of.
pub(super) struct Broker {
    pub(super) shared: Arc<Shared<SimWire>>,
    pub(super) shards: Vec<Driven>,
    pub(super) net: Rc<RefCell<Net>>,
    pub(super) now: Now,
    link: Link<SimWire>,
    counters: Arc<ControlCounters>,
    leader: Leader,
    leader_link: Option<LinkId>,
    terms: LeaseTerms,
    asked: Arc<AtomicBool>,
    to_leader: VecDeque<u8>,
    to_link: VecDeque<u8>,
    reads: Vec<Read>,
}

impl Broker {
    pub(super) fn new(shards: usize, limits: Limits, terms: LeaseTerms, dice: &mut Dice) -> Broker {
        let (cache, writer) = AuthCache::new(Capacity {
            domains: 4,
            channels: 16,
            principals: 16,
            rights: 64,
            credentials: 100,
        });
        let woken: Vec<Arc<AtomicBool>> = (0..shards).map(|_| Arc::default()).collect();
        let asked: Arc<AtomicBool> = Arc::default();
        let wake = |flag: &Arc<AtomicBool>| -> Box<dyn Fn() + Send + Sync> {
            let flag = Arc::clone(flag);
            Box::new(move || flag.store(true, Ordering::Relaxed))
        };
        let shared = Arc::new(Shared {
            groups: Arc::new(SharedGroups::new()),
            cache: Arc::clone(&cache),
            interest: Arc::new(Interest::new()),
            inboxes: woken.iter().map(|flag| Inbox::new(wake(flag))).collect(),
            counters: (0..shards).map(|_| Arc::new(Counters::default())).collect(),
            limits,
            control: ControlMailbox::new(wake(&asked)),
            connections: AtomicUsize::new(0),
            retained: AtomicU64::new(0),
            retained_bytes: AtomicU64::new(0),
            drained: AtomicUsize::new(0),
            seed: dice.number(),
        });
        let net = Rc::new(RefCell::new(Net::new(Dice::new(dice.number()))));
        let driven = woken.into_iter().enumerate().map(|(at, woken)| {
            let id = ShardId::new(at as u8);
            let env = Env {
                id,
                shared: Arc::clone(&shared),
                gate: cache.gate(),
                listeners: vec![ListenerRules::default()],
                ids: IdSource::new(dice.number()),
                counters: Arc::clone(&shared.counters[at]),
                now: Now::from_millis(0),
            };
            let (interest, groups) = (Arc::clone(&shared.interest), Arc::clone(&shared.groups));
            let subs = Subs::new(id, shards, interest, groups, dice.number());
            let wires = SimWires {
                shard: at,
                net: Rc::clone(&net),
            };
            Driven {
                shard: Shard::new(env, wires, subs, 1, 0),
                woken,
                asleep: false,
                turn: None,
                last_turn: Now::default(),
                turn_began: Now::default(),
            }
        });
        let shards = driven.collect();
        let listener = LinkListener {
            close_on_refused: false,
            close_on_revoked: false,
            open: None,
            anonymous: false,
        };
        let node = EntityId::from_u128(1 << 100);
        let counters = Arc::new(ControlCounters::default());
        let link = Link::new(
            Arc::clone(&shared),
            Arc::clone(&counters),
            writer,
            node,
            1,
            vec![listener],
        );
        Broker {
            shared,
            shards,
            net,
            now: Now::from_millis(1_000),
            link,
            counters,
            leader: Leader::new(1, false, 1_000),
            leader_link: None,
            terms,
            asked,
            to_leader: VecDeque::new(),
            to_link: VecDeque::new(),
            reads: Vec::new(),
        }
    }

    /// A shard panics wherever it is in its turn, and begins anew as its thread lets it.
    pub(super) fn panic(&mut self, at: usize, dice: &mut Dice) {
        let woken = Arc::clone(&self.shards[at].woken);
        let Driven { shard, .. } = self.shards.remove(at);
        let remains = shard.abandon();
        let shared = &self.shared;
        let subs = Subs::new(
            ShardId::new(at as u8),
            shared.shards(),
            Arc::clone(&shared.interest),
            Arc::clone(&shared.groups),
            dice.number(),
        );
        let wires = SimWires {
            shard: at,
            net: Rc::clone(&self.net),
        };
        let shard = Shard::anew(remains, wires, subs, dice.number());
        self.shards.insert(
            at,
            Driven {
                shard,
                woken,
                asleep: false,
                turn: None,
                last_turn: self.now,
                turn_began: self.now,
            },
        );
    }

    /// Whether users' rights were forgotten because control was slow.
    pub(super) fn has_voided(&self) -> bool {
        self.counters.rights_voided.load(Ordering::Relaxed) > 0
    }

    /// A pipe between link and leader.
    pub(super) fn join(&mut self) {
        self.leader_link = Some(self.leader.connected(self.terms, self.now.as_millis()));
        self.link.connected(self.now);
    }

    /// The pipe is cut; what was on its way is lost.
    pub(super) fn cut(&mut self) {
        if let Some(link) = self.leader_link.take() {
            self.to_leader.clear();
            self.to_link.clear();
            self.leader.disconnected(link, self.now.as_millis());
            self.link.disconnected(self.now);
        }
    }

    pub(super) fn has_lease(&self) -> bool {
        self.shared.cache.lease().valid(self.now.as_millis())
    }

    pub(super) fn is_joined(&self) -> bool {
        self.leader_link.is_some()
    }

    pub(super) fn in_turn(&self, at: usize) -> bool {
        self.shards[at].turn.is_some()
    }

    /// Whether the thread of a shard would run.
    pub(super) fn may_run(&self, at: usize) -> bool {
        let driven = &self.shards[at];
        driven.turn.is_some()
            || !driven.asleep
            || driven.woken.load(Ordering::Relaxed)
            || driven
                .shard
                .next_timeout()
                .is_some_and(|due| due <= self.now)
            || !self.net.borrow().ready(at).is_empty()
            || self.waits_at_listener(at)
    }

    fn waits_at_listener(&self, at: usize) -> bool {
        let net = self.net.borrow();
        let waits = |conn: &super::net::Conn| conn.listener_shard == at && !conn.accepted;
        self.shards[at].shard.accepts() && net.conns.iter().any(waits)
    }

    /// A part of a shard's turn: its beginning, one event, or its end.
    pub(super) fn run(&mut self, at: usize, dice: &mut Dice) {
        match self.shards[at].turn.take() {
            None => self.begin(at, dice),
            Some(mut events) => match events.pop() {
                Some(conn) => {
                    self.shards[at].turn = Some(events);
                    self.event(at, conn, dice);
                }
                None => self.end(at),
            },
        }
    }

    fn begin(&mut self, at: usize, dice: &mut Dice) {
        let now = self.now;
        let driven = &mut self.shards[at];
        driven.asleep = false;
        driven.woken.store(false, Ordering::Relaxed);
        driven.shard.awake();
        driven.last_turn = driven.turn_began;
        driven.turn_began = now;
        for conn in &mut self.net.borrow_mut().conns {
            if conn.place.is_some_and(|(shard, _)| shard == at) {
                (conn.sends, conn.direct) = (0, 0);
            }
        }
        driven.shard.begin(now);
        if driven.shard.accepts() {
            let new: Vec<usize> = {
                let mut net = self.net.borrow_mut();
                let conns = net.conns.iter_mut().enumerate();
                conns
                    .filter(|(_, conn)| conn.listener_shard == at && !conn.accepted)
                    .map(|(id, conn)| {
                        conn.accepted = true;
                        id
                    })
                    .collect()
            };
            for id in new {
                let wire = self.net.borrow().wire(id);
                self.shards[at].shard.accepted(wire, 0);
            }
        }
        let mut events = self.net.borrow().ready(at);
        let shard = &mut self.shards[at].shard;
        if !shard.may_serve() {
            // Only those are heard that have to be refused.
            let net = self.net.borrow();
            events.retain(|conn| {
                let place = net.conns[*conn].place;
                place.is_some_and(|(_, token)| shard.is_new(token))
            });
        }
        for last in (1..events.len()).rev() {
            events.swap(last, dice.roll(last + 1));
        }
        self.shards[at].turn = Some(events);
    }

    /// As the reactor serves one connection.
    fn event(&mut self, at: usize, conn: usize, dice: &mut Dice) {
        let shard = &mut self.shards[at].shard;
        let (place, (read, write, broken)) = {
            let net = self.net.borrow();
            (net.conns[conn].place, net.readiness(conn))
        };
        let Some((_, token)) = place.filter(|(shard, _)| *shard == at) else {
            return;
        };
        if write {
            shard.writable(token);
        }
        if !read && !broken {
            return;
        }
        // Done by `input` too; here so that the watch sees only bytes that are looked at.
        shard.catch_up();
        if !matches!(shard.readable(token), crate::shard::wires::Readable::Now(_)) {
            if broken {
                shard.lost(token);
            }
            return;
        }
        let most = if dice.percent(20) {
            1 + dice.roll(20)
        } else {
            64 << 10
        };
        let bytes = self.net.borrow_mut().receive(conn, most);
        match bytes {
            Some(bytes) if bytes.is_empty() => shard.lost(token),
            Some(bytes) => shard.input(token, &bytes),
            None => {}
        }
    }

    fn end(&mut self, at: usize) {
        let driven = &mut self.shards[at];
        driven.shard.end();
        driven.asleep =
            driven.shard.may_serve() && !driven.shard.is_busy() && driven.shard.may_sleep();
    }

    /// The link's task wakes for the shards.
    pub(super) fn link_requests(&mut self) {
        if self.asked.swap(false, Ordering::Relaxed) {
            self.link
                .take_requests(self.now, self.now.as_millis() * 1000);
            self.link_output();
        }
    }

    fn link_output(&mut self) {
        let mut out = Vec::new();
        self.link.output(&mut out);
        if self.leader_link.is_some() {
            self.to_leader.extend(out);
        }
    }

    /// Time passed for link and leader.
    pub(super) fn tick(&mut self) {
        self.link.tick(self.now);
        self.link_output();
        self.leader.tick(self.now.as_millis());
    }

    /// Bytes of the feed travel; whether there were any.
    pub(super) fn carry_feed(&mut self, most: usize) -> bool {
        self.link_output();
        let Some(link) = self.leader_link else {
            return false;
        };
        let count = most.min(self.to_leader.len());
        let bytes: Vec<u8> = self.to_leader.drain(..count).collect();
        let fed = self.leader.input(link, &bytes, self.now.as_millis());
        fed.expect("the link speaks the feed");
        let mut out = Vec::new();
        self.leader.output(link, &mut out);
        self.to_link.extend(out);
        let count = most.min(self.to_link.len());
        let told: Vec<u8> = self.to_link.drain(..count).collect();
        if !told.is_empty() {
            let now_us = self.now.as_millis() * 1000;
            self.link
                .input(&told, self.now, now_us)
                .expect("the leader speaks the feed");
            self.link_output();
        }
        !bytes.is_empty() || !told.is_empty()
    }

    /// Control acts: gives out one committed transaction, or hands over what it read. Whether it
    /// had something to do.
    pub(super) fn control(&mut self, database: &mut Database, dice: &mut Dice) -> bool {
        let reads = self.reads.len();
        if reads > 0 && (database.outbox.is_empty() || dice.percent(50)) {
            match self.reads.swap_remove(dice.roll(reads)) {
                Read::Snapshot(link, revision, changes, identities) => {
                    let snapshot = Snapshot {
                        revision,
                        changes,
                        identities,
                        afresh: false,
                    };
                    self.leader.snapshot(link, snapshot);
                }
                Read::Answer(link, number, revision, answer) => {
                    self.leader.answer(link, number, revision, answer);
                }
            }
            return true;
        }
        if database.outbox.is_empty() {
            return false;
        }
        let (revision, changes) = database.outbox.remove(0);
        self.leader.publish(revision, changes);
        true
    }

    /// What the leader asks of its owner; the revision that was settled, if one was.
    pub(super) fn leader_events(&mut self, database: &Database) -> Option<u64> {
        let mut settled = None;
        while let Some(event) = self.leader.poll() {
            match event {
                LeaderEvent::Joined { link, held, .. } => {
                    let identities = database.identities(&held);
                    let changes = database.directory();
                    self.reads
                        .push(Read::Snapshot(link, database.revision, changes, identities));
                }
                LeaderEvent::Asked {
                    link,
                    number,
                    question,
                } => {
                    let answer = database.answer(&question);
                    self.reads
                        .push(Read::Answer(link, number, database.revision, answer));
                }
                LeaderEvent::Settled { revision } => settled = Some(revision),
                LeaderEvent::Active { .. } => {}
                LeaderEvent::Overrun { .. } => panic!("nothing here is that long"),
            }
        }
        settled
    }

    /// Sums a figure over all shards.
    pub(super) fn sum(&self, of: impl Fn(&Counters) -> u64) -> u64 {
        self.shared
            .counters
            .iter()
            .map(|counters| of(counters))
            .sum()
    }
}
