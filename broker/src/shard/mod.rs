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

pub(crate) mod backlog;
pub(crate) mod env;
pub(crate) mod inbox;
pub(crate) mod notice;
pub(crate) mod outlets;
pub(crate) mod retain;
pub(crate) mod roster;
pub(crate) mod route;
pub(crate) mod shared;
pub(crate) mod slot;
pub(crate) mod subscribe;
pub(crate) mod timers;
pub(crate) mod wires;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use authcache::{Cause, PrincipalIndex};
use codec::mqtt::{QoS, ReasonCode};
use router::{Retained, SlotId, Subs};
use session::{Identify, IdentifyOutcome, Message, Now, Receipt, Refusal, RightsQuestion, Step};

use crate::metrics::Closed;
use crate::shard::env::Env;
use crate::shard::inbox::{Batch, Post};
use crate::shard::outlets::Outlets;
use crate::shard::roster::Roster;
use crate::shard::shared::ToControl;
use crate::shard::slot::Marks;
use crate::shard::timers::{Due, Wheel};
use crate::shard::wires::{Token, Wires};
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
    /// Who was shut out by a revision whose fence has not come: connections that were identified
    /// before may still arrive.
    shut_out: Vec<(u64, PrincipalIndex, Cause)>,
    /// Connections that were identified and wait for a right of their will.
    claiming: Vec<Token>,
    /// Subscribers of the run at hand that cannot take its frames as they are.
    slow: Vec<(SlotId, usize)>,
    inbox: Vec<Batch<W::Wire>>,
    due: Vec<Token>,
    /// How far the shard's life has come.
    stage: Stage,
    pub(crate) sys: Sys,
}

/// The life of a shard.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Stage {
    /// Control has not told its state yet.
    Waiting,
    /// Clients are served.
    Serving,
    /// Everybody was told goodbye.
    Over,
}

/// Packets off the fast path that one connection may have carried out in a turn.
const STEPS_MAX: usize = 64;

/// Milliseconds a user's unknown right is waited for; then it is denied.
const RIGHTS_TIMEOUT_MS: u64 = 500;

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
            outlets: Outlets::new(wires),
            subs,
            retained: Retained::new(|message| message.weight()),
            roster: Roster::new(incarnation),
            outboxes,
            wheel,
            hungry: Vec::new(),
            fences: Vec::new(),
            shut_out: Vec::new(),
            claiming: Vec::new(),
            slow: Vec::new(),
            inbox: Vec::new(),
            due: Vec::new(),
            stage: Stage::Waiting,
            sys: Sys::new(sys_interval_s),
            env,
        }
    }

    /// A turn begins: this is its moment. What was left over from the last one is looked at first.
    pub(crate) fn begin(&mut self, now: Now) {
        self.env.now = now;
        if !self.may_serve() {
            return;
        }
        let hungry = std::mem::take(&mut self.hungry);
        for token in hungry {
            let Some(slot) = self.outlets.slots.current(token) else {
                continue;
            };
            slot.marks.clear(Marks::HUNGRY);
            if slot.marks.has(Marks::WAITING) {
                continue;
            }
            if let Some(partial) = slot.partial.take() {
                self.consume(token, partial);
            }
        }
    }

    /// A connection was accepted. `None` when there is no room for it.
    pub(crate) fn accepted(&mut self, wire: W::Wire, listener: u8) -> Option<Token> {
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

    /// The wire of `token`, if its connection is to be read now.
    pub(crate) fn readable(&mut self, token: Token) -> Option<&mut W::Wire> {
        let slot = self.outlets.slots.current(token)?;
        let held = slot.marks.has(Marks::WAITING)
            || slot.marks.has(Marks::HUNGRY)
            || slot.marks.has(Marks::PAUSED);
        if held { None } else { slot.wire.as_mut() }
    }

    /// Bytes came for the present occupant of a slot.
    pub(crate) fn input(&mut self, token: Token, bytes: &[u8]) {
        self.env.counters.wire_bytes_in.add(bytes.len() as u64);
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        if let Some(mut partial) = slot.partial.take() {
            partial.extend_from_slice(bytes);
            self.consume(token, partial);
            return;
        }
        let used = self.steps(token, bytes);
        if used < bytes.len() {
            let mut partial = self.outlets.pool.partial();
            partial.extend_from_slice(&bytes[used..]);
            self.keep(token, partial);
        }
    }

    fn consume(&mut self, token: Token, mut partial: Box<Vec<u8>>) {
        let used = self.steps(token, &partial);
        if used >= partial.len() {
            self.outlets.pool.give_partial(partial);
        } else {
            partial.drain(..used);
            self.keep(token, partial);
        }
    }

    fn keep(&mut self, token: Token, partial: Box<Vec<u8>>) {
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
    fn steps(&mut self, token: Token, input: &[u8]) -> usize {
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
                    self.route_run(&run);
                    continue;
                }
                Step::Incomplete => break,
                Step::Done => acknowledged = true,
                Step::Publish(publication, receipt) => {
                    let message = &publication.0;
                    self.env.counters.message_in(message.qos(), 1, used as u64);
                    let code = self.route_publication(&publication);
                    if receipt != Receipt::None {
                        self.answer(id, |machine, out| machine.published(receipt, code, out));
                    }
                }
                Step::Refused(why, count) => {
                    self.env.counters.refused(why, u64::from(count));
                    acknowledged = true;
                }
                Step::Health => self.env.counters.health.add(1),
                Step::Subscribe(request) => self.subscribe(id, request),
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

    /// [`Step::Identify`]: from memory if these credentials were seen, else by control. Whether
    /// the connection went on (and took `unread` along).
    fn identify(&mut self, token: Token, what: Identify, unread: &[u8]) -> bool {
        let limits = &self.env.shared.limits;
        let used = self.env.shared.connections.load(Ordering::Relaxed);
        if limits.max_connections > 0 && used > limits.max_connections {
            let outcome = IdentifyOutcome::Refused(Refusal::Quota);
            return self.identified(token, outcome, unread);
        }
        let slot = self.outlets.slots.slot(token.slot);
        let listener = slot.hot.listener;
        if let Identify::Password {
            username: Some(username),
            password: Some(password),
        } = &what
        {
            let credentials = self.env.shared.cache.credentials();
            let known = if self.env.listeners[usize::from(listener)].open.is_some() {
                credentials.check(Some(&open_username(listener, username)), Some(password))
            } else {
                credentials.check(Some(username), Some(password))
            };
            if let Some(principal) = known {
                self.env.counters.identified_from_memory.add(1);
                return self.identified(token, IdentifyOutcome::Known(principal, None), unread);
            }
        }
        self.env.counters.identify_asked.add(1);
        let peer = slot
            .wire
            .as_ref()
            .and_then(|wire| self.outlets.wires.peer(wire));
        let question = ToControl::Identify {
            shard: self.env.id,
            token,
            listener,
            peer,
            what,
        };
        if !self.env.shared.control.ask(question) {
            let outcome = IdentifyOutcome::Refused(Refusal::Unavailable);
            return self.identified(token, outcome, unread);
        }
        let at = self.env.now.plus_millis(limits.auth_timeout_ms);
        self.outlets.deadlines.insert(at, token, Due::Identify);
        self.wait(token.slot);
        false
    }

    fn wait(&mut self, id: SlotId) {
        self.outlets.slots.slot_mut(id).marks.set(Marks::WAITING);
        self.outlets.watch_as_marked(id);
    }

    /// The answer to an Identify is there. Whether the connection took `unread` along.
    pub(crate) fn identified(
        &mut self,
        token: Token,
        outcome: IdentifyOutcome,
        unread: &[u8],
    ) -> bool {
        let Some(slot) = self.outlets.slots.current(token) else {
            return true;
        };
        if !slot.machine().awaits_identity() {
            // It came after the timeout.
            return false;
        }
        slot.marks.clear(Marks::WAITING);
        let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
        let start = out.bytes.len();
        let rules = self.env.rules(token.slot, slot.hot.listener);
        let step = slot.machine().identified(outcome, &rules, &mut out.bytes);
        let credentials_end = slot.machine().credentials_end();
        out.claim(start);
        self.outlets.put_out(token.slot, out);
        if let Some(at) = credentials_end {
            self.outlets.deadlines.insert(at, token, Due::Credentials);
        }
        self.carry_out(token, step, unread)
    }

    /// Carries out a step that an answer led to. Whether the connection took `unread` along.
    fn carry_out(&mut self, token: Token, step: Step<'_>, unread: &[u8]) -> bool {
        match step {
            Step::Claim(_) => {
                self.claim(token, unread);
                true
            }
            Step::Close(code) => {
                let why = if self.outlets.slots.slot(token.slot).hot.is_live() {
                    closed_by(code)
                } else {
                    Closed::Refused
                };
                self.close(token.slot, why);
                true
            }
            Step::Wait(question) => {
                self.ask_rights(token, question);
                false
            }
            _ => {
                self.outlets.watch_as_marked(token.slot);
                self.hungry(token.slot);
                false
            }
        }
    }

    /// [`Step::Wait`]: this connection alone is not read until control has answered.
    fn ask_rights(&mut self, token: Token, question: RightsQuestion) {
        self.env.counters.right_misses.add(1);
        let shard = self.env.id;
        if self.env.shared.control.ask(ToControl::Rights {
            shard,
            token: Some(token),
            question,
        }) {
            let at = self.env.now.plus_millis(RIGHTS_TIMEOUT_MS);
            self.outlets.deadlines.insert(at, token, Due::Rights);
            if self.is_claiming(token) {
                let mut claiming = std::mem::take(&mut self.claiming);
                claiming.retain(|other| self.is_claiming(*other));
                claiming.push(token);
                self.claiming = claiming;
            }
            self.wait(token.slot);
        } else {
            self.rights_unknown(token);
        }
    }

    fn is_claiming(&mut self, token: Token) -> bool {
        let slot = self.outlets.slots.current(token);
        slot.is_some_and(|slot| slot.machine().is_before_connack())
    }

    /// A right could not be found out: whoever asked for it is told to come back.
    fn rights_unknown(&mut self, token: Token) {
        if self.outlets.slots.current(token).is_some() {
            self.fail(
                token.slot,
                ReasonCode::SERVER_UNAVAILABLE,
                Closed::AuthTimeout,
            );
        }
    }

    fn rights_answered(&mut self, token: Token, answered: bool) {
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        if !slot.marks.has(Marks::WAITING) {
            return;
        }
        slot.marks.clear(Marks::WAITING);
        if !answered {
            return self.rights_unknown(token);
        }
        slot.hot.rights_changed();
        if slot.machine().is_before_connack() {
            let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
            let rules = self.env.rules(token.slot, slot.hot.listener);
            let step = slot.machine().check_will(&rules, &mut out.bytes);
            self.outlets.put_out(token.slot, out);
            let slot = self.outlets.slots.slot_mut(token.slot);
            let unread = slot
                .partial
                .take()
                .map_or_else(Vec::new, |partial| *partial);
            if !self.carry_out(token, step, &unread)
                && let Some(slot) = self.outlets.slots.current(token)
            {
                slot.partial = Some(Box::new(unread));
            }
            return;
        }
        self.outlets.watch_as_marked(token.slot);
        self.hungry(token.slot);
    }

    /// The end of a turn: outboxes posted, inbox drained, everything sent, fences acknowledged.
    pub(crate) fn end(&mut self) {
        self.run_timers();
        self.publish_sys();
        self.post();
        self.drain();
        self.post();
        // Before a fence is acknowledged nothing judged earlier is left in an out-buffer: it is sent,
        // or, without a lease, in a backlog.
        loop {
            let lost = self.outlets.flush(&self.env);
            for token in lost {
                self.lost(token);
            }
            if !self.outlets.has_touched() {
                break;
            }
        }
        self.post();
        self.ask_unknown();
        for round in std::mem::take(&mut self.fences) {
            self.env.shared.control.fenced(round);
        }
    }

    /// Asks for the rights of users that routing found unknown; their subscriptions sleep until
    /// the answer is there.
    fn ask_unknown(&mut self) {
        let shard = self.env.id;
        for (principal, channel) in self.subs.take_unknown() {
            let question = RightsQuestion { principal, channel };
            // A full mailbox is asked again when the subscription is judged again.
            self.env.shared.control.ask(ToControl::Rights {
                shard,
                token: None,
                question,
            });
        }
    }

    /// The peer of a wire is gone.
    pub(crate) fn lost(&mut self, token: Token) {
        if self.outlets.slots.current(token).is_some() {
            self.close(token.slot, Closed::Lost);
        }
    }

    /// A wire takes bytes again.
    pub(crate) fn writable(&mut self, token: Token) {
        if !self.outlets.writable(&self.env, token) {
            self.lost(token);
        }
    }

    fn post(&mut self) {
        // Own posts too: they are looked at behind those of others, in the next drain.
        for at in 0..self.outboxes.len() {
            self.post_to(at);
        }
    }

    /// Posts what there is for one shard.
    pub(crate) fn post_to(&mut self, at: usize) {
        if self.outboxes[at].is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.outboxes[at]);
        let dropped = self.env.shared.inboxes[at].post(batch);
        self.env.counters.dropped_handover.add(dropped);
    }

    fn drain(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        self.env.shared.inboxes[self.env.id.index()].take(&mut inbox);
        for batch in inbox.drain(..) {
            let Batch { posts, bytes } = batch;
            for post in posts {
                self.receive(post, &bytes);
            }
        }
        self.inbox = inbox;
    }

    fn receive(&mut self, post: Post<W::Wire>, bytes: &[u8]) {
        match post {
            Post::Run(run) => {
                if let Some(run) = self.env.gate.handed_over(run.run(bytes)) {
                    self.deliver_run(&run);
                }
            }
            Post::Message(message) => {
                let publication = session::Publication(message);
                if let Some(publication) = self.env.gate.handed_over(publication) {
                    self.deliver_message(&publication);
                }
            }
            Post::Shared {
                group,
                message,
                passed,
            } => {
                self.shared_arrived(&group, &message, passed);
            }
            Post::Retain(message) => {
                // Its channel may be gone since; the next one may get the same index.
                let publication = session::Publication(message);
                if let Some(publication) = self.env.gate.handed_over(publication) {
                    self.retain_here(&publication.0);
                }
            }
            Post::RetainedAsk(ask) => self.answer_retained(*ask),
            Post::RetainedGive(give) => self.give_retained(*give),
            Post::Arrival(arrival) => self.arrive(*arrival),
            Post::Identified { token, outcome } => {
                let unread = self
                    .outlets
                    .slots
                    .current(token)
                    .and_then(|slot| slot.partial.take())
                    .map_or_else(Vec::new, |partial| *partial);
                if !self.identified(token, outcome, &unread)
                    && let Some(slot) = self.outlets.slots.current(token)
                {
                    slot.partial = Some(Box::new(unread));
                }
            }
            Post::RightsAnswered {
                token: Some(token),
                answered,
                ..
            } => {
                self.rights_answered(token, answered);
            }
            Post::RightsAnswered {
                token: None,
                question,
                ..
            } => {
                self.rights_changed(question.principal);
            }
            Post::Notice { revision, notice } => self.notice(revision, notice),
            Post::Fence { round, covers } => {
                if let Some(revision) = covers {
                    self.close_late_arrivals(revision);
                }
                self.fences.push(round);
            }
            Post::Serve(listeners) => {
                self.env.listeners = listeners;
                self.stage = Stage::Serving;
            }
            Post::Shutdown => self.shut_down(),
        }
    }

    fn run_timers(&mut self) {
        let now = self.env.now;
        let mut due = std::mem::take(&mut self.due);
        self.wheel.due(now, &mut due);
        for token in due.drain(..) {
            let Some(slot) = self.outlets.slots.current(token) else {
                continue;
            };
            match slot.hot.silence_ends_s() {
                // What is read in this turn was looked at before the timers.
                Some(at) if at <= now.as_secs() => {
                    self.fail(
                        token.slot,
                        ReasonCode::KEEP_ALIVE_TIMEOUT,
                        Closed::KeepAlive,
                    );
                }
                Some(at) => self.wheel.insert(token, at),
                None => {}
            }
        }
        self.due = due;
        while let Some((token, due)) = self.outlets.deadlines.pop(now) {
            self.deadline(token, due);
        }
    }

    fn deadline(&mut self, token: Token, due: Due) {
        let now = self.env.now;
        let stall_ms = self.env.shared.limits.write_stall_timeout_ms;
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        let waiting = slot.marks.has(Marks::WAITING);
        match due {
            Due::Connect if slot.machine().is_before_connack() && !waiting => {
                self.close(token.slot, Closed::ConnectTimeout);
            }
            Due::Identify if waiting && slot.machine().awaits_identity() => {
                let outcome = IdentifyOutcome::Refused(Refusal::Unavailable);
                self.identified(token, outcome, &[]);
            }
            Due::Rights if waiting => self.rights_answered(token, false),
            Due::Credentials => {
                if slot.machine().credentials_end().is_some_and(|at| at <= now) {
                    let code = ReasonCode::MAXIMUM_CONNECT_TIME;
                    self.fail(token.slot, code, Closed::CredentialsExpired);
                }
            }
            Due::WriteStall => {
                let progress = slot.backlog.as_ref().map(|backlog| backlog.progress_ms);
                if let Some(progress_ms) = progress {
                    let at = Now::from_millis(progress_ms).plus_millis(stall_ms);
                    if at <= now {
                        self.close(token.slot, Closed::WriteStall);
                    } else {
                        self.outlets.deadlines.insert(at, token, Due::WriteStall);
                    }
                }
            }
            Due::Will => {
                let principal = slot.hot.principal;
                let will = slot
                    .machine()
                    .session()
                    .and_then(|session| session.take_will());
                if let Some(will) = will {
                    self.publish_will(will, principal, token.slot);
                }
            }
            Due::SessionEnd => self.end_parked(token.slot),
            Due::Connect | Due::Identify | Due::Rights => {}
        }
    }

    /// Whether new connections are accepted.
    pub(crate) fn accepts(&self) -> bool {
        self.stage == Stage::Serving
    }

    /// Whether connections may be read and messages sent: not while the lease is over.
    pub(crate) fn may_serve(&self) -> bool {
        self.env.may_serve()
    }

    /// Whether the shard has shut down.
    pub(crate) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Says that the shard is about to sleep; `false` if something came meanwhile.
    pub(crate) fn may_sleep(&self) -> bool {
        self.env.shared.inboxes[self.env.id.index()].may_sleep()
    }

    /// Says that the shard is awake.
    pub(crate) fn awake(&self) {
        self.env.shared.inboxes[self.env.id.index()].awake();
    }

    /// Notes how long a turn took.
    pub(crate) fn record_turn(&self, us: u64) {
        self.env.counters.turns.record(us);
    }

    /// Whether the next turn has to follow at once.
    pub(crate) fn is_busy(&self) -> bool {
        !self.hungry.is_empty() && self.may_serve()
    }

    /// When the shard has to be driven again at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Now> {
        let wheel = self
            .outlets
            .slots
            .any_used()
            .then(|| Now::from_millis(u64::from(self.env.now.as_secs() + 1) * 1000));
        match (wheel, self.outlets.deadlines.next()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn shut_down(&mut self) {
        let used: Vec<SlotId> = self.outlets.slots.used().collect();
        for id in used {
            let slot = self.outlets.slots.slot(id);
            if slot.wire.is_some() && slot.marks.has(Marks::USED) {
                self.fail(id, ReasonCode::SERVER_SHUTTING_DOWN, Closed::Shutdown);
            }
        }
        self.stage = Stage::Over;
    }
}

/// The user name of an open listener as it is remembered: names are unique only there.
pub(crate) fn open_username(listener: u8, username: &str) -> String {
    format!("{listener}\0{username}")
}

fn closed_by(code: ReasonCode) -> Closed {
    if code == ReasonCode::SUCCESS || code == ReasonCode::DISCONNECT_WITH_WILL_MESSAGE {
        Closed::Client
    } else {
        Closed::Protocol
    }
}
