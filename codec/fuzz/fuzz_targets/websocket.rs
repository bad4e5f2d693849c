//! What has to hold for any bytes of a WebSocket peer; `tests/corpus.rs` replays the corpus with it.

use codec::ws::{Event, Receiver, ReceiverLimits, Role, Upgrade, put_refusal};

const LIMITS: ReceiverLimits = ReceiverLimits {
    frame_bytes: 1 << 16,
    message_bytes: 1 << 17,
    fragments: 64,
};

/// Reads `input` as a request and as frames: its first byte chooses where the frames are cut.
///
/// # Panics
/// A promise of the codec is broken.
pub(crate) fn check(input: &[u8]) {
    let Some((&size, stream)) = input.split_first() else {
        return;
    };
    match Upgrade::read(stream, 8192) {
        Ok(Some((upgrade, used))) => {
            assert!(used <= stream.len());
            let mut answer = Vec::new();
            upgrade.accept(upgrade.protocol(&["mqtt"]), &mut answer);
            assert!(answer.ends_with(b"\r\n\r\n"));
        }
        Ok(None) => {}
        Err(error) => {
            let mut answer = Vec::new();
            put_refusal(error, &mut answer);
            assert!(answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 5"));
        }
    }
    let pieces = stream.chunks(usize::from(size).max(1));
    assert_eq!(receive(pieces), receive(std::iter::once(stream)));
}

/// All payload, and the close code that ended it.
fn receive<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, Option<u16>) {
    let mut receiver = Receiver::new(Role::Server, LIMITS);
    let mut payload = Vec::new();
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        while at < input.len() {
            match receiver.next(&mut input[at..]) {
                Ok((used, event)) => {
                    assert!(used > 0 && at + used <= input.len());
                    match event {
                        Some(Event::Data { range, .. }) => {
                            payload.extend_from_slice(&input[at..][range]);
                        }
                        Some(Event::Close(code)) => return (payload, code.map(|code| code.get())),
                        Some(Event::Ping | Event::Pong) => {
                            assert!(receiver.control().len() <= 125);
                        }
                        None => {}
                    }
                    at += used;
                }
                // Text that came before the byte that spoils it may have been handed on or not.
                Err(violation) => return (Vec::new(), Some(violation.close_code().get())),
            }
        }
    }
    (payload, None)
}
