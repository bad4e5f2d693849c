//! CONNECT. MQTT 5, 3.1; MQTT 3.1.1, 3.1; MQTT 3.1, 3.1.

use std::fmt;

use super::auth::put_authentication;
use super::packet::check_flags;
use super::property::{Properties, Property, id};
use super::{Frame, PacketType, ProtocolVersion, QoS, UserProperties, Will, put};
use crate::cursor::Cursor;
use crate::error::{DecodeError, Malformed, ProtocolError};

/// Connection request.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Connect<'a> {
    /// Version that the packet names.
    pub version: ProtocolVersion,
    /// Clean Start; Clean Session before MQTT 5.
    pub clean_start: bool,
    /// Keep Alive in seconds, 0 for none.
    pub keep_alive: u16,
    /// Client Identifier, empty to have one assigned.
    pub client_id: &'a str,
    /// Message to publish when the connection is lost.
    pub will: Option<Will<'a>>,
    /// User Name.
    pub username: Option<&'a str>,
    /// Password; before MQTT 5 only with a User Name.
    pub password: Option<&'a [u8]>,
    /// Properties; the defaults before MQTT 5.
    pub properties: ConnectProperties<'a>,
}

/// Properties of a CONNECT with the defaults that the specification gives. MQTT 5, 3.1.2.11.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ConnectProperties<'a> {
    /// Session Expiry Interval in seconds, 0 by default; `u32::MAX` is never. Always 0 before
    /// MQTT 5, where Clean Session alone decides.
    pub session_expiry: u32,
    /// QoS 1 and 2 messages that the client takes at a time, 65 535 by default, never 0.
    pub receive_maximum: u16,
    /// Bytes of the largest packet that the client takes, unlimited by default, never 0.
    pub maximum_packet_size: Option<u32>,
    /// Highest Topic Alias that the client takes, 0 by default.
    pub topic_alias_maximum: u16,
    /// Whether Response Information is asked for, false by default.
    pub request_response_information: bool,
    /// Whether Reason String and User Properties may be sent on failures, true by default.
    pub request_problem_information: bool,
    /// User Properties in order.
    pub user_properties: UserProperties<'a>,
    /// Authentication Method.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data; only with a method.
    pub authentication_data: Option<&'a [u8]>,
}

const CLEAN_START: u8 = 0b0000_0010;
const WILL: u8 = 0b0000_0100;
const WILL_RETAIN: u8 = 0b0010_0000;
const PASSWORD: u8 = 0b0100_0000;
const USER_NAME: u8 = 0b1000_0000;

/// Reads the CONNECT in `frame`.
///
/// # Errors
/// The packet is not a CONNECT, is malformed, breaks a rule, or names a protocol that is not
/// spoken here: [`DecodeError::UnsupportedVersion`] tells in which shape that is answered.
pub fn decode_connect<'a>(frame: &Frame<'a>) -> Result<Connect<'a>, DecodeError> {
    match frame.packet_type() {
        Some(PacketType::Connect) => {}
        // [MQTT-3.1.0-1] [MQTT3-3.1.0-1]
        Some(other) => {
            return Err(ProtocolError::NotConnect {
                found: other.name(),
            }
            .into());
        }
        None => return Err(Malformed::ReservedPacketType { packet_type: 0 }.into()),
    }
    let mut body = Cursor::new(frame.body);
    let version = protocol(&mut body)?;
    check_flags(frame, PacketType::Connect, version)?;
    Connect::decode(body, version)
}

impl Connect<'_> {
    /// Version that the CONNECT in `frame` names, whatever else is wrong with it: the version in
    /// whose shape a refusal is sent. `None` when the version is not reached or not spoken here.
    pub fn version_of(frame: &Frame<'_>) -> Option<ProtocolVersion> {
        if frame.packet_type() != Some(PacketType::Connect) {
            return None;
        }
        protocol(&mut Cursor::new(frame.body)).ok()
    }
}

/// Reads Protocol Name and Protocol Version.
fn protocol(body: &mut Cursor<'_>) -> Result<ProtocolVersion, DecodeError> {
    let name = body.text("Protocol Name")?;
    // [MQTT-3.1.2-1] [MQTT3-3.1.2-1] A foreign name is closed without an answer.
    if name != "MQTT" && name != "MQIsdp" {
        return Err(DecodeError::UnsupportedVersion {
            level: 0,
            answer: None,
        });
    }
    let level = body.u8("Protocol Version")?;
    // [MQTT-3.1.2-2] [MQTT3-3.1.2-2]
    let answer = match (name, level) {
        ("MQIsdp", 3) => return Ok(ProtocolVersion::V31),
        ("MQTT", 4) => return Ok(ProtocolVersion::V311),
        ("MQTT", 5) => return Ok(ProtocolVersion::V5),
        ("MQIsdp", _) => ProtocolVersion::V31,
        // Bit 7 marks the bridges of some brokers, which then try again without it.
        ("MQTT", 0..=3 | 0x80..=0x84) => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    Err(DecodeError::UnsupportedVersion {
        level,
        answer: Some(answer),
    })
}

impl<'a> Connect<'a> {
    fn decode(mut body: Cursor<'a>, version: ProtocolVersion) -> Result<Self, DecodeError> {
        let flags = ConnectFlags::decode(body.u8("Connect Flags")?, version)?;
        let keep_alive = body.u16("Keep Alive")?;
        let properties = match version.is_v5() {
            true => ConnectProperties::decode(&mut body)?,
            false => ConnectProperties::default(),
        };
        // [MQTT-3.1.3-1] [MQTT-3.1.3-3] [MQTT-3.1.3-4]
        // [MQTT3-3.1.3-1] [MQTT3-3.1.3-3] [MQTT3-3.1.3-4]
        let client_id = body.text("Client Identifier")?;
        // [MQTT-3.1.2-9] [MQTT-3.1.2-11] [MQTT3-3.1.2-9] [MQTT3-3.1.2-11]
        let will = match flags.will {
            Some((qos, retain)) => Some(Will::decode(&mut body, version, qos, retain)?),
            None => None,
        };
        // MQTT 3.1, 3.1 lets the end of the packet overrule these two flags.
        let may_be_missing = version == ProtocolVersion::V31;
        // [MQTT-3.1.2-18] [MQTT-3.1.2-19] [MQTT-3.1.3-10]
        // [MQTT3-3.1.2-18] [MQTT3-3.1.2-19] [MQTT3-3.1.3-11]
        let username = match flags.username && !(may_be_missing && body.is_empty()) {
            true => Some(body.text("User Name")?),
            false => None,
        };
        // [MQTT-3.1.2-20] [MQTT-3.1.2-21] [MQTT3-3.1.2-20] [MQTT3-3.1.2-21]
        let password = match flags.password && !(may_be_missing && body.is_empty()) {
            true => Some(body.binary("Password")?),
            false => None,
        };
        body.end("CONNECT")?;
        let clean_start = flags.clean_start;
        Ok(Self {
            version,
            clean_start,
            keep_alive,
            client_id,
            will,
            username,
            password,
            properties,
        })
    }

    /// Appends the packet to `out`. `version` has to be the version that the packet names; it is
    /// an argument here so that all packets are written alike, and it is the one that is written.
    ///
    /// # Panics
    /// As [`Packet::encode`](super::Packet::encode).
    pub fn encode(&self, version: ProtocolVersion, out: &mut Vec<u8>) {
        put::packet(out, PacketType::Connect, |out| {
            let (name, level) = match version {
                ProtocolVersion::V31 => ("MQIsdp", 3),
                ProtocolVersion::V311 => ("MQTT", 4),
                ProtocolVersion::V5 => ("MQTT", 5),
            };
            put::text(out, name);
            out.extend_from_slice(&[level, self.flags()]);
            put::u16(out, self.keep_alive);
            if version.is_v5() {
                put::prefixed(out, |out| self.properties.put(out));
            }
            put::text(out, self.client_id);
            if let Some(will) = &self.will {
                will.put(version, out);
            }
            if let Some(username) = self.username {
                put::text(out, username);
            }
            if let Some(password) = self.password {
                put::binary(out, password);
            }
        });
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= WILL | will.qos.as_u8() << 3;
            if will.retain {
                flags |= WILL_RETAIN;
            }
        }
        if self.username.is_some() {
            flags |= USER_NAME;
        }
        if self.password.is_some() {
            flags |= PASSWORD;
        }
        flags
    }
}

impl fmt::Debug for Connect<'_> {
    /// Leaves out the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect")
            .field("version", &self.version)
            .field("clean_start", &self.clean_start)
            .field("keep_alive", &self.keep_alive)
            .field("client_id", &self.client_id)
            .field("will", &self.will)
            .field("username", &self.username)
            .field("has_password", &self.password.is_some())
            .field("properties", &self.properties)
            .finish()
    }
}

/// The Connect Flags after their checks.
struct ConnectFlags {
    clean_start: bool,
    will: Option<(QoS, bool)>,
    username: bool,
    password: bool,
}

impl ConnectFlags {
    fn decode(flags: u8, version: ProtocolVersion) -> Result<Self, Malformed> {
        // [MQTT-3.1.2-3] [MQTT3-3.1.2-3]
        if flags & 1 != 0 {
            return Err(Malformed::ReservedConnectFlag);
        }
        // [MQTT-3.1.2-14] [MQTT3-3.1.2-14]
        let qos =
            QoS::from_bits(flags >> 3 & 0b11).ok_or(Malformed::QosThree { field: "Will QoS" })?;
        let retain = flags & WILL_RETAIN != 0;
        let will = (flags & WILL != 0).then_some((qos, retain));
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT-3.1.2-15] [MQTT3-3.1.2-13] [MQTT3-3.1.2-15]
        if will.is_none() && (retain || qos != QoS::AtMostOnce) {
            return Err(Malformed::WillBitsWithoutWill);
        }
        let (username, password) = (flags & USER_NAME != 0, flags & PASSWORD != 0);
        // [MQTT3-3.1.2-22] MQTT 5 allows it.
        if password && !username && !version.is_v5() {
            return Err(Malformed::PasswordWithoutUserName);
        }
        Ok(Self {
            clean_start: flags & CLEAN_START != 0,
            will,
            username,
            password,
        })
    }
}

impl<'a> ConnectProperties<'a> {
    fn decode(body: &mut Cursor<'a>) -> Result<Self, DecodeError> {
        let mut read = Properties::open(body, "CONNECT")?;
        let mut own = Self::default();
        while let Some(property) = read.next()? {
            match property {
                Property::SessionExpiry(seconds) => own.session_expiry = seconds,
                Property::ReceiveMaximum(maximum) => own.receive_maximum = maximum,
                Property::MaximumPacketSize(bytes) => own.maximum_packet_size = Some(bytes),
                Property::TopicAliasMaximum(alias) => own.topic_alias_maximum = alias,
                Property::RequestResponseInformation(yes) => {
                    own.request_response_information = yes;
                }
                Property::RequestProblemInformation(yes) => own.request_problem_information = yes,
                Property::AuthenticationMethod(method) => own.authentication_method = Some(method),
                Property::AuthenticationData(data) => own.authentication_data = Some(data),
                _ => return Err(read.misplaced()),
            }
        }
        own.user_properties = read.user_properties();
        // MQTT 5, 3.1.2.11.10
        if own.authentication_data.is_some() && own.authentication_method.is_none() {
            return Err(ProtocolError::AuthenticationDataWithoutMethod.into());
        }
        Ok(own)
    }

    /// Appends the properties that are not at their default.
    fn put(&self, out: &mut Vec<u8>) {
        let default = Self::default();
        if self.session_expiry != default.session_expiry {
            out.push(id::SESSION_EXPIRY);
            put::u32(out, self.session_expiry);
        }
        if self.receive_maximum != default.receive_maximum {
            out.push(id::RECEIVE_MAXIMUM);
            put::u16(out, self.receive_maximum);
        }
        if let Some(bytes) = self.maximum_packet_size {
            out.push(id::MAXIMUM_PACKET_SIZE);
            put::u32(out, bytes);
        }
        if self.topic_alias_maximum != default.topic_alias_maximum {
            out.push(id::TOPIC_ALIAS_MAXIMUM);
            put::u16(out, self.topic_alias_maximum);
        }
        if self.request_response_information {
            out.extend_from_slice(&[id::REQUEST_RESPONSE_INFORMATION, 1]);
        }
        if !self.request_problem_information {
            out.extend_from_slice(&[id::REQUEST_PROBLEM_INFORMATION, 0]);
        }
        self.user_properties.append_to(out);
        put_authentication(out, self.authentication_method, self.authentication_data);
    }
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: 0,
            receive_maximum: u16::MAX,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::default(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl fmt::Debug for ConnectProperties<'_> {
    /// Leaves out the Authentication Data, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectProperties")
            .field("session_expiry", &self.session_expiry)
            .field("receive_maximum", &self.receive_maximum)
            .field("maximum_packet_size", &self.maximum_packet_size)
            .field("topic_alias_maximum", &self.topic_alias_maximum)
            .field(
                "request_response_information",
                &self.request_response_information,
            )
            .field(
                "request_problem_information",
                &self.request_problem_information,
            )
            .field("user_properties", &self.user_properties)
            .field("authentication_method", &self.authentication_method)
            .finish_non_exhaustive()
    }
}
