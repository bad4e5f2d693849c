//! AUTH. MQTT 5, 3.15.

use super::ack::put_reason_string;
use super::property::{Properties, Property, id};
use super::{PacketType, ProtocolVersion, ReasonCode, UserProperties, put, v5};
use crate::cursor::Cursor;
use crate::error::{DecodeError, ProtocolError};

/// One step of an authentication exchange, MQTT 5 only.
///
/// An AUTH of Remaining Length 0 is success without a method; every other AUTH names its method.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct Auth<'a> {
    /// SUCCESS, CONTINUE_AUTHENTICATION or RE_AUTHENTICATE, whoever sends it.
    pub reason: ReasonCode,
    /// Authentication Method.
    pub method: Option<&'a str>,
    /// Authentication Data, as the method defines it.
    pub data: Option<&'a [u8]>,
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn decode(mut body: Cursor<'a>) -> Result<Self, DecodeError> {
        let mut auth = Self::default();
        // MQTT 5, 3.15.2.1: the only form that may omit something.
        if body.is_empty() {
            return Ok(auth);
        }
        // [MQTT-3.15.2-1]
        auth.reason = v5::listed(PacketType::Auth, body.u8("Reason Code")?)?;
        let mut properties = Properties::open(&mut body, "AUTH")?;
        while let Some(property) = properties.next()? {
            match property {
                Property::AuthenticationMethod(method) => auth.method = Some(method),
                Property::AuthenticationData(data) => auth.data = Some(data),
                Property::ReasonString(text) => auth.reason_string = Some(text),
                _ => return Err(properties.misplaced()),
            }
        }
        auth.user_properties = properties.user_properties();
        body.end("AUTH")?;
        if auth.method.is_none() {
            return Err(ProtocolError::NoAuthenticationMethod.into());
        }
        Ok(auth)
    }

    /// Appends the packet to `out`; nothing before MQTT 5, which has no AUTH.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        if !version.is_v5() {
            return;
        }
        if *self == Self::default() {
            out.extend_from_slice(&[PacketType::Auth.first_byte(), 0]);
            return;
        }
        put::packet(out, PacketType::Auth, |out| {
            out.push(self.reason.get());
            put::prefixed(out, |out| {
                put_authentication(out, self.method, self.data);
                put_reason_string(out, self.reason_string);
                self.user_properties.append_to(out);
            });
        });
    }
}

impl std::fmt::Debug for Auth<'_> {
    /// Leaves out the data, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Auth")
            .field("reason", &self.reason)
            .field("method", &self.method)
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .finish_non_exhaustive()
    }
}

/// Appends the properties Authentication Method and Authentication Data.
pub(crate) fn put_authentication(out: &mut Vec<u8>, method: Option<&str>, data: Option<&[u8]>) {
    if let Some(method) = method {
        out.push(id::AUTHENTICATION_METHOD);
        put::text(out, method);
    }
    if let Some(data) = data {
        out.push(id::AUTHENTICATION_DATA);
        put::binary(out, data);
    }
}
