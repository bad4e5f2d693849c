//! PUBACK, PUBREC, PUBREL and PUBCOMP: one shape. MQTT 5, 3.4 to 3.7.

use super::property::{Properties, Property, id};
use super::{PacketId, PacketType, ProtocolVersion, ReasonCode, UserProperties, put, v5};
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// An acknowledgement. Before MQTT 5 it is the Packet Identifier alone.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack<'a> {
    /// Identifier of the PUBLISH it belongs to.
    pub packet_id: PacketId,
    /// Result; SUCCESS before MQTT 5.
    pub reason: ReasonCode,
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// An acknowledgement without properties.
    pub fn new(packet_id: PacketId, reason: ReasonCode) -> Self {
        let user_properties = UserProperties::default();
        Self {
            packet_id,
            reason,
            reason_string: None,
            user_properties,
        }
    }

    pub(crate) fn decode(
        mut body: Cursor<'a>,
        packet: PacketType,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        // [MQTT-2.2.1-5] [MQTT3-2.3.1-6]
        let mut ack = Self::new(body.packet_id(packet.name())?, ReasonCode::SUCCESS);
        if !version.is_v5() {
            return Ok(body.end(packet.name()).map(|()| ack)?);
        }
        // MQTT 5, 3.4.2.1: length 2 is success, length 3 is a Reason Code without properties.
        if body.is_empty() {
            return Ok(ack);
        }
        ack.reason = v5::listed(packet, body.u8("Reason Code")?)?;
        if body.is_empty() {
            return Ok(ack);
        }
        let mut properties = Properties::open(&mut body, packet.name())?;
        while let Some(property) = properties.next()? {
            match property {
                Property::ReasonString(text) => ack.reason_string = Some(text),
                _ => return Err(properties.misplaced()),
            }
        }
        ack.user_properties = properties.user_properties();
        Ok(body.end(packet.name()).map(|()| ack)?)
    }

    /// Appends it as a PUBACK.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode), which holds for its relatives too.
    pub fn encode_puback(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        self.encode(PacketType::PubAck, version, out);
    }

    /// Appends it as a PUBREC.
    pub fn encode_pubrec(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        self.encode(PacketType::PubRec, version, out);
    }

    /// Appends it as a PUBREL.
    pub fn encode_pubrel(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        self.encode(PacketType::PubRel, version, out);
    }

    /// Appends it as a PUBCOMP.
    pub fn encode_pubcomp(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        self.encode(PacketType::PubComp, version, out);
    }

    fn encode(&self, packet: PacketType, version: ProtocolVersion, out: &mut Vec<u8>) {
        let [high, low] = self.packet_id.get().to_be_bytes();
        let first = packet.first_byte();
        let plain = self.reason_string.is_none() && self.user_properties.is_empty();
        if !version.is_v5() || (plain && self.reason == ReasonCode::SUCCESS) {
            out.extend_from_slice(&[first, 2, high, low]);
        } else if plain {
            out.extend_from_slice(&[first, 3, high, low, self.reason.get()]);
        } else {
            put::packet(out, packet, |out| {
                out.extend_from_slice(&[high, low, self.reason.get()]);
                put::prefixed(out, |out| {
                    put_reason_string(out, self.reason_string);
                    self.user_properties.append_to(out);
                });
            });
        }
    }
}

/// Appends the Reason String property, if there is one.
pub(crate) fn put_reason_string(out: &mut Vec<u8>, text: Option<&str>) {
    if let Some(text) = text {
        out.push(id::REASON_STRING);
        put::text(out, text);
    }
}
