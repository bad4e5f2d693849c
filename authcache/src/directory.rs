//! Names and their state: ids and routes to dense indexes, and what is known per index.
//!
//! One writer, lock-free readers. Per domain, channel and principal one record of 32 bytes in an
//! array that never moves; ids in open-addressing tables (28 to 57 bytes per id), routes in maps.

use std::fmt::Write as _;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::FixedState;
use foldhash::quality::RandomState;
use papaya::{Equivalent, HashMap};

use crate::epoch::{Epoch, EpochCell};
use crate::index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
use crate::segments::Segments;
use crate::sync::{AtomicU32, AtomicU64, Ordering};
use crate::table::{IdTable, Occupancy};

/// Names and their state, shared by all shards.
pub struct Directory {
    pub(crate) domains: Segments<DomainWords>,
    pub(crate) channels: Segments<ChannelWords>,
    pub(crate) principals: Segments<PrincipalWords>,
    pub(crate) domain_ids: IdTable,
    pub(crate) channel_ids: IdTable,
    pub(crate) principal_ids: IdTable,
    pub(crate) domain_routes: HashMap<Box<str>, DomainIndex, RandomState>,
    pub(crate) channel_routes: HashMap<(DomainIndex, Box<str>), ChannelIndex, RandomState>,
    generation: AtomicU32,
}

/// What a principal is, as the broker needs it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PrincipalFacts {
    /// Its kind.
    pub kind: PrincipalKind,
    /// Whether it is enabled, and its domain too if it is a client.
    pub live: bool,
}

/// Kinds of principals.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum PrincipalKind {
    /// A device of one domain. All its rights are known.
    Client {
        /// Its domain.
        domain: DomainIndex,
    },
    /// A person or token, perhaps of many domains. A right not yet asked for is unknown.
    User,
    /// The broker itself; may do everything on live channels.
    System,
}

/// The open channel of a domain: 257 channel indexes with one right. Topics and filters with a
/// literal first level belong to the index of that level's hash, filters that begin with a
/// wildcard to the last one.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct OpenChannel {
    base: ChannelIndex,
}

/// Indexes of literal first levels in an open channel.
const OPEN_LITERAL: u32 = 256;
/// All indexes of an open channel.
pub(crate) const OPEN_WIDTH: u32 = OPEN_LITERAL + 1;

/// State bits of the words below.
pub(crate) mod state {
    /// The index is in use.
    pub(crate) const EXISTS: u32 = 1;
    /// Enabled.
    pub(crate) const LIVE: u32 = 2;
    /// Part of an open channel.
    pub(crate) const OPEN: u32 = 4;
    /// Principal kinds.
    pub(crate) const CLIENT: u32 = 8;
    pub(crate) const USER: u32 = 16;
    pub(crate) const SYSTEM: u32 = 32;
}

#[derive(Default)]
pub(crate) struct IdWords([AtomicU64; 2]);

#[derive(Default)]
pub(crate) struct DomainWords {
    pub(crate) id: IdWords,
    pub(crate) epoch: EpochCell,
    /// Part of the stamp of computed user rights.
    pub(crate) user_view: AtomicU32,
    pub(crate) state: AtomicU32,
    /// Base of the open channel, 0 for none (index 0 is `$SYS`).
    pub(crate) open: AtomicU32,
}

#[derive(Default)]
pub(crate) struct ChannelWords {
    pub(crate) id: IdWords,
    pub(crate) domain: AtomicU32,
    /// The index under which rights are kept: its own, or the base of the open channel.
    pub(crate) rights: AtomicU32,
    /// Raised when the index changes its meaning. Part of the stamp of rights.
    pub(crate) generation: AtomicU32,
    pub(crate) state: AtomicU32,
}

#[derive(Default)]
pub(crate) struct PrincipalWords {
    pub(crate) id: IdWords,
    /// Of a client.
    pub(crate) domain: AtomicU32,
    /// Raised when all its rights become void. Part of the stamp of rights.
    pub(crate) generation: AtomicU32,
    pub(crate) state: AtomicU32,
}

/// The writer's licences for the id tables.
pub(crate) struct IdOccupancy {
    pub(crate) domains: Occupancy,
    pub(crate) channels: Occupancy,
    pub(crate) principals: Occupancy,
}

impl Directory {
    pub(crate) fn new(domains: usize, channels: usize, principals: usize) -> (Self, IdOccupancy) {
        let (domain_ids, domain_occupancy) = IdTable::new(domains);
        let (channel_ids, channel_occupancy) = IdTable::new(channels);
        let (principal_ids, principal_occupancy) = IdTable::new(principals);
        let directory = Self {
            domains: Segments::new(),
            channels: Segments::new(),
            principals: Segments::new(),
            domain_ids,
            channel_ids,
            principal_ids,
            domain_routes: HashMap::with_hasher(RandomState::default()),
            channel_routes: HashMap::with_hasher(RandomState::default()),
            generation: AtomicU32::new(0),
        };
        let occupancy = IdOccupancy {
            domains: domain_occupancy,
            channels: channel_occupancy,
            principals: principal_occupancy,
        };
        (directory, occupancy)
    }

    /// The channel of a topic `m/<domain>/c/<channel>`; either part an id or a route. `None` if
    /// there is no such channel in that domain. Open channels and `$SYS` have no such name.
    #[must_use]
    pub fn resolve(&self, domain: &str, channel: &str) -> Option<ChannelIndex> {
        let domain = self.domain_by_name(domain)?;
        let found = match EntityId::from_text(channel) {
            Some(id) => self.channel(id)?,
            None => *self
                .channel_routes
                .pin()
                .get(&ChannelRoute(domain, channel))?,
        };
        let words = self.channels.get(found.get())?;
        let state = words.state.load(Ordering::Acquire);
        let ours = words.domain.load(Ordering::Relaxed) == domain.get();
        (ours && state & (state::EXISTS | state::OPEN) == state::EXISTS).then_some(found)
    }

    /// The topic prefix `m/<domain id>/c/<channel id>` of a channel, empty for open channels and
    /// `$SYS`, `None` for an index out of use. Built at each call (about 100 ns): kept, it would
    /// cost 100 bytes per channel, and only topics written with routes need it.
    #[must_use]
    pub fn prefix(&self, channel: ChannelIndex) -> Option<Arc<str>> {
        let words = self.channels.get(channel.get())?;
        let state = words.state.load(Ordering::Acquire);
        if state & state::EXISTS == 0 {
            return None;
        }
        if channel == ChannelIndex::SYS || state & state::OPEN != 0 {
            return Some(Arc::from(""));
        }
        let domain = self.domains.get(words.domain.load(Ordering::Relaxed))?;
        let mut prefix = String::with_capacity(2 + 36 + 3 + 36);
        write!(prefix, "m/{}/c/{}", domain.id.get(), words.id.get()).ok()?;
        Some(Arc::from(prefix))
    }

    /// The domain of a channel; [`DomainIndex::SYS`] for an index that was never used.
    #[must_use]
    pub fn domain_of(&self, channel: ChannelIndex) -> DomainIndex {
        let words = self.channels.get(channel.get());
        words.map_or(DomainIndex::SYS, |words| {
            DomainIndex::new(words.domain.load(Ordering::Relaxed))
        })
    }

    /// The id of a channel, the same for all indexes of an open channel.
    #[must_use]
    pub fn channel_id(&self, channel: ChannelIndex) -> Option<EntityId> {
        let words = self.channels.get(channel.get())?;
        let exists = words.state.load(Ordering::Acquire) & state::EXISTS != 0;
        exists.then(|| words.id.get())
    }

    /// The channel with this id; the first index of an open channel.
    #[must_use]
    pub fn channel(&self, id: EntityId) -> Option<ChannelIndex> {
        self.channel_ids
            .get(id.to_words())
            .map(|value| ChannelIndex::new(index_of(value)))
    }

    /// Whether the channel and its domain are enabled.
    #[must_use]
    pub fn is_live(&self, channel: ChannelIndex) -> bool {
        self.channels
            .get(channel.get())
            .is_some_and(|words| self.is_live_words(words))
    }

    pub(crate) fn is_live_words(&self, words: &ChannelWords) -> bool {
        words.state.load(Ordering::Acquire) & state::LIVE != 0
            && self.is_live_domain(words.domain.load(Ordering::Relaxed))
    }

    pub(crate) fn is_live_domain(&self, domain: u32) -> bool {
        let words = self.domains.get(domain);
        words.is_some_and(|words| words.state.load(Ordering::Acquire) & state::LIVE != 0)
    }

    /// The open channel of a domain, if it has one.
    #[must_use]
    pub fn open_channel(&self, domain: DomainIndex) -> Option<OpenChannel> {
        let base = self.domains.get(domain.get())?.open.load(Ordering::Acquire);
        (base != 0).then(|| OpenChannel {
            base: ChannelIndex::new(base),
        })
    }

    /// The domain with this id.
    #[must_use]
    pub fn domain(&self, id: EntityId) -> Option<DomainIndex> {
        self.domain_ids
            .get(id.to_words())
            .map(|value| DomainIndex::new(index_of(value)))
    }

    /// The domain with this id (a canonical UUID) or route.
    #[must_use]
    pub fn domain_by_name(&self, name: &str) -> Option<DomainIndex> {
        let found = match EntityId::from_text(name) {
            Some(id) => self.domain(id)?,
            None => *self.domain_routes.pin().get(name)?,
        };
        (found != DomainIndex::SYS).then_some(found)
    }

    /// The id of a domain.
    #[must_use]
    pub fn domain_id(&self, domain: DomainIndex) -> Option<EntityId> {
        let words = self.domains.get(domain.get())?;
        let exists = words.state.load(Ordering::Acquire) & state::EXISTS != 0;
        exists.then(|| words.id.get())
    }

    /// The principal with this id, if it is held here.
    #[must_use]
    pub fn principal(&self, id: EntityId) -> Option<PrincipalIndex> {
        self.principal_ids
            .get(id.to_words())
            .map(|value| PrincipalIndex::new(index_of(value)))
    }

    /// The id of a principal; [`EntityId::SYS`] for the broker and for an index never used.
    #[must_use]
    pub fn principal_id(&self, who: PrincipalIndex) -> EntityId {
        self.principals
            .get(who.get())
            .map_or(EntityId::SYS, |words| words.id.get())
    }

    /// Kind of a principal and whether it may take part. An index out of use is a user that is
    /// not live.
    #[must_use]
    pub fn principal_facts(&self, who: PrincipalIndex) -> PrincipalFacts {
        let Some(words) = self.principals.get(who.get()) else {
            return PrincipalFacts {
                kind: PrincipalKind::User,
                live: false,
            };
        };
        let state = words.state.load(Ordering::Acquire);
        let live = state & state::LIVE != 0;
        if state & state::CLIENT != 0 {
            let domain = words.domain.load(Ordering::Relaxed);
            PrincipalFacts {
                kind: PrincipalKind::Client {
                    domain: DomainIndex::new(domain),
                },
                live: live && self.is_live_domain(domain),
            }
        } else if state & state::SYSTEM != 0 {
            PrincipalFacts {
                kind: PrincipalKind::System,
                live,
            }
        } else {
            PrincipalFacts {
                kind: PrincipalKind::User,
                live,
            }
        }
    }

    /// Raised at each change of names. A memo of topic → channel holds while this and the domain's
    /// epoch are what they were *before* the topic was resolved.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::Acquire)
    }

    /// The epoch of a domain.
    #[inline]
    #[must_use]
    pub fn epoch(&self, domain: DomainIndex) -> Epoch {
        let words = self.domains.get(domain.get());
        words.map_or(Epoch::of(0), |words| words.epoch.now())
    }

    /// After names were stored, before the epoch is bumped.
    pub(crate) fn raise_generation(&self) {
        let next = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        self.generation.store(next, Ordering::Release);
    }
}

impl OpenChannel {
    /// The first index, under which rights are kept.
    #[must_use]
    pub const fn base(&self) -> ChannelIndex {
        self.base
    }

    /// The index of a topic, by its first level.
    #[must_use]
    pub fn of_topic(&self, topic: &str) -> ChannelIndex {
        let first = topic.split_once('/').map_or(topic, |(first, _)| first);
        // The same in all shards and at each start; it only spreads, nobody relies on it.
        let hash = FixedState::with_seed(0x7475_726e).hash_one(first.as_bytes());
        ChannelIndex::new(self.base.get() + hash as u32 % OPEN_LITERAL)
    }

    /// The index of a filter: that of its topics, or [`OpenChannel::wild`] if its first level is a
    /// wildcard.
    #[must_use]
    pub fn of_filter(&self, filter: &str) -> ChannelIndex {
        match filter.split_once('/').map_or(filter, |(first, _)| first) {
            "+" | "#" => self.wild(),
            _ => self.of_topic(filter),
        }
    }

    /// The index of filters that begin with a wildcard.
    #[must_use]
    pub const fn wild(&self) -> ChannelIndex {
        ChannelIndex::new(self.base.get() + OPEN_LITERAL)
    }

    /// All 257 indexes, for what spans them (retained messages of a wildcard filter).
    pub fn indexes(&self) -> impl Iterator<Item = ChannelIndex> + use<> {
        (self.base.get()..self.base.get() + OPEN_WIDTH).map(ChannelIndex::new)
    }
}

impl IdWords {
    pub(crate) fn get(&self) -> EntityId {
        EntityId::from_words([
            self.0[0].load(Ordering::Relaxed),
            self.0[1].load(Ordering::Relaxed),
        ])
    }

    /// Only before the index is made known.
    pub(crate) fn set(&self, id: EntityId) {
        for (word, part) in self.0.iter().zip(id.to_words()) {
            word.store(part, Ordering::Relaxed);
        }
    }
}

/// An index as value of an id table, whose values 0 and 1 mark slots.
pub(crate) const fn value_of(index: u32) -> u32 {
    index + 2
}

const fn index_of(value: u32) -> u32 {
    value - 2
}

/// Key of a channel route, borrowed. Hashes like the owned pair.
#[derive(Hash)]
pub(crate) struct ChannelRoute<'a>(pub(crate) DomainIndex, pub(crate) &'a str);

impl Equivalent<(DomainIndex, Box<str>)> for ChannelRoute<'_> {
    fn equivalent(&self, key: &(DomainIndex, Box<str>)) -> bool {
        self.0 == key.0 && self.1 == &*key.1
    }
}
