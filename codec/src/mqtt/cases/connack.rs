//! CONNACK, legal and not.

use super::legal::user;
use super::{Legal, ONLY_V5, ONLY_V31, ONLY_V311, Refused, V3, legal, refused};
use crate::mqtt::ProtocolVersion::{V31, V311};
use crate::mqtt::{ConnAck, ConnAckProperties, Malformed, Packet, ProtocolError, QoS, ReasonCode};

pub(super) fn connacks() -> Vec<Legal> {
    let code = |code| ConnAck {
        reason: ReasonCode::new(code),
        ..ConnAck::default()
    };
    let present = ConnAck {
        session_present: true,
        ..ConnAck::default()
    };
    let properties = ConnAckProperties {
        session_expiry: Some(1),
        receive_maximum: Some(2),
        maximum_qos: Some(QoS::AtLeastOnce),
        retain_available: Some(true),
        maximum_packet_size: Some(3),
        assigned_client_identifier: Some("a"),
        topic_alias_maximum: Some(4),
        reason_string: Some("r"),
        user_properties: user("26 ** 'k' ** 'v'"),
        wildcard_subscription_available: Some(true),
        subscription_identifier_available: Some(false),
        shared_subscription_available: Some(true),
        server_keep_alive: Some(5),
        response_information: Some("i"),
        server_reference: Some("s"),
        authentication_method: Some("m"),
        authentication_data: Some(b"d"),
    };
    vec![
        legal("connack", V3, "20 02 00 00", Packet::ConnAck(code(0))),
        legal(
            "connack session present",
            ONLY_V311,
            "20 02 01 00",
            Packet::ConnAck(present),
        ),
        legal(
            "connack 3.1 reserved byte",
            ONLY_V31,
            "20 02 FF 00",
            Packet::ConnAck(code(0)),
        )
        .written_as("20 02 00 00"),
        // [MQTT3-3.2.2-4]
        legal(
            "connack refusal",
            V3,
            "20 02 00 05",
            Packet::ConnAck(code(5)),
        ),
        legal(
            "connack v5",
            ONLY_V5,
            "20 03 01 00 00",
            Packet::ConnAck(present),
        ),
        // [MQTT-3.2.2-6] [MQTT-3.2.2-8]
        legal(
            "connack refusal v5",
            ONLY_V5,
            "20 03 00 87 00",
            Packet::ConnAck(code(0x87)),
        ),
        legal(
            "connack properties",
            ONLY_V5,
            "20 ## 01 00 3C 1100000001 210002 2401 2501 2700000003 12 ** 'a' 220004 1F ** 'r'
             26 ** 'k' ** 'v' 2801 2900 2A01 130005 1A ** 'i' 1C ** 's' 15 ** 'm' 16 ** 'd'",
            Packet::ConnAck(ConnAck {
                properties,
                ..present
            }),
        ),
    ]
}

#[rustfmt::skip] // One row for each case.
pub(super) fn refusals() -> Vec<Refused> {
    vec![
        // [MQTT-3.2.2-1]
        refused("connack reserved flags", ONLY_V311, "20 02 02 00", 0x81, Malformed::ReservedAcknowledgeFlags { found: 2 }),
        refused("connack reserved flags v5", ONLY_V5, "20 03 80 00 00", 0x81, Malformed::ReservedAcknowledgeFlags { found: 0x80 }),
        // [MQTT-3.2.2-6] [MQTT3-3.2.2-4]
        refused("connack session present on refusal", ONLY_V311, "20 02 01 05", 0x82, ProtocolError::SessionPresentOnRefusal),
        refused("connack session present on refusal v5", ONLY_V5, "20 03 01 87 00", 0x82, ProtocolError::SessionPresentOnRefusal),
        refused("connack return code 6", V3, "20 02 00 06", 0x82, ProtocolError::CodeNotListed { packet: "CONNACK", code: 6 }),
        refused("connack maximum qos 2", ONLY_V5, "20 05 00 00 02 2402", 0x82, ProtocolError::PropertyNotZeroOrOne { property: "Maximum QoS", found: 2 }),
    ]
}

#[test]
fn connack_before_mqtt_5_takes_reason_codes_and_return_codes() {
    // [MQTT3-3.2.2-4] [MQTT-3.2.2-6] Session Present is left out of a refusal.
    for (version, reason, bytes) in [
        (V311, ReasonCode::SUCCESS, [0x20, 2, 1, 0]),
        (V31, ReasonCode::SUCCESS, [0x20, 2, 0, 0]),
        (V311, ReasonCode::NOT_AUTHORIZED, [0x20, 2, 0, 5]),
        (V311, ReasonCode::new(4), [0x20, 2, 0, 4]),
        (V31, ReasonCode::MALFORMED_PACKET, [0x20, 2, 0, 3]),
    ] {
        let mut out = Vec::new();
        let properties = ConnAckProperties {
            reason_string: Some("x"),
            ..Default::default()
        };
        ConnAck {
            session_present: true,
            reason,
            properties,
        }
        .encode(version, &mut out);
        assert_eq!(out, bytes);
    }
}
