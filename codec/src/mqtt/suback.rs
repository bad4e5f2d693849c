//! SUBACK and UNSUBACK: one shape. MQTT 5, 3.9 and 3.11.

use super::ack::put_reason_string;
use super::property::{Properties, Property};
use super::{PacketId, PacketType, ProtocolVersion, ReasonCode, UserProperties, put, v5, v311};
use crate::cursor::Cursor;
use crate::error::{DecodeError, ProtocolError};

/// Answer to a SUBSCRIBE or UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SubAck<'a> {
    /// Identifier of the request.
    pub packet_id: PacketId,
    /// One Reason Code for each Topic Filter of the request, in its order. Empty in an UNSUBACK
    /// before MQTT 5.
    pub codes: &'a [u8],
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// An answer without properties.
    pub fn new(packet_id: PacketId, codes: &'a [u8]) -> Self {
        let user_properties = UserProperties::default();
        Self {
            packet_id,
            codes,
            reason_string: None,
            user_properties,
        }
    }

    pub(crate) fn decode_suback(
        mut body: Cursor<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let suback = Self::decode(&mut body, PacketType::SubAck, version)?;
        if version.is_v5() {
            // [MQTT-3.9.3-2]
            v5::check(PacketType::SubAck, suback.codes)?;
        } else {
            v311::check_suback(suback.codes)?;
        }
        Ok(suback)
    }

    pub(crate) fn decode_unsuback(
        mut body: Cursor<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        const NAME: &str = "UNSUBACK";
        if !version.is_v5() {
            let unsuback = Self::new(body.packet_id(NAME)?, &[]);
            return Ok(body.end(NAME).map(|()| unsuback)?);
        }
        let unsuback = Self::decode(&mut body, PacketType::UnsubAck, version)?;
        // [MQTT-3.11.3-2]
        v5::check(PacketType::UnsubAck, unsuback.codes)?;
        Ok(unsuback)
    }

    fn decode(
        body: &mut Cursor<'a>,
        packet: PacketType,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        // [MQTT-2.2.1-6] [MQTT3-2.3.1-7]
        let mut suback = Self::new(body.packet_id(packet.name())?, &[]);
        if version.is_v5() {
            let mut properties = Properties::open(body, packet.name())?;
            while let Some(property) = properties.next()? {
                match property {
                    Property::ReasonString(text) => suback.reason_string = Some(text),
                    _ => return Err(properties.misplaced()),
                }
            }
            suback.user_properties = properties.user_properties();
        }
        suback.codes = body.take_rest();
        if suback.codes.is_empty() {
            return Err(ProtocolError::NoReasonCodes {
                packet: packet.name(),
            }
            .into());
        }
        Ok(suback)
    }

    /// Appends it as a SUBACK. Before MQTT 5 every failure is 0x80.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode_suback(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put::packet(out, PacketType::SubAck, |out| {
            put::u16(out, self.packet_id.get());
            // [MQTT-3.9.3-1] [MQTT3-3.9.3-1]
            if version.is_v5() {
                self.put_properties(out);
                out.extend_from_slice(self.codes);
            } else {
                // [MQTT3-3.9.3-2]
                let failure = ReasonCode::UNSPECIFIED_ERROR.get();
                out.extend(self.codes.iter().map(|code| *code.min(&failure)));
            }
        });
    }

    /// Appends it as an UNSUBACK. Before MQTT 5 it has no codes.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode_unsuback(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put::packet(out, PacketType::UnsubAck, |out| {
            put::u16(out, self.packet_id.get());
            if version.is_v5() {
                self.put_properties(out);
                // [MQTT-3.11.3-1]
                out.extend_from_slice(self.codes);
            }
        });
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        put::prefixed(out, |out| {
            put_reason_string(out, self.reason_string);
            self.user_properties.append_to(out);
        });
    }
}
