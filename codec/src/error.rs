//! What can be wrong with a packet, sorted by fault.

use thiserror::Error;

use crate::mqtt::{ProtocolVersion, ReasonCode, TopicFault};

/// Why bytes were refused. Display says what was wrong and what was expected, without payloads,
/// passwords or topics.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// The bytes are not a packet. MQTT 5, 4.13.1.
    #[error("malformed packet: {0}")]
    Malformed(#[from] Malformed),
    /// The packet can be read but breaks a rule. MQTT 5, 4.13.1.
    #[error("protocol error: {0}")]
    ProtocolError(#[from] ProtocolError),
    /// The packet is longer than the Maximum Packet Size, fixed header included.
    #[error("packet too large: {packet_size} bytes, at most {maximum} expected")]
    TooLarge {
        /// Size claimed by the fixed header, in bytes, fixed header included.
        packet_size: u32,
        /// Limit it was judged by, in bytes.
        maximum: u32,
    },
    /// CONNECT names a protocol or a level that is not spoken here.
    ///
    /// `answer` is the version in whose shape the refusal is sent, if one is sent:
    ///
    /// | name | level | answer | CONNACK |
    /// | --- | --- | --- | --- |
    /// | `MQTT` | below 5, also with bit 7 set as bridges do | `V311` | return code 0x01 |
    /// | `MQTT` | all others | `V5` | Reason Code 0x84 |
    /// | `MQIsdp` | not 3 | `V31` | return code 0x01 |
    /// | anything else | any | none | none, the connection is closed |
    #[error(
        "unsupported protocol: level {level}, expected MQTT with level 4 or 5, or MQIsdp with 3"
    )]
    UnsupportedVersion {
        /// Protocol Level (Protocol Version in MQTT 5) of the CONNECT; 0 if the name is unknown.
        level: u8,
        /// Version in whose shape the CONNACK is written; `None` means close without one.
        answer: Option<ProtocolVersion>,
    },
}

impl DecodeError {
    /// Reason Code for a DISCONNECT or CONNACK that reports this error.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(_) => ReasonCode::MALFORMED_PACKET,
            Self::ProtocolError(error) => error.reason_code(),
            Self::TooLarge { .. } => ReasonCode::PACKET_TOO_LARGE,
            Self::UnsupportedVersion { .. } => ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
        }
    }
}

/// The bytes cannot be read as a packet: Reason Code 0x81.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Malformed {
    /// A field reaches beyond the bytes that hold it.
    #[error("{field} ends too early: {expected} bytes expected, {found} left")]
    Truncated {
        /// Name of the field in the specification.
        field: &'static str,
        /// Bytes the field needs.
        expected: usize,
        /// Bytes that are left.
        found: usize,
    },
    /// Bytes follow the last field.
    #[error("{count} bytes behind the last field of {packet}, none expected")]
    TrailingBytes {
        /// Name of the packet.
        packet: &'static str,
        /// Bytes too many.
        count: usize,
    },
    /// The fourth byte of a Variable Byte Integer announces a fifth.
    #[error("{field} is a variable byte integer of more than 4 bytes, at most 4 expected")]
    VariableByteIntegerTooLong {
        /// Name of the field in the specification.
        field: &'static str,
    },
    /// A Variable Byte Integer uses more bytes than its value needs.
    #[error("{field} is a variable byte integer with a needless byte, the shortest form expected")]
    VariableByteIntegerNotMinimal {
        /// Name of the field in the specification.
        field: &'static str,
    },
    /// A string is not UTF-8; surrogates and overlong forms are not UTF-8 either.
    #[error("{field} is not valid UTF-8")]
    NotUtf8 {
        /// Name of the field in the specification.
        field: &'static str,
    },
    /// A string has the character U+0000.
    #[error("{field} contains U+0000, which no string may contain")]
    Nul {
        /// Name of the field in the specification.
        field: &'static str,
    },
    /// Packet type 0, or 15 before MQTT 5.
    #[error("packet type {packet_type} is reserved")]
    ReservedPacketType {
        /// High four bits of the first byte.
        packet_type: u8,
    },
    /// Bits 3-0 of the first byte do not have their listed value.
    #[error("fixed header flags of {packet} are {found:#06b}, {expected:#06b} expected")]
    FixedHeaderFlags {
        /// Name of the packet.
        packet: &'static str,
        /// Listed value.
        expected: u8,
        /// Value received.
        found: u8,
    },
    /// Both QoS bits are set.
    #[error("{field} is 3, at most 2 expected")]
    QosThree {
        /// Name of the field in the specification.
        field: &'static str,
    },
    /// Bit 0 of the Connect Flags is set.
    #[error("the reserved connect flag is 1, 0 expected")]
    ReservedConnectFlag,
    /// Will QoS or Will Retain is set while the Will Flag is not.
    #[error("Will QoS or Will Retain is set without Will Flag, 0 expected")]
    WillBitsWithoutWill,
    /// Password Flag without User Name Flag, before MQTT 5.
    #[error("Password Flag is 1 without User Name Flag, both or none expected")]
    PasswordWithoutUserName,
    /// Bits 7-1 of the Connect Acknowledge Flags are set.
    #[error("connect acknowledge flags are {found:#010b}, only bit 0 may be set")]
    ReservedAcknowledgeFlags {
        /// Flags received.
        found: u8,
    },
    /// A property identifier that the specification does not define.
    #[error("property identifier {id:#04x} is not defined")]
    UnknownProperty {
        /// Identifier received.
        id: u32,
    },
    /// Reserved bits of the Subscription Options are set.
    #[error("subscription options {found:#010b} have reserved bits set, 0 expected")]
    ReservedSubscriptionOptions {
        /// Options received.
        found: u8,
    },
    /// A topic name or topic filter breaks the rules of section 4.7.
    #[error("{field} {fault}")]
    Topic {
        /// Name of the field in the specification.
        field: &'static str,
        /// Rule that was broken.
        fault: TopicFault,
    },
}

/// The packet breaks a rule of the protocol: Reason Code 0x82, or 0x94 for a Topic Alias.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ProtocolError {
    /// The first packet of a connection is not a CONNECT.
    #[error("the first packet is {found}, CONNECT expected")]
    NotConnect {
        /// Name of the packet.
        found: &'static str,
    },
    /// A property that may appear once appears again.
    #[error("{property} appears twice, once expected")]
    PropertyTwice {
        /// Name of the property.
        property: &'static str,
    },
    /// A property of other packets.
    #[error("{property} does not belong to {packet}")]
    PropertyNotAllowed {
        /// Name of the property.
        property: &'static str,
        /// Name of the packet, or "Will".
        packet: &'static str,
    },
    /// A property whose value must not be zero.
    #[error("{property} is 0, at least 1 expected")]
    PropertyIsZero {
        /// Name of the property.
        property: &'static str,
    },
    /// A property that is 0 or 1.
    #[error("{property} is {found}, 0 or 1 expected")]
    PropertyNotZeroOrOne {
        /// Name of the property.
        property: &'static str,
        /// Value received.
        found: u8,
    },
    /// Topic Alias 0.
    #[error("Topic Alias is 0, at least 1 expected")]
    TopicAliasZero,
    /// DUP on a message that is never acknowledged.
    #[error("DUP is 1 at QoS 0, 0 expected")]
    DupAtQos0,
    /// Packet Identifier 0.
    #[error("Packet Identifier of {packet} is 0, at least 1 expected")]
    PacketIdZero {
        /// Name of the packet.
        packet: &'static str,
    },
    /// Neither a Topic Name nor a Topic Alias.
    #[error("Topic Name is empty without Topic Alias, one of the two expected")]
    NoTopic,
    /// SUBSCRIBE or UNSUBSCRIBE without a Topic Filter.
    #[error("{packet} has no Topic Filter, at least one expected")]
    NoFilters {
        /// Name of the packet.
        packet: &'static str,
    },
    /// SUBACK or UNSUBACK without a Reason Code.
    #[error("{packet} has no Reason Code, one for each Topic Filter expected")]
    NoReasonCodes {
        /// Name of the packet.
        packet: &'static str,
    },
    /// Maximum QoS 3 in the Subscription Options.
    #[error("Maximum QoS of a subscription is 3, at most 2 expected")]
    SubscriptionQosThree,
    /// Retain Handling 3.
    #[error("Retain Handling is 3, at most 2 expected")]
    RetainHandlingThree,
    /// No Local on a Shared Subscription.
    #[error("No Local is 1 on a shared subscription, 0 expected")]
    NoLocalOnShared,
    /// Authentication Data without Authentication Method.
    #[error("Authentication Data without Authentication Method")]
    AuthenticationDataWithoutMethod,
    /// AUTH without Authentication Method.
    #[error("AUTH has no Authentication Method, one expected")]
    NoAuthenticationMethod,
    /// A code that the specification does not list for the packet.
    #[error("code {code:#04x} is not listed for {packet}")]
    CodeNotListed {
        /// Name of the packet.
        packet: &'static str,
        /// Code received.
        code: u8,
    },
    /// Session Present on a CONNACK that refuses.
    #[error("Session Present is 1 on a refusal, 0 expected")]
    SessionPresentOnRefusal,
}

impl ProtocolError {
    /// Reason Code for a DISCONNECT or CONNACK that reports this error.
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            // [MQTT-3.3.2-8]
            Self::TopicAliasZero => ReasonCode::TOPIC_ALIAS_INVALID,
            _ => ReasonCode::PROTOCOL_ERROR,
        }
    }
}
