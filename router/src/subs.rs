//! The subscriptions of one shard.
//!
//! Invariants: a slot stands once in the list of a channel it has subscriptions on (those in
//! groups aside); its entry either is its only subscription there (to all of the channel or to the
//! channel itself, with nothing to remember), or says `filtered`, and then all of them are records
//! in the channel's filters. The interest bit of a channel is set while its list is not empty.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

use authcache::{Action, ChannelIndex, Denied, Gate, OnChannel, Permitted, PrincipalIndex};
use foldhash::fast::FixedState;
use smallvec::SmallVec;

use crate::entry::{Entry, ShardId, SlotId, Wishes};
use crate::filters::Filters;
use crate::interest::Interest;
use crate::lists::{Lists, View};
use crate::matches::{MatchSet, Merged, Routed};
use crate::members::GroupMembers;
use crate::shared::{Group, MemberState, Picked, SharedGroups, first_level};

/// Most rights that wait to be asked for. What does not fit is found again at the next route.
const UNKNOWN_MAX: usize = 4096;

/// A subscription as the session asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    /// The channel; of an open channel the index of the filter's first level.
    pub channel: ChannelIndex,
    /// Filter of the subtopic: empty for the channel itself, `#` for all of it. In the open
    /// namespace and `$SYS` the whole filter.
    pub filter: Box<str>,
    /// Maximum QoS, 0 to 2.
    pub qos: u8,
    /// Not to be sent what the subscriber published itself.
    pub no_local: bool,
    /// RETAIN is sent as the publisher set it.
    pub retain_as_published: bool,
    /// Whether the subscriber speaks MQTT 5.
    pub version5: bool,
    /// Subscription Identifier.
    pub identifier: Option<NonZeroU32>,
    /// The topic prefix the subscriber wrote, when it is not the canonical one.
    pub prefix: Option<Arc<str>>,
    /// The group, for a shared subscription.
    pub share: Option<Box<str>>,
}

impl OnChannel for Subscription {
    fn channel(&self) -> ChannelIndex {
        self.channel
    }
}

/// What a SUBSCRIBE changed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// The slot had a subscription with this filter, which is replaced. [MQTT-3.8.4-3]
    pub replaced: bool,
}

/// The subscriptions of one shard.
pub struct Subs {
    shard: ShardId,
    interest: Arc<Interest>,
    lists: Lists,
    filters: HashMap<ChannelIndex, ChannelFilters, FixedState>,
    members: GroupMembers,
    matches: MatchSet,
    unknown: HashSet<(PrincipalIndex, ChannelIndex), FixedState>,
}

/// The records of a channel: what its `filtered` entries subscribed to.
#[derive(Default)]
struct ChannelFilters {
    /// Records of a filter in the order of their slots.
    by_filter: Filters<SmallVec<[Record; 1]>>,
    /// Number of records of slots that have more than one.
    several: HashMap<SlotId, u32, FixedState>,
}

#[derive(Clone, Debug)]
struct Record {
    entry: Entry,
    /// Subscription Identifier, 0 for none.
    identifier: u32,
    prefix: Option<Arc<str>>,
}

impl Subs {
    /// The empty subscriptions of `shard`, one of `shards`. `seed` decides where round robin
    /// among group members starts.
    #[must_use]
    pub fn new(
        shard: ShardId,
        shards: usize,
        interest: Arc<Interest>,
        groups: Arc<SharedGroups>,
        seed: u64,
    ) -> Self {
        let members = GroupMembers::new(shard, shards, Arc::clone(&interest), groups, seed);
        Self {
            shard,
            interest,
            lists: Lists::default(),
            filters: HashMap::default(),
            members,
            matches: MatchSet::default(),
            unknown: HashSet::default(),
        }
    }

    /// Adds or replaces a subscription of a slot. When it returns, publishers on all shards find
    /// it: SUBACK may leave. No message is missed while it is replaced. [MQTT-3.8.4-4]
    pub fn subscribe(&mut self, permitted: Permitted<Subscription>, slot: SlotId) -> Subscribed {
        let wanted = permitted.into_inner();
        let wishes = Wishes {
            qos: wanted.qos.min(2),
            no_local: wanted.no_local,
            retain_as_published: wanted.retain_as_published,
            version5: wanted.version5,
        };
        let entry = Entry::new(slot, wishes);
        if wanted.share.is_some() {
            return Subscribed {
                replaced: self.members.join(&wanted, entry),
            };
        }
        let channel = wanted.channel;
        let plain = plain_form(&wanted);
        let replaced = match (self.lists.find(channel, slot), plain) {
            (None, Some(bare)) => {
                self.lists.insert(channel, entry.with_bare(bare));
                false
            }
            (Some((at, old)), Some(bare)) if !old.filtered() && old.bare() == bare => {
                self.lists.replace(channel, at, entry.with_bare(bare));
                true
            }
            (found, _) => {
                let first = found.is_none();
                match found {
                    None => self.lists.insert(channel, Entry::filtered_in(slot)),
                    Some((_, old)) if old.filtered() => {}
                    Some((at, old)) => {
                        let filters = self.filters.entry(channel).or_default();
                        filters.add(plain_filter(old), Record::of(old));
                        self.lists.replace(channel, at, Entry::filtered_in(slot));
                    }
                }
                let identifier = wanted.identifier.map_or(0, NonZeroU32::get);
                let record = Record {
                    entry,
                    identifier,
                    prefix: wanted.prefix,
                };
                let filters = self.filters.entry(channel).or_default();
                let replaced = filters.add(&wanted.filter, record);
                if !first && !replaced {
                    filters.note_another(slot);
                }
                replaced
            }
        };
        // The proof says that the right is there now.
        self.lists.set_live(channel, slot, true);
        self.show_interest(channel);
        Subscribed { replaced }
    }

    /// Removes the subscription of a slot with exactly this filter, and tells whether there was
    /// one. No message is routed to it afterwards. [MQTT-3.10.4-1] [MQTT-3.10.4-2]
    /// [MQTT3-3.10.4-1] [MQTT3-3.10.4-2]
    pub fn unsubscribe(
        &mut self,
        slot: SlotId,
        channel: ChannelIndex,
        filter: &str,
        share: Option<&str>,
    ) -> bool {
        if let Some(name) = share {
            return self.members.leave(slot, channel, filter, name);
        }
        let Some((_, entry)) = self.lists.find(channel, slot) else {
            return false;
        };
        if !entry.filtered() {
            let ours = plain_filter(entry) == filter;
            if ours {
                self.lists.remove(channel, slot);
                self.show_interest(channel);
            }
            return ours;
        }
        let Some(filters) = self.filters.get_mut(&channel) else {
            return false;
        };
        let Some(left) = filters.remove(slot, filter) else {
            return false;
        };
        if left == 0 {
            self.lists.remove(channel, slot);
        }
        if filters.by_filter.is_empty() {
            self.filters.remove(&channel);
        }
        self.show_interest(channel);
        true
    }

    /// Removes the subscriptions of a slot whose session has ended.
    pub fn remove_slot<'a>(
        &mut self,
        slot: SlotId,
        subscriptions: impl IntoIterator<Item = (ChannelIndex, &'a str, Option<&'a str>)>,
    ) {
        for (channel, filter, share) in subscriptions {
            self.unsubscribe(slot, channel, filter, share);
        }
    }

    /// Removes all subscriptions of a channel that is gone, and tells whose they were.
    pub fn remove_channel(&mut self, channel: ChannelIndex) -> Vec<SlotId> {
        self.filters.remove(&channel);
        let mut slots = self.lists.remove_channel(channel);
        self.members.remove_channel(channel, &mut slots);
        self.show_interest(channel);
        slots.sort_unstable();
        slots.dedup();
        slots
    }

    /// All live receivers of one message on this shard, groups aside. Lists whose domain's epoch
    /// has moved are judged first: entries without right go dormant, those that have it again wake.
    ///
    /// `wild` is the index of the open channel's wildcard filters, in the open namespace only;
    /// `who` tells the principal of a slot.
    pub fn route<'s>(
        &'s mut self,
        channel: ChannelIndex,
        wild: Option<ChannelIndex>,
        subtopic: &str,
        gate: &Gate,
        who: impl Fn(SlotId) -> PrincipalIndex,
    ) -> Routed<'s> {
        self.route_within(channel, wild, subtopic, gate, who, None)
    }

    /// As [`Subs::route`], for the receivers whose slot numbers lie in `slots` only: a part of a
    /// list that is too long for one turn. Whoever keeps its slot is in one part of the numbers,
    /// however the list changes from part to part.
    pub fn route_within<'s>(
        &'s mut self,
        channel: ChannelIndex,
        wild: Option<ChannelIndex>,
        subtopic: &str,
        gate: &Gate,
        who: impl Fn(SlotId) -> PrincipalIndex,
        slots: Option<Range<u32>>,
    ) -> Routed<'s> {
        self.judge(channel, gate, &who);
        if let Some(wild) = wild {
            self.judge(wild, gate, &who);
        }
        let lists = [Some(channel), wild].map(|channel| {
            let channel = channel?;
            self.lists
                .view(channel)
                .filter(|view| view.live > 0)
                .map(|view| (channel, view))
        });
        match lists {
            [None, None] => Routed::Plain(&[]),
            [Some((_, view)), None] | [None, Some((_, view))] if !view.filtered => {
                if (subtopic.is_empty() || !view.bare) && slots.is_none() {
                    return Routed::Plain(view.live());
                }
                let slots = slots.unwrap_or(0..u32::MAX);
                let wanted = |entry: &&Entry| {
                    slots.contains(&entry.slot().get()) && (subtopic.is_empty() || !entry.bare())
                };
                self.matches.plain.clear();
                self.matches.plain.extend(view.live().iter().filter(wanted));
                Routed::Plain(&self.matches.plain)
            }
            lists => {
                let first = first_level(channel, wild);
                self.matches.clear(slots);
                for (channel, view) in lists.into_iter().flatten() {
                    for &entry in view.live() {
                        if !entry.filtered() && (subtopic.is_empty() || !entry.bare()) {
                            self.matches.add(entry, 0, None);
                        }
                    }
                    let Some(filters) = self.filters.get(&channel).filter(|_| view.filtered) else {
                        continue;
                    };
                    let all_live = view.live == view.entries.len();
                    filters.by_filter.matching(subtopic, first, |records| {
                        for record in records {
                            if all_live || self.lists.is_live(channel, record.entry.slot()) {
                                let prefix = record.prefix.as_ref();
                                self.matches.add(record.entry, record.identifier, prefix);
                            }
                        }
                    });
                }
                self.matches.merge();
                Routed::Merged(Merged::new(&self.matches))
            }
        }
    }

    /// Judges the entry of one slot, after its principal's rights have changed.
    pub fn rejudge(
        &mut self,
        slot: SlotId,
        channel: ChannelIndex,
        gate: &Gate,
        who: impl Fn(SlotId) -> PrincipalIndex,
    ) {
        let principal = who(slot);
        let verdict = gate.allows(principal, Action::Subscribe, channel);
        self.lists.set_live(channel, slot, verdict.is_ok());
        match verdict {
            Ok(()) | Err(Denied::NoRight | Denied::NotLive) => {}
            Err(Denied::LeaseOver) => self.lists.unjudge(channel),
            Err(Denied::Unknown) => self.ask(principal, channel),
        }
    }

    /// Rights of users that judging found unknown. The caller asks control, stores the answer by
    /// [`Writer::set_right`](authcache::Writer::set_right) and calls [`Subs::rejudge`] for the
    /// user's slots; until then their entries are dormant.
    pub fn take_unknown(&mut self) -> Vec<(PrincipalIndex, ChannelIndex)> {
        self.unknown.drain().collect()
    }

    /// Whether the subtopic decides who receives messages of the channel on this shard.
    #[must_use]
    pub fn has_filters(&self, channel: ChannelIndex) -> bool {
        self.lists
            .view(channel)
            .is_some_and(|view| view.filtered || view.bare)
    }

    /// Whether a slot has subscriptions on the channel (groups aside) and they are live.
    #[must_use]
    pub fn is_live(&self, slot: SlotId, channel: ChannelIndex) -> bool {
        self.lists.is_live(channel, slot)
    }

    /// The member of a group on this shard that is to receive a message, round robin: one that is
    /// ready and has the right, else one that is full, else one that is parked.
    pub fn pick(
        &mut self,
        group: &Group,
        gate: &Gate,
        who: impl Fn(SlotId) -> PrincipalIndex,
        state: impl Fn(SlotId) -> MemberState,
    ) -> Option<Picked> {
        let channel = group.channel();
        self.members.pick(group, state, |slot| {
            let principal = who(slot);
            let verdict = gate.allows(principal, Action::Subscribe, channel);
            if verdict == Err(Denied::Unknown) && self.unknown.len() < UNKNOWN_MAX {
                self.unknown.insert((principal, channel));
            }
            verdict.is_ok()
        })
    }

    /// A slot has been resumed (`ready`) or parked: its groups prefer or avoid it from now on.
    pub fn member_ready(&mut self, slot: SlotId, ready: bool) {
        self.members.set_ready(slot, ready);
    }

    /// Bytes of subscriber lists, for the metrics.
    #[must_use]
    pub fn list_bytes(&self) -> usize {
        self.lists.bytes()
    }

    /// Checks what the head of this module promises.
    ///
    /// # Panics
    /// If something does not fit.
    pub fn invariants(&self) {
        self.lists.invariants();
        self.members.invariants();
        let mut records: HashMap<(ChannelIndex, SlotId), u32> = HashMap::new();
        for (&channel, filters) in &self.filters {
            filters.by_filter.invariants();
            assert!(!filters.by_filter.is_empty());
            for (_, same) in filters.by_filter.values() {
                assert!(!same.is_empty() && same.is_sorted_by_key(Record::slot));
                for record in same {
                    *records.entry((channel, record.slot())).or_default() += 1;
                }
            }
            let several = records
                .iter()
                .filter(|&(&(of, _), &count)| of == channel && count > 1);
            assert_eq!(filters.several.len(), several.count());
            for (slot, count) in &filters.several {
                assert_eq!(records.get(&(channel, *slot)), Some(count));
            }
        }
        let mut filtered = 0;
        for channel in self.lists.channels() {
            assert_ne!(self.interest.shards(channel) & self.shard.bit(), 0);
            let entries = self
                .lists
                .view(channel)
                .map_or(&[][..], |view| view.entries);
            for entry in entries.iter().filter(|entry| entry.filtered()) {
                assert!(records.contains_key(&(channel, entry.slot())));
                filtered += 1;
            }
            let shown = self.interest.with_filters(channel) & self.shard.bit() != 0;
            assert_eq!(shown, self.has_filters(channel));
        }
        assert_eq!(filtered, records.len());
    }

    fn judge(
        &mut self,
        channel: ChannelIndex,
        gate: &Gate,
        who: &impl Fn(SlotId) -> PrincipalIndex,
    ) {
        // The epoch first, so that the stamp is never newer than the verdicts.
        let epoch = gate.epoch_of(channel).get();
        if self.lists.is_judged(channel, epoch) {
            return;
        }
        let mut again = false;
        let unknown = &mut self.unknown;
        self.lists.judge(channel, epoch, |slot| {
            let principal = who(slot);
            match gate.allows(principal, Action::Subscribe, channel) {
                Ok(()) => true,
                Err(Denied::NoRight | Denied::NotLive) => false,
                Err(Denied::LeaseOver) => {
                    again = true;
                    false
                }
                Err(Denied::Unknown) => {
                    if unknown.len() < UNKNOWN_MAX {
                        unknown.insert((principal, channel));
                    } else {
                        again = true;
                    }
                    false
                }
            }
        });
        if again {
            self.lists.unjudge(channel);
        }
    }

    fn ask(&mut self, principal: PrincipalIndex, channel: ChannelIndex) {
        if self.unknown.len() < UNKNOWN_MAX {
            self.unknown.insert((principal, channel));
        } else {
            self.lists.unjudge(channel);
        }
    }

    /// Brings the shared bits of a channel up to date with its list.
    fn show_interest(&self, channel: ChannelIndex) {
        let view = self.lists.view(channel);
        let filters = view.is_some_and(|view: View<'_>| view.filtered || view.bare);
        self.interest.set_filters(channel, self.shard, filters);
        self.interest.set_shard(channel, self.shard, view.is_some());
    }
}

impl ChannelFilters {
    /// Adds a record; true if it replaced one of the same slot.
    fn add(&mut self, filter: &str, record: Record) -> bool {
        let slot = record.slot();
        let same = self.by_filter.get_or_insert_with(filter, SmallVec::new);
        match same.binary_search_by_key(&slot, Record::slot) {
            Ok(at) => {
                same[at] = record;
                true
            }
            Err(at) => {
                same.insert(at, record);
                false
            }
        }
    }

    /// The slot has one record more than the one it had.
    fn note_another(&mut self, slot: SlotId) {
        *self.several.entry(slot).or_insert(1) += 1;
    }

    /// Removes a record and tells how many the slot has left.
    fn remove(&mut self, slot: SlotId, filter: &str) -> Option<u32> {
        let same = self.by_filter.get_mut(filter)?;
        let at = same.binary_search_by_key(&slot, Record::slot).ok()?;
        same.remove(at);
        if same.is_empty() {
            self.by_filter.remove(filter);
        }
        let Some(count) = self.several.get_mut(&slot) else {
            return Some(0);
        };
        *count -= 1;
        let left = *count;
        if left == 1 {
            self.several.remove(&slot);
        }
        Some(left)
    }
}

impl Record {
    fn of(entry: Entry) -> Self {
        Self {
            entry,
            identifier: 0,
            prefix: None,
        }
    }

    fn slot(&self) -> SlotId {
        self.entry.slot()
    }
}

/// Whether a subscription needs no record: then whether it is to the channel itself.
fn plain_form(wanted: &Subscription) -> Option<bool> {
    if wanted.identifier.is_some() || wanted.prefix.is_some() {
        return None;
    }
    match &*wanted.filter {
        "" => Some(true),
        "#" => Some(false),
        _ => None,
    }
}

/// The filter of an entry without record.
const fn plain_filter(entry: Entry) -> &'static str {
    if entry.bare() { "" } else { "#" }
}

#[cfg(test)]
#[path = "subs_tests.rs"]
mod tests;
