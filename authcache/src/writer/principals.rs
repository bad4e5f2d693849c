//! Held principals and their rights.

use std::sync::Arc;

use super::{Held, Writer, live_bit, raise};
use crate::change::{Cause, Identity, Notice, PrincipalRecord, Status};
use crate::directory::{state, value_of};
use crate::index::{ChannelIndex, DomainIndex, EntityId, PrincipalIndex};
use crate::right::Right;
use crate::sync::Ordering;
use crate::{RightWord, pair};

impl Writer {
    pub(super) fn set_principal(
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
        let changed = held.credential != credential;
        if changed {
            held.credential = credential;
            self.cache.credentials.hold(index, credential);
        }
        // Who may not be there at all is told that, not that another secret would do.
        let shut_out = Notice::PrincipalClosed(index, Cause::CredentialChanged);
        let words = self.cache.directory.principals.grow(index.get());
        let before = words.state.load(Ordering::Relaxed);
        let after = before & !state::LIVE | live_bit(status);
        if before == after {
            out.extend(changed.then_some(shut_out));
            return;
        }
        words.state.store(after, Ordering::Release);
        if status.is_live() {
            out.extend(changed.then_some(shut_out));
            out.push(Notice::RightsChanged(index));
        } else {
            self.cache.credentials.forget(index);
            out.push(Notice::PrincipalClosed(index, Cause::Disabled));
        }
    }

    pub(super) fn remove_principal(&mut self, id: EntityId, out: &mut Vec<Notice>) {
        if let Some(index) = self.drop_held(id) {
            out.push(Notice::PrincipalClosed(index, Cause::Removed));
        }
    }

    pub(super) fn drop_held(&mut self, id: EntityId) -> Option<PrincipalIndex> {
        let held = self.held.remove(&id)?;
        self.user_channels.remove(&id);
        let directory = &self.cache.directory;
        let words = directory.principals.grow(held.index.get());
        words.state.store(0, Ordering::Release);
        raise(&words.generation);
        directory.principal_ids.remove(id.to_words());
        self.cache.credentials.release(held.index);
        self.principals.give_back(held.index.get());
        Some(held.index)
    }

    pub(super) fn change_right(
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

    pub(super) fn reload_principal(&mut self, identity: &Identity, out: &mut Vec<Notice>) {
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
    pub(super) fn refresh(&mut self, identity: &Identity) -> (PrincipalIndex, bool) {
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

    pub(super) fn enter(&mut self, identity: &Identity) -> PrincipalIndex {
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

    pub(super) fn has_rights_of(&self, who: PrincipalIndex, identity: &Identity) -> bool {
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

    pub(super) fn store_rights_of(&mut self, who: PrincipalIndex, identity: &Identity) {
        for &(channel, right) in &identity.rights {
            if let Some(channel) = self.cache.directory.channel(channel) {
                self.store_right(who, channel, right);
            }
        }
    }

    fn note_user_channel(&mut self, who: PrincipalIndex, channel: ChannelIndex) {
        let user = self.cache.directory.principal_id(who);
        let held = self.held.get(&user);
        if held.is_some_and(|held| matches!(held.kind, PrincipalRecord::User)) {
            self.user_channels.entry(user).or_default().insert(channel);
        }
    }

    pub(super) fn stored(&self, who: PrincipalIndex, channel: ChannelIndex) -> Option<Right> {
        let directory = &self.cache.directory;
        let principal = directory.principals.get(who.get())?;
        let channel = directory.channels.get(channel.get())?;
        self.cache.stored_right(who, principal, channel)
    }

    pub(super) fn store_right(&mut self, who: PrincipalIndex, channel: ChannelIndex, right: Right) {
        let cache = Arc::clone(&self.cache);
        let directory = &cache.directory;
        let (Some(principal), Some(words)) = (
            directory.principals.get(who.get()),
            directory.channels.get(channel.get()),
        ) else {
            return;
        };
        self.note_user_channel(who, channel);
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

    pub(super) fn set_granted(&mut self, id: EntityId, granted: usize) {
        if let Some(held) = self.held.get_mut(&id) {
            held.granted = granted;
        }
    }

    pub(super) fn home_of(&self, kind: PrincipalRecord) -> Option<DomainIndex> {
        match kind {
            PrincipalRecord::Client { domain } => self.cache.directory.domain(domain),
            PrincipalRecord::User => None,
        }
    }
}
