//! Domain epochs: counters that make what was judged earlier stale.
//!
//! The writer stores into the tables first and raises the epoch (Release) afterwards. Who loads
//! the epoch with Acquire and then looks into the tables sees at least the rights of that epoch,
//! so a judgement stamped with it is never older than its stamp says.

use crate::sync::{AtomicU32, Ordering};

/// A value of a domain's epoch. Equal epochs mean that nothing became stale in between.
///
/// It wraps after 2^32 bumps of one domain: a judgement that was not looked at meanwhile would
/// pass again during one of them. At 1000 changes per second that is once in 50 days and for a
/// millisecond, for an entry that has slept all the time.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u32);

impl Epoch {
    pub(crate) const fn of(number: u32) -> Self {
        Self(number)
    }

    /// The number of bumps, wrapping.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// The counter itself. One writer.
#[derive(Debug, Default)]
pub(crate) struct EpochCell(AtomicU32);

impl EpochCell {
    /// To be read before the tables: what was stored before this epoch began is visible after it.
    #[inline]
    pub(crate) fn now(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Acquire))
    }

    /// Good enough to compare a stamp with. May lag; the fence bounds by how much, because posting
    /// to a shard and draining its inbox order everything before it.
    #[inline]
    pub(crate) fn glance(&self) -> Epoch {
        Epoch(self.0.load(Ordering::Relaxed))
    }

    /// Makes everything stamped so far stale. After the table stores, never before.
    pub(crate) fn bump(&self) {
        let next = self.0.load(Ordering::Relaxed).wrapping_add(1);
        self.0.store(next, Ordering::Release);
    }
}
