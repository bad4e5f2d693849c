//! Properties and Reason Codes that MQTT 5 refuses.

use super::{ONLY_V5, Refused, bytes, refused, whole};
use crate::mqtt::ProtocolVersion::V5;
use crate::mqtt::{DecodeError, Malformed, PacketType, ProtocolError, TopicFault, decode};

fn only(name: &'static str, notation: &str, reason: u8, error: impl Into<DecodeError>) -> Refused {
    refused(name, ONLY_V5, notation, reason, error)
}

#[rustfmt::skip] // One row for each case.
pub(super) fn properties() -> Vec<Refused> {
    let unknown = |id| Malformed::UnknownProperty { id };
    let twice = |property| ProtocolError::PropertyTwice { property };
    let misplaced = |property, packet| ProtocolError::PropertyNotAllowed { property, packet };
    let zero = |property| ProtocolError::PropertyIsZero { property };
    let cut = |field, expected, found| Malformed::Truncated {
        field,
        expected,
        found,
    };
    let field = "Property Length";
    let padded = Malformed::VariableByteIntegerNotMinimal { field };
    let endless = Malformed::VariableByteIntegerTooLong { field };
    let response_topic = |fault| Malformed::Topic {
        field: "Response Topic",
        fault,
    };
    let format = ProtocolError::PropertyNotZeroOrOne {
        property: "Payload Format Indicator",
        found: 2,
    };
    let not_utf8 = |field| Malformed::NotUtf8 { field };
    vec![
        only("t frm 10 property 0", "30 ## ** 'a' 02 0001", 0x81, unknown(0)),
        only("t frm 10 property 4", "30 ## ** 'a' 02 0401", 0x81, unknown(4)),
        only("t frm 10 property 2b", "E0 ## 00 02 2B01", 0x81, unknown(0x2B)),
        only("t frm 10 property 7f", "30 ## ** 'a' 02 7F01", 0x81, unknown(0x7F)),
        only("t frm 10 property of two bytes", "30 ## ** 'a' 03 810100", 0x81, unknown(0x81)),
        // [MQTT-1.5.5-1]
        only("t frm 3 property length padded", "30 ## ** 'a' 8000", 0x81, padded),
        only("t frm 3 property length endless", "30 ## ** 'a' 8080808001", 0x81, endless),
        // MQTT 5, 3.3.2.3.8
        only("t frm 10 subscription identifier 0", "82 ## 0001 02 0B00 ** 'a' 00", 0x82, zero("Subscription Identifier")),
        only("t frm 10 publish subscription identifier 0", "30 ## ** 'a' 02 0B00", 0x82, zero("Subscription Identifier")),
        only("t frm 10 subscription identifier twice", "82 ## 0001 04 0B01 0B01 ** 'a' 00", 0x82, twice("Subscription Identifier")),
        // [MQTT-3.3.2-8]
        only("t frm 10 topic alias 0", "30 ## ** 'a' 03 230000", 0x94, ProtocolError::TopicAliasZero),
        only("t frm 10 topic alias twice", "30 ## ** 'a' 06 230001 230002", 0x82, twice("Topic Alias")),
        only("t frm 10 payload format 2", "30 ## ** 'a' 02 0102", 0x82, format),
        only("t frm 10 payload format twice", "30 ## ** 'a' 04 0101 0101", 0x82, twice("Payload Format Indicator")),
        only("t frm 10 message expiry twice", "30 ## ** 'a' 0A 0200000001 0200000001", 0x82, twice("Message Expiry Interval")),
        only("t frm 10 content type twice", "30 ## ** 'a' 06 030000 030000", 0x82, twice("Content Type")),
        only("t frm 10 response topic twice", "30 ## ** 'a' 08 08 ** 'r' 08 ** 'r'", 0x82, twice("Response Topic")),
        only("t frm 10 correlation data twice", "30 ## ** 'a' 06 090000 090000", 0x82, twice("Correlation Data")),
        only("t frm 10 reason string twice", "40 ## 0001 00 06 1F0000 1F0000", 0x82, twice("Reason String")),
        only("t frm 10 authentication method twice", "F0 ## 18 08 15 ** 'M' 15 ** 'M'", 0x82, twice("Authentication Method")),
        // [MQTT-3.3.2-14]
        only("response topic with wildcard", "30 ## ** 'a' 06 08 ** 'r/+'", 0x81, response_topic(TopicFault::WildcardInTopicName)),
        only("response topic empty", "30 ## ** 'a' 03 080000", 0x81, response_topic(TopicFault::Empty)),
        // [MQTT-3.3.2-13]
        only("t frm 8 response topic not utf 8", "30 ## ** 'a' 04 080001FF", 0x81, not_utf8("Response Topic")),
        // [MQTT-3.3.2-19]
        only("t frm 8 content type not utf 8", "30 ## ** 'a' 04 030001FF", 0x81, not_utf8("Content Type")),
        // [MQTT-1.5.7-1]
        only("t frm 8 user property name", "30 ## ** 'a' 06 26 0001FF 0000", 0x81, not_utf8("User Property name")),
        only("t frm 8 user property value", "30 ## ** 'a' 06 26 0000 0001FF", 0x81, not_utf8("User Property value")),
        only("t frm 8 user property with null", "30 ## ** 'a' 06 26 0001 00 0000", 0x81, Malformed::Nul { field: "User Property name" }),
        only("t frm 8 reason string with null", "40 ## 0001 00 04 1F000100", 0x81, Malformed::Nul { field: "Reason String" }),
        only("t frm 4 user property without value", "30 ## ** 'a' 04 26 ** 'k' 'x'", 0x81, cut("User Property value", 2, 0)),
        only("t frm 4 property without value", "30 ## ** 'a' 01 23 'payload'", 0x81, cut("Topic Alias", 2, 0)),
        only("t frm 4 property beyond its block", "30 ## ** 'a' 03 020000 'payload'", 0x81, cut("Message Expiry Interval", 4, 2)),
        only("t frm 10 publish with session expiry", "30 ## ** 'a' 05 1100000001", 0x82, misplaced("Session Expiry Interval", "PUBLISH")),
        only("t frm 10 subscribe with topic alias", "82 ## 0001 03 230001 ** 'a' 00", 0x82, misplaced("Topic Alias", "SUBSCRIBE")),
        only("t frm 10 unsubscribe with identifier", "A2 ## 0001 02 0B01 ** 'a'", 0x82, misplaced("Subscription Identifier", "UNSUBSCRIBE")),
        only("t frm 10 puback with content type", "40 ## 0001 00 03 030000", 0x82, misplaced("Content Type", "PUBACK")),
        only("t frm 10 suback with expiry", "90 ## 0001 05 0200000001 00", 0x82, misplaced("Message Expiry Interval", "SUBACK")),
        only("t frm 10 disconnect with method", "E0 ## 00 04 15 ** 'M'", 0x82, misplaced("Authentication Method", "DISCONNECT")),
        only("t frm 10 auth with alias maximum", "F0 ## 18 07 15 ** 'M' 220001", 0x82, misplaced("Topic Alias Maximum", "AUTH")),
        only("t frm 10 connack with will delay", "20 ## 0000 05 1800000001", 0x82, misplaced("Will Delay Interval", "CONNACK")),
        // MQTT 5, 3.15.2.2.2
        only("t frm 9 auth without method", "F0 02 18 00", 0x82, ProtocolError::NoAuthenticationMethod),
        only("t frm 9 auth success without method", "F0 02 00 00", 0x82, ProtocolError::NoAuthenticationMethod),
        only("t frm 4 auth without property length", "F0 01 00", 0x81, cut("Property Length", 1, 0)),
        only("t frm 4 subscribe without property length", "82 02 0001", 0x81, cut("Property Length", 1, 0)),
        only("t frm 5 puback behind v5", "40 05 0001 00 00 00", 0x81, Malformed::TrailingBytes { packet: "PUBACK", count: 1 }),
        only("t frm 5 disconnect behind v5", "E0 03 00 00 00", 0x81, Malformed::TrailingBytes { packet: "DISCONNECT", count: 1 }),
        only("t frm 5 auth behind", "F0 ## 18 04 15 ** 'M' 00", 0x81, Malformed::TrailingBytes { packet: "AUTH", count: 1 }),
    ]
}

#[rustfmt::skip] // One row for each case.
pub(super) fn reason_codes() -> Vec<Refused> {
    let not_listed = |packet, code| ProtocolError::CodeNotListed { packet, code };
    vec![
        // [MQTT-3.4.2-1]
        only("puback code 92", "40 03 0001 92", 0x82, not_listed("PUBACK", 0x92)),
        // [MQTT-3.5.2-1]
        only("pubrec code 01", "50 03 0001 01", 0x82, not_listed("PUBREC", 1)),
        // [MQTT-3.6.2-1]
        only("pubrel code 10", "62 03 0001 10", 0x82, not_listed("PUBREL", 0x10)),
        // [MQTT-3.7.2-1]
        only("pubcomp code 80", "70 03 0001 80", 0x82, not_listed("PUBCOMP", 0x80)),
        // [MQTT-3.9.3-2]
        only("suback code 03 v5", "90 04 0001 00 03", 0x82, not_listed("SUBACK", 3)),
        // [MQTT-3.11.3-2]
        only("unsuback code 01", "B0 04 0001 00 01", 0x82, not_listed("UNSUBACK", 1)),
        // [MQTT-3.14.2-1]
        only("disconnect code 01", "E0 01 01", 0x82, not_listed("DISCONNECT", 1)),
        // [MQTT-3.15.2-1]
        only("auth code 80", "F0 ## 80 04 15 ** 'M'", 0x82, not_listed("AUTH", 0x80)),
        // [MQTT-3.2.2-8]
        only("connack code 01 v5", "20 03 0001 00", 0x82, not_listed("CONNACK", 1)),
    ]
}

/// Encoded with a legal value, and the packets that the property belongs to. MQTT 5, table 2-4.
const TABLE: &[(&str, &str)] = &[
    ("0101", "PUBLISH Will"),
    ("0200000001", "PUBLISH Will"),
    ("03 0000", "PUBLISH Will"),
    ("08 0001 72", "PUBLISH Will"),
    ("09 0000", "PUBLISH Will"),
    ("0B01", "PUBLISH SUBSCRIBE"),
    ("1100000001", "CONNECT CONNACK DISCONNECT"),
    ("12 0000", "CONNACK"),
    ("130001", "CONNACK"),
    ("15 0000", "CONNECT CONNACK AUTH"),
    ("16 0000", "CONNECT CONNACK AUTH"),
    ("1701", "CONNECT"),
    ("1800000001", "Will"),
    ("1901", "CONNECT"),
    ("1A 0000", "CONNACK"),
    ("1C 0000", "CONNACK DISCONNECT"),
    (
        "1F 0000",
        "CONNACK PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK DISCONNECT AUTH",
    ),
    ("210001", "CONNECT CONNACK"),
    ("220001", "CONNECT CONNACK"),
    ("230001", "PUBLISH"),
    ("2401", "CONNACK"),
    ("2501", "CONNACK"),
    (
        "26 0000 0000",
        "CONNECT CONNACK PUBLISH Will PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE \
         UNSUBACK DISCONNECT AUTH",
    ),
    ("2700000001", "CONNECT CONNACK"),
    ("2801", "CONNACK"),
    ("2901", "CONNACK"),
    ("2A01", "CONNACK"),
];

/// What stands in front of and behind the properties of each packet.
const PLACES: &[(&str, &str, &str, &str)] = &[
    ("CONNECT", "10", "** 'MQTT' 05 02 003C", "0000"),
    ("Will", "10", "** 'MQTT' 05 06 003C 00 0000", "** 't' 0000"),
    ("CONNACK", "20", "00 00", ""),
    ("PUBLISH", "30", "** 't'", "'payload'"),
    ("PUBACK", "40", "0001 00", ""),
    ("PUBREC", "50", "0001 00", ""),
    ("PUBREL", "62", "0001 00", ""),
    ("PUBCOMP", "70", "0001 00", ""),
    ("SUBSCRIBE", "82", "0001", "** 'a' 00"),
    ("SUBACK", "90", "0001", "00"),
    ("UNSUBSCRIBE", "A2", "0001", "** 'a'"),
    ("UNSUBACK", "B0", "0001", "00"),
    ("DISCONNECT", "E0", "00", ""),
    ("AUTH", "F0", "00", ""),
];

#[test]
fn t_frm_10_each_property_belongs_to_the_packets_of_the_table() {
    for (place, first, before, after) in PLACES {
        for (property, packets) in TABLE {
            let allowed = packets.split_whitespace().any(|packet| packet == *place);
            // AUTH always needs its method, CONNECT a method for its data.
            let method = match (*place, &property[..2]) {
                ("AUTH", "15") => "",
                ("AUTH", _) | ("CONNECT", "16") => "15 0000",
                _ => "",
            };
            let length = bytes(property).len() + bytes(method).len();
            let notation = format!("{first} ## {before} {length:02X} {property} {method} {after}");
            let case = bytes(&notation);
            let error = decode(&whole(&case), V5).map(drop).err();
            if allowed {
                assert_eq!(error, None, "{property} in {place}");
                continue;
            }
            let Some(DecodeError::ProtocolError(ProtocolError::PropertyNotAllowed {
                packet, ..
            })) = error
            else {
                panic!("{property} in {place}: {error:?}");
            };
            assert_eq!(packet, *place);
        }
    }
}

#[test]
fn t_frm_10_every_property_but_the_user_property_appears_once() {
    for (place, first, before, after) in PLACES {
        for (property, packets) in TABLE {
            if !packets.split_whitespace().any(|packet| packet == *place) {
                continue;
            }
            let repeatable =
                property.starts_with("26") || (property.starts_with("0B") && *place == "PUBLISH");
            let method = match (*place, &property[..2]) {
                ("AUTH" | "CONNECT", "15") => "",
                ("AUTH", _) | ("CONNECT", "16") => "15 0000",
                _ => "",
            };
            let length = 2 * bytes(property).len() + bytes(method).len();
            let notation =
                format!("{first} ## {before} {length:02X} {property} {property} {method} {after}");
            let case = bytes(&notation);
            match decode(&whole(&case), V5).map(drop) {
                Ok(()) => assert!(repeatable, "{property} twice in {place}"),
                Err(DecodeError::ProtocolError(ProtocolError::PropertyTwice { .. })) => {
                    assert!(!repeatable, "{property} twice in {place}");
                }
                Err(error) => panic!("{property} twice in {place}: {error}"),
            }
        }
    }
}

#[test]
fn only_listed_reason_codes_are_read() {
    // [MQTT-3.2.2-8] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2]
    // [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1]
    for (packet, template, listed) in [
        (PacketType::ConnAck, "20 ## 00 CC 00", 22),
        (PacketType::PubAck, "40 ## 0001 CC", 9),
        (PacketType::PubRec, "50 ## 0001 CC", 9),
        (PacketType::PubRel, "62 ## 0001 CC", 2),
        (PacketType::PubComp, "70 ## 0001 CC", 2),
        (PacketType::SubAck, "90 ## 0001 00 CC", 12),
        (PacketType::UnsubAck, "B0 ## 0001 00 CC", 7),
        (PacketType::Disconnect, "E0 ## CC", 30),
        (PacketType::Auth, "F0 ## CC 03 15 0000", 3),
    ] {
        let accepted = (0..=0xFFu8).filter(|code| {
            let case = bytes(&template.replace("CC", &format!("{code:02X}")));
            decode(&whole(&case), V5).is_ok()
        });
        assert_eq!(accepted.count(), listed, "{}", packet.name());
    }
}
