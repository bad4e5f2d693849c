//! Channel sockets: a WebSocket on `/m/<domain>/c/<channel>[/<subtopic>]` as an MQTT client.
//!
//! A message of the peer becomes a PUBLISH on the path, a PUBLISH to it a message. Everything else
//! is the MQTT machine's: who it is, what it may do, what waits for it. So a channel socket has
//! the rights, limits and fate of a connection with one subscription.

mod envelope;

use std::collections::VecDeque;

use codec::mqtt::{
    Connect, ConnectProperties, Delivery, Packet, PacketId, ProtocolVersion, Publish, QoS,
    ReasonCode, Subscribe, SubscribeFilters, Subscription, UserProperties, decode, put_pingreq,
    split_frame,
};
use codec::ws::{CloseCode, UpgradeError};

use crate::channel_socket::envelope::Sent;
use crate::web::{ChannelPath, Login, Posted};

/// The sub-protocol whose messages are JSON with topic and payload.
pub const ENVELOPES: &str = "turnpike.json.v1";

/// Seconds between two pings of the server.
pub const PING_EVERY_S: u32 = 30;

/// Seconds of silence, half of them more being granted: a peer has to answer every other ping.
const KEEP_ALIVE_S: u16 = 60;

const VERSION: ProtocolVersion = ProtocolVersion::V5;

/// One channel socket's side of its MQTT connection.
#[derive(Debug)]
pub struct ChannelSocket {
    topic: Box<str>,
    /// The path names more than one topic: nothing can be published on it.
    wild: bool,
    envelopes: bool,
    binary: bool,
    stage: Stage,
    next_id: u16,
    /// What envelopes wait for an answer, in order.
    asked: VecDeque<(PacketId, serde_json::Value)>,
}

#[derive(Copy, Clone, Debug, Eq, PartialEq)]
enum Stage {
    /// The subscription is not granted.
    Asking,
    /// Messages pass.
    Open,
    /// Refused or closed.
    Over,
}

/// What is asked for.
#[derive(Debug)]
pub struct ChannelRequest<'a> {
    /// The channel and what is below it.
    pub path: &'a ChannelPath,
    /// Who asks; nobody where a certificate says it.
    pub login: Option<&'a Login>,
    /// Whether messages are envelopes.
    pub envelopes: bool,
    /// Whether messages to the peer are binary whatever they hold.
    pub binary: bool,
}

/// What is to be told to the peer.
#[derive(Debug)]
pub enum Told<'a> {
    /// The answer to the request: the WebSocket begins.
    Accept,
    /// The answer to the request: it does not.
    Refuse(UpgradeError),
    /// A message in UTF-8.
    Text(&'a [u8]),
    /// A message of bytes.
    Binary(&'a [u8]),
    /// The end.
    Close(CloseCode),
}

impl ChannelSocket {
    /// Appends what opens the MQTT connection: CONNECT and SUBSCRIBE.
    pub fn open(request: &ChannelRequest<'_>, mqtt: &mut Vec<u8>) -> ChannelSocket {
        let login = request.login;
        Connect {
            version: VERSION,
            clean_start: true,
            keep_alive: KEEP_ALIVE_S,
            client_id: "",
            will: None,
            username: login.map(|login| &*login.username),
            password: login.map(|login| login.password.as_bytes()),
            properties: ConnectProperties::default(),
        }
        .encode(VERSION, mqtt);
        let topic = request.path.topic();
        let mut filters = Vec::new();
        Subscription {
            // What a socket sends does not come back to it.
            no_local: true,
            ..Subscription::new(&topic, QoS::AtMostOnce)
        }
        .put(VERSION, &mut filters);
        let id = PacketId::new(1);
        if let (Some(packet_id), Ok(filters)) = (id, SubscribeFilters::parse(&filters, VERSION)) {
            Subscribe {
                packet_id,
                subscription_identifier: None,
                user_properties: UserProperties::default(),
                filters,
            }
            .encode(VERSION, mqtt);
        }
        ChannelSocket {
            topic: topic.into(),
            wild: request.path.has_wildcard(),
            envelopes: request.envelopes,
            binary: request.binary,
            stage: Stage::Asking,
            next_id: 0,
            asked: VecDeque::new(),
        }
    }

    /// Whether the WebSocket has begun and not ended.
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Whether nothing more is to be told to the peer.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// A message of the peer: its PUBLISH is appended to `mqtt`.
    ///
    /// # Errors
    /// How the WebSocket has to end.
    pub fn message(
        &mut self,
        text: bool,
        payload: &[u8],
        mqtt: &mut Vec<u8>,
    ) -> Result<(), CloseCode> {
        if self.stage != Stage::Open {
            return Err(CloseCode::PROTOCOL_ERROR);
        }
        if self.envelopes {
            let sent = Sent::read(text, payload).ok_or(CloseCode::INVALID_PAYLOAD)?;
            let topic = sent.topic.as_deref().unwrap_or(&self.topic);
            if sent.topic.is_none() && self.wild {
                return Err(CloseCode::POLICY_VIOLATION);
            }
            let id = next_id(&mut self.next_id).ok_or(CloseCode::INTERNAL_ERROR)?;
            sent.publish(topic, id, mqtt);
            self.asked.push_back((id, sent.id));
            return Ok(());
        }
        if self.wild {
            return Err(CloseCode::POLICY_VIOLATION);
        }
        let id = next_id(&mut self.next_id).ok_or(CloseCode::INTERNAL_ERROR)?;
        Posted {
            topic: &self.topic,
            delivery: Delivery::AtLeastOnce(id),
            retain: false,
            text,
            content_type: None,
            payload,
        }
        .encode(mqtt);
        Ok(())
    }

    /// A Pong of the peer: it is alive.
    pub fn pong(&self, mqtt: &mut Vec<u8>) {
        put_pingreq(mqtt);
    }

    /// Whole packets for the peer, in order.
    pub fn packets(&mut self, mut packets: &[u8], mut tell: impl FnMut(Told<'_>)) {
        while self.stage != Stage::Over
            && let Ok(Some(frame)) = split_frame(packets, u32::MAX)
        {
            packets = &packets[frame.bytes.len()..];
            if let Ok(packet) = decode(&frame, VERSION) {
                self.packet(&packet, &mut tell);
            }
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, tell: &mut impl FnMut(Told<'_>)) {
        match packet {
            Packet::ConnAck(connack) if connack.reason.is_error() => {
                self.refuse(connack.reason, tell);
            }
            Packet::SubAck(suback) => match suback.codes.first().copied().map(ReasonCode::new) {
                Some(code) if !code.is_error() => {
                    self.stage = Stage::Open;
                    tell(Told::Accept);
                }
                code => self.refuse(code.unwrap_or(ReasonCode::UNSPECIFIED_ERROR), tell),
            },
            Packet::Publish(publish) if self.envelopes => {
                tell(Told::Text(&envelope::received(publish)));
            }
            Packet::Publish(publish) => self.tell_raw(publish, tell),
            Packet::PubAck(ack) if self.envelopes => {
                let asked = self.asked.pop_front();
                let answer = asked.and_then(|(_, id)| envelope::answer(&id, ack.reason));
                if let Some(answer) = answer {
                    tell(Told::Text(&answer));
                }
            }
            // Nothing else can tell a raw message's sender that it may not send.
            Packet::PubAck(ack) if ack.reason.is_error() => {
                self.stage = Stage::Over;
                tell(Told::Close(close_code(ack.reason)));
            }
            Packet::Disconnect(disconnect) => {
                if self.stage == Stage::Asking {
                    return self.refuse(disconnect.reason, tell);
                }
                self.stage = Stage::Over;
                tell(Told::Close(close_code(disconnect.reason)));
            }
            // Accepted with the SUBACK; pongs answer our own pings.
            Packet::ConnAck(_) | Packet::PubAck(_) | Packet::PingResp => {}
            Packet::Connect(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::Auth(_) => {}
        }
    }

    /// Text where it is text, whoever sent it; a peer may ask for bytes always.
    fn tell_raw(&self, publish: &Publish<'_>, tell: &mut impl FnMut(Told<'_>)) {
        if !self.binary && std::str::from_utf8(publish.payload).is_ok() {
            tell(Told::Text(publish.payload));
        } else {
            tell(Told::Binary(publish.payload));
        }
    }

    fn refuse(&mut self, code: ReasonCode, tell: &mut impl FnMut(Told<'_>)) {
        self.stage = Stage::Over;
        tell(Told::Refuse(match code {
            ReasonCode::BAD_USER_NAME_OR_PASSWORD | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => {
                UpgradeError::Unauthorized
            }
            ReasonCode::NOT_AUTHORIZED | ReasonCode::ADMINISTRATIVE_ACTION => {
                UpgradeError::Forbidden
            }
            ReasonCode::CONNECTION_RATE_EXCEEDED | ReasonCode::QUOTA_EXCEEDED => {
                UpgradeError::TooMany
            }
            ReasonCode::TOPIC_FILTER_INVALID => {
                UpgradeError::Malformed("the path is no topic filter")
            }
            _ => UpgradeError::Unavailable,
        }));
    }
}

/// The next Packet Identifier, never 0; each is answered long before it comes again.
fn next_id(next: &mut u16) -> Option<PacketId> {
    *next = next.wrapping_add(1).max(1);
    PacketId::new(*next)
}

/// How a WebSocket ends for a reason that MQTT gives.
fn close_code(code: ReasonCode) -> CloseCode {
    match code {
        ReasonCode::NORMAL_DISCONNECTION => CloseCode::NORMAL,
        ReasonCode::SERVER_SHUTTING_DOWN => CloseCode::GOING_AWAY,
        ReasonCode::NOT_AUTHORIZED
        | ReasonCode::ADMINISTRATIVE_ACTION
        | ReasonCode::MAXIMUM_CONNECT_TIME
        | ReasonCode::TOPIC_NAME_INVALID
        | ReasonCode::RECEIVE_MAXIMUM_EXCEEDED => CloseCode::POLICY_VIOLATION,
        ReasonCode::PACKET_TOO_LARGE => CloseCode::MESSAGE_TOO_BIG,
        ReasonCode::SERVER_UNAVAILABLE | ReasonCode::SERVER_BUSY | ReasonCode::QUOTA_EXCEEDED => {
            CloseCode::TRY_AGAIN_LATER
        }
        ReasonCode::MALFORMED_PACKET
        | ReasonCode::PROTOCOL_ERROR
        | ReasonCode::KEEP_ALIVE_TIMEOUT => CloseCode::PROTOCOL_ERROR,
        _ => CloseCode::INTERNAL_ERROR,
    }
}

#[cfg(test)]
mod tests;
