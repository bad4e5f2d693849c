//! What control knows, in memory: names, rights, epochs and the gate.
//!
//! A broker judges every publish and every delivery itself, at the rights of that moment, without
//! asking anybody and without a lock. This crate holds what it judges by.
//!
//! - [`AuthCache`] is the shared state. Its one [`Writer`] applies control's changes; any number
//!   of shards read.
//! - [`Gate`] judges and is the only maker of [`Permitted`] values, which the router demands.
//! - [`Directory`] turns names of topics into dense indexes.
//!
//! What it is not: no I/O, no clock, no async, no policy. Who may do what is computed by control;
//! here it is two bits per principal and channel. It depends on nothing else in the workspace.
//!
//! ```
//! use authcache::{
//!     Action, AuthCache, Capacity, Change, ChannelIndex, EntityId, Identity, OnChannel,
//!     PrincipalRecord, Right, RightCache, Status,
//! };
//!
//! struct Message(ChannelIndex);
//! impl OnChannel for Message {
//!     fn channel(&self) -> ChannelIndex {
//!         self.0
//!     }
//! }
//!
//! let (domain, channel, client) = (1, 2, 3);
//! let [domain, channel, client] = [domain, channel, client].map(EntityId::from_u128);
//! let (cache, mut writer) = AuthCache::new(Capacity::default());
//! cache.lease().unlimited();
//! let status = Status::Enabled;
//! writer.apply(&Change::DomainSet { id: domain, route: "plant".into(), status });
//! writer.apply(&Change::ChannelSet {
//!     id: channel, domain, route: Some("line".into()), status, open: false,
//! });
//! let who = writer.hold(&Identity {
//!     id: client, kind: PrincipalRecord::Client { domain }, status, credential: 1,
//!     rights: vec![(channel, Right::PUBLISH)],
//! });
//!
//! let gate = cache.gate();
//! let line = cache.directory().resolve("plant", "line").unwrap();
//! let mut rights = RightCache::default();
//! assert!(gate.permit(who, Action::Publish, &mut rights, Message(line)).is_ok());
//! assert!(gate.permit(who, Action::Subscribe, &mut rights, Message(line)).is_err());
//! ```

#![forbid(unsafe_code)]

mod cache;
pub mod change;
mod credential;
mod directory;
mod epoch;
pub mod feed;
mod gate;
mod index;
mod lease;
mod permitted;
mod right;
mod segments;
mod sync;
mod table;
mod writer;

use std::sync::Arc;

pub use cache::RightCache;
pub use change::{Cause, Change, Identity, Notice, PrincipalRecord, Status};
pub use credential::Credentials;
pub use directory::{Directory, OpenChannel, PrincipalFacts, PrincipalKind};
pub use epoch::Epoch;
pub use gate::{Denied, Gate};
pub use index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
pub use lease::Lease;
pub use permitted::{OnChannel, Permitted};
pub use right::{Action, Right};
pub use segments::Segments;
pub use writer::Writer;

use directory::{ChannelWords, PrincipalWords, state};
use sync::Ordering;
use table::PairTable;

/// The shared state of one broker: names, rights, credentials, lease.
pub struct AuthCache {
    directory: Directory,
    rights: PairTable,
    credentials: Credentials,
    lease: Lease,
}

/// Sizes to start with. Tables grow beyond them, except the credentials, which are bounded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Domains: 43 bytes each.
    pub domains: usize,
    /// Channels: 43 bytes each.
    pub channels: usize,
    /// Held principals: 43 bytes each.
    pub principals: usize,
    /// Rights, one per principal and channel: 17 bytes each.
    pub rights: usize,
    /// Most verified credentials remembered: about 120 bytes each.
    pub credentials: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self {
            domains: 64,
            channels: 1024,
            principals: 1024,
            rights: 4096,
            credentials: 100_000,
        }
    }
}

/// Sizes now, for the metrics.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes of the table of rights.
    pub rights_bytes: usize,
    /// Bytes of id tables and per-index records.
    pub directory_bytes: usize,
    /// Routes of domains and channels.
    pub routes: usize,
    /// Credentials remembered.
    pub credentials: usize,
}

impl AuthCache {
    /// An empty cache and the only licence to write to it. It denies everything until it has a
    /// lease: see [`Lease`].
    #[must_use]
    #[allow(clippy::new_ret_no_self)]
    pub fn new(capacity: Capacity) -> (Arc<Self>, Writer) {
        Writer::new(capacity)
    }

    /// A handle to judge with.
    #[must_use]
    pub fn gate(self: &Arc<Self>) -> Gate {
        Gate::new(Arc::clone(self))
    }

    /// Names and their state.
    #[inline]
    #[must_use]
    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    /// Credentials that were verified.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The broker's lease.
    #[must_use]
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Sizes now. Hits and misses of right caches are counted by the shards.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let directory = &self.directory;
        Stats {
            rights_bytes: self.rights.bytes(),
            directory_bytes: directory.domains.bytes()
                + directory.channels.bytes()
                + directory.principals.bytes()
                + directory.domain_ids.bytes()
                + directory.channel_ids.bytes()
                + directory.principal_ids.bytes(),
            routes: directory.domain_routes.len() + directory.channel_routes.len(),
            credentials: self.credentials.len(),
        }
    }

    /// The stored right of a principal on a channel, unless its stamp says that it is void.
    fn stored_right(
        &self,
        who: PrincipalIndex,
        principal: &PrincipalWords,
        channel: &ChannelWords,
    ) -> Option<Right> {
        let kept = channel.rights.load(Ordering::Relaxed);
        let word = RightWord(self.rights.get(pair(who, kept))?);
        let stamp = self.stamp(principal, channel);
        (word.stamp() == stamp).then(|| word.right())
    }

    /// What the stamp of a right must be now.
    ///
    /// It is the sum of counters that only rise: the principal's, the channel's, and for a user
    /// the domain's user view. As none ever falls, equal sums mean that none has moved (until the
    /// 29 bits wrap). So all rights of a principal, a channel or of the users of a domain are made
    /// void by one store, and an index can be given to another without sweeping the table.
    fn stamp(&self, principal: &PrincipalWords, channel: &ChannelWords) -> u32 {
        let mut stamp = principal
            .generation
            .load(Ordering::Acquire)
            .wrapping_add(channel.generation.load(Ordering::Acquire));
        if principal.state.load(Ordering::Relaxed) & state::USER != 0 {
            let domain = self
                .directory
                .domains
                .get(channel.domain.load(Ordering::Relaxed));
            let view = domain.map_or(0, |domain| domain.user_view.load(Ordering::Acquire));
            stamp = stamp.wrapping_add(view);
        }
        stamp & RightWord::STAMP_MASK
    }
}

/// A value of the table of rights: bit 31 set, 29 bits of stamp, two bits of right.
#[derive(Copy, Clone)]
struct RightWord(u32);

impl RightWord {
    const STAMP_MASK: u32 = (1 << 29) - 1;

    const fn new(stamp: u32, right: Right) -> Self {
        Self(1 << 31 | (stamp & Self::STAMP_MASK) << 2 | right.bits() as u32)
    }

    const fn stamp(self) -> u32 {
        self.0 >> 2 & Self::STAMP_MASK
    }

    const fn right(self) -> Right {
        Right::from_bits(self.0 as u8)
    }
}

/// Key of a right: the principal above, the channel's rights index below.
const fn pair(who: PrincipalIndex, kept: u32) -> [u64; 1] {
    [(who.get() as u64) << 32 | kept as u64]
}
