//! Answers to a client that are made of little more than a Reason Code.

use codec::mqtt::{
    Ack, ConnAck, ConnAckProperties, Disconnect, PacketId, ProtocolVersion, ReasonCode, SubAck,
    UserProperties,
};

/// What the answers of one connection may carry.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Manner {
    pub(crate) version: ProtocolVersion,
    /// Request Problem Information: whether acknowledgements may explain themselves.
    /// [MQTT-3.1.2-32]
    pub(crate) explain: bool,
    /// The client's Maximum Packet Size.
    pub(crate) maximum_packet_size: u32,
}

/// Which acknowledgement.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
}

impl Kind {
    fn first_byte(self) -> u8 {
        match self {
            Kind::PubAck => 0x40,
            Kind::PubRec => 0x50,
            Kind::PubRel => 0x62,
            Kind::PubComp => 0x70,
        }
    }
}

/// Appends an acknowledgement of a PUBLISH or of one of its successors.
/// [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT3-2.3.1-6]
pub(crate) fn ack(kind: Kind, id: PacketId, code: ReasonCode, how: Manner, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    // A 3.1.1 acknowledgement has no code, and 0x00 may be left out in MQTT 5.
    if !how.version.is_v5() || code == ReasonCode::SUCCESS {
        out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
        return;
    }
    let start = out.len();
    let mut ack = Ack {
        packet_id: id,
        reason: code,
        reason_string: (how.explain && code.is_error()).then(|| words(code)),
        user_properties: UserProperties::default(),
    };
    let put = |ack: &Ack<'_>, out: &mut Vec<u8>| match kind {
        Kind::PubAck => ack.encode_puback(how.version, out),
        Kind::PubRec => ack.encode_pubrec(how.version, out),
        Kind::PubRel => ack.encode_pubrel(how.version, out),
        Kind::PubComp => ack.encode_pubcomp(how.version, out),
    };
    put(&ack, out);
    // [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2]
    if out.len() - start > how.maximum_packet_size as usize {
        out.truncate(start);
        ack.reason_string = None;
        put(&ack, out);
    }
}

/// Appends PUBREL with Reason Code 0x00.
pub(crate) fn pubrel(id: PacketId, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    out.extend_from_slice(&[Kind::PubRel.first_byte(), 2, high, low]);
}

/// Which answer to a list of filters.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum ListKind {
    SubAck,
    UnsubAck,
}

/// Appends SUBACK or UNSUBACK with one code per filter.
/// [MQTT-2.2.1-6] [MQTT-3.9.3-1] [MQTT-3.11.3-1] [MQTT3-2.3.1-7] [MQTT3-3.9.3-1]
pub(crate) fn list(kind: ListKind, id: PacketId, codes: &[u8], how: Manner, out: &mut Vec<u8>) {
    let start = out.len();
    let failed = codes
        .iter()
        .copied()
        .find(|&code| code >= 0x80)
        .map(ReasonCode::new);
    let mut suback = SubAck {
        packet_id: id,
        codes,
        reason_string: failed.filter(|_| how.explain).map(words),
        user_properties: UserProperties::default(),
    };
    let put = |suback: &SubAck<'_>, out: &mut Vec<u8>| match kind {
        ListKind::SubAck => suback.encode_suback(how.version, out),
        ListKind::UnsubAck => suback.encode_unsuback(how.version, out),
    };
    put(&suback, out);
    // [MQTT-3.9.2-1] [MQTT-3.11.2-1]
    if out.len() - start > how.maximum_packet_size as usize {
        out.truncate(start);
        suback.reason_string = None;
        put(&suback, out);
    }
}

/// Appends DISCONNECT with an explanation; nothing in 3.1.1, which has no such packet.
pub(crate) fn disconnect(code: ReasonCode, how: Manner, out: &mut Vec<u8>) {
    if !how.version.is_v5() {
        return;
    }
    let start = out.len();
    // Session Expiry Interval is never sent by a server. [MQTT-3.14.2-2]
    let mut packet = Disconnect {
        reason: code,
        session_expiry: None,
        reason_string: Some(words(code)),
        server_reference: None,
        user_properties: UserProperties::default(),
    };
    packet.encode(how.version, out);
    // [MQTT-3.14.2-3] [MQTT-3.1.2-27]
    if out.len() - start > how.maximum_packet_size as usize {
        out.truncate(start);
        packet.reason_string = None;
        packet.encode(how.version, out);
        if out.len() - start > how.maximum_packet_size as usize {
            out.truncate(start);
        }
    }
}

/// Appends a CONNACK that refuses. [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
///
/// 3.1.1 has five codes; where none of them fits, nothing is sent. [MQTT3-3.2.2-6]
pub(crate) fn refuse(code: ReasonCode, how: Manner, out: &mut Vec<u8>) {
    let reason = if how.version.is_v5() {
        code
    } else {
        let Some(code) = code.connack_v3() else {
            return;
        };
        ReasonCode::new(code)
    };
    let start = out.len();
    let mut connack = ConnAck {
        session_present: false,
        reason,
        properties: ConnAckProperties {
            reason_string: Some(words(code)),
            ..Default::default()
        },
    };
    connack.encode(how.version, out);
    // [MQTT-3.2.2-19]
    if out.len() - start > how.maximum_packet_size as usize {
        out.truncate(start);
        connack.properties.reason_string = None;
        connack.encode(how.version, out);
    }
}

/// A Reason String: what was wrong, and what would have been right.
pub(crate) fn words(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::MALFORMED_PACKET => "the packet does not follow the encoding of MQTT 5",
        ReasonCode::PROTOCOL_ERROR => "the packet is not allowed here or contradicts itself",
        ReasonCode::NOT_AUTHORIZED => {
            "no right on this channel; it needs a connection or role that grants it"
        }
        ReasonCode::BAD_USER_NAME_OR_PASSWORD => {
            "expected a client id and its secret, or an access token as password"
        }
        ReasonCode::CLIENT_IDENTIFIER_NOT_VALID => {
            "expected a Client Identifier without control characters, within the length limit"
        }
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION => "expected MQTT 3.1, 3.1.1 or 5.0",
        ReasonCode::SERVER_UNAVAILABLE => "identification is not possible now; try again later",
        ReasonCode::SERVER_BUSY => "the broker is at its memory limit; try again later",
        ReasonCode::BAD_AUTHENTICATION_METHOD => "expected method PLAIN or OAUTHBEARER",
        ReasonCode::KEEP_ALIVE_TIMEOUT => "no packet for 1.5 times the Keep Alive",
        ReasonCode::SESSION_TAKEN_OVER => "another connection took over this session",
        ReasonCode::TOPIC_FILTER_INVALID => {
            "expected m/<domain>/c/<channel>[/<subtopic>] with wildcards only in the subtopic"
        }
        ReasonCode::TOPIC_NAME_INVALID => "expected m/<domain>/c/<channel>[/<subtopic>]",
        ReasonCode::PACKET_IDENTIFIER_NOT_FOUND => "no exchange has this Packet Identifier",
        ReasonCode::RECEIVE_MAXIMUM_EXCEEDED => "more unacknowledged messages than allowed",
        ReasonCode::TOPIC_ALIAS_INVALID => "the topic alias is 0 or above the maximum",
        ReasonCode::PACKET_TOO_LARGE => "the packet is larger than the Maximum Packet Size",
        ReasonCode::QUOTA_EXCEEDED => "a limit of the broker is reached",
        ReasonCode::ADMINISTRATIVE_ACTION => "closed by an administrator",
        ReasonCode::PAYLOAD_FORMAT_INVALID => "the payload is marked as UTF-8 and is not",
        ReasonCode::CONNECTION_RATE_EXCEEDED => "too many attempts; try again in a minute",
        ReasonCode::MAXIMUM_CONNECT_TIME => "the access token has expired; connect with a new one",
        ReasonCode::SERVER_SHUTTING_DOWN => "the broker is shutting down",
        other => other.name(),
    }
}
