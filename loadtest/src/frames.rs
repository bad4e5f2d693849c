//! The packets that are sent again and again: made once, numbers written into them.

use codec::mqtt::{
    Delivery, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, UserProperties,
};

/// A payload begins with the publisher (8 bytes) and the message's number (8 bytes).
pub(crate) const PAYLOAD_MIN: usize = 16;

/// A burst of PUBLISH packets of one publisher.
#[derive(Debug)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    frame_bytes: usize,
    payload_bytes: usize,
    /// Offset of the Packet Identifier in a frame, at QoS 1 and 2.
    packet_id_at: Option<usize>,
}

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    pub(crate) publisher: u64,
    pub(crate) number: u64,
}

impl Burst {
    pub(crate) fn new(
        publisher: usize,
        topic: &str,
        qos: QoS,
        payload_bytes: usize,
        version: ProtocolVersion,
        count: usize,
    ) -> Burst {
        let mut payload = vec![FILLING; payload_bytes];
        payload[..8].copy_from_slice(&(publisher as u64).to_be_bytes());
        let mut frame = Vec::new();
        let publish = Publish {
            dup: false,
            retain: false,
            delivery: Delivery::new(qos, packet_id(0)),
            topic,
            properties: PublishProperties {
                user_properties: UserProperties::default(),
                ..PublishProperties::default()
            },
            payload: &payload,
        };
        publish.encode(version, &mut frame);
        let behind = usize::from(version.is_v5()) + payload_bytes;
        Burst {
            frame_bytes: frame.len(),
            payload_bytes,
            packet_id_at: (qos != QoS::AtMostOnce).then(|| frame.len() - behind - 2),
            bytes: frame.repeat(count),
        }
    }

    /// The packets of the messages from `number` on.
    pub(crate) fn numbered(&mut self, number: u64) -> &[u8] {
        for (frame, number) in self.bytes.chunks_exact_mut(self.frame_bytes).zip(number..) {
            let at = self.frame_bytes - self.payload_bytes + 8;
            frame[at..at + 8].copy_from_slice(&number.to_be_bytes());
            if let Some(at) = self.packet_id_at {
                frame[at..at + 2].copy_from_slice(&packet_id(number).get().to_be_bytes());
            }
        }
        &self.bytes
    }
}

/// What every payload is filled with behind its stamp.
const FILLING: u8 = b'x';

/// Reads the stamp of a payload; `None` if it is none of ours.
#[inline]
pub(crate) fn stamp(payload: &[u8], payload_bytes: usize) -> Option<Stamp> {
    let (publisher, behind) = payload.split_first_chunk::<8>()?;
    let (number, filling) = behind.split_first_chunk::<8>()?;
    let whole =
        payload.len() == payload_bytes && filling.last().is_none_or(|byte| *byte == FILLING);
    whole.then(|| Stamp {
        publisher: u64::from_be_bytes(*publisher),
        number: u64::from_be_bytes(*number),
    })
}

/// The Packet Identifier of a publisher's message: its number, without zero.
fn packet_id(number: u64) -> PacketId {
    let id = (number % u64::from(u16::MAX)) as u16 + 1;
    PacketId::new(id).expect("one at least")
}

#[cfg(test)]
mod tests {
    use codec::mqtt::{Packet, decode, split_frame};

    use super::*;

    #[test]
    fn bursts_decode_to_numbered_messages() {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let mut burst = Burst::new(3, "a/b", qos, 200, version, 4);
                let mut bytes = burst.numbered(65_533);
                for number in 65_533..65_537 {
                    let frame = split_frame(bytes, 1024).unwrap().unwrap();
                    let Packet::Publish(publish) = decode(&frame, version).unwrap() else {
                        panic!("a PUBLISH");
                    };
                    let expected = Stamp {
                        publisher: 3,
                        number,
                    };
                    assert_eq!(publish.topic, "a/b");
                    assert_eq!(publish.delivery, Delivery::new(qos, packet_id(number)));
                    assert_eq!(stamp(publish.payload, 200), Some(expected));
                    bytes = &bytes[frame.bytes.len()..];
                }
                assert!(bytes.is_empty());
            }
        }
    }

    #[test]
    fn foreign_payloads_have_no_stamp() {
        assert_eq!(stamp(b"short", 16), None);
        assert_eq!(stamp(&[0; 17], 16), None);
        assert_eq!(stamp(&[0; 20], 20), None, "another filling");
    }
}
