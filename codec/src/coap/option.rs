//! Options: numbers, what they say of themselves, and the walk over them (RFC 7252, 3.1 and 5.4).

/// The number of an option.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct OptionNumber(pub u16);

/// What is known of one option: its number, the lengths of its value, and whether it may be
/// repeated.
struct Known(OptionNumber, std::ops::RangeInclusive<usize>, bool);

/// (RFC 7252, 5.10; RFC 7641, 2; RFC 7959, 2.1 and 4; RFC 7967; RFC 9175, 2.2 and 3.2.)
const KNOWN: [Known; 23] = [
    Known(OptionNumber::IF_MATCH, 0..=8, true),
    Known(OptionNumber::URI_HOST, 1..=255, false),
    Known(OptionNumber::ETAG, 1..=8, true),
    Known(OptionNumber::IF_NONE_MATCH, 0..=0, false),
    Known(OptionNumber::OBSERVE, 0..=3, false),
    Known(OptionNumber::URI_PORT, 0..=2, false),
    Known(OptionNumber::LOCATION_PATH, 0..=255, true),
    Known(OptionNumber::URI_PATH, 0..=255, true),
    Known(OptionNumber::CONTENT_FORMAT, 0..=2, false),
    Known(OptionNumber::MAX_AGE, 0..=4, false),
    Known(OptionNumber::URI_QUERY, 0..=255, true),
    Known(OptionNumber::HOP_LIMIT, 1..=1, false),
    Known(OptionNumber::ACCEPT, 0..=2, false),
    Known(OptionNumber::LOCATION_QUERY, 0..=255, true),
    Known(OptionNumber::BLOCK2, 0..=3, false),
    Known(OptionNumber::BLOCK1, 0..=3, false),
    Known(OptionNumber::SIZE2, 0..=4, false),
    Known(OptionNumber::PROXY_URI, 1..=1034, false),
    Known(OptionNumber::PROXY_SCHEME, 1..=255, false),
    Known(OptionNumber::SIZE1, 0..=4, false),
    Known(OptionNumber::ECHO, 1..=40, false),
    Known(OptionNumber::NO_RESPONSE, 0..=1, false),
    Known(OptionNumber::REQUEST_TAG, 0..=8, true),
];

impl OptionNumber {
    /// If-Match.
    pub const IF_MATCH: OptionNumber = OptionNumber(1);
    /// Uri-Host.
    pub const URI_HOST: OptionNumber = OptionNumber(3);
    /// ETag.
    pub const ETAG: OptionNumber = OptionNumber(4);
    /// If-None-Match.
    pub const IF_NONE_MATCH: OptionNumber = OptionNumber(5);
    /// Observe.
    pub const OBSERVE: OptionNumber = OptionNumber(6);
    /// Uri-Port.
    pub const URI_PORT: OptionNumber = OptionNumber(7);
    /// Location-Path.
    pub const LOCATION_PATH: OptionNumber = OptionNumber(8);
    /// Uri-Path.
    pub const URI_PATH: OptionNumber = OptionNumber(11);
    /// Content-Format.
    pub const CONTENT_FORMAT: OptionNumber = OptionNumber(12);
    /// Max-Age.
    pub const MAX_AGE: OptionNumber = OptionNumber(14);
    /// Uri-Query.
    pub const URI_QUERY: OptionNumber = OptionNumber(15);
    /// Hop-Limit.
    pub const HOP_LIMIT: OptionNumber = OptionNumber(16);
    /// Accept.
    pub const ACCEPT: OptionNumber = OptionNumber(17);
    /// Location-Query.
    pub const LOCATION_QUERY: OptionNumber = OptionNumber(20);
    /// Block2.
    pub const BLOCK2: OptionNumber = OptionNumber(23);
    /// Block1.
    pub const BLOCK1: OptionNumber = OptionNumber(27);
    /// Size2.
    pub const SIZE2: OptionNumber = OptionNumber(28);
    /// Proxy-Uri.
    pub const PROXY_URI: OptionNumber = OptionNumber(35);
    /// Proxy-Scheme.
    pub const PROXY_SCHEME: OptionNumber = OptionNumber(39);
    /// Size1.
    pub const SIZE1: OptionNumber = OptionNumber(60);
    /// Echo.
    pub const ECHO: OptionNumber = OptionNumber(252);
    /// No-Response.
    pub const NO_RESPONSE: OptionNumber = OptionNumber(258);
    /// Request-Tag.
    pub const REQUEST_TAG: OptionNumber = OptionNumber(292);

    /// Whether a receiver that does not know it has to refuse the message.
    pub const fn is_critical(self) -> bool {
        self.0 & 1 == 1
    }

    /// Whether a proxy that does not know it must not pass it on.
    pub const fn is_unsafe(self) -> bool {
        self.0 & 2 == 2
    }

    /// The lengths of its value and whether it may be repeated; `None` for one that is not known.
    pub fn known(self) -> Option<(std::ops::RangeInclusive<usize>, bool)> {
        KNOWN
            .iter()
            .find(|known| known.0 == self)
            .map(|known| (known.1.clone(), known.2))
    }
}

/// One option of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OptionValue<'a> {
    /// Its number.
    pub number: OptionNumber,
    /// Its value.
    pub value: &'a [u8],
}

impl OptionValue<'_> {
    /// The value as a number without sign, of up to four bytes.
    pub fn uint(&self) -> Option<u32> {
        if self.value.len() > 4 {
            return None;
        }
        let digits = self.value.iter();
        Some(digits.fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }
}

/// A number in as few bytes as it needs (RFC 7252, 3.2).
#[derive(Clone, Copy, Debug)]
pub struct Uint {
    bytes: [u8; 4],
    start: usize,
}

impl Uint {
    /// The bytes of `number`.
    pub fn new(number: u32) -> Uint {
        Uint {
            bytes: number.to_be_bytes(),
            start: number.leading_zeros() as usize / 8,
        }
    }

    /// 0 to 4 bytes, the first of them not zero.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

/// The options of a message, in ascending order of their numbers.
#[derive(Clone, Debug)]
pub struct Options<'a> {
    rest: &'a [u8],
    number: u32,
}

impl<'a> Options<'a> {
    /// The options of bytes that were checked: what is malformed ends the walk.
    pub(super) fn new(bytes: &'a [u8]) -> Options<'a> {
        Options {
            rest: bytes,
            number: 0,
        }
    }

    /// What follows the last option that was read.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next option, `None` at the end.
    ///
    /// # Errors
    /// `()` where the bytes are no option.
    pub(super) fn step(&mut self) -> Result<Option<OptionValue<'a>>, ()> {
        let Some((&head, rest)) = self.rest.split_first() else {
            return Ok(None);
        };
        if head == 0xFF {
            return Ok(None);
        }
        let (delta, rest) = extended(head >> 4, rest).ok_or(())?;
        let (len, rest) = extended(head & 15, rest).ok_or(())?;
        let number = self.number + delta;
        let narrow = u16::try_from(number).map_err(|_| ())?;
        let (value, rest) = rest.split_at_checked(len as usize).ok_or(())?;
        self.rest = rest;
        self.number = number;
        Ok(Some(OptionValue {
            number: OptionNumber(narrow),
            value,
        }))
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = OptionValue<'a>;

    fn next(&mut self) -> Option<OptionValue<'a>> {
        self.step().ok().flatten()
    }
}

/// A delta or length with what extends it (RFC 7252, 3.1); 15 is reserved.
fn extended(nibble: u8, rest: &[u8]) -> Option<(u32, &[u8])> {
    match nibble {
        13 => {
            let (more, rest) = rest.split_first()?;
            Some((13 + u32::from(*more), rest))
        }
        14 => {
            let (more, rest) = rest.split_first_chunk::<2>()?;
            Some((269 + u32::from(u16::from_be_bytes(*more)), rest))
        }
        15 => None,
        small => Some((u32::from(small), rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_numbers_say_what_they_are() {
        assert!(OptionNumber::URI_PATH.is_critical() && OptionNumber::URI_PATH.is_unsafe());
        assert!(!OptionNumber::ETAG.is_critical() && !OptionNumber::SIZE1.is_unsafe());
        assert!(OptionNumber::BLOCK1.is_critical() && !OptionNumber::OBSERVE.is_critical());
        assert!(OptionNumber(9).known().is_none());
    }

    #[test]
    fn numbers_have_no_leading_zeros() {
        for (number, bytes) in [
            (0, &[][..]),
            (1, &[1]),
            (255, &[255]),
            (256, &[1, 0]),
            (0x10000, &[1, 0, 0]),
            (u32::MAX, &[255; 4]),
        ] {
            assert_eq!(Uint::new(number).as_bytes(), bytes);
        }
    }
}
