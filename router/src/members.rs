//! Members of shared subscriptions on one shard.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;

use authcache::ChannelIndex;
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::entry::{Entry, ShardId, SlotId};
use crate::interest::Interest;
use crate::shared::{Group, GroupId, MemberState, Picked, SharedGroups};
use crate::subs::Subscription;

pub(crate) struct GroupMembers {
    shard: ShardId,
    shards: usize,
    interest: Arc<Interest>,
    shared: Arc<SharedGroups>,
    /// Where the round robin of a new group starts.
    seed: u64,
    groups: HashMap<GroupId, LocalGroup, FixedState>,
    /// Groups that a slot is a member of.
    of_slot: HashMap<SlotId, SmallVec<[GroupId; 2]>, FixedState>,
}

struct LocalGroup {
    group: Arc<Group>,
    members: Vec<Member>,
    /// Who is asked first next time.
    next: usize,
}

struct Member {
    entry: Entry,
    identifier: Option<NonZeroU32>,
    prefix: Option<Arc<str>>,
    parked: bool,
}

impl GroupMembers {
    pub(crate) fn new(
        shard: ShardId,
        shards: usize,
        interest: Arc<Interest>,
        shared: Arc<SharedGroups>,
        seed: u64,
    ) -> Self {
        assert!(shard.index() < shards && shards <= usize::from(ShardId::LIMIT));
        Self {
            shard,
            shards,
            interest,
            shared,
            seed,
            groups: HashMap::default(),
            of_slot: HashMap::default(),
        }
    }

    /// Adds a member, ready, or gives it other options; true if it was one already.
    pub(crate) fn join(&mut self, wanted: &Subscription, entry: Entry) -> bool {
        let name = wanted.share.as_deref().unwrap_or_default();
        let slot = entry.slot();
        let new = Member {
            entry,
            identifier: wanted.identifier,
            prefix: wanted.prefix.clone(),
            parked: false,
        };
        if let Some(id) = self.find(slot, wanted.channel, &wanted.filter, name)
            && let Some(local) = self.groups.get_mut(&id)
            && let Some(member) = local
                .members
                .iter_mut()
                .find(|member| member.slot() == slot)
        {
            *member = Member {
                parked: member.parked,
                ..new
            };
            return true;
        }
        let (filter, interest) = (&wanted.filter, &self.interest);
        let group = self.shared.join(
            wanted.channel,
            name,
            filter,
            self.shards,
            self.shard,
            interest,
        );
        self.of_slot.entry(slot).or_default().push(group.id());
        let seed = self.seed as usize;
        let local = self.groups.entry(group.id()).or_insert_with(|| LocalGroup {
            group,
            members: Vec::new(),
            next: seed,
        });
        local.members.push(new);
        false
    }

    /// Removes a member; false if it was none.
    pub(crate) fn leave(
        &mut self,
        slot: SlotId,
        channel: ChannelIndex,
        filter: &str,
        name: &str,
    ) -> bool {
        let Some(id) = self.find(slot, channel, filter, name) else {
            return false;
        };
        self.remove(slot, id);
        true
    }

    /// Removes all members of a channel's groups and adds them to `slots`.
    pub(crate) fn remove_channel(&mut self, channel: ChannelIndex, slots: &mut Vec<SlotId>) {
        let gone: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, local)| local.group.channel() == channel)
            .flat_map(|(id, local)| local.members.iter().map(|member| (member.slot(), *id)))
            .collect();
        for (slot, id) in gone {
            self.remove(slot, id);
            slots.push(slot);
        }
    }

    pub(crate) fn set_ready(&mut self, slot: SlotId, ready: bool) {
        let Some(ids) = self.of_slot.get(&slot) else {
            return;
        };
        for id in ids {
            let Some(local) = self.groups.get_mut(id) else {
                continue;
            };
            for member in local
                .members
                .iter_mut()
                .filter(|member| member.slot() == slot)
            {
                if member.parked == ready {
                    member.parked = !ready;
                    let change = if ready { 1 } else { -1 };
                    local.group.count(self.shard, change, -change);
                }
            }
        }
    }

    /// Picks a member that `may` receive, round robin within the best state there is.
    pub(crate) fn pick(
        &mut self,
        group: &Group,
        state: impl Fn(SlotId) -> MemberState,
        mut may: impl FnMut(SlotId) -> bool,
    ) -> Option<Picked> {
        let local = self.groups.get_mut(&group.id())?;
        let count = local.members.len();
        let mut second_best: Option<(MemberState, usize)> = None;
        let mut chosen = None;
        for step in 0..count {
            let at = (local.next % count + step) % count;
            let slot = local.members[at].slot();
            let state = state(slot);
            let better = match (state, second_best) {
                (MemberState::Ready, _) | (_, None) => true,
                (MemberState::Full, Some((MemberState::Parked, _))) => true,
                (MemberState::Full | MemberState::Parked, Some(_)) => false,
            };
            if !better || !may(slot) {
                continue;
            }
            if state == MemberState::Ready {
                chosen = Some((state, at));
                break;
            }
            second_best = Some((state, at));
        }
        let (state, at) = chosen.or(second_best)?;
        local.next = (at + 1) % count;
        Some(local.members[at].picked(state))
    }

    /// Panics if something inside does not fit.
    pub(crate) fn invariants(&self) {
        for (id, local) in &self.groups {
            let parked = local.members.iter().filter(|member| member.parked).count();
            let ready = local.members.len() - parked;
            let shown = local.group.members(self.shard);
            assert_eq!(shown, (ready as u32, parked as u32));
            assert!(self.interest.has_groups(local.group.channel()));
            for member in &local.members {
                assert!(self.of_slot[&member.slot()].contains(id));
            }
        }
        let named: usize = self.of_slot.values().map(SmallVec::len).sum();
        let members: usize = self.groups.values().map(|local| local.members.len()).sum();
        assert_eq!(named, members);
    }

    fn find(
        &self,
        slot: SlotId,
        channel: ChannelIndex,
        filter: &str,
        name: &str,
    ) -> Option<GroupId> {
        self.of_slot.get(&slot)?.iter().copied().find(|id| {
            self.groups.get(id).is_some_and(|local| {
                let group = &local.group;
                group.channel() == channel && group.filter() == filter && group.name() == name
            })
        })
    }

    fn remove(&mut self, slot: SlotId, id: GroupId) {
        let Some(local) = self.groups.get_mut(&id) else {
            return;
        };
        let Some(at) = local
            .members
            .iter()
            .position(|member| member.slot() == slot)
        else {
            return;
        };
        let member = local.members.remove(at);
        // Whoever was to be asked next still is.
        let next = local.next % (local.members.len() + 1);
        local.next = if at < next { next - 1 } else { next };
        self.shared
            .leave(&local.group, self.shard, member.parked, &self.interest);
        if local.members.is_empty() {
            self.groups.remove(&id);
        }
        if let Some(ids) = self.of_slot.get_mut(&slot) {
            ids.retain(|other| *other != id);
            if ids.is_empty() {
                self.of_slot.remove(&slot);
            }
        }
    }
}

impl Member {
    fn slot(&self) -> SlotId {
        self.entry.slot()
    }

    fn picked(&self, state: MemberState) -> Picked {
        Picked {
            slot: self.slot(),
            state,
            qos: self.entry.qos(),
            retain_as_published: self.entry.retain_as_published(),
            version5: self.entry.version5(),
            identifier: self.identifier,
            prefix: self.prefix.clone(),
        }
    }
}
