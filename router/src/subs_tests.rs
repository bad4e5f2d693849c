use std::cell::RefCell;
use std::collections::BTreeMap;

use authcache::{
    AuthCache, Capacity, Change, EntityId, Identity, PrincipalRecord, Right, RightCache, Status,
    Writer,
};
use proptest::prelude::*;

use super::*;
use crate::filters::{FirstLevel, filter_matches};

const DOMAIN: EntityId = EntityId::from_u128(1);

/// One domain with channels `c0`…, an open channel, and a client per slot, all with all rights.
struct World {
    cache: Arc<AuthCache>,
    writer: RefCell<Writer>,
    gate: Gate,
    interest: Arc<Interest>,
    groups: Arc<SharedGroups>,
    principals: Vec<PrincipalIndex>,
}

fn channel_id(number: u32) -> EntityId {
    EntityId::from_u128(1000 + u128::from(number))
}

fn client_id(number: u32) -> EntityId {
    EntityId::from_u128(1_000_000 + u128::from(number))
}

impl World {
    fn new(channels: u32, clients: u32) -> Self {
        let (cache, mut writer) = AuthCache::new(Capacity::default());
        cache.lease().unlimited();
        let status = Status::Enabled;
        writer.apply(&Change::DomainSet {
            id: DOMAIN,
            route: "plant".into(),
            status,
        });
        for number in 0..channels {
            writer.apply(&channel_set(number, status));
        }
        let rights: Vec<_> = (0..channels)
            .map(|n| (channel_id(n), Right::BOTH))
            .collect();
        let principals = (0..clients).map(|number| {
            writer.hold(&Identity {
                id: client_id(number),
                kind: PrincipalRecord::Client { domain: DOMAIN },
                status,
                credential: 0,
                rights: rights.clone(),
            })
        });
        let principals = principals.collect();
        Self {
            gate: cache.gate(),
            cache,
            writer: RefCell::new(writer),
            interest: Arc::default(),
            groups: Arc::default(),
            principals,
        }
    }

    fn subs(&self, shard: u8) -> Subs {
        let (interest, groups) = (Arc::clone(&self.interest), Arc::clone(&self.groups));
        Subs::new(ShardId::new(shard), 4, interest, groups, 0)
    }

    fn channel(&self, number: u32) -> ChannelIndex {
        self.cache.directory().channel(channel_id(number)).unwrap()
    }

    fn who(&self, slot: SlotId) -> PrincipalIndex {
        self.principals[slot.index() % self.principals.len()]
    }

    fn permit(&self, slot: SlotId, wanted: Subscription) -> Option<Permitted<Subscription>> {
        let mut cache = RightCache::default();
        self.gate
            .permit(self.who(slot), Action::Subscribe, &mut cache, wanted)
            .ok()
    }

    fn subscribe(&self, subs: &mut Subs, slot: u32, channel: u32, filter: &str) -> bool {
        let wanted = wanted(self.channel(channel), filter);
        self.subscribe_to(subs, slot, wanted)
    }

    fn subscribe_to(&self, subs: &mut Subs, slot: u32, wanted: Subscription) -> bool {
        let slot = SlotId::new(slot);
        let permitted = self.permit(slot, wanted).expect("the right is there");
        subs.subscribe(permitted, slot).replaced
    }

    fn receivers(&self, subs: &mut Subs, channel: u32, subtopic: &str) -> Vec<u32> {
        receivers(self.route(subs, channel, subtopic))
    }

    fn route<'s>(&self, subs: &'s mut Subs, channel: u32, subtopic: &str) -> Routed<'s> {
        subs.route(self.channel(channel), None, subtopic, &self.gate, |slot| {
            self.who(slot)
        })
    }

    fn set_right(&self, client: u32, channel: u32, right: Right) {
        let (principal, channel) = (client_id(client), channel_id(channel));
        self.writer.borrow_mut().apply(&Change::RightSet {
            principal,
            channel,
            right,
        });
    }

    fn set_channel(&self, number: u32, status: Status) {
        self.writer.borrow_mut().apply(&channel_set(number, status));
    }
}

fn channel_set(number: u32, status: Status) -> Change {
    let route = Some(format!("c{number}"));
    Change::ChannelSet {
        id: channel_id(number),
        domain: DOMAIN,
        route,
        status,
        open: false,
    }
}

fn wanted(channel: ChannelIndex, filter: &str) -> Subscription {
    Subscription {
        channel,
        filter: filter.into(),
        qos: 0,
        no_local: false,
        retain_as_published: false,
        version5: true,
        identifier: None,
        prefix: None,
        share: None,
    }
}

fn receivers(routed: Routed<'_>) -> Vec<u32> {
    let mut slots: Vec<u32> = match routed {
        Routed::Plain(entries) => entries.iter().map(|entry| entry.slot().get()).collect(),
        Routed::Merged(merged) => merged.iter().map(|one| one.slot.get()).collect(),
    };
    slots.sort_unstable();
    slots
}

#[test]
fn whole_channel_and_channel_itself_are_plain_entries() {
    let world = World::new(1, 4);
    let mut subs = world.subs(0);
    assert!(!world.subscribe(&mut subs, 1, 0, "#"));
    assert!(!world.interest.with_filters(world.channel(0)) != 0);
    assert!(!subs.has_filters(world.channel(0)));
    world.subscribe(&mut subs, 2, 0, "");
    assert!(subs.has_filters(world.channel(0)));
    assert!(matches!(world.route(&mut subs, 0, "a"), Routed::Plain([_])));
    assert!(matches!(
        world.route(&mut subs, 0, ""),
        Routed::Plain([_, _])
    ));
    assert_eq!(world.receivers(&mut subs, 0, "a"), [1]);
    assert_eq!(world.receivers(&mut subs, 0, ""), [1, 2]);
    subs.invariants();
}

#[test]
fn interest_is_shown_before_suback_and_withdrawn_with_the_last_entry() {
    let world = World::new(1, 4);
    let (mut here, mut there) = (world.subs(0), world.subs(3));
    let channel = world.channel(0);
    world.subscribe(&mut here, 1, 0, "#");
    world.subscribe(&mut there, 2, 0, "a/+");
    assert_eq!(world.interest.shards(channel), 0b1001);
    assert_eq!(world.interest.with_filters(channel), 0b1000);
    assert!(there.unsubscribe(SlotId::new(2), channel, "a/+", None));
    assert_eq!(world.interest.shards(channel), 0b0001);
    assert_eq!(world.interest.with_filters(channel), 0);
    assert!(here.unsubscribe(SlotId::new(1), channel, "#", None));
    assert_eq!(world.interest.shards(channel), 0);
}

#[test]
fn same_filter_replaces_and_other_filters_add() {
    // [MQTT-3.8.4-3] [MQTT-3.10.4-1] [MQTT3-3.8.4-3] [MQTT3-3.10.4-1]
    let world = World::new(1, 4);
    let mut subs = world.subs(0);
    let slot = SlotId::new(1);
    let channel = world.channel(0);
    for filter in ["#", "", "a/+", "a/b"] {
        assert!(!world.subscribe(&mut subs, 1, 0, filter), "{filter}");
        subs.invariants();
        assert!(world.subscribe(&mut subs, 1, 0, filter), "{filter}");
        subs.invariants();
    }
    assert_eq!(world.receivers(&mut subs, 0, "a/b"), [1]);
    assert!(!subs.unsubscribe(slot, channel, "a/#", None));
    for filter in ["a/b", "", "#", "a/+"] {
        assert!(subs.unsubscribe(slot, channel, filter, None), "{filter}");
        assert!(!subs.unsubscribe(slot, channel, filter, None), "{filter}");
        subs.invariants();
    }
    assert!(world.receivers(&mut subs, 0, "a/b").is_empty());
}

#[test]
fn overlapping_subscriptions_give_one_delivery_with_all_they_ask_for() {
    // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT3-3.3.5-1]
    let world = World::new(1, 4);
    let mut subs = world.subs(0);
    let channel = world.channel(0);
    let identifier = NonZeroU32::new;
    let prefix: Arc<str> = Arc::from("/m/plant/c/c0");
    world.subscribe_to(
        &mut subs,
        1,
        Subscription {
            qos: 1,
            identifier: identifier(7),
            no_local: true,
            ..wanted(channel, "a/+")
        },
    );
    world.subscribe_to(
        &mut subs,
        1,
        Subscription {
            qos: 2,
            identifier: identifier(9),
            retain_as_published: true,
            prefix: Some(Arc::clone(&prefix)),
            ..wanted(channel, "a/b")
        },
    );
    world.subscribe_to(
        &mut subs,
        1,
        Subscription {
            identifier: identifier(5),
            ..wanted(channel, "x")
        },
    );
    world.subscribe_to(
        &mut subs,
        2,
        Subscription {
            qos: 1,
            ..wanted(channel, "#")
        },
    );
    let Routed::Merged(merged) = world.route(&mut subs, 0, "a/b") else {
        panic!("has filters")
    };
    let [one, two] = &merged[..] else {
        panic!("{merged:?}")
    };
    assert_eq!((one.slot.get(), one.qos), (1, 2));
    assert!(!one.no_local && one.retain_as_published && one.version5);
    let mut identifiers = merged.identifiers(one).to_vec();
    identifiers.sort_unstable();
    assert_eq!(identifiers, [7, 9]);
    assert_eq!(merged.prefix(one), Some(&prefix));
    assert_eq!((two.slot.get(), two.qos), (2, 1));
    assert!(merged.identifiers(two).is_empty() && merged.prefix(two).is_none());
    let Routed::Merged(merged) = world.route(&mut subs, 0, "a/c") else {
        panic!("has filters")
    };
    assert!(merged[0].no_local && merged.identifiers(&merged[0]) == [7]);
}

#[test]
fn parts_of_the_slots_together_are_the_whole_list() {
    let world = World::new(1, 12);
    for filters in [&["#"][..], &["#", "", "+"]] {
        let mut subs = world.subs(0);
        for slot in 0..12 {
            let filter = filters[slot as usize % filters.len()];
            assert!(!world.subscribe(&mut subs, slot, 0, filter));
        }
        for subtopic in ["", "a"] {
            let mut parts = Vec::new();
            for slots in [0..5, 5..6, 6..u32::MAX] {
                let routed = subs.route_within(
                    world.channel(0),
                    None,
                    subtopic,
                    &world.gate,
                    |slot| world.who(slot),
                    Some(slots.clone()),
                );
                let part = receivers(routed);
                assert!(part.iter().all(|slot| slots.contains(slot)));
                parts.extend(part);
            }
            assert_eq!(parts, world.receivers(&mut subs, 0, subtopic));
        }
    }
}

#[test]
fn a_publisher_hears_itself_by_its_subscription_without_no_local_alone() {
    // [MQTT-3.8.3-3] [MQTT-3.3.4-2] [MQTT-3.3.4-3]
    let world = World::new(1, 2);
    let mut subs = world.subs(0);
    let channel = world.channel(0);
    let silent = Subscription {
        qos: 2,
        identifier: NonZeroU32::new(7),
        no_local: true,
        retain_as_published: true,
        ..wanted(channel, "a/+")
    };
    let heard = Subscription {
        qos: 1,
        identifier: NonZeroU32::new(9),
        ..wanted(channel, "#")
    };
    world.subscribe_to(&mut subs, 0, silent.clone());
    world.subscribe_to(&mut subs, 0, heard);
    world.subscribe_to(&mut subs, 1, silent);
    let Routed::Merged(merged) = world.route(&mut subs, 0, "a/b") else {
        panic!("has filters")
    };
    let [both, all_silent] = &merged[..] else {
        panic!("{merged:?}")
    };
    let of_another = merged.seen_by(both, false).unwrap();
    assert_eq!((of_another.qos, of_another.retain_as_published), (2, true));
    assert_eq!(merged.identifiers(of_another), [7, 9]);
    let of_its_own = merged.seen_by(both, true).unwrap();
    assert_eq!((of_its_own.slot, of_its_own.qos), (both.slot, 1));
    assert!(!of_its_own.retain_as_published);
    assert_eq!(merged.identifiers(of_its_own), [9]);
    assert_eq!(merged.seen_by(all_silent, false), Some(all_silent));
    assert_eq!(merged.seen_by(all_silent, true), None);
}

#[test]
fn revoked_subscription_goes_dormant_and_wakes_without_subscribe() {
    let world = World::new(1, 40);
    let mut subs = world.subs(0);
    let channel = world.channel(0);
    for slot in 0..40 {
        world.subscribe(&mut subs, slot, 0, if slot % 2 == 0 { "#" } else { "a" });
    }
    assert_eq!(world.receivers(&mut subs, 0, "a").len(), 40);
    world.set_right(4, 0, Right::PUBLISH);
    world.set_right(5, 0, Right::NONE);
    for slot in [4, 5] {
        subs.rejudge(SlotId::new(slot), channel, &world.gate, |slot| {
            world.who(slot)
        });
        assert!(!subs.is_live(SlotId::new(slot), channel));
    }
    subs.invariants();
    let left = world.receivers(&mut subs, 0, "a");
    assert!(left.len() == 38 && !left.contains(&4) && !left.contains(&5));
    world.set_right(5, 0, Right::SUBSCRIBE);
    subs.rejudge(SlotId::new(5), channel, &world.gate, |slot| world.who(slot));
    assert!(world.receivers(&mut subs, 0, "a").contains(&5));
    // Dormant entries can be unsubscribed.
    assert!(subs.unsubscribe(SlotId::new(4), channel, "#", None));
    subs.invariants();
}

#[test]
fn disabled_channel_silences_its_list_until_it_is_enabled() {
    let world = World::new(2, 300);
    let mut subs = world.subs(0);
    for slot in 0..300 {
        world.subscribe(&mut subs, slot, 0, "#");
    }
    world.subscribe(&mut subs, 1, 1, "a/#");
    assert_eq!(world.receivers(&mut subs, 0, "a").len(), 300);
    world.set_channel(0, Status::Disabled);
    assert!(world.receivers(&mut subs, 0, "a").is_empty());
    assert_eq!(world.receivers(&mut subs, 1, "a"), [1]);
    subs.invariants();
    world.set_channel(0, Status::Enabled);
    assert_eq!(world.receivers(&mut subs, 0, "a").len(), 300);
    subs.invariants();
}

#[test]
fn nobody_receives_without_a_lease_and_all_do_when_it_is_back() {
    let world = World::new(1, 3);
    let mut subs = world.subs(0);
    world.subscribe(&mut subs, 1, 0, "#");
    world.cache.lease().end();
    assert!(world.receivers(&mut subs, 0, "a").is_empty());
    world.cache.lease().unlimited();
    assert_eq!(world.receivers(&mut subs, 0, "a"), [1]);
}

#[test]
fn unknown_right_of_a_user_is_asked_for_and_the_answer_wakes_the_entry() {
    let world = World::new(1, 1);
    let mut subs = world.subs(0);
    let channel = world.channel(0);
    let user = Identity {
        id: EntityId::from_u128(77),
        kind: PrincipalRecord::User,
        status: Status::Enabled,
        credential: 0,
        rights: vec![(channel_id(0), Right::SUBSCRIBE)],
    };
    let user = world.writer.borrow_mut().hold(&user);
    let who = |_: SlotId| user;
    let permitted = world.gate.permit(
        user,
        Action::Subscribe,
        &mut RightCache::default(),
        wanted(channel, "#"),
    );
    subs.subscribe(permitted.ok().unwrap(), SlotId::new(0));
    assert_eq!(subs.route(channel, None, "", &world.gate, who).len(), 1);
    world
        .writer
        .borrow_mut()
        .apply(&Change::UserRightsStale { domain: DOMAIN });
    assert!(subs.route(channel, None, "", &world.gate, who).is_empty());
    assert_eq!(subs.take_unknown(), [(user, channel)]);
    assert!(subs.take_unknown().is_empty());
    world
        .writer
        .borrow_mut()
        .set_right(user, channel, Right::SUBSCRIBE);
    subs.rejudge(SlotId::new(0), channel, &world.gate, who);
    assert_eq!(subs.route(channel, None, "", &world.gate, who).len(), 1);
}

#[test]
fn removed_channel_takes_its_subscriptions_with_it() {
    let world = World::new(1, 4);
    let mut subs = world.subs(0);
    let channel = world.channel(0);
    world.subscribe(&mut subs, 1, 0, "#");
    world.subscribe(&mut subs, 2, 0, "a");
    let share = Some("g".into());
    world.subscribe_to(
        &mut subs,
        3,
        Subscription {
            share,
            ..wanted(channel, "#")
        },
    );
    assert_eq!(subs.remove_channel(channel), [1, 2, 3].map(SlotId::new));
    subs.invariants();
    assert_eq!(world.interest.shards(channel), 0);
    assert!(!world.interest.has_groups(channel));
    assert!(!subs.unsubscribe(SlotId::new(1), channel, "#", None));
}

#[test]
fn open_namespace_routes_by_first_level_and_wildcards() {
    // [MQTT-4.7.2-1] [MQTT3-4.7.2-1]
    let world = World::new(0, 3);
    let id = EntityId::from_u128(500);
    let change = Change::ChannelSet {
        id,
        domain: DOMAIN,
        route: None,
        status: Status::Enabled,
        open: true,
    };
    world.writer.borrow_mut().apply(&change);
    for number in 0..3 {
        let principal = client_id(number);
        let right = Right::BOTH;
        world.writer.borrow_mut().apply(&Change::RightSet {
            principal,
            channel: id,
            right,
        });
    }
    let directory = world.cache.directory();
    let open = directory
        .open_channel(directory.domain(DOMAIN).unwrap())
        .unwrap();
    let mut subs = world.subs(0);
    for (slot, filter) in [(0, "home/+/temp"), (1, "+/+/temp"), (1, "home/#"), (2, "#")] {
        world.subscribe_to(&mut subs, slot, wanted(open.of_filter(filter), filter));
    }
    subs.invariants();
    let mut route = |topic: &str| {
        let who = |slot| world.who(slot);
        receivers(subs.route(
            open.of_topic(topic),
            Some(open.wild()),
            topic,
            &world.gate,
            who,
        ))
    };
    assert_eq!(route("home/bath/temp"), [0, 1, 2]);
    assert_eq!(route("home"), [1, 2]);
    assert_eq!(route("barn/cow/temp"), [1, 2]);
    assert_eq!(route("barn"), [2]);
}

#[test]
fn group_sends_each_message_to_one_ready_member_in_turn() {
    // [MQTT-4.8.2-3] T-TOP-12
    let world = World::new(1, 6);
    let mut subs = world.subs(1);
    let channel = world.channel(0);
    for slot in 0..3 {
        let share = Some("g".into());
        let wanted = Subscription {
            share,
            qos: slot as u8,
            ..wanted(channel, "a/#")
        };
        assert!(!world.subscribe_to(&mut subs, slot, wanted.clone()));
        assert!(world.subscribe_to(&mut subs, slot, wanted));
    }
    subs.invariants();
    // A group is no receiver by itself.
    assert!(world.receivers(&mut subs, 0, "a/b").is_empty());
    assert!(world.interest.has_groups(channel));
    assert!(world.groups.matching(channel, None, "b").is_empty());
    let [group] = &world.groups.matching(channel, None, "a/b")[..] else {
        panic!("one group")
    };
    assert_eq!(group.next(ShardId::new(1)), Some(ShardId::new(1)));
    assert_eq!(group.next(ShardId::new(0)), Some(ShardId::new(1)));
    assert_eq!(group.next_other(ShardId::new(1)), None);
    let pick = |subs: &mut Subs, full: &[u32]| {
        let state = |slot: SlotId| match full.contains(&slot.get()) {
            true => MemberState::Full,
            false => MemberState::Ready,
        };
        let picked = subs.pick(group, &world.gate, |slot| world.who(slot), state);
        picked.map(|picked| (picked.slot.get(), picked.qos, picked.state))
    };
    let ready = MemberState::Ready;
    assert_eq!(pick(&mut subs, &[]), Some((0, 0, ready)));
    assert_eq!(pick(&mut subs, &[]), Some((1, 1, ready)));
    assert_eq!(pick(&mut subs, &[2]), Some((0, 0, ready)));
    assert_eq!(pick(&mut subs, &[0, 2]), Some((1, 1, ready)));
    assert_eq!(pick(&mut subs, &[0, 1, 2]), Some((2, 2, MemberState::Full)));
    world.set_right(0, 0, Right::PUBLISH);
    assert_eq!(pick(&mut subs, &[1]), Some((2, 2, ready)));
    assert_eq!(pick(&mut subs, &[1, 2]).map(|(slot, ..)| slot), Some(1));
    for slot in 0..3 {
        assert!(subs.unsubscribe(SlotId::new(slot), channel, "a/#", Some("g")));
        subs.invariants();
    }
    assert!(!world.interest.has_groups(channel));
    assert_eq!(world.groups.count(channel), 0);
}

#[test]
fn shard_without_ready_member_is_avoided_while_another_has_one() {
    let world = World::new(1, 6);
    let (mut near, mut far) = (world.subs(0), world.subs(2));
    let channel = world.channel(0);
    let wanted = Subscription {
        share: Some("g".into()),
        ..wanted(channel, "#")
    };
    world.subscribe_to(&mut near, 0, wanted.clone());
    world.subscribe_to(&mut far, 1, wanted);
    let group = &world.groups.matching(channel, None, "a")[0];
    let [zero, one, two] = [0, 1, 2].map(ShardId::new);
    assert_eq!(group.next(zero), Some(zero));
    assert_eq!(group.next(two), Some(two));
    let turns: Vec<_> = (0..4).map(|_| group.next(one).unwrap()).collect();
    assert!(turns.contains(&zero) && turns.contains(&two));
    near.member_ready(SlotId::new(0), false);
    near.invariants();
    assert_eq!(group.next(zero), Some(two));
    far.member_ready(SlotId::new(1), false);
    assert!(group.next(zero).is_some());
    near.member_ready(SlotId::new(0), true);
    assert_eq!(group.next(one), Some(zero));
    near.unsubscribe(SlotId::new(0), channel, "#", Some("g"));
    far.unsubscribe(SlotId::new(1), channel, "#", Some("g"));
    assert_eq!(group.next(zero), None);
}

#[test]
fn shard_that_begins_anew_leaves_its_groups() {
    let world = World::new(1, 3);
    let (mut here, mut there) = (world.subs(0), world.subs(1));
    let share = |filter| Subscription {
        share: Some("g".into()),
        ..wanted(world.channel(0), filter)
    };
    world.subscribe_to(&mut here, 0, share("a"));
    world.subscribe_to(&mut here, 1, share("b"));
    world.subscribe_to(&mut there, 2, share("b"));
    assert_eq!(world.groups.count(world.channel(0)), 2);
    world.groups.forget_shard(ShardId::new(0), &world.interest);
    assert_eq!(world.groups.count(world.channel(0)), 1);
    let left = world.groups.matching(world.channel(0), None, "b");
    assert_eq!(left[0].members(ShardId::new(0)), (0, 0));
    assert_eq!(left[0].next(ShardId::new(0)), Some(ShardId::new(1)));
}

#[test]
fn plain_subscription_costs_4_to_16_bytes() {
    for (per_channel, bytes_max) in [
        (1, 16.7),
        (2, 8.4),
        (3, 5.6),
        (10, 8.5),
        (100, 6.0),
        (256, 4.7),
        (300, 16.0),
    ] {
        let mut lists = Lists::default();
        let channels = 200_000 / per_channel;
        for channel in 0..channels {
            for slot in 0..per_channel {
                lists.insert(
                    ChannelIndex::new(channel),
                    Entry::new(SlotId::new(slot), Wishes::default()),
                );
            }
        }
        let each = lists.bytes() as f64 / f64::from(channels * per_channel);
        assert!(each <= bytes_max, "{per_channel} per channel: {each} bytes");
    }
}

/// Any steps against a model.
#[path = "subs_model_tests.rs"]
mod model;
