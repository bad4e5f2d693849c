//! What each client sent, was given and subscribed to, told to control once a second.

use authcache::PrincipalIndex;
use router::{ShardId, SlotId};

use crate::shard::Shard;
use crate::shard::shared::ToControl;
use crate::shard::slot::Slab;
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

    /// Looks through the next slots, at most [`SWEPT_MAX`], and begins anew behind the last.
    fn sweep<W>(&mut self, slots: &mut Slab<W>) {
        let count = slots.len();
        for _ in 0..count.min(SWEPT_MAX) {
            let id = SlotId::new((self.at % count) as u32);
            self.at = (self.at + 1) % count;
            // Most have nothing to tell: their slots stay out of the cache.
            if *slots.tally_mut(id) != Tally::default() {
                let tally = std::mem::take(slots.tally_mut(id));
                self.found.extend(tally.activity(slots.principal(id)));
            }
        }
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
        let now_s = self.env.own_second();
        if self.tallies.looked_s == now_s {
            return;
        }
        self.tallies.looked_s = now_s;
        self.tallies.sweep(&mut self.outlets.slots);
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

#[cfg(test)]
mod tests {
    use session::Now;

    use super::*;

    #[test]
    fn so_many_slots_are_looked_at_in_a_second_and_all_of_them_in_turns() {
        let mut slots: Slab<()> = Slab::new(0);
        let more = 100;
        let ids: Vec<SlotId> = (0..SWEPT_MAX + more)
            .map(|_| slots.insert(0, Now::default()).unwrap())
            .collect();
        for id in &ids {
            slots.tally_mut(*id).received(1);
        }
        let mut tallies = Tallies::default();
        tallies.sweep(&mut slots);
        assert_eq!(tallies.found.len(), SWEPT_MAX);
        // What was looked at has nothing to tell; the next ones are looked at first.
        slots.tally_mut(ids[0]).gave(2);
        tallies.sweep(&mut slots);
        assert_eq!(tallies.found.len(), SWEPT_MAX + more + 1);
        let last = tallies.found.last().unwrap();
        assert_eq!((last.inbound, last.outbound), (0, 2));
        let told: u32 = tallies.found.iter().map(|one| one.inbound).sum();
        assert_eq!(told as usize, SWEPT_MAX + more);
    }
}
