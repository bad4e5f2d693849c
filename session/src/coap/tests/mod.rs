//! One peer and a broker of a few lines, without sockets, in virtual time.

mod blocks;
mod lossy;
mod observing;
mod requests;

use codec::coap::{Block, Code, Kind, Message, MessageId, OptionNumber, Token, Writer};
use codec::mqtt::{
    Ack, ConnAck, ConnAckProperties, Delivery, Disconnect, Packet, PacketId, PublishOut,
    PublishProperties, ReasonCode, SubAck, UserProperties, decode, split_frame,
};

use crate::coap::guest::VERSION;
use crate::coap::{
    Around, Datagrams, Endpoint, GuestNumber, Incoming, Manner, Right, Rights, Tally, Wish,
    is_same_filter,
};
use crate::now::Now;

/// An answer or notification as a peer sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Seen {
    pub(super) kind: Kind,
    pub(super) code: Code,
    pub(super) id: u16,
    pub(super) token: Vec<u8>,
    pub(super) observe: Option<u32>,
    pub(super) format: Option<u32>,
    pub(super) block1: Option<Block>,
    pub(super) block2: Option<Block>,
    pub(super) echo: Option<Vec<u8>>,
    pub(super) etag: Option<Vec<u8>>,
    pub(super) payload: Vec<u8>,
}

impl Seen {
    pub(super) fn of(datagram: &[u8]) -> Seen {
        let message = Message::parse(datagram).unwrap();
        let first = |number| message.values(number).next().map(<[u8]>::to_vec);
        Seen {
            kind: message.kind,
            code: message.code,
            id: message.id.0,
            token: message.token.as_bytes().to_vec(),
            observe: message.uint(OptionNumber::OBSERVE),
            format: message.uint(OptionNumber::CONTENT_FORMAT),
            block1: message.block(OptionNumber::BLOCK1).flatten(),
            block2: message.block(OptionNumber::BLOCK2).flatten(),
            echo: first(OptionNumber::ECHO),
            etag: first(OptionNumber::ETAG),
            payload: message.payload.to_vec(),
        }
    }
}

/// A message that was published.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Published {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) content_type: Option<String>,
    pub(super) retain: bool,
}

/// A broker that knows one secret, `s`, and no rights but those it is told to refuse.
pub(super) struct House {
    pub(super) endpoint: Endpoint,
    pub(super) now: u64,
    pub(super) incoming: Incoming,
    pub(super) published: Vec<Published>,
    pub(super) retained: Vec<(String, Vec<u8>)>,
    /// Guest, filter and Subscription Identifier.
    pub(super) subscriptions: Vec<(u8, String, u32)>,
    /// Topics and filters without a right.
    pub(super) refused: Vec<String>,
    /// Nothing is answered while it sleeps.
    pub(super) asleep: bool,
    pub(super) right: Right,
    held: Vec<(GuestNumber, Vec<u8>)>,
    pub(super) tally: Tally,
    /// What timeouts sent.
    pub(super) timed: Vec<Vec<u8>>,
    next_id: u16,
}

struct Judge<'a> {
    right: Right,
    subscriptions: &'a [(u8, String, u32)],
}

impl Rights for Judge<'_> {
    fn may_read(&mut self, guest: GuestNumber, identifier: u32) -> Right {
        let own =
            |known: &&(u8, String, u32)| known.0 == guest.0 && is_same_filter(known.2, identifier);
        match self.subscriptions.iter().find(own) {
            Some(_) => self.right,
            None => Right::Lost,
        }
    }

    fn canonical(&mut self, domain: &str, channel: &str) -> Option<String> {
        let channel = if channel == "route" { "x" } else { channel };
        Some(format!("m/{domain}/c/{channel}"))
    }
}

const ECHO: [[u8; 8]; 2] = [*b"proofnow", *b"proofold"];

impl House {
    /// A peer whose address is proven.
    pub(super) fn new() -> House {
        House::of(Manner {
            proven: true,
            certified: false,
            credentials: true,
            created: false,
            random: 7,
        })
    }

    pub(super) fn of(manner: Manner) -> House {
        House {
            endpoint: Endpoint::new(manner, Now::from_millis(0)),
            now: 0,
            incoming: Incoming {
                serving: true,
                payload_max: 30_000,
                room: 1 << 20,
                echo: ECHO,
            },
            published: Vec::new(),
            retained: Vec::new(),
            subscriptions: Vec::new(),
            refused: Vec::new(),
            asleep: false,
            right: Right::Held,
            held: Vec::new(),
            tally: Tally::default(),
            timed: Vec::new(),
            next_id: 100,
        }
    }

    fn call(
        &mut self,
        call: impl FnOnce(&mut Endpoint, &Incoming, &mut dyn Rights, &mut Around<'_>),
    ) -> Vec<Vec<u8>> {
        let mut out = Datagrams::default();
        let mut rights = Judge {
            right: self.right,
            subscriptions: &self.subscriptions,
        };
        let mut around = Around {
            now: Now::from_millis(self.now),
            out: &mut out,
            tally: &mut self.tally,
        };
        call(&mut self.endpoint, &self.incoming, &mut rights, &mut around);
        out.iter().map(<[u8]>::to_vec).collect()
    }

    /// Carries out all wishes; what the endpoint sent.
    fn settle(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        while let Some(wish) = self.endpoint.wishes(|_| true) {
            match wish {
                Wish::Open(_) => {}
                Wish::Close(guest) => self.subscriptions.retain(|known| known.0 != guest.0),
                Wish::Input(guest, packets) => self.held.push((guest, packets)),
            }
            if !self.asleep {
                sent.extend(self.wake());
            }
        }
        sent
    }

    /// Answers what was held.
    fn wake(&mut self) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for (guest, packets) in std::mem::take(&mut self.held) {
            let mut rest = &packets[..];
            while let Ok(Some(frame)) = split_frame(rest, u32::MAX) {
                rest = &rest[frame.bytes.len()..];
                let packet = decode(&frame, VERSION).unwrap();
                sent.extend(self.packet(guest, &packet));
                if self.endpoint.guest_mut(guest.0).is_none() {
                    break;
                }
            }
        }
        sent
    }

    fn tell(&mut self, guest: GuestNumber, packets: &[u8]) -> Vec<Vec<u8>> {
        self.call(|endpoint, _, _, around| endpoint.packets(guest, packets, around))
    }

    fn packet(&mut self, guest: GuestNumber, packet: &Packet<'_>) -> Vec<Vec<u8>> {
        let mut answer = Vec::new();
        match packet {
            Packet::Connect(connect) => {
                let right = connect.password == Some(b"s");
                let reason = match right {
                    true => ReasonCode::SUCCESS,
                    false => ReasonCode::BAD_USER_NAME_OR_PASSWORD,
                };
                ConnAck {
                    session_present: false,
                    reason,
                    properties: ConnAckProperties {
                        server_keep_alive: Some(3600),
                        ..ConnAckProperties::default()
                    },
                }
                .encode(VERSION, &mut answer);
                let mut sent = self.tell(guest, &answer);
                if !right {
                    sent.extend(self.close(guest));
                }
                return sent;
            }
            Packet::Publish(publish) => {
                let Delivery::AtLeastOnce(packet_id) = publish.delivery else {
                    panic!("messages are sent at QoS 1");
                };
                let topic = publish.topic.to_owned();
                let refused = self.refused.contains(&topic);
                if !refused {
                    if publish.retain {
                        self.retained.retain(|(known, _)| *known != topic);
                        self.retained
                            .push((topic.clone(), publish.payload.to_vec()));
                    }
                    self.published.push(Published {
                        topic,
                        payload: publish.payload.to_vec(),
                        content_type: publish.properties.content_type.map(str::to_owned),
                        retain: publish.retain,
                    });
                }
                let reason = match refused {
                    true => ReasonCode::NOT_AUTHORIZED,
                    false => ReasonCode::SUCCESS,
                };
                Ack::new(packet_id, reason).encode_puback(VERSION, &mut answer);
            }
            Packet::Subscribe(subscribe) => {
                let asked = subscribe.filters.iter().next().unwrap();
                let filter = asked.filter.to_owned();
                let identifier = subscribe.subscription_identifier.unwrap();
                let refused = self.refused.contains(&filter);
                let code = if refused { 0x87 } else { 0 };
                let codes = [code];
                suback(subscribe.packet_id, &codes).encode_suback(VERSION, &mut answer);
                let mut sent = self.tell(guest, &answer);
                if refused {
                    return sent;
                }
                self.subscriptions
                    .retain(|known| known.0 != guest.0 || known.1 != filter);
                self.subscriptions
                    .push((guest.0, filter.clone(), identifier));
                if asked.retain_handling == codec::mqtt::RetainHandling::Send {
                    for (topic, payload) in self.retained.clone() {
                        if matches(&filter, &topic) {
                            sent.extend(self.deliver(guest, &topic, &payload, true, identifier));
                        }
                    }
                    sent.extend(self.call(|endpoint, _, _, around| {
                        endpoint.replayed(guest, identifier, around);
                    }));
                }
                return sent;
            }
            Packet::Unsubscribe(unsubscribe) => {
                let filter = unsubscribe.filters.iter().next().unwrap();
                self.subscriptions
                    .retain(|known| known.0 != guest.0 || known.1 != filter);
                suback(unsubscribe.packet_id, &[0]).encode_unsuback(VERSION, &mut answer);
            }
            Packet::PingReq => {}
            other => panic!("unexpected {other:?}"),
        }
        self.tell(guest, &answer)
    }

    fn deliver(
        &mut self,
        guest: GuestNumber,
        topic: &str,
        payload: &[u8],
        retain: bool,
        identifier: u32,
    ) -> Vec<Vec<u8>> {
        let mut forwarded = Vec::new();
        PublishProperties {
            content_type: Some("application/json"),
            ..PublishProperties::default()
        }
        .forwarded_into(&mut forwarded);
        let mut packet = Vec::new();
        PublishOut {
            dup: false,
            retain,
            delivery: Delivery::AtMostOnce,
            topic: &[topic],
            topic_alias: None,
            message_expiry: None,
            subscription_identifiers: &[identifier],
            forwarded: &forwarded,
            payload,
        }
        .encode(VERSION, &mut packet);
        self.tell(guest, &packet)
    }

    /// A message of somebody else; what the endpoint sent.
    pub(super) fn message(&mut self, topic: &str, payload: &[u8]) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        for (guest, filter, identifier) in self.subscriptions.clone() {
            if matches(&filter, topic) {
                sent.extend(self.deliver(GuestNumber(guest), topic, payload, false, identifier));
            }
        }
        sent.extend(self.settle());
        sent
    }

    /// The broker ends a guest's connection for a reason.
    pub(super) fn disconnect(&mut self, guest: u8, reason: ReasonCode) -> Vec<Vec<u8>> {
        let mut packet = Vec::new();
        Disconnect {
            reason,
            ..Disconnect::default()
        }
        .encode(VERSION, &mut packet);
        let mut sent = self.tell(GuestNumber(guest), &packet);
        sent.extend(self.close(GuestNumber(guest)));
        sent
    }

    fn close(&mut self, guest: GuestNumber) -> Vec<Vec<u8>> {
        self.subscriptions.retain(|known| known.0 != guest.0);
        self.call(|endpoint, _, _, around| endpoint.guest_closed(guest, around))
    }

    /// A datagram of the peer; what it is sent.
    pub(super) fn datagram(&mut self, datagram: &[u8]) -> Vec<Vec<u8>> {
        let mut sent = self.call(|endpoint, incoming, rights, around| {
            endpoint.datagram(datagram, incoming, rights, around);
        });
        sent.extend(self.settle());
        sent
    }

    /// Sends a request under the next Message ID; all that comes.
    pub(super) fn ask(&mut self, request: &Request<'_>) -> Vec<Seen> {
        self.next_id += 1;
        let datagram = request.encode(self.next_id);
        let sent = self.datagram(&datagram);
        sent.iter().map(|sent| Seen::of(sent)).collect()
    }

    /// As [`House::ask`], for the one answer.
    pub(super) fn answer(&mut self, request: &Request<'_>) -> Seen {
        let mut seen = self.ask(request);
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0)
    }

    /// Time passes to the next timeout, at most until `to`; what is sent.
    pub(super) fn pass(&mut self, to: u64) -> Vec<(u64, Seen)> {
        let mut sent = Vec::new();
        loop {
            let next = self.endpoint.next_timeout().map(Now::as_millis);
            match next {
                Some(at) if at <= to => self.now = self.now.max(at),
                _ => break,
            }
            let mut datagrams =
                self.call(|endpoint, _, rights, around| endpoint.timeout(rights, around));
            datagrams.extend(self.settle());
            sent.extend(datagrams.iter().map(|sent| (self.now, Seen::of(sent))));
            self.timed.extend(datagrams);
        }
        self.now = to;
        sent
    }

    pub(super) fn review(&mut self) -> Vec<Seen> {
        let mut sent = self.call(|endpoint, _, rights, around| endpoint.review(rights, around));
        sent.extend(self.settle());
        sent.iter().map(|sent| Seen::of(sent)).collect()
    }

    /// The broker answers again.
    pub(super) fn awake(&mut self) -> Vec<Seen> {
        self.asleep = false;
        let mut sent = self.wake();
        sent.extend(self.settle());
        sent.iter().map(|sent| Seen::of(sent)).collect()
    }
}

fn suback(packet_id: PacketId, codes: &[u8]) -> SubAck<'_> {
    SubAck {
        packet_id,
        codes,
        reason_string: None,
        user_properties: UserProperties::default(),
    }
}

fn matches(filter: &str, topic: &str) -> bool {
    match filter.strip_suffix("/#") {
        Some(above) => topic == above || topic.starts_with(&format!("{above}/")),
        None => filter == topic,
    }
}

/// A request to be written.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) kind: Kind,
    pub(super) code: Code,
    pub(super) uri: &'a str,
    pub(super) token: &'a [u8],
    /// Further options.
    pub(super) options: Vec<(OptionNumber, Vec<u8>)>,
    pub(super) payload: &'a [u8],
}

impl<'a> Request<'a> {
    pub(super) fn new(code: Code, uri: &'a str) -> Request<'a> {
        Request {
            kind: Kind::Con,
            code,
            uri,
            token: b"t",
            options: Vec::new(),
            payload: b"",
        }
    }

    pub(super) fn post(uri: &'a str, payload: &'a [u8]) -> Request<'a> {
        Request {
            payload,
            ..Request::new(Code::POST, uri)
        }
    }

    pub(super) fn get(uri: &'a str) -> Request<'a> {
        Request::new(Code::GET, uri)
    }

    pub(super) fn observe(uri: &'a str, token: &'a [u8]) -> Request<'a> {
        Request {
            token,
            ..Request::get(uri)
        }
        .uint(OptionNumber::OBSERVE, 0)
    }

    pub(super) fn non(self) -> Request<'a> {
        Request {
            kind: Kind::Non,
            ..self
        }
    }

    pub(super) fn option(mut self, number: OptionNumber, value: &[u8]) -> Request<'a> {
        self.options.push((number, value.to_vec()));
        self
    }

    pub(super) fn uint(self, number: OptionNumber, value: u32) -> Request<'a> {
        let value = codec::coap::Uint::new(value);
        self.option(number, value.as_bytes())
    }

    pub(super) fn encode(&self, id: u16) -> Vec<u8> {
        let (path, query) = self.uri.split_once('?').unwrap_or((self.uri, ""));
        let mut options = self.options.clone();
        for level in path.split('/') {
            options.push((OptionNumber::URI_PATH, level.into()));
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            options.push((OptionNumber::URI_QUERY, pair.into()));
        }
        options.sort_by_key(|(number, _)| *number);
        let mut out = Vec::new();
        let token = Token::new(self.token).unwrap();
        let mut writer = Writer::new(&mut out, self.kind, self.code, MessageId(id), token);
        for (number, value) in &options {
            writer = writer.option(*number, value);
        }
        writer.payload(self.payload);
        out
    }
}

pub(super) fn empty(kind: Kind, id: u16) -> Vec<u8> {
    let mut out = Vec::new();
    Writer::empty(&mut out, kind, MessageId(id));
    out
}

/// A path that may be read and written.
pub(super) const T: &str = "m/d/c/x/t?auth=s";
