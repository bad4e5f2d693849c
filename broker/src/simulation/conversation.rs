//! What a model client says while it is connected, and what it makes of what it hears.

use codec::mqtt::{
    Ack, Delivery, Packet, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeFilters, Subscription, Unsubscribe, UnsubscribeFilters,
    UserProperties, decode, split_frame,
};

use super::client::{Around, Device, Flight, Role, SUBTOPICS, qos_of, topic};
use super::ledger::{Request, number_of, payload};
use super::net::Gone;

const FILTERS: [&str; 6] = ["", "#", "a/#", "+", "a/b", "+/b"];

impl Device {
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
