//! Confirmable messages of our own: sent again until the peer confirms them (RFC 7252, 4.2).

use codec::coap::{MessageId, Token};

use crate::now::Now;

/// ACK_TIMEOUT, ACK_RANDOM_FACTOR (as what is added at most) and MAX_RETRANSMIT (RFC 7252, 4.8).
const ACK_TIMEOUT_MS: u64 = 2_000;
const ACK_RANDOM_MS: u64 = 1_000;
const MAX_RETRANSMIT: u8 = 4;

/// Own messages of an endpoint that may wait for their ACK: one for each observation and a few
/// answers. Further answers go out without confirmation.
pub(super) const UNCONFIRMED_MAX: usize = 72;

/// Why a message was sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// The notification of an observation.
    Notification(Token),
    /// An answer that came late.
    Answer,
    /// To hear whether the peer is there: its RST says so.
    Ping,
}

/// One message that waits for its ACK.
#[derive(Debug)]
pub(super) struct Unconfirmed {
    pub(super) id: MessageId,
    pub(super) bytes: Box<[u8]>,
    pub(super) purpose: Purpose,
    tries: u8,
    timeout_ms: u64,
    at: Now,
}

/// What is to be done about a message whose time has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    /// It is sent again.
    Again,
    /// The peer is not there.
    GivenUp,
}

impl Unconfirmed {
    /// A message that was just sent.
    pub(super) fn new(
        id: MessageId,
        bytes: &[u8],
        purpose: Purpose,
        random: u64,
        now: Now,
    ) -> Unconfirmed {
        let timeout_ms = ACK_TIMEOUT_MS + random % ACK_RANDOM_MS;
        Unconfirmed {
            id,
            bytes: bytes.into(),
            purpose,
            tries: 0,
            timeout_ms,
            at: now.plus_millis(timeout_ms),
        }
    }

    /// When it is looked at again.
    pub(super) fn at(&self) -> Now {
        self.at
    }

    /// What is due at `now`, if anything; the next timeout is twice as long.
    pub(super) fn due(&mut self, now: Now) -> Option<Due> {
        if now < self.at {
            return None;
        }
        if self.tries == MAX_RETRANSMIT {
            return Some(Due::GivenUp);
        }
        self.tries += 1;
        self.timeout_ms *= 2;
        self.at = now.plus_millis(self.timeout_ms);
        Some(Due::Again)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unconfirmed_message_is_sent_four_times_more_within_93_seconds() {
        let start = Now::from_millis(0);
        for random in [0, 999] {
            let mut sent = Unconfirmed::new(MessageId(1), b"x", Purpose::Answer, random, start);
            let mut again = 0;
            let mut ended = None;
            for ms in 0..100_000 {
                match sent.due(Now::from_millis(ms)) {
                    Some(Due::Again) => again += 1,
                    Some(Due::GivenUp) => {
                        ended = Some(ms);
                        break;
                    }
                    None => {}
                }
            }
            assert_eq!(again, 4);
            let ended = ended.unwrap();
            assert!((62_000..=93_000).contains(&ended), "{ended}");
        }
    }
}
