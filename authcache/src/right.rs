//! What a principal may do on a channel: two bits.

use std::ops::{BitAnd, BitOr, BitOrAssign};

use serde::{Deserialize, Serialize};

/// What somebody wants to do on a channel.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Send a message to the channel.
    Publish,
    /// Receive messages of the channel.
    Subscribe,
}

/// A set of [`Action`]s. The default is the empty set: a right that was taken away.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Right(u8);

impl Right {
    /// No right at all.
    pub const NONE: Self = Self(0);
    /// May send to the channel.
    pub const PUBLISH: Self = Self(0b01);
    /// May receive from the channel.
    pub const SUBSCRIBE: Self = Self(0b10);
    /// Both.
    pub const BOTH: Self = Self(0b11);

    /// The set with these bits; bits without meaning are ignored.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits & Self::BOTH.0)
    }

    /// The bits, below 4. (A value decoded from elsewhere may have had more.)
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0 & Self::BOTH.0
    }

    /// Whether `action` is in the set.
    #[must_use]
    pub const fn contains(self, action: Action) -> bool {
        let wanted = match action {
            Action::Publish => Self::PUBLISH.0,
            Action::Subscribe => Self::SUBSCRIBE.0,
        };
        self.0 & wanted != 0
    }

    /// Whether nothing is permitted.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bits() == 0
    }
}

impl BitOr for Right {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self::from_bits(self.0 | other.0)
    }
}

impl BitOrAssign for Right {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl BitAnd for Right {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self::from_bits(self.0 & other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_contains_what_was_put_in() {
        let mut right = Right::NONE;
        assert!(right.is_empty());
        right |= Right::PUBLISH;
        assert!(right.contains(Action::Publish) && !right.contains(Action::Subscribe));
        assert_eq!(right | Right::SUBSCRIBE, Right::BOTH);
        assert_eq!(Right::BOTH & Right::SUBSCRIBE, Right::SUBSCRIBE);
        assert_eq!(Right::from_bits(0xff), Right::BOTH);
    }
}
