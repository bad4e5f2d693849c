//! How long the broker may trust its rights without hearing from control.

use crate::sync::{AtomicU64, Ordering};

/// No lease: the state before the first grant and after [`Lease::end`].
const OVER: u64 = 0;
/// A lease that lives as long as the pipe to control.
const UNLIMITED: u64 = u64::MAX;

/// The lease of this broker. Starts without one: a broker that has not caught up with control
/// serves nothing.
///
/// Times are milliseconds of the caller's monotonic clock that counts suspend.
#[derive(Debug)]
pub struct Lease {
    until_ms: AtomicU64,
}

impl Lease {
    pub(crate) fn new() -> Self {
        Self {
            until_ms: AtomicU64::new(OVER),
        }
    }

    /// When the lease ends: `None` without a lease, `u64::MAX` for one without end.
    #[must_use]
    pub fn until(&self) -> Option<u64> {
        match self.until_ms.load(Ordering::Acquire) {
            OVER => None,
            until_ms => Some(until_ms),
        }
    }

    /// Control granted the lease until `until_ms`, counted from before the renewal was sent.
    pub fn renew(&self, until_ms: u64) {
        self.until_ms
            .store(until_ms.clamp(OVER + 1, UNLIMITED - 1), Ordering::Release);
    }

    /// Control lives in this process: the lease ends with the pipe, by [`Lease::end`].
    pub fn unlimited(&self) {
        self.until_ms.store(UNLIMITED, Ordering::Release);
    }

    /// Control is gone, or the lease was given up.
    pub fn end(&self) {
        self.until_ms.store(OVER, Ordering::Release);
    }

    /// Whether the lease covers `now_ms`. Asked after waiting for events and before each flush.
    #[must_use]
    pub fn valid(&self, now_ms: u64) -> bool {
        now_ms < self.until_ms.load(Ordering::Acquire)
    }

    /// Whether there is none at all. The gate has no clock and asks only this.
    pub(crate) fn is_over(&self) -> bool {
        self.until_ms.load(Ordering::Acquire) == OVER
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn lease_holds_from_grant_to_end() {
        let lease = Lease::new();
        assert!(!lease.valid(0) && lease.until().is_none() && lease.is_over());
        lease.renew(2_000);
        assert!(lease.valid(1_999) && !lease.valid(2_000));
        assert_eq!(lease.until(), Some(2_000));
        lease.unlimited();
        assert!(lease.valid(u64::MAX - 1));
        lease.end();
        assert!(!lease.valid(0) && lease.is_over());
    }
}
