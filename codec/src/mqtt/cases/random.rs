//! The same promises for packets and bytes that nobody thought of.

use proptest::prelude::*;

use super::all_legal;
use super::material::material;
use crate::mqtt::ProtocolVersion::{self, V5, V31, V311};
use crate::mqtt::{Packet, PublishOut, decode, split_frame};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(material in material()) {
        let packet = material.packet();
        let mut out = Vec::new();
        packet.encode(material.version, &mut out);
        let frame = split_frame(&out, u32::MAX).unwrap().expect("whole");
        prop_assert_eq!(frame.bytes.len(), out.len());
        prop_assert_eq!(decode(&frame, material.version), Ok(packet));
    }

    #[test]
    fn t_frm_6_any_split_of_a_stream_gives_the_same_packets(
        materials in prop::collection::vec(material(), 1..5),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let mut stream = Vec::new();
        for material in &materials {
            material.packet().encode(material.version, &mut stream);
        }
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let (mut read, mut found) = (0, 0);
        for end in ends {
            while let Some(frame) = split_frame(&stream[read..end], u32::MAX).unwrap() {
                let material = &materials[found];
                prop_assert_eq!(decode(&frame, material.version), Ok(material.packet()));
                read += frame.bytes.len();
                found += 1;
            }
        }
        prop_assert_eq!((read, found), (stream.len(), materials.len()));
    }

    #[test]
    fn t_frm_12_mutated_packets_are_refused_or_stable(
        case in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let cases = all_legal();
        let case = case.get(&cases);
        let mut bytes = case.bytes.clone();
        for (at, byte) in changes {
            bytes[at.index(case.bytes.len())] = byte;
        }
        for version in [V31, V311, V5] {
            check_stable(&bytes, version);
        }
    }

    #[test]
    fn t_frm_12_random_bytes_do_not_panic(
        first in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = vec![first, body.len() as u8];
        bytes.extend(body);
        for version in [V31, V311, V5] {
            check_stable(&bytes, version);
        }
    }

    #[test]
    fn a_broker_writes_the_same_publish_in_pieces(material in material(), cut in 0..20usize) {
        let publish = material.publish();
        let cut = (0..=cut.min(publish.topic.len()))
            .rev()
            .find(|cut| publish.topic.is_char_boundary(*cut))
            .unwrap();
        let topic = publish.topic.split_at(cut);
        let mut forwarded = Vec::new();
        publish.properties.forwarded_into(&mut forwarded);
        let identifiers: Vec<_> = publish.properties.subscription_identifiers.iter().collect();
        let out = PublishOut {
            dup: publish.dup,
            retain: publish.retain,
            delivery: publish.delivery,
            topic: &[topic.0, topic.1],
            topic_alias: publish.properties.topic_alias,
            message_expiry: publish.properties.message_expiry,
            subscription_identifiers: &identifiers,
            forwarded: &forwarded,
            payload: publish.payload,
        };
        let (mut pieces, mut whole) = (vec![0xAA], vec![0xAA]);
        out.encode(material.version, &mut pieces);
        publish.encode(material.version, &mut whole);
        prop_assert_eq!(pieces.len() - 1, out.encoded_len(material.version));
        prop_assert_eq!(pieces, whole);
    }
}

/// What is accepted is written and read again as the same packet.
fn check_stable(bytes: &[u8], version: ProtocolVersion) {
    let Ok(Some(frame)) = split_frame(bytes, 1024) else {
        return;
    };
    let Ok(packet) = decode(&frame, version) else {
        return;
    };
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    let again = split_frame(&out, u32::MAX).unwrap().expect("whole");
    assert_eq!(decode(&again, version), Ok(packet));
}
