//! PUBLISH from the client: answers, places, denials (MQTT 5, 3.3).

use authcache::Right;
use codec::mqtt::{Delivery, Packet, PayloadFormat, QoS, ReasonCode};
use session::{DropReason, Refused};

use crate::node::{Node, V5, V31, V311, id, publish, publishes, to};
use crate::world::{DOMAIN, LINE, NEWS, SECRET, line, on};

const EACH: [Delivery; 3] = [
    Delivery::AtMostOnce,
    Delivery::AtLeastOnce(codec_id(5)),
    Delivery::ExactlyOnce(codec_id(5)),
];

const fn codec_id(number: u16) -> codec::mqtt::PacketId {
    match codec::mqtt::PacketId::new(number) {
        Some(id) => id,
        None => panic!("not zero"),
    }
}

/// The Reason Code of the answer, `None` without one.
fn answer(node: &mut Node, at: usize) -> Option<ReasonCode> {
    let mut got = node.read(at);
    assert!(got.len() <= 1, "{got:?}");
    match got.pop()? {
        Packet::PubAck(ack) | Packet::PubRec(ack) => Some(ack.reason),
        Packet::Disconnect(told) => Some(told.reason),
        other => panic!("{other:?}"),
    }
}

#[test]
fn publish_is_answered_according_to_its_qos() {
    // [MQTT-3.3.4-1] [MQTT3-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT3-4.3.2-2]
    // [MQTT3-4.3.3-2] [MQTT-2.2.1-5] [MQTT3-2.3.1-6]
    for version in [V31, V311, V5] {
        for delivery in EACH {
            let mut node = Node::new();
            let at = node.fresh(version);
            node.send(at, &Packet::Publish(publish(&line("t"), delivery, b"x")));
            let got = node.read(at);
            match (delivery, &got[..]) {
                (Delivery::AtMostOnce, []) => {}
                (Delivery::AtLeastOnce(id), [Packet::PubAck(ack)]) => assert_eq!(ack.packet_id, id),
                (Delivery::ExactlyOnce(id), [Packet::PubRec(ack)]) => assert_eq!(ack.packet_id, id),
                (_, other) => panic!("{other:?}"),
            }
            assert_eq!(node.routed.len(), 1);
            assert_eq!(node.routed[0].qos(), delivery.qos());
        }
    }
}

#[test]
fn answer_of_the_router_reaches_the_publisher() {
    // [MQTT-3.4.2-1] [MQTT-3.5.2-1]
    for code in [
        ReasonCode::NO_MATCHING_SUBSCRIBERS,
        ReasonCode::QUOTA_EXCEEDED,
    ] {
        for delivery in &EACH[1..] {
            let mut node = Node::new();
            node.code = code;
            let at = node.fresh(V5);
            node.send(at, &Packet::Publish(publish(&line("t"), *delivery, b"x")));
            assert_eq!(answer(&mut node, at), Some(code));
        }
    }
}

#[test]
fn denied_publish_is_answered_and_routed_nowhere() {
    // [MQTT3-3.3.5-2]
    let topics = [
        on(SECRET, "t"),
        on(NEWS, "t"),
        "$SYS/x".into(),
        "$share/g/x".into(),
        "m/nowhere/c/none".into(),
        format!("m/{DOMAIN}/c/none"),
    ];
    for topic in &topics {
        for version in [V31, V311, V5] {
            for delivery in EACH {
                let mut node = Node::new();
                let at = node.fresh(version);
                node.send(at, &Packet::Publish(publish(topic, delivery, b"x")));
                let expected = match (version.is_v5(), delivery) {
                    (_, Delivery::AtMostOnce) => None,
                    (false, _) => Some(ReasonCode::SUCCESS),
                    (true, _) => Some(ReasonCode::NOT_AUTHORIZED),
                };
                assert_eq!(answer(&mut node, at), expected, "{topic} {version:?}");
                assert_eq!(node.refused, [Refused::Denied]);
                assert!(node.routed.is_empty());
                assert_eq!(node.conns[at].closed, None);
            }
        }
    }
}

#[test]
fn refused_qos_2_is_over_where_the_client_was_told() {
    let mut node = Node::new();
    let topic = on(SECRET, "t");
    for (version, code) in [(V311, 0), (V5, 0x92)] {
        let at = node.fresh(version);
        node.send(at, &Packet::Publish(publish(&topic, EACH[2], b"x")));
        node.read(at);
        node.feed(at, b"\x62\x02\0\x05");
        let Packet::PubComp(ack) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(ack.reason.get(), code);
    }
}

#[test]
fn close_on_denied_closes_whom_it_cannot_tell() {
    // [MQTT3-3.3.5-2]
    let topic = on(SECRET, "t");
    for (version, delivery, closes) in [
        (V311, EACH[0], true),
        (V311, EACH[1], true),
        (V5, EACH[0], true),
        (V5, EACH[1], false),
    ] {
        let mut node = Node::new();
        node.world.limits.close_on_denied = true;
        let at = node.fresh(version);
        node.send(at, &Packet::Publish(publish(&topic, delivery, b"x")));
        assert_eq!(node.conns[at].closed.is_some(), closes);
    }
}

#[test]
fn topic_over_a_limit_is_told_or_closes() {
    let deep = line(&"a/".repeat(130));
    let long = line(&"a".repeat(4096));
    for topic in [&deep, &long] {
        for (version, delivery, closes) in [
            (V311, EACH[0], true),
            (V311, EACH[2], true),
            (V5, EACH[0], true),
            (V5, EACH[1], false),
        ] {
            let mut node = Node::new();
            let at = node.fresh(version);
            node.send(at, &Packet::Publish(publish(topic, delivery, b"x")));
            assert_eq!(node.conns[at].closed.is_some(), closes);
            let expected = version.is_v5().then_some(ReasonCode::TOPIC_NAME_INVALID);
            assert_eq!(answer(&mut node, at), expected);
        }
    }
}

#[test]
fn topic_outside_the_grammar_is_refused_and_the_connection_lives() {
    for topic in [
        "not-a-topic",
        "m/plant/c/",
        "m/plant/x/line",
        "hc/",
        "m/plant/c/line//a",
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        node.send(at, &Packet::Publish(publish(topic, EACH[1], b"x")));
        assert_eq!(answer(&mut node, at), Some(ReasonCode::TOPIC_NAME_INVALID));
        assert_eq!(node.refused, [Refused::Topic]);
    }
    let mut node = Node::new();
    node.world.open();
    let at = node.fresh(V5);
    node.send(at, &Packet::Publish(publish("not-a-topic", EACH[1], b"x")));
    assert_eq!(answer(&mut node, at), Some(ReasonCode::SUCCESS));
    assert_eq!(node.routed[0].topic(), "not-a-topic");
}

#[test]
fn channel_is_the_same_by_route_by_id_and_behind_a_slash() {
    let (by_id, by_route) = (line("a/b"), "m/plant/c/line/a/b".to_owned());
    let mixed = format!("m/plant/c/{LINE}/a/b");
    for topic in [
        &by_id,
        &by_route,
        &mixed,
        &format!("/{by_id}"),
        &format!("/{by_route}"),
    ] {
        for delivery in EACH {
            let mut node = Node::new();
            let at = node.fresh(V311);
            node.send(at, &Packet::Publish(publish(topic, delivery, b"x")));
            assert_eq!(node.routed[0].topic(), by_id);
            assert_eq!(node.routed[0].subtopic(), "a/b");
        }
    }
}

#[test]
fn topic_that_ids_make_too_long_is_refused() {
    let mut node = Node::new();
    node.world.limits.topic.bytes = 65_535;
    let at = node.fresh(V5);
    let topic = format!("m/plant/c/line/{}", "a".repeat(65_500));
    node.send(at, &Packet::Publish(publish(&topic, EACH[1], b"x")));
    assert_eq!(answer(&mut node, at), Some(ReasonCode::TOPIC_NAME_INVALID));
}

#[test]
fn health_message_is_answered_and_counted_for_the_own_domain_only() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    for topic in ["hc/plant".to_owned(), format!("/hc/{DOMAIN}")] {
        node.send(at, &Packet::Publish(publish(&topic, EACH[1], b"")));
        assert_eq!(answer(&mut node, at), Some(ReasonCode::SUCCESS));
    }
    node.send(at, &Packet::Publish(publish("hc/elsewhere", EACH[1], b"")));
    assert_eq!(answer(&mut node, at), Some(ReasonCode::NOT_AUTHORIZED));
    assert_eq!((node.health, node.routed.len()), (2, 0));
}

#[test]
fn t_frm_8_payload_that_is_not_the_text_it_says_is_refused() {
    for delivery in EACH {
        let mut node = Node::new();
        let at = node.fresh(V5);
        let topic = line("t");
        let mut message = publish(&topic, delivery, b"\xC3\x28");
        message.properties.payload_format = Some(PayloadFormat::Utf8);
        node.send(at, &Packet::Publish(message));
        assert_eq!(
            answer(&mut node, at),
            Some(ReasonCode::PAYLOAD_FORMAT_INVALID)
        );
        let closes = delivery == Delivery::AtMostOnce;
        assert_eq!(node.conns[at].closed.is_some(), closes);
        assert!(node.routed.is_empty());
    }
}

#[test]
fn retained_payload_over_its_limit_is_refused_or_not_stored() {
    for (version, delivery, refused) in [
        (V311, EACH[0], false),
        (V311, EACH[1], false),
        (V5, EACH[0], false),
        (V5, EACH[2], true),
    ] {
        let mut node = Node::new();
        node.world.limits.max_retained_payload = 10;
        let at = node.fresh(version);
        let topic = line("t");
        let mut message = publish(&topic, delivery, &[0; 11]);
        message.retain = true;
        node.send(at, &Packet::Publish(message));
        assert_eq!(node.routed.is_empty(), refused);
        assert!(node.routed.iter().all(|message| !message.retain()));
        let quota = Some(ReasonCode::QUOTA_EXCEEDED);
        assert_eq!(answer(&mut node, at) == quota, refused);
    }
}

#[test]
fn retain_is_handed_to_the_router_as_it_came() {
    // [MQTT-3.3.1-8] [MQTT3-3.3.1-12]
    for delivery in EACH {
        for retain in [false, true] {
            let mut node = Node::new();
            let at = node.fresh(V311);
            let topic = line("t");
            let mut message = publish(&topic, delivery, b"");
            message.retain = retain;
            node.send(at, &Packet::Publish(message));
            assert_eq!(node.routed[0].retain(), retain);
        }
    }
}

#[test]
fn dup_is_not_handed_on() {
    // [MQTT-3.3.1-3] [MQTT3-3.3.1-3]
    let mut node = Node::new();
    let at = node.fresh(V311);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::ExactlyOnce)]);
    for delivery in &EACH[1..] {
        let mut message = publish(&topic, *delivery, b"x");
        message.dup = true;
        node.send(at, &Packet::Publish(message));
    }
    let got = publishes(&node.read(at));
    assert_eq!(got.len(), 2);
    assert!(got.iter().all(|publish| !publish.dup));
}

#[test]
fn subscription_identifier_from_a_client_is_a_protocol_error() {
    // [MQTT-3.3.4-6]
    for flags in [0x30u8, 0x32] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        let topic = line("t");
        let mut body = Vec::new();
        body.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        body.extend_from_slice(topic.as_bytes());
        if flags != 0x30 {
            body.extend_from_slice(&[0, 1]);
        }
        body.extend_from_slice(&[2, 0x0B, 1]);
        let mut packet = vec![flags, body.len() as u8];
        packet.extend(body);
        node.feed(at, &packet);
        assert_eq!(answer(&mut node, at), Some(ReasonCode::PROTOCOL_ERROR));
    }
}

#[test]
fn unknown_right_of_a_user_is_asked_for_and_nothing_is_lost() {
    for (right, routed) in [(Right::PUBLISH, 2), (Right::NONE, 0)] {
        for delivery in EACH {
            let mut node = Node::new();
            let mut connect = crate::node::connect(V5, "one");
            connect.username = Some("user");
            let (at, _) = node.connect(&connect);
            let topic = line("t");
            let message = publish(&topic, delivery, b"x");
            node.send(at, &Packet::Publish(message));
            node.send(
                at,
                &Packet::Publish(publish(&topic, Delivery::AtMostOnce, b"y")),
            );
            assert!(node.routed.is_empty() && node.conns[at].out.bytes.is_empty());
            node.answer_right(at, right);
            assert_eq!(node.routed.len(), routed);
            assert_eq!(node.conns[at].closed, None);
        }
    }
}

#[test]
fn order_of_one_publisher_is_kept() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT3-4.6.0-5] [MQTT3-4.6.0-6]
    let mut node = Node::new();
    let at = node.fresh(V5);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtLeastOnce)]);
    let mut expected = Vec::new();
    for number in 0..200u16 {
        let payload = number.to_be_bytes();
        let message = publish(&topic, Delivery::AtLeastOnce(id(number + 1)), &payload);
        node.send(at, &Packet::Publish(message));
        expected.push(payload.to_vec());
    }
    let mut got = Vec::new();
    loop {
        let batch = publishes(&node.read(at));
        if batch.is_empty() {
            break;
        }
        for publish in batch {
            got.push(publish.payload.to_vec());
            let id = publish.delivery.packet_id().unwrap();
            let ack = codec::mqtt::Ack::new(id, ReasonCode::SUCCESS);
            node.send(at, &Packet::PubAck(ack));
        }
    }
    assert_eq!(got, expected);
}

#[test]
fn message_expiry_of_zero_is_over_before_it_leaves() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtMostOnce)]);
    let mut message = publish(&topic, Delivery::AtMostOnce, b"x");
    message.properties.message_expiry = Some(0);
    node.send(at, &Packet::Publish(message));
    assert_eq!(node.conns[at].drops, [DropReason::Expired]);
}
