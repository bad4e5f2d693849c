//! Topic Aliases, both ways (MQTT 5, 3.3.2.3.4).

use codec::mqtt::{Delivery, Packet, QoS, ReasonCode};

use crate::node::{Node, V5, connect, id, lasting, publish, publishes, to};
use crate::world::{SECRET, line, on};

fn send(node: &mut Node, at: usize, topic: &str, alias: u16, delivery: Delivery) {
    let mut message = publish(topic, delivery, b"x");
    message.properties.topic_alias = Some(alias);
    node.send(at, &Packet::Publish(message));
}

const QOS0: Delivery = Delivery::AtMostOnce;

#[test]
fn every_alias_up_to_the_maximum_works_and_may_be_bound_anew() {
    // [MQTT-3.3.2-12]
    let mut node = Node::new();
    let at = node.fresh(V5);
    for alias in 1..=32 {
        send(&mut node, at, &line(&alias.to_string()), alias, QOS0);
    }
    send(&mut node, at, &line("new"), 7, QOS0);
    for (alias, level) in [(1, "1"), (32, "32"), (7, "new")] {
        send(&mut node, at, "", alias, QOS0);
        assert_eq!(node.routed.last().unwrap().topic(), line(level));
    }
    assert_eq!(node.routed.len(), 36);
}

#[test]
fn t_top_10_alias_zero_above_the_maximum_or_unknown_closes() {
    // [MQTT-3.3.2-8]
    let topic = line("t");
    for (topic, alias, code) in [
        (&*topic, 33, ReasonCode::TOPIC_ALIAS_INVALID),
        ("", 33, ReasonCode::TOPIC_ALIAS_INVALID),
        ("", 1, ReasonCode::PROTOCOL_ERROR),
        (&*topic, 0, ReasonCode::TOPIC_ALIAS_INVALID),
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        send(&mut node, at, topic, alias, QOS0);
        let Packet::Disconnect(told) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(told.reason, code);
    }
}

#[test]
fn aliases_end_with_the_connection() {
    // [MQTT-3.3.2-7]
    let mut node = Node::new();
    let (at, _) = node.connect(&lasting(V5, "one"));
    send(&mut node, at, &line("t"), 1, QOS0);
    node.close(at, ReasonCode::SUCCESS);
    let (at, _) = node.connect(&lasting(V5, "one"));
    send(&mut node, at, "", 1, QOS0);
    assert_eq!(node.conns[at].closed, Some(ReasonCode::PROTOCOL_ERROR));
}

#[test]
fn t_top_10_denied_publish_binds_nothing() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    send(&mut node, at, &line("t"), 1, QOS0);
    send(&mut node, at, &on(SECRET, "t"), 1, QOS0);
    send(&mut node, at, "", 1, QOS0);
    assert_eq!(node.routed.last().unwrap().topic(), line("t"));
    send(&mut node, at, &on(SECRET, "t"), 2, QOS0);
    send(&mut node, at, "", 2, QOS0);
    assert_eq!(node.conns[at].closed, Some(ReasonCode::PROTOCOL_ERROR));
}

#[test]
fn publish_refused_for_its_content_binds_its_alias() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    let topic = line("t");
    let mut message = publish(&topic, Delivery::AtLeastOnce(id(1)), b"\xFF");
    message.properties.topic_alias = Some(1);
    message.properties.payload_format = Some(codec::mqtt::PayloadFormat::Utf8);
    node.send(at, &Packet::Publish(message));
    send(&mut node, at, "", 1, QOS0);
    assert_eq!(node.routed.len(), 1);
}

#[test]
fn repeated_qos_2_publish_binds_its_alias_on_the_new_connection() {
    let mut node = Node::new();
    let (at, _) = node.connect(&lasting(V5, "one"));
    send(&mut node, at, &line("t"), 1, Delivery::ExactlyOnce(id(9)));
    node.close(at, ReasonCode::SUCCESS);
    let (at, _) = node.connect(&lasting(V5, "one"));
    send(&mut node, at, &line("t"), 1, Delivery::ExactlyOnce(id(9)));
    send(&mut node, at, "", 1, QOS0);
    assert_eq!(node.routed.len(), 2, "once, and the one behind it");
    assert_eq!(node.conns[at].closed, None);
}

#[test]
fn aliases_towards_the_client_stay_within_its_maximum() {
    // [MQTT-3.3.2-11] [MQTT-3.1.2-29] [MQTT-3.1.2-30]
    for maximum in [0, 1, 3, 65_535] {
        let mut node = Node::new();
        let mut connect = connect(V5, "one");
        connect.properties.topic_alias_maximum = maximum;
        let (at, _) = node.connect(&connect);
        let filter = line("#");
        node.subscribe(at, &[to(&filter, QoS::AtLeastOnce)]);
        let topics: Vec<String> = (0..40)
            .map(|number| line(&(number % 20).to_string()))
            .collect();
        for topic in &topics {
            node.send(at, &Packet::Publish(publish(topic, QOS0, b"x")));
        }
        let used = maximum.min(node.world.limits.topic_alias_out_max);
        let mut bound = vec![None; usize::from(used) + 1];
        for (publish, expected) in publishes(&node.read(at)).iter().zip(&topics) {
            let topic = match (publish.topic, publish.properties.topic_alias) {
                ("", Some(alias)) => bound[usize::from(alias)].expect("bound before"),
                (topic, Some(alias)) => {
                    bound[usize::from(alias)] = Some(topic);
                    topic
                }
                (topic, None) => topic,
            };
            assert_eq!(topic, expected);
        }
        assert_eq!(bound.iter().flatten().count(), usize::from(used));
    }
}
