//! Lists that are longer than a slice.

use authcache::Right;
use codec::mqtt::{ProtocolVersion, QoS};

use super::dice::Dice;
use super::world::{Shape, World};

const READERS: std::ops::Range<usize> = 2..9;

/// Seven readers of one channel, the observer and a publisher, on one shard that serves two readers a turn.
fn long_list(seed: u64) -> World {
    long_list_served(seed, 2)
}

/// As [`long_list`], of which `slice` are served in a turn.
fn long_list_served(seed: u64, slice: usize) -> World {
    let mut shape = Shape::plain(1, READERS.end);
    shape.limits.fanout_slice = slice;
    let mut world = World::shaped(shape, Dice::new(seed), true);
    world.settle_device(1, ProtocolVersion::V5);
    for number in READERS {
        world.settle_device(number, ProtocolVersion::V5);
        let filter = if number % 2 == 0 { "#" } else { "+" };
        world.with(number, |device, around| {
            device.subscribe_to(vec![(0, filter, QoS::AtLeastOnce, false, false)], around);
        });
    }
    world.rounds(20);
    world
}

fn publish(world: &mut World, qos: QoS) -> u64 {
    world.with(1, |device, around| {
        device.publish_to((0, "a"), qos, false, 0, around)
    });
    let last = world.ledger.messages.keys().max();
    *last.expect("one was published")
}

/// From now on it may only subscribe.
fn take_the_publishers_right(world: &mut World) {
    let (author, moment) = (world.devices[1].principal, world.moment);
    world
        .database
        .set_right(author, 0, Right::SUBSCRIBE, moment);
    world.broker.control(&mut world.database, &mut world.dice);
    world.broker.carry_feed(usize::MAX);
}

fn hearers(world: &World, message: u64) -> usize {
    hearers_of(world, message, 0..1) + hearers_of(world, message, READERS)
}

fn hearers_of(world: &World, message: u64, among: std::ops::Range<usize>) -> usize {
    among
        .filter(|number| world.devices[*number].heard.contains(&message))
        .count()
}

#[test]
fn long_list_is_served_a_slice_a_turn_in_order_and_together_what_waits_together() {
    for seed in 0..20 {
        let mut world = long_list(seed);
        let first = publish(&mut world, QoS::AtLeastOnce);
        let second = publish(&mut world, QoS::AtMostOnce);
        world.carry_all();
        let mut sent = 0;
        for _ in 0..2 {
            world.whole_turn_of(0);
            let now = world.broker.sum(|c| c.messages_out_total());
            assert!(
                sent == 0 || now - sent <= 2 * 2,
                "more than two receivers of both"
            );
            sent = now;
        }
        assert!(world.broker.sum(|c| c.owed.get()) > 0);
        // One joins and one leaves between two slices. Order is checked delivery by delivery.
        world.with(0, |device, around| {
            device.subscribe_to(vec![(0, "a", QoS::AtMostOnce, false, false)], around);
        });
        world.rounds(20);
        assert_eq!(hearers(&world, first), 8);
        assert_eq!(hearers(&world, second), 8);
        assert_eq!(world.broker.sum(|c| c.owed.get()), 0);
        world.quiesce();
    }
}

#[test]
fn publisher_that_loses_its_right_reaches_no_further_slice() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut world = long_list(1);
        let message = publish(&mut world, qos);
        world.carry_all();
        world.whole_turn_of(0);
        assert_eq!(world.broker.sum(|c| c.owed.get()), 6);
        take_the_publishers_right(&mut world);
        world.rounds(20);
        assert_eq!(hearers(&world, message), 2);
        assert_eq!(world.broker.sum(|c| c.owed.get()), 0);
    }
}

#[test]
fn publisher_that_loses_its_right_takes_nothing_of_others_along() {
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
        let mut world = long_list(3);
        publish(&mut world, qos);
        world.carry_all();
        world.whole_turn_of(0);
        // Two that wait behind it.
        let message = publish(&mut world, qos);
        world.with(2, |device, around| {
            device.publish_to((0, "a"), qos, false, 0, around)
        });
        let other = *world.ledger.messages.keys().max().unwrap();
        world.carry_all();
        for _ in 0..3 {
            world.whole_turn_of(0);
        }
        assert_eq!(world.broker.sum(|c| c.owed.get()), 8, "both as one");
        world.whole_turn_of(0);
        assert_eq!(world.broker.sum(|c| c.owed.get()), 6);
        take_the_publishers_right(&mut world);
        world.rounds(20);
        assert_eq!(hearers(&world, message), 2);
        assert_eq!(hearers(&world, other), 8);
        assert_eq!(world.broker.sum(|c| c.owed.get()), 0);
        world.quiesce();
    }
}

#[test]
fn publisher_waits_while_much_is_owed() {
    let mut world = long_list(2);
    for _ in 0..40 {
        publish(&mut world, QoS::AtMostOnce);
    }
    world.carry_all();
    let mut most = 0;
    for _ in 0..400 {
        world.whole_turn_of(0);
        most = most.max(world.broker.sum(|c| c.owed.get()));
    }
    assert!(most <= 16 * 2 + 8, "{most} deliveries were owed");
    world.quiesce();
}

#[test]
fn messages_behind_one_that_is_nearly_delivered_count_in_full() {
    // Seven of eight in the first turn: then a single delivery is owed of the first message.
    let mut world = long_list_served(3, 7);
    let (before_in, before_out) = (
        world.broker.sum(|c| c.messages_in_total()),
        world.broker.sum(|c| c.messages_out_total()),
    );
    for _ in 0..100 {
        publish(&mut world, QoS::AtLeastOnce);
        world.carry_all();
        world.whole_turn_of(0);
        let taken = world.broker.sum(|c| c.messages_in_total()) - before_in;
        let sent = world.broker.sum(|c| c.messages_out_total()) - before_out;
        // 16 slices, and what was added last.
        let waiting = taken - sent / 8;
        assert!(waiting <= 16 + 2, "{waiting} messages wait");
    }
    world.quiesce();
}

#[test]
fn what_other_shards_posted_is_delivered_in_slices_beyond_a_turns_share() {
    let mut owed = 0;
    for seed in 0..20 {
        let mut shape = Shape::plain(2, 4);
        shape.limits.fanout_slice = 2;
        let mut world = World::shaped(shape, Dice::new(seed), true);
        for number in 1..4 {
            world.settle_device(number, ProtocolVersion::V5);
        }
        for number in 2..4 {
            world.with(number, |device, around| {
                device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
            });
        }
        world.rounds(20);
        let messages: Vec<u64> = (0..30)
            .map(|_| publish(&mut world, QoS::AtLeastOnce))
            .collect();
        world.carry_all();
        for shard in [0, 1] {
            // The other one falls behind.
            for _ in 0..40 {
                world.whole_turn_of(1 - shard);
            }
            let before = world.broker.sum(|c| c.messages_out_total());
            world.whole_turn_of(shard);
            let sent = world.broker.sum(|c| c.messages_out_total()) - before;
            // What was left over, what is read, and what was posted, each by the last message at
            // most beyond its share; and two messages together to two receivers.
            assert!(sent <= 3 * 3 + 2 * 2, "{sent} deliveries in a turn");
            owed += world.broker.sum(|c| c.owed.get());
        }
        world.rounds(200);
        for message in messages {
            assert_eq!(hearers_of(&world, message, 2..4), 2, "with seed {seed}");
        }
        world.quiesce();
    }
    assert!(owed > 0, "no seed has them on different shards");
}
