//! What clients did, summed over the shards until control is told.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};

use authcache::feed::Activity;
use authcache::{Directory, EntityId, PrincipalIndex, PrincipalKind};
use router::ShardId;

use crate::shard::tally;

/// Clients of which something is gathered; what others do meanwhile is not counted.
const WAITING_MAX: usize = 262_144;
/// Of more clients than these what they do is gathered for longer: control notes it in the order of
/// their ids, and neighbours on one page of its database cost little more than one of them.
const FEW: usize = 1_000;
/// For how long, in milliseconds.
const GATHERED_MS: u64 = 30_000;
/// Clients told of at a time: a third of a megabyte.
const TOLD_MAX: usize = authcache::feed::ACTIVITY_MAX;
/// Milliseconds between two reports.
const EVERY_MS: u64 = 1_000;

/// Sums of one client.
#[derive(Copy, Clone, Debug)]
struct Sum {
    id: EntityId,
    inbound: u64,
    outbound: u64,
}

/// What is not told yet, and how many subscriptions everybody has.
#[derive(Debug, Default)]
pub(crate) struct Activities {
    waiting: HashMap<PrincipalIndex, Sum>,
    /// What is told, a part in each report, from its end on; the highest ids come first.
    telling: Vec<(PrincipalIndex, Sum)>,
    /// Clients of `telling` that are gone.
    gone: HashSet<PrincipalIndex>,
    /// When telling began last; what waits is gathered from then on.
    since_ms: u64,
    /// By shard and principal: two bytes for each.
    subscriptions: Vec<Vec<u16>>,
    next_ms: u64,
}

impl Activities {
    /// Adds what a shard saw.
    pub(crate) fn add(&mut self, shard: ShardId, seen: &[tally::Activity], directory: &Directory) {
        if self.subscriptions.len() <= shard.index() {
            self.subscriptions.resize(shard.index() + 1, Vec::new());
        }
        let held = &mut self.subscriptions[shard.index()];
        for activity in seen {
            let kind = directory.principal_facts(activity.principal).kind;
            if !matches!(kind, PrincipalKind::Client { .. }) {
                continue;
            }
            if activity.subscriptions != 0 {
                let at = activity.principal.index();
                if held.len() <= at {
                    held.resize(at + 1, 0);
                }
                let now = i32::from(held[at]).saturating_add(activity.subscriptions);
                held[at] = now.clamp(0, i32::from(u16::MAX)) as u16;
            }
            let full = self.waiting.len() >= WAITING_MAX;
            if full && !self.waiting.contains_key(&activity.principal) {
                continue;
            }
            let sum = self.waiting.entry(activity.principal).or_insert(Sum {
                id: directory.principal_id(activity.principal),
                inbound: 0,
                outbound: 0,
            });
            sum.inbound += u64::from(activity.inbound);
            sum.outbound += u64::from(activity.outbound);
        }
    }

    /// A shard has begun anew: its clients have to come and subscribe again.
    pub(crate) fn forget(&mut self, shard: ShardId) {
        if let Some(held) = self.subscriptions.get_mut(shard.index()) {
            held.clear();
        }
    }

    /// A client is gone, and nobody says anything of it any more: its index may be another's next.
    pub(crate) fn forget_client(&mut self, principal: PrincipalIndex) {
        self.waiting.remove(&principal);
        if !self.telling.is_empty() {
            self.gone.insert(principal);
        }
        for held in &mut self.subscriptions {
            if let Some(held) = held.get_mut(principal.index()) {
                *held = 0;
            }
        }
    }

    /// When something is to be told, if anything waits.
    pub(crate) fn due_ms(&self) -> Option<u64> {
        if !self.telling.is_empty() {
            return Some(self.next_ms);
        }
        (!self.waiting.is_empty()).then_some(self.next_ms.max(self.gathered_until_ms()))
    }

    /// Until when what waits is gathered.
    fn gathered_until_ms(&self) -> u64 {
        match self.waiting.len() {
            count if count > FEW && count < WAITING_MAX => self.since_ms + GATHERED_MS,
            _ => 0,
        }
    }

    /// What is to be told now.
    pub(crate) fn take(&mut self, now_ms: u64) -> Vec<Activity> {
        if self.due_ms().is_none_or(|due_ms| now_ms < due_ms) {
            return Vec::new();
        }
        self.next_ms = now_ms + EVERY_MS;
        if self.telling.is_empty() {
            self.telling = std::mem::take(&mut self.waiting).into_iter().collect();
            self.telling
                .sort_unstable_by_key(|(_, sum)| Reverse(sum.id));
            self.since_ms = now_ms;
        }
        let part = self.telling.len().saturating_sub(TOLD_MAX);
        let mut part = self.telling.split_off(part);
        part.retain(|(told, _)| !self.gone.contains(told));
        if self.telling.is_empty() {
            // From here on their indexes are others'.
            self.gone = HashSet::new();
        }
        let told = part.into_iter().map(|(principal, sum)| {
            let at = principal.index();
            let held = self.subscriptions.iter().filter_map(|held| held.get(at));
            Activity {
                client: sum.id,
                inbound: sum.inbound,
                outbound: sum.outbound,
                subscriptions: held.map(|held| u32::from(*held)).sum(),
            }
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use authcache::{AuthCache, Capacity, Change, Identity, PrincipalRecord, Status};

    use super::*;

    const DOMAIN: EntityId = EntityId::from_u128(1);
    const HERE: ShardId = ShardId::new(0);
    const THERE: ShardId = ShardId::new(1);

    /// A directory of so many clients, and their indexes.
    fn clients(count: u128) -> (Arc<AuthCache>, Vec<PrincipalIndex>) {
        let (cache, mut writer) = AuthCache::new(Capacity::default());
        writer.apply(&Change::DomainSet {
            id: DOMAIN,
            route: "plant".to_owned(),
            status: Status::Enabled,
        });
        let held = (0..count).map(|number| {
            writer.hold(&Identity {
                id: EntityId::from_u128(100 + number),
                kind: PrincipalRecord::Client { domain: DOMAIN },
                status: Status::Enabled,
                credential: 1,
                rights: Vec::new(),
            })
        });
        let held = held.collect();
        (cache, held)
    }

    fn did(principal: PrincipalIndex, inbound: u32, subscriptions: i32) -> tally::Activity {
        tally::Activity {
            principal,
            inbound,
            outbound: 1,
            subscriptions,
        }
    }

    #[test]
    fn counts_of_all_shards_add_up_and_are_told_once() {
        let (cache, held) = clients(1);
        let mut activities = Activities::default();
        activities.add(HERE, &[did(held[0], 2, 3)], cache.directory());
        activities.add(THERE, &[did(held[0], 5, 1)], cache.directory());
        activities.add(HERE, &[did(held[0], 0, -2)], cache.directory());
        assert_eq!(activities.due_ms(), Some(0));
        let whole = Activity {
            client: EntityId::from_u128(100),
            inbound: 7,
            outbound: 3,
            subscriptions: 2,
        };
        assert_eq!(activities.take(7), [whole]);
        assert_eq!(activities.due_ms(), None);
        assert_eq!(activities.take(9_999), []);
    }

    #[test]
    fn reports_keep_their_distance() {
        let (cache, held) = clients(1);
        let mut activities = Activities::default();
        activities.add(HERE, &[did(held[0], 1, 0)], cache.directory());
        assert_eq!(activities.take(10).len(), 1);
        activities.add(HERE, &[did(held[0], 1, 0)], cache.directory());
        assert_eq!(activities.take(10 + EVERY_MS - 1), []);
        assert_eq!(activities.due_ms(), Some(10 + EVERY_MS));
        assert_eq!(activities.take(10 + EVERY_MS).len(), 1);
    }

    #[test]
    fn what_many_do_is_gathered_and_told_in_order() {
        let (cache, held) = clients(FEW as u128 + 1);
        let mut activities = Activities::default();
        let did = |activities: &mut Activities, clients: &[PrincipalIndex]| {
            let seen: Vec<_> = clients.iter().map(|who| did(*who, 1, 0)).collect();
            activities.add(HERE, &seen, cache.directory());
        };
        // Fewer are told at once.
        did(&mut activities, &held[1..]);
        assert_eq!(activities.due_ms(), Some(0));
        assert_eq!(activities.take(0).len(), FEW);
        for _ in 0..2 {
            did(&mut activities, &held);
            assert_eq!(activities.due_ms(), Some(GATHERED_MS));
            assert_eq!(activities.take(GATHERED_MS - 1), []);
        }
        let told = activities.take(GATHERED_MS);
        assert_eq!(told.len(), FEW + 1);
        assert!(told.iter().all(|client| client.inbound == 2));
        assert!(told.is_sorted_by(|one, next| one.client > next.client));
        assert_eq!(activities.due_ms(), None);
    }

    #[test]
    fn who_is_gone_is_not_told_of_in_a_later_part() {
        let (cache, held) = clients(TOLD_MAX as u128 + 1);
        let mut activities = Activities::default();
        let seen: Vec<_> = held.iter().map(|who| did(*who, 1, 0)).collect();
        activities.add(HERE, &seen, cache.directory());
        assert_eq!(activities.take(GATHERED_MS).len(), TOLD_MAX);
        assert_eq!(activities.due_ms(), Some(GATHERED_MS + EVERY_MS));
        // The lowest ids were told first.
        activities.forget_client(held[TOLD_MAX]);
        assert_eq!(activities.take(GATHERED_MS + EVERY_MS), []);
        assert_eq!(activities.due_ms(), None);
        // Its index may be another's by then.
        activities.add(HERE, &[did(held[TOLD_MAX], 1, 0)], cache.directory());
        assert_eq!(activities.take(2 * GATHERED_MS).len(), 1);
    }

    #[test]
    fn subscriptions_end_with_their_shard_and_their_client() {
        let (cache, held) = clients(2);
        let mut activities = Activities::default();
        for shard in [HERE, THERE] {
            activities.add(shard, &[did(held[0], 0, 2)], cache.directory());
            activities.add(shard, &[did(held[1], 0, 2)], cache.directory());
        }
        activities.take(0);
        let mut now_ms = 0;
        let mut subscriptions = |activities: &mut Activities, who| {
            now_ms += EVERY_MS;
            activities.add(HERE, &[did(who, 0, 0)], cache.directory());
            activities.take(now_ms)[0].subscriptions
        };
        assert_eq!(subscriptions(&mut activities, held[0]), 4);
        activities.forget(THERE);
        assert_eq!(subscriptions(&mut activities, held[0]), 2);
        activities.forget_client(held[0]);
        assert_eq!(subscriptions(&mut activities, held[0]), 0);
        assert_eq!(subscriptions(&mut activities, held[1]), 2);
    }

    #[test]
    fn beyond_the_bound_only_clients_that_wait_already_are_counted() {
        let (cache, held) = clients(WAITING_MAX as u128 + 1);
        let mut activities = Activities::default();
        for who in &held {
            activities.add(HERE, &[did(*who, 1, 0)], cache.directory());
        }
        activities.add(HERE, &[did(held[0], 1, 0)], cache.directory());
        let (mut told, mut inbound, mut now_ms) = (0, 0, 0);
        // That many are not gathered any longer.
        assert_eq!(activities.due_ms(), Some(0));
        while activities.due_ms().is_some() {
            let part = activities.take(now_ms);
            assert!(part.len() <= TOLD_MAX);
            told += part.len();
            inbound += part.iter().map(|client| client.inbound).sum::<u64>();
            now_ms += EVERY_MS;
        }
        assert_eq!((told, inbound), (WAITING_MAX, WAITING_MAX as u64 + 1));
    }
}
