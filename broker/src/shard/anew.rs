//! A shard that ended by a panic begins anew: its sessions are lost, everybody else's are not.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use router::{SlotId, Subs};

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::env::Env;
use crate::shard::inbox::Post;
use crate::shard::roster::Roster;
use crate::shard::slot::Slab;
use crate::shard::wires::Wires;

/// What goes on from a shard that panicked to the one that takes its place.
pub(crate) struct Remains<W> {
    env: Env<W>,
    /// The last claim's number.
    epoch: u64,
    sys_interval_s: u32,
}

impl<W: Wires> Shard<W> {
    /// Ends a shard whose own state cannot be trusted any more: closes its connections and takes
    /// back all that others count for it. Messages that it accepted for other shards still go.
    pub(crate) fn abandon(mut self) -> Remains<W::Wire> {
        self.post();
        let mut rest = Vec::new();
        let here = self.env.id;
        let shared = Arc::clone(&self.env.shared);
        shared.inboxes[here.index()].take(&mut rest);
        let mut gone = self.arriving;
        for post in rest.into_iter().flat_map(|batch| batch.posts) {
            match post {
                Post::Arrival(arrival) => {
                    if let Some(wire) = self.outlets.wires.place(arrival.wire) {
                        self.outlets.wires.close(wire);
                    }
                    gone += 1;
                }
                // Not counted yet.
                Post::Accepted { wire, .. } => {
                    if let Some(wire) = self.outlets.wires.place(wire) {
                        self.outlets.wires.close(wire);
                    }
                }
                _ => {}
            }
        }
        for arrival in self.takeovers.take_all() {
            if let Some(wire) = self.outlets.wires.place(arrival.wire) {
                self.outlets.wires.close(wire);
            }
            gone += 1;
        }
        let used: Vec<SlotId> = self.outlets.slots.used().collect();
        for id in used {
            if let Some(wire) = self.outlets.slots.slot_mut(id).wire.take() {
                self.outlets.wires.close(wire);
                self.env.counters.closed(Closed::Internal);
                gone += 1;
            }
        }
        shared.connections.fetch_sub(gone, Ordering::Relaxed);
        shared.interest.forget_shard(here);
        shared.groups.forget_shard(here, &shared.interest);
        self.change_retained(|retained| retained.remove_if(|_| true));
        shared.inboxes[here.index()].set_behind(false);
        let counters = &self.env.counters;
        for gauge in [
            &counters.connections,
            &counters.sessions,
            &counters.subscriptions,
            &counters.retained,
            &counters.owed,
            &counters.coap.endpoints,
            &counters.coap.observations,
        ] {
            gauge.set(0);
        }
        Remains {
            epoch: self.roster.epoch(),
            sys_interval_s: self.sys.interval_s(),
            env: self.env,
        }
    }

    /// The shard that takes the place of one that panicked. It serves when control's link has told
    /// it again what it has to know.
    pub(crate) fn anew(remains: Remains<W::Wire>, wires: W, subs: Subs, random: u64) -> Shard<W> {
        let Remains {
            env,
            epoch,
            sys_interval_s,
        } = remains;
        let here = env.id;
        let shared = Arc::clone(&env.shared);
        let mut shard = Shard::new(env, wires, subs, 0, sys_interval_s);
        shard.roster = Roster::above(epoch);
        // Tokens of the one before are on their way still.
        shard.outlets.slots = Slab::new(random as u32);
        shared.control.begun_anew(here);
        shard
    }
}
