//! What is done again on the next connection (MQTT 5, 4.4), within its window (4.9).

use codec::mqtt::{Ack, Connect, Delivery, Packet, ProtocolVersion, QoS, ReasonCode};
use session::DropReason;

use crate::node::{Node, V5, V31, V311, id, lasting, publish, publishes, to};
use crate::world::{LINE, line};

/// A parked session of `one` with a subscription, and another client that publishes to it.
struct Pair {
    node: Node,
    from: usize,
    at: usize,
}

impl Pair {
    fn new(connect: &Connect<'_>, qos: QoS) -> Pair {
        let mut node = Node::new();
        let (at, _) = node.connect(connect);
        let filter = line("#");
        node.subscribe(at, &[to(&filter, qos)]);
        let mut other = crate::node::connect(V5, "two");
        other.username = Some("other");
        let (from, _) = node.connect(&other);
        Pair { node, from, at }
    }

    fn publish(&mut self, count: u8, qos: QoS) {
        for number in 0..count {
            let topic = line("t");
            let payload = [number];
            let message = publish(&topic, Delivery::new(qos, id(1)), &payload);
            self.node.send(self.from, &Packet::Publish(message));
            self.node.send(self.from, &Packet::PubRel(ack(1)));
        }
        self.node.read(self.from);
    }

    fn cut(&mut self) {
        self.node.close(self.at, ReasonCode::UNSPECIFIED_ERROR);
    }

    fn back(&mut self, connect: &Connect<'_>) -> Vec<Packet<'static>> {
        let (at, present) = self.node.connect(connect);
        assert!(present || connect.version == V31);
        self.at = at;
        self.read()
    }

    fn read(&mut self) -> Vec<Packet<'static>> {
        self.node.read(self.at)
    }

    fn send(&mut self, packet: Packet<'_>) -> Vec<Packet<'static>> {
        self.node.send(self.at, &packet);
        self.read()
    }
}

fn ack(number: u16) -> Ack<'static> {
    Ack::new(id(number), ReasonCode::SUCCESS)
}

fn window(version: ProtocolVersion, receive_maximum: u16) -> Connect<'static> {
    let mut connect = lasting(version, "one");
    connect.properties.receive_maximum = receive_maximum;
    connect
}

/// DUP, identifier and payload of each PUBLISH.
fn sent(packets: &[Packet<'static>]) -> Vec<(bool, u16, u8)> {
    publishes(packets)
        .iter()
        .map(|sent| {
            (
                sent.dup,
                sent.delivery.packet_id().unwrap().get(),
                sent.payload[0],
            )
        })
        .collect()
}

#[test]
fn unacknowledged_publishes_are_sent_again_in_order_with_dup() {
    // [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT3-3.3.1-1] [MQTT3-4.4.0-1]
    for version in [V31, V311, V5] {
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut pair = Pair::new(&lasting(version, "one"), qos);
            pair.publish(3, qos);
            let first = sent(&pair.read());
            assert_eq!(first, [(false, 1, 0), (false, 2, 1), (false, 3, 2)]);
            // Only then: nothing is repeated on a connection that lives.
            pair.node.advance(50_000);
            assert!(pair.read().is_empty());
            for _ in 0..3 {
                pair.cut();
                let again = sent(&pair.back(&lasting(version, "one")));
                assert_eq!(again, [(true, 1, 0), (true, 2, 1), (true, 3, 2)]);
            }
        }
    }
}

#[test]
fn messages_for_a_client_that_is_away_wait_for_it() {
    // [MQTT3-3.1.2-5] [MQTT-3.1.2-5] [MQTT3-3.1.2-4]
    for version in [V31, V311, V5] {
        let mut pair = Pair::new(&lasting(version, "one"), QoS::ExactlyOnce);
        pair.cut();
        pair.publish(1, QoS::AtMostOnce);
        pair.publish(2, QoS::AtLeastOnce);
        pair.publish(1, QoS::ExactlyOnce);
        let got = publishes(&pair.back(&lasting(version, "one")));
        let qos: Vec<QoS> = got.iter().map(|sent| sent.delivery.qos()).collect();
        assert_eq!(qos, [QoS::AtLeastOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        assert!(
            got.iter().all(|sent| !sent.dup),
            "they were never sent before"
        );
    }
}

#[test]
fn at_most_receive_maximum_publishes_are_outstanding() {
    // [MQTT-3.3.4-9] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3] [MQTT-3.3.4-10]
    for maximum in [1, 2, 5] {
        let connect = window(V5, maximum);
        let mut pair = Pair::new(&connect, QoS::ExactlyOnce);
        pair.publish(4, QoS::AtLeastOnce);
        pair.publish(4, QoS::ExactlyOnce);
        let mut outstanding: Vec<(QoS, u16)> = Vec::new();
        let mut seen = 0;
        let mut got = pair.read();
        loop {
            for sent in publishes(&got) {
                let number = sent.delivery.packet_id().unwrap().get();
                outstanding.push((sent.delivery.qos(), number));
                seen += 1;
            }
            assert!(outstanding.len() <= usize::from(maximum));
            // Everything else goes on at quota 0.
            assert_eq!(pair.send(Packet::PingReq), [Packet::PingResp]);
            if outstanding.is_empty() {
                break;
            }
            let (qos, number) = outstanding.remove(0);
            got = match qos {
                QoS::ExactlyOnce => {
                    let got = pair.send(Packet::PubRec(ack(number)));
                    assert!(
                        matches!(got[..], [Packet::PubRel(_)]),
                        "no PUBLISH before PUBCOMP"
                    );
                    pair.send(Packet::PubComp(ack(number)))
                }
                _ => pair.send(Packet::PubAck(ack(number))),
            };
        }
        assert_eq!(seen, 8);
    }
}

#[test]
fn smaller_receive_maximum_after_a_resume_holds_back_publishes_only() {
    // [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.9.0-3]
    let mut pair = Pair::new(&window(V5, 10), QoS::ExactlyOnce);
    pair.publish(5, QoS::ExactlyOnce);
    pair.read();
    for number in [2, 4] {
        pair.send(Packet::PubRec(ack(number)));
    }
    pair.cut();
    let got = pair.back(&window(V5, 1));
    let rels: Vec<u16> = got
        .iter()
        .map(|packet| match packet {
            Packet::PubRel(rel) => rel.packet_id.get(),
            other => panic!("only PUBRELs fit: {other:?}"),
        })
        .collect();
    assert_eq!(rels, [2, 4]);
    assert!(pair.send(Packet::PubComp(ack(2))).is_empty());
    let mut got = pair.send(Packet::PubComp(ack(4)));
    for (number, payload) in [(1, 0), (3, 2), (5, 4)] {
        assert_eq!(sent(&got), [(true, number, payload)]);
        pair.send(Packet::PubRec(ack(number)));
        got = pair.send(Packet::PubComp(ack(number)));
    }
    assert!(got.is_empty());
}

#[test]
fn new_messages_wait_behind_those_that_are_sent_again() {
    // [MQTT-4.6.0-1] [MQTT-4.6.0-6]
    let mut pair = Pair::new(&window(V5, 3), QoS::AtLeastOnce);
    pair.publish(5, QoS::AtLeastOnce);
    pair.read();
    pair.cut();
    let got = pair.back(&window(V5, 1));
    assert_eq!(sent(&got), [(true, 1, 0)]);
    pair.publish(1, QoS::AtLeastOnce);
    assert!(pair.read().is_empty());
    let mut order = Vec::new();
    let mut got = pair.send(Packet::PubAck(ack(1)));
    while let Some(&(_, number, payload)) = sent(&got).first() {
        order.push(payload);
        got = pair.send(Packet::PubAck(ack(number)));
    }
    assert_eq!(order, [1, 2, 3, 4, 0]);
}

#[test]
fn acknowledgements_of_an_earlier_connection_are_taken_on_the_next() {
    // [MQTT-4.3.2-3] [MQTT-4.3.3-3] [MQTT-4.3.3-13]
    let mut pair = Pair::new(&window(V5, 1), QoS::ExactlyOnce);
    pair.publish(3, QoS::ExactlyOnce);
    pair.cut();
    pair.back(&window(V5, 10));
    pair.cut();
    // Two wait for the window; the client acknowledges one that was not sent again yet.
    let got = pair.back(&window(V5, 1));
    assert_eq!(sent(&got), [(true, 1, 0)]);
    let got = pair.send(Packet::PubRec(ack(2)));
    assert!(matches!(got[..], [Packet::PubRel(_)]));
    assert!(pair.send(Packet::PubComp(ack(2))).is_empty());
    pair.send(Packet::PubRec(ack(1)));
    let got = pair.send(Packet::PubComp(ack(1)));
    assert_eq!(sent(&got), [(true, 3, 2)]);
}

#[test]
fn expiry_ends_what_waits_and_not_what_was_sent() {
    // [MQTT-3.3.2-5] [MQTT-4.3.3-7] [MQTT-4.3.3-13] [MQTT-3.3.2-6]
    let mut pair = Pair::new(&window(V5, 1), QoS::ExactlyOnce);
    for _ in 0..2 {
        let topic = line("t");
        let mut message = publish(&topic, Delivery::ExactlyOnce(id(1)), b"x");
        message.properties.message_expiry = Some(10);
        pair.node.send(pair.from, &Packet::Publish(message));
        pair.node.send(pair.from, &Packet::PubRel(ack(1)));
    }
    let got = publishes(&pair.read());
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].properties.message_expiry, Some(10));
    pair.cut();
    pair.node.advance(20_000);
    let got = pair.back(&window(V5, 1));
    assert_eq!(sent(&got), [(true, 1, b'x')], "begun, so it goes on");
    pair.send(Packet::PubRec(ack(1)));
    assert!(
        pair.send(Packet::PubComp(ack(1))).is_empty(),
        "the other one expired"
    );
    assert_eq!(pair.node.conns[pair.at].drops, [DropReason::Expired]);
}

#[test]
fn message_expiry_counts_down_while_a_message_waits() {
    // [MQTT-3.3.2-6]
    let mut pair = Pair::new(&window(V5, 10), QoS::AtLeastOnce);
    pair.cut();
    let topic = line("t");
    let mut message = publish(&topic, Delivery::AtLeastOnce(id(1)), b"x");
    message.properties.message_expiry = Some(100);
    pair.node.send(pair.from, &Packet::Publish(message));
    pair.node.advance(30_000);
    let got = publishes(&pair.back(&window(V5, 10)));
    assert_eq!(got[0].properties.message_expiry, Some(70));
}

#[test]
fn t_ses_8_right_that_went_away_takes_what_waits_with_it() {
    let mut pair = Pair::new(&window(V5, 1), QoS::AtLeastOnce);
    pair.publish(3, QoS::AtLeastOnce);
    pair.read();
    pair.cut();
    let change = authcache::Change::RightSet {
        principal: authcache::EntityId::from_u128(10),
        channel: LINE,
        right: authcache::Right::PUBLISH,
    };
    pair.node.world.writer.apply(&change);
    assert!(pair.back(&window(V5, 1)).is_empty());
    assert_eq!(pair.node.conns[pair.at].drops, [DropReason::Revoked; 3]);
}

#[test]
fn channel_that_is_gone_takes_what_is_in_flight_with_it() {
    let mut pair = Pair::new(&window(V5, 1), QoS::AtLeastOnce);
    pair.publish(2, QoS::AtLeastOnce);
    pair.read();
    let channel = pair.node.world.channel(LINE);
    let mut machine = pair.node.conns[pair.at].machine();
    let gone = machine.session().unwrap().channel_removed(channel);
    assert_eq!(gone.len(), 1);
    machine.invariants();
    pair.cut();
    assert!(pair.back(&window(V5, 1)).is_empty());
}

#[test]
fn message_too_large_for_the_new_connection_is_as_if_delivered() {
    // [MQTT-3.1.2-27] [MQTT-3.1.2-28]
    let mut pair = Pair::new(&window(V5, 10), QoS::AtLeastOnce);
    let topic = line("t");
    for payload in [&[7; 200][..], &[8; 10]] {
        let message = publish(&topic, Delivery::AtLeastOnce(id(1)), payload);
        pair.node.send(pair.from, &Packet::Publish(message));
    }
    pair.read();
    pair.cut();
    let mut connect = window(V5, 10);
    connect.properties.maximum_packet_size = Some(150);
    let got = pair.back(&connect);
    assert_eq!(sent(&got), [(true, 2, 8)]);
    assert_eq!(pair.node.conns[pair.at].drops, [DropReason::TooLarge]);
}

#[test]
fn session_may_change_its_version() {
    let mut pair = Pair::new(&lasting(V5, "one"), QoS::ExactlyOnce);
    pair.publish(1, QoS::ExactlyOnce);
    pair.read();
    pair.cut();
    let got = pair.back(&lasting(V311, "one"));
    assert_eq!(sent(&got), [(true, 1, 0)]);
}
