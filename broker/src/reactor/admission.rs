//! Who may connect: bounds per address, before anything is read.

use std::collections::HashMap;
use std::net::IpAddr;
use std::os::fd::RawFd;
use std::time::Instant;

use parking_lot::Mutex;

/// Connections and connection attempts per address. Loopback is not counted: whoever is there
/// already runs on this machine, and load tools, bridges and proxies connect from there.
#[derive(Debug)]
pub(crate) struct Admission {
    connections_max: u32,
    rate_per_s: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    addresses: HashMap<IpAddr, Address>,
    /// The address of each counted connection, so that its slot need not hold it.
    counted: HashMap<RawFd, IpAddr>,
    /// How many addresses had a connection when those without one were forgotten last.
    busy: usize,
}

#[derive(Debug)]
struct Address {
    connections: u32,
    /// Attempts that may still be made, refilled with time.
    tokens: f64,
    refilled: Instant,
}

/// Attempts in a burst, in multiples of the rate.
const BURST: u32 = 4;

/// Addresses remembered without a connection: ~100 bytes each.
const ADDRESSES_MAX: usize = 65_536;

impl Admission {
    pub(crate) fn new(connections_max: u32, rate_per_s: u32) -> Admission {
        Admission {
            connections_max,
            rate_per_s,
            state: Mutex::default(),
        }
    }

    /// Whether a connection from `peer` under descriptor `fd` is let in.
    pub(crate) fn admit(&self, peer: IpAddr, fd: RawFd, now: Instant) -> bool {
        if peer.is_loopback() || (self.connections_max == 0 && self.rate_per_s == 0) {
            return true;
        }
        let mut state = self.state.lock();
        let admitted = state.admit(peer, self.connections_max, self.rate_per_s, now);
        if admitted {
            state.counted.insert(fd, peer);
        }
        admitted
    }

    /// Whether a peer that sends datagrams from `peer` is let in; until [`Admission::peer_left`] it
    /// counts as a connection.
    pub(crate) fn admit_peer(&self, peer: IpAddr, now: Instant) -> bool {
        if peer.is_loopback() || (self.connections_max == 0 && self.rate_per_s == 0) {
            return true;
        }
        self.state
            .lock()
            .admit(peer, self.connections_max, self.rate_per_s, now)
    }

    /// A peer that was let in by [`Admission::admit_peer`] is forgotten.
    pub(crate) fn peer_left(&self, peer: IpAddr) {
        if peer.is_loopback() || (self.connections_max == 0 && self.rate_per_s == 0) {
            return;
        }
        if let Some(address) = self.state.lock().addresses.get_mut(&peer) {
            address.connections = address.connections.saturating_sub(1);
        }
    }

    /// A connection is closed.
    pub(crate) fn left(&self, fd: RawFd) {
        if self.connections_max == 0 && self.rate_per_s == 0 {
            return;
        }
        let mut state = self.state.lock();
        if let Some(peer) = state.counted.remove(&fd)
            && let Some(address) = state.addresses.get_mut(&peer)
        {
            address.connections = address.connections.saturating_sub(1);
        }
    }
}

impl State {
    fn admit(&mut self, peer: IpAddr, connections_max: u32, rate_per_s: u32, now: Instant) -> bool {
        let burst = f64::from(rate_per_s.saturating_mul(BURST));
        // Not at each attempt: all of them may have connections.
        if self.addresses.len() >= ADDRESSES_MAX.max(2 * self.busy) {
            self.addresses.retain(|_, address| address.connections > 0);
            self.busy = self.addresses.len();
        }
        let address = self.addresses.entry(peer).or_insert(Address {
            connections: 0,
            tokens: burst,
            refilled: now,
        });
        let since = now
            .saturating_duration_since(address.refilled)
            .as_secs_f64();
        address.refilled = now;
        address.tokens = (address.tokens + since * f64::from(rate_per_s)).min(burst);
        if rate_per_s > 0 {
            if address.tokens < 1.0 {
                return false;
            }
            address.tokens -= 1.0;
        }
        if connections_max > 0 && address.connections >= connections_max {
            return false;
        }
        address.connections += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn address_over_its_connections_is_refused_until_one_leaves() {
        let admission = Admission::new(2, 0);
        let (peer, now) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        assert!(admission.admit(peer, 1, now) && admission.admit(peer, 2, now));
        assert!(!admission.admit(peer, 3, now));
        assert!(admission.admit(IpAddr::from([192, 0, 2, 2]), 4, now));
        admission.left(1);
        assert!(admission.admit(peer, 3, now));
    }

    #[test]
    fn attempts_are_refilled_with_time_up_to_the_burst() {
        let admission = Admission::new(0, 10);
        let (peer, now) = (IpAddr::from([192, 0, 2, 1]), Instant::now());
        let let_in = |at| (0..100).filter(|fd| admission.admit(peer, *fd, at)).count();
        assert_eq!(let_in(now), 40);
        assert_eq!(let_in(now + Duration::from_secs(1)), 10);
        assert_eq!(let_in(now + Duration::from_secs(3600)), 40);
    }

    #[test]
    fn loopback_is_not_counted() {
        let admission = Admission::new(1, 1);
        let peer = IpAddr::from([127, 0, 0, 1]);
        assert!((0..10).all(|fd| admission.admit(peer, fd, Instant::now())));
    }
}
