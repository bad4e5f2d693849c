//! The packet model of all versions, and the way from a frame to a packet.

use std::num::NonZeroU16;

use super::{
    Ack, Auth, ConnAck, Connect, Disconnect, Frame, PacketType, Publish, SubAck, Subscribe,
    Unsubscribe, connect,
};
use crate::cursor::Cursor;
use crate::error::{DecodeError, Malformed};

/// Version of the protocol, as CONNECT names it. MQTT 5, 3.1.2.2.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ProtocolVersion {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V31,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V311,
    /// MQTT 5: `MQTT`, level 5.
    V5,
}

impl ProtocolVersion {
    /// Whether this is MQTT 5, the only version with properties and Reason Codes.
    #[inline]
    pub const fn is_v5(self) -> bool {
        matches!(self, Self::V5)
    }
}

/// Quality of Service of a message. MQTT 5, 4.3.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum QoS {
    /// At most once delivery.
    #[default]
    AtMostOnce = 0,
    /// At least once delivery.
    AtLeastOnce = 1,
    /// Exactly once delivery.
    ExactlyOnce = 2,
}

impl QoS {
    /// The QoS with this number; `None` above 2.
    #[inline]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Its number.
    #[inline]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }
}

/// Packet Identifier, never zero. MQTT 5, 2.2.1.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The identifier with this number; `None` for zero.
    #[inline]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Its number.
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// A packet, borrowed from its frame. MQTT 5, 3.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Packet<'a> {
    /// Connection request.
    Connect(Connect<'a>),
    /// Connect acknowledgement.
    ConnAck(ConnAck<'a>),
    /// Publish message.
    Publish(Publish<'a>),
    /// Publish acknowledgement (QoS 1).
    PubAck(Ack<'a>),
    /// Publish received (QoS 2, first answer).
    PubRec(Ack<'a>),
    /// Publish release (QoS 2, second request).
    PubRel(Ack<'a>),
    /// Publish complete (QoS 2, second answer).
    PubComp(Ack<'a>),
    /// Subscribe request.
    Subscribe(Subscribe<'a>),
    /// Subscribe acknowledgement.
    SubAck(SubAck<'a>),
    /// Unsubscribe request.
    Unsubscribe(Unsubscribe<'a>),
    /// Unsubscribe acknowledgement; without codes before MQTT 5.
    UnsubAck(SubAck<'a>),
    /// Ping request.
    PingReq,
    /// Ping response.
    PingResp,
    /// Disconnect notification.
    Disconnect(Disconnect<'a>),
    /// Authentication exchange, MQTT 5 only.
    Auth(Auth<'a>),
}

/// Reads the packet in `frame` by the rules of `version`; a CONNECT names its own version.
/// Packets of both directions are read. Nothing is allocated.
///
/// # Errors
/// The packet is malformed, breaks a rule that can be judged without knowing the connection's
/// state, or is a CONNECT of an unsupported version.
#[inline(always)]
pub fn decode<'a>(frame: &Frame<'a>, version: ProtocolVersion) -> Result<Packet<'a>, DecodeError> {
    // Inlined, so that the packet most often read is built where the caller wants it: a `Packet` is
    // large, and each move of one costs as much as reading it.
    match frame.packet_type() {
        Some(PacketType::Publish) => Publish::decode(frame, version),
        packet_type => decode_other(frame, packet_type, version),
    }
}

/// Reads anything but a PUBLISH.
#[inline(never)]
fn decode_other<'a>(
    frame: &Frame<'a>,
    packet_type: Option<PacketType>,
    version: ProtocolVersion,
) -> Result<Packet<'a>, DecodeError> {
    let packet_type = match packet_type {
        Some(PacketType::Auth) if !version.is_v5() => None,
        packet_type => packet_type,
    };
    let Some(packet_type) = packet_type else {
        return Err(Malformed::ReservedPacketType {
            packet_type: frame.first >> 4,
        }
        .into());
    };
    check_flags(frame, packet_type, version)?;
    let body = Cursor::new(frame.body);
    Ok(match packet_type {
        PacketType::Publish => Publish::decode(frame, version)?,
        PacketType::PubAck => Packet::PubAck(Ack::decode(body, packet_type, version)?),
        PacketType::PubRec => Packet::PubRec(Ack::decode(body, packet_type, version)?),
        PacketType::PubRel => Packet::PubRel(Ack::decode(body, packet_type, version)?),
        PacketType::PubComp => Packet::PubComp(Ack::decode(body, packet_type, version)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::decode(body, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::decode(body, version)?),
        PacketType::PingReq => body.end("PINGREQ").map(|()| Packet::PingReq)?,
        PacketType::PingResp => body.end("PINGRESP").map(|()| Packet::PingResp)?,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::decode(body, version)?),
        PacketType::Auth => Packet::Auth(Auth::decode(body)?),
        PacketType::Connect => Packet::Connect(connect::decode_connect(frame)?),
        PacketType::ConnAck => Packet::ConnAck(ConnAck::decode(body, version)?),
        PacketType::SubAck => Packet::SubAck(SubAck::decode_suback(body, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(SubAck::decode_unsuback(body, version)?),
    })
}

/// Checks the reserved bits of the first byte; those of a PUBLISH are not reserved.
pub(crate) fn check_flags(
    frame: &Frame<'_>,
    packet_type: PacketType,
    version: ProtocolVersion,
) -> Result<(), Malformed> {
    const DUP: u8 = 0b1000;
    let expected = packet_type.first_byte() & 0x0F;
    let found = match packet_type {
        PacketType::Publish => return Ok(()),
        // MQTT 3.1, 2.1 sets DUP on a PUBREL, SUBSCRIBE or UNSUBSCRIBE that is sent again.
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe
            if version == ProtocolVersion::V31 =>
        {
            frame.flags() & !DUP
        }
        _ => frame.flags(),
    };
    // [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
    // [MQTT3-2.2.2-1] [MQTT3-2.2.2-2] [MQTT3-3.6.1-1] [MQTT3-3.8.1-1] [MQTT3-3.10.1-1]
    if found != expected {
        let packet = packet_type.name();
        return Err(Malformed::FixedHeaderFlags {
            packet,
            expected,
            found: frame.flags(),
        });
    }
    Ok(())
}

impl Packet<'_> {
    /// Type of the packet.
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Appends the packet to `out`. Before MQTT 5 properties and Reason Codes are left out, and an
    /// AUTH, which does not exist there, appends nothing.
    ///
    /// # Panics
    /// A string or Binary Data is longer than 65 535 bytes, or the packet than 268 435 455.
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        match self {
            Self::Connect(connect) => connect.encode(version, out),
            Self::ConnAck(connack) => connack.encode(version, out),
            Self::Publish(publish) => publish.encode(version, out),
            Self::PubAck(ack) => ack.encode_puback(version, out),
            Self::PubRec(ack) => ack.encode_pubrec(version, out),
            Self::PubRel(ack) => ack.encode_pubrel(version, out),
            Self::PubComp(ack) => ack.encode_pubcomp(version, out),
            Self::Subscribe(subscribe) => subscribe.encode(version, out),
            Self::SubAck(suback) => suback.encode_suback(version, out),
            Self::Unsubscribe(unsubscribe) => unsubscribe.encode(version, out),
            Self::UnsubAck(unsuback) => unsuback.encode_unsuback(version, out),
            Self::PingReq => put_pingreq(out),
            Self::PingResp => put_pingresp(out),
            Self::Disconnect(disconnect) => disconnect.encode(version, out),
            Self::Auth(auth) => auth.encode(version, out),
        }
    }
}

/// Appends a PINGREQ.
pub fn put_pingreq(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
}

/// Appends a PINGRESP.
pub fn put_pingresp(out: &mut Vec<u8>) {
    out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
}
