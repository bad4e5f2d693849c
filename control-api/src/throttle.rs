//! Budgets of failed logins: per address, and per address and principal.
//!
//! A principal is never locked for addresses that have not failed. IPv6 addresses count by /64, the
//! smallest network one customer gets.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};

use crate::recent::Recent;

/// Failures per window for one address and principal.
const PAIR_FAILURES: u32 = 10;
/// Failures per window for one address.
const ADDRESS_FAILURES: u32 = 100;
const WINDOW_MS: u64 = 60_000;
/// Budgets remembered, of each of the two kinds together: 64 bytes each, 4 MiB.
const BUDGETS_MAX: usize = 32_768;

/// All budgets.
pub(crate) struct Throttle {
    budgets: Recent<Key, Budget>,
    hasher: RandomState,
}

#[derive(PartialEq, Eq, Hash, Clone, Copy)]
struct Key {
    address: IpAddr,
    /// Hash of the user name; none for the address as a whole.
    principal: Option<u64>,
}

struct Budget {
    since_ms: u64,
    failures: u32,
    blocked_until_ms: u64,
}

impl Throttle {
    pub(crate) fn new() -> Throttle {
        Throttle {
            budgets: Recent::new(2 * WINDOW_MS, BUDGETS_MAX),
            hasher: RandomState::new(),
        }
    }

    /// Whether this login must not be looked at.
    pub(crate) fn is_blocked(&mut self, peer: Option<IpAddr>, login: &str, now_ms: u64) -> bool {
        self.keys(peer, login).into_iter().any(|(key, _)| {
            self.budgets
                .get_mut(&key, now_ms)
                .is_some_and(|budget| now_ms < budget.blocked_until_ms)
        })
    }

    /// Counts a failure.
    pub(crate) fn failed(&mut self, peer: Option<IpAddr>, login: &str, now_ms: u64) {
        for (key, most) in self.keys(peer, login) {
            let fresh = Budget {
                since_ms: now_ms,
                failures: 0,
                blocked_until_ms: 0,
            };
            let mut budget = match self.budgets.get_mut(&key, now_ms) {
                Some(budget) => std::mem::replace(budget, fresh),
                None => fresh,
            };
            if now_ms.saturating_sub(budget.since_ms) >= WINDOW_MS {
                budget.since_ms = now_ms;
                budget.failures = 0;
            }
            budget.failures += 1;
            if budget.failures >= most {
                budget.blocked_until_ms = now_ms + WINDOW_MS;
                budget.since_ms = now_ms;
                budget.failures = 0;
            }
            self.budgets.insert(key, budget, now_ms);
        }
    }

    fn keys(&self, peer: Option<IpAddr>, login: &str) -> [(Key, u32); 2] {
        let address = peer.map_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED), network);
        let principal = Some(self.hasher.hash_one(login));
        [
            (Key { address, principal }, PAIR_FAILURES),
            (
                Key {
                    address,
                    principal: None,
                },
                ADDRESS_FAILURES,
            ),
        ]
    }
}

/// The network that an address is counted by.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
    }
}

/// The network that a site of many networks has.
pub(crate) fn site(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn ten_failures_block_the_pair_for_a_minute_and_nobody_else() {
        let mut throttle = Throttle::new();
        let here = peer("192.0.2.1");
        for at in 0..10 {
            assert!(!throttle.is_blocked(here, "pump", at));
            throttle.failed(here, "pump", at);
        }
        assert!(throttle.is_blocked(here, "pump", 10));
        assert!(throttle.is_blocked(here, "pump", 9 + 59_999));
        assert!(!throttle.is_blocked(here, "valve", 10));
        assert!(
            !throttle.is_blocked(peer("192.0.2.2"), "pump", 10),
            "other addresses may log in"
        );
        assert!(!throttle.is_blocked(here, "pump", 9 + 60_000));
    }

    #[test]
    fn a_hundred_failures_block_the_address() {
        let mut throttle = Throttle::new();
        let here = peer("192.0.2.1");
        for n in 0..100 {
            throttle.failed(here, &format!("guess-{n}"), n);
        }
        assert!(throttle.is_blocked(here, "never-tried", 100));
        assert!(!throttle.is_blocked(peer("192.0.2.2"), "never-tried", 100));
    }

    #[test]
    fn slow_failures_are_forgiven() {
        let mut throttle = Throttle::new();
        for n in 0..100 {
            throttle.failed(None, "pump", n * 7_000);
            assert!(!throttle.is_blocked(None, "pump", n * 7_000));
        }
    }

    #[test]
    fn addresses_of_one_network_share_a_budget() {
        let mut throttle = Throttle::new();
        for n in 0..10 {
            throttle.failed(peer(&format!("2001:db8:1:2::{n}")), "pump", n);
        }
        assert!(throttle.is_blocked(peer("2001:db8:1:2:ffff::1"), "pump", 10));
        assert!(!throttle.is_blocked(peer("2001:db8:1:3::1"), "pump", 10));
        for n in 0..10 {
            throttle.failed(peer("::ffff:192.0.2.9"), "pump", n);
        }
        assert!(
            throttle.is_blocked(peer("192.0.2.9"), "pump", 10),
            "mapped is the same address"
        );
    }
}
