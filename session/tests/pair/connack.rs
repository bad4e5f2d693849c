//! CONNACK: what the client is told.

use codec::mqtt::{ConnAck, Connect, Packet, QoS, ReasonCode};

use crate::node::{Node, V5, V311, connect, lasting, to};
use crate::world::{DOMAIN, line};

fn connack(node: &mut Node, connect: &Connect<'_>) -> ConnAck<'static> {
    let at = node.dial(connect.version);
    node.send(at, &Packet::Connect(*connect));
    match node.read_one(at) {
        Packet::ConnAck(connack) => connack,
        other => panic!("CONNACK expected: {other:?}"),
    }
}

#[test]
fn session_present_tells_whether_the_session_was_kept() {
    // [MQTT-3.2.2-2] [MQTT-3.2.2-3] [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.4-4]
    // [MQTT3-3.2.2-1] [MQTT3-3.2.2-2] [MQTT3-3.2.2-3] [MQTT3-3.1.2-4] [MQTT3-3.1.2-6]
    // [MQTT3-3.1.4-3] [MQTT-4.1.0-1] [MQTT3-4.1.0-1]
    for version in [V311, V5] {
        let mut node = Node::new();
        let (at, present) = node.connect(&lasting(version, "one"));
        assert!(!present);
        let topic = line("t");
        node.subscribe(at, &[to(&topic, QoS::AtLeastOnce)]);
        node.close(at, ReasonCode::SUCCESS);
        let (at, present) = node.connect(&lasting(version, "one"));
        assert!(present);
        let subscriptions = node.conns[at]
            .machine()
            .session()
            .unwrap()
            .subscriptions()
            .len();
        assert_eq!(subscriptions, 1);
        node.close(at, ReasonCode::SUCCESS);
        let (at, present) = node.connect(&connect(version, "one"));
        assert!(!present);
        assert!(
            node.conns[at]
                .machine()
                .session()
                .unwrap()
                .subscriptions()
                .is_empty()
        );
        node.close(at, ReasonCode::SUCCESS);
        assert!(!node.connect(&lasting(version, "one")).1);
    }
}

#[test]
fn session_ends_with_its_expiry_and_not_before() {
    // [MQTT-3.1.2-25] [MQTT-4.1.0-1] [MQTT-4.1.0-2] [MQTT3-4.1.0-2]
    let mut node = Node::new();
    let (at, _) = node.connect(&lasting(V5, "one"));
    node.advance(50_000);
    assert!(
        node.conns[at].machine().session().is_some(),
        "as long as it is connected"
    );
    node.close(at, ReasonCode::SUCCESS);
    node.advance(99_999);
    let (at, present) = node.connect(&lasting(V5, "one"));
    assert!(present);
    node.close(at, ReasonCode::SUCCESS);
    node.advance(100_000);
    assert!(!node.connect(&lasting(V5, "one")).1);
}

#[test]
fn t_ses_7_longer_expiry_is_lowered_and_told() {
    let mut node = Node::new();
    let mut connect = connect(V5, "one");
    connect.properties.session_expiry = u32::MAX;
    let told = connack(&mut node, &connect).properties.session_expiry;
    assert_eq!(told, Some(node.world.limits.session_expiry_max));
    connect.properties.session_expiry = 60;
    assert_eq!(connack(&mut node, &connect).properties.session_expiry, None);
}

#[test]
fn limits_are_announced_and_nothing_is_declared_missing() {
    // [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13] [MQTT-7.0.0-2]
    // [MQTT3-7.0.0-2]
    let mut node = Node::new();
    let told = connack(&mut node, &connect(V5, "one")).properties;
    let limits = &node.world.limits;
    assert_eq!(told.receive_maximum, Some(limits.receive_maximum));
    assert_eq!(told.maximum_packet_size, Some(limits.max_packet_size));
    assert_eq!(told.topic_alias_maximum, Some(limits.topic_alias_max));
    assert_eq!((told.maximum_qos, told.retain_available), (None, None));
    assert_eq!(told.wildcard_subscription_available, None);
    assert_eq!(told.subscription_identifier_available, None);
    assert_eq!(told.shared_subscription_available, None);
}

#[test]
fn server_keep_alive_is_told_only_where_it_differs() {
    // [MQTT-3.2.2-22]
    let mut node = Node::new();
    for (asked, told) in [
        (0, Some(3600)),
        (10, None),
        (3600, None),
        (3601, Some(3600)),
    ] {
        let mut connect = connect(V5, "one");
        connect.keep_alive = asked;
        assert_eq!(
            connack(&mut node, &connect).properties.server_keep_alive,
            told
        );
    }
}

#[test]
fn silence_of_one_and_a_half_keep_alives_ends_the_connection() {
    // [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
    for version in [V311, V5] {
        let mut node = Node::new();
        let mut connect = connect(version, "one");
        connect.keep_alive = 10;
        let (at, _) = node.connect(&connect);
        node.advance(14_900);
        assert_eq!(node.conns[at].closed, None);
        node.feed(at, b"\xC0\0");
        node.read(at);
        node.advance(14_999);
        assert_eq!(node.conns[at].closed, None);
        // Bytes that are no packet are no sign of life. (Threats T-EXH-2.)
        node.feed(at, b"\x30\x7F");
        node.advance(1_501);
        assert_eq!(node.conns[at].closed, Some(ReasonCode::KEEP_ALIVE_TIMEOUT));
    }
}

#[test]
fn response_information_is_given_to_whom_asks() {
    // [MQTT-3.1.2-31]
    let mut node = Node::new();
    assert_eq!(
        connack(&mut node, &connect(V5, "one"))
            .properties
            .response_information,
        None
    );
    let mut asking = connect(V5, "one");
    asking.properties.request_response_information = true;
    let told = connack(&mut node, &asking).properties.response_information;
    assert_eq!(told, Some(&*format!("m/{DOMAIN}/c/")));
    node.world.open();
    let told = connack(&mut node, &asking).properties.response_information;
    assert_eq!(told, Some("response/one/"));
    asking.client_id = "+/#";
    assert_eq!(
        connack(&mut node, &asking).properties.response_information,
        None
    );
}

#[test]
fn connack_stays_within_what_the_client_takes() {
    // [MQTT-3.1.2-27] [MQTT-3.2.2-19] [MQTT-3.2.2-20]
    for maximum in 1..100 {
        let mut node = Node::new();
        let mut connect = connect(V5, "one");
        connect.properties.maximum_packet_size = Some(maximum);
        connect.properties.request_response_information = true;
        for password in [&b"secret"[..], b"guess"] {
            connect.password = Some(password);
            let at = node.dial(V5);
            node.send(at, &Packet::Connect(connect));
            let written = node.conns[at].out.bytes.len();
            assert!(written <= maximum as usize, "{written} bytes of {maximum}");
            match node.read(at)[..] {
                [] => assert!(maximum < 5),
                [Packet::ConnAck(told)] => {
                    let accepted = told.reason == ReasonCode::SUCCESS;
                    assert_eq!(accepted, node.conns[at].closed.is_none());
                    assert!(!accepted || told.properties.receive_maximum.is_some());
                }
                ref other => panic!("{other:?}"),
            }
        }
    }
}
