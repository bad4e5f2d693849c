//! One peer: its message layer, and the way between its requests and its guests' MQTT.

use std::collections::VecDeque;

use codec::coap::{Code, Head, Kind, Message, MessageId, Token, Writer};
use codec::mqtt::{Packet, Publish, ReasonCode, decode, split_frame};

use crate::coap::answer::{Datagrams, Reply};
use crate::coap::bodies::{Bodies, Body};
use crate::coap::confirm::{Due, Purpose, UNCONFIRMED_MAX, Unconfirmed};
use crate::coap::format;
use crate::coap::guest::{
    ExchangeNumber, Guest, GuestNumber, Identifier, Question, Stage, VERSION,
};
use crate::coap::handling::{Exchange, Fetch};
use crate::coap::observe::Observation;
use crate::coap::seen::{Answer, Seen};
use crate::coap::uploads::Uploads;
use crate::now::Now;
use crate::web::Login;

/// Milliseconds after which a confirmable request gets an empty ACK, the answer following on its
/// own (RFC 7252, 5.2.2); well below ACK_TIMEOUT, so that it is not sent again.
const SEPARATE_AFTER_MS: u64 = 500;

/// Silence after which observers are asked whether they are there (RFC 7641, 4.5).
const SILENCE_MS: u64 = 24 * 3600 * 1000;

/// An answer to an address that is not proven may be so many times as large as its request.
pub(super) const AMPLIFICATION: usize = 3;

/// What is known of a peer from its address and transport.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Whether its address is its own: it shook hands, or is this host.
    pub proven: bool,
    /// Whether the transport says who it is.
    pub certified: bool,
    /// Whether it may show a credential in its requests.
    pub credentials: bool,
    /// Whether POST on a channel is answered 2.01 instead of 2.04.
    pub created: bool,
    /// Where its Message IDs and timeouts begin.
    pub random: u64,
}

/// What a call looks at and writes to.
#[derive(Debug)]
pub struct Around<'a> {
    /// The moment.
    pub now: Now,
    /// Datagrams to the peer are appended.
    pub out: &'a mut Datagrams,
    /// What happened is counted.
    pub tally: &'a mut Tally,
}

/// What happened, for metrics; the caller takes it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Requests that were new.
    pub requests: u64,
    /// Requests that came again.
    pub repeated: u64,
    /// Datagrams that were no message, or a message that is rejected.
    pub rejected: u64,
    /// Answers of the classes 4 and 5.
    pub errors: u64,
    /// Peers asked to prove their address.
    pub challenges: u64,
    /// Notifications sent first.
    pub notifications: u64,
    /// Messages that observers were too slow for.
    pub notifications_dropped: u64,
    /// Own messages sent again.
    pub sent_again: u64,
    /// Peers that confirmed nothing any more.
    pub given_up: u64,
}

/// What holds for a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Incoming {
    /// Whether clients are served.
    pub serving: bool,
    /// Bytes of the largest message.
    pub payload_max: usize,
    /// Bytes that may still be kept for bodies in blocks.
    pub room: usize,
    /// What proves the peer's address now, and a while ago.
    pub echo: [[u8; 8]; 2],
}

/// Whether messages may be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Right {
    /// They may.
    Held,
    /// It is not known at present.
    Unclear,
    /// They may not.
    Lost,
}

/// What an endpoint asks about the world.
pub trait Rights {
    /// Whether a guest may read what it subscribed to under this Subscription Identifier.
    fn may_read(&mut self, guest: GuestNumber, identifier: u32) -> Right;

    /// `m/<domain id>/c/<channel id>` of a channel named by ids or routes, if there is one.
    fn canonical(&mut self, domain: &str, channel: &str) -> Option<String>;
}

/// What an endpoint wants done.
#[derive(Debug, Eq, PartialEq)]
pub enum Wish {
    /// The end of a guest's MQTT connection, of which nothing is to be told.
    Close(GuestNumber),
    /// An MQTT connection for a guest.
    Open(GuestNumber),
    /// Packets for the connection of a guest.
    Input(GuestNumber, Vec<u8>),
}

/// Numbers without pattern (xorshift64*): Message IDs and timeouts, no secrets.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

/// What is known of one peer. Everything in it is bounded: 32 requests remembered, 32 unanswered, 72
/// own messages unconfirmed, 8 guests, 64 observations, 4 bodies each way.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) manner: Manner,
    /// Who the transport says that the peer is, with the secret that it showed to know.
    pub(super) transport: Option<Login>,
    pub(super) random: Random,
    next_id: u16,
    pub(super) next_exchange: u32,
    pub(super) sequence: u32,
    pub(super) heard: Now,
    pub(super) seen: Seen,
    pub(super) exchanges: Vec<Exchange>,
    pub(super) fetches: Vec<Fetch>,
    pub(super) unconfirmed: Vec<Unconfirmed>,
    /// Message IDs of notifications without confirmation.
    pub(super) notified: VecDeque<(MessageId, Token)>,
    pub(super) guests: [Option<Box<Guest>>; Endpoint::GUESTS_MAX],
    /// Whose guest's connection is to be closed: another guest has its place.
    pub(super) leaving: [bool; Endpoint::GUESTS_MAX],
    pub(super) observations: Vec<Observation>,
    /// Bytes that may still be kept of bodies, as far as is known.
    pub(super) room: usize,
    pub(super) uploads: Uploads,
    pub(super) bodies: Bodies,
}

impl Endpoint {
    /// Credentials of one peer in use at a time; the one that was idle longest makes room.
    pub const GUESTS_MAX: usize = 8;

    /// A peer that is heard for the first time.
    pub fn new(manner: Manner, now: Now) -> Endpoint {
        let mut random = Random(manner.random | 1);
        Endpoint {
            manner,
            transport: None,
            next_id: random.next() as u16,
            next_exchange: 0,
            sequence: 0,
            random,
            heard: now,
            seen: Seen::default(),
            exchanges: Vec::new(),
            fetches: Vec::new(),
            unconfirmed: Vec::new(),
            notified: VecDeque::new(),
            guests: [const { None }; Endpoint::GUESTS_MAX],
            leaving: [false; Endpoint::GUESTS_MAX],
            observations: Vec::new(),
            room: 0,
            uploads: Uploads::default(),
            bodies: Bodies::default(),
        }
    }

    /// The transport has found out who the peer is: a client that knows its secret, or one that a
    /// certificate names, and nobody where neither says it. Nobody else can read along.
    pub fn secured(&mut self, login: Option<Login>, certified: bool) {
        self.transport = login;
        self.manner = Manner {
            proven: true,
            certified,
            credentials: true,
            ..self.manner
        };
    }

    /// Takes a datagram of the peer.
    pub fn datagram(
        &mut self,
        datagram: &[u8],
        incoming: &Incoming,
        rights: &mut dyn Rights,
        around: &mut Around<'_>,
    ) {
        self.heard = around.now;
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(_) => {
                around.tally.rejected += 1;
                // (RFC 7252, 4.2: whoever cannot process a confirmable message rejects it.)
                if let Some(head) = Head::read(datagram).filter(|head| head.kind == Kind::Con) {
                    self.reject(head.id, around);
                }
                return;
            }
        };
        match (message.kind, message.code) {
            // A ping (RFC 7252, 4.3).
            (Kind::Con, Code::EMPTY) => self.reject(message.id, around),
            (Kind::Ack, _) => self.confirmed(message.id, rights, around),
            (Kind::Rst, _) => self.was_reset(message.id),
            (Kind::Con | Kind::Non, code) if code.is_request() => {
                let at = around.out.iter().count();
                self.deduplicated(&message, datagram.len(), incoming, rights, around);
                debug_assert!(
                    self.manner.proven
                        || around.out.iter().skip(at).map(<[u8]>::len).sum::<usize>()
                            <= AMPLIFICATION * datagram.len()
                );
            }
            // Answers to nothing that was asked, and reserved classes.
            (Kind::Con, _) => {
                around.tally.rejected += 1;
                self.reject(message.id, around);
            }
            (Kind::Non, _) => around.tally.rejected += 1,
        }
    }

    /// A request, unless it came before.
    fn deduplicated(
        &mut self,
        message: &Message<'_>,
        len: usize,
        incoming: &Incoming,
        rights: &mut dyn Rights,
        around: &mut Around<'_>,
    ) {
        match self.seen.find(message.id, around.now) {
            None => {
                around.tally.requests += 1;
                self.request(message, len, incoming, rights, around);
            }
            Some(answer) => {
                around.tally.repeated += 1;
                let most = match self.manner.proven {
                    true => usize::MAX,
                    // What bears the number of a longer request, and is none, gets no more for it.
                    false => AMPLIFICATION * len,
                };
                match answer {
                    Answer::Bytes(bytes) if message.kind == Kind::Con && bytes.len() <= most => {
                        around.out.write(|out| out.extend_from_slice(&bytes));
                    }
                    Answer::Again if message.kind == Kind::Con => {
                        self.request(message, len, incoming, rights, around);
                    }
                    Answer::Bytes(_) | Answer::Again | Answer::None => {}
                }
            }
        }
    }

    pub(super) fn reject(&mut self, id: MessageId, around: &mut Around<'_>) {
        around.out.write(|out| Writer::empty(out, Kind::Rst, id));
    }

    fn confirmed(&mut self, id: MessageId, rights: &mut dyn Rights, around: &mut Around<'_>) {
        let Some(at) = self.unconfirmed.iter().position(|sent| sent.id == id) else {
            return;
        };
        match self.unconfirmed.swap_remove(at).purpose {
            Purpose::Notification(token) => self.notification_confirmed(token, rights, around),
            Purpose::Answer | Purpose::Ping => {}
        }
    }

    fn was_reset(&mut self, id: MessageId) {
        let Some(at) = self.unconfirmed.iter().position(|sent| sent.id == id) else {
            return self.reset(id);
        };
        match self.unconfirmed.swap_remove(at).purpose {
            Purpose::Notification(token) => {
                if let Some(at) = self.observation(token) {
                    self.forget_observation(at);
                }
            }
            // The answer to a ping is that the peer is there.
            Purpose::Answer | Purpose::Ping => {}
        }
    }

    pub(super) fn next_id(&mut self) -> MessageId {
        self.next_id = self.next_id.wrapping_add(1);
        MessageId(self.next_id)
    }

    /// Answers a request: on its ACK, or later on its own.
    pub(super) fn answer(
        &mut self,
        number: ExchangeNumber,
        reply: &Reply<'_>,
        around: &mut Around<'_>,
    ) {
        let Some(at) = self.exchanges.iter().position(|open| open.number == number) else {
            return;
        };
        let exchange = self.exchanges.swap_remove(at);
        self.answer_exchange(&exchange, reply, around);
    }

    /// As [`Endpoint::answer`], for a request that is not in the list.
    pub(super) fn answer_exchange(
        &mut self,
        exchange: &Exchange,
        reply: &Reply<'_>,
        around: &mut Around<'_>,
    ) {
        around.tally.errors += u64::from(reply.code.is_error());
        let piggybacked = exchange.confirmable && !exchange.acknowledged;
        // (RFC 7967: a bit for each class that is not to be told.)
        if exchange.no_response >> (reply.code.class().saturating_sub(1)) & 1 == 1 {
            if piggybacked {
                self.acknowledge(exchange.id, around);
            }
            return;
        }
        let room = self.unconfirmed.len() < UNCONFIRMED_MAX;
        // Content that comes late is not sent again: it would have to be judged again.
        let late = exchange.acknowledged && reply.code != Code::CONTENT;
        let (kind, id) = match (piggybacked, late && room && self.manner.proven) {
            (true, _) => (Kind::Ack, exchange.id),
            (false, true) => (Kind::Con, self.next_id()),
            (false, false) => (Kind::Non, self.next_id()),
        };
        let token = exchange.token;
        let mut bytes = around.out.write(|out| reply.put(kind, id, token, out));
        if !self.manner.proven && bytes.len() > AMPLIFICATION * exchange.request_bytes {
            around.out.take_back();
            let shorter = if reply.code.is_error() {
                Reply {
                    payload: &[],
                    ..*reply
                }
            } else {
                around.tally.challenges += 1;
                Reply {
                    echo: Some(exchange.echo),
                    ..Reply::new(Code::UNAUTHORIZED)
                }
            };
            bytes = around.out.write(|out| shorter.put(kind, id, token, out));
            if bytes.len() > AMPLIFICATION * exchange.request_bytes {
                around.out.take_back();
                return;
            }
        }
        if kind == Kind::Con {
            let random = self.random.next();
            self.unconfirmed.push(Unconfirmed::new(
                id,
                bytes,
                Purpose::Answer,
                random,
                around.now,
            ));
        }
        if piggybacked {
            self.seen.answered(exchange.id, bytes);
        }
    }

    fn acknowledge(&mut self, id: MessageId, around: &mut Around<'_>) {
        let bytes = around.out.write(|out| Writer::empty(out, Kind::Ack, id));
        self.seen.answered(id, bytes);
    }

    /// Whole packets that the broker sent to a guest.
    pub fn packets(&mut self, guest: GuestNumber, mut packets: &[u8], around: &mut Around<'_>) {
        while let Ok(Some(frame)) = split_frame(packets, u32::MAX) {
            packets = &packets[frame.bytes.len()..];
            if let Ok(packet) = decode(&frame, VERSION) {
                self.packet(guest.0, &packet, around);
            }
        }
    }

    fn packet(&mut self, number: u8, packet: &Packet<'_>, around: &mut Around<'_>) {
        let Some(guest) = self.guest_mut(number) else {
            return;
        };
        match packet {
            Packet::ConnAck(connack) if connack.reason.is_error() => {
                guest.stage = Stage::Over(connack.reason);
            }
            Packet::ConnAck(connack) => {
                if guest.stage == Stage::Opening {
                    guest.stage = Stage::Live;
                }
                let keep_alive = connack.properties.server_keep_alive.unwrap_or(0);
                guest.ping_every_s = u32::from(keep_alive / 2);
                guest.ping_at = (keep_alive > 0).then(|| around.now.plus_secs(guest.ping_every_s));
                self.guest_connected(number, around);
            }
            Packet::PubAck(ack) => {
                if let Some(Question::Publish(exchange)) = guest.answered(ack.packet_id) {
                    self.published(exchange, ack.reason, around);
                }
            }
            Packet::SubAck(suback) => {
                let code = suback.codes.first().copied().map(ReasonCode::new);
                let code = code.unwrap_or(ReasonCode::UNSPECIFIED_ERROR);
                if let Some(Question::Subscribe(identifier)) = guest.answered(suback.packet_id) {
                    self.subscribed(number, identifier, code, around);
                }
            }
            Packet::UnsubAck(unsuback) => drop(guest.answered(unsuback.packet_id)),
            Packet::Publish(publish) => self.message(number, publish, around),
            Packet::Disconnect(disconnect) => guest.stage = Stage::Over(disconnect.reason),
            Packet::PingResp
            | Packet::Connect(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::PingReq
            | Packet::Auth(_) => {}
        }
    }

    /// A message for whoever asked for it, and whoever observes.
    fn message(&mut self, guest: u8, publish: &Publish<'_>, around: &mut Around<'_>) {
        let mut body = None;
        for number in publish.properties.subscription_identifiers.iter() {
            let known = Identifier::of(number).filter(|identifier| {
                let guest = self.guests[usize::from(guest)].as_ref();
                guest.is_some_and(|guest| guest.filter(*identifier).is_some())
            });
            let Some(identifier) = known else {
                continue;
            };
            let body = body.get_or_insert_with(|| {
                let named = publish.properties.content_type.and_then(format::number);
                let text = publish.properties.payload_format.map(|_| format::TEXT);
                let described = publish.properties.content_type.is_some();
                Body::new(publish.payload, if described { named } else { text })
            });
            let mut begun = Vec::new();
            if publish.retain {
                begun = self.fetched(guest, identifier, Some(&*body), around);
            }
            let mut at = 0;
            while at < self.observations.len() {
                let observation = &self.observations[at];
                let own = if publish.retain {
                    // What is retained is for whoever subscribed just now, and not what it has
                    // been answered with.
                    observation.identifier == identifier && !begun.contains(&observation.token)
                } else {
                    observation.identifier.filter == identifier.filter
                };
                let (before, is_for_it) =
                    (self.observations.len(), observation.guest == guest && own);
                if is_for_it {
                    self.notify(at, body.clone(), around);
                }
                at += usize::from(before == self.observations.len());
            }
        }
    }

    /// All that is retained for a subscription was given.
    pub fn replayed(&mut self, guest: GuestNumber, identifier: u32, around: &mut Around<'_>) {
        if let Some(identifier) = Identifier::of(identifier) {
            self.fetched(guest.0, identifier, None, around);
        }
    }

    /// The connection of a guest is closed.
    pub fn guest_closed(&mut self, guest: GuestNumber, around: &mut Around<'_>) {
        let Some(closed) = self
            .guests
            .get_mut(usize::from(guest.0))
            .and_then(Option::take)
        else {
            return;
        };
        let reason = match closed.stage {
            Stage::Over(reason) => reason,
            Stage::Opening | Stage::Live => ReasonCode::SERVER_UNAVAILABLE,
        };
        self.guest_gone(guest.0, reason, around);
    }

    /// Whether the transport says who a guest is.
    pub fn is_certified(&self, guest: GuestNumber) -> bool {
        let found = self
            .guests
            .get(usize::from(guest.0))
            .and_then(Option::as_ref);
        self.manner.certified && found.is_some_and(|guest| guest.login.is_none())
    }

    /// What is to be done next, if anything: packets only where the connection is `readable`.
    pub fn wishes(&mut self, mut readable: impl FnMut(GuestNumber) -> bool) -> Option<Wish> {
        for (number, guest) in (0u8..).zip(&mut self.guests) {
            let Some(guest) = guest else {
                continue;
            };
            let number = GuestNumber(number);
            if std::mem::take(&mut self.leaving[usize::from(number.0)]) {
                return Some(Wish::Close(number));
            }
            if !guest.opened {
                guest.opened = true;
                return Some(Wish::Open(number));
            }
            if !guest.mqtt.is_empty() && readable(number) {
                return Some(Wish::Input(number, std::mem::take(&mut guest.mqtt)));
            }
        }
        None
    }

    pub(super) fn guest_mut(&mut self, number: u8) -> Option<&mut Guest> {
        self.guests.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// Looks after whatever is due.
    pub fn timeout(&mut self, rights: &mut dyn Rights, around: &mut Around<'_>) {
        let now = around.now;
        self.uploads.expire(now);
        self.bodies.expire(now);
        for at in 0..self.exchanges.len() {
            let exchange = &mut self.exchanges[at];
            if exchange.acknowledge_at.is_some_and(|due| due <= now) {
                exchange.acknowledge_at = None;
                exchange.acknowledged = true;
                let id = exchange.id;
                self.acknowledge(id, around);
            }
        }
        for guest in self.guests.iter_mut().flatten() {
            if guest.stage == Stage::Live && guest.ping_at.is_some_and(|at| at <= now) {
                guest.ping(now);
            }
        }
        self.send_again(rights, around);
        let silent = now.millis_since(self.heard) >= SILENCE_MS;
        let asked = self
            .unconfirmed
            .iter()
            .any(|sent| sent.purpose == Purpose::Ping);
        if silent
            && !asked
            && !self.observations.is_empty()
            && self.unconfirmed.len() < UNCONFIRMED_MAX
        {
            let id = self.next_id();
            let random = self.random.next();
            let bytes = around.out.write(|out| Writer::empty(out, Kind::Con, id));
            self.unconfirmed
                .push(Unconfirmed::new(id, bytes, Purpose::Ping, random, now));
        }
    }

    /// Sends what was not confirmed again. A peer that confirms no notification is gone, and all
    /// its observations with it (RFC 7641, 4.5).
    fn send_again(&mut self, rights: &mut dyn Rights, around: &mut Around<'_>) {
        let mut at = 0;
        while at < self.unconfirmed.len() {
            let sent = &mut self.unconfirmed[at];
            let purpose = sent.purpose;
            match sent.due(around.now) {
                None => at += 1,
                Some(Due::Again) => {
                    let observation = match purpose {
                        Purpose::Notification(token) => self.observation(token),
                        Purpose::Answer | Purpose::Ping => None,
                    };
                    let right = observation.map(|found| (found, self.right_of(found, rights)));
                    match right {
                        Some((found, Right::Lost)) => {
                            self.end_observation(found, Code::FORBIDDEN, around);
                            // The list has changed; whatever is due is due still.
                            at = 0;
                            continue;
                        }
                        Some((_, Right::Unclear)) => {}
                        Some((_, Right::Held)) | None => {
                            around.tally.sent_again += 1;
                            let bytes = &self.unconfirmed[at].bytes;
                            around.out.write(|out| out.extend_from_slice(bytes));
                        }
                    }
                    at += 1;
                }
                Some(Due::GivenUp) => {
                    self.unconfirmed.swap_remove(at);
                    if purpose != Purpose::Answer {
                        around.tally.given_up += 1;
                        while !self.observations.is_empty() {
                            self.forget_observation(0);
                        }
                        at = 0;
                    }
                }
            }
        }
    }

    /// When [`Endpoint::timeout`] is to be called at the latest.
    pub fn next_timeout(&self) -> Option<Now> {
        let acks = self.exchanges.iter().filter_map(|open| open.acknowledge_at);
        let sent = self.unconfirmed.iter().map(Unconfirmed::at);
        let pings = self
            .guests
            .iter()
            .flatten()
            .filter_map(|guest| guest.ping_at);
        let silence = (!self.observations.is_empty()
            && self
                .unconfirmed
                .iter()
                .all(|sent| sent.purpose != Purpose::Ping))
        .then(|| self.heard.plus_millis(SILENCE_MS));
        acks.chain(sent)
            .chain(pings)
            .chain(self.uploads.next_timeout())
            .chain(self.bodies.next_timeout())
            .chain(silence)
            .min()
    }

    /// When a confirmable request that came now gets its empty ACK.
    pub(super) fn acknowledge_at(now: Now) -> Now {
        now.plus_millis(SEPARATE_AFTER_MS)
    }

    /// Bytes that are kept of bodies in blocks.
    pub fn bytes(&self) -> usize {
        self.uploads.bytes() + self.bodies.bytes()
    }

    /// Whether nobody would miss it: nothing is observed, unanswered or unconfirmed.
    pub fn is_idle(&self) -> bool {
        self.observations.is_empty() && self.exchanges.is_empty() && self.unconfirmed.is_empty()
    }

    /// Whether it has ever shown a credential that was let in.
    pub fn has_guests(&self) -> bool {
        self.guests.iter().any(Option::is_some)
    }

    /// When it was heard last.
    pub fn heard(&self) -> Now {
        self.heard
    }

    /// How many observations it has.
    pub fn observations(&self) -> usize {
        self.observations.len()
    }
}
