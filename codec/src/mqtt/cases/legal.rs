//! Legal packets other than CONNECT and CONNACK.

use super::{Legal, ONLY_V5, ONLY_V31, V3, leak, legal};
use crate::mqtt::{
    Delivery, Packet, PacketId, PayloadFormat, ProtocolVersion, Publish, PublishProperties, SubAck,
    Subscribe, SubscribeFilters, SubscriptionIdentifiers, Unsubscribe, UnsubscribeFilters,
    UserProperties,
};

pub(super) fn id(number: u16) -> PacketId {
    PacketId::new(number).unwrap()
}

pub(super) fn user(notation: &str) -> UserProperties<'static> {
    UserProperties::parse(leak(notation)).unwrap()
}

fn message(topic: &'static str, payload: &'static [u8]) -> Publish<'static> {
    Publish {
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic,
        properties: PublishProperties::default(),
        payload,
    }
}

fn at_least_once(topic: &'static str, payload: &'static [u8]) -> Publish<'static> {
    Publish {
        delivery: Delivery::AtLeastOnce(id(0x1234)),
        ..message(topic, payload)
    }
}

fn exactly_once(topic: &'static str, payload: &'static [u8]) -> Publish<'static> {
    Publish {
        delivery: Delivery::ExactlyOnce(id(0xFFFF)),
        ..message(topic, payload)
    }
}

pub(super) fn publish() -> Vec<Legal> {
    use Packet::Publish as P;
    let with = |properties| Publish {
        properties,
        ..message("t", b"p")
    };
    let none = PublishProperties::default();
    let rich = PublishProperties {
        payload_format: Some(PayloadFormat::Utf8),
        message_expiry: Some(0),
        topic_alias: Some(7),
        response_topic: Some("r/s"),
        correlation_data: Some(b"\0\xFF"),
        content_type: Some("text"),
        user_properties: user("26 ** 'k' ** 'v' 26 ** 'a' ** 'b' 26 ** 'k' ** 'v'"),
        subscription_identifiers: SubscriptionIdentifiers::parse(leak("0B01 0BFFFFFF7F")).unwrap(),
    };
    vec![
        // [MQTT-2.2.1-2] [MQTT3-2.3.1-5] No Packet Identifier.
        legal(
            "publish qos 0",
            V3,
            "30 ## ** 'a/b' 'hi!'",
            P(message("a/b", b"hi!")),
        ),
        legal(
            "publish qos 0 v5",
            ONLY_V5,
            "30 ## ** 'a/b' 00 'hi!'",
            P(message("a/b", b"hi!")),
        ),
        legal(
            "publish retain with empty payload",
            V3,
            "31 ## ** 'a'",
            P(Publish {
                retain: true,
                ..message("a", b"")
            }),
        ),
        legal(
            "publish qos 1",
            V3,
            "32 ## ** 'a' 1234 'x'",
            P(at_least_once("a", b"x")),
        ),
        legal(
            "publish qos 1 v5",
            ONLY_V5,
            "32 ## ** 'a' 1234 00 'x'",
            P(at_least_once("a", b"x")),
        ),
        legal(
            "publish qos 1 dup",
            V3,
            "3A ## ** 'a' 1234",
            P(Publish {
                dup: true,
                ..at_least_once("a", b"")
            }),
        ),
        legal(
            "publish qos 2",
            V3,
            "34 ## ** 'a' FFFF 'x'",
            P(exactly_once("a", b"x")),
        ),
        legal(
            "publish qos 2 dup retain v5",
            ONLY_V5,
            "3D ## ** 'a' FFFF 00 'x'",
            P(Publish {
                dup: true,
                retain: true,
                ..exactly_once("a", b"x")
            }),
        ),
        // [MQTT-1.5.4-3] [MQTT3-1.5.3-3] [MQTT-4.7.3-4]
        legal(
            "publish topic with byte order mark",
            V3,
            "30 ## ** '\u{FEFF}a'",
            P(message("\u{FEFF}a", b"")),
        ),
        legal(
            "publish topic with U+2A6D4",
            V3,
            "30 ## ** 'A\u{2A6D4}'",
            P(message("A𪛔", b"")),
        ),
        legal(
            "publish topic with control character",
            V3,
            "30 ## 0003 610162",
            P(message("a\u{1}b", b"")),
        ),
        legal(
            "publish topic of one slash",
            V3,
            "30 ## ** '/'",
            P(message("/", b"")),
        ),
        legal(
            "publish alias without topic",
            ONLY_V5,
            "30 ## 0000 03 23FFFF 'p'",
            P(Publish {
                topic: "",
                ..with(PublishProperties {
                    topic_alias: Some(0xFFFF),
                    ..none
                })
            }),
        ),
        legal(
            "publish all properties",
            ONLY_V5,
            "30 ## ** 't' 38 230007 0200000000 0B01 0BFFFFFF7F 0101 08 ** 'r/s' 09000200FF
             03 ** 'text' 26 ** 'k' ** 'v' 26 ** 'a' ** 'b' 26 ** 'k' ** 'v' 'p'",
            P(with(rich)),
        ),
        // [MQTT-3.3.2-17] [MQTT-3.3.2-18] Others may stand between User Properties.
        legal(
            "publish mixed properties",
            ONLY_V5,
            "30 ## ** 't' 38 26 ** 'k' ** 'v' 0B01 03 ** 'text' 26 ** 'a' ** 'b' 09000200FF
             0200000000 230007 26 ** 'k' ** 'v' 0BFFFFFF7F 0101 08 ** 'r/s' 'p'",
            P(with(rich)),
        )
        .written_as(
            "30 ## ** 't' 38 230007 0200000000 0B01 0BFFFFFF7F 0101 08 ** 'r/s' 09000200FF
             03 ** 'text' 26 ** 'k' ** 'v' 26 ** 'a' ** 'b' 26 ** 'k' ** 'v' 'p'",
        ),
        legal(
            "publish empty property values",
            ONLY_V5,
            "30 ## ** 't' 0D 0100 090000 030000 2600000000 'p'",
            P(with(PublishProperties {
                payload_format: Some(PayloadFormat::Bytes),
                correlation_data: Some(b""),
                content_type: Some(""),
                user_properties: user("26 0000 0000"),
                ..none
            })),
        ),
    ]
}

pub(super) fn subscriptions() -> Vec<Legal> {
    let none = UserProperties::default();
    let subscribe = |filters: &str, subscription_identifier, user_properties| {
        let filters = SubscribeFilters::parse(leak(filters), ProtocolVersion::V5).unwrap();
        let packet_id = id(10);
        Packet::Subscribe(Subscribe {
            packet_id,
            subscription_identifier,
            user_properties,
            filters,
        })
    };
    let unsubscribe = |filters: &str, user_properties| {
        let filters = UnsubscribeFilters::parse(leak(filters)).unwrap();
        Packet::Unsubscribe(Unsubscribe {
            packet_id: id(10),
            user_properties,
            filters,
        })
    };
    vec![
        legal(
            "subscribe",
            V3,
            "82 ## 000A ** 'a/+' 01",
            subscribe("** 'a/+' 01", None, none),
        ),
        legal(
            "subscribe several",
            V3,
            "82 ## 000A ** '#' 00 ** '+/b' 01 ** '/' 02",
            subscribe("** '#' 00 ** '+/b' 01 ** '/' 02", None, none),
        ),
        legal(
            "subscribe sent again in 3.1",
            ONLY_V31,
            "8A ## 000A ** 'a' 00",
            subscribe("** 'a' 00", None, none),
        )
        .written_as("82 ## 000A ** 'a' 00"),
        legal(
            "subscribe v5",
            ONLY_V5,
            "82 ## 000A 00 ** 'a' 02",
            subscribe("** 'a' 02", None, none),
        ),
        // [MQTT-3.8.3-3] No Local, Retain As Published, Retain Handling 0 to 2.
        legal(
            "subscribe options",
            ONLY_V5,
            "82 ## 000A 00 ** 'a' 04 ** 'b' 09 ** 'c' 12 ** 'd' 2E",
            subscribe("** 'a' 04 ** 'b' 09 ** 'c' 12 ** 'd' 2E", None, none),
        ),
        legal(
            "subscribe properties",
            ONLY_V5,
            "82 ## 000A 0C 0BFFFFFF7F 26 ** 'k' ** 'v' ** 'a' 00",
            subscribe("** 'a' 00", Some(268_435_455), user("26 ** 'k' ** 'v'")),
        ),
        // The form of a shared subscription is judged where its SUBACK is made.
        legal(
            "subscribe shared",
            ONLY_V5,
            "82 ## 000A 00 ** '$share/g/a/#' 01",
            subscribe("** '$share/g/a/#' 01", None, none),
        ),
        legal(
            "unsubscribe",
            V3,
            "A2 ## 000A ** 'a/+'",
            unsubscribe("** 'a/+'", none),
        ),
        legal(
            "unsubscribe sent again in 3.1",
            ONLY_V31,
            "AA ## 000A ** 'a'",
            unsubscribe("** 'a'", none),
        )
        .written_as("A2 ## 000A ** 'a'"),
        legal(
            "unsubscribe v5",
            ONLY_V5,
            "A2 ## 000A 07 26 ** 'k' ** 'v' ** 'a' ** '#'",
            unsubscribe("** 'a' ** '#'", user("26 ** 'k' ** 'v'")),
        ),
        // [MQTT-2.2.1-6] [MQTT3-2.3.1-7] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2]
        legal(
            "suback",
            V3,
            "90 ## 000A 00010280",
            Packet::SubAck(SubAck::new(id(10), &[0, 1, 2, 0x80])),
        ),
        // [MQTT-3.9.3-1] [MQTT-3.9.3-2]
        legal(
            "suback v5",
            ONLY_V5,
            "90 ## 000A 0C 1F ** 'no' 26 ** 'k' ** 'v' 01 87",
            Packet::SubAck(SubAck {
                reason_string: Some("no"),
                user_properties: user("26 ** 'k' ** 'v'"),
                ..SubAck::new(id(10), &[1, 0x87])
            }),
        ),
        legal(
            "unsuback",
            V3,
            "B0 02 000A",
            Packet::UnsubAck(SubAck::new(id(10), &[])),
        ),
        // [MQTT-3.11.3-1] [MQTT-3.11.3-2]
        legal(
            "unsuback v5",
            ONLY_V5,
            "B0 ## 000A 05 1F ** 'no' 00 11",
            Packet::UnsubAck(SubAck {
                reason_string: Some("no"),
                ..SubAck::new(id(10), &[0, 0x11])
            }),
        ),
    ]
}
