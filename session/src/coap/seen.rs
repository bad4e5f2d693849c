//! Which requests came before: a repeated one is not carried out again (RFC 7252, 4.5).

use std::collections::VecDeque;

use codec::coap::MessageId;

use crate::now::Now;

/// Requests remembered of one endpoint. RFC 7252's 247 seconds would be hundreds of thousands for a
/// fast peer; whoever repeats a request sends few others meanwhile (NSTART is 1).
const ENTRIES: usize = 32;

/// EXCHANGE_LIFETIME: an older request with the same Message ID is another one.
const LIFETIME_MS: u64 = 247_000;

/// Bytes of an answer that is kept. A larger one is made again: only a GET has such.
const ANSWER_BYTES: usize = 128;

#[derive(Debug, Default)]
pub(super) struct Seen {
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    id: MessageId,
    at: Now,
    answer: Answer,
}

/// What a request was answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Answer {
    /// Nothing yet, or nothing at all.
    None,
    /// These bytes, which are sent again for a confirmable request.
    Bytes(Box<[u8]>),
    /// Something large: the request is carried out again.
    Again,
}

impl Seen {
    /// The answer to an earlier request of the same Message ID; `None` for a new one, which is
    /// remembered. Of more than 32 the oldest is forgotten.
    pub(super) fn find(&mut self, id: MessageId, now: Now) -> Option<Answer> {
        while let Some(first) = self.entries.front()
            && now.millis_since(first.at) >= LIFETIME_MS
        {
            self.entries.pop_front();
        }
        if let Some(entry) = self.entries.iter().rev().find(|entry| entry.id == id) {
            return Some(entry.answer.clone());
        }
        if self.entries.len() == ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            id,
            at: now,
            answer: Answer::None,
        });
        None
    }

    /// Notes what the request was answered.
    pub(super) fn answered(&mut self, id: MessageId, bytes: &[u8]) {
        if let Some(entry) = self.entries.iter_mut().rev().find(|entry| entry.id == id) {
            entry.answer = if bytes.len() <= ANSWER_BYTES {
                Answer::Bytes(bytes.into())
            } else {
                Answer::Again
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_coap_4_repeated_requests_are_known_until_they_are_too_old_or_too_many() {
        let mut seen = Seen::default();
        let at = Now::from_millis;
        assert_eq!(seen.find(MessageId(1), at(0)), None);
        assert_eq!(seen.find(MessageId(1), at(1)), Some(Answer::None));
        seen.answered(MessageId(1), b"ok");
        assert_eq!(
            seen.find(MessageId(1), at(2)),
            Some(Answer::Bytes((*b"ok").into()))
        );
        assert_eq!(seen.find(MessageId(1), at(LIFETIME_MS)), None);
        seen.answered(MessageId(1), &[0; 200]);
        assert_eq!(
            seen.find(MessageId(1), at(LIFETIME_MS)),
            Some(Answer::Again)
        );
        for id in 2..=33 {
            assert_eq!(seen.find(MessageId(id), at(LIFETIME_MS)), None);
        }
        assert_eq!(
            seen.find(MessageId(1), at(LIFETIME_MS)),
            None,
            "the oldest went"
        );
    }
}
