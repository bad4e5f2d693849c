//! CONNACK. MQTT 5, 3.2; MQTT 3.1.1, 3.2.

use super::ack::put_reason_string;
use super::auth::put_authentication;
use super::property::{Properties, Property, id};
use super::{PacketType, ProtocolVersion, QoS, ReasonCode, UserProperties, put, v5, v311};
use crate::cursor::Cursor;
use crate::error::{DecodeError, Malformed, ProtocolError};

/// Connect acknowledgement.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnAck<'a> {
    /// The session existed before. Never on a refusal; not told by MQTT 3.1.
    pub session_present: bool,
    /// Result. A decoded CONNACK before MQTT 5 has its return code, 0 to 5, here.
    pub reason: ReasonCode,
    /// Properties; none before MQTT 5.
    pub properties: ConnAckProperties<'a>,
}

/// What the server tells about itself. `None` is the default that the specification gives.
/// MQTT 5, 3.2.2.3.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct ConnAckProperties<'a> {
    /// Session Expiry Interval in seconds, when it is not what the client asked for.
    pub session_expiry: Option<u32>,
    /// QoS 1 and 2 messages that the server takes at a time, 65 535 by default, never 0.
    pub receive_maximum: Option<u16>,
    /// Highest QoS that the server takes: 0 or 1, 2 by default (and 2 is never written).
    pub maximum_qos: Option<QoS>,
    /// Whether retained messages are supported, true by default.
    pub retain_available: Option<bool>,
    /// Bytes of the largest packet that the server takes, unlimited by default, never 0.
    pub maximum_packet_size: Option<u32>,
    /// Client Identifier given to a client that had none.
    pub assigned_client_identifier: Option<&'a str>,
    /// Highest Topic Alias that the server takes, 0 by default.
    pub topic_alias_maximum: Option<u16>,
    /// For people who read logs.
    pub reason_string: Option<&'a str>,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
    /// Whether filters may have wildcards, true by default.
    pub wildcard_subscription_available: Option<bool>,
    /// Whether Subscription Identifiers are supported, true by default.
    pub subscription_identifier_available: Option<bool>,
    /// Whether Shared Subscriptions are supported, true by default.
    pub shared_subscription_available: Option<bool>,
    /// Keep Alive in seconds that replaces the client's.
    pub server_keep_alive: Option<u16>,
    /// Basis of response topics, for a client that asked for it.
    pub response_information: Option<&'a str>,
    /// Another server to use.
    pub server_reference: Option<&'a str>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data, as the method defines it.
    pub authentication_data: Option<&'a [u8]>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn decode(
        mut body: Cursor<'a>,
        version: ProtocolVersion,
    ) -> Result<Self, DecodeError> {
        let flags = body.u8("Connect Acknowledge Flags")?;
        // [MQTT-3.2.2-1] MQTT 3.1, 3.2 has no such flags and reserves the byte.
        if version != ProtocolVersion::V31 && flags & !1 != 0 {
            return Err(Malformed::ReservedAcknowledgeFlags { found: flags }.into());
        }
        let session_present = version != ProtocolVersion::V31 && flags == 1;
        let reason = ReasonCode::new(body.u8("Connect Reason Code")?);
        let properties = if version.is_v5() {
            // [MQTT-3.2.2-8]
            v5::listed(PacketType::ConnAck, reason.get())?;
            ConnAckProperties::decode(&mut body)?
        } else {
            v311::check_connack(reason.get())?;
            ConnAckProperties::default()
        };
        body.end("CONNACK")?;
        // [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
        if session_present && reason != ReasonCode::SUCCESS {
            return Err(ProtocolError::SessionPresentOnRefusal.into());
        }
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }

    /// Appends the packet to `out`. Before MQTT 5, `reason` may be a return code or a Reason Code;
    /// a Reason Code without a fitting return code becomes 3, Server unavailable. Session Present
    /// is written only on success and not to MQTT 3.1.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        // [MQTT-3.2.2-1] [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
        let session_present = u8::from(
            self.session_present
                && self.reason == ReasonCode::SUCCESS
                && version != ProtocolVersion::V31,
        );
        put::packet(out, PacketType::ConnAck, |out| {
            if version.is_v5() {
                out.extend_from_slice(&[session_present, self.reason.get()]);
                put::prefixed(out, |out| self.properties.put(out));
            } else {
                const SERVER_UNAVAILABLE: u8 = 3;
                let code = match self.reason.is_error() {
                    true => self.reason.connack_v3().unwrap_or(SERVER_UNAVAILABLE),
                    false => self.reason.get(),
                };
                out.extend_from_slice(&[session_present, code]);
            }
        });
    }
}

impl<'a> ConnAckProperties<'a> {
    fn decode(body: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let mut read = Properties::open(body, "CONNACK")?;
        let mut own = Self::default();
        while let Some(property) = read.next()? {
            match property {
                Property::SessionExpiry(seconds) => own.session_expiry = Some(seconds),
                Property::ReceiveMaximum(maximum) => own.receive_maximum = Some(maximum),
                Property::MaximumQos(qos) => own.maximum_qos = Some(qos),
                Property::RetainAvailable(yes) => own.retain_available = Some(yes),
                Property::MaximumPacketSize(bytes) => own.maximum_packet_size = Some(bytes),
                Property::AssignedClientIdentifier(id) => {
                    own.assigned_client_identifier = Some(id);
                }
                Property::TopicAliasMaximum(alias) => own.topic_alias_maximum = Some(alias),
                Property::ReasonString(text) => own.reason_string = Some(text),
                Property::WildcardSubscriptionAvailable(yes) => {
                    own.wildcard_subscription_available = Some(yes);
                }
                Property::SubscriptionIdentifierAvailable(yes) => {
                    own.subscription_identifier_available = Some(yes);
                }
                Property::SharedSubscriptionAvailable(yes) => {
                    own.shared_subscription_available = Some(yes);
                }
                Property::ServerKeepAlive(seconds) => own.server_keep_alive = Some(seconds),
                Property::ResponseInformation(text) => own.response_information = Some(text),
                Property::ServerReference(server) => own.server_reference = Some(server),
                Property::AuthenticationMethod(method) => own.authentication_method = Some(method),
                Property::AuthenticationData(data) => own.authentication_data = Some(data),
                _ => return Err(read.misplaced()),
            }
        }
        own.user_properties = read.user_properties();
        Ok(own)
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_u32(out, id::SESSION_EXPIRY, self.session_expiry);
        put_u16(out, id::RECEIVE_MAXIMUM, self.receive_maximum);
        if let Some(qos @ (QoS::AtMostOnce | QoS::AtLeastOnce)) = self.maximum_qos {
            out.extend_from_slice(&[id::MAXIMUM_QOS, qos.as_u8()]);
        }
        put_bool(out, id::RETAIN_AVAILABLE, self.retain_available);
        put_u32(out, id::MAXIMUM_PACKET_SIZE, self.maximum_packet_size);
        put_text(
            out,
            id::ASSIGNED_CLIENT_IDENTIFIER,
            self.assigned_client_identifier,
        );
        put_u16(out, id::TOPIC_ALIAS_MAXIMUM, self.topic_alias_maximum);
        put_reason_string(out, self.reason_string);
        self.user_properties.append_to(out);
        put_bool(
            out,
            id::WILDCARD_SUBSCRIPTION_AVAILABLE,
            self.wildcard_subscription_available,
        );
        put_bool(
            out,
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE,
            self.subscription_identifier_available,
        );
        put_bool(
            out,
            id::SHARED_SUBSCRIPTION_AVAILABLE,
            self.shared_subscription_available,
        );
        put_u16(out, id::SERVER_KEEP_ALIVE, self.server_keep_alive);
        put_text(out, id::RESPONSE_INFORMATION, self.response_information);
        put_text(out, id::SERVER_REFERENCE, self.server_reference);
        put_authentication(out, self.authentication_method, self.authentication_data);
    }
}

impl std::fmt::Debug for ConnAckProperties<'_> {
    /// Leaves out the Authentication Data, which may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ConnAckProperties")
            .field("session_expiry", &self.session_expiry)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_qos", &self.maximum_qos)
            .field("retain_available", &self.retain_available)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field(
                "assigned_client_identifier",
                &self.assigned_client_identifier,
            )
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field("reason_string", &self.reason_string)
            .field("user_properties", &self.user_properties)
            .field(
                "wildcard_subscription_available",
                &self.wildcard_subscription_available,
            )
            .field(
                "subscription_identifier_available",
                &self.subscription_identifier_available,
            )
            .field(
                "shared_subscription_available",
                &self.shared_subscription_available,
            )
            .field("server_keep_alive", &self.server_keep_alive)
            .field("response_information", &self.response_information)
            .field("server_reference", &self.server_reference)
            .field("authentication_method", &self.authentication_method)
            .finish_non_exhaustive()
    }
}

fn put_bool(out: &mut Vec<u8>, id: u8, value: Option<bool>) {
    if let Some(value) = value {
        out.extend_from_slice(&[id, u8::from(value)]);
    }
}

fn put_u16(out: &mut Vec<u8>, id: u8, value: Option<u16>) {
    if let Some(value) = value {
        out.push(id);
        put::u16(out, value);
    }
}

fn put_u32(out: &mut Vec<u8>, id: u8, value: Option<u32>) {
    if let Some(value) = value {
        out.push(id);
        put::u32(out, value);
    }
}

fn put_text(out: &mut Vec<u8>, id: u8, value: Option<&str>) {
    if let Some(value) = value {
        out.push(id);
        put::text(out, value);
    }
}
