//! Checks of every frame on every wire, at the moment it is begun or taken.

use authcache::Action;
use codec::mqtt::{Packet, ProtocolVersion, QoS, ReasonCode, decode, decode_connect, split_frame};

use super::ledger::{Fate, NEVER, number_of};
use super::net::Happening;
use super::world::World;

/// Names a row of messages that stay in order: receiver, its session, the publisher's connection,
/// channel, subtopic, QoS of the message and of the delivery.
pub(super) type Row = (usize, u64, usize, usize, &'static str, QoS, QoS);

impl World {
    /// Looks at what happened on the wires since the last look.
    pub(super) fn watch(&mut self) {
        let happenings = std::mem::take(&mut self.broker.net.borrow_mut().happenings);
        for happening in happenings {
            match happening {
                Happening::Begun(conn, bytes) => self.begun(conn, &bytes),
                Happening::Input(conn, bytes) => self.input(conn, &bytes),
                Happening::Closed(conn) => self.closed(conn),
            }
        }
        self.check_step();
    }

    fn version(&self, conn: usize) -> ProtocolVersion {
        let view = &self.ledger.conns[conn];
        view.raw
            .unwrap_or_else(|| self.devices[view.device].version)
    }

    /// Milliseconds by the clock of the shard that acts.
    fn shard_ms(&self) -> u64 {
        self.broker.shards[self.acting].shard.env.now.as_millis()
    }

    /// A frame was given to a shard.
    fn input(&mut self, conn: usize, bytes: &[u8]) {
        let moment = self.moment;
        let frame = split_frame(bytes, u32::MAX)
            .ok()
            .flatten()
            .expect("whole frames only");
        self.ledger.conns[conn].heard_ms = self.shard_ms();
        if decode_connect(&frame).is_ok() {
            return;
        }
        let packet = decode(&frame, self.version(conn)).expect("clients send legal packets");
        if self.ledger.conns[conn].raw.is_some() {
            return;
        }
        self.note(|| format!("  {conn} -> {}", brief(&packet)));
        match packet {
            Packet::Publish(publish) => {
                let view = &self.ledger.conns[conn];
                let live = view.connected.is_some();
                let known = publish.delivery.packet_id();
                let known = known.and_then(|id| view.published.get(&id.get()).copied());
                let number = known.or_else(|| number_of(publish.payload));
                let number = number.expect("messages are numbered");
                let principal = self.ledger.conns[conn].principal;
                let sent = self.ledger.messages.get_mut(&number).expect("registered");
                if sent.input == NEVER {
                    sent.input = moment;
                    sent.conn = conn;
                    sent.on_live = live;
                    let user = self.database.principals[principal].user;
                    let standing = self
                        .database
                        .standing(principal, sent.channel, Action::Publish);
                    sent.surely_permitted = live && !user && standing.solid.is_some();
                }
            }
            Packet::Subscribe(subscribe) => {
                let id = subscribe.packet_id.get();
                let device = self.ledger.conns[conn].device;
                if let Some(request) = self.ledger.conns[conn].requests.get_mut(&id) {
                    request.input = moment;
                    let filters = request.filters.clone();
                    for (channel, filter, qos, _, no_local) in filters {
                        self.asked.insert((device, channel, filter));
                        let session = self.ledger.sessions.entry(device).or_default();
                        if let Some(known) = session.subscriptions.get_mut(&(channel, filter)) {
                            known.lowest = known.lowest.min(qos);
                            known.no_local |= no_local;
                        }
                    }
                }
            }
            Packet::Unsubscribe(unsubscribe) => {
                let id = unsubscribe.packet_id.get();
                let device = self.ledger.conns[conn].device;
                if let Some(request) = self.ledger.conns[conn].requests.get_mut(&id) {
                    request.input = moment;
                    let session = self.ledger.sessions.entry(device).or_default();
                    for (channel, filter, ..) in &request.filters {
                        session.subscriptions.remove(&(*channel, *filter));
                    }
                }
            }
            Packet::Disconnect(disconnect) => {
                let view = &mut self.ledger.conns[conn];
                // Behind a CONNECT that is not answered it may be lost with its connection.
                let user = self.database.principals[view.principal].user;
                view.hasty = view.connected.is_none() || user;
                if let Some(will) = &mut view.will {
                    will.taken_back = disconnect.reason == ReasonCode::SUCCESS;
                }
            }
            _ => {}
        }
    }

    /// The broker closed a wire.
    fn closed(&mut self, conn: usize) {
        let moment = self.moment;
        let now_ms = self.shard_ms();
        self.note(|| format!("  {conn} closed"));
        let view = &mut self.ledger.conns[conn];
        view.closed = Some(moment);
        if view.connected.is_none() {
            // Without a lease it may have had its session and not have heard of it.
            let doubtful = self.lease_was_over;
            if let Some(will) = &mut view.will {
                will.fate = if doubtful { Fate::May } else { Fate::MustNot };
                let sent = self
                    .ledger
                    .messages
                    .get_mut(&will.message)
                    .expect("registered");
                sent.input = moment;
            }
            self.ledger
                .sessions
                .entry(view.device)
                .or_default()
                .doubtful |= doubtful;
            return;
        }
        // Whoever is there and can hear it is told why.
        let wire = &self.broker.net.borrow().conns[conn];
        let leased = self.broker.shards[self.acting].shard.may_serve();
        // What waited for the lease is dropped with its connection, as behind a full wire.
        let leased = leased && !self.lease_was_over;
        let hears = wire.gone.is_none() && !wire.was_blocked && leased;
        let version5 = view.raw.is_none() && self.devices[view.device].version.is_v5();
        assert!(
            !version5 || !hears || view.told,
            "{conn} was closed without a word"
        );
        let session = self.ledger.sessions.entry(view.device).or_default();
        assert_eq!(
            session.owner,
            Some(conn),
            "a connection that owned nothing was closed"
        );
        session.owner = None;
        session.parked_ms = Some(now_ms);
        session.expiry = view.expiry;
        if view.expiry == 0 {
            session.exists = false;
            session.subscriptions.clear();
        }
        if let Some(will) = &mut view.will {
            let sent = self
                .ledger
                .messages
                .get_mut(&will.message)
                .expect("registered");
            sent.input = moment;
            let standing = self
                .database
                .standing(sent.principal, sent.channel, Action::Publish);
            sent.surely_permitted = standing.solid.is_some();
            will.fate = match (will.taken_back, view.told || view.hasty) {
                (true, false) => Fate::MustNot,
                (true, true) => Fate::May,
                (false, _) if view.expiry == 0 || will.delay == 0 => Fate::Must,
                (false, _) => Fate::Due(now_ms + 1000 * u64::from(will.delay.min(view.expiry))),
            };
        }
    }

    /// The first byte of a frame was taken from the broker.
    fn begun(&mut self, conn: usize, bytes: &[u8]) {
        let frame = split_frame(bytes, u32::MAX)
            .ok()
            .flatten()
            .expect("whole frames only");
        let packet = decode(&frame, self.version(conn)).expect("the broker sends legal packets");
        self.note(|| format!("  {conn} <- {}", brief(&packet)));
        match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::SUCCESS => {
                self.connected(conn, connack.session_present);
            }
            Packet::ConnAck(connack) => self.refused(conn, connack.reason),
            _ if self.ledger.conns[conn].raw.is_some() => {}
            Packet::Publish(publish) => self.delivered(conn, &publish),
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                self.acknowledged(conn, ack.packet_id.get(), ack.reason);
            }
            Packet::SubAck(ack) => self.subscribed(conn, ack.packet_id.get(), ack.codes),
            Packet::Disconnect(disconnect) => {
                let now_ms = self.shard_ms();
                let view = &mut self.ledger.conns[conn];
                view.told = true;
                if disconnect.reason == ReasonCode::KEEP_ALIVE_TIMEOUT {
                    let silent = now_ms + 999 - view.heard_ms;
                    let allowed = u64::from(view.keep_alive) * 1500;
                    assert!(
                        view.keep_alive > 0 && silent >= allowed,
                        "closed after {silent} ms"
                    );
                }
            }
            _ => {}
        }
    }

    fn connected(&mut self, conn: usize, present: bool) {
        let (moment, now_ms) = (self.moment, self.shard_ms());
        let device = self.ledger.conns[conn].device;
        let principal = self.ledger.conns[conn].principal;
        // T-SES-5: the old connection is closed before the new one hears a byte.
        for (other, view) in self.ledger.conns.iter().enumerate() {
            assert!(
                other == conn
                    || view.device != device
                    || view.connected.is_none()
                    || view.closed.is_some(),
                "{other} and {conn} both own the session of device {device}"
            );
        }
        let login = self.database.login(principal);
        assert!(
            !login.is_forbidden(moment, moment),
            "connected after it was shut out"
        );
        self.check_secret(conn, moment);
        let last_turn = self.broker.shards[self.acting].last_turn.as_millis();
        let view = &mut self.ledger.conns[conn];
        view.connected = Some(moment);
        let session = self.ledger.sessions.entry(device).or_default();
        let ends =
            session
                .parked_ms
                .unwrap_or(NEVER)
                .saturating_add(if session.expiry == u32::MAX {
                    NEVER
                } else {
                    u64::from(session.expiry) * 1000
                });
        if present {
            assert!(!view.clean_start, "a clean start found a session");
            assert!(
                session.exists || session.doubtful,
                "a session that never was is present"
            );
            let ended = session.parked_ms.is_some() && ends <= last_turn;
            // Without a lease the answer may have waited for long.
            let late = session.doubtful || self.lease_was_over;
            assert!(!ended || late, "the session had ended");
        } else {
            let kept = session.exists && !view.clean_start && now_ms < ends && !session.doubtful;
            assert!(
                !kept,
                "{conn}: the session of device {device} was lost: {session:?}"
            );
        }
        if !present || session.doubtful {
            session.number += 1;
            session.subscriptions.clear();
            session.doubtful = false;
        }
        session.exists = true;
        session.owner = Some(conn);
        session.parked_ms = None;
        session.expiry = view.expiry;
        // What the last connection left behind.
        for (other, view) in self.ledger.conns.iter_mut().enumerate() {
            if other == conn || view.device != device {
                continue;
            }
            if let Some(will) = &mut view.will
                && let Fate::Due(at) = will.fate
            {
                will.fate = match (present, at <= now_ms) {
                    (true, false) => Fate::MustNot,
                    (true, true) => Fate::May,
                    (false, _) => Fate::Must,
                };
            }
        }
    }

    /// No connection lives by a secret whose change was answered.
    pub(super) fn check_secret(&self, conn: usize, moment: u64) {
        let view = &self.ledger.conns[conn];
        let dead = self.rotations.iter().any(|(who, old, _, settled)| {
            *who == view.principal && view.credential <= *old && *settled < moment
        });
        assert!(!dead, "{conn} lives by a secret that was changed");
    }

    fn refused(&mut self, conn: usize, reason: ReasonCode) {
        let view = &self.ledger.conns[conn];
        let denied = [
            ReasonCode::NOT_AUTHORIZED,
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            ReasonCode::new(4),
            ReasonCode::new(5),
        ];
        let rotated = self
            .rotations
            .iter()
            .any(|rotation| rotation.0 == view.principal);
        let current = self.database.principals[view.principal].credential == view.credential;
        let solid = self.database.login(view.principal).solid == Some(0);
        if view.will.is_none() && solid && current && !rotated {
            assert!(!denied.contains(&reason), "{conn} was refused: {reason:?}");
        }
    }
}

/// A packet in few words.
fn brief(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Publish(publish) => format!(
            "PUBLISH {:?} message {:?} {:?} dup {} retain {}",
            publish
                .topic
                .split_at(publish.topic.len().saturating_sub(14))
                .1,
            number_of(publish.payload),
            publish.delivery,
            publish.dup,
            publish.retain
        ),
        Packet::ConnAck(connack) => {
            format!(
                "CONNACK {:?} present {}",
                connack.reason, connack.session_present
            )
        }
        Packet::Subscribe(subscribe) => {
            let filters: Vec<_> = subscribe.filters.iter().map(|one| one.filter).collect();
            format!("SUBSCRIBE {:?} {filters:?}", subscribe.packet_id)
        }
        Packet::SubAck(ack) => format!("SUBACK {:?} {:?}", ack.packet_id, ack.codes),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            format!(
                "{} {:?} {:?}",
                packet.packet_type().name(),
                ack.packet_id,
                ack.reason
            )
        }
        other => format!("{other:?}"),
    }
}
