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
        let mut bytes = [0; 16];
        // Valid digits give values below 16, so one test at the end sees every bad one.
        let mut seen = 0;
        for (byte, &at) in bytes.iter_mut().zip(&DIGIT_PAIRS) {
            let high = DIGIT_VALUES[usize::from(text[at])];
            let low = DIGIT_VALUES[usize::from(text[at + 1])];
            seen |= high | low;
            *byte = (high << 4) | (low & 0x0f);
        }
        (seen < 16).then_some(Self(bytes))
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

/// Value of each lower-case hexadecimal digit, 0xff for every other byte.
const DIGIT_VALUES: [u8; 256] = {
    let mut values = [0xff; 256];
    let mut digit = 0;
    while digit < 16 {
        values[DIGITS[digit] as usize] = digit as u8;
        digit += 1;
    }
    values
};

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
