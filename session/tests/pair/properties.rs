//! What of a message reaches its receiver unaltered (MQTT 5, 3.3.2.3).

use codec::mqtt::{Delivery, Packet, PayloadFormat, QoS, ReasonCode, UserProperties};

use crate::node::{Node, V5, V311, connect, id, publish, publishes, to};
use crate::world::line;

#[test]
fn properties_are_handed_on_unaltered_and_in_order() {
    // [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
    // [MQTT-3.3.2-20]
    let mut block = Vec::new();
    for (name, value) in [("b", "1"), ("a", "2"), ("b", ""), ("", "3"), ("b", "1")] {
        UserProperties::put(&mut block, name, value);
    }
    for delivery in [
        Delivery::AtMostOnce,
        Delivery::AtLeastOnce(id(1)),
        Delivery::ExactlyOnce(id(1)),
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        let topic = line("t");
        node.subscribe(at, &[to(&topic, QoS::ExactlyOnce)]);
        let mut message = publish(&topic, delivery, "grün".as_bytes());
        message.properties.payload_format = Some(PayloadFormat::Utf8);
        message.properties.response_topic = Some("anything/else");
        message.properties.correlation_data = Some(b"\0\xFF");
        message.properties.content_type = Some("text/plain");
        message.properties.user_properties = UserProperties::parse(&block).unwrap();
        message.properties.topic_alias = Some(3);
        message.properties.message_expiry = Some(60);
        node.send(at, &Packet::Publish(message));
        let got = publishes(&node.read(at))[0];
        message.properties.topic_alias = None;
        assert_eq!(got.properties, message.properties);
        assert_eq!(got.payload, message.payload);
    }
}

#[test]
fn messages_that_came_together_keep_each_its_own_properties() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtMostOnce)]);
    let blocks = ["1", "1", "22", "gr\u{FC}n", "1"].map(|value| {
        let mut block = Vec::new();
        UserProperties::put(&mut block, "a", value);
        block
    });
    let mut bytes = Vec::new();
    for block in &blocks {
        let mut message = publish(&topic, Delivery::AtMostOnce, b"x");
        message.properties.user_properties = UserProperties::parse(block).unwrap();
        Packet::Publish(message).encode(V5, &mut bytes);
    }
    node.feed(at, &bytes);
    let got = node.read(at);
    let got = publishes(&got);
    assert_eq!(got.len(), blocks.len());
    for (sent, block) in got.iter().zip(&blocks) {
        let expected = UserProperties::parse(block).unwrap();
        assert_eq!(sent.properties.user_properties, expected);
    }
}

#[test]
fn too_many_user_properties_among_messages_that_came_together_close_the_connection() {
    let mut node = Node::new();
    node.world.limits.max_user_properties = 2;
    let at = node.fresh(V5);
    let topic = line("t");
    let mut bytes = Vec::new();
    for count in [2, 2, 3] {
        let mut block = Vec::new();
        (0..count).for_each(|_| UserProperties::put(&mut block, "a", "1"));
        let mut message = publish(&topic, Delivery::AtMostOnce, b"x");
        message.properties.user_properties = UserProperties::parse(&block).unwrap();
        Packet::Publish(message).encode(V5, &mut bytes);
    }
    node.feed(at, &bytes);
    assert_eq!(node.conns[at].closed, Some(ReasonCode::QUOTA_EXCEEDED));
}

#[test]
fn message_crosses_versions() {
    for (from, to_version) in [(V5, V311), (V311, V5)] {
        let mut node = Node::new();
        let at = node.fresh(to_version);
        let topic = line("t");
        node.subscribe(at, &[to(&topic, QoS::ExactlyOnce)]);
        let (sender, _) = node.connect(&connect(from, "two"));
        for delivery in [Delivery::AtMostOnce, Delivery::ExactlyOnce(id(1))] {
            let mut message = publish(&topic, delivery, b"x");
            if from.is_v5() {
                message.properties.content_type = Some("text/plain");
            }
            node.send(sender, &Packet::Publish(message));
        }
        let got = publishes(&node.read(at));
        assert_eq!(got.len(), 2);
        assert!(
            got.iter()
                .all(|sent| sent.topic == topic && sent.payload == b"x")
        );
    }
}

#[test]
fn nothing_larger_than_the_client_takes_is_sent_to_it() {
    // [MQTT-3.1.2-27] [MQTT-3.1.2-28]
    let mut node = Node::new();
    let mut small = connect(V5, "one");
    small.properties.maximum_packet_size = Some(120);
    let (at, _) = node.connect(&small);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::ExactlyOnce)]);
    let (sender, _) = node.connect(&connect(V5, "two"));
    let mut received = 0;
    for length in 0..60 {
        for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce(id(1))] {
            let payload = vec![b'x'; length];
            node.send(
                sender,
                &Packet::Publish(publish(&topic, delivery, &payload)),
            );
            let written = node.conns[at].out.bytes.len();
            assert!(written <= 120, "{written}");
            for sent in publishes(&node.read(at)) {
                received += 1;
                if let Some(id) = sent.delivery.packet_id() {
                    let ack = codec::mqtt::Ack::new(id, codec::mqtt::ReasonCode::SUCCESS);
                    node.send(at, &Packet::PubAck(ack));
                }
            }
        }
    }
    assert!(received > 20);
    assert_eq!(received + node.conns[at].drops.len(), 120);
    assert_eq!(node.conns[at].machine().session().unwrap().queued(), 0);
}

#[test]
fn longest_message_expiry_of_the_broker_lowers_others() {
    let mut node = Node::new();
    node.world.limits.message_expiry_max = 50;
    let at = node.fresh(V5);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtLeastOnce)]);
    for (asked, told) in [(Some(60), 50), (Some(40), 40), (None, 50)] {
        let mut message = publish(&topic, Delivery::AtLeastOnce(id(1)), b"x");
        message.properties.message_expiry = asked;
        node.send(at, &Packet::Publish(message));
        let got = publishes(&node.read(at));
        assert_eq!(got[0].properties.message_expiry, Some(told));
    }
}
