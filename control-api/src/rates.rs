//! How often mails are caused and people registered: per user, per e-mail address, per address that
//! asks, and all told.
//!
//! Counted before anybody is looked up, so that an answer does not tell who was found. What comes from
//! this machine is not counted by its source: most likely a proxy hands it on, and one of its clients
//! would shut out the others. Counters are kept in a table of fixed size; when it is full the older
//! half is forgotten early, and who was counted there begins anew. Registrations all told are counted
//! apart from it.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use authcache::EntityId;

use crate::clock::{Clock, lock};
use crate::config::RateLimits;
use crate::recent::Recent;
use crate::throttle::{network, site};

const HOUR_MS: u64 = 3_600_000;
/// How long a link in a mail is good, and is counted: whoever asks for links to somebody else's address
/// leaves a good one there.
pub(crate) const LINK_SECONDS: i64 = 15 * 60;
const LINKS_MS: u64 = LINK_SECONDS.unsigned_abs() * 1_000;
const MINUTE_MS: u64 = 60_000;
/// Users who register themselves from a /48 of IPv6, which one customer may have, for each of those
/// who may from one source.
const SITE_SOURCES: u32 = 4;
/// Counters of each half of the table; both take 5.1 MiB at most.
const COUNTERS_MAX: usize = 32_768;

/// Everything that is counted.
pub(crate) struct Rates {
    most: RateLimits,
    clock: Clock,
    hasher: RandomState,
    counted: Mutex<Counted>,
    refused: AtomicU64,
}

struct Counted {
    windows: Recent<Key, Window>,
    registrations: Window,
}

/// What a counter is for. Addresses of mail are kept as keyed hashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Key {
    Sender(EntityId),
    Invited(u64),
    Reset(u64),
    Verified(u64),
    ResetFrom(IpAddr),
    VerifiedFrom(IpAddr),
    RegisteredFrom(IpAddr),
    RegisteredFromSite(Ipv6Addr),
    RegisteredBy(u64),
}

/// What happened since a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Window {
    since_ms: u64,
    count: u32,
}

/// Something happened too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spent {
    /// When it may happen again, in seconds from now.
    pub(crate) seconds: u64,
}

impl Window {
    /// Milliseconds until one more fits.
    fn wait_ms(self, most: u32, span_ms: u64, now_ms: u64) -> u64 {
        let ends_ms = self.since_ms + span_ms;
        if self.count < most {
            return 0;
        }
        ends_ms.saturating_sub(now_ms)
    }

    fn counted(self, span_ms: u64, now_ms: u64) -> Window {
        if self.count == 0 || self.since_ms + span_ms <= now_ms {
            return Window {
                since_ms: now_ms,
                count: 1,
            };
        }
        Window {
            count: self.count.saturating_add(1),
            ..self
        }
    }
}

impl Rates {
    pub(crate) fn new(most: RateLimits, clock: Clock) -> Rates {
        Rates {
            most,
            clock,
            hasher: RandomState::new(),
            counted: Mutex::new(Counted {
                windows: Recent::new(HOUR_MS, COUNTERS_MAX),
                registrations: Window::default(),
            }),
            refused: AtomicU64::new(0),
        }
    }

    /// What was refused since the start.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a mail about an invitation.
    ///
    /// # Errors
    /// The sender caused too many mails.
    pub(crate) fn mail(&self, sender: EntityId) -> Result<(), Spent> {
        self.count(
            &[(Key::Sender(sender), self.most.mails_per_user, HOUR_MS)],
            false,
        )
    }

    /// Counts an invitation that is mailed to an address; says whether it may be. Who invites is not
    /// told: it would hear what address another user has.
    pub(crate) fn invited(&self, email: &str) -> bool {
        let address = Key::Invited(self.hasher.hash_one(email));
        let wanted = [(address, self.most.invitations_per_address, HOUR_MS)];
        self.count(&wanted, false).is_ok()
    }

    /// Counts a request for a link that sets another password.
    ///
    /// # Errors
    /// There were too many for the address of mail, or from the peer.
    pub(crate) fn reset(&self, peer: IpAddr, email: &str) -> Result<(), Spent> {
        let address = Key::Reset(self.hasher.hash_one(email));
        let mut wanted = vec![(address, self.most.links_per_address, LINKS_MS)];
        if let Some(source) = source(peer) {
            let source = Key::ResetFrom(source);
            wanted.push((source, self.most.links_per_source, LINKS_MS));
        }
        self.count(&wanted, false)
    }

    /// Counts a link that verifies an address; who asked for it is named, unless it comes with a
    /// registration, which was counted as such.
    ///
    /// # Errors
    /// There were too many for the address of mail, from the peer, or of the user.
    pub(crate) fn verification(
        &self,
        asked: Option<(EntityId, IpAddr)>,
        email: &str,
    ) -> Result<(), Spent> {
        let address = Key::Verified(self.hasher.hash_one(email));
        let mut wanted = vec![(address, self.most.links_per_address, LINKS_MS)];
        if let Some((sender, peer)) = asked {
            wanted.push((Key::Sender(sender), self.most.mails_per_user, HOUR_MS));
            if let Some(source) = source(peer) {
                let source = Key::VerifiedFrom(source);
                wanted.push((source, self.most.links_per_source, LINKS_MS));
            }
        }
        self.count(&wanted, false)
    }

    /// Counts a user who registers himself. Whoever shows the token of an open invitation is counted
    /// by it instead of all told, so that nobody can keep out those who are invited.
    ///
    /// # Errors
    /// There were too many, from the peer, by the invitation, or all told.
    pub(crate) fn registration(&self, peer: IpAddr, invitation: Option<&str>) -> Result<(), Spent> {
        let most = self.most.registrations_per_source;
        let mut wanted = Vec::new();
        if let Some(source) = source(peer) {
            wanted.push((Key::RegisteredFrom(source), most, HOUR_MS));
            if let IpAddr::V6(source) = source {
                let site = Key::RegisteredFromSite(site(source));
                wanted.push((site, most.saturating_mul(SITE_SOURCES), HOUR_MS));
            }
        }
        if let Some(token) = invitation {
            let token = Key::RegisteredBy(self.hasher.hash_one(token));
            wanted.push((token, most, HOUR_MS));
        }
        self.count(&wanted, invitation.is_none())
    }

    /// Counts in all of these or in none.
    fn count(&self, wanted: &[(Key, u32, u64)], registers: bool) -> Result<(), Spent> {
        let now_ms = self.clock.now_ms();
        let mut counted = lock(&self.counted);
        let counted = &mut *counted;
        let mut windows = Vec::with_capacity(wanted.len());
        let mut wait_ms = 0;
        for (key, most, span_ms) in wanted {
            let window = counted.windows.get_mut(key, now_ms);
            let window = window.map_or_else(Window::default, |window| *window);
            wait_ms = wait_ms.max(window.wait_ms(*most, *span_ms, now_ms));
            windows.push((*key, window.counted(*span_ms, now_ms)));
        }
        if registers {
            let all = counted.registrations;
            wait_ms = wait_ms.max(all.wait_ms(self.most.registrations, MINUTE_MS, now_ms));
        }
        if wait_ms > 0 {
            self.refused.fetch_add(1, Ordering::Relaxed);
            let seconds = wait_ms.div_ceil(1_000);
            return Err(Spent { seconds });
        }
        for (key, window) in windows {
            counted.windows.insert(key, window, now_ms);
        }
        if registers {
            counted.registrations = counted.registrations.counted(MINUTE_MS, now_ms);
        }
        Ok(())
    }
}

/// What a peer is counted by; none for this machine.
fn source(peer: IpAddr) -> Option<IpAddr> {
    let source = peer.to_canonical();
    (!source.is_loopback()).then(|| network(source))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: EntityId = EntityId::from_u128(1);
    const BOB: EntityId = EntityId::from_u128(2);

    fn rates() -> Rates {
        let most = RateLimits {
            mails_per_user: 4,
            invitations_per_address: 2,
            links_per_address: 2,
            links_per_source: 3,
            registrations_per_source: 2,
            registrations: 3,
        };
        Rates::new(most, Clock::start())
    }

    fn peer(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_window_takes_so_many_and_then_begins_anew() {
        let mut window = Window::default();
        for at in [5, 6, 7] {
            assert_eq!(window.wait_ms(3, 100, at), 0);
            window = window.counted(100, at);
        }
        assert_eq!(window.wait_ms(3, 100, 7), 98);
        assert_eq!(window.wait_ms(3, 100, 104), 1);
        assert_eq!(window.wait_ms(3, 100, 105), 0);
        window = window.counted(100, 105);
        assert_eq!((window.since_ms, window.count), (105, 1));
    }

    #[test]
    fn invitations_are_bounded_by_sender_and_their_mails_by_address() {
        let rates = rates();
        for _ in 0..4 {
            assert!(rates.mail(ANN).is_ok());
        }
        let spent = rates.mail(ANN).unwrap_err();
        assert!((1..=3_600).contains(&spent.seconds), "{spent:?}");
        assert!(rates.mail(BOB).is_ok());
        assert!(rates.invited("x@example.com"));
        assert!(rates.invited("x@example.com"));
        assert!(!rates.invited("x@example.com"));
        assert!(rates.invited("y@example.com"));
        assert_eq!(rates.refused(), 2);
    }

    #[test]
    fn links_are_bounded_by_kind_and_address_and_by_source() {
        let rates = rates();
        let (here, there) = (peer("192.0.2.1"), peer("192.0.2.2"));
        assert!(rates.reset(here, "x@example.com").is_ok());
        assert!(rates.reset(here, "x@example.com").is_ok());
        assert!(rates.reset(there, "x@example.com").is_err());
        // What was refused is not counted.
        assert!(rates.reset(here, "y@example.com").is_ok());
        assert!(rates.reset(here, "z@example.com").is_err());
        assert!(rates.reset(there, "z@example.com").is_ok());
        // Who is logged in has counters of its own.
        let verified = |peer, email| rates.verification(Some((ANN, peer)), email);
        for email in ["x@example.com", "y@example.com", "z@example.com"] {
            assert!(verified(here, email).is_ok());
        }
        assert!(verified(here, "a@example.com").is_err());
        assert!(verified(there, "a@example.com").is_ok());
        // One that comes with a registration is bounded by its address alone.
        assert!(rates.verification(None, "x@example.com").is_ok());
        assert!(rates.verification(None, "x@example.com").is_err());
    }

    #[test]
    fn what_comes_from_this_machine_is_not_counted_by_its_source() {
        let rates = Rates::new(
            RateLimits {
                links_per_source: 1,
                registrations_per_source: 1,
                ..RateLimits::default()
            },
            Clock::start(),
        );
        for peer in ["127.0.0.1", "127.0.0.2", "::1", "::ffff:127.0.0.1"].map(peer) {
            for n in 0..3 {
                let email = format!("{n}-{peer}@example.com");
                assert!(rates.reset(peer, &email).is_ok());
                assert!(rates.verification(Some((ANN, peer)), &email).is_ok());
                assert!(rates.registration(peer, None).is_ok());
            }
        }
    }

    #[test]
    fn registrations_are_bounded_by_source_and_all_told() {
        let rates = rates();
        for network in ["2001:db8::1", "2001:db8::2", "2001:db8:1::1"] {
            assert!(rates.registration(peer(network), None).is_ok());
        }
        let spent = rates.registration(peer("2001:db8::3"), None).unwrap_err();
        assert!(spent.seconds > 60, "its own network's hour: {spent:?}");
        let spent = rates.registration(peer("192.0.2.1"), None).unwrap_err();
        assert!(spent.seconds <= 60, "the minute of all: {spent:?}");
        // Who is invited is bounded by the invitation, and by the source as everybody.
        for n in 1..=2 {
            let there = peer(&format!("198.51.100.{n}"));
            assert!(rates.registration(there, Some("token")).is_ok());
        }
        let there = peer("198.51.100.3");
        assert!(rates.registration(there, Some("token")).is_err());
        assert!(rates.registration(there, Some("other")).is_ok());
        assert!(rates.registration(there, Some("third")).is_ok());
        assert!(rates.registration(there, Some("fourth")).is_err());
    }

    #[test]
    fn registrations_of_many_small_networks_are_bounded_by_the_site_they_are_of() {
        let most = RateLimits {
            registrations_per_source: 1,
            ..RateLimits::default()
        };
        let rates = Rates::new(most, Clock::start());
        let of_site = |n: u16| peer(&format!("2001:db8:7:{n:x}::1"));
        for n in 0..4 {
            assert!(rates.registration(of_site(n), None).is_ok());
        }
        let spent = rates.registration(of_site(4), None).unwrap_err();
        assert!(spent.seconds > 60, "the site's hour: {spent:?}");
        assert!(rates.registration(peer("2001:db8:8:4::1"), None).is_ok());
    }

    #[test]
    fn a_full_table_forgets_the_older_half_and_no_registration_all_told() {
        let rates = rates();
        for n in 0..3_u32 {
            let _ = rates.registration(IpAddr::from(n.to_be_bytes()), None);
        }
        for n in 0..u32::try_from(3 * COUNTERS_MAX).unwrap() {
            let _ = rates.reset(IpAddr::from(n.to_be_bytes()), &format!("{n}@example.com"));
        }
        let kept = lock(&rates.counted).windows.len();
        assert!(kept <= 2 * COUNTERS_MAX, "{kept}");
        assert!(rates.registration(peer("192.0.2.1"), None).is_err());
    }
}
