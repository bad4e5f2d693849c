//! What has to hold for any bytes that a peer sends; `tests/corpus.rs` replays the corpus with it.

use codec::mqtt::{
    DecodeError, Frame, Packet, ProtocolVersion, decode, decode_connect, publish_head, split_frame,
};

/// Largest packet that is taken, as a broker would announce it.
const MAXIMUM_PACKET_SIZE: u32 = 64 * 1024;

/// Reads `input` as a connection: its first byte chooses the version, packets follow.
///
/// # Panics
/// A promise of the codec is broken.
pub(crate) fn check(input: &[u8]) {
    let Some((choice, mut stream)) = input.split_first() else {
        return;
    };
    let version = match choice % 3 {
        0 => ProtocolVersion::V31,
        1 => ProtocolVersion::V311,
        _ => ProtocolVersion::V5,
    };
    loop {
        match split_frame(stream, MAXIMUM_PACKET_SIZE) {
            Ok(Some(frame)) => {
                assert!(
                    stream.starts_with(frame.bytes),
                    "a frame is the start of the stream"
                );
                assert!(
                    frame.bytes.ends_with(frame.body),
                    "a body is the end of its frame"
                );
                check_frame(&frame, version);
                stream = &stream[frame.bytes.len()..];
            }
            Ok(None) => return,
            Err(error) => return check_error(&error),
        }
    }
}

fn check_frame(frame: &Frame<'_>, version: ProtocolVersion) {
    if let Err(error) = decode_connect(frame) {
        check_error(&error);
    }
    let packet = match decode(frame, version) {
        Ok(packet) => packet,
        Err(error) => return check_error(&error),
    };
    if let (Some(head), Packet::Publish(publish)) = (publish_head(frame), &packet) {
        assert_eq!(head.topic, publish.topic.as_bytes());
        assert_eq!(head.rest, &frame.bytes[head.topic_end..]);
    }
    // What was accepted is written and read again as the same packet.
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    let again = split_frame(&out, u32::MAX).ok().flatten();
    let again = again.expect("a written packet is whole");
    assert_eq!(
        again.bytes.len(),
        out.len(),
        "a written packet is one packet"
    );
    assert_eq!(decode(&again, version), Ok(packet));
    assert!(
        out.len() <= frame.bytes.len(),
        "the shortest form is written"
    );
}

fn check_error(error: &DecodeError) {
    assert!(error.reason_code().is_error());
    assert!(!error.to_string().is_empty());
}
