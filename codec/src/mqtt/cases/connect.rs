//! CONNECT and CONNACK, legal and not.

use super::legal::user;
use super::{Legal, OWN, Refused, legal, refused};
use crate::mqtt::ProtocolVersion::{V5, V31, V311};
use crate::mqtt::{
    Connect, ConnectProperties, DecodeError, Malformed, Packet, PayloadFormat, ProtocolError,
    ProtocolVersion, PublishProperties, QoS, TopicFault, Will,
};

fn connect(version: ProtocolVersion) -> Connect<'static> {
    Connect {
        version,
        clean_start: true,
        keep_alive: 60,
        client_id: "id",
        will: None,
        username: None,
        password: None,
        properties: ConnectProperties::default(),
    }
}

fn will() -> Will<'static> {
    Will {
        topic: "w/t",
        payload: b"gone",
        qos: QoS::AtMostOnce,
        retain: false,
        delay: 0,
        properties: PublishProperties::default(),
    }
}

pub(super) fn connects() -> Vec<Legal> {
    use Packet::Connect as C;
    vec![
        legal(
            "connect 3.1",
            OWN,
            "10 ## ** 'MQIsdp' 03 02 003C ** 'id'",
            C(connect(V31)),
        ),
        legal(
            "connect 3.1.1",
            OWN,
            "10 ## ** 'MQTT' 04 02 003C ** 'id'",
            C(connect(V311)),
        ),
        legal(
            "connect 5",
            OWN,
            "10 ## ** 'MQTT' 05 02 003C 00 ** 'id'",
            C(connect(V5)),
        ),
        legal(
            "connect 3.1.1 without client identifier",
            OWN,
            "10 ## ** 'MQTT' 04 00 0000 0000",
            C(Connect {
                clean_start: false,
                keep_alive: 0,
                client_id: "",
                ..connect(V311)
            }),
        ),
        // [MQTT3-3.1.2-9] [MQTT3-3.1.2-19] [MQTT3-3.1.2-21] [MQTT3-3.1.3-1] [MQTT3-3.1.3-10]
        // [MQTT3-3.1.3-11]
        legal(
            "connect 3.1.1 all fields",
            OWN,
            "10 ## ** 'MQTT' 04 F6 003C ** 'id' ** 'w/t' ** 'gone' ** 'me' 0002 00FF",
            C(Connect {
                will: Some(Will {
                    qos: QoS::ExactlyOnce,
                    retain: true,
                    ..will()
                }),
                username: Some("me"),
                password: Some(b"\0\xFF"),
                ..connect(V311)
            }),
        ),
        // [MQTT3-3.1.2-18] [MQTT3-3.1.2-20]
        legal(
            "connect 3.1.1 user name alone",
            OWN,
            "10 ## ** 'MQTT' 04 82 003C ** 'id' ** 'me'",
            C(Connect {
                username: Some("me"),
                ..connect(V311)
            }),
        ),
        legal(
            "connect 3.1 without its user name",
            OWN,
            "10 ## ** 'MQIsdp' 03 C2 003C ** 'id'",
            C(connect(V31)),
        )
        .written_as("10 ## ** 'MQIsdp' 03 02 003C ** 'id'"),
        legal(
            "connect 3.1 without its password",
            OWN,
            "10 ## ** 'MQIsdp' 03 C2 003C ** 'id' ** 'me'",
            C(Connect {
                username: Some("me"),
                ..connect(V31)
            }),
        )
        .written_as("10 ## ** 'MQIsdp' 03 82 003C ** 'id' ** 'me'"),
        // [MQTT-3.1.2-18] [MQTT-3.1.2-20] MQTT 5, 3.1.2.9: a password needs no user name.
        legal(
            "connect 5 password alone",
            OWN,
            "10 ## ** 'MQTT' 05 42 003C 00 ** 'id' ** 'pw'",
            C(Connect {
                password: Some(b"pw"),
                ..connect(V5)
            }),
        ),
        legal(
            "connect 5 all properties",
            OWN,
            ALL_PROPERTIES,
            C(all_properties()),
        ),
        // [MQTT-3.1.2-9] [MQTT-3.1.2-19] [MQTT-3.1.2-21] [MQTT-3.1.3-1] [MQTT-3.1.3-9]
        // [MQTT-3.1.3-10]
        legal(
            "connect 5 will",
            OWN,
            "10 ## ** 'MQTT' 05 CE 003C 00 ** 'id'
             26 1800000005 0200000009 0101 08 ** 'r' 09 ** 'c' 03 ** 'x' 26 ** 'k' ** 'v'
             26 ** 'k' ** 'w' ** 'w/t' ** 'gone' ** 'me' ** 'pw'",
            C(Connect {
                will: Some(Will {
                    qos: QoS::AtLeastOnce,
                    delay: 5,
                    properties: PublishProperties {
                        payload_format: Some(PayloadFormat::Utf8),
                        message_expiry: Some(9),
                        response_topic: Some("r"),
                        correlation_data: Some(b"c"),
                        content_type: Some("x"),
                        user_properties: user("26 ** 'k' ** 'v' 26 ** 'k' ** 'w'"),
                        ..PublishProperties::default()
                    },
                    ..will()
                }),
                username: Some("me"),
                password: Some(b"pw"),
                ..connect(V5)
            }),
        ),
        legal(
            "connect 5 defaults spelled out",
            OWN,
            "10 ## ** 'MQTT' 05 02 003C 0F 1100000000 21FFFF 220000 1900 1701 ** 'id'",
            C(connect(V5)),
        )
        .written_as("10 ## ** 'MQTT' 05 02 003C 00 ** 'id'"),
    ]
}

const ALL_PROPERTIES: &str = "10 ## ** 'MQTT' 05 02 003C 24 11FFFFFFFF 210001 2700000001 22FFFF
    1901 1700 26 ** 'k' ** 'v' 15 ** 'M' 16 0002 00FF ** 'id'";

fn all_properties() -> Connect<'static> {
    let properties = ConnectProperties {
        session_expiry: u32::MAX,
        receive_maximum: 1,
        maximum_packet_size: Some(1),
        topic_alias_maximum: u16::MAX,
        request_response_information: true,
        request_problem_information: false,
        user_properties: user("26 ** 'k' ** 'v'"),
        authentication_method: Some("M"),
        authentication_data: Some(b"\0\xFF"),
    };
    Connect {
        properties,
        ..connect(V5)
    }
}

#[rustfmt::skip] // One row for each case.
pub(super) fn refusals() -> Vec<Refused> {
    let unsupported = |level, answer| DecodeError::UnsupportedVersion { level, answer };
    let cut = |field, expected, found| Malformed::Truncated {
        field,
        expected,
        found,
    };
    let topic = |fault| Malformed::Topic {
        field: "Will Topic",
        fault,
    };
    let twice = ProtocolError::PropertyTwice {
        property: "Session Expiry Interval",
    };
    let nul = Malformed::Nul {
        field: "Client Identifier",
    };
    let misplaced = |property| ProtocolError::PropertyNotAllowed {
        property,
        packet: "Will",
    };
    vec![
        // [MQTT-3.1.2-1] [MQTT3-3.1.2-1]
        refused("connect wrong name", OWN, "10 ## ** 'MQTt' 04 02 003C ** 'id'", 0x84, unsupported(0, None)),
        refused("connect empty name", OWN, "10 ## 0000 04 02 003C ** 'id'", 0x84, unsupported(0, None)),
        // [MQTT-3.1.2-2] [MQTT3-3.1.2-2]
        refused("connect level 3", OWN, "10 ## ** 'MQTT' 03 02 003C ** 'id'", 0x84, unsupported(3, Some(V311))),
        refused("connect level 6", OWN, "10 ## ** 'MQTT' 06 02 003C 00 ** 'id'", 0x84, unsupported(6, Some(V5))),
        refused("connect level of a bridge", OWN, "10 ## ** 'MQTT' 84 02 003C ** 'id'", 0x84, unsupported(0x84, Some(V311))),
        refused("connect MQIsdp level 4", OWN, "10 ## ** 'MQIsdp' 04 02 003C ** 'id'", 0x84, unsupported(4, Some(V31))),
        // [MQTT-3.1.2-3] [MQTT3-3.1.2-3]
        refused("t frm 7 connect reserved flag", OWN, "10 ## ** 'MQTT' 04 03 003C ** 'id'", 0x81, Malformed::ReservedConnectFlag),
        refused("t frm 7 connect reserved flag v5", OWN, "10 ## ** 'MQTT' 05 03 003C 00 ** 'id'", 0x81, Malformed::ReservedConnectFlag),
        // [MQTT-3.1.2-14] [MQTT3-3.1.2-14]
        refused("connect will qos 3", OWN, "10 ## ** 'MQTT' 04 1E 003C ** 'id' ** 't' ** 'p'", 0x81, Malformed::QosThree { field: "Will QoS" }),
        // [MQTT-3.1.2-11] [MQTT-3.1.2-13] [MQTT3-3.1.2-13]
        refused("connect will qos without will", OWN, "10 ## ** 'MQTT' 05 0A 003C 00 ** 'id'", 0x81, Malformed::WillBitsWithoutWill),
        // [MQTT-3.1.2-15] [MQTT3-3.1.2-15]
        refused("connect will retain without will", OWN, "10 ## ** 'MQTT' 04 22 003C ** 'id'", 0x81, Malformed::WillBitsWithoutWill),
        // [MQTT3-3.1.2-11] [MQTT3-3.1.2-18] Fields without their flags are bytes too many.
        refused("t frm 5 connect will without flag", OWN, "10 ## ** 'MQTT' 04 02 003C ** 'id' ** 't' ** 'p'", 0x81, Malformed::TrailingBytes { packet: "CONNECT", count: 6 }),
        // [MQTT-3.1.2-9] [MQTT3-3.1.2-9]
        refused("t frm 4 connect without will topic", OWN, "10 ## ** 'MQTT' 04 06 003C ** 'id'", 0x81, cut("Will Topic", 2, 0)),
        refused("t frm 4 connect without will payload", OWN, "10 ## ** 'MQTT' 04 06 003C ** 'id' ** 't'", 0x81, cut("Will Payload", 2, 0)),
        // [MQTT-3.1.2-19] [MQTT3-3.1.2-19]
        refused("t frm 4 connect without user name", OWN, "10 ## ** 'MQTT' 04 82 003C ** 'id'", 0x81, cut("User Name", 2, 0)),
        // [MQTT-3.1.2-21] [MQTT3-3.1.2-21]
        refused("t frm 4 connect without password", OWN, "10 ## ** 'MQTT' 05 C2 003C 00 ** 'id' ** 'me'", 0x81, cut("Password", 2, 0)),
        // [MQTT3-3.1.2-22]
        refused("connect password without user name", OWN, "10 ## ** 'MQTT' 04 42 003C ** 'id' ** 'pw'", 0x81, Malformed::PasswordWithoutUserName),
        refused("connect 3.1 password without user name", OWN, "10 ## ** 'MQIsdp' 03 42 003C ** 'id' ** 'pw'", 0x81, Malformed::PasswordWithoutUserName),
        // [MQTT-3.1.3-3] [MQTT3-3.1.3-3]
        refused("t frm 4 connect without client identifier", OWN, "10 ## ** 'MQTT' 04 02 003C", 0x81, cut("Client Identifier", 2, 0)),
        // [MQTT-3.1.3-4] [MQTT3-3.1.3-4]
        refused("t frm 8 connect client identifier with null", OWN, "10 ## ** 'MQTT' 04 02 003C 0001 00", 0x81, nul),
        refused("t frm 8 connect client identifier not utf 8", OWN, "10 ## ** 'MQTT' 05 02 003C 00 0001 FF", 0x81, Malformed::NotUtf8 { field: "Client Identifier" }),
        // [MQTT-3.1.3-10] [MQTT3-3.1.3-11]
        refused("t frm 8 connect user name not utf 8", OWN, "10 ## ** 'MQTT' 04 82 003C ** 'id' 0002 C3C3", 0x81, Malformed::NotUtf8 { field: "User Name" }),
        // [MQTT-3.1.3-9] [MQTT3-3.1.3-10]
        refused("t frm 8 connect will topic not utf 8", OWN, "10 ## ** 'MQTT' 04 06 003C ** 'id' 0001 FF ** 'p'", 0x81, Malformed::NotUtf8 { field: "Will Topic" }),
        refused("connect will topic empty", OWN, "10 ## ** 'MQTT' 05 06 003C 00 ** 'id' 00 0000 ** 'p'", 0x81, topic(TopicFault::Empty)),
        refused("connect will topic with wildcard", OWN, "10 ## ** 'MQTT' 05 06 003C 00 ** 'id' 00 ** 'a/#' ** 'p'", 0x81, topic(TopicFault::WildcardInTopicName)),
        refused("t frm 7 connect header flags", OWN, "11 ## ** 'MQTT' 04 02 003C ** 'id'", 0x81, Malformed::FixedHeaderFlags { packet: "CONNECT", expected: 0, found: 1 }),
        refused("t frm 4 connect properties beyond packet", OWN, "10 ## ** 'MQTT' 05 02 003C 08 ** 'id'", 0x81, cut("Properties", 8, 4)),
        refused("t frm 10 connect property twice", OWN, "10 ## ** 'MQTT' 05 02 003C 0A 1100000001 1100000001 ** 'id'", 0x82, twice),
        refused("t frm 10 connect receive maximum 0", OWN, "10 ## ** 'MQTT' 05 02 003C 03 210000 ** 'id'", 0x82, ProtocolError::PropertyIsZero { property: "Receive Maximum" }),
        refused("t frm 10 connect maximum packet size 0", OWN, "10 ## ** 'MQTT' 05 02 003C 05 2700000000 ** 'id'", 0x82, ProtocolError::PropertyIsZero { property: "Maximum Packet Size" }),
        refused("t frm 10 connect request problem 2", OWN, "10 ## ** 'MQTT' 05 02 003C 02 1702 ** 'id'", 0x82, ProtocolError::PropertyNotZeroOrOne { property: "Request Problem Information", found: 2 }),
        refused("t frm 10 connect will delay outside will", OWN, "10 ## ** 'MQTT' 05 02 003C 05 1800000001 ** 'id'", 0x82, ProtocolError::PropertyNotAllowed { property: "Will Delay Interval", packet: "CONNECT" }),
        refused("t frm 10 will with topic alias", OWN, "10 ## ** 'MQTT' 05 06 003C 00 ** 'id' 03 230001 ** 't' ** 'p'", 0x82, misplaced("Topic Alias")),
        refused("t frm 10 will with subscription identifier", OWN, "10 ## ** 'MQTT' 05 06 003C 00 ** 'id' 02 0B01 ** 't' ** 'p'", 0x82, misplaced("Subscription Identifier")),
        refused("t frm 9 connect authentication data without method", OWN, "10 ## ** 'MQTT' 05 02 003C 04 16 ** 'd' ** 'id'", 0x82, ProtocolError::AuthenticationDataWithoutMethod),
    ]
}

#[test]
fn the_version_is_known_even_if_the_rest_is_wrong() {
    // A refusal is sent in the shape that the client reads.
    for (notation, version) in [
        ("10 ## ** 'MQTT' 05 03", Some(V5)),
        ("10 ## ** 'MQTT' 04", Some(V311)),
        ("10 ## ** 'MQIsdp' 03 FF", Some(V31)),
        ("10 ## ** 'MQTT' 06 02", None),
        ("10 ## ** 'MQTT'", None),
        ("30 ## ** 'MQTT' 05", None),
    ] {
        let bytes = super::bytes(notation);
        assert_eq!(
            Connect::version_of(&super::whole(&bytes)),
            version,
            "{notation}"
        );
    }
}

#[test]
fn t_frm_1_another_first_packet_is_not_read_as_connect() {
    // [MQTT-3.1.0-1] [MQTT3-3.1.0-1]
    let first = |notation: &str| {
        crate::mqtt::decode_connect(&super::whole(&super::bytes(notation))).unwrap_err()
    };
    assert_eq!(
        first("C0 00"),
        ProtocolError::NotConnect { found: "PINGREQ" }.into()
    );
    assert_eq!(
        first("00 00"),
        Malformed::ReservedPacketType { packet_type: 0 }.into()
    );
}

#[test]
fn secrets_and_payloads_are_not_in_debug_output() {
    let connect = Connect {
        will: Some(will()),
        username: Some("me"),
        password: Some(b"hunter2"),
        properties: ConnectProperties {
            authentication_method: Some("M"),
            authentication_data: Some(b"hunter2"),
            ..ConnectProperties::default()
        },
        ..connect(V5)
    };
    let text = format!("{connect:?}");
    let secret = format!("{:?}", b"hunter2");
    assert!(text.contains("has_password: true"));
    assert!(!text.contains(secret.trim_matches(['[', ']'])));
    assert!(text.contains("payload_bytes: 4"));
}
