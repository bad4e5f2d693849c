//! Which answer goes to which stream: packet heads and the Packet Identifiers of requests.

use std::collections::HashMap;

/// A stream of one connection; the first one is for control.
pub(crate) type StreamNumber = u64;

/// Requests of data streams whose answers are outstanding; answers to those beyond go over the
/// control stream. Each costs 16 bytes.
const UNANSWERED_MAX: usize = 1_024;

const PUBLISH: u8 = 3;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
const PUBREL: u8 = 6;
const PUBCOMP: u8 = 7;
const SUBSCRIBE: u8 = 8;
const SUBACK: u8 = 9;
const UNSUBSCRIBE: u8 = 10;
const UNSUBACK: u8 = 11;

/// Whether a packet that begins with `first` may come on a data stream.
pub(crate) fn is_for_data(first: u8) -> bool {
    matches!(
        first >> 4,
        PUBLISH | PUBACK | PUBREC | PUBREL | PUBCOMP | SUBSCRIBE | UNSUBSCRIBE
    )
}

/// Whether a packet of the broker that begins with `first` answers a request.
pub(crate) fn is_answer(first: u8) -> bool {
    matches!(first >> 4, PUBACK | PUBREC | PUBCOMP | SUBACK | UNSUBACK)
}

/// The streams that wait for answers.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    /// By Packet Identifier; requests of the control stream are not among them.
    streams: HashMap<u16, StreamNumber>,
}

impl Unanswered {
    /// Notes a packet of a client, `None` being the control stream.
    pub(crate) fn asked(&mut self, stream: Option<StreamNumber>, first: u8, body: &[u8]) {
        let Some(id) = request_id(first, body) else {
            return;
        };
        match stream {
            None => {
                self.streams.remove(&id);
            }
            Some(_) if self.streams.len() >= UNANSWERED_MAX && !self.streams.contains_key(&id) => {}
            Some(stream) => {
                self.streams.insert(id, stream);
            }
        }
    }

    /// Where an answer goes; `None` for the control stream.
    pub(crate) fn answered(&mut self, first: u8, body: &[u8]) -> Option<StreamNumber> {
        let id = u16::from_be_bytes(*body.first_chunk()?);
        // A PUBREC that accepts is followed by PUBREL and PUBCOMP.
        let goes_on = first >> 4 == PUBREC && body.get(2).is_none_or(|code| *code < 0x80);
        if goes_on {
            self.streams.get(&id).copied()
        } else {
            self.streams.remove(&id)
        }
    }

    /// Whether answers for a stream are outstanding.
    pub(crate) fn awaits(&self, stream: StreamNumber) -> bool {
        self.streams.values().any(|other| *other == stream)
    }
}

/// The Packet Identifier of a packet that is answered under it.
fn request_id(first: u8, body: &[u8]) -> Option<u16> {
    let at = match first >> 4 {
        SUBSCRIBE | UNSUBSCRIBE | PUBREL => 0,
        PUBLISH if first & 0b0110 != 0 => 2 + usize::from(u16::from_be_bytes(*body.first_chunk()?)),
        _ => return None,
    };
    let id = body.get(at..)?.first_chunk()?;
    Some(u16::from_be_bytes(*id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_the_stream_of_their_request() {
        let mut unanswered = Unanswered::default();
        unanswered.asked(Some(4), 0x82, &[0, 7, 0, 0, 1, b'a', 0]);
        unanswered.asked(Some(8), 0x32, &[0, 1, b'a', 0, 9, 0]);
        unanswered.asked(None, 0xA2, &[0, 8]);
        assert_eq!(unanswered.answered(0x90, &[0, 7, 0, 0]), Some(4));
        assert_eq!(unanswered.answered(0x90, &[0, 7, 0, 0]), None);
        assert_eq!(unanswered.answered(0xB0, &[0, 8]), None);
        assert!(unanswered.awaits(8));
        assert_eq!(unanswered.answered(0x40, &[0, 9]), Some(8));
        assert!(!unanswered.awaits(8));
    }

    #[test]
    fn exactly_once_stays_with_its_stream_until_it_is_complete() {
        let mut unanswered = Unanswered::default();
        unanswered.asked(Some(4), 0x34, &[0, 1, b'a', 0, 9, 0]);
        assert_eq!(unanswered.answered(0x50, &[0, 9]), Some(4));
        unanswered.asked(Some(8), 0x62, &[0, 9]);
        assert_eq!(unanswered.answered(0x70, &[0, 9]), Some(8));
        unanswered.asked(Some(4), 0x34, &[0, 1, b'a', 0, 9, 0]);
        assert_eq!(unanswered.answered(0x50, &[0, 9, 0x87]), Some(4));
        assert_eq!(unanswered.answered(0x50, &[0, 9]), None);
    }

    #[test]
    fn requests_beyond_the_bound_are_answered_over_control() {
        let mut unanswered = Unanswered::default();
        for id in 0..=UNANSWERED_MAX as u16 {
            unanswered.asked(Some(4), 0x82, &id.to_be_bytes());
        }
        let last = (UNANSWERED_MAX as u16).to_be_bytes();
        assert_eq!(unanswered.answered(0x90, &last), None);
        assert_eq!(unanswered.answered(0x90, &[0, 0]), Some(4));
    }

    #[test]
    fn packets_that_are_cut_ask_for_nothing() {
        for body in [&[][..], &[0], &[0, 9, b'a'], &[0, 1, b'a', 0]] {
            assert_eq!(request_id(0x32, body), None);
        }
        assert_eq!(request_id(0x30, &[0, 1, b'a', 0, 9]), None);
        assert!(is_for_data(0x30) && !is_for_data(0x10) && !is_for_data(0xC0));
        assert!(is_answer(0x40) && !is_answer(0x62) && !is_answer(0x30));
    }
}
