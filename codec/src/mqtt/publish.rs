//! PUBLISH. MQTT 5, 3.3; MQTT 3.1.1, 3.3.

use std::fmt;

use super::property::{PayloadFormat, Properties, Property, id};
use super::user_property::{Marked, walk};
use super::{
    Frame, Packet, PacketId, PacketType, ProtocolVersion, QoS, UserProperties, put, topic,
};
use crate::cursor::Cursor;
use crate::error::{DecodeError, Malformed, ProtocolError};
use crate::varint;

/// An Application Message on its way.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Publish<'a> {
    /// Sent before; never at QoS 0.
    pub dup: bool,
    /// To be retained, or sent because it was retained.
    pub retain: bool,
    /// Quality of Service and, from QoS 1 on, the Packet Identifier.
    pub delivery: Delivery,
    /// Topic Name without wildcards. Empty only together with a Topic Alias.
    pub topic: &'a str,
    /// Properties; none before MQTT 5.
    pub properties: PublishProperties<'a>,
    /// The payload, which may be empty.
    pub payload: &'a [u8],
}

/// Quality of Service of one PUBLISH with the Packet Identifier that it needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Delivery {
    /// QoS 0.
    AtMostOnce,
    /// QoS 1, answered by PUBACK.
    AtLeastOnce(PacketId),
    /// QoS 2, answered by PUBREC.
    ExactlyOnce(PacketId),
}

/// Properties of a PUBLISH or of a will. MQTT 5, 3.3.2.3 and 3.1.3.2.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PublishProperties<'a> {
    /// What the payload is.
    pub payload_format: Option<PayloadFormat>,
    /// Message Expiry Interval in seconds.
    pub message_expiry: Option<u32>,
    /// Topic Alias, never 0 and never in a will.
    pub topic_alias: Option<u16>,
    /// Response Topic without wildcards.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
    /// Subscription Identifiers, from a server only and never in a will.
    pub subscription_identifiers: SubscriptionIdentifiers<'a>,
}

/// The Subscription Identifiers of one PUBLISH, borrowed from it and already checked.
#[derive(Clone, Copy, Default)]
pub struct SubscriptionIdentifiers<'a> {
    /// Whole properties, from the first to the last Subscription Identifier.
    block: &'a [u8],
    count: u32,
}

/// Bounds of a QoS 0 PUBLISH, nothing else of it read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PublishHead<'a> {
    /// Bytes of the Topic Name, at least one, not checked.
    pub topic: &'a [u8],
    /// Offset in [`Frame::bytes`] of the first byte behind the topic.
    pub topic_end: usize,
    /// Everything behind the topic: the payload, in MQTT 5 behind the properties, whose absence is
    /// a first byte of 0.
    pub rest: &'a [u8],
}

/// Bounds of a PUBLISH at QoS 0, for a topic that was decoded before. `None` when the packet needs
/// [`decode`](super::decode): another type, QoS or DUP, a topic that is cut short or empty.
#[inline]
pub fn publish_head<'a>(frame: &Frame<'a>) -> Option<PublishHead<'a>> {
    const QOS_0: u8 = PacketType::Publish.first_byte();
    if frame.first & !RETAIN != QOS_0 {
        return None;
    }
    let (length, behind) = frame.body.split_first_chunk::<2>()?;
    let (topic, rest) = behind.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    if topic.is_empty() {
        return None;
    }
    Some(PublishHead {
        topic,
        topic_end: frame.bytes.len() - rest.len(),
        rest,
    })
}

const RETAIN: u8 = 0b0001;
const DUP: u8 = 0b1000;

impl<'a> Publish<'a> {
    /// Reads a PUBLISH, and makes the [`Packet`] at once: to move it into one costs much.
    #[inline(always)]
    pub(crate) fn decode(
        frame: &Frame<'a>,
        version: ProtocolVersion,
    ) -> Result<Packet<'a>, DecodeError> {
        let (dup, retain) = (frame.flags() & DUP != 0, frame.flags() & RETAIN != 0);
        // [MQTT-3.3.1-4] [MQTT3-3.3.1-4]
        let qos = QoS::from_bits(frame.flags() >> 1 & 0b11).ok_or(Malformed::QosThree {
            field: "QoS of PUBLISH",
        })?;
        // [MQTT-3.3.1-2] [MQTT3-3.3.1-2]
        if dup && qos == QoS::AtMostOnce {
            return Err(ProtocolError::DupAtQos0.into());
        }
        let mut body = Cursor::new(frame.body);
        let topic = body.binary("Topic Name")?;
        // [MQTT-2.2.1-2] [MQTT3-2.3.1-5]
        let delivery = match qos {
            QoS::AtMostOnce => Delivery::AtMostOnce,
            QoS::AtLeastOnce => Delivery::AtLeastOnce(body.packet_id("PUBLISH")?),
            QoS::ExactlyOnce => Delivery::ExactlyOnce(body.packet_id("PUBLISH")?),
        };
        // The usual PUBLISH has no properties: [MQTT-2.2.2-1].
        let payload = match (version.is_v5(), body.rest()) {
            (false, payload) | (true, [0, payload @ ..]) if !topic.is_empty() => payload,
            (true, _) => return Self::decode_with_properties(dup, retain, delivery, topic, body),
            (false, payload) => payload,
        };
        Ok(Packet::Publish(Self {
            dup,
            retain,
            delivery,
            // [MQTT-3.3.2-1] [MQTT-3.3.2-2] [MQTT3-3.3.2-1] [MQTT3-3.3.2-2]
            topic: topic::topic_name(topic, "Topic Name")?,
            properties: PublishProperties::default(),
            payload,
        }))
    }

    /// Reads what follows `topic` and `delivery` in an MQTT 5 packet.
    fn decode_with_properties(
        dup: bool,
        retain: bool,
        delivery: Delivery,
        topic: &'a [u8],
        mut body: Cursor<'a>,
    ) -> Result<Packet<'a>, DecodeError> {
        let properties = PublishProperties::decode(&mut body)?;
        // [MQTT-3.3.2-1] [MQTT-3.3.2-2]
        let topic = match topic {
            [] if properties.topic_alias.is_some() => "",
            // MQTT 5, 3.3.2.1
            [] => return Err(ProtocolError::NoTopic.into()),
            topic => topic::topic_name(topic, "Topic Name")?,
        };
        Ok(Packet::Publish(Self {
            dup,
            retain,
            delivery,
            topic,
            properties,
            payload: body.take_rest(),
        }))
    }

    /// Whether the payload is well-formed UTF-8, as a payload of [`PayloadFormat::Utf8`] has to be.
    pub fn payload_is_utf8(&self) -> bool {
        simdutf8::basic::from_utf8(self.payload).is_ok()
    }

    /// Appends the packet to `out`, with its properties in MQTT 5 only.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        if version.is_v5() && !self.properties.is_empty() {
            return self.encode_with_properties(out);
        }
        let packet_id = self.delivery.packet_id();
        let property_length = usize::from(version.is_v5());
        let behind_topic = put::packet_id_len(packet_id) + property_length + self.payload.len();
        put::publish_start(out, self.first_byte(), self.topic.len(), behind_topic);
        out.extend_from_slice(self.topic.as_bytes());
        put::packet_id(out, packet_id);
        if version.is_v5() {
            // [MQTT-2.2.2-1]
            out.push(0);
        }
        out.extend_from_slice(self.payload);
    }

    #[inline(never)]
    fn encode_with_properties(&self, out: &mut Vec<u8>) {
        out.push(self.first_byte());
        put::prefixed(out, |out| {
            put::text(out, self.topic);
            put::packet_id(out, self.delivery.packet_id());
            put::prefixed(out, |out| self.properties.put(out));
            out.extend_from_slice(self.payload);
        });
    }

    #[inline]
    const fn first_byte(&self) -> u8 {
        first_byte(self.dup, self.delivery.qos(), self.retain)
    }
}

impl fmt::Debug for Publish<'_> {
    /// Gives the length of the payload, not its bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publish")
            .field("dup", &self.dup)
            .field("retain", &self.retain)
            .field("delivery", &self.delivery)
            .field("topic", &self.topic)
            .field("properties", &self.properties)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

/// First byte of a PUBLISH.
#[inline]
pub(crate) const fn first_byte(dup: bool, qos: QoS, retain: bool) -> u8 {
    PacketType::Publish.first_byte() | (dup as u8) << 3 | qos.as_u8() << 1 | retain as u8
}

impl Delivery {
    /// The delivery of this QoS. A QoS above 0 takes the Packet Identifier, QoS 0 drops it.
    #[inline]
    pub const fn new(qos: QoS, packet_id: PacketId) -> Self {
        match qos {
            QoS::AtMostOnce => Self::AtMostOnce,
            QoS::AtLeastOnce => Self::AtLeastOnce(packet_id),
            QoS::ExactlyOnce => Self::ExactlyOnce(packet_id),
        }
    }

    /// Quality of Service.
    #[inline]
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// Packet Identifier; `None` at QoS 0.
    #[inline]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(packet_id) | Self::ExactlyOnce(packet_id) => Some(packet_id),
        }
    }
}

impl<'a> PublishProperties<'a> {
    fn decode(body: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let mut read = Properties::open(body, "PUBLISH")?;
        let mut properties = Self::default();
        while let Some(property) = read.next()? {
            match property {
                Property::TopicAlias(alias) => properties.topic_alias = Some(alias),
                Property::SubscriptionIdentifier(_) => {}
                property if properties.take(property) => {}
                _ => return Err(read.misplaced()),
            }
        }
        properties.user_properties = read.user_properties();
        properties.subscription_identifiers = read.subscription_identifiers();
        Ok(properties)
    }

    /// Takes a property that PUBLISH and will share; `false` for another one.
    pub(crate) fn take(&mut self, property: Property<'a>) -> bool {
        match property {
            Property::PayloadFormat(format) => self.payload_format = Some(format),
            Property::MessageExpiry(seconds) => self.message_expiry = Some(seconds),
            Property::ResponseTopic(topic) => self.response_topic = Some(topic),
            Property::CorrelationData(data) => self.correlation_data = Some(data),
            Property::ContentType(content_type) => self.content_type = Some(content_type),
            _ => return false,
        }
        true
    }

    /// Whether there is none.
    #[inline]
    fn is_empty(&self) -> bool {
        self.payload_format.is_none()
            && self.message_expiry.is_none()
            && self.topic_alias.is_none()
            && self.response_topic.is_none()
            && self.correlation_data.is_none()
            && self.content_type.is_none()
            && self.user_properties.is_empty()
            && self.subscription_identifiers.is_empty()
    }

    /// Appends all properties, without a length in front.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        if let Some(alias) = self.topic_alias {
            out.push(id::TOPIC_ALIAS);
            put::u16(out, alias);
        }
        if let Some(seconds) = self.message_expiry {
            out.push(id::MESSAGE_EXPIRY);
            put::u32(out, seconds);
        }
        for identifier in self.subscription_identifiers.iter() {
            SubscriptionIdentifiers::put(out, identifier);
        }
        self.forwarded_into(out);
    }

    /// Appends the properties that a broker hands on unaltered and in order: Payload Format
    /// Indicator, Response Topic, Correlation Data, Content Type, User Properties. Without Topic
    /// Alias, Message Expiry Interval and Subscription Identifiers, and without a length in front.
    pub fn forwarded_into(&self, out: &mut Vec<u8>) {
        // [MQTT-3.3.2-4]
        if let Some(format) = self.payload_format {
            out.extend_from_slice(&[id::PAYLOAD_FORMAT, format as u8]);
        }
        // [MQTT-3.3.2-15]
        if let Some(topic) = self.response_topic {
            out.push(id::RESPONSE_TOPIC);
            put::text(out, topic);
        }
        // [MQTT-3.3.2-16]
        if let Some(data) = self.correlation_data {
            out.push(id::CORRELATION_DATA);
            put::binary(out, data);
        }
        // [MQTT-3.3.2-20]
        if let Some(content_type) = self.content_type {
            out.push(id::CONTENT_TYPE);
            put::text(out, content_type);
        }
        // [MQTT-3.3.2-17] [MQTT-3.3.2-18]
        self.user_properties.append_to(out);
    }
}

impl<'a> SubscriptionIdentifiers<'a> {
    /// Reads a block of encoded Subscription Identifiers, as [`SubscriptionIdentifiers::put`]
    /// appends them.
    ///
    /// # Errors
    /// The block is malformed or contains another property.
    pub fn parse(block: &'a [u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(block);
        let mut count = 0;
        while !cursor.is_empty() {
            let (id, _) = Property::read(&mut cursor)?;
            if id != id::SUBSCRIPTION_IDENTIFIER {
                let (property, packet) = ("another property", "a block of identifiers");
                return Err(ProtocolError::PropertyNotAllowed { property, packet }.into());
            }
            count += 1;
        }
        Ok(Self { block, count })
    }

    pub(crate) fn marked(whole: &'a [u8], marked: Marked) -> Self {
        Self {
            block: marked.of(whole),
            count: marked.count,
        }
    }

    /// Appends one encoded Subscription Identifier.
    ///
    /// # Panics
    /// The identifier is larger than 268 435 455.
    pub fn put(out: &mut Vec<u8>, identifier: u32) {
        out.push(id::SUBSCRIPTION_IDENTIFIER);
        varint::put(out, identifier);
    }

    /// The identifiers in the order of the packet, each 1 to 268 435 455.
    pub fn iter(&self) -> impl Iterator<Item = u32> + use<'a> {
        walk(self.block).filter_map(|property| match property {
            Property::SubscriptionIdentifier(identifier) => Some(identifier),
            _ => None,
        })
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many there are.
    pub const fn count(&self) -> usize {
        self.count as usize
    }
}

impl PartialEq for SubscriptionIdentifiers<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for SubscriptionIdentifiers<'_> {}

impl fmt::Debug for SubscriptionIdentifiers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
