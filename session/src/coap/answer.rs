//! Answers and notifications as they are written.

use codec::coap::{Block, Code, Kind, MessageId, OptionNumber, Token, Writer};

/// Datagrams to one peer, in order.
#[derive(Debug, Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Datagrams {
    /// Forgets all of them; their room is used again.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The datagrams.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }

    /// Appends one datagram; its bytes.
    pub(super) fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> &[u8] {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.ends.push(self.bytes.len());
        &self.bytes[start..]
    }

    /// Takes the last datagram back.
    pub(super) fn take_back(&mut self) {
        self.ends.pop();
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }
}

/// What is said of a request, or to an observer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reply<'a> {
    pub(super) code: Code,
    pub(super) etag: Option<[u8; 8]>,
    pub(super) observe: Option<u32>,
    pub(super) format: Option<u16>,
    pub(super) max_age: Option<u32>,
    pub(super) block2: Option<Block>,
    pub(super) block1: Option<Block>,
    pub(super) size2: Option<u32>,
    pub(super) size1: Option<u32>,
    pub(super) echo: Option<[u8; 8]>,
    pub(super) payload: &'a [u8],
}

impl<'a> Reply<'a> {
    /// An answer of a code alone.
    pub(super) fn new(code: Code) -> Reply<'a> {
        Reply {
            code,
            etag: None,
            observe: None,
            format: None,
            max_age: None,
            block2: None,
            block1: None,
            size2: None,
            size1: None,
            echo: None,
            payload: &[],
        }
    }

    /// A refusal with a sentence for people (RFC 7252, 5.5.2).
    pub(super) fn refusal(code: Code, why: &'a str) -> Reply<'a> {
        Reply {
            payload: why.as_bytes(),
            // To be tried again in a while (RFC 7252, 5.9.3.4).
            max_age: (code == Code::SERVICE_UNAVAILABLE || code == Code::TOO_MANY_REQUESTS)
                .then_some(RETRY_AFTER_S),
            ..Reply::new(code)
        }
    }

    /// Appends the message.
    pub(super) fn put(&self, kind: Kind, id: MessageId, token: Token, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, kind, self.code, id, token);
        if let Some(etag) = &self.etag {
            writer = writer.option(OptionNumber::ETAG, etag);
        }
        for (number, value) in [
            (OptionNumber::OBSERVE, self.observe),
            (OptionNumber::CONTENT_FORMAT, self.format.map(u32::from)),
            (OptionNumber::MAX_AGE, self.max_age),
            (OptionNumber::BLOCK2, self.block2.map(Block::value)),
            (OptionNumber::BLOCK1, self.block1.map(Block::value)),
            (OptionNumber::SIZE2, self.size2),
            (OptionNumber::SIZE1, self.size1),
        ] {
            if let Some(value) = value {
                writer = writer.uint(number, value);
            }
        }
        if let Some(echo) = &self.echo {
            writer = writer.option(OptionNumber::ECHO, echo);
        }
        writer.payload(self.payload);
    }
}

/// Seconds after which a request that could not be served may be tried again.
const RETRY_AFTER_S: u32 = 5;
