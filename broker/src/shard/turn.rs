//! A turn from begin to end: what was left over, what others posted, what became due, and the flush.

use std::sync::atomic::Ordering;

use authcache::ChannelIndex;
use codec::mqtt::ReasonCode;
use router::SlotId;
use session::{IdentifyOutcome, Now, Refusal};

use crate::metrics::Closed;
use crate::shard::inbox::{Batch, Post};
use crate::shard::slot::Marks;
use crate::shard::timers::Due;
use crate::shard::wires::{Token, Wires};
use crate::shard::{Shard, Stage};

impl<W: Wires> Shard<W> {
    /// A turn begins: this is its moment. What was left over from the last one is looked at first.
    pub(crate) fn begin(&mut self, now: Now) {
        self.env.now = now;
        self.outlets.begin();
        self.spent_for_others = 0;
        if !self.may_serve() {
            return self.wait_for_lease();
        }
        self.without_lease = None;
        if self.holds_back() {
            return;
        }
        self.spent = 0;
        let much = self.wide.is_much();
        let mut later = Vec::new();
        for token in std::mem::take(&mut self.hungry) {
            let spent = self.is_spent();
            let Some(slot) = self.outlets.slots.current(token) else {
                continue;
            };
            if spent || (much && slot.marks.has(Marks::HELD)) {
                later.push(token);
                continue;
            }
            slot.marks.clear(Marks::HELD);
            slot.marks.clear(Marks::HUNGRY);
            let waits = slot.marks.has(Marks::WAITING);
            if let Some(partial) = slot.partial.take_if(|_| !waits) {
                self.consume(token, partial);
            }
            let slot = self.outlets.slots.current(token);
            if slot.is_some_and(|slot| slot.marks.has(Marks::GONE)) {
                self.lost(token);
            }
        }
        // Who has not had its turn comes first in the next one.
        if !later.is_empty() {
            later.append(&mut self.hungry);
            self.hungry = later;
        }
        // What was left over takes nothing from those who are read now.
        self.spent = 0;
    }

    /// What others posted before a peer sent its bytes comes first: a message that was acknowledged
    /// earlier is not matched by a subscription made later.
    pub(crate) fn catch_up(&mut self) {
        if self.env.shared.inboxes[self.env.id.index()].is_waiting() {
            self.drain();
        }
    }

    /// The end of a turn: outboxes posted, inbox drained, everything sent, fences acknowledged.
    pub(crate) fn end(&mut self) {
        self.run_timers();
        self.publish_sys();
        self.post();
        self.drain();
        self.replay();
        self.deliver_slice();
        let behind = self.wide.is_too_much();
        self.env.shared.inboxes[self.env.id.index()].set_behind(behind);
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
        let (hits, misses) = self.env.gate.lookups();
        self.env.counters.right_cache_hits.set(hits);
        self.env.counters.right_cache_misses.set(misses);
        self.env.counters.owed.set(self.wide.owed() as u64);
        if self.wide.is_empty() {
            let drains = std::mem::take(&mut self.drains);
            self.env.shared.drained.fetch_add(drains, Ordering::Release);
        }
    }

    pub(super) fn post(&mut self) {
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

    /// Looks at what others posted. It takes nothing from those who are read; where it is more than
    /// a turn's share, its deliveries are made in slices.
    pub(super) fn drain(&mut self) {
        std::mem::swap(&mut self.spent, &mut self.spent_for_others);
        let mut inbox = std::mem::take(&mut self.inbox);
        self.arriving += self.env.shared.inboxes[self.env.id.index()].take(&mut inbox);
        for batch in inbox.drain(..) {
            let Batch { posts, bytes } = batch;
            for post in posts {
                self.receive(post, &bytes);
            }
        }
        self.inbox = inbox;
        std::mem::swap(&mut self.spent, &mut self.spent_for_others);
    }

    pub(super) fn receive(&mut self, post: Post<W::Wire>, bytes: &[u8]) {
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
                // Its channel may be gone since, and the next one may get the same index. One that
                // is merely disabled keeps what it has.
                let channel = message.address().channel;
                let directory = self.env.shared.cache.directory();
                if channel == ChannelIndex::SYS || directory.channel_id(channel).is_some() {
                    self.retain_here(&message);
                }
            }
            Post::RetainedAsk(ask) => self.answer_retained(*ask),
            Post::RetainedGive(give) => self.give_retained(*give),
            Post::Accepted { wire, listener } => {
                self.accepted(wire, listener);
            }
            Post::Arrival(arrival) => {
                self.arriving -= 1;
                self.arrive(*arrival);
            }
            // Asked by a shard that is no more, and its tokens mean nothing here.
            Post::Identified { .. } | Post::RightsAnswered { .. }
                if self.stage == Stage::Waiting => {}
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
                answered,
            } => {
                self.rights_changed(question.principal);
                self.wills_answered(question, answered);
                self.wide_answered(question, answered);
            }
            Post::Key { number, key } => self.outlets.wires.key(number, key),
            Post::Notice { told, notice } => self.notice(told, notice),
            Post::Fence { round, covers } => {
                if let Some(told) = covers {
                    self.close_late_arrivals(told);
                }
                self.fences.push(round);
            }
            Post::Serve(listeners) => {
                self.env.listeners = listeners;
                self.stage = Stage::Serving;
            }
            Post::Drain => {
                self.stage = Stage::Draining;
                self.drains += 1;
            }
            Post::Shutdown => self.shut_down(),
            #[cfg(test)]
            Post::Panic => panic!("as it was asked to"),
        }
    }

    pub(super) fn run_timers(&mut self) {
        if !self.wills.is_empty() {
            self.wills_leased();
        }
        let now = self.env.now;
        self.admit_delayed();
        self.tell_activity();
        let leased = self.may_serve();
        let mut due = std::mem::take(&mut self.due);
        self.wheel.due(now, &mut due);
        for token in due.drain(..) {
            let Some(slot) = self.outlets.slots.current(token) else {
                continue;
            };
            match slot.hot.silence_ends_s() {
                // What is read in this turn was looked at before the timers; what was read and waits
                // here is a sign of life as well. Without a lease nobody is heard.
                Some(at) if at <= now.as_secs() && (!leased || slot.marks.has(Marks::HUNGRY)) => {
                    self.wheel.insert(token, now.as_secs() + 1);
                }
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
        while let Some((at, token, due)) = self.outlets.deadlines.pop(now) {
            self.deadline(at, token, due);
        }
        self.outlets.forget_stale_deadlines();
        let slots = &mut self.outlets.slots;
        self.wheel.prune(|token| slots.current(token).is_some());
    }

    pub(super) fn deadline(&mut self, at: Now, token: Token, due: Due) {
        let now = self.env.now;
        let stall_ms = self.env.shared.limits.write_stall_timeout_ms;
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        let waiting = slot.marks.has(Marks::WAITING);
        // A deadline of an earlier question says nothing of the one that is open now.
        let awaited = waiting && slot.is_awaited_until(at);
        match due {
            Due::Connect if slot.machine().is_before_connack() && !waiting => {
                self.close(token.slot, Closed::ConnectTimeout);
            }
            Due::Identify if awaited && slot.machine().awaits_identity() => {
                let outcome = IdentifyOutcome::Refused(Refusal::Unavailable);
                self.identified(token, outcome, &[]);
            }
            Due::Rights if awaited => self.rights_answered(token, false),
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
                } else {
                    slot.marks.clear(Marks::TIMED);
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

    /// Whether another shard has so much to do for this one's clients that they have to wait: what
    /// was acknowledged to them is in its inbox and is not dropped.
    pub(crate) fn holds_back(&self) -> bool {
        let inboxes = self.env.shared.inboxes.iter().enumerate();
        inboxes
            .filter(|(at, _)| *at != self.env.id.index())
            .any(|(_, inbox)| inbox.is_full())
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
        (!self.hungry.is_empty() || self.replaying || self.wide.is_ready()) && self.may_serve()
    }

    /// When the shard has to be driven again at the latest.
    pub(crate) fn next_timeout(&self) -> Option<Now> {
        // What the last client did is told although nobody is left.
        let ticks = self.outlets.slots.any_used() || self.tallies.any();
        let wheel = ticks.then(|| self.env.next_own_second());
        let deadline = self.outlets.deadlines.next();
        let takeover = self.takeovers.next();
        wheel.into_iter().chain(deadline).chain(takeover).min()
    }

    pub(super) fn shut_down(&mut self) {
        for arrival in self.takeovers.take_all() {
            self.refuse_arrival(arrival, Refusal::Unavailable, Closed::Shutdown);
        }
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
