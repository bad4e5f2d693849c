//! Packets that no version allows, and those that only MQTT 3.1.1 refuses in its own way.

use super::{ALL, ONLY_V5, ONLY_V31, ONLY_V311, Refused, V3, refused};
use crate::mqtt::{Malformed, ProtocolError, TopicFault};

fn cut(field: &'static str, expected: usize, found: usize) -> Malformed {
    Malformed::Truncated {
        field,
        expected,
        found,
    }
}

fn flags(packet: &'static str, expected: u8, found: u8) -> Malformed {
    Malformed::FixedHeaderFlags {
        packet,
        expected,
        found,
    }
}

fn behind(packet: &'static str, count: usize) -> Malformed {
    Malformed::TrailingBytes { packet, count }
}

fn id_zero(packet: &'static str) -> ProtocolError {
    ProtocolError::PacketIdZero { packet }
}

#[rustfmt::skip] // One row for each case.
pub(super) fn headers() -> Vec<Refused> {
    let reserved = |packet_type| Malformed::ReservedPacketType { packet_type };
    let field = "Remaining Length";
    let endless = Malformed::VariableByteIntegerTooLong { field };
    let padded = Malformed::VariableByteIntegerNotMinimal { field };
    vec![
        refused("t frm 1 type 0", ALL, "00 00", 0x81, reserved(0)),
        refused("t frm 1 type 15 before 5", V3, "F0 00", 0x81, reserved(15)),
        // [MQTT-1.5.5-1]
        refused("t frm 3 length of five bytes", ALL, "30 8080808001", 0x81, endless),
        refused("t frm 3 length not minimal", ALL, "C0 8000", 0x81, padded),
        // [MQTT-2.1.3-1] [MQTT3-2.2.2-1] [MQTT3-2.2.2-2]
        refused("t frm 7 connack flags", ALL, "21 02 0000", 0x81, flags("CONNACK", 0, 1)),
        refused("t frm 7 puback flags", ALL, "42 02 0001", 0x81, flags("PUBACK", 0, 2)),
        refused("t frm 7 pubrec flags", ALL, "52 02 0001", 0x81, flags("PUBREC", 0, 2)),
        // [MQTT-3.6.1-1] [MQTT3-3.6.1-1]
        refused("t frm 7 pubrel flags", ALL, "60 02 0001", 0x81, flags("PUBREL", 2, 0)),
        refused("t frm 7 pubrel flags 15", ALL, "6F 02 0001", 0x81, flags("PUBREL", 2, 15)),
        refused("t frm 7 pubrel dup after 3.1", ONLY_V311, "6A 02 0001", 0x81, flags("PUBREL", 2, 10)),
        refused("t frm 7 pubcomp flags", ALL, "78 02 0001", 0x81, flags("PUBCOMP", 0, 8)),
        // [MQTT-3.8.1-1] [MQTT3-3.8.1-1]
        refused("t frm 7 subscribe flags", V3, "80 ## 0001 ** 'a' 00", 0x81, flags("SUBSCRIBE", 2, 0)),
        refused("t frm 7 subscribe flags v5", ONLY_V5, "83 ## 0001 00 ** 'a' 00", 0x81, flags("SUBSCRIBE", 2, 3)),
        refused("t frm 7 suback flags", ALL, "92 03 0001 00", 0x81, flags("SUBACK", 0, 2)),
        // [MQTT-3.10.1-1] [MQTT3-3.10.1-1]
        refused("t frm 7 unsubscribe flags", V3, "A0 ## 0001 ** 'a'", 0x81, flags("UNSUBSCRIBE", 2, 0)),
        refused("t frm 7 unsubscribe flags v5", ONLY_V5, "AA ## 0001 00 ** 'a'", 0x81, flags("UNSUBSCRIBE", 2, 10)),
        refused("t frm 7 unsuback flags", ALL, "B1 02 0001", 0x81, flags("UNSUBACK", 0, 1)),
        refused("t frm 7 pingreq flags", ALL, "C1 00", 0x81, flags("PINGREQ", 0, 1)),
        refused("t frm 7 pingresp flags", ALL, "D8 00", 0x81, flags("PINGRESP", 0, 8)),
        // [MQTT-3.14.1-1]
        refused("t frm 7 disconnect flags", ALL, "E2 00", 0x81, flags("DISCONNECT", 0, 2)),
        // [MQTT-3.15.1-1]
        refused("t frm 7 auth flags", ONLY_V5, "F1 00", 0x81, flags("AUTH", 0, 1)),
    ]
}

#[rustfmt::skip] // One row for each case.
pub(super) fn publish() -> Vec<Refused> {
    let topic = |fault| Malformed::Topic {
        field: "Topic Name",
        fault,
    };
    let not_utf8 = Malformed::NotUtf8 {
        field: "Topic Name",
    };
    let nul = Malformed::Nul {
        field: "Topic Name",
    };
    let qos_3 = Malformed::QosThree {
        field: "QoS of PUBLISH",
    };
    let wildcard = TopicFault::WildcardInTopicName;
    vec![
        // [MQTT-3.3.1-2] [MQTT3-3.3.1-2]
        refused("t frm 7 publish dup at qos 0", V3, "38 ## ** 'a'", 0x82, ProtocolError::DupAtQos0),
        refused("t frm 7 publish dup at qos 0 v5", ONLY_V5, "38 ## ** 'a' 00", 0x82, ProtocolError::DupAtQos0),
        // [MQTT-3.3.1-4] [MQTT3-3.3.1-4]
        refused("t frm 7 publish qos 3", ALL, "36 ## ** 'a' 0001", 0x81, qos_3),
        refused("t frm 7 publish qos 3 dup retain", ALL, "3F ## ** 'a' 0001", 0x81, qos_3),
        // [MQTT3-2.3.1-1]
        refused("t frm 7 publish identifier 0", ALL, "32 ## ** 'a' 0000 00", 0x82, id_zero("PUBLISH")),
        refused("t frm 7 publish qos 2 identifier 0", ALL, "34 ## ** 'a' 0000 00", 0x82, id_zero("PUBLISH")),
        refused("t frm 4 publish empty", ALL, "30 00", 0x81, cut("Topic Name", 2, 0)),
        // [MQTT-3.3.2-1] [MQTT3-3.3.2-1]
        refused("t frm 4 publish topic too long", ALL, "30 ## 0005 'abcd'", 0x81, cut("Topic Name", 5, 4)),
        refused("t frm 4 publish without identifier", ALL, "32 ## ** 'a'", 0x81, cut("Packet Identifier", 2, 0)),
        refused("t frm 4 publish half an identifier", ALL, "34 ## ** 'a' 01", 0x81, cut("Packet Identifier", 2, 1)),
        refused("t frm 4 publish without property length", ONLY_V5, "30 ## ** 'a'", 0x81, cut("Property Length", 1, 0)),
        refused("t frm 4 publish properties too long", ONLY_V5, "30 ## ** 'a' 05 0101", 0x81, cut("Properties", 5, 2)),
        // [MQTT-4.7.3-1]
        refused("publish topic empty", V3, "30 ## 0000 'x'", 0x81, topic(TopicFault::Empty)),
        refused("publish no topic", ONLY_V5, "30 ## 0000 00 'x'", 0x82, ProtocolError::NoTopic),
        // [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT3-3.3.2-2]
        refused("publish topic with plus", V3, "30 ## ** 'a/+'", 0x81, topic(wildcard)),
        refused("publish topic with hash", V3, "30 ## ** '#'", 0x81, topic(wildcard)),
        refused("publish topic with hash v5", ONLY_V5, "30 ## ** 'a#' 00", 0x81, topic(wildcard)),
        // [MQTT-1.5.4-1] [MQTT3-1.5.3-1]
        refused("t frm 8 publish topic with surrogate", V3, "30 ## 0003 EDA080", 0x81, not_utf8),
        refused("t frm 8 publish topic with surrogate v5", ONLY_V5, "30 ## 0003 EDBFBF 00", 0x81, not_utf8),
        refused("t frm 8 publish topic overlong", V3, "30 ## 0002 C0AF", 0x81, not_utf8),
        refused("t frm 8 publish topic cut inside a character", V3, "30 ## 0001 C3 'x'", 0x81, not_utf8),
        // [MQTT-1.5.4-2] [MQTT-4.7.3-2] [MQTT3-1.5.3-2]
        refused("t frm 8 publish topic with null", V3, "30 ## 0003 610062", 0x81, nul),
        refused("t frm 8 publish topic with null v5", ONLY_V5, "30 ## 0001 00 00", 0x81, nul),
    ]
}

#[rustfmt::skip] // One row for each case.
pub(super) fn subscriptions() -> Vec<Refused> {
    let filter = |fault| Malformed::Topic {
        field: "Topic Filter",
        fault,
    };
    let not_utf8 = Malformed::NotUtf8 {
        field: "Topic Filter",
    };
    let no_filters = |packet| ProtocolError::NoFilters { packet };
    let reserved = |found| Malformed::ReservedSubscriptionOptions { found };
    let not_alone = TopicFault::MultiLevelWildcardNotAlone;
    let not_last = TopicFault::MultiLevelWildcardNotLast;
    let plus = TopicFault::SingleLevelWildcardNotAlone;
    vec![
        refused("t frm 7 subscribe identifier 0", V3, "82 ## 0000 ** 'a' 00", 0x82, id_zero("SUBSCRIBE")),
        refused("t frm 7 subscribe identifier 0 v5", ONLY_V5, "82 ## 0000 00 ** 'a' 00", 0x82, id_zero("SUBSCRIBE")),
        refused("t frm 7 unsubscribe identifier 0", V3, "A2 ## 0000 ** 'a'", 0x82, id_zero("UNSUBSCRIBE")),
        refused("t frm 4 subscribe empty", ALL, "82 00", 0x81, cut("Packet Identifier", 2, 0)),
        // [MQTT-3.8.3-2] [MQTT3-3.8.3-3]
        refused("subscribe no filters", V3, "82 02 0001", 0x82, no_filters("SUBSCRIBE")),
        refused("subscribe no filters v5", ONLY_V5, "82 03 0001 00", 0x82, no_filters("SUBSCRIBE")),
        // [MQTT-3.10.3-2] [MQTT3-3.10.3-2]
        refused("unsubscribe no filters", V3, "A2 02 0001", 0x82, no_filters("UNSUBSCRIBE")),
        refused("unsubscribe no filters v5", ONLY_V5, "A2 03 0001 00", 0x82, no_filters("UNSUBSCRIBE")),
        refused("t frm 4 subscribe without options", V3, "82 ## 0001 ** 'a'", 0x81, cut("Subscription Options", 1, 0)),
        refused("t frm 4 subscribe filter too long", V3, "82 ## 0001 0009 'a' 00", 0x81, cut("Topic Filter", 9, 2)),
        refused("t frm 5 subscribe byte behind", V3, "82 ## 0001 ** 'a' 00 00", 0x81, cut("Topic Filter", 2, 1)),
        refused("t frm 5 unsubscribe byte behind", V3, "A2 ## 0001 ** 'a' 00", 0x81, cut("Topic Filter", 2, 1)),
        // [MQTT3-3.8.3-4]
        refused("subscribe reserved bits", V3, "82 ## 0001 ** 'a' 04", 0x81, reserved(4)),
        refused("subscribe qos 3", V3, "82 ## 0001 ** 'a' 03", 0x81, Malformed::QosThree { field: "Requested QoS" }),
        // [MQTT-3.8.3-5]
        refused("subscribe reserved bits v5", ONLY_V5, "82 ## 0001 00 ** 'a' 40", 0x81, reserved(0x40)),
        // MQTT 5, 3.8.3.1
        refused("subscribe qos 3 v5", ONLY_V5, "82 ## 0001 00 ** 'a' 03", 0x82, ProtocolError::SubscriptionQosThree),
        refused("subscribe retain handling 3", ONLY_V5, "82 ## 0001 00 ** 'a' 30", 0x82, ProtocolError::RetainHandlingThree),
        // [MQTT-3.8.3-4]
        refused("subscribe shared with no local", ONLY_V5, "82 ## 0001 00 ** '$share/g/a' 04", 0x82, ProtocolError::NoLocalOnShared),
        // [MQTT-3.8.3-1] [MQTT3-3.8.3-1]
        refused("t frm 8 subscribe filter not utf 8", V3, "82 ## 0001 0001 FF 00", 0x81, not_utf8),
        refused("t frm 8 subscribe filter with null", V3, "82 ## 0001 0001 00 00", 0x81, Malformed::Nul { field: "Topic Filter" }),
        // [MQTT-3.10.3-1] [MQTT3-3.10.3-1]
        refused("t frm 8 unsubscribe filter not utf 8", V3, "A2 ## 0001 0001 FF", 0x81, not_utf8),
        // [MQTT-4.7.3-1]
        refused("subscribe filter empty", V3, "82 ## 0001 0000 00", 0x81, filter(TopicFault::Empty)),
        refused("unsubscribe filter empty", V3, "A2 ## 0001 0000", 0x81, filter(TopicFault::Empty)),
        // [MQTT-4.7.1-1]
        refused("subscribe hash not last", V3, "82 ## 0001 ** 'a/#/b' 00", 0x81, filter(not_last)),
        refused("subscribe hash not alone", V3, "82 ## 0001 ** 'a#' 00", 0x81, filter(not_alone)),
        // [MQTT-4.7.1-2]
        refused("subscribe plus not alone", ONLY_V5, "82 ## 0001 00 ** 'a/b+' 00", 0x81, filter(plus)),
        refused("subscribe second filter wrong", V3, "82 ## 0001 ** 'a' 00 ** '+a' 00", 0x81, filter(plus)),
        refused("unsubscribe plus not alone", V3, "A2 ## 0001 ** 'a+'", 0x81, filter(plus)),
    ]
}

#[rustfmt::skip] // One row for each case.
pub(super) fn others() -> Vec<Refused> {
    let not_listed = |packet, code| ProtocolError::CodeNotListed { packet, code };
    vec![
        refused("t frm 7 puback identifier 0", ALL, "40 02 0000", 0x82, id_zero("PUBACK")),
        refused("t frm 7 pubrec identifier 0", ALL, "50 02 0000", 0x82, id_zero("PUBREC")),
        refused("t frm 7 pubrel identifier 0", ALL, "62 02 0000", 0x82, id_zero("PUBREL")),
        refused("t frm 7 pubcomp identifier 0", ALL, "70 02 0000", 0x82, id_zero("PUBCOMP")),
        refused("t frm 4 puback cut", ALL, "40 01 00", 0x81, cut("Packet Identifier", 2, 1)),
        refused("t frm 4 pubrel empty", ALL, "62 00", 0x81, cut("Packet Identifier", 2, 0)),
        refused("t frm 5 puback behind", V3, "40 03 0001 00", 0x81, behind("PUBACK", 1)),
        refused("t frm 5 pubrec behind", V3, "50 04 0001 00 00", 0x81, behind("PUBREC", 2)),
        refused("t frm 5 pubrel behind", ONLY_V311, "62 03 0001 00", 0x81, behind("PUBREL", 1)),
        refused("t frm 5 pubcomp behind", V3, "70 03 0001 00", 0x81, behind("PUBCOMP", 1)),
        refused("t frm 5 unsuback behind", V3, "B0 03 0001 00", 0x81, behind("UNSUBACK", 1)),
        refused("t frm 5 pingreq behind", ALL, "C0 01 00", 0x81, behind("PINGREQ", 1)),
        refused("t frm 5 pingresp behind", ALL, "D0 01 00", 0x81, behind("PINGRESP", 1)),
        refused("t frm 5 disconnect behind", V3, "E0 01 00", 0x81, behind("DISCONNECT", 1)),
        refused("t frm 5 connack behind", V3, "20 03 0000 00", 0x81, behind("CONNACK", 1)),
        refused("t frm 4 connack cut", ALL, "20 01 00", 0x81, cut("Connect Reason Code", 1, 0)),
        // [MQTT3-3.9.3-2]
        refused("suback code 3", V3, "90 03 0001 03", 0x82, not_listed("SUBACK", 3)),
        refused("suback code 81", ONLY_V31, "90 03 0001 81", 0x82, not_listed("SUBACK", 0x81)),
        refused("suback no codes", V3, "90 02 0001", 0x82, ProtocolError::NoReasonCodes { packet: "SUBACK" }),
        refused("unsuback no codes v5", ONLY_V5, "B0 03 0001 00", 0x82, ProtocolError::NoReasonCodes { packet: "UNSUBACK" }),
    ]
}
