//! DISCONNECT. MQTT 5, 3.14; MQTT 3.1.1, 3.14.

use super::ack::put_reason_string;
use super::property::{Properties, Property, id};
use super::{PacketType, ProtocolVersion, ReasonCode, UserProperties, put, v5};
use crate::cursor::Cursor;
use crate::error::DecodeError;

/// The last packet of a connection. Before MQTT 5 it has no content and only clients send it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Disconnect<'a> {
    /// Why; NORMAL_DISCONNECTION before MQTT 5.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds, from a client only.
    pub session_expiry: Option<u32>,
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// Another server to use, from a server only.
    pub server_reference: Option<&'a str>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(crate) fn decode(
        mut body: Cursor<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let mut disconnect = Self::default();
        if !version.is_v5() {
            return Ok(body.end("DISCONNECT").map(|()| disconnect)?);
        }
        // MQTT 5, 3.14.2.1: length 0 is a normal disconnection, length 1 has no properties.
        if body.is_empty() {
            return Ok(disconnect);
        }
        // [MQTT-3.14.2-1]
        disconnect.reason = v5::listed(PacketType::Disconnect, body.u8("Reason Code")?)?;
        if body.is_empty() {
            return Ok(disconnect);
        }
        let mut properties = Properties::open(&mut body, "DISCONNECT")?;
        while let Some(property) = properties.next()? {
            match property {
                Property::SessionExpiry(seconds) => disconnect.session_expiry = Some(seconds),
                Property::ReasonString(text) => disconnect.reason_string = Some(text),
                Property::ServerReference(server) => disconnect.server_reference = Some(server),
                _ => return Err(properties.misplaced()),
            }
        }
        disconnect.user_properties = properties.user_properties();
        Ok(body.end("DISCONNECT").map(|()| disconnect)?)
    }

    /// Appends the packet to `out`, in its shortest form.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        let first = PacketType::Disconnect.first_byte();
        if !version.is_v5() || *self == Self::default() {
            out.extend_from_slice(&[first, 0]);
            return;
        }
        if *self
            == (Self {
                reason: self.reason,
                ..Self::default()
            })
        {
            out.extend_from_slice(&[first, 1, self.reason.get()]);
            return;
        }
        put::packet(out, PacketType::Disconnect, |out| {
            out.push(self.reason.get());
            put::prefixed(out, |out| self.put_properties(out));
        });
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        if let Some(seconds) = self.session_expiry {
            out.push(id::SESSION_EXPIRY);
            put::u32(out, seconds);
        }
        put_reason_string(out, self.reason_string);
        if let Some(server) = self.server_reference {
            out.push(id::SERVER_REFERENCE);
            put::text(out, server);
        }
        self.user_properties.append_to(out);
    }
}
