//! Names of things: dense indexes inside one broker, 128-bit ids everywhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! index {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u32);

        impl $name {
            /// Names the thing at position `index` of the dense tables.
            #[must_use]
            pub const fn new(index: u32) -> Self {
                Self(index)
            }

            /// The number itself.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// The number as a position in a slice.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }
    };
}

index! {
    /// A domain, dense within this broker. Below 2^28.
    DomainIndex
}
index! {
    /// A channel, dense within this broker. Reused only after a fence.
    ChannelIndex
}
index! {
    /// A principal (client, user or the broker itself), dense within this broker.
    /// Reused only after a fence.
    PrincipalIndex
}

impl DomainIndex {
    /// The domain of the `$SYS` channel. No client belongs to it.
    pub const SYS: Self = Self::new(0);
}

impl ChannelIndex {
    /// The channel of all `$SYS/…` topics, in [`DomainIndex::SYS`].
    pub const SYS: Self = Self::new(0);
}

impl PrincipalIndex {
    /// The broker itself and its in-process services. No peer can be identified as it.
    pub const SYSTEM: Self = Self::new(0);
}

/// The 128-bit id of a domain, channel or principal, the same on every node. Written as UUID.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntityId([u8; 16]);

impl EntityId {
    /// The id of the `$SYS` domain and of its channel: rights on `$SYS` are rights on this channel.
    pub const SYS: Self = Self([0; 16]);

    /// Reads a canonical UUID: 36 characters, lower case, hyphens in their places.
    /// Anything else is a route, not an id, and gives `None`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let text: &[u8; 36] = text.as_bytes().try_into().ok()?;
        if text[8] != b'-' || text[13] != b'-' || text[18] != b'-' || text[23] != b'-' {
            return None;
        }
        // Eight digits at a time: the hyphens divide them into these words.
        let [a, b, c, d] = [
            [
                text[0], text[1], text[2], text[3], text[4], text[5], text[6], text[7],
            ],
            [
                text[9], text[10], text[11], text[12], text[14], text[15], text[16], text[17],
            ],
            [
                text[19], text[20], text[21], text[22], text[24], text[25], text[26], text[27],
            ],
            [
                text[28], text[29], text[30], text[31], text[32], text[33], text[34], text[35],
            ],
        ]
        .map(|digits| eight_digits(u64::from_be_bytes(digits)));
        if (a.1 | b.1 | c.1 | d.1) != 0 {
            return None;
        }
        let (high, low) = (a.0 << 32 | b.0, c.0 << 32 | d.0);
        Some(Self::from_words([high, low]))
    }

    /// The id with these bytes, in the order in which a UUID is written.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes in the order in which a UUID is written.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0
    }

    /// The id as a number.
    #[must_use]
    pub const fn to_u128(self) -> u128 {
        u128::from_be_bytes(self.0)
    }

    /// The id with this number.
    #[must_use]
    pub const fn from_u128(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// Two words, high half first: the form in which shared tables keep it.
    pub(crate) const fn to_words(self) -> [u64; 2] {
        let number = self.to_u128();
        [(number >> 64) as u64, number as u64]
    }

    /// The reverse of [`EntityId::to_words`].
    pub(crate) const fn from_words(words: [u64; 2]) -> Self {
        Self::from_u128(((words[0] as u128) << 64) | words[1] as u128)
    }

    /// The 36 characters of the UUID.
    fn text(self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        for (byte, &at) in self.0.iter().zip(&DIGIT_PAIRS) {
            text[at] = DIGITS[usize::from(byte >> 4)];
            text[at + 1] = DIGITS[usize::from(byte & 0x0f)];
        }
        text
    }
}

impl fmt::Display for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for EntityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// Where the 16 pairs of digits stand in the text.
const DIGIT_PAIRS: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// The number that eight lower-case hexadecimal digits write, the first one in the highest byte,
/// and a word that is not 0 if one of the bytes is no such digit.
#[inline]
const fn eight_digits(text: u64) -> (u64, u64) {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // A letter has bit 6 and counts from 1. No byte of a sum reaches beyond itself: 15 + 9.
    let values = (text & (0x0f * ONES)) + (text >> 6 & ONES) * 9;
    // Written again they are the text, unless a byte was no digit: then its value is above 15 or
    // its text is another one. From 10 on bit 4 of value + 6 is set.
    let letters = (values + 6 * ONES) >> 4 & ONES;
    let written = values + 0x30 * ONES + letters * (b'a' - b'9' - 1) as u64;
    let wrong = (written ^ text) | (values & (0xf0 * ONES));
    // Two digits to a byte, two bytes to four digits, and so on.
    let bytes = (values >> 4 | values) & 0x00ff_00ff_00ff_00ff;
    let pairs = (bytes >> 8 | bytes) & 0x0000_ffff_0000_ffff;
    ((pairs >> 16 | pairs) & 0xffff_ffff, wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_uuid_is_read_and_written_back() {
        let text = "0190a5f3-7c1e-7b22-9f00-0123456789ab";
        let id = EntityId::from_text(text).unwrap();
        assert_eq!(id.to_string(), text);
        assert_eq!(id.to_bytes()[..4], [0x01, 0x90, 0xa5, 0xf3]);
        assert_eq!(EntityId::from_words(id.to_words()), id);
    }

    #[test]
    fn other_spellings_of_a_uuid_are_not_ids() {
        for text in [
            "",
            "plant",
            "0190A5F3-7c1e-7b22-9f00-0123456789ab",
            "0190a5f37c1e7b229f000123456789ab",
            "{190a5f3-7c1e-7b22-9f00-0123456789a}",
            "0190a5f3-7c1e-7b22-9f00-0123456789a",
            "0190a5f3-7c1e-7b22-9f00-0123456789abc",
            "0190a5f3-7c1e-7b22-9f00+0123456789ab",
            "g190a5f3-7c1e-7b22-9f00-0123456789ab",
        ] {
            assert_eq!(EntityId::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn only_lower_case_digits_are_read_in_every_place() {
        let text = *b"0190a5f3-7c1e-7b22-9f00-0123456789ab";
        for at in (0..36).filter(|at| ![8, 13, 18, 23].contains(at)) {
            for byte in 0..=255 {
                let mut other = text;
                other[at] = byte;
                let value = DIGITS.iter().position(|digit| *digit == byte);
                let read = std::str::from_utf8(&other)
                    .ok()
                    .and_then(EntityId::from_text);
                assert_eq!(read.is_some(), value.is_some(), "{byte:#x} at {at}");
                if let Some(id) = read {
                    assert_eq!(id.text(), other);
                }
            }
        }
    }

    /// Bytes that are no UTF-8 do not get as far as this with the text of a whole id.
    #[test]
    fn a_byte_that_is_no_digit_is_seen_whatever_stands_beside_it() {
        for byte in 0..=255u8 {
            let good = DIGITS.contains(&byte);
            for beside in [b'0', b'9', b'a', b'f', b'o', 0, 0x7f, 0x80, 0xff] {
                for at in 0..8 {
                    let mut text = [beside; 8];
                    text[at] = byte;
                    let (_, wrong) = eight_digits(u64::from_be_bytes(text));
                    assert_eq!(wrong == 0, good && DIGITS.contains(&beside), "{text:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn every_id_survives_its_text(number: u128) {
            let id = EntityId::from_u128(number);
            prop_assert_eq!(EntityId::from_text(&id.to_string()), Some(id));
        }

        #[test]
        fn reading_an_id_never_panics(text: String) {
            let _ = EntityId::from_text(&text);
        }
    }
}
