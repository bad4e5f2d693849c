//! The PUBLISH that a broker sends: pieces put together without building them first.

use super::property::id;
use super::publish::first_byte;
use super::{Delivery, ProtocolVersion, put};
use crate::varint;

/// A PUBLISH to be sent, made of pieces that many receivers share.
#[derive(Clone, Copy, Debug)]
pub struct PublishOut<'a> {
    /// Sent before; not at QoS 0.
    pub dup: bool,
    /// Sent because it was retained, or as published.
    pub retain: bool,
    /// Quality of Service and Packet Identifier.
    pub delivery: Delivery,
    /// Pieces of the Topic Name, concatenated; together at most 65 535 bytes.
    pub topic: &'a [&'a str],
    /// Topic Alias, MQTT 5 only.
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval that remains, in seconds, MQTT 5 only.
    pub message_expiry: Option<u32>,
    /// Identifiers of the matching subscriptions, each 1 to 268 435 455, MQTT 5 only.
    pub subscription_identifiers: &'a [u32],
    /// Block made by [`forwarded_into`](super::PublishProperties::forwarded_into), MQTT 5 only.
    pub forwarded: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

impl PublishOut<'_> {
    /// Appends the packet to `out`. Before MQTT 5 properties are left out.
    ///
    /// # Panics
    /// The topic is longer than 65 535 bytes, the packet than 268 435 455, or a Subscription
    /// Identifier is out of range.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let lengths = self.lengths(version);
        out.reserve(lengths.packet());
        out.push(first_byte(self.dup, self.delivery.qos(), self.retain));
        varint::put(out, wire(lengths.remaining));
        put::length(out, lengths.topic);
        for piece in self.topic {
            out.extend_from_slice(piece.as_bytes());
        }
        if let Some(packet_id) = self.delivery.packet_id() {
            put::u16(out, packet_id.get());
        }
        if version.is_v5() {
            // [MQTT-2.2.2-1]
            varint::put(out, wire(lengths.properties));
            self.put_properties(out);
        }
        out.extend_from_slice(self.payload);
    }

    /// Bytes that `encode` appends, fixed header included: what a client's Maximum Packet Size is
    /// compared with.
    pub fn encoded_len(&self, version: ProtocolVersion) -> usize {
        self.lengths(version).packet()
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        if let Some(alias) = self.topic_alias {
            out.push(id::TOPIC_ALIAS);
            put::u16(out, alias);
        }
        if let Some(seconds) = self.message_expiry {
            out.push(id::MESSAGE_EXPIRY);
            put::u32(out, seconds);
        }
        for identifier in self.subscription_identifiers {
            out.push(id::SUBSCRIPTION_IDENTIFIER);
            varint::put(out, *identifier);
        }
        out.extend_from_slice(self.forwarded);
    }

    #[inline]
    fn lengths(&self, version: ProtocolVersion) -> Lengths {
        let topic = self.topic.iter().map(|piece| piece.len()).sum();
        let packet_id = if self.delivery.packet_id().is_some() {
            2
        } else {
            0
        };
        let mut remaining = 2 + topic + packet_id + self.payload.len();
        let mut properties = 0;
        if version.is_v5() {
            let alias = if self.topic_alias.is_some() { 3 } else { 0 };
            let expiry = if self.message_expiry.is_some() { 5 } else { 0 };
            let identifiers: usize = self
                .subscription_identifiers
                .iter()
                .map(|id| 1 + varint::len(*id))
                .sum();
            properties = alias + expiry + identifiers + self.forwarded.len();
            remaining += varint::len(wire(properties)) + properties;
        }
        Lengths {
            topic,
            properties,
            remaining,
        }
    }
}

/// Bytes of the parts that have a length in front.
struct Lengths {
    topic: usize,
    properties: usize,
    /// Remaining Length.
    remaining: usize,
}

impl Lengths {
    fn packet(&self) -> usize {
        1 + varint::len(wire(self.remaining)) + self.remaining
    }
}

/// A length as it goes on the wire; one that does not fit is refused by `varint::put`.
#[inline]
fn wire(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
