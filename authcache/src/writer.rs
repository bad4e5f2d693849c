//! The one writer: turns control's changes into stores and notices.
//!
//! Order of stores, everywhere: tables and state words first, then the generation of names, then
//! the epoch. A reader that sees the new epoch sees all that it stands for.

mod channels;
mod principals;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::change::{Change, Identity, Notice, PrincipalRecord, Status};
use crate::directory::{Directory, IdOccupancy, state, value_of};
use crate::index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
use crate::right::Right;
use crate::sync::{AtomicU32, Ordering};
use crate::table::{Occupancy, PairTable};
use crate::{AuthCache, Capacity, Credentials, Lease};

/// The licence to change an [`AuthCache`]. There is one.
pub struct Writer {
    cache: Arc<AuthCache>,
    ids: IdOccupancy,
    rights: Occupancy,
    domains: Pool,
    channels: Pool,
    /// First indexes of open channels that were in use and are free again.
    open_channels: Pool,
    principals: Pool,
    domain_routes: HashMap<DomainIndex, Box<str>, RandomState>,
    channel_routes: HashMap<ChannelIndex, (DomainIndex, Box<str>), RandomState>,
    held: HashMap<EntityId, Held, RandomState>,
    /// On which channels the right of a held user was ever told.
    user_channels: HashMap<EntityId, HashSet<ChannelIndex, RandomState>, RandomState>,
}

/// A held principal, as far as readers do not need it.
struct Held {
    index: PrincipalIndex,
    kind: PrincipalRecord,
    credential: u64,
    /// Channels on which a client has a right, to notice rights that an identity lacks.
    granted: usize,
}

/// Indexes to give out. A removed one rests for two fences: the fence under way when it was
/// removed may have begun before.
#[derive(Default)]
struct Pool {
    next: u32,
    free: Vec<u32>,
    resting: Vec<u32>,
    removed: Vec<u32>,
}

impl Writer {
    pub(crate) fn new(capacity: Capacity) -> (Arc<AuthCache>, Self) {
        let (directory, ids) =
            Directory::new(capacity.domains, capacity.channels, capacity.principals);
        let (rights, occupancy) = PairTable::new(capacity.rights);
        let cache = Arc::new(AuthCache {
            directory,
            rights,
            credentials: Credentials::new(capacity.credentials),
            lease: Lease::new(),
        });
        let mut writer = Self {
            cache: Arc::clone(&cache),
            ids,
            rights: occupancy,
            domains: Pool::default(),
            channels: Pool::default(),
            open_channels: Pool::default(),
            principals: Pool::default(),
            domain_routes: HashMap::default(),
            channel_routes: HashMap::default(),
            held: HashMap::default(),
            user_channels: HashMap::default(),
        };
        writer.make_sys();
        (cache, writer)
    }

    /// Applies one change. Changes of principals that are not held, and of channels in domains
    /// that do not exist, are ignored. The notices go to every shard before the fence.
    pub fn apply(&mut self, change: &Change) -> Vec<Notice> {
        let mut notices = Vec::new();
        match *change {
            Change::DomainSet {
                id,
                ref route,
                status,
            } => {
                self.set_domain(id, route, status, &mut notices);
            }
            Change::DomainRemoved { id } => self.remove_domain(id, &mut notices),
            Change::ChannelSet {
                id,
                domain,
                ref route,
                status,
                open,
            } => {
                self.set_channel(id, domain, route.as_deref(), status, open, &mut notices);
            }
            Change::ChannelRemoved { id } => self.remove_channel_by_id(id, &mut notices),
            Change::PrincipalSet {
                id,
                kind: _,
                status,
                credential,
            } => {
                self.set_principal(id, status, credential, &mut notices);
            }
            Change::PrincipalRemoved { id } => self.remove_principal(id, &mut notices),
            Change::RightSet {
                principal,
                channel,
                right,
            } => {
                self.change_right(principal, channel, right, &mut notices);
            }
            Change::UserRightsStale { domain } => self.void_user_rights(domain, &mut notices),
        }
        notices
    }

    /// An identified principal enters with its rights, or is brought up to date. It stays held
    /// until it is removed or [released](Writer::release).
    pub fn hold(&mut self, identity: &Identity) -> PrincipalIndex {
        let (index, changed) = self.refresh(identity);
        if changed && let Some(domain) = self.home_of(identity.kind) {
            // Rights kept by slots of this principal are stale; there is no notice to say so.
            self.bump(domain);
            self.bump(DomainIndex::SYS);
        }
        index
    }

    /// The last session of a principal has ended. Its index is reused after the next fence.
    pub fn release(&mut self, id: EntityId) {
        self.drop_held(id);
    }

    /// Ids of all held principals, for the next Hello.
    #[must_use]
    pub fn held(&self) -> Vec<EntityId> {
        self.held.keys().copied().collect()
    }

    /// Replaces everything by a snapshot: directory `changes` (domains before their channels) and
    /// the `identities` of the principals held. What is not in it is removed.
    pub fn load(&mut self, changes: &[Change], identities: &[Identity]) -> Vec<Notice> {
        let mut notices = Vec::new();
        let mut named = HashSet::new();
        for change in changes {
            match change {
                Change::DomainSet { id, .. } | Change::ChannelSet { id, .. } => named.insert(*id),
                Change::DomainRemoved { .. }
                | Change::ChannelRemoved { .. }
                | Change::PrincipalSet { .. }
                | Change::PrincipalRemoved { .. }
                | Change::RightSet { .. }
                | Change::UserRightsStale { .. } => false,
            };
        }
        // Removals first: a route may have passed from one that is gone to one that is new.
        for id in self
            .domain_ids()
            .filter(|id| !named.contains(id))
            .collect::<Vec<_>>()
        {
            self.remove_domain(id, &mut notices);
        }
        for id in self
            .channel_ids()
            .filter(|id| !named.contains(id))
            .collect::<Vec<_>>()
        {
            self.remove_channel_by_id(id, &mut notices);
        }
        for change in changes {
            notices.extend(self.apply(change));
        }
        let current: HashSet<EntityId> = identities.iter().map(|identity| identity.id).collect();
        for id in self.held().into_iter().filter(|id| !current.contains(id)) {
            self.remove_principal(id, &mut notices);
        }
        for identity in identities {
            self.reload_principal(identity, &mut notices);
        }
        // Role changes in the gap are not in a snapshot.
        for id in self.domain_ids().collect::<Vec<_>>() {
            self.void_user_rights(id, &mut notices);
        }
        dedup(notices)
    }

    /// Records the right of a user on a channel as control computed it; empty for none. If it
    /// differs from what was known, the domain's epoch is bumped.
    pub fn set_right(&mut self, who: PrincipalIndex, channel: ChannelIndex, right: Right) {
        let before = self.stored(who, channel);
        if before == Some(right) {
            return;
        }
        self.store_right(who, channel, right);
        if before.is_some() {
            self.bump(self.cache.directory.domain_of(channel));
        }
    }

    /// The rights of users in a domain that are known, as (user, channel): whoever asks control for
    /// all of them anew, and applies each as [`Change::RightSet`], need not apply
    /// [`Change::UserRightsStale`]. `None` when there are more than `most`.
    #[must_use]
    pub fn known_user_rights(
        &self,
        domain: EntityId,
        most: usize,
    ) -> Option<Vec<(EntityId, EntityId)>> {
        let directory = &self.cache.directory;
        let Some(domain) = directory.domain(domain) else {
            return Some(Vec::new());
        };
        let mut known = Vec::new();
        for (user, channels) in &self.user_channels {
            let Some(held) = self.held.get(user) else {
                continue;
            };
            for &channel in channels {
                let here = directory.domain_of(channel) == domain;
                if !here || self.stored(held.index, channel).is_none() {
                    continue;
                }
                if known.len() == most {
                    return None;
                }
                known.extend(directory.channel_id(channel).map(|id| (*user, id)));
            }
        }
        Some(known)
    }

    /// A fence has passed: indexes removed before it began may be reused.
    pub fn fence_passed(&mut self) {
        for pool in [
            &mut self.domains,
            &mut self.channels,
            &mut self.open_channels,
            &mut self.principals,
        ] {
            pool.fence_passed();
        }
    }

    /// Domain, channel and principal 0: `$SYS` and the broker itself.
    fn make_sys(&mut self) {
        let directory = &self.cache.directory;
        let domain = directory.domains.grow(self.domains.take());
        domain.state.store(state::LIVE, Ordering::Release);
        let index = self.channels.take();
        let channel = directory.channels.grow(index);
        channel
            .state
            .store(state::EXISTS | state::LIVE, Ordering::Release);
        let key = EntityId::SYS.to_words();
        directory
            .channel_ids
            .set(&mut self.ids.channels, key, value_of(index), |_, _| true);
        let principal = directory.principals.grow(self.principals.take());
        principal
            .state
            .store(state::SYSTEM | state::LIVE, Ordering::Release);
    }

    fn set_domain(&mut self, id: EntityId, route: &str, status: Status, out: &mut Vec<Notice>) {
        if id == EntityId::SYS {
            return;
        }
        let known = self.cache.directory.domain(id);
        let index = known.unwrap_or_else(|| DomainIndex::new(self.domains.take()));
        let words = self.cache.directory.domains.grow(index.get());
        let before = words.state.load(Ordering::Relaxed);
        let after = state::EXISTS | live_bit(status);
        if known.is_none() {
            words.id.set(id);
        }
        words.state.store(after, Ordering::Release);
        if known.is_none() {
            let key = id.to_words();
            let ids = &self.cache.directory.domain_ids;
            ids.set(&mut self.ids.domains, key, value_of(index.get()), |_, _| {
                true
            });
        }
        let renamed = self.set_domain_route(index, route);
        if renamed || known.is_none() {
            self.cache.directory.raise_generation();
        }
        if known.is_some() && (renamed || before != after) {
            self.bump_with_notice(index, out);
        }
        if known.is_some() && before != after && !status.is_live() {
            out.push(Notice::DomainClosed(index));
        }
    }

    fn set_domain_route(&mut self, index: DomainIndex, route: &str) -> bool {
        let former = self.domain_routes.get(&index).map(|former| &**former);
        if former.unwrap_or_default() == route {
            return false;
        }
        let routes = self.cache.directory.domain_routes.pin();
        if let Some(former) = self.domain_routes.remove(&index)
            && routes.get(&former) == Some(&index)
        {
            routes.remove(&former);
        }
        if !route.is_empty() {
            routes.insert(route.into(), index);
            self.domain_routes.insert(index, route.into());
        }
        true
    }

    fn remove_domain(&mut self, id: EntityId, out: &mut Vec<Notice>) {
        let Some(index) = self.cache.directory.domain(id) else {
            return;
        };
        if index == DomainIndex::SYS {
            return;
        }
        let words = self.cache.directory.domains.grow(index.get());
        words.state.store(0, Ordering::Release);
        words.open.store(0, Ordering::Release);
        self.cache.directory.domain_ids.remove(id.to_words());
        self.set_domain_route(index, "");
        self.cache.directory.raise_generation();
        self.bump_with_notice(index, out);
        out.push(Notice::DomainClosed(index));
        let inside: Vec<_> = self.channels_of(index).collect();
        for channel in inside {
            self.remove_channel(channel, out);
        }
        let clients: Vec<_> = self
            .held
            .iter()
            .filter(|(_, held)| held.kind == PrincipalRecord::Client { domain: id })
            .map(|(id, _)| *id)
            .collect();
        for client in clients {
            self.remove_principal(client, out);
        }
        self.domains.give_back(index.get());
    }

    fn void_user_rights(&mut self, domain: EntityId, out: &mut Vec<Notice>) {
        let Some(index) = self.cache.directory.domain(domain) else {
            return;
        };
        raise(&self.cache.directory.domains.grow(index.get()).user_view);
        self.bump_with_notice(index, out);
    }

    fn bump(&self, domain: DomainIndex) {
        self.cache.directory.domains.grow(domain.get()).epoch.bump();
    }

    fn bump_with_notice(&self, domain: DomainIndex, out: &mut Vec<Notice>) {
        self.bump(domain);
        let notice = Notice::EpochBumped(domain);
        if !out.contains(&notice) {
            out.push(notice);
        }
    }

    fn domain_ids(&self) -> impl Iterator<Item = EntityId> {
        (1..self.domains.next)
            .filter_map(|domain| self.cache.directory.domain_id(DomainIndex::new(domain)))
    }
}

impl Pool {
    fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        })
    }

    fn give_back(&mut self, index: u32) {
        self.removed.push(index);
    }

    fn fence_passed(&mut self) {
        self.free.append(&mut self.resting);
        self.resting = std::mem::take(&mut self.removed);
    }
}

const fn live_bit(status: Status) -> u32 {
    if status.is_live() { state::LIVE } else { 0 }
}

fn raise(counter: &AtomicU32) {
    let next = counter.load(Ordering::Relaxed).wrapping_add(1);
    counter.store(next, Ordering::Release);
}

/// Each notice once, where it stood first.
fn dedup(notices: Vec<Notice>) -> Vec<Notice> {
    let mut seen = HashSet::new();
    notices
        .into_iter()
        .filter(|notice| seen.insert(*notice))
        .collect()
}
