//! Bodies that come in blocks (RFC 7959, 2.3 to 2.5), and their bounds.

use codec::coap::{Block, Code};

use crate::coap::path::Target;
use crate::now::Now;

/// Bodies that one endpoint may be sending at a time; the one that waits longest makes room.
const UPLOADS_MAX: usize = 4;

/// Milliseconds after the last block in which the next one has to come.
const TIMEOUT_MS: u64 = 30_000;

/// The bodies of an endpoint that are not whole.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    target: Target,
    bytes: Vec<u8>,
    until: Now,
}

/// What became of a block.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Taken {
    /// More is to come.
    Continue,
    /// The body is whole.
    Whole(Vec<u8>),
    /// It is not taken, with the largest size where that is why.
    Refused(Code, Option<u32>),
}

impl Uploads {
    /// Takes a block of at most 1024 bytes; a body may have `most` bytes, and all endpoints may keep
    /// `room` more.
    ///
    /// A body that is too large is refused with 4.13 (and forgotten), a block out of order with 4.08,
    /// and with 5.03 one for which there is no room.
    pub(super) fn block(
        &mut self,
        target: &Target,
        block: Block,
        payload: &[u8],
        (most, room): (usize, usize),
        now: Now,
    ) -> Taken {
        let whole_block = payload.len() == block.size();
        if payload.len() > block.size() || block.more && !whole_block {
            return Taken::Refused(Code::BAD_REQUEST, None);
        }
        let found = self.parts.iter().position(|part| part.target == *target);
        if block.offset() + payload.len() > most {
            if let Some(at) = found {
                self.parts.swap_remove(at);
            }
            let most = u32::try_from(most).unwrap_or(u32::MAX);
            return Taken::Refused(Code::REQUEST_ENTITY_TOO_LARGE, Some(most));
        }
        if block.number == 0 {
            if !block.more {
                return Taken::Whole(payload.to_vec());
            }
            if let Some(at) = found {
                self.parts.swap_remove(at);
            }
            if room < payload.len() {
                return Taken::Refused(Code::SERVICE_UNAVAILABLE, None);
            }
            if self.parts.len() == UPLOADS_MAX
                && let Some(oldest) = (0..UPLOADS_MAX).min_by_key(|at| self.parts[*at].until)
            {
                self.parts.swap_remove(oldest);
            }
            self.parts.push(Part {
                target: target.clone(),
                bytes: payload.to_vec(),
                until: now.plus_millis(TIMEOUT_MS),
            });
            return Taken::Continue;
        }
        let Some(at) = found else {
            return Taken::Refused(Code::REQUEST_ENTITY_INCOMPLETE, None);
        };
        let part = &mut self.parts[at];
        let end = block.offset() + payload.len();
        // A block that was taken before comes again when the answer to it was lost for good.
        let repeated = block.more && end <= part.bytes.len();
        if repeated {
            return Taken::Continue;
        }
        if block.offset() != part.bytes.len() {
            self.parts.swap_remove(at);
            return Taken::Refused(Code::REQUEST_ENTITY_INCOMPLETE, None);
        }
        if room < payload.len() {
            self.parts.swap_remove(at);
            return Taken::Refused(Code::SERVICE_UNAVAILABLE, None);
        }
        part.bytes.extend_from_slice(payload);
        part.until = now.plus_millis(TIMEOUT_MS);
        if block.more {
            return Taken::Continue;
        }
        Taken::Whole(self.parts.swap_remove(at).bytes)
    }

    /// Forgets what has waited too long.
    pub(super) fn expire(&mut self, now: Now) {
        self.parts.retain(|part| part.until > now);
    }

    /// When something is to be forgotten next.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.parts.iter().map(|part| part.until).min()
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(|part| part.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: (usize, usize) = (100, 1000);

    fn target(path: &str) -> Target {
        Target {
            topic: path.into(),
            query: Box::default(),
        }
    }

    fn block(number: u32, more: bool) -> Block {
        Block {
            number,
            more,
            exponent: 0,
        }
    }

    #[test]
    fn blocks_in_order_make_the_body() {
        let mut uploads = Uploads::default();
        let now = Now::from_millis(0);
        let (a, b) = (target("a"), target("b"));
        let mut take = |target: &Target, number, more, bytes: &[u8]| {
            uploads.block(target, block(number, more), bytes, ROOM, now)
        };
        assert_eq!(take(&a, 0, true, &[1; 16]), Taken::Continue);
        assert_eq!(take(&b, 0, true, &[5; 16]), Taken::Continue);
        assert_eq!(take(&a, 1, true, &[2; 16]), Taken::Continue);
        assert_eq!(take(&a, 1, true, &[2; 16]), Taken::Continue, "repeated");
        let whole = [&[1; 16][..], &[2; 16], &[3; 2]].concat();
        assert_eq!(take(&a, 2, false, &[3; 2]), Taken::Whole(whole));
        assert_eq!(
            take(&a, 2, false, &[3; 2]),
            Taken::Refused(Code::REQUEST_ENTITY_INCOMPLETE, None)
        );
        assert_eq!(take(&a, 0, false, b"x"), Taken::Whole(b"x".to_vec()));
    }

    #[test]
    fn t_coap_3_unfinished_bodies_are_bounded_and_end_in_their_codes() {
        let mut uploads = Uploads::default();
        let at = Now::from_millis;
        let a = target("a");
        let mut take = |target: &Target, block, bytes: &[u8], room, now| {
            uploads.block(target, block, bytes, room, at(now))
        };
        let too_large = Taken::Refused(Code::REQUEST_ENTITY_TOO_LARGE, Some(100));
        let last = block((1 << 20) - 1, true);
        assert_eq!(take(&a, last, &[0; 16], ROOM, 0), too_large);
        let gap = Taken::Refused(Code::REQUEST_ENTITY_INCOMPLETE, None);
        assert_eq!(take(&a, block(0, true), &[0; 16], ROOM, 0), Taken::Continue);
        assert_eq!(take(&a, block(2, true), &[0; 16], ROOM, 0), gap);
        let short = Taken::Refused(Code::BAD_REQUEST, None);
        assert_eq!(take(&a, block(0, true), &[0; 15], ROOM, 0), short);
        let full = Taken::Refused(Code::SERVICE_UNAVAILABLE, None);
        assert_eq!(take(&a, block(0, true), &[0; 16], (100, 15), 0), full);
        for (number, name) in ["a", "b", "c", "d", "e"].iter().enumerate() {
            let now = number as u64;
            assert_eq!(
                take(&target(name), block(0, true), &[0; 16], ROOM, now),
                Taken::Continue
            );
        }
        assert_eq!(uploads.bytes(), 64);
        let now = at(10);
        assert_eq!(
            uploads.block(&a, block(1, true), &[0; 16], ROOM, now),
            gap,
            "made room"
        );
        assert_eq!(uploads.next_timeout(), Some(at(TIMEOUT_MS + 1)));
        uploads.expire(at(TIMEOUT_MS + 4));
        assert_eq!((uploads.bytes(), uploads.next_timeout()), (0, None));
    }
}
