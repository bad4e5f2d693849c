//! Reason Codes. MQTT 5, 2.4.

use std::fmt;

use super::v311;

/// Result of an operation, one byte. Codes below 0x80 report success. MQTT 5, 2.4.
///
/// In the CONNACK of MQTT 3.1 and 3.1.1 it holds that version's return code.
#[derive(Clone, Copy, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ReasonCode(u8);

impl ReasonCode {
    /// Success.
    pub const SUCCESS: Self = Self(0x00);
    /// Normal disconnection.
    pub const NORMAL_DISCONNECTION: Self = Self(0x00);
    /// Granted QoS 0.
    pub const GRANTED_QOS_0: Self = Self(0x00);
    /// Granted QoS 1.
    pub const GRANTED_QOS_1: Self = Self(0x01);
    /// Granted QoS 2.
    pub const GRANTED_QOS_2: Self = Self(0x02);
    /// Disconnect with Will Message.
    pub const DISCONNECT_WITH_WILL_MESSAGE: Self = Self(0x04);
    /// No matching subscribers.
    pub const NO_MATCHING_SUBSCRIBERS: Self = Self(0x10);
    /// No subscription existed.
    pub const NO_SUBSCRIPTION_EXISTED: Self = Self(0x11);
    /// Continue authentication.
    pub const CONTINUE_AUTHENTICATION: Self = Self(0x18);
    /// Re-authenticate.
    pub const RE_AUTHENTICATE: Self = Self(0x19);
    /// Unspecified error.
    pub const UNSPECIFIED_ERROR: Self = Self(0x80);
    /// Malformed Packet.
    pub const MALFORMED_PACKET: Self = Self(0x81);
    /// Protocol Error.
    pub const PROTOCOL_ERROR: Self = Self(0x82);
    /// Implementation specific error.
    pub const IMPLEMENTATION_SPECIFIC_ERROR: Self = Self(0x83);
    /// Unsupported Protocol Version.
    pub const UNSUPPORTED_PROTOCOL_VERSION: Self = Self(0x84);
    /// Client Identifier not valid.
    pub const CLIENT_IDENTIFIER_NOT_VALID: Self = Self(0x85);
    /// Bad User Name or Password.
    pub const BAD_USER_NAME_OR_PASSWORD: Self = Self(0x86);
    /// Not authorized.
    pub const NOT_AUTHORIZED: Self = Self(0x87);
    /// Server unavailable.
    pub const SERVER_UNAVAILABLE: Self = Self(0x88);
    /// Server busy.
    pub const SERVER_BUSY: Self = Self(0x89);
    /// Banned.
    pub const BANNED: Self = Self(0x8A);
    /// Server shutting down.
    pub const SERVER_SHUTTING_DOWN: Self = Self(0x8B);
    /// Bad authentication method.
    pub const BAD_AUTHENTICATION_METHOD: Self = Self(0x8C);
    /// Keep Alive timeout.
    pub const KEEP_ALIVE_TIMEOUT: Self = Self(0x8D);
    /// Session taken over.
    pub const SESSION_TAKEN_OVER: Self = Self(0x8E);
    /// Topic Filter invalid.
    pub const TOPIC_FILTER_INVALID: Self = Self(0x8F);
    /// Topic Name invalid.
    pub const TOPIC_NAME_INVALID: Self = Self(0x90);
    /// Packet Identifier in use.
    pub const PACKET_IDENTIFIER_IN_USE: Self = Self(0x91);
    /// Packet Identifier not found.
    pub const PACKET_IDENTIFIER_NOT_FOUND: Self = Self(0x92);
    /// Receive Maximum exceeded.
    pub const RECEIVE_MAXIMUM_EXCEEDED: Self = Self(0x93);
    /// Topic Alias invalid.
    pub const TOPIC_ALIAS_INVALID: Self = Self(0x94);
    /// Packet too large.
    pub const PACKET_TOO_LARGE: Self = Self(0x95);
    /// Message rate too high.
    pub const MESSAGE_RATE_TOO_HIGH: Self = Self(0x96);
    /// Quota exceeded.
    pub const QUOTA_EXCEEDED: Self = Self(0x97);
    /// Administrative action.
    pub const ADMINISTRATIVE_ACTION: Self = Self(0x98);
    /// Payload format invalid.
    pub const PAYLOAD_FORMAT_INVALID: Self = Self(0x99);
    /// Retain not supported.
    pub const RETAIN_NOT_SUPPORTED: Self = Self(0x9A);
    /// QoS not supported.
    pub const QOS_NOT_SUPPORTED: Self = Self(0x9B);
    /// Use another server.
    pub const USE_ANOTHER_SERVER: Self = Self(0x9C);
    /// Server moved.
    pub const SERVER_MOVED: Self = Self(0x9D);
    /// Shared Subscriptions not supported.
    pub const SHARED_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0x9E);
    /// Connection rate exceeded.
    pub const CONNECTION_RATE_EXCEEDED: Self = Self(0x9F);
    /// Maximum connect time.
    pub const MAXIMUM_CONNECT_TIME: Self = Self(0xA0);
    /// Subscription Identifiers not supported.
    pub const SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED: Self = Self(0xA1);
    /// Wildcard Subscriptions not supported.
    pub const WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED: Self = Self(0xA2);

    /// The code with this value, listed or not.
    #[inline]
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// Value on the wire.
    #[inline]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether the code reports a failure: 0x80 and above.
    #[inline]
    pub const fn is_error(self) -> bool {
        self.0 >= 0x80
    }

    /// Name in the specification's spelling. Code 0x00, which has three, is "Success".
    pub const fn name(self) -> &'static str {
        match self.0 {
            0x00 => "Success",
            0x01 => "Granted QoS 1",
            0x02 => "Granted QoS 2",
            0x04 => "Disconnect with Will Message",
            0x10 => "No matching subscribers",
            0x11 => "No subscription existed",
            0x18 => "Continue authentication",
            0x19 => "Re-authenticate",
            0x80 => "Unspecified error",
            0x81 => "Malformed Packet",
            0x82 => "Protocol Error",
            0x83 => "Implementation specific error",
            0x84 => "Unsupported Protocol Version",
            0x85 => "Client Identifier not valid",
            0x86 => "Bad User Name or Password",
            0x87 => "Not authorized",
            0x88 => "Server unavailable",
            0x89 => "Server busy",
            0x8A => "Banned",
            0x8B => "Server shutting down",
            0x8C => "Bad authentication method",
            0x8D => "Keep Alive timeout",
            0x8E => "Session taken over",
            0x8F => "Topic Filter invalid",
            0x90 => "Topic Name invalid",
            0x91 => "Packet Identifier in use",
            0x92 => "Packet Identifier not found",
            0x93 => "Receive Maximum exceeded",
            0x94 => "Topic Alias invalid",
            0x95 => "Packet too large",
            0x96 => "Message rate too high",
            0x97 => "Quota exceeded",
            0x98 => "Administrative action",
            0x99 => "Payload format invalid",
            0x9A => "Retain not supported",
            0x9B => "QoS not supported",
            0x9C => "Use another server",
            0x9D => "Server moved",
            0x9E => "Shared Subscriptions not supported",
            0x9F => "Connection rate exceeded",
            0xA0 => "Maximum connect time",
            0xA1 => "Subscription Identifiers not supported",
            0xA2 => "Wildcard Subscriptions not supported",
            _ => "Unknown",
        }
    }

    /// Return code of a CONNACK before MQTT 5 that tells the same. `None` where none fits: such a
    /// connection is closed without CONNACK, [MQTT3-3.2.2-6].
    pub const fn connack_v3(self) -> Option<u8> {
        v311::return_code(self)
    }
}

impl fmt::Debug for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#04x} {}", self.0, self.name())
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_from_0x80_on_are_errors() {
        assert!(!ReasonCode::SUCCESS.is_error());
        assert!(!ReasonCode::RE_AUTHENTICATE.is_error());
        assert!(ReasonCode::UNSPECIFIED_ERROR.is_error());
        assert!(ReasonCode::WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED.is_error());
    }

    #[test]
    fn the_display_is_for_a_log_line() {
        assert_eq!(
            ReasonCode::SESSION_TAKEN_OVER.to_string(),
            "0x8e Session taken over"
        );
        assert_eq!(ReasonCode::new(0xFE).to_string(), "0xfe Unknown");
    }

    #[test]
    fn return_codes_before_mqtt_5_say_the_same_or_nothing() {
        // [MQTT3-3.2.2-6]
        for (code, expected) in [
            (ReasonCode::SUCCESS, Some(0)),
            (ReasonCode::UNSUPPORTED_PROTOCOL_VERSION, Some(1)),
            (ReasonCode::CLIENT_IDENTIFIER_NOT_VALID, Some(2)),
            (ReasonCode::SERVER_BUSY, Some(3)),
            (ReasonCode::QUOTA_EXCEEDED, Some(3)),
            (ReasonCode::BAD_USER_NAME_OR_PASSWORD, Some(4)),
            (ReasonCode::NOT_AUTHORIZED, Some(5)),
            (ReasonCode::MALFORMED_PACKET, None),
            (ReasonCode::PROTOCOL_ERROR, None),
        ] {
            assert_eq!(code.connack_v3(), expected, "{code}");
        }
    }
}
