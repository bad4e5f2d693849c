//! What each client sent, was given and subscribed to, told to control once a second.

use authcache::PrincipalIndex;
use router::{ShardId, SlotId};

use crate::shard::Shard;
use crate::shard::shared::ToControl;
use crate::shard::wires::Wires;

/// Slots that are looked at in one second: a million take two minutes, a few thousand one second.
const SWEPT_MAX: usize = 8_192;

/// What happened in a slot since it was told last. Beside the slot, whose two cache lines are full.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Tally {
    inbound: u32,
    outbound: u32,
    subscriptions: i32,
}

/// What one client did.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Activity {
    pub(crate) principal: PrincipalIndex,
    /// Messages that it published.
    pub(crate) inbound: u32,
    /// Messages that it was given.
    pub(crate) outbound: u32,
    /// By how many subscriptions it has more.
    pub(crate) subscriptions: i32,
}

/// Where the look through the slots is, and what it found.
#[derive(Debug, Default)]
pub(crate) struct Tallies {
    found: Vec<Activity>,
    at: usize,
    looked_s: u32,
}

impl Tallies {
    /// Whether something waits to be told.
    pub(super) fn any(&self) -> bool {
        !self.found.is_empty()
    }
}

impl Tally {
    #[inline]
    pub(crate) fn received(&mut self, count: u32) {
        self.inbound = self.inbound.saturating_add(count);
    }

    #[inline]
    pub(crate) fn gave(&mut self, count: u32) {
        self.outbound = self.outbound.saturating_add(count);
    }

    pub(crate) fn subscribed(&mut self, more: i32) {
        self.subscriptions = self.subscriptions.saturating_add(more);
    }

    fn activity(self, principal: PrincipalIndex) -> Option<Activity> {
        (self != Tally::default()).then_some(Activity {
            principal,
            inbound: self.inbound,
            outbound: self.outbound,
            subscriptions: self.subscriptions,
        })
    }
}

impl<W: Wires> Shard<W> {
    /// A client has come: it is seen even if it says nothing.
    pub(super) fn note_seen(&mut self, principal: PrincipalIndex) {
        self.tallies.found.push(Activity {
            principal,
            inbound: 0,
            outbound: 0,
            subscriptions: 0,
        });
    }

    /// The session in a slot ends: what it did is told still.
    pub(super) fn note_ended(&mut self, id: SlotId, subscriptions: usize) {
        let principal = self.outlets.slots.principal(id);
        let mut tally = std::mem::take(self.outlets.slots.tally_mut(id));
        tally.subscribed(i32::try_from(subscriptions).map_or(i32::MIN, |count| -count));
        self.tallies.found.extend(tally.activity(principal));
    }

    /// A client is gone: nothing more is said of it.
    pub(super) fn forget_activity(&mut self, principal: PrincipalIndex) {
        self.tallies
            .found
            .retain(|activity| activity.principal != principal);
    }

    /// Tells control what clients did, once a second.
    pub(super) fn tell_activity(&mut self) {
        let now_s = self.env.now.as_secs();
        if self.tallies.looked_s == now_s {
            return;
        }
        self.tallies.looked_s = now_s;
        let count = self.outlets.slots.len();
        for _ in 0..count.min(SWEPT_MAX) {
            let id = SlotId::new((self.tallies.at % count) as u32);
            self.tallies.at = (self.tallies.at + 1) % count;
            let tally = std::mem::take(self.outlets.slots.tally_mut(id));
            let principal = self.outlets.slots.principal(id);
            self.tallies.found.extend(tally.activity(principal));
        }
        if self.tallies.found.is_empty() {
            return;
        }
        let shard: ShardId = self.env.id;
        let activity = std::mem::take(&mut self.tallies.found);
        // What there is no room for is not counted: messages come first.
        let _ = self
            .env
            .shared
            .control
            .ask(ToControl::Activity { shard, activity });
    }
}
