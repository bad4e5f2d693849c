//! Who receives one message on this shard.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::entry::{Entry, SlotId, Wishes};

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
}

/// Working memory of one route, reused.
#[derive(Debug, Default)]
pub(crate) struct MatchSet {
    found: Vec<Found>,
    matches: Vec<Match>,
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
            let start = self.identifiers.len() as u32;
            let mut wishes = Wishes {
                no_local: true,
                ..Wishes::default()
            };
            let mut prefix = 0;
            for found in same {
                let other = found.entry.wishes();
                // [MQTT-3.3.4-2] [MQTT3-3.3.5-1]
                wishes.qos = wishes.qos.max(other.qos);
                wishes.no_local &= other.no_local;
                wishes.retain_as_published |= other.retain_as_published;
                wishes.version5 |= other.version5;
                if found.identifier != 0 {
                    self.identifiers.push(found.identifier);
                }
                if prefix == 0 {
                    prefix = found.prefix;
                }
            }
            self.matches.push(Match {
                slot: same[0].entry.slot(),
                qos: wishes.qos,
                no_local: wishes.no_local,
                retain_as_published: wishes.retain_as_published,
                version5: wishes.version5,
                identifiers: start..self.identifiers.len() as u32,
                prefix,
            });
        }
    }
}
