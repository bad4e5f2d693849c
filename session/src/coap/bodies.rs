//! Messages of more than a block, kept while the peer fetches them (RFC 7959, 2.4).

use std::sync::Arc;

use crate::now::Now;

/// Bodies kept for one endpoint; the one that waits longest makes room.
const BODIES_MAX: usize = 4;

/// Milliseconds after the last block was asked for.
const TIMEOUT_MS: u64 = 30_000;

/// The bodies of an endpoint that are being fetched.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    kept: Vec<Kept>,
}

/// A message with what its answer says of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Body {
    pub(super) bytes: Arc<[u8]>,
    pub(super) format: Option<u16>,
    pub(super) etag: [u8; 8],
}

#[derive(Debug)]
struct Kept {
    /// Whose it is, and on which topic.
    guest: u8,
    topic: Box<str>,
    body: Body,
    until: Now,
}

impl Body {
    /// A body of these bytes.
    pub(super) fn new(bytes: &[u8], format: Option<u16>) -> Body {
        Body {
            bytes: bytes.into(),
            format,
            etag: etag(bytes),
        }
    }
}

impl Bodies {
    /// Keeps a body, in place of an earlier one of the same topic.
    pub(super) fn keep(&mut self, guest: u8, topic: &str, body: Body, now: Now) {
        self.kept
            .retain(|kept| kept.guest != guest || *kept.topic != *topic);
        if self.kept.len() == BODIES_MAX
            && let Some(oldest) = (0..BODIES_MAX).min_by_key(|at| self.kept[*at].until)
        {
            self.kept.swap_remove(oldest);
        }
        self.kept.push(Kept {
            guest,
            topic: topic.into(),
            body,
            until: now.plus_millis(TIMEOUT_MS),
        });
    }

    /// The body of a topic, which is kept a while longer.
    pub(super) fn find(&mut self, guest: u8, topic: &str, now: Now) -> Option<Body> {
        let mut kept = self.kept.iter_mut();
        let found = kept.find(|kept| kept.guest == guest && *kept.topic == *topic)?;
        found.until = now.plus_millis(TIMEOUT_MS);
        Some(found.body.clone())
    }

    /// Whether a body of the topic is kept.
    pub(super) fn has(&self, guest: u8, topic: &str) -> bool {
        let mut kept = self.kept.iter();
        kept.any(|kept| kept.guest == guest && *kept.topic == *topic)
    }

    /// Forgets what belongs to a guest who is gone.
    pub(super) fn forget(&mut self, guest: u8) {
        self.kept.retain(|kept| kept.guest != guest);
    }

    /// Forgets what has waited too long.
    pub(super) fn expire(&mut self, now: Now) {
        self.kept.retain(|kept| kept.until > now);
    }

    /// When something is to be forgotten next.
    pub(super) fn next_timeout(&self) -> Option<Now> {
        self.kept.iter().map(|kept| kept.until).min()
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> usize {
        self.kept.iter().map(|kept| kept.body.bytes.len()).sum()
    }
}

/// A number that differs where the bytes do, as far as a peer has to know (FNV-1a).
pub(super) fn etag(bytes: &[u8]) -> [u8; 8] {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in bytes {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_kept_while_they_are_fetched_and_few_of_them() {
        let mut bodies = Bodies::default();
        let at = Now::from_millis;
        for (number, topic) in ["a", "b", "c", "d", "e"].iter().enumerate() {
            bodies.keep(
                0,
                topic,
                Body::new(&[number as u8; 10], None),
                at(number as u64),
            );
        }
        assert_eq!(bodies.bytes(), 40);
        assert!(bodies.find(0, "a", at(9)).is_none() && bodies.find(1, "e", at(9)).is_none());
        assert_eq!(bodies.find(0, "b", at(100)).unwrap().bytes[0], 1);
        bodies.keep(0, "e", Body::new(b"new", Some(0)), at(100));
        bodies.expire(at(TIMEOUT_MS + 50));
        assert_eq!(bodies.bytes(), 13, "those that were asked for stay");
        bodies.forget(0);
        assert_eq!(bodies.next_timeout(), None);
        assert_ne!(etag(b"a"), etag(b"b"));
    }
}
