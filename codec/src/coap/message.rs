//! A message as a view on its datagram (RFC 7252, 3).

use crate::coap::{Block, Code, OptionNumber, OptionValue, Options};

/// How a message wants to be confirmed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Confirmable.
    Con,
    /// Non-confirmable.
    Non,
    /// Acknowledgement.
    Ack,
    /// Reset.
    Rst,
}

impl Kind {
    /// The two bits of a header.
    pub const fn bits(self) -> u8 {
        match self {
            Kind::Con => 0,
            Kind::Non => 1,
            Kind::Ack => 2,
            Kind::Rst => 3,
        }
    }

    const fn of(bits: u8) -> Kind {
        match bits & 3 {
            0 => Kind::Con,
            1 => Kind::Non,
            2 => Kind::Ack,
            _ => Kind::Rst,
        }
    }
}

/// Message ID: ties confirmations to messages and finds repeated ones. No Packet Identifier.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MessageId(pub u16);

/// Token: ties answers to requests. Up to eight bytes, compared as they are.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Token {
    bytes: [u8; 8],
    len: u8,
}

impl Token {
    /// A token of these bytes; `None` for more than eight.
    pub fn new(bytes: &[u8]) -> Option<Token> {
        let mut token = Token::default();
        token.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        token.len = bytes.len() as u8;
        Some(token)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// Why a datagram is no message (RFC 7252, 3).
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Malformed {
    /// Fewer than four bytes.
    #[error("the datagram is shorter than a header")]
    Short,
    /// Another version than 1: to be ignored.
    #[error("the version is not 1")]
    Version,
    /// A token of 9 to 15 bytes, or cut.
    #[error("the token has more bytes than it may, or than there are")]
    Token,
    /// An empty message with something behind its header.
    #[error("an empty message has content")]
    EmptyWithContent,
    /// An option that is cut, or uses a reserved value.
    #[error("an option is malformed")]
    Option,
    /// A payload marker without payload.
    #[error("the payload marker is followed by nothing")]
    Payload,
}

/// The first four bytes: what a malformed message may still be answered by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Head {
    /// How it wants to be confirmed.
    pub kind: Kind,
    /// Its code.
    pub code: Code,
    /// Its Message ID.
    pub id: MessageId,
}

impl Head {
    /// The head of a datagram in version 1.
    pub fn read(datagram: &[u8]) -> Option<Head> {
        let (head, _) = datagram.split_first_chunk::<4>()?;
        (head[0] >> 6 == 1).then_some(Head {
            kind: Kind::of(head[0] >> 4),
            code: Code::new(head[1]),
            id: MessageId(u16::from_be_bytes([head[2], head[3]])),
        })
    }
}

/// A message; everything is borrowed from the datagram, and its options are sound.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// How it wants to be confirmed.
    pub kind: Kind,
    /// A method, an answer, or empty.
    pub code: Code,
    /// Its Message ID.
    pub id: MessageId,
    /// Its token.
    pub token: Token,
    /// What it carries; empty without payload.
    pub payload: &'a [u8],
    options: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a datagram, looking at each byte of its header and options once.
    ///
    /// # Errors
    /// [`Malformed`], where it is no message. [`Head::read`] says whether that can be answered.
    pub fn parse(datagram: &'a [u8]) -> Result<Message<'a>, Malformed> {
        if datagram.len() < 4 {
            return Err(Malformed::Short);
        }
        let head = Head::read(datagram).ok_or(Malformed::Version)?;
        let token_len = usize::from(datagram[0] & 15);
        if head.code == Code::EMPTY && datagram.len() > 4 {
            return Err(Malformed::EmptyWithContent);
        }
        let behind = datagram.get(4 + token_len..).ok_or(Malformed::Token)?;
        let token = Token::new(&datagram[4..4 + token_len]).ok_or(Malformed::Token)?;
        let mut options = Options::new(behind);
        while options.step().map_err(|()| Malformed::Option)?.is_some() {}
        let rest = options.rest();
        let payload = match rest.split_first() {
            None => rest,
            Some((_marker, [])) => return Err(Malformed::Payload),
            Some((_marker, payload)) => payload,
        };
        Ok(Message {
            kind: head.kind,
            code: head.code,
            id: head.id,
            token,
            payload,
            options: &behind[..behind.len() - rest.len()],
        })
    }

    /// The options in order.
    pub fn options(&self) -> Options<'a> {
        Options::new(self.options)
    }

    /// The values of an option, in order.
    pub fn values(&self, number: OptionNumber) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.options()
            .skip_while(move |option| option.number < number)
            .take_while(move |option| option.number == number)
            .map(|option| option.value)
    }

    /// The value of an option that is there once, as a number.
    pub fn uint(&self, number: OptionNumber) -> Option<u32> {
        let value = self.values(number).next()?;
        OptionValue { number, value }.uint()
    }

    /// The value of Block1 or Block2; `None` inside where it is none.
    pub fn block(&self, number: OptionNumber) -> Option<Option<Block>> {
        self.uint(number).map(Block::new)
    }

    /// The first critical option that cannot be taken as it stands: not known, of a wrong length,
    /// or repeated though it must not be (RFC 7252, 5.4.1, 5.4.3 and 5.4.5).
    pub fn unacceptable_option(&self) -> Option<OptionNumber> {
        let mut last = None;
        self.options().find_map(|option| {
            let repeated = last == Some(option.number);
            last = Some(option.number);
            let taken = option.number.known().is_some_and(|(len, repeats)| {
                len.contains(&option.value.len()) && (repeats || !repeated)
            });
            (!taken && option.number.is_critical()).then_some(option.number)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfcs_example_is_read() {
        // GET /temperature, CON, id 0x7d34 (RFC 7252, figure 16).
        let datagram = b"\x40\x01\x7d\x34\xbbtemperature";
        let message = Message::parse(datagram).unwrap();
        assert_eq!(message.kind, Kind::Con);
        assert_eq!(message.code, Code::GET);
        assert_eq!(message.id, MessageId(0x7d34));
        let path: Vec<_> = message.values(OptionNumber::URI_PATH).collect();
        assert_eq!(path, [b"temperature"]);
        assert_eq!(message.payload, b"");
        assert_eq!(message.unacceptable_option(), None);
    }

    #[test]
    fn t_coap_1_malformed_messages_are_told_apart() {
        for (datagram, expected) in [
            (&b"\x40\x01\x00"[..], Malformed::Short),
            (b"\x80\x01\x00\x01", Malformed::Version),
            (b"\x00\x01\x00\x01", Malformed::Version),
            (b"\x49\x01\x00\x01123456789", Malformed::Token),
            (b"\x4f\x01\x00\x01123456789012345", Malformed::Token),
            (b"\x48\x01\x00\x011234567", Malformed::Token),
            (b"\x40\x00\x00\x01x", Malformed::EmptyWithContent),
            (b"\x41\x00\x00\x01x", Malformed::EmptyWithContent),
            (b"\x40\x01\x00\x01\xb2x", Malformed::Option),
            (b"\x40\x01\x00\x01\xf1x", Malformed::Option),
            (b"\x40\x01\x00\x01\x1fx", Malformed::Option),
            (b"\x40\x01\x00\x01\xd0", Malformed::Option),
            (
                b"\x40\x01\x00\x01\xe0\xff\xff\xe0\xff\xff",
                Malformed::Option,
            ),
            (b"\x40\x01\x00\x01\xff", Malformed::Payload),
        ] {
            assert_eq!(
                Message::parse(datagram).unwrap_err(),
                expected,
                "{datagram:x?}"
            );
        }
        let head = Head::read(b"\x4f\x01\x12\x34").unwrap();
        assert_eq!((head.kind, head.id), (Kind::Con, MessageId(0x1234)));
    }

    #[test]
    fn critical_options_that_are_unknown_too_long_or_repeated_are_found() {
        let found = |options: &[u8]| {
            let datagram = [b"\x40\x01\x00\x01", options].concat();
            Message::parse(&datagram).unwrap().unacceptable_option()
        };
        assert_eq!(found(b"\x90"), Some(OptionNumber(9)), "unknown");
        assert_eq!(found(b"\xa0"), None, "unknown and elective");
        assert_eq!(
            found(b"\x71a\x01b"),
            Some(OptionNumber::URI_PORT),
            "repeated"
        );
        assert_eq!(found(b"\x73abc"), Some(OptionNumber::URI_PORT), "too long");
        assert_eq!(found(b"\xb1a\x01b"), None, "a path of two");
        assert_eq!(
            found(b"\xd4\x0aabcd"),
            Some(OptionNumber::BLOCK2),
            "four bytes"
        );
    }
}
