//! Faults of the client, and what it is told (MQTT 5, 4.13).

use codec::mqtt::{Delivery, Packet, QoS, ReasonCode, UserProperties};

use crate::node::{Node, V5, V31, V311, id, publish, subscribe, to};
use crate::world::line;

#[test]
fn malformed_packet_or_protocol_error_closes() {
    // [MQTT-4.13.1-1] [MQTT-4.13.2-1] [MQTT-3.14.4-2] [MQTT3-4.8.0-1] [MQTT3-3.14.1-1]
    let cases: [(&[u8], u8); 16] = [
        (b"\x00\0", 0x81),
        (b"\xC1\0", 0x81),
        (b"\x36\x05\0\x01a\0\x01", 0x81),
        (b"\x60\x02\0\x01", 0x81),
        (b"\x80\x06\0\x01\0\x01a\0", 0x81),
        (b"\xA0\x05\0\x01\0\x01a", 0x81),
        (b"\xE1\0", 0x81),
        (b"\xFF\0", 0x81),
        (b"\x30\xFF\xFF\xFF\xFF", 0x81),
        (b"\xC0\x80\0", 0x81),
        (b"\x38\x05\0\x01a\0\0", 0x82),
        (b"\x20\x03\0\0\0", 0x82),
        (b"\x90\x04\0\x01\0\0", 0x82),
        (b"\xB0\x04\0\x01\0\0", 0x82),
        (b"\xD0\0", 0x82),
        (b"\xF0\0", 0x82),
    ];
    for (bytes, code) in cases {
        for version in [V31, V311, V5] {
            let mut node = Node::new();
            let at = node.fresh(version);
            node.feed(at, bytes);
            assert!(node.conns[at].closed.is_some(), "{version:?} {bytes:x?}");
            match (version.is_v5(), &node.read(at)[..]) {
                (true, [Packet::Disconnect(told)]) => {
                    assert_eq!(told.reason.get(), code, "{bytes:x?}");
                    assert!(told.reason_string.is_some());
                    // [MQTT-3.14.2-2]
                    assert_eq!(told.session_expiry, None);
                }
                (false, []) => {}
                (_, other) => panic!("{version:?} {bytes:x?}: {other:?}"),
            }
        }
    }
}

#[test]
fn nothing_is_said_or_done_after_disconnect() {
    // [MQTT-3.14.4-1]
    let mut node = Node::new();
    let at = node.fresh(V5);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtMostOnce)]);
    let conn = &mut node.conns[at];
    conn.machine()
        .fail(ReasonCode::SERVER_SHUTTING_DOWN, &mut Vec::new());
    // The shard has not closed it yet.
    node.feed(at, b"\xC0\0");
    let message = publish(&topic, Delivery::AtMostOnce, b"late");
    let from = node.connect(&crate::node::connect(V5, "two")).0;
    node.send(from, &Packet::Publish(message));
    let mut more = Vec::new();
    node.conns[at]
        .machine()
        .fail(ReasonCode::UNSPECIFIED_ERROR, &mut more);
    assert!(node.conns[at].out.bytes.is_empty() && more.is_empty());
}

#[test]
fn disconnect_carries_listed_codes_only() {
    // [MQTT-3.14.2-1]
    for (code, sent) in [
        (ReasonCode::SERVER_UNAVAILABLE, ReasonCode::SERVER_BUSY),
        (
            ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            ReasonCode::NOT_AUTHORIZED,
        ),
        (
            ReasonCode::UNSUPPORTED_PROTOCOL_VERSION,
            ReasonCode::PROTOCOL_ERROR,
        ),
        (
            ReasonCode::ADMINISTRATIVE_ACTION,
            ReasonCode::ADMINISTRATIVE_ACTION,
        ),
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        node.fail(at, code);
        let Packet::Disconnect(told) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(told.reason, sent);
    }
}

#[test]
fn client_that_says_what_only_a_server_may_is_at_fault() {
    // [MQTT-3.14.2-1]
    for code in [0x87, 0x89, 0x8B, 0x8D, 0x8E, 0x8F, 0x9D, 0xA2] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        node.feed(at, &[0xE0, 1, code]);
        assert_eq!(node.conns[at].closed, Some(ReasonCode::PROTOCOL_ERROR));
    }
}

#[test]
fn packet_over_the_limit_is_refused_from_its_header() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    node.feed(at, b"\x32\xFF\xFF\x7F");
    let Packet::Disconnect(told) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(told.reason, ReasonCode::PACKET_TOO_LARGE);
}

#[test]
fn reasons_that_do_not_fit_the_client_are_left_out() {
    // [MQTT-3.1.2-27] [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.4.2-2] [MQTT-3.4.2-3]
    // [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-2]
    // [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
    let outside = publish("outside", Delivery::AtLeastOnce(id(1)), b"");
    let outside2 = publish("outside", Delivery::ExactlyOnce(id(2)), b"");
    let filters = [to("outside", QoS::AtMostOnce); 8];
    let requests = [
        crate::node::bytes_of(&Packet::Publish(outside), V5),
        crate::node::bytes_of(&Packet::Publish(outside2), V5),
        b"\x50\x02\0\x07".to_vec(),
        b"\x62\x02\0\x07".to_vec(),
        subscribe(V5, 3, None, &filters),
        b"\xA2\x08\0\x04\0\0\x03a/b".to_vec(),
        b"\xE0\x01\x8E".to_vec(),
    ];
    for request in requests {
        for maximum in [20, 25, 40, 10_000] {
            let mut node = Node::new();
            let mut connect = crate::node::connect(V5, "one");
            connect.properties.maximum_packet_size = Some(maximum);
            let (at, _) = node.connect(&connect);
            node.feed(at, &request);
            let written = node.conns[at].out.bytes.len();
            assert!(written <= maximum as usize);
            let got = node.read(at);
            assert_eq!(got.len(), 1, "{request:x?} {maximum}");
            let explained = match &got[0] {
                Packet::PubAck(ack) | Packet::PubRec(ack) => ack.reason_string.is_some(),
                Packet::PubRel(ack) | Packet::PubComp(ack) => ack.reason_string.is_some(),
                Packet::SubAck(ack) => ack.reason_string.is_some(),
                Packet::Disconnect(told) => told.reason_string.is_some(),
                Packet::UnsubAck(_) => continue,
                other => panic!("{other:?}"),
            };
            assert_eq!(explained, maximum == 10_000, "{:?}", got[0]);
        }
    }
}

#[test]
fn answer_that_cannot_be_made_small_enough_is_not_sent() {
    // [MQTT-3.1.2-27]
    let mut node = Node::new();
    let mut connect = crate::node::connect(V5, "one");
    connect.properties.maximum_packet_size = Some(20);
    let (at, _) = node.connect(&connect);
    let topic = line("t");
    node.feed(
        at,
        &subscribe(V5, 3, None, &[to(&topic, QoS::AtMostOnce); 20]),
    );
    assert!(node.conns[at].out.bytes.is_empty());
    assert_eq!(node.conns[at].closed, None);
}

#[test]
fn whoever_wants_no_reasons_gets_none_outside_disconnect() {
    // [MQTT-3.1.2-32]
    let mut node = Node::new();
    let mut connect = crate::node::connect(V5, "one");
    connect.properties.request_problem_information = false;
    let (at, _) = node.connect(&connect);
    let outside = publish("outside", Delivery::AtLeastOnce(id(1)), b"");
    node.send(at, &Packet::Publish(outside));
    let Packet::PubAck(ack) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(
        (ack.reason, ack.reason_string),
        (ReasonCode::TOPIC_NAME_INVALID, None)
    );
    node.feed(
        at,
        &subscribe(V5, 3, None, &[to("outside", QoS::AtMostOnce)]),
    );
    let Packet::SubAck(suback) = node.read_one(at) else {
        panic!()
    };
    assert_eq!((suback.codes, suback.reason_string), (&[0x8F][..], None));
}

#[test]
fn t_frm_11_user_properties_are_bounded_in_every_packet() {
    let mut block = Vec::new();
    for _ in 0..65 {
        UserProperties::put(&mut block, "a", "b");
    }
    let many = UserProperties::parse(&block).unwrap();
    let mut node = Node::new();
    let at = node.dial(V5);
    let mut connect = crate::node::connect(V5, "one");
    connect.properties.user_properties = many;
    node.send(at, &Packet::Connect(connect));
    let Packet::ConnAck(connack) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(connack.reason, ReasonCode::QUOTA_EXCEEDED);
    let topic = line("t");
    let mut message = publish(&topic, Delivery::AtMostOnce, b"");
    message.properties.user_properties = many;
    let mut ack = codec::mqtt::Ack::new(id(1), ReasonCode::SUCCESS);
    ack.user_properties = many;
    let goodbye = codec::mqtt::Disconnect {
        user_properties: many,
        ..Default::default()
    };
    for packet in [
        Packet::Publish(message),
        Packet::PubAck(ack),
        Packet::PubRec(ack),
        Packet::PubRel(ack),
        Packet::Disconnect(goodbye),
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        node.send(at, &packet);
        let Packet::Disconnect(told) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(told.reason, ReasonCode::QUOTA_EXCEEDED);
    }
}

#[test]
fn pingreq_is_answered() {
    // [MQTT-3.12.4-1] [MQTT3-3.12.4-1]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let at = node.fresh(version);
        node.feed(at, b"\xC0\0");
        assert_eq!(node.read_one(at), Packet::PingResp);
    }
}

#[test]
fn failure_of_the_broker_closes_and_keeps_the_session() {
    // [MQTT3-4.8.0-2]
    for version in [V311, V5] {
        let mut node = Node::new();
        let (at, _) = node.connect(&crate::node::lasting(version, "one"));
        node.fail(at, ReasonCode::UNSPECIFIED_ERROR);
        assert!(node.conns[at].closed.is_some());
        assert!(node.connect(&crate::node::lasting(version, "one")).1);
    }
}
