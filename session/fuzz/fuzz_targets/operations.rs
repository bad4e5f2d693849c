//! A life of one session, read from bytes; `tests/pair/fuzzed.rs` replays the corpus with it.

use codec::mqtt::{Ack, Auth, Delivery, Packet, PacketId, ProtocolVersion, QoS, ReasonCode};

use crate::node::{Node, V5, V31, V311, lasting, publish, subscribe, to};
use crate::world::{NEWS, SECRET, line, on};

/// Carries out the operations that `input` stands for: one byte chooses, what follows says how.
/// The node checks `invariants()` after each.
///
/// # Panics
/// A promise of the machine is broken.
pub(crate) fn check(input: &[u8]) {
    let mut bytes = input.iter().copied();
    let mut node = Node::new();
    node.world.limits.session_queue_messages = 5;
    let mut at = connect(&mut node, bytes.next().unwrap_or(0), 3);
    while let Some(operation) = bytes.next() {
        let how = bytes.next().unwrap_or(0);
        let id = PacketId::new(u16::from(how >> 5) + 1).expect("not zero");
        let qos = QoS::from_bits(how & 3).unwrap_or(QoS::AtMostOnce);
        let topic = match how >> 2 & 7 {
            0 => on(SECRET, "t"),
            1 => on(NEWS, "t"),
            2 => "hc/plant".to_owned(),
            3 => "outside".to_owned(),
            4 => "m/plant/c/line/t".to_owned(),
            _ => line("t"),
        };
        match operation % 9 {
            0 => {
                let raw: Vec<u8> = bytes.by_ref().take(usize::from(how)).collect();
                node.feed(at, &raw);
            }
            1 => {
                let mut message = publish(&topic, Delivery::new(qos, id), b"x");
                if node.conns[at].version.is_v5() {
                    message.properties.topic_alias = (operation > 128).then_some(id.get());
                    message.properties.message_expiry = (operation > 64).then_some(10);
                }
                node.send(at, &Packet::Publish(message));
            }
            2 => {
                let version = node.conns[at].version;
                node.feed(at, &subscribe(version, 9, None, &[to(&topic, qos)]));
            }
            3 => {
                let code = if how & 4 == 0 { 0 } else { 0x80 };
                let ack = Ack::new(id, ReasonCode::new(code));
                let done = Ack::new(id, ReasonCode::SUCCESS);
                let packet = match how & 3 {
                    0 => Packet::PubAck(ack),
                    1 => Packet::PubRec(ack),
                    2 => Packet::PubRel(done),
                    _ => Packet::PubComp(done),
                };
                node.send(at, &packet);
            }
            4 => {
                node.close(at, ReasonCode::UNSPECIFIED_ERROR);
                at = connect(&mut node, how, u16::from(how >> 4) + 1);
            }
            5 => node.advance(u64::from(how) * 1000),
            6 => {
                let dropped = |_: &_| how & 1 == 0;
                let mut machine = node.conns[at].machine();
                machine.take_shared(|origin| dropped(&origin));
                machine.abandoned(id);
                machine.outgoing_lost();
                machine.invariants();
                node.pump(at);
            }
            7 => {
                let auth = Auth {
                    reason: ReasonCode::RE_AUTHENTICATE,
                    ..Auth::default()
                };
                node.send(
                    at,
                    &Packet::Auth(Auth {
                        method: Some("PLAIN"),
                        ..auth
                    }),
                );
            }
            _ => {
                let channel = node.world.channel(crate::world::LINE);
                if let Some(session) = node.conns[at].machine().session() {
                    session.channel_removed(channel);
                }
            }
        }
        if node.conns[at].closed.is_some() {
            at = connect(&mut node, how, u16::from(how >> 4) + 1);
        }
        node.conns[at].machine().invariants();
        // What was sent can be read by whoever it was sent to.
        node.read(at);
    }
}

fn connect(node: &mut Node, how: u8, receive_maximum: u16) -> usize {
    let version: ProtocolVersion = match how % 3 {
        0 => V5,
        1 => V311,
        _ => V31,
    };
    let mut connect = lasting(version, "one");
    connect.clean_start = how & 0x80 != 0;
    if version.is_v5() {
        connect.properties.receive_maximum = receive_maximum;
        connect.properties.topic_alias_maximum = u16::from(how & 4);
        connect.properties.maximum_packet_size = (how & 8 != 0).then_some(100);
    }
    node.connect(&connect).0
}
