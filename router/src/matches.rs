//! Who receives one message on this shard.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::entry::{Entry, SlotId};

/// All live receivers of one message on this shard, each once.
#[derive(Copy, Clone, Debug)]
pub enum Routed<'s> {
    /// The channel's entries as they stand: nobody here has filters.
    Plain(&'s [Entry]),
    /// Subscriptions that matched, merged per subscriber.
    Merged(Merged<'s>),
}

/// Matches with their Subscription Identifiers and prefixes. A slice of [`Match`].
#[derive(Copy, Clone, Debug)]
pub struct Merged<'s> {
    set: &'s MatchSet,
}

/// One receiver with what its matching subscriptions ask for together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The subscriber.
    pub slot: SlotId,
    /// The highest granted QoS.
    pub qos: u8,
    /// Whether all of them have No Local.
    pub no_local: bool,
    /// Whether any of them has Retain As Published.
    pub retain_as_published: bool,
    /// Whether the subscriber speaks MQTT 5.
    pub version5: bool,
    identifiers: Range<u32>,
    /// Place of the prefix and one; 0 for none.
    prefix: u32,
    /// Place in `MatchSet::own` and one; 0 if all or none of them have No Local.
    own: u32,
}

/// Working memory of one route, reused.
#[derive(Debug, Default)]
pub(crate) struct MatchSet {
    found: Vec<Found>,
    matches: Vec<Match>,
    /// What is left of matches without those of their subscriptions that have No Local.
    own: Vec<Match>,
    identifiers: Vec<u32>,
    prefixes: Vec<Arc<str>>,
    /// Entries that are left when some are not wanted.
    pub(crate) plain: Vec<Entry>,
    /// Slots that are wanted; all without it.
    slots: Option<Range<u32>>,
}

#[derive(Copy, Clone, Debug)]
struct Found {
    entry: Entry,
    identifier: u32,
    prefix: u32,
}

impl Routed<'_> {
    /// Number of receivers.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Plain(entries) => entries.len(),
            Self::Merged(merged) => merged.len(),
        }
    }

    /// Whether nobody receives the message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'s> Merged<'s> {
    /// Subscription Identifiers of all matching subscriptions of a receiver.
    /// [MQTT-3.3.4-3] [MQTT-3.3.4-4]
    #[must_use]
    pub fn identifiers(&self, one: &Match) -> &'s [u32] {
        &self.set.identifiers[one.identifiers.start as usize..one.identifiers.end as usize]
    }

    /// The topic prefix the receiver subscribed with, when it is not the canonical one.
    #[must_use]
    pub fn prefix(&self, one: &Match) -> Option<&'s Arc<str>> {
        self.set.prefixes.get((one.prefix as usize).wrapping_sub(1))
    }

    /// What a receiver is sent of a message that it published itself, if `own`: what its matching
    /// subscriptions without No Local ask for; `None` when all of them have it. [MQTT-3.8.3-3]
    #[must_use]
    pub fn seen_by<'m>(&self, one: &'m Match, own: bool) -> Option<&'m Match>
    where
        's: 'm,
    {
        match own {
            true if one.no_local => None,
            true if one.own > 0 => self.set.own.get(one.own as usize - 1),
            _ => Some(one),
        }
    }

    pub(crate) fn new(set: &'s MatchSet) -> Self {
        Self { set }
    }
}

impl Deref for Merged<'_> {
    type Target = [Match];

    fn deref(&self) -> &[Match] {
        &self.set.matches
    }
}

impl MatchSet {
    /// Begins with nothing; only matches in these slots will count.
    pub(crate) fn clear(&mut self, slots: Option<Range<u32>>) {
        self.slots = slots;
        self.found.clear();
        self.matches.clear();
        self.own.clear();
        self.identifiers.clear();
        self.prefixes.clear();
    }

    /// Notes one matching subscription.
    pub(crate) fn add(&mut self, entry: Entry, identifier: u32, prefix: Option<&Arc<str>>) {
        let slot = entry.slot().get();
        if self
            .slots
            .as_ref()
            .is_some_and(|slots| !slots.contains(&slot))
        {
            return;
        }
        let prefix = prefix.map_or(0, |prefix| {
            self.prefixes.push(Arc::clone(prefix));
            self.prefixes.len() as u32
        });
        self.found.push(Found {
            entry,
            identifier,
            prefix,
        });
    }

    /// Turns what was noted into one match per subscriber.
    pub(crate) fn merge(&mut self) {
        self.found.sort_by_key(|found| found.entry.slot());
        for same in self.found.chunk_by(|a, b| a.entry.slot() == b.entry.slot()) {
            let local = |found: &&Found| !found.entry.no_local();
            let mut one = combined(same.iter(), &mut self.identifiers);
            if !one.no_local && same.iter().any(|found| found.entry.no_local()) {
                let own = combined(same.iter().filter(local), &mut self.identifiers);
                self.own.push(own);
                one.own = self.own.len() as u32;
            }
            self.matches.push(one);
        }
    }
}

/// What matching subscriptions of one subscriber ask for together. [MQTT-3.3.4-2] [MQTT3-3.3.5-1]
fn combined<'f>(
    subscriptions: impl Iterator<Item = &'f Found>,
    identifiers: &mut Vec<u32>,
) -> Match {
    let start = identifiers.len() as u32;
    let mut one = Match {
        slot: SlotId::new(0),
        qos: 0,
        no_local: true,
        retain_as_published: false,
        version5: false,
        identifiers: start..start,
        prefix: 0,
        own: 0,
    };
    for found in subscriptions {
        let wishes = found.entry.wishes();
        one.slot = found.entry.slot();
        one.qos = one.qos.max(wishes.qos);
        one.no_local &= wishes.no_local;
        one.retain_as_published |= wishes.retain_as_published;
        one.version5 |= wishes.version5;
        if found.identifier != 0 {
            identifiers.push(found.identifier);
        }
        if one.prefix == 0 {
            one.prefix = found.prefix;
        }
    }
    one.identifiers.end = identifiers.len() as u32;
    one
}
