//! Which shards want the messages of a channel.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use authcache::{ChannelIndex, Segments};

use crate::entry::ShardId;

/// Per channel 24 bytes, shared by all shards, read at each publish. A shard sets its bit before
/// SUBACK leaves and clears it when its list is empty, so whoever publishes after it has learnt of
/// a SUBACK finds the bit.
#[derive(Debug, Default)]
pub struct Interest {
    channels: Segments<Words>,
}

#[derive(Debug, Default)]
struct Words {
    /// Shards with a subscriber, live or dormant.
    shards: AtomicU64,
    /// Shards where the subtopic decides who receives.
    filters: AtomicU64,
    /// Groups of shared subscriptions.
    groups: AtomicU32,
}

impl Interest {
    /// No interest anywhere.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            channels: Segments::new(),
        }
    }

    /// Shards that have subscribers of the channel, one bit each. Groups are not counted.
    #[inline]
    #[must_use]
    pub fn shards(&self, channel: ChannelIndex) -> u64 {
        self.channels
            .get(channel.get())
            .map_or(0, |words| words.shards.load(Ordering::Acquire))
    }

    /// Shards where the subtopic decides who receives (filters, or subscriptions to the channel
    /// itself). Where there are none, messages of different subtopics may be routed as one run.
    #[inline]
    #[must_use]
    pub fn with_filters(&self, channel: ChannelIndex) -> u64 {
        self.channels
            .get(channel.get())
            .map_or(0, |words| words.filters.load(Ordering::Acquire))
    }

    /// Whether the channel has groups of shared subscriptions.
    #[inline]
    #[must_use]
    pub fn has_groups(&self, channel: ChannelIndex) -> bool {
        let words = self.channels.get(channel.get());
        words.is_some_and(|words| words.groups.load(Ordering::Acquire) != 0)
    }

    /// A shard has begun anew, without any subscriber: its bits go.
    pub fn forget_shard(&self, shard: ShardId) {
        for words in self.channels.iter() {
            set(&words.shards, shard, false);
            set(&words.filters, shard, false);
        }
    }

    pub(crate) fn set_shard(&self, channel: ChannelIndex, shard: ShardId, on: bool) {
        set(&self.channels.grow(channel.get()).shards, shard, on);
    }

    pub(crate) fn set_filters(&self, channel: ChannelIndex, shard: ShardId, on: bool) {
        set(&self.channels.grow(channel.get()).filters, shard, on);
    }

    pub(crate) fn set_groups(&self, channel: ChannelIndex, groups: u32) {
        self.channels
            .grow(channel.get())
            .groups
            .store(groups, Ordering::Release);
    }
}

fn set(word: &AtomicU64, shard: ShardId, on: bool) {
    if on {
        word.fetch_or(shard.bit(), Ordering::AcqRel);
    } else {
        word.fetch_and(!shard.bit(), Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shard_sets_and_clears_its_own_bit() {
        let interest = Interest::new();
        let channel = ChannelIndex::new(70_000);
        assert_eq!(interest.shards(channel), 0);
        interest.set_shard(channel, ShardId::new(0), true);
        interest.set_shard(channel, ShardId::new(63), true);
        interest.set_filters(channel, ShardId::new(63), true);
        assert_eq!(interest.shards(channel), 1 | 1 << 63);
        interest.set_shard(channel, ShardId::new(0), false);
        assert_eq!(interest.shards(channel), 1 << 63);
        assert_eq!(interest.with_filters(channel), 1 << 63);
        assert!(!interest.has_groups(channel));
        interest.set_groups(channel, 2);
        assert!(interest.has_groups(channel));
        interest.forget_shard(ShardId::new(63));
        assert_eq!(interest.shards(channel) | interest.with_filters(channel), 0);
        assert!(interest.has_groups(channel));
    }
}
