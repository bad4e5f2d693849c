//! The gate: the one place where a right is judged.

use std::cell::Cell;
use std::sync::Arc;

use thiserror::Error;

use crate::AuthCache;
use crate::cache::{Found, RightCache};
use crate::directory::{ChannelWords, PrincipalWords, state};
use crate::epoch::Epoch;
use crate::index::{ChannelIndex, DomainIndex, PrincipalIndex};
use crate::permitted::{OnChannel, Permitted};
use crate::right::{Action, Right};
use crate::sync::Ordering;

/// A shard's handle on the rights: one per thread, which counts its own lookups.
pub struct Gate {
    cache: Arc<AuthCache>,
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// Why something was not permitted.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, Error)]
pub enum Denied {
    /// The principal has no such right, or may not take part at all.
    #[error("no right on this channel")]
    NoRight,
    /// The channel or its domain is not enabled, or is gone.
    #[error("channel or domain is not enabled")]
    NotLive,
    /// The right of a user that was not asked for yet: ask control, then judge again.
    #[error("right not known yet")]
    Unknown,
    /// The broker has no lease: it may not trust what it knows.
    #[error("no lease from control")]
    LeaseOver,
}

/// The four bits kept in a [`RightCache`]: the right, and two more.
mod verdict {
    pub(super) const RIGHT: u8 = 0b0011;
    pub(super) const KNOWN: u8 = 0b0100;
    pub(super) const LIVE: u8 = 0b1000;
}

impl Gate {
    pub(crate) fn new(cache: Arc<AuthCache>) -> Self {
        Self {
            cache,
            hits: Cell::new(0),
            misses: Cell::new(0),
        }
    }

    /// Judges whether `who` may do `action` on the value's channel. With the channel in `cache`
    /// this is a scan of two entries and one relaxed load; else one line of the shared table.
    ///
    /// # Errors
    /// Gives the value back with the reason.
    #[inline]
    pub fn permit<T: OnChannel>(
        &self,
        who: PrincipalIndex,
        action: Action,
        cache: &mut RightCache,
        value: T,
    ) -> Result<Permitted<T>, (Denied, T)> {
        let channel = value.channel();
        let verdict = match cache.find(who, channel) {
            Some(found) if self.is_fresh(found) => {
                self.hits.set(self.hits.get() + 1);
                decide(found.verdict, action)
            }
            _ => self.look_up(who, action, cache, channel),
        };
        match verdict {
            Ok(()) => Ok(Permitted::new(value)),
            Err(denied) => Err((denied, value)),
        }
    }

    /// Judges straight from the shared table: for lists and for what waits in queues.
    ///
    /// # Errors
    /// The reason why not.
    pub fn allows(
        &self,
        who: PrincipalIndex,
        action: Action,
        channel: ChannelIndex,
    ) -> Result<(), Denied> {
        if self.cache.lease().is_over() {
            return Err(Denied::LeaseOver);
        }
        match self.cache.directory().channels.get(channel.get()) {
            Some(words) => decide(self.judge(who, words).verdict, action),
            None => Err(Denied::NotLive),
        }
    }

    /// The epoch of the channel's domain. Judge after reading it, stamp with it.
    #[must_use]
    pub fn epoch_of(&self, channel: ChannelIndex) -> Epoch {
        let directory = self.cache.directory();
        directory.epoch(directory.domain_of(channel))
    }

    /// Proof for a message that the broker makes itself, on the `$SYS` channel and no other.
    pub fn broker_made<T: OnChannel>(&self, value: T) -> Option<Permitted<T>> {
        (value.channel() == ChannelIndex::SYS).then(|| Permitted::new(value))
    }

    /// Proof for a message that another shard of this broker has judged inside the fence window.
    /// `None` when its channel is not live any more.
    pub fn handed_over<T: OnChannel>(&self, value: T) -> Option<Permitted<T>> {
        let live = self.cache.directory().is_live(value.channel());
        live.then(|| Permitted::new(value))
    }

    /// How often [`Gate::permit`] found the verdict with the connection, and how often it had to
    /// look into the shared table.
    #[must_use]
    pub fn lookups(&self) -> (u64, u64) {
        (self.hits.get(), self.misses.get())
    }

    /// What the gate judges by.
    #[must_use]
    pub fn cache(&self) -> &Arc<AuthCache> {
        &self.cache
    }

    #[inline]
    fn is_fresh(&self, found: Found) -> bool {
        let words = self.cache.directory().domains.get(found.domain.get());
        words.is_some_and(|words| words.epoch.glance() == found.epoch)
    }

    /// Judges from the table and keeps the verdict.
    #[cold]
    fn look_up(
        &self,
        who: PrincipalIndex,
        action: Action,
        cache: &mut RightCache,
        channel: ChannelIndex,
    ) -> Result<(), Denied> {
        self.misses.set(self.misses.get() + 1);
        if self.cache.lease().is_over() {
            return Err(Denied::LeaseOver);
        }
        let Some(words) = self.cache.directory().channels.get(channel.get()) else {
            return Err(Denied::NotLive);
        };
        // An open channel is kept once, under its first index.
        let kept = ChannelIndex::new(words.rights.load(Ordering::Relaxed));
        if kept != channel
            && let Some(found) = cache.find(who, kept)
            && self.is_fresh(found)
        {
            return decide(found.verdict, action);
        }
        let found = self.judge(who, words);
        // An index that is not live may be given to a new channel without a bump: not kept.
        if found.verdict & (verdict::KNOWN | verdict::LIVE) == verdict::KNOWN | verdict::LIVE {
            cache.put(who, kept, found);
        }
        decide(found.verdict, action)
    }

    fn judge(&self, who: PrincipalIndex, channel: &ChannelWords) -> Found {
        let directory = self.cache.directory();
        let domain = channel.domain.load(Ordering::Acquire);
        // The epoch first: see `epoch.rs`.
        let epoch = directory.epoch(DomainIndex::new(domain));
        let live = if directory.is_live_words(channel) {
            verdict::LIVE
        } else {
            0
        };
        let known = directory
            .principals
            .get(who.get())
            .map_or(verdict::KNOWN, |principal| {
                self.right(who, principal, channel, domain)
            });
        Found {
            domain: DomainIndex::new(domain),
            epoch,
            verdict: live | known,
        }
    }

    /// The right and whether it is known.
    fn right(
        &self,
        who: PrincipalIndex,
        principal: &PrincipalWords,
        channel: &ChannelWords,
        domain: u32,
    ) -> u8 {
        let state = principal.state.load(Ordering::Acquire);
        if state & state::LIVE == 0 {
            return verdict::KNOWN;
        }
        if state & state::SYSTEM != 0 {
            return verdict::KNOWN | verdict::RIGHT;
        }
        // A client has rights in its own domain; on `$SYS` if control says so.
        let foreign = principal.domain.load(Ordering::Relaxed) != domain;
        if state & state::CLIENT != 0 && foreign && domain != DomainIndex::SYS.get() {
            return verdict::KNOWN;
        }
        let stored = self.cache.stored_right(who, principal, channel);
        match stored {
            Some(right) => verdict::KNOWN | right.bits(),
            None if state & state::CLIENT != 0 => verdict::KNOWN,
            None => 0,
        }
    }
}

#[inline]
fn decide(found: u8, action: Action) -> Result<(), Denied> {
    if found & verdict::LIVE == 0 {
        Err(Denied::NotLive)
    } else if Right::from_bits(found & verdict::RIGHT).contains(action) {
        Ok(())
    } else if found & verdict::KNOWN == 0 {
        Err(Denied::Unknown)
    } else {
        Err(Denied::NoRight)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "gate_tests.rs"]
mod tests;
