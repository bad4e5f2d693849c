//! Checks after a step, when control answers, and when everything is quiet.

use std::sync::atomic::Ordering;

use authcache::Action;
use authcache::feed::LeaseTerms;
use codec::mqtt::QoS;
use session::Cold;

use super::client::Role;
use super::ledger::{Fate, NEVER, Sent, matches};
use super::net::Gone;
use super::world::World;
use crate::shard::roster::session_of;
use crate::shard::slot::Marks;

impl World {
    /// What holds after each step.
    pub(super) fn check_step(&mut self) {
        let leaked = self.broker.net.borrow().leaked.load(Ordering::Relaxed);
        assert_eq!(leaked, 0, "a wire was dropped without being closed");
        assert_eq!(self.broker.sum(|c| c.panics.get()), 0, "a machine panicked");
        self.check_connections();
        let net = self.broker.net.borrow();
        for (id, conn) in net.conns.iter().enumerate() {
            assert!(
                conn.sends <= 3 + 2 * conn.direct,
                "{id} was sent to {} times in a turn",
                conn.sends
            );
        }
    }

    /// Who was shut out has no connection, from the answer on. Without a lease sockets are kept and
    /// nothing passes.
    fn check_connections(&self) {
        if !self.broker.has_lease() {
            return;
        }
        for (id, view) in self.ledger.conns.iter().enumerate() {
            if view.connected.is_some() && view.closed.is_none() {
                let login = self.database.login(view.principal);
                let shut_out = login.is_forbidden(self.moment, self.moment);
                assert!(
                    !shut_out,
                    "connection {id} outlives the answer that shuts it out"
                );
                self.check_secret(id, self.moment);
            }
        }
    }

    /// Everybody comes back, everything arrives, nothing is left to do.
    pub(super) fn quiesce(&mut self) {
        self.note(|| "everything comes to rest".to_owned());
        if !self.broker.is_joined() {
            self.database.voided = true;
            self.broker.join();
        }
        {
            let mut net = self.broker.net.borrow_mut();
            net.partial = 0;
            let current: Vec<_> = self
                .devices
                .iter()
                .filter_map(|device| device.conn)
                .collect();
            for id in 0..net.conns.len() {
                net.conns[id].room = 1 << 20;
                if !current.contains(&id) && net.conns[id].gone.is_none() {
                    net.leave(id, Gone::Fin);
                }
            }
        }
        let mut tries = vec![0; self.devices.len()];
        // Some members of groups stay away: what they hold goes to those who come.
        let first = self.devices.iter().position(|one| one.role == Role::Worker);
        let stay_away = self.dice.percent(50);
        let mut quiet = 0;
        for _ in 0..2_000 {
            let mut busy = self.round();
            self.broker.now = self.broker.now.plus_millis(5);
            for (number, tried) in tries.iter_mut().enumerate() {
                self.devices[number].room = 1 << 20;
                let away =
                    stay_away && self.devices[number].role == Role::Worker && first != Some(number);
                if self.devices[number].conn.is_none()
                    && !away
                    && *tried < 8
                    && self.database.may_log_in(self.devices[number].principal)
                {
                    *tried += 1;
                    busy = true;
                    self.with(number, |device, around| device.connect(false, around));
                }
                busy |= self.with(number, |device, around| {
                    device.ping_if_due(around) | device.answer(around)
                });
            }
            busy |= self
                .broker
                .shards
                .iter()
                .any(|driven| driven.shard.delays());
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > 5 {
                break;
            }
        }
        assert!(quiet > 5, "it does not come to rest");
        self.check_quiet();
    }

    fn check_quiet(&mut self) {
        for device in &self.devices {
            assert!(
                device.conn.is_none() || !device.live || device.is_quiet(),
                "device {} waits for ever: {device:?}",
                device.number
            );
        }
        self.check_insides();
        self.check_deliveries();
        self.check_groups();
        self.check_wills();
        self.probe();
    }

    /// Invariants, gauges, and that idle connections own nothing.
    pub(super) fn check_insides(&mut self) {
        let (mut live, mut sessions, mut subscriptions, mut wires) = (0, 0, 0, 0);
        for driven in &mut self.broker.shards {
            let shard = &mut driven.shard;
            shard.subs.invariants();
            let used: Vec<_> = shard.outlets.slots.used().collect();
            for id in used {
                let slot = shard.outlets.slots.slot_mut(id);
                slot.machine().invariants();
                // I3: an idle connection owns no buffer.
                assert!(slot.out.is_none() && slot.backlog.is_none() && slot.partial.is_none());
                assert!(!slot.marks.has(Marks::TOUCHED) && !slot.marks.has(Marks::HUNGRY));
                wires += usize::from(slot.wire.is_some());
                live += u64::from(matches!(slot.cold, Cold::Live(_)));
                if let Some(session) = session_of(&slot.cold) {
                    sessions += 1;
                    subscriptions += session.subscriptions().len() as u64;
                    let owned = slot.wire.is_some();
                    assert_eq!(owned, matches!(slot.cold, Cold::Live(_)));
                }
            }
        }
        let broker = &self.broker;
        assert_eq!(
            broker.sum(|c| c.connections.get()),
            live,
            "connections gauge"
        );
        assert_eq!(broker.sum(|c| c.sessions.get()), sessions, "sessions gauge");
        assert_eq!(
            broker.sum(|c| c.subscriptions.get()),
            subscriptions,
            "subscriptions gauge"
        );
        assert_eq!(
            broker.shared.connections.load(Ordering::Relaxed),
            wires,
            "connections"
        );
        let retained: usize = broker.shards.iter().map(|d| d.shard.retained.len()).sum();
        assert_eq!(
            broker.sum(|c| c.retained.get()),
            retained as u64,
            "retained gauge"
        );
        assert_eq!(
            broker.shared.retained.load(Ordering::Relaxed),
            retained as u64
        );
        let open = self
            .ledger
            .conns
            .iter()
            .filter(|view| view.connected.is_some() && view.closed.is_none());
        assert_eq!(
            live,
            open.count() as u64,
            "connections as the wires show them"
        );
    }

    /// Whether a message was accepted for certain, and all of it may be delivered.
    fn accepted(&self, sent: &Sent) -> bool {
        // A later slice is judged again.
        let author = self
            .database
            .standing(sent.principal, sent.channel, Action::Publish);
        if self.shape.has_short_turns() && !author.is_solid(sent.input) {
            return false;
        }
        !sent.refused
            && (!sent.deliveries.is_empty()
                || sent.acked != NEVER
                || sent.surely_permitted && sent.on_live && !self.shape.has_short_turns())
    }

    /// No loss while session, subscription and rights hold.
    fn check_deliveries(&self) {
        for (number, sent) in &self.ledger.messages {
            if sent.will || sent.clear || sent.input == NEVER || !self.accepted(sent) {
                continue;
            }
            for device in self
                .devices
                .iter()
                .filter(|device| device.role != Role::Worker)
            {
                if self.owes(sent, device.number) {
                    let heard = device.heard.contains(number);
                    assert!(
                        heard,
                        "device {} never heard message {number}: {sent:?}",
                        device.number
                    );
                }
            }
        }
    }

    /// Whether a device has to have heard a message.
    fn owes(&self, sent: &Sent, number: usize) -> bool {
        let Some(session) = self.ledger.sessions.get(&number) else {
            return false;
        };
        let Some(conn) = session.owner.filter(|_| session.exists) else {
            return false;
        };
        let reader = self.devices[number].principal;
        // Without a lease of this kind nothing is judged: what comes over from other shards is lost.
        if self.lease_was_over && self.shape.terms == LeaseTerms::Pipe {
            return false;
        }
        let voided = self.database.voided || self.broker.has_voided();
        if voided && self.database.principals[reader].user {
            return false;
        }
        let standing = self
            .database
            .standing(reader, sent.channel, Action::Subscribe);
        if !standing.is_solid(sent.input) || self.database.channels[sent.channel].removed {
            return false;
        }
        let of_channel = session
            .subscriptions
            .iter()
            .filter(|(key, _)| key.0 == sent.channel);
        let mut owed = false;
        for ((_, filter), subscribed) in of_channel {
            if !matches(filter, sent.subtopic) || subscribed.share {
                continue;
            }
            if subscribed.no_local && sent.device == number {
                return false;
            }
            let view = &self.ledger.conns[conn];
            let there = view.connected.is_some_and(|since| since < sent.input)
                && !self.broker.net.borrow().conns[conn].was_blocked;
            let lasts = subscribed.lowest.min(sent.qos) != QoS::AtMostOnce;
            owed |= subscribed.since < sent.input && (lasts || there);
        }
        owed
    }

    /// One member of a shared group hears each message.
    fn check_groups(&self) {
        let workers: Vec<_> = self
            .devices
            .iter()
            .filter(|device| device.role == Role::Worker)
            .collect();
        for (number, sent) in &self.ledger.messages {
            if sent.will || sent.clear || sent.input == NEVER || !self.accepted(sent) {
                continue;
            }
            let is_worker = |device: usize| self.devices[device].role == Role::Worker;
            let heard: Vec<_> = sent
                .deliveries
                .iter()
                .filter(|one| is_worker(one.device) && !one.dup)
                .collect();
            let left = self.ledger.conns.iter().any(|view| {
                is_worker(view.device) && view.closed.is_some_and(|at| at >= sent.input)
            });
            if !sent.repeated && !left {
                assert!(
                    heard.len() <= 1,
                    "members heard message {number} {} times",
                    heard.len()
                );
            }
            // An exchange of QoS 2 ends with its member's session; what a member lost its right to
            // is lost.
            let judged = !self.lease_was_over || self.shape.terms != LeaseTerms::Pipe;
            let readers = workers.iter().all(|worker| {
                let of = self
                    .database
                    .standing(worker.principal, sent.channel, Action::Subscribe);
                of.is_solid(sent.input)
            });
            let owed = judged
                && readers
                && (sent.qos == QoS::AtLeastOnce || sent.qos == QoS::ExactlyOnce && !left)
                && workers.iter().any(|worker| {
                    let Some(session) = self.ledger.sessions.get(&worker.number) else {
                        return false;
                    };
                    let member = session
                        .subscriptions
                        .iter()
                        .any(|((channel, filter), one)| {
                            *channel == sent.channel
                                && matches(filter, sent.subtopic)
                                && one.since < sent.input
                        });
                    session.owner.is_some() && member
                });
            let reached = workers.iter().any(|worker| worker.heard.contains(number));
            assert!(
                !owed || reached,
                "no member heard message {number}: {sent:?}"
            );
        }
    }

    /// Wills are sent at most once, when they are due, and not otherwise.
    fn check_wills(&self) {
        for (conn, view) in self.ledger.conns.iter().enumerate() {
            let Some(will) = &view.will else { continue };
            let sent = &self.ledger.messages[&will.message];
            let number = will.message;
            let heard = sent
                .deliveries
                .iter()
                .filter(|one| one.device == 0 && !one.retained);
            let heard = heard.filter(|one| !one.dup).count();
            let now_ms = self.broker.now.as_millis();
            let fate = match will.fate {
                Fate::Due(at) if at + 5 > now_ms => Fate::MustNot,
                Fate::Due(_) => Fate::Must,
                // A DISCONNECT that was left for the next turn may be overtaken by another connection.
                Fate::MustNot if self.shape.has_short_turns() => Fate::May,
                fate => fate,
            };
            let observer = self.observes(sent);
            match fate {
                Fate::Held | Fate::MustNot => {
                    assert_eq!(sent.deliveries.len(), 0, "will {number} of {conn} was sent");
                }
                Fate::Must => {
                    let certain = sent.surely_permitted && observer && !self.lease_was_over;
                    let standing =
                        self.database
                            .standing(sent.principal, sent.channel, Action::Publish);
                    if certain && standing.is_solid(sent.input) {
                        let reached = self.devices[0].heard.contains(&number);
                        assert!(
                            reached,
                            "will {number} of {conn} was lost: {will:?} {sent:?}"
                        );
                    }
                    assert!(heard <= 1, "will {number} of {conn} was sent {heard} times");
                }
                Fate::May | Fate::Due(_) => assert!(heard <= 1),
            }
        }
    }

    fn observes(&self, sent: &Sent) -> bool {
        self.devices
            .first()
            .is_some_and(|first| first.role == Role::Observer)
            && sent.qos != QoS::AtMostOnce
            && self.owes(sent, 0)
    }
}
