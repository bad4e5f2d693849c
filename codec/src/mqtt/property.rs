//! Properties. MQTT 5, 2.2.2.

use super::topic;
use super::user_property::{Marked, UserProperties};
use super::{QoS, SubscriptionIdentifiers};
use crate::cursor::Cursor;
use crate::error::{DecodeError, Malformed, ProtocolError};

/// Property identifiers. MQTT 5, table 2-4.
pub(crate) mod id {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub(crate) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const RESPONSE_INFORMATION: u8 = 0x1A;
    pub(crate) const SERVER_REFERENCE: u8 = 0x1C;
    pub(crate) const REASON_STRING: u8 = 0x1F;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const MAXIMUM_QOS: u8 = 0x24;
    pub(crate) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub(crate) const SUBSCRIPTION_IDENTIFIER_AVAILABLE: u8 = 0x29;
    pub(crate) const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// What a payload is, by its sender's word. MQTT 5, 3.3.2.3.2.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum PayloadFormat {
    /// Unspecified bytes.
    Bytes = 0,
    /// UTF-8 text.
    Utf8 = 1,
}

/// One property with its checked value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Property<'a> {
    PayloadFormat(PayloadFormat),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(u32),
    SessionExpiry(u32),
    AssignedClientIdentifier(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelay(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(u16),
    TopicAliasMaximum(u16),
    TopicAlias(u16),
    MaximumQos(QoS),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    MaximumPacketSize(u32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifierAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

impl<'a> Property<'a> {
    /// Reads one property: its identifier and its value.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<(u8, Self), DecodeError> {
        let number = cursor.varint("Property Identifier")?;
        // All defined identifiers fit a byte; 0 is not defined.
        let id = u8::try_from(number).unwrap_or(0);
        let name = name(id);
        let property = match id {
            id::PAYLOAD_FORMAT => Self::PayloadFormat(match zero_or_one(cursor, name)? {
                false => PayloadFormat::Bytes,
                true => PayloadFormat::Utf8,
            }),
            id::MESSAGE_EXPIRY => Self::MessageExpiry(cursor.u32(name)?),
            // [MQTT-3.3.2-19]
            id::CONTENT_TYPE => Self::ContentType(cursor.text(name)?),
            // [MQTT-3.3.2-13] [MQTT-3.3.2-14]
            id::RESPONSE_TOPIC => {
                Self::ResponseTopic(topic::topic_name(cursor.binary(name)?, name)?)
            }
            id::CORRELATION_DATA => Self::CorrelationData(cursor.binary(name)?),
            id::SUBSCRIPTION_IDENTIFIER => {
                Self::SubscriptionIdentifier(not_zero(cursor.varint(name)?, name)?)
            }
            id::SESSION_EXPIRY => Self::SessionExpiry(cursor.u32(name)?),
            id::ASSIGNED_CLIENT_IDENTIFIER => Self::AssignedClientIdentifier(cursor.text(name)?),
            id::SERVER_KEEP_ALIVE => Self::ServerKeepAlive(cursor.u16(name)?),
            id::AUTHENTICATION_METHOD => Self::AuthenticationMethod(cursor.text(name)?),
            id::AUTHENTICATION_DATA => Self::AuthenticationData(cursor.binary(name)?),
            id::REQUEST_PROBLEM_INFORMATION => {
                Self::RequestProblemInformation(zero_or_one(cursor, name)?)
            }
            id::WILL_DELAY => Self::WillDelay(cursor.u32(name)?),
            id::REQUEST_RESPONSE_INFORMATION => {
                Self::RequestResponseInformation(zero_or_one(cursor, name)?)
            }
            id::RESPONSE_INFORMATION => Self::ResponseInformation(cursor.text(name)?),
            id::SERVER_REFERENCE => Self::ServerReference(cursor.text(name)?),
            id::REASON_STRING => Self::ReasonString(cursor.text(name)?),
            id::RECEIVE_MAXIMUM => Self::ReceiveMaximum(not_zero(cursor.u16(name)?, name)?),
            id::TOPIC_ALIAS_MAXIMUM => Self::TopicAliasMaximum(cursor.u16(name)?),
            id::TOPIC_ALIAS => match cursor.u16(name)? {
                // [MQTT-3.3.2-8]
                0 => return Err(ProtocolError::TopicAliasZero.into()),
                alias => Self::TopicAlias(alias),
            },
            id::MAXIMUM_QOS => Self::MaximumQos(match zero_or_one(cursor, name)? {
                false => QoS::AtMostOnce,
                true => QoS::AtLeastOnce,
            }),
            id::RETAIN_AVAILABLE => Self::RetainAvailable(zero_or_one(cursor, name)?),
            // [MQTT-1.5.7-1]
            id::USER_PROPERTY => Self::User(
                cursor.text("User Property name")?,
                cursor.text("User Property value")?,
            ),
            id::MAXIMUM_PACKET_SIZE => Self::MaximumPacketSize(not_zero(cursor.u32(name)?, name)?),
            id::WILDCARD_SUBSCRIPTION_AVAILABLE => {
                Self::WildcardSubscriptionAvailable(zero_or_one(cursor, name)?)
            }
            id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => {
                Self::SubscriptionIdentifierAvailable(zero_or_one(cursor, name)?)
            }
            id::SHARED_SUBSCRIPTION_AVAILABLE => {
                Self::SharedSubscriptionAvailable(zero_or_one(cursor, name)?)
            }
            _ => return Err(Malformed::UnknownProperty { id: number }.into()),
        };
        Ok((id, property))
    }
}

/// The properties of one packet, read one after the other. Which of them belong to the packet is
/// the caller's to say; that none appears twice is checked here.
pub(crate) struct Properties<'a> {
    cursor: Cursor<'a>,
    whole: &'a [u8],
    packet: &'static str,
    /// One bit per identifier.
    seen: u64,
    last_id: u8,
    user: Marked,
    subscription: Marked,
}

impl<'a> Properties<'a> {
    /// Takes the Property Length and as many bytes from `cursor`.
    pub(crate) fn open(cursor: &mut Cursor<'a>, packet: &'static str) -> Result<Self, DecodeError> {
        // [MQTT-2.2.2-1]
        let length = cursor.varint("Property Length")?;
        let whole = cursor.bytes(length as usize, "Properties")?;
        Ok(Self {
            cursor: Cursor::new(whole),
            whole,
            packet,
            seen: 0,
            last_id: 0,
            user: Marked::default(),
            subscription: Marked::default(),
        })
    }

    /// The next property that is not a User Property. `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>, DecodeError> {
        while !self.cursor.is_empty() {
            let start = self.position();
            let (id, property) = Property::read(&mut self.cursor)?;
            self.last_id = id;
            match property {
                // [MQTT-3.3.2-18] The only property that belongs to every packet, any number of
                // times; its order is kept because the bytes are.
                Property::User(..) => {
                    self.user.mark(start, self.position());
                    continue;
                }
                // Several are several matching subscriptions in a PUBLISH.
                Property::SubscriptionIdentifier(_) if self.packet == "PUBLISH" => {
                    self.subscription.mark(start, self.position());
                }
                _ => self.once(id)?,
            }
            return Ok(Some(property));
        }
        Ok(None)
    }

    /// The error for a property, just returned by `next`, that belongs to other packets.
    pub(crate) fn misplaced(&self) -> DecodeError {
        let property = name(self.last_id);
        ProtocolError::PropertyNotAllowed {
            property,
            packet: self.packet,
        }
        .into()
    }

    /// The User Properties read so far.
    pub(crate) fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::marked(self.whole, self.user)
    }

    /// The Subscription Identifiers of a PUBLISH read so far.
    pub(crate) fn subscription_identifiers(&self) -> SubscriptionIdentifiers<'a> {
        SubscriptionIdentifiers::marked(self.whole, self.subscription)
    }

    fn once(&mut self, id: u8) -> Result<(), ProtocolError> {
        // Identifiers end at 0x2A.
        let bit = 1 << id;
        if self.seen & bit != 0 {
            return Err(ProtocolError::PropertyTwice { property: name(id) });
        }
        self.seen |= bit;
        Ok(())
    }

    fn position(&self) -> usize {
        self.whole.len() - self.cursor.rest().len()
    }
}

fn zero_or_one(cursor: &mut Cursor<'_>, property: &'static str) -> Result<bool, DecodeError> {
    match cursor.u8(property)? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(ProtocolError::PropertyNotZeroOrOne { property, found }.into()),
    }
}

fn not_zero<T: Default + PartialEq>(value: T, property: &'static str) -> Result<T, ProtocolError> {
    if value == T::default() {
        return Err(ProtocolError::PropertyIsZero { property });
    }
    Ok(value)
}

/// Name of a property in the specification's spelling.
const fn name(id: u8) -> &'static str {
    match id {
        id::PAYLOAD_FORMAT => "Payload Format Indicator",
        id::MESSAGE_EXPIRY => "Message Expiry Interval",
        id::CONTENT_TYPE => "Content Type",
        id::RESPONSE_TOPIC => "Response Topic",
        id::CORRELATION_DATA => "Correlation Data",
        id::SUBSCRIPTION_IDENTIFIER => "Subscription Identifier",
        id::SESSION_EXPIRY => "Session Expiry Interval",
        id::ASSIGNED_CLIENT_IDENTIFIER => "Assigned Client Identifier",
        id::SERVER_KEEP_ALIVE => "Server Keep Alive",
        id::AUTHENTICATION_METHOD => "Authentication Method",
        id::AUTHENTICATION_DATA => "Authentication Data",
        id::REQUEST_PROBLEM_INFORMATION => "Request Problem Information",
        id::WILL_DELAY => "Will Delay Interval",
        id::REQUEST_RESPONSE_INFORMATION => "Request Response Information",
        id::RESPONSE_INFORMATION => "Response Information",
        id::SERVER_REFERENCE => "Server Reference",
        id::REASON_STRING => "Reason String",
        id::RECEIVE_MAXIMUM => "Receive Maximum",
        id::TOPIC_ALIAS_MAXIMUM => "Topic Alias Maximum",
        id::TOPIC_ALIAS => "Topic Alias",
        id::MAXIMUM_QOS => "Maximum QoS",
        id::RETAIN_AVAILABLE => "Retain Available",
        id::USER_PROPERTY => "User Property",
        id::MAXIMUM_PACKET_SIZE => "Maximum Packet Size",
        id::WILDCARD_SUBSCRIPTION_AVAILABLE => "Wildcard Subscription Available",
        id::SUBSCRIPTION_IDENTIFIER_AVAILABLE => "Subscription Identifiers Available",
        id::SHARED_SUBSCRIPTION_AVAILABLE => "Shared Subscription Available",
        _ => "unknown property",
    }
}
