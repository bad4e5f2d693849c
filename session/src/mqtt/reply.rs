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

impl Manner {
    /// Appends what `write` writes, unless it is larger than the client takes: then nothing is
    /// sent, as if it had been (MQTT 5, 3.1.2.11.4). Whether it was appended. [MQTT-3.1.2-27]
    pub(crate) fn put(self, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let start = out.len();
        write(out);
        let fits = out.len() - start <= self.maximum_packet_size as usize;
        if !fits {
            out.truncate(start);
        }
        fits
    }
}

/// Which acknowledgement.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// PUBACK.
    Ack,
    /// PUBREC.
    Rec,
    /// PUBREL.
    Rel,
    /// PUBCOMP.
    Comp,
}

impl Kind {
    fn first_byte(self) -> u8 {
        match self {
            Kind::Ack => 0x40,
            Kind::Rec => 0x50,
            Kind::Rel => 0x62,
            Kind::Comp => 0x70,
        }
    }
}

/// Appends an acknowledgement of a PUBLISH or of one of its successors.
/// [MQTT-2.2.1-5] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT3-2.3.1-6]
pub(crate) fn ack(kind: Kind, id: PacketId, code: ReasonCode, how: Manner, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    // A 3.1.1 acknowledgement has no code, and 0x00 may be left out in MQTT 5.
    if !how.version.is_v5() || code == ReasonCode::SUCCESS {
        how.put(out, |out| {
            out.extend_from_slice(&[kind.first_byte(), 2, high, low]);
        });
        return;
    }
    let ack = Ack {
        packet_id: id,
        reason: code,
        reason_string: (how.explain && code.is_error()).then(|| words(code)),
        user_properties: UserProperties::default(),
    };
    let put = |ack: &Ack<'_>, out: &mut Vec<u8>| match kind {
        Kind::Ack => ack.encode_puback(how.version, out),
        Kind::Rec => ack.encode_pubrec(how.version, out),
        Kind::Rel => ack.encode_pubrel(how.version, out),
        Kind::Comp => ack.encode_pubcomp(how.version, out),
    };
    // User Properties are never sent. [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2]
    // [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2] [MQTT-3.7.2-3]
    if !how.put(out, |out| put(&ack, out)) {
        how.put(out, |out| put(&Ack::new(id, code), out));
    }
}

/// Appends PUBREL with Reason Code 0x00.
pub(crate) fn pubrel(id: PacketId, maximum_packet_size: u32, out: &mut Vec<u8>) {
    let [high, low] = id.get().to_be_bytes();
    let packet = [Kind::Rel.first_byte(), 2, high, low];
    if packet.len() <= maximum_packet_size as usize {
        out.extend_from_slice(&packet);
    }
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
    // [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
    if !how.put(out, |out| put(&suback, out)) {
        suback.reason_string = None;
        how.put(out, |out| put(&suback, out));
    }
}

/// Appends DISCONNECT with an explanation; nothing in 3.1.1, where only clients send one.
pub(crate) fn disconnect(code: ReasonCode, how: Manner, out: &mut Vec<u8>) {
    if !how.version.is_v5() {
        return;
    }
    // Session Expiry Interval is never sent by a server. [MQTT-3.14.2-2]
    let mut packet = Disconnect {
        reason: for_disconnect(code),
        reason_string: Some(words_of_disconnect(code)),
        ..Disconnect::default()
    };
    // [MQTT-3.14.2-3] [MQTT-3.14.2-4]
    if !how.put(out, |out| packet.encode(how.version, out)) {
        packet.reason_string = None;
        how.put(out, |out| packet.encode(how.version, out));
    }
}

/// Appends a CONNACK that refuses. [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
///
/// 3.1.1 has five codes; where none of them fits, nothing is sent. [MQTT3-3.2.2-6]
pub(crate) fn refuse(code: ReasonCode, how: Manner, out: &mut Vec<u8>) {
    let reason = if how.version.is_v5() {
        for_connack(code)
    } else {
        let Some(code) = code.connack_v3() else {
            return;
        };
        ReasonCode::new(code)
    };
    let mut connack = ConnAck {
        session_present: false,
        reason,
        properties: ConnAckProperties {
            reason_string: Some(words_of_connack(code)),
            ..Default::default()
        },
    };
    // [MQTT-3.2.2-19] [MQTT-3.2.2-20]
    if !how.put(out, |out| connack.encode(how.version, out)) {
        connack.properties.reason_string = None;
        how.put(out, |out| connack.encode(how.version, out));
    }
}

/// The Reason Code that DISCONNECT has for the same thing (MQTT 5, table 3-10).
/// [MQTT-3.14.2-1]
fn for_disconnect(code: ReasonCode) -> ReasonCode {
    match code {
        ReasonCode::UNSUPPORTED_PROTOCOL_VERSION
        | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
        | ReasonCode::PACKET_IDENTIFIER_IN_USE
        | ReasonCode::PACKET_IDENTIFIER_NOT_FOUND => ReasonCode::PROTOCOL_ERROR,
        ReasonCode::BAD_USER_NAME_OR_PASSWORD | ReasonCode::BANNED => ReasonCode::NOT_AUTHORIZED,
        ReasonCode::SERVER_UNAVAILABLE => ReasonCode::SERVER_BUSY,
        code => code,
    }
}

/// The Reason Code that CONNACK has for the same thing (MQTT 5, table 3-1). [MQTT-3.2.2-8]
fn for_connack(code: ReasonCode) -> ReasonCode {
    match code {
        ReasonCode::TOPIC_ALIAS_INVALID => ReasonCode::PROTOCOL_ERROR,
        ReasonCode::SERVER_SHUTTING_DOWN => ReasonCode::SERVER_UNAVAILABLE,
        ReasonCode::ADMINISTRATIVE_ACTION | ReasonCode::MAXIMUM_CONNECT_TIME => {
            ReasonCode::NOT_AUTHORIZED
        }
        ReasonCode::KEEP_ALIVE_TIMEOUT | ReasonCode::SESSION_TAKEN_OVER => {
            ReasonCode::UNSPECIFIED_ERROR
        }
        code => code,
    }
}

/// As [`words`], where a connection is refused.
fn words_of_connack(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::NOT_AUTHORIZED => {
            "this client or user may not connect now: it or its domain is disabled, or its will \
             has no right on its channel"
        }
        code => words(code),
    }
}

/// As [`words`], where a connection ends.
fn words_of_disconnect(code: ReasonCode) -> &'static str {
    match code {
        ReasonCode::NOT_AUTHORIZED => {
            "the credentials or rights this connection was made with hold no longer"
        }
        ReasonCode::SERVER_UNAVAILABLE => "rights cannot be checked now; connect again later",
        code => words(code),
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
