//! Writing a message.

use crate::coap::{Code, Kind, MessageId, OptionNumber, Token, Uint};

/// Appends one message to a buffer. Options have to come in ascending order of their numbers.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
    number: u16,
}

impl<'b> Writer<'b> {
    /// Begins a message.
    pub fn new(
        out: &'b mut Vec<u8>,
        kind: Kind,
        code: Code,
        id: MessageId,
        token: Token,
    ) -> Writer<'b> {
        let token = token.as_bytes();
        out.push(1 << 6 | kind.bits() << 4 | token.len() as u8);
        out.push(code.get());
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(token);
        Writer { out, number: 0 }
    }

    /// A message without anything behind its header: an empty ACK, a RST, a ping.
    pub fn empty(out: &'b mut Vec<u8>, kind: Kind, id: MessageId) {
        Writer::new(out, kind, Code::EMPTY, id, Token::default());
    }

    /// Appends an option; values are shorter than 64 KiB.
    #[must_use]
    pub fn option(self, number: OptionNumber, value: &[u8]) -> Writer<'b> {
        debug_assert!(number.0 >= self.number, "options are written in order");
        debug_assert!(value.len() < usize::from(u16::MAX) + 269);
        let (delta, more_delta) = nibble(u32::from(number.0.saturating_sub(self.number)));
        let (len, more_len) = nibble(value.len() as u32);
        self.out.push(delta << 4 | len);
        more_delta.put(self.out);
        more_len.put(self.out);
        self.out.extend_from_slice(value);
        Writer {
            number: number.0,
            ..self
        }
    }

    /// Appends an option whose value is a number.
    #[must_use]
    pub fn uint(self, number: OptionNumber, value: u32) -> Writer<'b> {
        self.option(number, Uint::new(value).as_bytes())
    }

    /// Ends the message with a payload, or without where it is empty.
    pub fn payload(self, payload: &[u8]) {
        if !payload.is_empty() {
            self.out.push(0xFF);
            self.out.extend_from_slice(payload);
        }
    }
}

/// What extends a delta or length.
enum More {
    None,
    One(u8),
    Two(u16),
}

impl More {
    fn put(self, out: &mut Vec<u8>) {
        match self {
            More::None => {}
            More::One(byte) => out.push(byte),
            More::Two(bytes) => out.extend_from_slice(&bytes.to_be_bytes()),
        }
    }
}

fn nibble(value: u32) -> (u8, More) {
    match value {
        0..=12 => (value as u8, More::None),
        13..=268 => (13, More::One((value - 13) as u8)),
        _ => (14, More::Two((value - 269) as u16)),
    }
}
