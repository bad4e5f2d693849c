//! The PUBLISH that a broker sends: pieces put together without building them first.

use super::property::id;
use super::publish::first_byte;
use super::put::{self, wire};
use super::{Delivery, ProtocolVersion};
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
        let first = first_byte(self.dup, self.delivery.qos(), self.retain);
        put::publish_start(out, first, lengths.topic, lengths.behind_topic);
        for piece in self.topic {
            out.extend_from_slice(piece.as_bytes());
        }
        put::packet_id(out, self.delivery.packet_id());
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
        let mut behind_topic = put::packet_id_len(self.delivery.packet_id()) + self.payload.len();
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
            behind_topic += varint::len(wire(properties)) + properties;
        }
        Lengths {
            topic,
            properties,
            behind_topic,
        }
    }
}

/// Bytes of the parts of a packet.
struct Lengths {
    topic: usize,
    properties: usize,
    /// Packet Identifier, properties with their length, payload.
    behind_topic: usize,
}

impl Lengths {
    fn packet(&self) -> usize {
        let remaining = 2 + self.topic + self.behind_topic;
        1 + varint::len(wire(remaining)) + remaining
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Packet, PacketId, UserProperties, decode, split_frame};
    use super::*;

    /// Response Topic, User Properties around Content Type, Correlation Data, Payload Format
    /// Indicator, and what is not forwarded: alias 1, expiry 60, Subscription Identifier 9.
    const PUBLISH: &[u8] = b"\x30\x37\0\x01t\x33\
        \x08\0\x03r/s\x26\0\x01k\0\x01v\x03\0\x04text\x26\0\x01a\0\x01b\x09\0\x02\0\xFF\x01\x01\
        \x23\0\x01\x02\0\0\0\x3C\x0B\x09\x26\0\x01k\0\x01v";

    #[test]
    fn properties_are_forwarded_unaltered_and_in_order() {
        // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
        // [MQTT-3.3.2-20]
        let received = read(PUBLISH, ProtocolVersion::V5);
        let mut forwarded = Vec::new();
        received.properties.forwarded_into(&mut forwarded);
        let mut out = Vec::new();
        publish(&forwarded).encode(ProtocolVersion::V5, &mut out);
        let sent = read(&out, ProtocolVersion::V5);
        assert_eq!(sent.topic, "m/d/c/x/t");
        let (sent, received) = (sent.properties, received.properties);
        assert_eq!(sent.payload_format, received.payload_format);
        assert_eq!(sent.response_topic, received.response_topic);
        assert_eq!(sent.correlation_data, received.correlation_data);
        assert_eq!(sent.content_type, received.content_type);
        assert_eq!(sent.user_properties, received.user_properties);
        assert_eq!(sent.user_properties.count(), 3);
        assert_eq!(sent.user_properties.len_bytes(), 21);
        assert_eq!((sent.topic_alias, sent.message_expiry), (Some(2), Some(59)));
        assert!(sent.subscription_identifiers.iter().eq([7, 268_435_455]));
    }

    #[test]
    fn before_mqtt_5_properties_are_left_out() {
        let mut forwarded = Vec::new();
        UserProperties::put(&mut forwarded, "k", "v");
        let mut out = Vec::new();
        publish(&forwarded).encode(ProtocolVersion::V311, &mut out);
        assert_eq!(out, b"\x32\x0E\0\x09m/d/c/x/t\0\x05p");
        assert_eq!(
            publish(&forwarded).encoded_len(ProtocolVersion::V311),
            out.len()
        );
    }

    #[test]
    fn no_properties_are_a_length_of_zero() {
        // [MQTT-2.2.2-1]
        let bare = PublishOut {
            topic_alias: None,
            message_expiry: None,
            subscription_identifiers: &[],
            ..publish(&[])
        };
        let mut out = Vec::new();
        bare.encode(ProtocolVersion::V5, &mut out);
        assert_eq!(out, b"\x32\x0F\0\x09m/d/c/x/t\0\x05\0p");
    }

    #[test]
    fn the_length_is_right_on_both_sides_of_each_boundary() {
        for payload_bytes in [100, 120, 127, 128, 16_370, 16_384, 2_097_100, 2_097_200] {
            for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
                let payload = vec![0; payload_bytes];
                let out = PublishOut {
                    payload: &payload,
                    ..publish(&[])
                };
                let mut bytes = Vec::new();
                out.encode(version, &mut bytes);
                assert_eq!(bytes.len(), out.encoded_len(version));
                assert_eq!(read(&bytes, version).payload.len(), payload_bytes);
            }
        }
    }

    fn publish(forwarded: &[u8]) -> PublishOut<'_> {
        PublishOut {
            dup: false,
            retain: false,
            delivery: Delivery::AtLeastOnce(PacketId::new(5).unwrap()),
            topic: &["m/d/c/x", "/", "t"],
            topic_alias: Some(2),
            message_expiry: Some(59),
            subscription_identifiers: &[7, 268_435_455],
            forwarded,
            payload: b"p",
        }
    }

    fn read(bytes: &[u8], version: ProtocolVersion) -> super::super::Publish<'_> {
        let frame = split_frame(bytes, u32::MAX).unwrap().expect("whole");
        let Ok(Packet::Publish(publish)) = decode(&frame, version) else {
            panic!()
        };
        publish
    }
}
