//! The one writer: turns control's changes into stores and notices.
//!
//! Order of stores, everywhere: tables and state words first, then the generation of names, then
//! the epoch. A reader that sees the new epoch sees all that it stands for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::change::{Cause, Change, Identity, Notice, PrincipalRecord, Status};
use crate::directory::{ChannelRoute, Directory, IdOccupancy, OPEN_WIDTH, state, value_of};
use crate::index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
use crate::right::Right;
use crate::sync::{AtomicU32, Ordering};
use crate::table::{Occupancy, PairTable};
use crate::{AuthCache, Capacity, Credentials, Lease, RightWord, pair};

/// The licence to change an [`AuthCache`]. There is one.
pub struct Writer {
    cache: Arc<AuthCache>,
    ids: IdOccupancy,
    rights: Occupancy,
    domains: Pool,
    channels: Pool,
    /// First indexes of blocks of [`OPEN_WIDTH`] that were in use and are free again.
    open_channels: Pool,
    principals: Pool,
    domain_routes: HashMap<DomainIndex, Box<str>, RandomState>,
    channel_routes: HashMap<ChannelIndex, (DomainIndex, Box<str>), RandomState>,
    held: HashMap<EntityId, Held, RandomState>,
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

    fn set_channel(
        &mut self,
        id: EntityId,
        domain: EntityId,
        route: Option<&str>,
        status: Status,
        open: bool,
        out: &mut Vec<Notice>,
    ) {
        let Some(domain) = self.cache.directory.domain(domain) else {
            return;
        };
        if id == EntityId::SYS {
            return;
        }
        let mut known = self.cache.directory.channel(id);
        if let Some(index) = known
            && (self.cache.directory.domain_of(index) != domain || self.is_open(index) != open)
        {
            // Rights and subscriptions belong to the channel where it was.
            self.remove_channel(index, out);
            known = None;
        }
        let index = known.unwrap_or_else(|| self.make_channel(id, domain, open));
        let mut changed = false;
        for part in self.parts_of(index, open) {
            let words = self.cache.directory.channels.grow(part);
            let before = words.state.load(Ordering::Relaxed);
            let after = before & !state::LIVE | live_bit(status);
            words.state.store(after, Ordering::Release);
            changed |= before != after;
        }
        let renamed = !open && self.set_channel_route(index, domain, route);
        if renamed || known.is_none() {
            self.cache.directory.raise_generation();
        }
        if known.is_some() && (renamed || changed) {
            self.bump_with_notice(domain, out);
        }
    }

    /// A new index, not yet live.
    fn make_channel(&mut self, id: EntityId, domain: DomainIndex, open: bool) -> ChannelIndex {
        let first = if open {
            self.take_open_block()
        } else {
            self.channels.take()
        };
        let directory = &self.cache.directory;
        for part in self.parts_of(ChannelIndex::new(first), open) {
            let words = directory.channels.grow(part);
            words.id.set(id);
            words.domain.store(domain.get(), Ordering::Release);
            words.rights.store(first, Ordering::Release);
            let state = state::EXISTS | if open { state::OPEN } else { 0 };
            words.state.store(state, Ordering::Release);
        }
        if open {
            directory
                .domains
                .grow(domain.get())
                .open
                .store(first, Ordering::Release);
        }
        let ids = &directory.channel_ids;
        ids.set(
            &mut self.ids.channels,
            id.to_words(),
            value_of(first),
            |_, _| true,
        );
        ChannelIndex::new(first)
    }

    fn take_open_block(&mut self) -> u32 {
        self.open_channels.free.pop().unwrap_or_else(|| {
            let first = self.channels.next;
            self.channels.next += OPEN_WIDTH;
            first
        })
    }

    fn set_channel_route(
        &mut self,
        index: ChannelIndex,
        domain: DomainIndex,
        route: Option<&str>,
    ) -> bool {
        let route = route.filter(|route| !route.is_empty());
        let former = self.channel_routes.get(&index);
        if former.map(|(_, former)| &**former) == route {
            return false;
        }
        let routes = self.cache.directory.channel_routes.pin();
        if let Some((domain, former)) = self.channel_routes.remove(&index) {
            let key = ChannelRoute(domain, &former);
            if routes.get(&key) == Some(&index) {
                routes.remove(&key);
            }
        }
        if let Some(route) = route {
            routes.insert((domain, route.into()), index);
            self.channel_routes.insert(index, (domain, route.into()));
        }
        true
    }

    fn remove_channel_by_id(&mut self, id: EntityId, out: &mut Vec<Notice>) {
        if id != EntityId::SYS
            && let Some(index) = self.cache.directory.channel(id)
        {
            self.remove_channel(index, out);
        }
    }

    fn remove_channel(&mut self, index: ChannelIndex, out: &mut Vec<Notice>) {
        let open = self.is_open(index);
        let domain = self.cache.directory.domain_of(index);
        self.set_channel_route(index, domain, None);
        let directory = &self.cache.directory;
        if let Some(id) = directory.channel_id(index) {
            directory.channel_ids.remove(id.to_words());
        }
        let home = directory.domains.grow(domain.get());
        if open && home.open.load(Ordering::Relaxed) == index.get() {
            home.open.store(0, Ordering::Release);
        }
        for part in self.parts_of(index, open) {
            let words = directory.channels.grow(part);
            words.state.store(0, Ordering::Release);
            raise(&words.generation);
            out.push(Notice::ChannelRemoved(ChannelIndex::new(part)));
        }
        directory.raise_generation();
        self.bump_with_notice(domain, out);
        let pool = if open {
            &mut self.open_channels
        } else {
            &mut self.channels
        };
        pool.give_back(index.get());
    }

    fn set_principal(
        &mut self,
        id: EntityId,
        status: Status,
        credential: u64,
        out: &mut Vec<Notice>,
    ) {
        let Some(held) = self.held.get_mut(&id) else {
            return;
        };
        let index = held.index;
        if held.credential != credential {
            held.credential = credential;
            self.cache.credentials.hold(index, credential);
            out.push(Notice::PrincipalClosed(index, Cause::CredentialChanged));
        }
        let words = self.cache.directory.principals.grow(index.get());
        let before = words.state.load(Ordering::Relaxed);
        let after = before & !state::LIVE | live_bit(status);
        if before == after {
            return;
        }
        words.state.store(after, Ordering::Release);
        if status.is_live() {
            out.push(Notice::RightsChanged(index));
        } else {
            self.cache.credentials.forget(index);
            out.push(Notice::PrincipalClosed(index, Cause::Disabled));
        }
    }

    fn remove_principal(&mut self, id: EntityId, out: &mut Vec<Notice>) {
        if let Some(index) = self.drop_held(id) {
            out.push(Notice::PrincipalClosed(index, Cause::Removed));
        }
    }

    fn drop_held(&mut self, id: EntityId) -> Option<PrincipalIndex> {
        let held = self.held.remove(&id)?;
        let directory = &self.cache.directory;
        let words = directory.principals.grow(held.index.get());
        words.state.store(0, Ordering::Release);
        raise(&words.generation);
        directory.principal_ids.remove(id.to_words());
        self.cache.credentials.release(held.index);
        self.principals.give_back(held.index.get());
        Some(held.index)
    }

    fn change_right(
        &mut self,
        principal: EntityId,
        channel: EntityId,
        right: Right,
        out: &mut Vec<Notice>,
    ) {
        let Some(held) = self.held.get(&principal) else {
            return;
        };
        let Some(channel) = self.cache.directory.channel(channel) else {
            return;
        };
        let who = held.index;
        if self.stored(who, channel).unwrap_or_default() != right {
            self.store_right(who, channel, right);
            out.push(Notice::RightsChanged(who));
        } else if held.kind == PrincipalRecord::User {
            // An unknown right that turns out to be none is known from now on.
            self.store_right(who, channel, right);
        }
    }

    fn void_user_rights(&mut self, domain: EntityId, out: &mut Vec<Notice>) {
        let Some(index) = self.cache.directory.domain(domain) else {
            return;
        };
        raise(&self.cache.directory.domains.grow(index.get()).user_view);
        self.bump_with_notice(index, out);
    }

    fn reload_principal(&mut self, identity: &Identity, out: &mut Vec<Notice>) {
        let Some(held) = self.held.get(&identity.id) else {
            self.refresh(identity);
            return;
        };
        let index = held.index;
        if held.kind != identity.kind {
            self.remove_principal(identity.id, out);
            self.refresh(identity);
            return;
        }
        self.set_principal(identity.id, identity.status, identity.credential, out);
        if self.refresh(identity).1 {
            out.push(Notice::RightsChanged(index));
        }
    }

    /// Brings a principal up to date with an identity. Tells whether one that was held already has
    /// other rights, status or kind than before.
    fn refresh(&mut self, identity: &Identity) -> (PrincipalIndex, bool) {
        let Some(held) = self.held.get_mut(&identity.id) else {
            return (self.enter(identity), false);
        };
        if held.kind != identity.kind {
            // Ids are never given to another kind; whoever it was is gone.
            self.drop_held(identity.id);
            return (self.enter(identity), false);
        }
        let index = held.index;
        held.credential = identity.credential;
        self.cache.credentials.hold(index, identity.credential);
        let words = self.cache.directory.principals.grow(index.get());
        let before = words.state.load(Ordering::Relaxed);
        let after = before & !state::LIVE | live_bit(identity.status);
        words.state.store(after, Ordering::Release);
        let same = self.has_rights_of(index, identity);
        if !same {
            if identity.kind != PrincipalRecord::User {
                // Voids rights that the identity lacks. Between this and the stores below a
                // reader sees none; it denies, as it may while a change is applied.
                raise(&self.cache.directory.principals.grow(index.get()).generation);
                self.set_granted(identity.id, 0);
            }
            for &(channel, right) in &identity.rights {
                if let Some(channel) = self.cache.directory.channel(channel) {
                    self.set_right(index, channel, right);
                }
            }
        }
        (index, !same || before != after)
    }

    fn enter(&mut self, identity: &Identity) -> PrincipalIndex {
        let index = PrincipalIndex::new(self.principals.take());
        let directory = &self.cache.directory;
        let words = directory.principals.grow(index.get());
        words.id.set(identity.id);
        let home = self.home_of(identity.kind);
        words
            .domain
            .store(home.map_or(u32::MAX, DomainIndex::get), Ordering::Release);
        let kind = match identity.kind {
            PrincipalRecord::Client { .. } => state::CLIENT,
            PrincipalRecord::User => state::USER,
        };
        words.state.store(
            kind | state::EXISTS | live_bit(identity.status),
            Ordering::Release,
        );
        let key = identity.id.to_words();
        let ids = &directory.principal_ids;
        ids.set(
            &mut self.ids.principals,
            key,
            value_of(index.get()),
            |_, _| true,
        );
        self.cache.credentials.hold(index, identity.credential);
        let held = Held {
            index,
            kind: identity.kind,
            credential: identity.credential,
            granted: 0,
        };
        self.held.insert(identity.id, held);
        self.store_rights_of(index, identity);
        index
    }

    fn has_rights_of(&self, who: PrincipalIndex, identity: &Identity) -> bool {
        let mut granted = 0;
        let stored = identity.rights.iter().all(|&(channel, right)| {
            let Some(channel) = self.cache.directory.channel(channel) else {
                return true;
            };
            granted += usize::from(!right.is_empty());
            self.stored(who, channel)
                .is_some_and(|stored| stored == right)
        });
        let held = self.held.get(&identity.id).map_or(0, |held| held.granted);
        stored && (identity.kind == PrincipalRecord::User || held == granted)
    }

    fn store_rights_of(&mut self, who: PrincipalIndex, identity: &Identity) {
        for &(channel, right) in &identity.rights {
            if let Some(channel) = self.cache.directory.channel(channel) {
                self.store_right(who, channel, right);
            }
        }
    }

    fn stored(&self, who: PrincipalIndex, channel: ChannelIndex) -> Option<Right> {
        let directory = &self.cache.directory;
        let principal = directory.principals.get(who.get())?;
        let channel = directory.channels.get(channel.get())?;
        self.cache.stored_right(who, principal, channel)
    }

    fn store_right(&mut self, who: PrincipalIndex, channel: ChannelIndex, right: Right) {
        let cache = Arc::clone(&self.cache);
        let directory = &cache.directory;
        let (Some(principal), Some(words)) = (
            directory.principals.get(who.get()),
            directory.channels.get(channel.get()),
        ) else {
            return;
        };
        let before = cache
            .stored_right(who, principal, words)
            .unwrap_or_default();
        let word = RightWord::new(cache.stamp(principal, words), right);
        let key = pair(who, words.rights.load(Ordering::Relaxed));
        let keep = |[key]: [u64; 1], value| {
            let who = PrincipalIndex::new((key >> 32) as u32);
            let principal = directory.principals.get(who.get());
            let channel = directory.channels.get(key as u32);
            // Void rights, and a client's empty ones, say nothing that their absence does not.
            principal.zip(channel).is_some_and(|(principal, channel)| {
                let state = principal.state.load(Ordering::Relaxed);
                let word = RightWord(value);
                word.stamp() == cache.stamp(principal, channel)
                    && (state & state::USER != 0 || !word.right().is_empty())
            })
        };
        cache.rights.set(&mut self.rights, key, word.0, keep);
        let id = principal.id.get();
        if before.is_empty() != right.is_empty()
            && let Some(held) = self.held.get_mut(&id)
        {
            if right.is_empty() {
                held.granted -= 1
            } else {
                held.granted += 1
            }
        }
    }

    fn set_granted(&mut self, id: EntityId, granted: usize) {
        if let Some(held) = self.held.get_mut(&id) {
            held.granted = granted;
        }
    }

    fn home_of(&self, kind: PrincipalRecord) -> Option<DomainIndex> {
        match kind {
            PrincipalRecord::Client { domain } => self.cache.directory.domain(domain),
            PrincipalRecord::User => None,
        }
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

    fn is_open(&self, channel: ChannelIndex) -> bool {
        let words = self.cache.directory.channels.get(channel.get());
        words.is_some_and(|words| words.state.load(Ordering::Relaxed) & state::OPEN != 0)
    }

    fn parts_of(&self, channel: ChannelIndex, open: bool) -> std::ops::Range<u32> {
        channel.get()..channel.get() + if open { OPEN_WIDTH } else { 1 }
    }

    /// First indexes of the channels of a domain. Walks all channels: removal of a domain is rare.
    fn channels_of(&self, domain: DomainIndex) -> impl Iterator<Item = ChannelIndex> {
        self.existing_channels().filter(move |&channel| {
            self.cache.directory.domain_of(channel) == domain && channel != ChannelIndex::SYS
        })
    }

    fn existing_channels(&self) -> impl Iterator<Item = ChannelIndex> {
        (0..self.channels.next)
            .map(ChannelIndex::new)
            .filter(|channel| {
                let words = self.cache.directory.channels.get(channel.get());
                words.is_some_and(|words| {
                    words.state.load(Ordering::Relaxed) & state::EXISTS != 0
                        && words.rights.load(Ordering::Relaxed) == channel.get()
                })
            })
    }

    fn channel_ids(&self) -> impl Iterator<Item = EntityId> {
        self.existing_channels()
            .filter_map(|channel| self.cache.directory.channel_id(channel))
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
