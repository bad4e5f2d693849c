//! Bytes in any pieces, valid or not: never a panic, and always the same steps.

use codec::mqtt::{
    Ack, Auth, Delivery, Disconnect, Packet, PacketId, PayloadFormat, ProtocolVersion, QoS,
    ReasonCode,
};
use proptest::prelude::*;

use crate::node::{Node, V5, V31, V311, bytes_of, connect, lasting, publish, subscribe, to};
use crate::world::{SECRET, line, on};

fn version() -> impl Strategy<Value = ProtocolVersion> {
    prop_oneof![Just(V31), Just(V311), Just(V5)]
}

fn topic() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just(line("t")),
        2 => Just("m/plant/c/line/t".to_owned()),
        1 => Just(on(SECRET, "t")),
        1 => Just("hc/plant".to_owned()),
        1 => Just("outside".to_owned()),
        1 => Just(String::new()),
    ]
}

/// One packet as bytes, from a few identifiers so that exchanges meet.
fn packet(version: ProtocolVersion) -> impl Strategy<Value = Vec<u8>> {
    let id = (1..4u16).prop_map(|number| PacketId::new(number).unwrap());
    let publish = (
        topic(),
        0..3u8,
        id.clone(),
        any::<bool>(),
        0..4u16,
        any::<bool>(),
    )
        .prop_map(move |(topic, qos, id, retain, alias, text)| {
            let delivery = Delivery::new(QoS::from_bits(qos).unwrap(), id);
            let mut message = publish(&topic, delivery, b"payload");
            message.retain = retain;
            if version.is_v5() {
                message.properties.topic_alias = (alias > 0).then_some(alias);
                message.properties.payload_format = text.then_some(PayloadFormat::Utf8);
            } else if topic.is_empty() {
                message.topic = "t";
            }
            bytes_of(&Packet::Publish(message), version)
        });
    let ack = (0..4u8, id, prop_oneof![3 => Just(0u8), 1 => Just(0x80u8)]).prop_map(
        move |(kind, id, code)| {
            let code = if kind >= 2 { 0 } else { code };
            let ack = Ack::new(id, ReasonCode::new(code));
            let packet = match kind {
                0 => Packet::PubAck(ack),
                1 => Packet::PubRec(ack),
                2 => Packet::PubRel(ack),
                _ => Packet::PubComp(ack),
            };
            bytes_of(&packet, version)
        },
    );
    let subscribed = (topic(), 0..3u8).prop_map(move |(topic, qos)| {
        let filter = if topic.is_empty() { line("#") } else { topic };
        subscribe(
            version,
            5,
            None,
            &[to(&filter, QoS::from_bits(qos).unwrap())],
        )
    });
    prop_oneof![
        8 => publish,
        6 => ack,
        3 => subscribed,
        2 => Just(b"\xC0\0".to_vec()),
        1 => proptest::collection::vec(any::<u8>(), 1..20),
        1 => Just(bytes_of(&Packet::Disconnect(Disconnect::default()), version)),
        1 => Just(bytes_of(&Packet::Auth(Auth::default()), V5)),
        1 => Just(bytes_of(&Packet::Connect(connect(version, "one")), version)),
    ]
}

fn stream() -> impl Strategy<Value = (ProtocolVersion, Vec<u8>)> {
    version().prop_flat_map(|version| {
        let hello = bytes_of(&Packet::Connect(lasting(version, "one")), version);
        let first = prop_oneof![
            9 => Just(hello),
            1 => proptest::collection::vec(any::<u8>(), 0..30),
        ];
        (first, proptest::collection::vec(packet(version), 0..30))
            .prop_map(move |(first, packets)| (version, [first, packets.concat()].concat()))
    })
}

/// What came of a stream fed in pieces of these sizes.
fn outcome(
    version: ProtocolVersion,
    bytes: &[u8],
    mut sizes: impl Iterator<Item = usize>,
) -> (Vec<String>, Vec<u8>, Option<ReasonCode>, u32) {
    let mut node = Node::new();
    let at = node.dial(version);
    let mut rest = bytes;
    while !rest.is_empty() && node.conns[at].closed.is_none() {
        let size = sizes.next().unwrap_or(rest.len()).clamp(1, rest.len());
        node.feed(at, &rest[..size]);
        rest = &rest[size..];
    }
    let conn = &mut node.conns[at];
    (
        std::mem::take(&mut conn.log),
        std::mem::take(&mut conn.out.bytes),
        conn.closed,
        node.health,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn t_frm_6_pieces_change_nothing(
        (version, bytes) in stream(),
        sizes in proptest::collection::vec(1..40usize, 0..60),
    ) {
        let whole = outcome(version, &bytes, std::iter::empty());
        prop_assert_eq!(&outcome(version, &bytes, sizes.into_iter()), &whole);
        prop_assert_eq!(&outcome(version, &bytes, std::iter::repeat(1)), &whole);
    }

    #[test]
    fn t_frm_12_damaged_streams_never_panic(
        (version, mut bytes) in stream(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        outcome(version, &bytes, std::iter::repeat(7));
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        outcome(V5, &bytes, std::iter::empty());
        let hello = bytes_of(&Packet::Connect(connect(V5, "one")), V5);
        outcome(V5, &[hello, bytes].concat(), std::iter::repeat(3));
    }
}
