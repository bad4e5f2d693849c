//! The packets that are sent again and again: made once, numbers written into them.

use codec::mqtt::{
    Delivery, PacketId, ProtocolVersion, Publish, PublishProperties, QoS, UserProperties,
};

/// A payload begins with the run (4 bytes), the stream (4 bytes) and the message's number (8 bytes).
pub(crate) const PAYLOAD_MIN: usize = 16;

/// If other processes hear it, then comes the moment of sending (8 bytes), which they do not know.
pub(crate) const TIMED_PAYLOAD_MIN: usize = 24;

/// A burst of PUBLISH packets of one stream.
#[derive(Debug)]
pub(crate) struct Burst {
    bytes: Vec<u8>,
    frame_bytes: usize,
    payload_bytes: usize,
    /// Offset of the Packet Identifier in a frame, at QoS 1 and 2.
    packet_id_at: Option<usize>,
    timed: bool,
}

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stamp {
    /// Messages of other runs are not ours.
    pub(crate) run: u32,
    pub(crate) stream: u32,
    pub(crate) number: u64,
    /// By the clock of the machine; 0 where payloads do not tell.
    pub(crate) sent_ns: u64,
}

/// What all messages of a stream have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kind<'a> {
    pub(crate) run: u32,
    pub(crate) stream: u32,
    pub(crate) topic: &'a str,
    pub(crate) qos: QoS,
    pub(crate) payload_bytes: usize,
    pub(crate) version: ProtocolVersion,
    /// User Properties of each message, in MQTT 5.
    pub(crate) properties: usize,
    /// Whether payloads tell when they were sent.
    pub(crate) timed: bool,
}

impl Burst {
    pub(crate) fn new(kind: &Kind<'_>, count: usize) -> Burst {
        let payload_bytes = kind.payload_bytes;
        let mut payload = vec![FILLING; payload_bytes];
        payload[..4].copy_from_slice(&kind.run.to_be_bytes());
        payload[4..8].copy_from_slice(&kind.stream.to_be_bytes());
        let mut block = Vec::new();
        for number in 0..kind.properties {
            UserProperties::put(&mut block, &format!("property-{number}"), "of a load test");
        }
        let properties = PublishProperties {
            content_type: (kind.properties > 0).then_some("application/octet-stream"),
            user_properties: UserProperties::parse(&block).unwrap_or_default(),
            ..PublishProperties::default()
        };
        let mut frame = Vec::new();
        let publish = Publish {
            dup: false,
            retain: false,
            delivery: Delivery::new(kind.qos, packet_id(0)),
            topic: kind.topic,
            properties,
            payload: &payload,
        };
        publish.encode(kind.version, &mut frame);
        // Fixed header, then the topic with its length, then the identifier.
        let length_bytes = frame[1..]
            .iter()
            .take_while(|byte| **byte & 0x80 != 0)
            .count()
            + 1;
        let packet_id_at = 1 + length_bytes + 2 + kind.topic.len();
        Burst {
            frame_bytes: frame.len(),
            payload_bytes,
            packet_id_at: (kind.qos != QoS::AtMostOnce).then_some(packet_id_at),
            bytes: frame.repeat(count),
            timed: kind.timed,
        }
    }

    /// The packets of the messages from `number` on, with Packet Identifiers from `sequence` on,
    /// sent at `sent_ns`.
    #[inline]
    pub(crate) fn numbered(&mut self, number: u64, sequence: u64, sent_ns: u64) -> &[u8] {
        let frames = self.bytes.chunks_exact_mut(self.frame_bytes);
        for (frame, (number, sequence)) in frames.zip((number..).zip(sequence..)) {
            let at = self.frame_bytes - self.payload_bytes + 8;
            frame[at..at + 8].copy_from_slice(&number.to_be_bytes());
            if self.timed {
                frame[at + 8..at + 16].copy_from_slice(&sent_ns.to_be_bytes());
            }
            if let Some(at) = self.packet_id_at {
                frame[at..at + 2].copy_from_slice(&packet_id(sequence).get().to_be_bytes());
            }
        }
        &self.bytes
    }
}

/// What every payload is filled with behind its stamp.
const FILLING: u8 = b'x';

/// Reads the stamp of a payload, `timed` or not; `None` if it is none of ours. `strict` looks at
/// every byte.
#[inline]
pub(crate) fn stamp(
    payload: &[u8],
    payload_bytes: usize,
    strict: bool,
    timed: bool,
) -> Option<Stamp> {
    let (run, behind) = payload.split_first_chunk::<4>()?;
    let (stream, behind) = behind.split_first_chunk::<4>()?;
    let (number, mut filling) = behind.split_first_chunk::<8>()?;
    let mut sent = &[0; 8];
    if timed {
        (sent, filling) = filling.split_first_chunk::<8>()?;
    }
    let whole = payload.len() == payload_bytes
        && filling.last().is_none_or(|byte| *byte == FILLING)
        && (!strict || filling.iter().all(|byte| *byte == FILLING));
    whole.then(|| Stamp {
        run: u32::from_be_bytes(*run),
        stream: u32::from_be_bytes(*stream),
        number: u64::from_be_bytes(*number),
        sent_ns: u64::from_be_bytes(*sent),
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
        for (version, properties, timed) in [
            (ProtocolVersion::V311, 0, false),
            (ProtocolVersion::V5, 0, true),
            (ProtocolVersion::V5, 3, false),
        ] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let kind = Kind {
                    run: 9,
                    stream: 3,
                    topic: "a/b",
                    qos,
                    payload_bytes: 200,
                    version,
                    properties,
                    timed,
                };
                let mut burst = Burst::new(&kind, 4);
                let mut bytes = burst.numbered(5, 65_533, 77);
                for (number, sequence) in (5..9).zip(65_533..) {
                    let frame = split_frame(bytes, 1024).unwrap().unwrap();
                    let Packet::Publish(publish) = decode(&frame, version).unwrap() else {
                        panic!("a PUBLISH");
                    };
                    let expected = Stamp {
                        run: 9,
                        stream: 3,
                        number,
                        sent_ns: if timed { 77 } else { 0 },
                    };
                    assert_eq!(publish.topic, "a/b");
                    assert_eq!(publish.delivery, Delivery::new(qos, packet_id(sequence)));
                    assert_eq!(publish.properties.user_properties.count(), properties);
                    assert_eq!(stamp(publish.payload, 200, true, timed), Some(expected));
                    bytes = &bytes[frame.bytes.len()..];
                }
                assert!(bytes.is_empty());
            }
        }
    }

    #[test]
    fn foreign_payloads_have_no_stamp() {
        assert_eq!(stamp(b"short", 16, false, false), None);
        assert_eq!(stamp(&[0; 17], 16, false, false), None);
        assert_eq!(stamp(&[0; 20], 20, false, false), None, "another filling");
        let mut inside = [FILLING; 30];
        inside[20] = 0;
        assert!(stamp(&inside, 30, false, false).is_some());
        assert_eq!(stamp(&inside, 30, true, false), None, "another byte inside");
        assert!(stamp(&inside, 30, true, true).is_some(), "inside the time");
    }
}
