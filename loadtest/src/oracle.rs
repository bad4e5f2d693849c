//! A second opinion on every packet that arrives: mqttbytes, which shares no code with `codec`.

use bytes::{Bytes, BytesMut};
use codec::mqtt::{Delivery, Frame, Packet, ProtocolVersion, decode};
use mqttbytes::{v4, v5};

/// Whether mqttbytes reads the packet as `codec` does: its kind, and for a PUBLISH topic, payload,
/// flags and Packet Identifier, for an acknowledgement the identifier.
pub(crate) fn agrees(frame: &Frame<'_>, version: ProtocolVersion) -> bool {
    let Ok(packet) = decode(frame, version) else {
        return false;
    };
    let ours = Read::of(&packet);
    let mut stream = BytesMut::from(frame.bytes);
    let theirs = if version.is_v5() {
        v5::read(&mut stream, usize::MAX).ok().map(five)
    } else {
        v4::read(&mut stream, usize::MAX).ok().map(four)
    };
    theirs.is_some_and(|theirs| theirs == ours)
}

/// What both decoders say about a packet.
#[derive(Debug, Eq, PartialEq)]
enum Read {
    Publish {
        flags: (bool, bool, u8),
        topic: String,
        packet_id: u16,
        payload: Bytes,
    },
    Ack(&'static str, u16),
    Other,
}

impl Read {
    fn of(packet: &Packet<'_>) -> Read {
        match packet {
            Packet::Publish(publish) => {
                let (qos, packet_id) = match publish.delivery {
                    Delivery::AtMostOnce => (0, 0),
                    Delivery::AtLeastOnce(id) => (1, id.get()),
                    Delivery::ExactlyOnce(id) => (2, id.get()),
                };
                Read::Publish {
                    flags: (publish.dup, publish.retain, qos),
                    topic: publish.topic.to_owned(),
                    packet_id,
                    payload: Bytes::copy_from_slice(publish.payload),
                }
            }
            Packet::PubAck(ack) => Read::Ack("PUBACK", ack.packet_id.get()),
            Packet::PubRec(ack) => Read::Ack("PUBREC", ack.packet_id.get()),
            Packet::PubRel(ack) => Read::Ack("PUBREL", ack.packet_id.get()),
            Packet::PubComp(ack) => Read::Ack("PUBCOMP", ack.packet_id.get()),
            _ => Read::Other,
        }
    }
}

fn four(packet: v4::Packet) -> Read {
    match packet {
        v4::Packet::Publish(publish) => Read::Publish {
            flags: (publish.dup, publish.retain, publish.qos as u8),
            topic: publish.topic,
            packet_id: publish.pkid,
            payload: publish.payload,
        },
        v4::Packet::PubAck(ack) => Read::Ack("PUBACK", ack.pkid),
        v4::Packet::PubRec(ack) => Read::Ack("PUBREC", ack.pkid),
        v4::Packet::PubRel(ack) => Read::Ack("PUBREL", ack.pkid),
        v4::Packet::PubComp(ack) => Read::Ack("PUBCOMP", ack.pkid),
        _ => Read::Other,
    }
}

fn five(packet: v5::Packet) -> Read {
    match packet {
        v5::Packet::Publish(publish) => Read::Publish {
            flags: (publish.dup, publish.retain, publish.qos as u8),
            topic: publish.topic,
            packet_id: publish.pkid,
            payload: publish.payload,
        },
        v5::Packet::PubAck(ack) => Read::Ack("PUBACK", ack.pkid),
        v5::Packet::PubRec(ack) => Read::Ack("PUBREC", ack.pkid),
        v5::Packet::PubRel(ack) => Read::Ack("PUBREL", ack.pkid),
        v5::Packet::PubComp(ack) => Read::Ack("PUBCOMP", ack.pkid),
        _ => Read::Other,
    }
}

#[cfg(test)]
mod tests {
    use codec::mqtt::{Ack, PacketId, QoS, ReasonCode, split_frame};

    use super::*;
    use crate::frames::{Burst, Kind};

    #[test]
    fn both_decoders_read_messages_and_acknowledgements_alike() {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let kind = Kind {
                    run: 1,
                    stream: 2,
                    topic: "a/b",
                    qos,
                    payload_bytes: 300,
                    version,
                    properties: usize::from(version.is_v5()) * 2,
                    timed: false,
                };
                let mut burst = Burst::new(&kind, 1);
                let bytes = burst.numbered(0, 0, 0).to_vec();
                let frame = split_frame(&bytes, 4096).unwrap().unwrap();
                assert!(agrees(&frame, version), "{version:?} {qos:?}");
            }
            let mut out = Vec::new();
            let ack = Ack::new(PacketId::new(7).unwrap(), ReasonCode::SUCCESS);
            ack.encode_puback(version, &mut out);
            let frame = split_frame(&out, 64).unwrap().unwrap();
            assert!(agrees(&frame, version));
        }
    }

    #[test]
    fn a_packet_that_one_of_them_cannot_read_is_disputed() {
        // A topic with a wildcard: mqttbytes takes it, we do not.
        let bytes = [0x30, 4, 0, 1, b'#', b'x'];
        let frame = split_frame(&bytes, 64).unwrap().unwrap();
        assert!(!agrees(&frame, ProtocolVersion::V311));
    }
}
