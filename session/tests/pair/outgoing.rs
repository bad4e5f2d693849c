//! Queues, shared deliveries and dropped bytes on the way out.

use std::sync::Arc;

use codec::mqtt::{Ack, Delivery, Packet, QoS, ReasonCode};
use session::{
    Address, Delivered, DropReason, Message, MessageParts, QueuePolicy, Receiving, SharedOrigin,
};

use crate::node::{Node, V5, id, lasting, publish, publishes, to};
use crate::world::{LINE, line};

fn message(node: &Node, qos: QoS, payload: &[u8]) -> Arc<Message> {
    let topic = line("t");
    Arc::new(Message::new(MessageParts {
        address: Address {
            channel: node.world.channel(LINE),
            wild: None,
            subtopic_at: line("").len() as u16 + 1,
        },
        qos,
        retain: false,
        topic: &[&topic],
        properties: &[],
        payload,
        expires_at: None,
        origin: node.world.rules(0).origin,
        publisher: node.world.dev,
    }))
}

fn plain(qos: QoS) -> Receiving<'static> {
    Receiving {
        qos,
        retain: false,
        identifiers: &[],
        prefix: None,
        shared: None,
    }
}

fn shared(qos: QoS, group: u64) -> Receiving<'static> {
    Receiving {
        shared: Some(SharedOrigin(group)),
        ..plain(qos)
    }
}

fn parked(node: &mut Node) -> usize {
    let (at, _) = node.connect(&lasting(V5, "one"));
    node.close(at, ReasonCode::SUCCESS);
    at
}

#[test]
fn full_queue_drops_the_oldest_or_the_newest_and_says_so() {
    for (policy, kept) in [
        (QueuePolicy::DropOldest, [2, 3]),
        (QueuePolicy::DropNewest, [0, 1]),
    ] {
        let mut node = Node::new();
        node.world.limits.session_queue_messages = 2;
        node.world.limits.queue_policy = policy;
        let at = parked(&mut node);
        let delivered: Vec<Delivered> = (0..4u8)
            .map(|number| {
                let message = message(&node, QoS::AtLeastOnce, &[number]);
                node.deliver(at, &message, &plain(QoS::AtLeastOnce))
            })
            .collect();
        let over = match policy {
            QueuePolicy::DropOldest => Delivered::QueuedDroppingOldest,
            QueuePolicy::DropNewest => Delivered::Dropped(DropReason::QueueFull),
        };
        assert_eq!(
            delivered,
            [Delivered::Queued, Delivered::Queued, over, over]
        );
        let (at, _) = node.connect(&lasting(V5, "one"));
        let got: Vec<u8> = publishes(&node.read(at))
            .iter()
            .map(|sent| sent.payload[0])
            .collect();
        assert_eq!(got, kept);
    }
}

#[test]
fn message_that_never_fits_the_queue_drops_nothing_else() {
    let mut node = Node::new();
    node.world.limits.session_queue_bytes = 2000;
    let at = parked(&mut node);
    let small = message(&node, QoS::AtLeastOnce, b"x");
    assert_eq!(
        node.deliver(at, &small, &plain(QoS::AtLeastOnce)),
        Delivered::Queued
    );
    let large = message(&node, QoS::AtLeastOnce, &[0; 3000]);
    let dropped = Delivered::Dropped(DropReason::QueueFull);
    assert_eq!(node.deliver(at, &large, &plain(QoS::AtLeastOnce)), dropped);
    let (at, _) = node.connect(&lasting(V5, "one"));
    assert_eq!(publishes(&node.read(at)).len(), 1);
    // A client that is there takes it all the same.
    let (at, _) = node.connect(&lasting(V5, "another"));
    assert_eq!(
        node.deliver(at, &large, &plain(QoS::AtLeastOnce)),
        Delivered::Sent
    );
}

#[test]
fn qos_0_does_not_wait_for_a_client_that_is_away() {
    let mut node = Node::new();
    let at = parked(&mut node);
    let message = message(&node, QoS::ExactlyOnce, b"x");
    let dropped = Delivered::Dropped(DropReason::Offline);
    assert_eq!(node.deliver(at, &message, &plain(QoS::AtMostOnce)), dropped);
}

#[test]
fn t_top_12_member_that_leaves_gives_back_all_but_its_qos_2_exchanges() {
    // [MQTT-4.8.2-4] [MQTT-4.8.2-5]
    let mut node = Node::new();
    let mut connect = lasting(V5, "one");
    connect.properties.receive_maximum = 2;
    let (at, _) = node.connect(&connect);
    for (qos, payload) in [
        (QoS::AtLeastOnce, b"1"),
        (QoS::ExactlyOnce, b"2"),
        (QoS::AtLeastOnce, b"3"),
        (QoS::ExactlyOnce, b"4"),
    ] {
        let message = message(&node, QoS::ExactlyOnce, payload);
        node.deliver(at, &message, &shared(qos, 5));
    }
    let own = message(&node, QoS::AtLeastOnce, b"5");
    node.deliver(at, &own, &plain(QoS::AtLeastOnce));
    assert_eq!(publishes(&node.read(at)).len(), 2);
    node.close(at, ReasonCode::UNSPECIFIED_ERROR);
    let mut machine = node.conns[at].machine();
    assert!(
        machine.take_shared(|_| false).is_empty(),
        "nobody else is there"
    );
    let taken = machine.take_shared(|origin| origin == SharedOrigin(5));
    machine.invariants();
    let payloads: Vec<&[u8]> = taken.iter().map(|(_, message)| message.payload()).collect();
    assert_eq!(payloads, [b"1", b"3", b"4"]);
    let (at, _) = node.connect(&lasting(V5, "one"));
    let left = publishes(&node.read(at));
    let payloads: Vec<&[u8]> = left.iter().map(|sent| sent.payload).collect();
    assert_eq!(payloads, [b"2", b"5"]);
}

#[test]
fn identifiers_that_stay_in_flight_are_skipped_when_the_counter_comes_round() {
    // [MQTT-2.2.1-4] [MQTT3-2.3.1-4]
    let mut node = Node::new();
    let at = node.fresh(V5);
    // Never acknowledged: two at the start, side by side, and one later.
    let stuck = [1, 2, 500];
    let mut seen = Vec::new();
    for number in 1..=66_100u32 {
        let message = message(&node, QoS::AtLeastOnce, &[]);
        node.deliver(at, &message, &plain(QoS::AtLeastOnce));
        let packets = node.read(at);
        let Delivery::AtLeastOnce(id) = publishes(&packets)[0].delivery else {
            panic!("{packets:?}");
        };
        if number <= 500 && stuck.contains(&id.get()) {
            seen.push(id.get());
            continue;
        }
        assert!(!stuck.contains(&id.get()), "message {number} has {id:?}");
        node.send(at, &Packet::PubAck(Ack::new(id, ReasonCode::SUCCESS)));
    }
    assert_eq!(seen, stuck);
    assert_eq!(node.conns[at].closed, None);
}

#[test]
fn publish_that_was_taken_back_frees_its_identifier_and_the_window() {
    let mut node = Node::new();
    let mut connect = lasting(V5, "one");
    connect.properties.receive_maximum = 1;
    let (at, _) = node.connect(&connect);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtLeastOnce)]);
    for payload in [b"1", b"2"] {
        node.send(
            at,
            &Packet::Publish(publish(&topic, Delivery::AtLeastOnce(id(1)), payload)),
        );
    }
    let sent = publishes(&node.read(at))[0].delivery.packet_id().unwrap();
    node.conns[at].machine().abandoned(sent);
    node.pump(at);
    assert_eq!(publishes(&node.read(at))[0].payload, b"2");
    // The acknowledgement of the lost one, if the client has it after all.
    node.send(at, &Packet::PubAck(Ack::new(sent, ReasonCode::SUCCESS)));
    assert_eq!(node.conns[at].closed, None);
}

#[test]
fn aliases_are_bound_anew_when_bytes_were_lost() {
    let mut node = Node::new();
    let mut connect = lasting(V5, "one");
    connect.properties.topic_alias_maximum = 5;
    let (at, _) = node.connect(&connect);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtMostOnce)]);
    let mut topics = Vec::new();
    for round in 0..3 {
        node.send(
            at,
            &Packet::Publish(publish(&topic, Delivery::AtMostOnce, b"x")),
        );
        topics.push(publishes(&node.read(at))[0].topic.len());
        if round == 1 {
            node.conns[at].machine().outgoing_lost();
        }
    }
    assert_eq!(topics, [topic.len(), 0, topic.len()]);
}
