//! A model client: its own memory of what it owes and is owed, over the codec.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use codec::mqtt::{
    Ack, Connect, ConnectProperties, Delivery, Disconnect, Packet, PacketId, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, RetainHandling, Subscribe, SubscribeFilters,
    Subscription, Unsubscribe, UnsubscribeFilters, UserProperties, Will, decode, put_pingreq,
    split_frame,
};

use super::database::Database;
use super::dice::Dice;
use super::ledger::{ConnView, Fate, Ledger, Request, WillView, number_of, payload};
use super::net::{Gone, Net};

/// What a client does all day.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Sees everything and publishes nothing.
    Observer,
    /// Publishes and subscribes.
    Mixed,
    /// Only a member of a shared group.
    Worker,
}

/// Everything outside a client that it touches.
pub(super) struct Around<'a> {
    pub(super) net: &'a mut Net,
    pub(super) ledger: &'a mut Ledger,
    pub(super) database: &'a Database,
    pub(super) dice: &'a mut Dice,
    pub(super) now_ms: u64,
    pub(super) shards: usize,
}

/// An exchange that the client began and that is not over.
#[derive(Clone, Debug)]
struct Flight {
    id: u16,
    message: u64,
    qos: QoS,
    retain: bool,
    released: bool,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) number: usize,
    pub(super) principal: usize,
    pub(super) role: Role,
    pub(super) version: ProtocolVersion,
    pub(super) expiry: u32,
    pub(super) keep_alive: u16,
    pub(super) receive_maximum: u16,
    pub(super) aliases: u16,
    /// Whether it leaves wills, takes back what it had retained, shows old secrets and writes routes.
    pub(super) moody: bool,
    pub(super) room: usize,
    pub(super) conn: Option<usize>,
    pub(super) live: bool,
    input: Vec<u8>,
    next_id: u16,
    flights: VecDeque<Flight>,
    quota: u16,
    received: BTreeSet<u16>,
    /// The session that all this belongs to.
    session: u64,
    /// QoS 2 messages that were given to the application in this session.
    taken: BTreeSet<u64>,
    /// Messages that reached it, whatever became of them on the way back.
    pub(super) heard: BTreeSet<u64>,
    answers: VecDeque<Vec<u8>>,
    requests: BTreeMap<u16, Request>,
    topics: BTreeMap<u16, String>,
    sent_ms: u64,
    /// What it noticed and nobody may do to it.
    pub(super) complaint: Option<String>,
    pub(super) retained: BTreeMap<(usize, String), u64>,
}

pub(super) const SUBTOPICS: [&str; 4] = ["", "a", "a/b", "b"];
const FILTERS: [&str; 6] = ["", "#", "a/#", "+", "a/b", "+/b"];

impl Device {
    pub(super) fn new(number: usize, principal: usize, role: Role, dice: &mut Dice) -> Device {
        let version = match dice.roll(10) {
            0 => ProtocolVersion::V31,
            1..4 => ProtocolVersion::V311,
            _ => ProtocolVersion::V5,
        };
        let expiry = match (role, version, dice.roll(4)) {
            (Role::Observer, ProtocolVersion::V5, _) => u32::MAX,
            (_, ProtocolVersion::V5, 0) => 0,
            (_, ProtocolVersion::V5, 1) => 5,
            _ => 3600,
        };
        Device {
            number,
            principal,
            role,
            version: if role == Role::Observer {
                ProtocolVersion::V5
            } else {
                version
            },
            expiry: if role == Role::Observer {
                u32::MAX
            } else {
                expiry
            },
            keep_alive: *dice.pick(&[0, 10, 60]),
            receive_maximum: *dice.pick(&[1, 3, 20, u16::MAX]),
            aliases: *dice.pick(&[0, 0, 2]),
            moody: role != Role::Observer,
            room: 64 << 10,
            conn: None,
            live: false,
            input: Vec::new(),
            next_id: 1,
            flights: VecDeque::new(),
            quota: u16::MAX,
            received: BTreeSet::new(),
            session: 0,
            taken: BTreeSet::new(),
            heard: BTreeSet::new(),
            answers: VecDeque::new(),
            requests: BTreeMap::new(),
            topics: BTreeMap::new(),
            sent_ms: 0,
            complaint: None,
            retained: BTreeMap::new(),
        }
    }

    pub(super) fn client_id(&self) -> String {
        format!("device-{}", self.number)
    }

    /// Opens a connection; one that is there is left to itself.
    pub(super) fn connect(&mut self, clean_start: bool, around: &mut Around<'_>) {
        // 3.1 is not told whether its session is there.
        let clean_start = clean_start || self.version == ProtocolVersion::V31;
        let old_secret = self.moody && around.dice.percent(2);
        let principal = &around.database.principals[self.principal];
        let credential = principal.credential - u64::from(old_secret);
        let shard = around.dice.roll(around.shards);
        let conn = around.net.connect(self.number, shard, self.room);
        let v5 = self.version.is_v5();
        let expiry = if v5 { self.expiry } else { 0 };
        let delay = if v5 {
            *around.dice.pick(&[0, 0, 3, 30])
        } else {
            0
        };
        let will = self.will(delay, around);
        let client_id = self.client_id();
        let (name, secret) = (self.principal.to_string(), credential.to_string());
        let content = will
            .map(|(number, ..)| payload(number, 0))
            .unwrap_or_default();
        let topic = will.map(|(_, channel, sub, ..)| topic(around.database, channel, sub, false));
        let packet = Connect {
            version: self.version,
            clean_start,
            keep_alive: self.keep_alive,
            client_id: &client_id,
            will: will
                .zip(topic.as_deref())
                .map(|((_, _, _, qos, retain), topic)| Will {
                    topic,
                    payload: &content,
                    qos,
                    retain,
                    delay,
                    properties: PublishProperties::default(),
                }),
            username: Some(&name),
            password: Some(secret.as_bytes()),
            properties: ConnectProperties {
                session_expiry: expiry,
                receive_maximum: if v5 { self.receive_maximum } else { u16::MAX },
                topic_alias_maximum: if v5 { self.aliases } else { 0 },
                ..ConnectProperties::default()
            },
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        around.net.write(conn, &bytes);
        assert_eq!(around.ledger.conns.len(), conn);
        around.ledger.conns.push(ConnView {
            device: self.number,
            principal: self.principal,
            credential,
            clean_start,
            expiry: match (v5, clean_start) {
                (true, _) => expiry,
                (false, true) => 0,
                (false, false) => 24 * 3600,
            },
            keep_alive: self.keep_alive,
            will: will.map(|(message, ..)| WillView {
                message,
                delay,
                fate: Fate::Held,
                taken_back: false,
            }),
            heard_ms: around.now_ms,
            ..ConnView::default()
        });
        self.forget_connection();
        if clean_start {
            // Whether or not the answer is ever heard.
            self.flights.clear();
            self.received.clear();
            self.taken.clear();
        }
        self.conn = Some(conn);
        self.sent_ms = around.now_ms;
    }

    fn will(
        &mut self,
        _delay: u32,
        around: &mut Around<'_>,
    ) -> Option<(u64, usize, &'static str, QoS, bool)> {
        if !self.moody || self.role != Role::Mixed || !around.dice.percent(40) {
            return None;
        }
        let channel = around.dice.roll(around.database.channels.len());
        let right = around.database.right(self.principal, channel);
        // Without the right the CONNECT is refused: seldom tried.
        let alive = around.database.channel_lives(channel);
        if !(right.contains(authcache::Action::Publish) && alive || around.dice.percent(3)) {
            return None;
        }
        let subtopic = *around.dice.pick(&SUBTOPICS);
        let qos = qos_of(around.dice.roll(3));
        let retain = around.dice.percent(20);
        let place = (channel, subtopic);
        let number =
            around
                .ledger
                .register(self.number, self.principal, place, (qos, retain, true));
        Some((number, channel, subtopic, qos, retain))
    }

    fn forget_connection(&mut self) {
        self.conn = None;
        self.live = false;
        self.input.clear();
        self.answers.clear();
        self.requests.clear();
        self.topics.clear();
    }

    /// Leaves without a word.
    pub(super) fn cut(&mut self, how: Gone, around: &mut Around<'_>) {
        if let Some(conn) = self.conn {
            around.net.leave(conn, how);
            self.forget_connection();
        }
    }

    /// Says goodbye.
    pub(super) fn disconnect(&mut self, with_will: bool, around: &mut Around<'_>) {
        let Some(conn) = self.conn else { return };
        let reason = if with_will && self.version.is_v5() {
            ReasonCode::DISCONNECT_WITH_WILL_MESSAGE
        } else {
            ReasonCode::SUCCESS
        };
        let packet = Disconnect {
            reason,
            ..Disconnect::default()
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        around.net.write(conn, &bytes);
        around.net.leave(conn, Gone::Fin);
        self.forget_connection();
    }

    fn write(&mut self, bytes: &[u8], around: &mut Around<'_>) {
        if let Some(conn) = self.conn {
            around.net.write(conn, bytes);
            self.sent_ms = around.now_ms;
        }
    }

    /// Sends one answer that is owed; whether there was one.
    pub(super) fn answer(&mut self, around: &mut Around<'_>) -> bool {
        let Some(bytes) = self.answers.pop_front() else {
            return false;
        };
        self.write(&bytes, around);
        true
    }

    /// Whether it would be silent for too long.
    pub(super) fn ping_if_due(&mut self, around: &mut Around<'_>) -> bool {
        let due = self.sent_ms + u64::from(self.keep_alive) * 900;
        if !self.live || self.keep_alive == 0 || around.now_ms < due {
            return false;
        }
        let mut bytes = Vec::new();
        put_pingreq(&mut bytes);
        self.write(&bytes, around);
        true
    }

    fn fresh_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1).max(1);
            let used = self.flights.iter().any(|flight| flight.id == id)
                || self.requests.contains_key(&id);
            if id != 0 && !used {
                return id;
            }
        }
    }

    /// Publishes something somewhere.
    pub(super) fn publish(&mut self, around: &mut Around<'_>) {
        let channel = around.dice.roll(around.database.channels.len());
        let subtopic = *around.dice.pick(&SUBTOPICS);
        let qos = qos_of(around.dice.roll(3));
        let retain = around.dice.percent(15);
        let padding = if around.dice.percent(10) {
            around.dice.roll(4000)
        } else {
            0
        };
        self.publish_to((channel, subtopic), qos, retain, padding, around);
    }

    pub(super) fn publish_to(
        &mut self,
        place: (usize, &'static str),
        qos: QoS,
        retain: bool,
        padding: usize,
        around: &mut Around<'_>,
    ) -> Option<u64> {
        if self.conn.is_none() || !self.live && qos != QoS::AtMostOnce {
            return None;
        }
        if qos != QoS::AtMostOnce && self.flights.len() >= usize::from(self.quota) {
            return None;
        }
        let flags = (qos, retain, false);
        let message = around
            .ledger
            .register(self.number, self.principal, place, flags);
        // Without identifier only one conversation can be told apart.
        let clear = self.moody && retain && qos != QoS::AtMostOnce && around.dice.percent(20);
        if clear {
            let sent = around.ledger.messages.get_mut(&message);
            sent.expect("registered").clear = true;
        }
        let id = self.fresh_id();
        if qos != QoS::AtMostOnce {
            self.flights.push_back(Flight {
                id,
                message,
                qos,
                retain,
                released: false,
            });
        }
        let spelled = self.moody && around.dice.percent(30);
        let topic = topic(around.database, place.0, place.1, spelled);
        if let Some(conn) = self.conn.filter(|_| qos != QoS::AtMostOnce) {
            around.ledger.conns[conn].published.insert(id, message);
        }
        let content = if clear {
            Vec::new()
        } else {
            payload(message, padding)
        };
        let bytes = self.publish_bytes(&topic, &content, (id, qos, retain, false));
        self.write(&bytes, around);
        Some(message)
    }

    fn publish_bytes(
        &self,
        topic: &str,
        content: &[u8],
        (id, qos, retain, dup): (u16, QoS, bool, bool),
    ) -> Vec<u8> {
        let id = PacketId::new(id).expect("identifiers begin at 1");
        let packet = Publish {
            dup,
            retain,
            delivery: Delivery::new(qos, id),
            topic,
            properties: PublishProperties::default(),
            payload: content,
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        bytes
    }

    /// Subscribes to something.
    pub(super) fn subscribe(&mut self, around: &mut Around<'_>) {
        let count = 1 + around.dice.roll(2);
        let mut filters = Vec::new();
        for _ in 0..count {
            let channel = around.dice.roll(around.database.channels.len());
            let filter = *around.dice.pick(&FILTERS);
            let qos = qos_of(around.dice.roll(3));
            let no_local = self.version.is_v5() && around.dice.percent(10);
            filters.push((channel, filter, qos, self.role == Role::Worker, no_local));
        }
        if self.role == Role::Worker {
            filters = vec![(0, "#", QoS::ExactlyOnce, true, false)];
        }
        self.subscribe_to(filters, around);
    }

    pub(super) fn subscribe_to(
        &mut self,
        filters: Vec<(usize, &'static str, QoS, bool, bool)>,
        around: &mut Around<'_>,
    ) {
        if !self.live {
            return;
        }
        let id = self.fresh_id();
        let identifier = around
            .dice
            .percent(20)
            .then_some(7)
            .filter(|_| self.version.is_v5());
        let mut payload = Vec::new();
        for (channel, filter, qos, share, no_local) in &filters {
            let spelled = self.moody && around.dice.percent(20);
            let mut text = topic(around.database, *channel, filter, spelled);
            if *share {
                text = format!("$share/group/{text}");
            }
            let subscription = Subscription {
                filter: &text,
                qos: *qos,
                no_local: *no_local,
                retain_as_published: false,
                retain_handling: RetainHandling::Send,
            };
            subscription.put(self.version, &mut payload);
        }
        let packet = Subscribe {
            packet_id: PacketId::new(id).expect("identifiers begin at 1"),
            subscription_identifier: identifier,
            user_properties: UserProperties::default(),
            filters: SubscribeFilters::parse(&payload, self.version).expect("it was put here"),
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.requested(id, filters, true, around);
        self.write(&bytes, around);
    }

    /// Takes one subscription back.
    pub(super) fn unsubscribe(&mut self, around: &mut Around<'_>) {
        let Some(session) = around.ledger.sessions.get(&self.number) else {
            return;
        };
        let known: Vec<(usize, &'static str, bool)> = session
            .subscriptions
            .iter()
            .map(|(key, subscribed)| (key.0, key.1, subscribed.share))
            .collect();
        if known.is_empty() || !self.live {
            return;
        }
        let (channel, filter, share) = *around.dice.pick(&known);
        let mut text = topic(around.database, channel, filter, false);
        if share {
            text = format!("$share/group/{text}");
        }
        let mut payload = Vec::new();
        UnsubscribeFilters::put(&text, &mut payload);
        let id = self.fresh_id();
        let packet = Unsubscribe {
            packet_id: PacketId::new(id).expect("identifiers begin at 1"),
            user_properties: UserProperties::default(),
            filters: UnsubscribeFilters::parse(&payload).expect("it was put here"),
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        let filters = vec![(channel, filter, QoS::AtMostOnce, share, false)];
        self.requested(id, filters, false, around);
        self.write(&bytes, around);
    }

    fn requested(
        &mut self,
        id: u16,
        filters: Vec<(usize, &'static str, QoS, bool, bool)>,
        subscribe: bool,
        around: &mut Around<'_>,
    ) {
        let request = Request {
            filters,
            subscribe,
            input: super::ledger::NEVER,
        };
        self.requests.insert(id, request.clone());
        if let Some(conn) = self.conn {
            around.ledger.conns[conn].requests.insert(id, request);
        }
    }

    /// Whether nothing is owed in either direction.
    pub(super) fn is_quiet(&self) -> bool {
        self.answers.is_empty() && self.flights.is_empty() && self.requests.is_empty()
    }

    /// The connection ended at the other side.
    pub(super) fn ended(&mut self) {
        self.forget_connection();
    }

    /// Bytes came.
    pub(super) fn receive(&mut self, bytes: &[u8], around: &mut Around<'_>) {
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        let mut at = 0;
        while let Some(frame) = split_frame(&input[at..], u32::MAX).expect("frames are legal") {
            at += frame.bytes.len();
            let packet = decode(&frame, self.version);
            let packet = packet.unwrap_or_else(|error| panic!("sent by the broker: {error}"));
            self.packet(&packet, around);
            if self.conn.is_none() {
                return;
            }
        }
        input.drain(..at);
        self.input = input;
    }

    fn packet(&mut self, packet: &Packet<'_>, around: &mut Around<'_>) {
        match packet {
            Packet::ConnAck(connack) if connack.reason == ReasonCode::SUCCESS => {
                self.live = true;
                self.quota = connack.properties.receive_maximum.unwrap_or(u16::MAX);
                self.resume(connack.session_present, around);
            }
            Packet::ConnAck(_) | Packet::Disconnect(_) => {
                if let Some(conn) = self.conn {
                    around.net.leave(conn, Gone::Fin);
                }
                self.forget_connection();
            }
            Packet::Publish(publish) => self.published(publish, around),
            Packet::PubAck(ack) => self
                .flights
                .retain(|flight| flight.id != ack.packet_id.get()),
            Packet::PubRec(ack) => {
                let id = ack.packet_id.get();
                if ack.reason.is_error() {
                    self.flights.retain(|flight| flight.id != id);
                } else {
                    for flight in self.flights.iter_mut().filter(|flight| flight.id == id) {
                        flight.released = true;
                    }
                    self.answers.push_back(ack_bytes(6, id));
                }
            }
            Packet::PubRel(ack) => {
                self.received.remove(&ack.packet_id.get());
                self.answers.push_back(ack_bytes(7, ack.packet_id.get()));
            }
            Packet::PubComp(ack) => self
                .flights
                .retain(|flight| flight.id != ack.packet_id.get()),
            Packet::SubAck(ack) | Packet::UnsubAck(ack) => {
                self.requests.remove(&ack.packet_id.get());
            }
            Packet::PingResp => {}
            other => self.complaint = Some(format!("{:?} is not for clients", other.packet_type())),
        }
    }

    fn resume(&mut self, kept: bool, around: &mut Around<'_>) {
        // A session may have ended, and another begun, without a word that was heard: what MQTT
        // cannot tell the client is told by the ledger.
        let session = around.ledger.sessions[&self.number].number;
        let same = std::mem::replace(&mut self.session, session) == session;
        if !kept || !same {
            self.flights.clear();
            self.received.clear();
            self.taken.clear();
            return;
        }
        for flight in self.flights.clone() {
            if flight.released {
                self.write(&ack_bytes(6, flight.id), around);
                continue;
            }
            let message = around
                .ledger
                .messages
                .get_mut(&flight.message)
                .expect("registered");
            message.repeated = true;
            let place = (message.channel, message.subtopic);
            let content = if message.clear {
                Vec::new()
            } else {
                payload(flight.message, 0)
            };
            let topic = topic(around.database, place.0, place.1, false);
            let how = (flight.id, flight.qos, flight.retain, true);
            if let Some(conn) = self.conn {
                around.ledger.conns[conn]
                    .published
                    .insert(flight.id, flight.message);
            }
            let bytes = self.publish_bytes(&topic, &content, how);
            self.write(&bytes, around);
        }
    }

    fn published(&mut self, publish: &Publish<'_>, around: &mut Around<'_>) {
        let topic = match publish.properties.topic_alias {
            Some(alias) if publish.topic.is_empty() => match self.topics.get(&alias) {
                Some(topic) => topic.clone(),
                None => {
                    self.complaint = Some(format!("alias {alias} was never told"));
                    return;
                }
            },
            alias => {
                if let Some(alias) = alias {
                    self.topics.insert(alias, publish.topic.to_owned());
                }
                publish.topic.to_owned()
            }
        };
        let message = number_of(publish.payload);
        let known = message.and_then(|number| around.ledger.messages.get(&number));
        if let (Some(number), Some(known)) = (message, known) {
            let database = around.database;
            let canonical = super::client::topic(database, known.channel, known.subtopic, false);
            let spelled = super::client::topic(database, known.channel, known.subtopic, true);
            if topic != canonical && topic != spelled {
                self.complaint = Some(format!("message {number} came as {topic}"));
            }
            self.heard.insert(number);
            if publish.retain {
                self.retained
                    .insert((known.channel, known.subtopic.to_owned()), number);
            }
        }
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(id) => self.answers.push_back(ack_bytes(4, id.get())),
            Delivery::ExactlyOnce(id) => {
                if self.received.insert(id.get())
                    && let Some(number) = message
                    && !publish.retain
                    && !self.taken.insert(number)
                {
                    self.complaint = Some(format!("message {number} came twice at QoS 2"));
                }
                self.answers.push_back(ack_bytes(5, id.get()));
            }
        }
    }
}

fn ack_bytes(kind: u8, id: u16) -> Vec<u8> {
    let id = PacketId::new(id).expect("identifiers begin at 1");
    let ack = Ack::new(id, ReasonCode::SUCCESS);
    let mut bytes = Vec::new();
    let packet = match kind {
        4 => Packet::PubAck(ack),
        5 => Packet::PubRec(ack),
        6 => Packet::PubRel(ack),
        _ => Packet::PubComp(ack),
    };
    packet.encode(ProtocolVersion::V311, &mut bytes);
    bytes
}

pub(super) fn qos_of(number: usize) -> QoS {
    QoS::from_bits(number as u8).expect("0 to 2")
}

/// `m/<domain>/c/<channel>[/<subtopic>]`, by ids or by routes.
pub(super) fn topic(database: &Database, channel: usize, subtopic: &str, spelled: bool) -> String {
    let row = &database.channels[channel];
    let domain = &database.domains[row.domain];
    let slash = if subtopic.is_empty() { "" } else { "/" };
    if spelled {
        format!("m/{}/c/{}{slash}{subtopic}", domain.route, row.route)
    } else {
        format!("m/{}/c/{}{slash}{subtopic}", domain.id, row.id)
    }
}
