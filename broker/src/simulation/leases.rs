//! Scenes around the pipe to control: what a broker may do while it is cut, and afterwards.

use authcache::Right;
use authcache::feed::LeaseTerms;
use codec::mqtt::{ProtocolVersion, QoS};

use super::dice::Dice;
use super::world::{Shape, World};

fn pair(terms: LeaseTerms) -> World {
    let mut shape = Shape::plain(2, 3);
    shape.terms = terms;
    let mut world = World::shaped(shape, Dice::new(1), true);
    world.settle_device(1, ProtocolVersion::V5);
    world.settle_device(2, ProtocolVersion::V5);
    world.with(2, |device, around| {
        device.subscribe_to(vec![(0, "#", QoS::AtMostOnce, false, false)], around);
    });
    world.rounds(10);
    world
}

#[test]
fn what_was_judged_before_a_cut_is_judged_again_after_it() {
    let mut world = pair(LeaseTerms::Pipe);
    world.with(1, |device, around| {
        device.publish_to((0, "a"), QoS::AtMostOnce, false, 0, around);
    });
    world.carry_all();
    // The message is routed; before its turn ends the pipe is cut and the reader's right goes.
    let at = world.shard_of(1);
    world.run_shard(at);
    world.run_shard(at);
    world.broker.cut();
    world.note_lease();
    let (reader, moment) = (world.devices[2].principal, world.moment);
    world.database.set_right(reader, 0, Right::PUBLISH, moment);
    world.whole_turn_of(at);
    world.broker.now = world.broker.now.plus_millis(300);
    world.broker.tick();
    world.settle_all();
    world.broker.join();
    world.rounds(20);
    world.quiesce();
    assert!(
        world.ledger.messages[&1]
            .deliveries
            .iter()
            .all(|one| one.device != 2)
    );
}

#[test]
fn fence_that_ends_behind_a_cut_grants_no_lease() {
    let mut world = pair(LeaseTerms::Pipe);
    world.broker.cut();
    world.broker.join();
    for _ in 0..40 {
        // The snapshot and its lease are there, its fence is under way.
        world.broker.control(&mut world.database, &mut world.dice);
        world.settle();
        world.broker.carry_feed(usize::MAX);
    }
    world.broker.cut();
    for _ in 0..5 {
        world.shards_only();
        world.broker.link_requests();
    }
    assert!(!world.broker.has_lease(), "a lease without a pipe");
    world.broker.join();
    world.rounds(20);
    assert!(world.broker.has_lease());
}

#[test]
fn revision_that_was_fenced_before_a_cut_is_confirmed_after_it() {
    let mut world = pair(LeaseTerms::Timed);
    let (reader, moment) = (world.devices[2].principal, world.moment);
    world.database.set_right(reader, 0, Right::PUBLISH, moment);
    world.broker.control(&mut world.database, &mut world.dice);
    world.broker.carry_feed(usize::MAX);
    for _ in 0..4 {
        world.shards_only();
        world.broker.link_requests();
    }
    // Its fence has passed; what confirms it is lost.
    world.broker.cut();
    world.broker.join();
    world.settle_all();
}

#[test]
fn retained_message_on_its_way_to_its_home_does_not_outlive_its_channel() {
    for seed in 0..10 {
        let mut world = World::shaped(Shape::plain(2, 3), Dice::new(seed), false);
        world.settle_device(1, ProtocolVersion::V5);
        world.with(1, |device, around| {
            device.publish_to((0, "a"), QoS::AtLeastOnce, true, 0, around);
        });
        world.carry_all();
        // It is handed over; its home hears first that the channel is gone.
        let at = world.shard_of(1);
        world.whole_turn_of(at);
        let moment = world.moment;
        world.database.remove_channel(0, moment);
        for _ in 0..10 {
            world.broker.control(&mut world.database, &mut world.dice);
            world.broker.carry_feed(usize::MAX);
        }
        world.settle_all();
        let kept: usize = world
            .broker
            .shards
            .iter()
            .map(|d| d.shard.retained.len())
            .sum();
        assert_eq!(kept, 0);
        world.quiesce();
    }
}

#[test]
fn what_waits_for_a_user_survives_a_change_of_other_rights() {
    let mut world = World::shaped(Shape::plain(2, 3), Dice::new(1), true);
    world.database.principals[2].user = true;
    world.database.voids = true;
    world.settle_device(1, ProtocolVersion::V5);
    world.settle_device(2, ProtocolVersion::V5);
    world.with(2, |device, around| {
        device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
    });
    world.rounds(10);
    world.with(2, |device, around| {
        device.cut(super::net::Gone::Reset, around)
    });
    world.rounds(5);
    for _ in 0..5 {
        world.with(1, |device, around| {
            device.publish_to((0, "a"), QoS::AtLeastOnce, false, 0, around);
        });
    }
    world.rounds(10);
    // What users may do in the domain has to be asked again; this one lost nothing on channel 0.
    let moment = world.moment;
    world.database.set_right(2, 1, Right::PUBLISH, moment);
    world.settle_all();
    world.with(2, |device, around| device.connect(false, around));
    world.rounds(30);
    assert_eq!(world.devices[2].heard.len(), 5, "{}", world.story(60));
}

#[test]
fn sessions_outlive_the_grace_though_their_connections_do_not() {
    let mut world = pair(LeaseTerms::Pipe);
    let pass = |world: &mut World, ms: u64| {
        world.broker.now = world.broker.now.plus_millis(ms);
        world.rounds(3);
    };
    let gone = |world: &World, number: usize| {
        let mut conns = world.ledger.conns.iter();
        conns.any(|view| view.device == number && view.told && view.closed.is_some())
    };
    world.broker.cut();
    world.note_lease();
    // The shards notice within a second.
    pass(&mut world, 1_000);
    world.with(1, |device, around| {
        device.publish_to((0, "a"), QoS::AtLeastOnce, false, 0, around);
    });
    pass(&mut world, 9_000);
    assert!(
        !gone(&world, 1) && !gone(&world, 2),
        "the grace is not over"
    );
    pass(&mut world, 2_000);
    assert!(
        gone(&world, 1) && gone(&world, 2),
        "they are told why and closed"
    );
    // Both find their sessions; what was not acknowledged comes again and is delivered.
    world.broker.join();
    world.rounds(20);
    world.quiesce();
}
