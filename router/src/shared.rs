//! Groups of shared subscriptions: one member receives each message.
//!
//! Who is a member is known to the member's shard; which shards have members that are ready is
//! known to all. The publisher's shard picks a shard by [`Group::next`]; that shard picks the
//! member, and may pass on once when it finds none ready.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use authcache::ChannelIndex;
use foldhash::fast::FixedState;
use papaya::HashMap;
use smallvec::SmallVec;

use crate::entry::{ShardId, SlotId};
use crate::filters::{Filters, FirstLevel};
use crate::interest::Interest;

/// All groups of the broker. Publishers read; joining and leaving are serialised.
///
/// Lock order: `changes`, then the lock of one channel.
#[derive(Default)]
pub struct SharedGroups {
    channels: HashMap<ChannelIndex, Arc<RwLock<ChannelGroups>>, FixedState>,
    by_id: HashMap<GroupId, Arc<Group>, FixedState>,
    changes: Mutex<()>,
    next_id: AtomicU64,
}

#[derive(Default)]
struct ChannelGroups {
    by_filter: Filters<SmallVec<[Arc<Group>; 1]>>,
    count: u32,
}

/// Identifies a group for as long as it exists; never reused.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(u64);

/// The members of one ShareName on one filter of one channel.
#[derive(Debug)]
pub struct Group {
    id: GroupId,
    channel: ChannelIndex,
    name: Box<str>,
    filter: Box<str>,
    shards: Box<[Members]>,
    /// Where the round robin over shards stands.
    turn: AtomicU32,
}

/// Members on one shard. Written by that shard alone.
#[derive(Debug, Default)]
struct Members {
    ready: AtomicU32,
    parked: AtomicU32,
}

/// How a member stands to a message now.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum MemberState {
    /// Connected, with room in its window and queue.
    Ready,
    /// Connected, but its window or queue is full.
    Full,
    /// Without connection.
    Parked,
}

/// The member that is to receive a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picked {
    /// The member.
    pub slot: SlotId,
    /// How it stands. Not `Ready` only if no member here is.
    pub state: MemberState,
    /// QoS granted to it. [MQTT-4.8.2-3]
    pub qos: u8,
    /// Whether it asked for RETAIN as published.
    pub retain_as_published: bool,
    /// Whether it speaks MQTT 5.
    pub version5: bool,
    /// Its Subscription Identifier.
    pub identifier: Option<std::num::NonZeroU32>,
    /// The topic prefix it subscribed with, when that is not the canonical one.
    pub prefix: Option<Arc<str>>,
}

impl SharedGroups {
    /// No groups.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The groups that get a message, one member of each. `wild` is the index of the open channel's
    /// wildcard filters.
    #[must_use]
    pub fn matching(
        &self,
        channel: ChannelIndex,
        wild: Option<ChannelIndex>,
        subtopic: &str,
    ) -> SmallVec<[Arc<Group>; 4]> {
        let mut found = SmallVec::new();
        let first = first_level(channel, wild);
        let channels = self.channels.pin();
        for channel in [Some(channel), wild].into_iter().flatten() {
            let Some(groups) = channels.get(&channel) else {
                continue;
            };
            let groups = groups.read().unwrap_or_else(PoisonError::into_inner);
            groups
                .by_filter
                .matching(subtopic, first, |same| found.extend(same.iter().cloned()));
        }
        found
    }

    /// The group of this id, while it has members.
    #[must_use]
    pub fn get(&self, id: GroupId) -> Option<Arc<Group>> {
        self.by_id.pin().get(&id).cloned()
    }

    /// Number of groups on a channel.
    #[must_use]
    pub fn count(&self, channel: ChannelIndex) -> u32 {
        let channels = self.channels.pin();
        channels.get(&channel).map_or(0, |groups| {
            groups.read().unwrap_or_else(PoisonError::into_inner).count
        })
    }

    /// A ready member on `shard` joins the group, which is made if need be.
    pub(crate) fn join(
        &self,
        channel: ChannelIndex,
        name: &str,
        filter: &str,
        shards: usize,
        shard: ShardId,
        interest: &Interest,
    ) -> Arc<Group> {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let channels = self.channels.pin();
        let groups = channels.get_or_insert_with(channel, Arc::default);
        let mut groups = groups.write().unwrap_or_else(PoisonError::into_inner);
        let same = groups.by_filter.get_or_insert_with(filter, SmallVec::new);
        if let Some(group) = same.iter().find(|group| *group.name == *name) {
            group.count(shard, 1, 0);
            return Arc::clone(group);
        }
        let group = Arc::new(Group {
            id: GroupId(self.next_id.fetch_add(1, Ordering::Relaxed)),
            channel,
            name: name.into(),
            filter: filter.into(),
            shards: std::iter::repeat_with(Members::default)
                .take(shards)
                .collect(),
            turn: AtomicU32::new(0),
        });
        group.count(shard, 1, 0);
        same.push(Arc::clone(&group));
        self.by_id.pin().insert(group.id, Arc::clone(&group));
        groups.count += 1;
        interest.set_groups(channel, groups.count);
        group
    }

    /// A member on `shard` leaves; the last one takes the group with it.
    pub(crate) fn leave(&self, group: &Group, shard: ShardId, parked: bool, interest: &Interest) {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        if parked {
            group.count(shard, 0, -1)
        } else {
            group.count(shard, -1, 0)
        }
        self.remove_if_empty(group, interest);
    }

    /// A shard has begun anew, without any member: groups without members elsewhere go.
    pub fn forget_shard(&self, shard: ShardId, interest: &Interest) {
        let _changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let groups: Vec<Arc<Group>> = self.by_id.pin().values().cloned().collect();
        for group in groups {
            let (ready, parked) = group.members(shard);
            if ready + parked > 0 {
                group.count(shard, -(ready as i32), -(parked as i32));
                self.remove_if_empty(&group, interest);
            }
        }
    }

    /// With `changes` held.
    fn remove_if_empty(&self, group: &Group, interest: &Interest) {
        if group.shards.iter().any(|members| members.all() > 0) {
            return;
        }
        let channels = self.channels.pin();
        let Some(lock) = channels.get(&group.channel) else {
            return;
        };
        let mut groups = lock.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = groups.by_filter.get_mut(&group.filter) {
            self.by_id.pin().remove(&group.id);
            same.retain(|other| other.id != group.id);
            if same.is_empty() {
                groups.by_filter.remove(&group.filter);
            }
            groups.count -= 1;
            interest.set_groups(group.channel, groups.count);
        }
        if groups.count == 0 {
            drop(groups);
            channels.remove(&group.channel);
        }
    }
}

impl GroupId {
    /// The id of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl Group {
    /// Whether any shard has a member that is connected.
    #[must_use]
    pub fn has_ready(&self) -> bool {
        self.shards.iter().any(|members| members.ready() > 0)
    }

    /// The group's identity, to name it to another shard.
    #[must_use]
    pub fn id(&self) -> GroupId {
        self.id
    }

    /// The channel the members subscribed to.
    #[must_use]
    pub fn channel(&self) -> ChannelIndex {
        self.channel
    }

    /// The ShareName.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The filter within the channel.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// Members that are connected, and members that are not, on one shard.
    #[must_use]
    pub fn members(&self, shard: ShardId) -> (u32, u32) {
        let members = self.shards.get(shard.index());
        members.map_or((0, 0), |members| (members.ready(), members.parked()))
    }

    /// The shard whose member is to receive the publisher's next message: the publisher's own if
    /// a member is ready there, else the next with a ready member, else the next with a parked one.
    #[must_use]
    pub fn next(&self, publisher: ShardId) -> Option<ShardId> {
        if self
            .shards
            .get(publisher.index())
            .is_some_and(|members| members.ready() > 0)
        {
            return Some(publisher);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.choose(turn, None, Members::ready)
            .or_else(|| self.choose(turn, None, Members::parked))
    }

    /// Another shard with a ready member, for a shard that found none of its own with room.
    #[must_use]
    pub fn next_other(&self, tried: ShardId) -> Option<ShardId> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        self.choose(turn, Some(tried), Members::ready)
    }

    fn choose(
        &self,
        turn: u32,
        except: Option<ShardId>,
        number: fn(&Members) -> u32,
    ) -> Option<ShardId> {
        let shards = self.shards.len();
        (0..shards)
            .map(|step| (turn as usize + step) % shards)
            .filter(|&shard| except.is_none_or(|except| except.index() != shard))
            .find(|&shard| number(&self.shards[shard]) > 0)
            .map(|shard| ShardId::new(shard as u8))
    }

    /// Changes the numbers of ready and parked members of a shard.
    pub(crate) fn count(&self, shard: ShardId, ready: i32, parked: i32) {
        let members = &self.shards[shard.index()];
        for (number, change) in [(&members.ready, ready), (&members.parked, parked)] {
            let now = number.load(Ordering::Relaxed).wrapping_add_signed(change);
            number.store(now, Ordering::Release);
        }
    }
}

impl Members {
    fn ready(&self) -> u32 {
        self.ready.load(Ordering::Acquire)
    }

    fn parked(&self) -> u32 {
        self.parked.load(Ordering::Acquire)
    }

    fn all(&self) -> u32 {
        self.ready() + self.parked()
    }
}

/// Whether subtopics of a channel are whole topics.
pub(crate) fn first_level(channel: ChannelIndex, wild: Option<ChannelIndex>) -> FirstLevel {
    if wild.is_some() || channel == ChannelIndex::SYS {
        FirstLevel::OfTopic
    } else {
        FirstLevel::Inner
    }
}
