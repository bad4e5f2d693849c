//! A shard that panics takes its own sessions with it, and nothing else.

use authcache::Right;
use codec::mqtt::{ProtocolVersion, QoS};

use super::dice::Dice;
use super::world::{Shape, World};

impl World {
    /// Shard `at` panics. What its clients may rely on from now on is known to nobody.
    fn panic(&mut self, at: usize) {
        for conn in 0..self.ledger.conns.len() {
            let place = self.broker.net.borrow().conns[conn].place;
            if place.is_some_and(|(shard, _)| shard != at) {
                continue;
            }
            self.ledger.conns[conn].told = true;
            let device = self.ledger.conns[conn].device;
            if let Some(session) = self.ledger.sessions.get_mut(&device) {
                session.doubtful = true;
            }
        }
        self.broker.panic(at, &mut self.dice);
        self.watch();
    }
}

/// Six clients on two shards, everybody subscribed to the first channel.
fn two_shards(seed: u64) -> World {
    let mut world = World::shaped(Shape::plain(2, 6), Dice::new(seed), true);
    for number in 1..6 {
        world.settle_device(number, ProtocolVersion::V5);
        world.with(number, |device, around| {
            device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
        });
    }
    world.rounds(20);
    world
}

#[test]
fn panic_of_a_shard_ends_its_sessions_and_no_others() {
    for seed in 0..30 {
        let mut world = two_shards(seed);
        let at = world.shard_of(1);
        let stay = (1..6).filter(|device| world.shard_of(*device) != at);
        let stay: Vec<usize> = stay.collect();
        world.panic(at);
        world.rounds(20);
        for device in &stay {
            assert!(
                world.devices[*device].live,
                "device {device} lost its connection"
            );
        }
        // Whoever was there comes back, to a session without a past, and all goes on as before.
        world.settle_device(1, ProtocolVersion::V5);
        world.with(1, |device, around| {
            device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
        });
        world.rounds(20);
        let sender = stay.first().copied().unwrap_or(1);
        world.with(sender, |device, around| {
            device.publish_to((0, "a"), QoS::AtLeastOnce, true, 0, around);
        });
        let message = *world.ledger.messages.keys().max().expect("one was sent");
        world.rounds(20);
        for device in stay.into_iter().chain([1]) {
            assert!(world.devices[device].heard.contains(&message));
        }
        world.quiesce();
    }
}

#[test]
fn revocation_is_answered_though_a_shard_panics_before_its_fence() {
    for seed in 0..30 {
        let mut world = two_shards(100 + seed);
        let at = seed as usize % 2;
        let (reader, moment) = (world.devices[2].principal, world.moment);
        world.database.set_right(reader, 0, Right::PUBLISH, moment);
        world.broker.control(&mut world.database, &mut world.dice);
        world.settle();
        world.broker.carry_feed(usize::MAX);
        // Both rounds of the fence wait in its inbox at one seed or another.
        for _ in 0..seed % 5 {
            world.whole_turn_of(1 - at);
            world.broker.link_requests();
            if seed % 3 == 0 {
                world.whole_turn_of(at);
            }
        }
        world.panic(at);
        world.settle_all();
        world.with(1, |device, around| {
            device.publish_to((0, "a"), QoS::AtMostOnce, false, 0, around);
        });
        // R-1 is checked at each delivery.
        world.rounds(20);
        world.quiesce();
    }
}

#[test]
fn secret_that_is_changed_while_a_shard_panics_shuts_out_who_is_on_the_way() {
    for seed in 0..30 {
        let mut world = two_shards(200 + seed);
        world.with(3, |device, around| device.connect(false, around));
        for _ in 0..seed % 4 {
            world.round();
        }
        let principal = world.devices[3].principal;
        world.rotate(principal);
        world.broker.control(&mut world.database, &mut world.dice);
        world.settle();
        world.broker.carry_feed(usize::MAX);
        world.panic(seed as usize % 2);
        world.settle_all();
        world.rounds(20);
        world.quiesce();
    }
}
