//! Channels: their indexes, routes and state.

use super::{Writer, live_bit, raise};
use crate::change::{Notice, Status};
use crate::directory::{ChannelRoute, OPEN_WIDTH, state, value_of};
use crate::index::{ChannelIndex, DomainIndex, EntityId};
use crate::sync::Ordering;

impl Writer {
    pub(super) fn set_channel(
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
    pub(super) fn make_channel(
        &mut self,
        id: EntityId,
        domain: DomainIndex,
        open: bool,
    ) -> ChannelIndex {
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

    pub(super) fn take_open_block(&mut self) -> u32 {
        self.open_channels.free.pop().unwrap_or_else(|| {
            let first = self.channels.next;
            self.channels.next += OPEN_WIDTH;
            first
        })
    }

    pub(super) fn set_channel_route(
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

    pub(super) fn remove_channel_by_id(&mut self, id: EntityId, out: &mut Vec<Notice>) {
        if id != EntityId::SYS
            && let Some(index) = self.cache.directory.channel(id)
        {
            self.remove_channel(index, out);
        }
    }

    pub(super) fn remove_channel(&mut self, index: ChannelIndex, out: &mut Vec<Notice>) {
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

    pub(super) fn is_open(&self, channel: ChannelIndex) -> bool {
        let words = self.cache.directory.channels.get(channel.get());
        words.is_some_and(|words| words.state.load(Ordering::Relaxed) & state::OPEN != 0)
    }

    pub(super) fn parts_of(&self, channel: ChannelIndex, open: bool) -> std::ops::Range<u32> {
        channel.get()..channel.get() + if open { OPEN_WIDTH } else { 1 }
    }

    /// First indexes of the channels of a domain. Walks all channels: removal of a domain is rare.
    pub(super) fn channels_of(&self, domain: DomainIndex) -> impl Iterator<Item = ChannelIndex> {
        self.existing_channels().filter(move |&channel| {
            self.cache.directory.domain_of(channel) == domain && channel != ChannelIndex::SYS
        })
    }

    pub(super) fn existing_channels(&self) -> impl Iterator<Item = ChannelIndex> {
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

    pub(super) fn channel_ids(&self) -> impl Iterator<Item = EntityId> {
        self.existing_channels()
            .filter_map(|channel| self.cache.directory.channel_id(channel))
    }
}
