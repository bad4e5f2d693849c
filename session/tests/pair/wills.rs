//! Wills: kept, sent, held back, discarded (MQTT 5, 3.1.2.5).

use codec::mqtt::{Connect, Packet, PayloadFormat, QoS, ReasonCode, Will};

use crate::node::{Node, V5, V311, connect, lasting};
use crate::world::{NEWS, line, on};

fn with_will<'a>(mut connect: Connect<'a>, topic: &'a str, delay: u32) -> Connect<'a> {
    connect.will = Some(Will {
        topic,
        payload: b"gone",
        qos: QoS::AtLeastOnce,
        retain: true,
        delay,
        properties: Default::default(),
    });
    connect
}

#[test]
fn will_is_sent_when_the_connection_is_lost() {
    // [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT3-3.1.2-8] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
    // [MQTT3-3.1.2-16] [MQTT3-3.1.2-17]
    for version in [V311, V5] {
        for retain in [false, true] {
            let mut node = Node::new();
            let topic = line("will");
            let mut connect = with_will(connect(version, "one"), &topic, 0);
            connect.will.as_mut().unwrap().retain = retain;
            let (at, _) = node.connect(&connect);
            node.close(at, ReasonCode::UNSPECIFIED_ERROR);
            let sent = node.routed.last().unwrap();
            assert_eq!((sent.topic(), sent.payload()), (&*topic, &b"gone"[..]));
            assert_eq!((sent.qos(), sent.retain()), (QoS::AtLeastOnce, retain));
        }
    }
}

#[test]
fn normal_disconnect_discards_the_will() {
    // [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.1.2-12] [MQTT3-3.1.2-10] [MQTT3-3.1.2-12]
    // [MQTT3-3.14.4-3]
    for version in [V311, V5] {
        let mut node = Node::new();
        let topic = line("will");
        let (at, _) = node.connect(&with_will(lasting(version, "one"), &topic, 0));
        node.feed(at, b"\xE0\0");
        assert!(node.conns[at].closed.is_some());
        node.advance(1_000_000_000);
        assert!(node.wills.is_empty());
        // Nor is there one without the Will Flag.
        let (at, _) = node.connect(&lasting(version, "one"));
        node.close(at, ReasonCode::UNSPECIFIED_ERROR);
        assert!(node.wills.is_empty());
    }
}

#[test]
fn any_other_disconnect_leaves_the_will() {
    // [MQTT-3.1.2-8] [MQTT-3.14.4-3]
    for code in [
        0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    ] {
        let mut node = Node::new();
        let topic = line("will");
        let (at, _) = node.connect(&with_will(connect(V5, "one"), &topic, 0));
        node.feed(at, &[0xE0, 1, code]);
        assert_eq!(node.wills, [&*topic], "{code:#x}");
    }
}

#[test]
fn fault_of_the_client_sends_its_will() {
    // [MQTT-3.1.2-8] [MQTT3-3.1.2-8]
    for version in [V311, V5] {
        let mut node = Node::new();
        let topic = line("will");
        let (at, _) = node.connect(&with_will(connect(version, "one"), &topic, 0));
        node.feed(at, b"\xD0\0");
        assert_eq!(node.wills.len(), 1);
    }
}

#[test]
fn delayed_will_waits_for_its_delay_or_the_end_of_the_session() {
    // [MQTT-3.1.2-8]
    for (delay, expiry, due) in [
        (30, 100, 30),
        (300, 100, 100),
        (30, u32::MAX, 30),
        (30, 0, 0),
    ] {
        let mut node = Node::new();
        let topic = line("will");
        let mut connect = with_will(lasting(V5, "one"), &topic, delay);
        connect.properties.session_expiry = expiry;
        let (at, _) = node.connect(&connect);
        node.close(at, ReasonCode::UNSPECIFIED_ERROR);
        if due > 0 {
            node.advance(due * 1000 - 1);
            assert!(node.wills.is_empty());
            node.advance(1);
        }
        assert_eq!(node.wills.len(), 1);
        // [MQTT-3.1.2-10]
        node.advance(1_000_000);
        assert_eq!(node.wills.len(), 1, "a will is sent once");
    }
}

#[test]
fn client_that_is_back_in_time_has_no_will_sent() {
    // [MQTT-3.1.2-26]
    let mut node = Node::new();
    let topic = line("will");
    let (at, _) = node.connect(&with_will(lasting(V5, "one"), &topic, 30));
    node.close(at, ReasonCode::UNSPECIFIED_ERROR);
    node.advance(29_000);
    node.connect(&lasting(V5, "one"));
    node.advance(100_000);
    assert!(node.wills.is_empty());
}

#[test]
fn clean_start_ends_the_session_and_sends_its_delayed_will() {
    // [MQTT-3.1.2-8] [MQTT-3.1.2-4]
    let mut node = Node::new();
    let topic = line("will");
    let (at, _) = node.connect(&with_will(lasting(V5, "one"), &topic, 30));
    node.close(at, ReasonCode::UNSPECIFIED_ERROR);
    node.connect(&connect(V5, "one"));
    assert_eq!(node.wills.len(), 1);
}

#[test]
fn t_ses_9_disconnect_changes_the_expiry_but_not_from_zero() {
    // [MQTT-3.14.2-2]
    let mut node = Node::new();
    let (at, _) = node.connect(&lasting(V5, "one"));
    node.feed(at, b"\xE0\x07\0\x05\x11\0\0\0\0");
    assert!(
        node.conns[at].machine().session().is_none(),
        "it ended at once"
    );
    let at = node.fresh(V5);
    node.feed(at, b"\xE0\x07\0\x05\x11\0\0\0\x01");
    assert_eq!(node.conns[at].closed, Some(ReasonCode::PROTOCOL_ERROR));
    let at = node.fresh(V5);
    node.feed(at, b"\xE0\x07\0\x05\x11\0\0\0\0");
    assert_eq!(node.conns[at].closed, Some(ReasonCode::SUCCESS));
}

#[test]
fn t_ses_9_will_delay_is_lowered() {
    let mut node = Node::new();
    let topic = line("will");
    let mut connect = with_will(lasting(V5, "one"), &topic, u32::MAX);
    connect.properties.session_expiry = u32::MAX;
    let (at, _) = node.connect(&connect);
    node.close(at, ReasonCode::UNSPECIFIED_ERROR);
    node.advance(3_600_000);
    assert_eq!(node.wills.len(), 1);
}

#[test]
fn t_top_7_will_is_judged_at_connect() {
    let news = on(NEWS, "t");
    let cases = [
        ("$SYS/broker", ReasonCode::NOT_AUTHORIZED),
        ("m/nowhere/c/none", ReasonCode::NOT_AUTHORIZED),
        ("hc/plant", ReasonCode::NOT_AUTHORIZED),
        (&news, ReasonCode::NOT_AUTHORIZED),
        ("outside", ReasonCode::TOPIC_NAME_INVALID),
    ];
    for (topic, code) in cases {
        let mut node = Node::new();
        let at = node.dial(V5);
        node.send(
            at,
            &Packet::Connect(with_will(connect(V5, "one"), topic, 0)),
        );
        let Packet::ConnAck(connack) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(connack.reason, code, "{topic}");
    }
}

#[test]
fn will_of_a_user_waits_for_the_right_to_be_known() {
    for (right, closed) in [
        (authcache::Right::BOTH, false),
        (authcache::Right::NONE, true),
    ] {
        let mut node = Node::new();
        let topic = line("will");
        let mut connect = with_will(connect(V5, "one"), &topic, 0);
        connect.username = Some("user");
        let at = node.dial(V5);
        node.send(at, &Packet::Connect(connect));
        assert!(node.conns[at].out.bytes.is_empty());
        node.answer_right(at, right);
        assert_eq!(node.conns[at].closed.is_some(), closed);
    }
}

#[test]
fn will_that_is_too_large_or_not_what_it_says_is_refused() {
    let topic = line("will");
    let large = vec![0; 65_000];
    let mut node = Node::new();
    node.world.limits.max_will_bytes = 64_000;
    node.world.limits.max_connect_packet_size = 1 << 20;
    for (version, code) in [(V311, 3), (V5, 0x95)] {
        let at = node.dial(version);
        let mut connect = with_will(connect(version, "one"), &topic, 0);
        connect.will.as_mut().unwrap().payload = &large;
        node.send(at, &Packet::Connect(connect));
        let Packet::ConnAck(connack) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(connack.reason.get(), code);
    }
    let at = node.dial(V5);
    let mut connect = with_will(connect(V5, "one"), &topic, 0);
    let will = connect.will.as_mut().unwrap();
    will.payload = b"\xFF";
    will.properties.payload_format = Some(PayloadFormat::Utf8);
    node.send(at, &Packet::Connect(connect));
    let Packet::ConnAck(connack) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(connack.reason, ReasonCode::PAYLOAD_FORMAT_INVALID);
}

#[test]
fn will_of_a_removed_channel_is_forgotten() {
    let mut node = Node::new();
    let topic = line("will");
    let (at, _) = node.connect(&with_will(lasting(V5, "one"), &topic, 0));
    let channel = node.world.channel(crate::world::LINE);
    node.conns[at]
        .machine()
        .session()
        .unwrap()
        .channel_removed(channel);
    node.close(at, ReasonCode::UNSPECIFIED_ERROR);
    assert!(node.wills.is_empty());
}
