//! QoS 1 and 2, both ways, in all orders (MQTT 5, 4.3).

use codec::mqtt::{Ack, Delivery, Packet, QoS, ReasonCode};

use crate::node::{Node, V5, V31, V311, id, lasting, publish, publishes, to};
use crate::world::line;

fn ack(number: u16, code: u8) -> Ack<'static> {
    Ack::new(id(number), ReasonCode::new(code))
}

/// A connection with one message of this QoS sent to it, and the message's identifier.
fn in_flight(node: &mut Node, version: codec::mqtt::ProtocolVersion, qos: QoS) -> (usize, u16) {
    let (at, _) = node.connect(&lasting(version, "one"));
    let topic = line("t");
    node.subscribe(at, &[to(&topic, qos)]);
    send_to(node, qos);
    let got = publishes(&node.read(at));
    let [sent] = got[..] else {
        panic!("one PUBLISH expected: {got:?}")
    };
    assert_eq!((sent.delivery.qos(), sent.dup), (qos, false));
    (at, sent.delivery.packet_id().unwrap().get())
}

/// Another client publishes.
fn send_to(node: &mut Node, qos: QoS) {
    let at = node.fresh2();
    let topic = line("t");
    node.send(
        at,
        &Packet::Publish(publish(&topic, Delivery::new(qos, id(1)), b"x")),
    );
}

impl Node {
    fn fresh2(&mut self) -> usize {
        let mut connect = crate::node::connect(V5, "two");
        connect.username = Some("other");
        self.connect(&connect).0
    }
}

#[test]
fn replayed_qos_2_publish_is_acknowledged_but_not_delivered_again() {
    // [MQTT-4.3.3-10] [MQTT-4.3.3-8] [MQTT-4.3.3-11] [MQTT-4.3.3-12] [MQTT3-4.3.3-2]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let (mut at, _) = node.connect(&lasting(version, "one"));
        let topic = line("t");
        let mut message = publish(&topic, Delivery::ExactlyOnce(id(7)), b"x");
        for round in 0..4 {
            node.send(at, &Packet::Publish(message));
            let Packet::PubRec(rec) = node.read_one(at) else {
                panic!()
            };
            assert_eq!((rec.packet_id, rec.reason), (id(7), ReasonCode::SUCCESS));
            message.dup = true;
            if round == 2 {
                node.close(at, ReasonCode::SUCCESS);
                at = node.connect(&lasting(version, "one")).0;
            }
        }
        assert_eq!(node.routed.len(), 1);
        node.send(at, &Packet::PubRel(ack(7, 0)));
        let Packet::PubComp(comp) = node.read_one(at) else {
            panic!()
        };
        assert_eq!((comp.packet_id, comp.reason), (id(7), ReasonCode::SUCCESS));
        message.dup = false;
        node.send(at, &Packet::Publish(message));
        assert_eq!(node.routed.len(), 2, "the identifier is new again");
    }
}

#[test]
fn t_ses_1_qos_2_without_pubrel_ends_at_the_limit() {
    for (version, most) in [(V311, 5), (V5, 3)] {
        let mut node = Node::new();
        node.world.limits.receive_maximum = 3;
        node.world.limits.max_unreleased_v311 = 5;
        let at = node.fresh(version);
        let topic = line("t");
        // All in one chunk: check and insert are one step.
        let mut bytes = Vec::new();
        for number in 1..=most + 1 {
            let message = publish(&topic, Delivery::ExactlyOnce(id(number)), b"x");
            Packet::Publish(message).encode(version, &mut bytes);
        }
        node.feed(at, &bytes);
        assert_eq!(node.routed.len(), usize::from(most));
        assert_eq!(
            node.conns[at].closed,
            Some(ReasonCode::RECEIVE_MAXIMUM_EXCEEDED)
        );
    }
}

#[test]
fn t_ses_3_acknowledgements_of_unknown_identifiers() {
    // [MQTT-3.6.2-1] [MQTT-3.7.2-1]
    let mut node = Node::new();
    let at = node.fresh(V5);
    node.send(at, &Packet::PubRel(ack(5, 0)));
    let Packet::PubComp(comp) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(comp.reason, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    node.send(at, &Packet::PubRec(ack(5, 0)));
    let Packet::PubRel(rel) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(rel.reason, ReasonCode::PACKET_IDENTIFIER_NOT_FOUND);
    for packet in [
        Packet::PubAck(ack(5, 0)),
        Packet::PubComp(ack(5, 0)),
        Packet::PubRec(ack(5, 0x80)),
    ] {
        node.send(at, &packet);
        assert!(node.read(at).is_empty());
    }
    assert_eq!(node.conns[at].closed, None);
    // The identifiers are of the version before MQTT 5 all the same.
    let at = node.fresh(V311);
    node.send(at, &Packet::PubRel(ack(5, 0)));
    node.send(at, &Packet::PubRec(ack(5, 0)));
    assert!(matches!(
        node.read(at)[..],
        [Packet::PubComp(_), Packet::PubRel(_)]
    ));
}

#[test]
fn t_ses_3_acknowledgement_of_the_wrong_kind_closes() {
    for version in [V311, V5] {
        for (qos, packet) in [
            (QoS::AtLeastOnce, Packet::PubRec(ack(1, 0))),
            (QoS::AtLeastOnce, Packet::PubComp(ack(1, 0))),
            (QoS::ExactlyOnce, Packet::PubAck(ack(1, 0))),
            (QoS::ExactlyOnce, Packet::PubComp(ack(1, 0))),
        ] {
            let mut node = Node::new();
            let (at, number) = in_flight(&mut node, version, qos);
            assert_eq!(number, 1);
            node.send(at, &packet);
            assert_eq!(
                node.conns[at].closed,
                Some(ReasonCode::PROTOCOL_ERROR),
                "{packet:?}"
            );
        }
    }
}

#[test]
fn qos_1_is_unacknowledged_until_puback() {
    // [MQTT-4.3.2-1] [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT-4.3.2-5] [MQTT-2.2.1-4]
    // [MQTT3-2.3.1-4] [MQTT3-4.3.2-1]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let (at, number) = in_flight(&mut node, version, QoS::AtLeastOnce);
        assert!(number != 0);
        assert_eq!(node.conns[at].machine().session().unwrap().queued(), 1);
        send_to(&mut node, QoS::AtLeastOnce);
        let second = publishes(&node.read(at))[0].delivery.packet_id().unwrap();
        assert_ne!(second.get(), number, "the first one is in use");
        node.send(at, &Packet::PubAck(ack(number, 0)));
        assert_eq!(node.conns[at].machine().session().unwrap().queued(), 1);
    }
}

#[test]
fn identifiers_are_never_zero_and_never_in_use_when_they_wrap() {
    // [MQTT-2.2.1-4] [MQTT3-2.3.1-4] [MQTT-4.3.2-5] [MQTT-4.3.3-12]
    let mut node = Node::new();
    let (at, first) = in_flight(&mut node, V5, QoS::AtLeastOnce);
    let from = node.fresh2();
    let topic = line("t");
    for _ in 0..66_000u32 {
        let message = publish(&topic, Delivery::AtLeastOnce(id(1)), b"x");
        node.send(from, &Packet::Publish(message));
        node.conns[from].out.clear();
        let sent = publishes(&node.read(at))[0].delivery.packet_id().unwrap();
        assert_ne!(sent.get(), first);
        node.send(at, &Packet::PubAck(Ack::new(sent, ReasonCode::SUCCESS)));
        node.routed.clear();
    }
}

#[test]
fn qos_2_goes_from_publish_over_pubrel_to_pubcomp() {
    // [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
    // [MQTT-4.3.3-6] [MQTT-4.3.3-12] [MQTT3-4.3.3-1]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let (at, number) = in_flight(&mut node, version, QoS::ExactlyOnce);
        for _ in 0..2 {
            // A repeated PUBREC is answered again, with PUBREL and never with PUBLISH.
            node.send(at, &Packet::PubRec(ack(number, 0)));
            let Packet::PubRel(rel) = node.read_one(at) else {
                panic!()
            };
            assert_eq!(
                (rel.packet_id.get(), rel.reason),
                (number, ReasonCode::SUCCESS)
            );
            assert_eq!(node.conns[at].machine().session().unwrap().queued(), 1);
        }
        node.send(at, &Packet::PubComp(ack(number, 0)));
        assert_eq!(node.conns[at].machine().session().unwrap().queued(), 0);
    }
}

#[test]
fn refused_delivery_is_over_and_not_sent_again() {
    // [MQTT-4.3.3-9] [MQTT-4.4.0-2] [MQTT-4.8.2-6]
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut node = Node::new();
        let (at, number) = in_flight(&mut node, V5, qos);
        match qos {
            QoS::AtLeastOnce => node.send(at, &Packet::PubAck(ack(number, 0x83))),
            _ => node.send(at, &Packet::PubRec(ack(number, 0x97))),
        }
        assert!(node.read(at).is_empty());
        assert_eq!(node.conns[at].machine().session().unwrap().queued(), 0);
        node.close(at, ReasonCode::SUCCESS);
        let (at, _) = node.connect(&lasting(V5, "one"));
        assert!(node.read(at).is_empty());
    }
}

#[test]
fn qos_0_is_sent_without_identifier_and_dup() {
    // [MQTT-4.3.1-1] [MQTT3-4.3.1-1]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let at = node.fresh(version);
        let topic = line("t");
        node.subscribe(at, &[to(&topic, QoS::ExactlyOnce)]);
        send_to(&mut node, QoS::AtMostOnce);
        let got = publishes(&node.read(at));
        assert_eq!((got[0].delivery, got[0].dup), (Delivery::AtMostOnce, false));
    }
}

#[test]
fn quota_of_qos_2_begins_anew_with_each_connection() {
    // [MQTT-4.9.0-1]
    let mut node = Node::new();
    node.world.limits.receive_maximum = 2;
    let topic = line("t");
    for round in 0..3u16 {
        let (at, _) = node.connect(&lasting(V5, "one"));
        for number in 1..=2 {
            let id = id(round * 2 + number);
            node.send(
                at,
                &Packet::Publish(publish(&topic, Delivery::ExactlyOnce(id), b"x")),
            );
        }
        assert_eq!(node.conns[at].closed, None);
        node.close(at, ReasonCode::UNSPECIFIED_ERROR);
    }
    assert_eq!(node.routed.len(), 6);
}
