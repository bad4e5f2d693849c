//! What a slot remembers of its principal's rights.

use crate::epoch::Epoch;
use crate::index::{ChannelIndex, DomainIndex, PrincipalIndex};

/// Rights a principal used last, stamped with the epoch of the channel's domain. Two channels
/// inline, sixteen more in a box from the third channel on. Part of a slot: never shared.
///
/// Each entry names its principal too, so a cache that is carried over to another principal by
/// mistake grants nothing.
#[derive(Debug, Default)]
pub struct RightCache {
    near: [Entry; 2],
    far: Option<Box<Far>>,
}

const _: () = assert!(size_of::<RightCache>() <= 40);

/// What was found for one channel.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Found {
    pub(crate) domain: DomainIndex,
    pub(crate) epoch: Epoch,
    pub(crate) verdict: u8,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    /// Principal and channel.
    key: u64,
    /// Domain above, four bits of the verdict below.
    domain_and_verdict: u32,
    epoch: u32,
}

#[derive(Debug, Default)]
struct Far {
    entries: [Entry; 16],
    /// Which entry makes room next.
    next: u8,
}

/// No principal has the highest index.
const NOBODY: u64 = u64::MAX;
const VERDICT_BITS: u32 = 4;

impl RightCache {
    /// Forgets everything, after [`Notice::RightsChanged`](crate::Notice::RightsChanged) for the
    /// slot's principal and when the slot changes its occupant.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The verdict kept for a channel, whether stale or not.
    #[inline]
    pub(crate) fn find(&mut self, who: PrincipalIndex, channel: ChannelIndex) -> Option<Found> {
        let key = key(who, channel);
        if self.near[0].key == key {
            return Some(self.near[0].found());
        }
        if self.near[1].key == key {
            return Some(self.near[1].found());
        }
        self.find_far(key)
    }

    /// Keeps a verdict, in place of an older one for the same channel, or of the one that was
    /// brought in longest ago.
    pub(crate) fn put(&mut self, who: PrincipalIndex, channel: ChannelIndex, found: Found) {
        let entry = Entry::new(key(who, channel), found);
        if let Some(near) = self.near.iter_mut().find(|near| near.key == entry.key) {
            *near = entry;
            return;
        }
        if let Some(near) = self.near.iter_mut().find(|near| near.key == NOBODY) {
            *near = entry;
            return;
        }
        let far = self.far.get_or_insert_default();
        if let Some(same) = far.entries.iter_mut().find(|far| far.key == entry.key) {
            *same = entry;
            return;
        }
        let at = usize::from(far.next) % far.entries.len();
        far.entries[at] = std::mem::replace(&mut self.near[1], entry);
        far.next = far.next.wrapping_add(1);
    }

    fn find_far(&mut self, key: u64) -> Option<Found> {
        let far = self.far.as_deref_mut()?;
        let hit = far.entries.iter_mut().find(|entry| entry.key == key)?;
        std::mem::swap(hit, &mut self.near[1]);
        Some(self.near[1].found())
    }
}

impl Entry {
    fn new(key: u64, found: Found) -> Self {
        debug_assert!(found.verdict < 1 << VERDICT_BITS);
        Self {
            key,
            domain_and_verdict: found.domain.get() << VERDICT_BITS | u32::from(found.verdict),
            epoch: found.epoch.get(),
        }
    }

    #[inline]
    fn found(&self) -> Found {
        Found {
            domain: DomainIndex::new(self.domain_and_verdict >> VERDICT_BITS),
            epoch: Epoch::of(self.epoch),
            verdict: self.domain_and_verdict as u8 & ((1 << VERDICT_BITS) - 1),
        }
    }
}

impl Default for Entry {
    fn default() -> Self {
        Self {
            key: NOBODY,
            domain_and_verdict: 0,
            epoch: 0,
        }
    }
}

#[inline]
fn key(who: PrincipalIndex, channel: ChannelIndex) -> u64 {
    u64::from(who.get()) << 32 | u64::from(channel.get())
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const WHO: PrincipalIndex = PrincipalIndex::new(3);

    fn found(verdict: u8) -> Found {
        Found {
            domain: DomainIndex::new(9),
            epoch: Epoch::of(4),
            verdict,
        }
    }

    fn verdict(cache: &mut RightCache, channel: u32) -> Option<u8> {
        cache
            .find(WHO, ChannelIndex::new(channel))
            .map(|found| found.verdict)
    }

    #[test]
    fn eighteen_channels_are_kept_and_two_need_no_box() {
        let mut cache = RightCache::default();
        for channel in 0..18 {
            cache.put(WHO, ChannelIndex::new(channel), found(channel as u8 % 16));
            assert_eq!(cache.far.is_some(), channel >= 2);
        }
        for channel in (0..18).chain(0..18).rev() {
            assert_eq!(verdict(&mut cache, channel), Some(channel as u8 % 16));
        }
        cache.clear();
        assert!((0..18).all(|channel| verdict(&mut cache, channel).is_none()));
    }

    #[test]
    fn newer_verdict_replaces_the_older_wherever_it_is() {
        let mut cache = RightCache::default();
        for round in 0..16 {
            for channel in 0..40 {
                cache.put(WHO, ChannelIndex::new(channel), found(round));
                assert_eq!(verdict(&mut cache, channel), Some(round));
            }
            for channel in 0..40 {
                assert!(verdict(&mut cache, channel).is_none_or(|verdict| verdict == round));
            }
        }
    }

    #[test]
    fn cache_of_one_principal_says_nothing_about_another() {
        let mut cache = RightCache::default();
        cache.put(WHO, ChannelIndex::new(1), found(3));
        assert!(
            cache
                .find(PrincipalIndex::new(4), ChannelIndex::new(1))
                .is_none()
        );
    }
}
