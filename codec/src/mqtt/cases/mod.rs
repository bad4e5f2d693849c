//! One table of packets, legal and not, and everything that is tested with it.

mod connack;
mod connect;
mod corpus;
mod differential;
mod legal;
mod legal_answers;
mod material;
mod random;
mod refused;
mod refused_v5;
mod second_opinion;

use std::collections::BTreeSet;

use super::ProtocolVersion::{self, V5, V31, V311};
use super::{
    DecodeError, Frame, Malformed, Packet, PacketType, decode, packet_len, publish_head,
    split_frame,
};

/// A legal packet: its bytes in some versions, and what it says.
struct Legal {
    name: &'static str,
    versions: &'static [ProtocolVersion],
    bytes: Vec<u8>,
    packet: Packet<'static>,
    /// Bytes of the same packet as they are written here, where they may be shorter.
    written: Option<Vec<u8>>,
}

/// A packet that has to be refused, and why.
struct Refused {
    name: &'static str,
    versions: &'static [ProtocolVersion],
    bytes: Vec<u8>,
    error: DecodeError,
    reason: u8,
}

const ALL: &[ProtocolVersion] = &[V31, V311, V5];
const V3: &[ProtocolVersion] = &[V31, V311];
const ONLY_V31: &[ProtocolVersion] = &[V31];
const ONLY_V311: &[ProtocolVersion] = &[V311];
const ONLY_V5: &[ProtocolVersion] = &[V5];
/// CONNECT names its version; it is read alike whatever version is given.
const OWN: &[ProtocolVersion] = ALL;

fn all_legal() -> Vec<Legal> {
    [
        legal::publish(),
        legal_answers::acknowledgements(),
        legal::subscriptions(),
        legal_answers::others(),
    ]
    .into_iter()
    .chain([connect::connects(), connack::connacks()])
    .flatten()
    .collect()
}

fn all_refused() -> Vec<Refused> {
    [
        refused::headers(),
        refused::publish(),
        refused::subscriptions(),
        refused::others(),
    ]
    .into_iter()
    .chain([
        refused_v5::properties(),
        refused_v5::reason_codes(),
        connect::refusals(),
        connack::refusals(),
    ])
    .flatten()
    .collect()
}

fn legal(
    name: &'static str,
    versions: &'static [ProtocolVersion],
    notation: &str,
    packet: Packet<'static>,
) -> Legal {
    Legal {
        name,
        versions,
        bytes: bytes(notation),
        packet,
        written: None,
    }
}

impl Legal {
    /// The same packet in the form that is written here.
    fn written_as(mut self, notation: &str) -> Self {
        self.written = Some(bytes(notation));
        self
    }
}

fn refused(
    name: &'static str,
    versions: &'static [ProtocolVersion],
    notation: &str,
    reason: u8,
    error: impl Into<DecodeError>,
) -> Refused {
    Refused {
        name,
        versions,
        bytes: bytes(notation),
        error: error.into(),
        reason,
    }
}

/// Bytes in the notation of the tables: hexadecimal digits, and text between single quotes. `##`
/// stands for the Remaining Length of what follows, `**` for the two bytes of length of the text
/// that follows.
fn bytes(notation: &str) -> Vec<u8> {
    if let Some((header, body)) = notation.split_once("##") {
        let (mut frame, body) = (bytes(header), bytes(body));
        crate::varint::put(&mut frame, u32::try_from(body.len()).unwrap());
        frame.extend(body);
        return frame;
    }
    let mut bytes = Vec::new();
    let mut length_pending = false;
    for token in notation.split_whitespace() {
        if let Some(text) = token.strip_prefix('\'') {
            let text = text.strip_suffix('\'').expect("text ends with a quote");
            if std::mem::take(&mut length_pending) {
                super::put::length(&mut bytes, text.len());
            }
            bytes.extend_from_slice(text.as_bytes());
        } else if token == "**" {
            length_pending = true;
        } else {
            for pair in token.as_bytes().chunks(2) {
                let digits = std::str::from_utf8(pair).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).expect(notation));
            }
        }
    }
    bytes
}

/// As `bytes`, for packets that borrow from their case.
fn leak(notation: &str) -> &'static [u8] {
    Box::leak(bytes(notation).into_boxed_slice())
}

impl Refused {
    fn check(&self) {
        for version in self.versions {
            let frame = split_frame(&self.bytes, u32::MAX);
            let result = frame.and_then(|frame| decode(&frame.expect("a whole packet"), *version));
            let Err(error) = result else {
                panic!("{} {version:?} was accepted", self.name)
            };
            assert_eq!(error, self.error, "{} {version:?}", self.name);
            assert_eq!(error.reason_code().get(), self.reason, "{}", self.name);
            assert!(!error.to_string().is_empty());
        }
    }
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    let frame = split_frame(bytes, u32::MAX)
        .unwrap()
        .expect("the case is a whole packet");
    assert_eq!(frame.bytes, bytes, "the case is one packet");
    frame
}

#[test]
fn every_legal_packet_is_read() {
    for case in all_legal() {
        for version in case.versions {
            let packet = decode(&whole(&case.bytes), *version);
            assert_eq!(packet, Ok(case.packet.clone()), "{} {version:?}", case.name);
        }
    }
}

#[test]
fn every_legal_packet_is_written() {
    for case in all_legal() {
        for version in case.versions {
            let version = match &case.packet {
                Packet::Connect(connect) => connect.version,
                _ => *version,
            };
            // What is in front stays there.
            let mut out = vec![0xAA];
            case.packet.encode(version, &mut out);
            let expected = case.written.as_ref().unwrap_or(&case.bytes);
            assert_eq!(out[1..], expected[..], "{} {version:?}", case.name);
            assert_eq!(
                decode(&whole(&out[1..]), version),
                Ok(case.packet.clone()),
                "{}",
                case.name
            );
        }
    }
}

#[test]
fn every_illegal_packet_is_refused_with_its_reason() {
    for case in all_refused() {
        case.check();
    }
}

#[test]
fn t_frm_7_reserved_bits_and_identifier_zero_are_refused() {
    check_row("t frm 7 ", 25);
}

#[test]
fn t_frm_8_strings_that_are_not_utf_8_or_have_null_are_refused() {
    check_row("t frm 8 ", 15);
}

#[test]
fn t_frm_9_authentication_without_a_method_is_refused() {
    check_row("t frm 9 ", 3);
}

/// Checks the cases of one row of the threat catalogue, of which there are at least `count_min`.
fn check_row(prefix: &str, count_min: usize) {
    let cases = all_refused()
        .into_iter()
        .filter(|case| case.name.starts_with(prefix));
    assert!(cases.inspect(Refused::check).count() >= count_min);
}

#[test]
fn names_of_cases_are_unique() {
    let names = all_legal().into_iter().map(|case| case.name);
    let names: Vec<_> = names
        .chain(all_refused().into_iter().map(|case| case.name))
        .collect();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
}

#[test]
fn t_frm_6_every_split_of_every_packet_changes_nothing() {
    for case in all_legal() {
        let header = case.bytes.len() - whole(&case.bytes).body.len();
        for cut in 0..case.bytes.len() {
            let len = (cut >= header).then_some(case.bytes.len());
            assert_eq!(packet_len(&case.bytes[..cut]), len, "{} {cut}", case.name);
            assert_eq!(
                split_frame(&case.bytes[..cut], u32::MAX),
                Ok(None),
                "{} {cut}",
                case.name
            );
        }
        // What arrives together with the next packet is not touched either.
        let mut two = case.bytes.clone();
        two.extend_from_slice(&case.bytes);
        let frame = split_frame(&two, u32::MAX).unwrap().unwrap();
        assert_eq!(frame, whole(&case.bytes), "{}", case.name);
    }
}

#[test]
fn t_frm_4_no_truncation_is_read_as_another_packet() {
    for case in all_legal() {
        let body = whole(&case.bytes).body;
        for version in case.versions {
            for cut in 0..body.len() {
                let frame = Frame {
                    first: case.bytes[0],
                    body: &body[..cut],
                    bytes: &case.bytes,
                };
                let Ok(packet) = decode(&frame, *version) else {
                    continue;
                };
                // What is accepted is a shorter legal packet: an open list or payload, or fields
                // that may be left out together.
                assert!(
                    may_end_early(&packet, cut, *version),
                    "{} at {cut}",
                    case.name
                );
                if case.written.is_none() {
                    assert_ne!(packet, case.packet, "{} at {cut}", case.name);
                }
            }
        }
    }
}

fn may_end_early(packet: &Packet<'_>, length: usize, version: ProtocolVersion) -> bool {
    match packet.packet_type() {
        PacketType::Publish => true,
        PacketType::Subscribe | PacketType::Unsubscribe | PacketType::SubAck => true,
        PacketType::UnsubAck => version.is_v5(),
        PacketType::PubAck | PacketType::PubRec | PacketType::PubRel | PacketType::PubComp => {
            version.is_v5() && length <= 3
        }
        PacketType::Disconnect => version.is_v5() && length <= 1,
        PacketType::Auth => length == 0,
        // MQTT 3.1 lets the end of the packet overrule the flags.
        PacketType::Connect => matches!(packet, Packet::Connect(connect)
            if connect.version == V31 && connect.password.is_none()),
        PacketType::ConnAck | PacketType::PingReq | PacketType::PingResp => false,
    }
}

#[test]
fn t_frm_5_bytes_behind_the_last_field_are_refused() {
    for case in all_legal() {
        let packet_type = case.packet.packet_type();
        let open = match packet_type {
            PacketType::Publish | PacketType::SubAck => true,
            PacketType::Subscribe | PacketType::Unsubscribe => true,
            PacketType::UnsubAck => case.versions == ONLY_V5,
            _ => false,
        };
        let body = whole(&case.bytes).body;
        // Fields that were left out would be filled by the byte.
        let short = case.versions.contains(&V5) && body.len() <= 3;
        let has_missing_field = case.name.contains("without its");
        if open || has_missing_field || (short && packet_type != PacketType::PingReq) {
            continue;
        }
        let mut longer = body.to_vec();
        longer.push(0);
        let frame = Frame {
            first: case.bytes[0],
            body: &longer,
            bytes: &longer,
        };
        let error = Malformed::TrailingBytes {
            packet: packet_type.name(),
            count: 1,
        }
        .into();
        assert_eq!(
            decode(&frame, case.versions[0]),
            Err(error),
            "{}",
            case.name
        );
    }
}

#[test]
fn the_head_of_a_publish_agrees_with_the_whole() {
    for case in all_legal() {
        let frame = whole(&case.bytes);
        let Packet::Publish(publish) = &case.packet else {
            assert_eq!(publish_head(&frame), None, "{}", case.name);
            continue;
        };
        let Some(head) = publish_head(&frame) else {
            assert!(publish.delivery.packet_id().is_some() || publish.topic.is_empty());
            continue;
        };
        assert_eq!(head.topic, publish.topic.as_bytes(), "{}", case.name);
        assert_eq!(&frame.bytes[head.topic_end..], head.rest, "{}", case.name);
        if !case.versions.contains(&V5) {
            assert_eq!(head.rest, publish.payload, "{}", case.name);
        } else if head.rest[0] == 0 {
            assert_eq!(&head.rest[1..], publish.payload, "{}", case.name);
        }
    }
    // Too short for its topic, at QoS 0 with DUP, without a topic.
    for notation in [
        "30 ## 00",
        "30 ## 0003 'ab'",
        "38 ## 0001 'a'",
        "30 ## 0000 'a'",
    ] {
        assert_eq!(publish_head(&whole(&bytes(notation))), None, "{notation}");
    }
}
