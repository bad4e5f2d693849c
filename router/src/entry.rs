//! A subscriber in a list: 32 bits.

use std::fmt;

/// A subscriber's place in its shard, below 2^25. It outlives the subscriber's connections.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(u32);

impl SlotId {
    /// Number of slots a shard can have: 33 million.
    pub const LIMIT: u32 = 1 << 25;

    /// The slot with this number.
    ///
    /// # Panics
    /// From [`SlotId::LIMIT`] on.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        assert!(number < Self::LIMIT, "slots have 25 bits");
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The number as a position.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for SlotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SlotId({})", self.0)
    }
}

/// A shard of this broker, below 64.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(u8);

impl ShardId {
    /// Most shards of a broker: interest is a word of 64 bits.
    pub const LIMIT: u8 = 64;

    /// The shard with this number.
    ///
    /// # Panics
    /// From [`ShardId::LIMIT`] on.
    #[must_use]
    pub const fn new(number: u8) -> Self {
        assert!(number < Self::LIMIT, "at most 64 shards");
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The number as a position.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The bit in an interest word.
    #[must_use]
    pub const fn bit(self) -> u64 {
        1 << self.0
    }
}

/// A subscriber in a channel's list: 25 bits of slot and all that delivery of an ordinary message
/// needs to know.
#[derive(Copy, Clone, Default, PartialEq, Eq)]
pub struct Entry(u32);

const QOS_SHIFT: u32 = 25;
const VERSION5: u32 = 1 << 27;
const FILTERED: u32 = 1 << 28;
const NO_LOCAL: u32 = 1 << 29;
const RETAIN_AS_PUBLISHED: u32 = 1 << 30;
const BARE: u32 = 1 << 31;

/// What a subscription asks for, beside its filter.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wishes {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) version5: bool,
}

impl Entry {
    pub(crate) fn new(slot: SlotId, wishes: Wishes) -> Self {
        debug_assert!(wishes.qos <= 2);
        Self(
            slot.0
                | u32::from(wishes.qos & 3) << QOS_SHIFT
                | flag(wishes.version5, VERSION5)
                | flag(wishes.no_local, NO_LOCAL)
                | flag(wishes.retain_as_published, RETAIN_AS_PUBLISHED),
        )
    }

    pub(crate) const fn with_bare(self, bare: bool) -> Self {
        Self(self.0 & !BARE | flag(bare, BARE))
    }

    /// An entry whose subscriptions are all in the channel's filters.
    pub(crate) const fn filtered_in(slot: SlotId) -> Self {
        Self(slot.0 | FILTERED)
    }

    /// The subscriber.
    #[inline]
    #[must_use]
    pub const fn slot(self) -> SlotId {
        SlotId(self.0 & (SlotId::LIMIT - 1))
    }

    /// Granted QoS, 0 to 2. [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
    #[inline]
    #[must_use]
    pub const fn qos(self) -> u8 {
        (self.0 >> QOS_SHIFT & 3) as u8
    }

    /// Whether the subscriber speaks MQTT 5.
    #[inline]
    #[must_use]
    pub const fn version5(self) -> bool {
        self.0 & VERSION5 != 0
    }

    /// Whether the subscriptions are in the channel's filters; then nothing else here counts.
    #[inline]
    #[must_use]
    pub const fn filtered(self) -> bool {
        self.0 & FILTERED != 0
    }

    /// Not to be sent what the subscriber published itself. [MQTT-3.8.3-3]
    #[inline]
    #[must_use]
    pub const fn no_local(self) -> bool {
        self.0 & NO_LOCAL != 0
    }

    /// RETAIN is sent as the publisher set it. [MQTT-3.3.1-13]
    #[inline]
    #[must_use]
    pub const fn retain_as_published(self) -> bool {
        self.0 & RETAIN_AS_PUBLISHED != 0
    }

    /// Subscribed to the channel itself, not to its subtopics.
    #[inline]
    #[must_use]
    pub const fn bare(self) -> bool {
        self.0 & BARE != 0
    }

    pub(crate) const fn bits(self) -> u32 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) const fn wishes(self) -> Wishes {
        Wishes {
            qos: self.qos(),
            no_local: self.no_local(),
            retain_as_published: self.retain_as_published(),
            version5: self.version5(),
        }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("slot", &self.slot().get())
            .field("qos", &self.qos())
            .field("version5", &self.version5())
            .field("filtered", &self.filtered())
            .field("no_local", &self.no_local())
            .field("retain_as_published", &self.retain_as_published())
            .field("bare", &self.bare())
            .finish()
    }
}

const fn flag(set: bool, bit: u32) -> u32 {
    if set { bit } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entry_keeps_everything_in_32_bits() {
        assert_eq!(size_of::<Entry>(), 4);
        let slot = SlotId::new(SlotId::LIMIT - 1);
        for bits in 0..24 {
            let wishes = Wishes {
                qos: bits % 3,
                no_local: bits & 1 != 0,
                retain_as_published: bits & 2 != 0,
                version5: bits & 4 != 0,
            };
            let entry = Entry::new(slot, wishes).with_bare(bits & 8 != 0);
            assert_eq!(entry.slot(), slot);
            assert_eq!(entry.wishes(), wishes);
            assert_eq!(entry.bare(), bits & 8 != 0);
            assert!(!entry.filtered());
        }
        assert!(Entry::filtered_in(slot).filtered());
    }
}
