//! Bounds that chance never reaches.

use authcache::Right;
use codec::mqtt::{ProtocolVersion, QoS};

use super::dice::Dice;
use super::world::{Shape, World};
use crate::renewal::RIGHTS_MAX;
use crate::shard::OWED_AT_ALL_MAX;

#[test]
fn users_rights_beyond_a_thousand_are_made_void_and_asked_for_on_use() {
    for (known, voided) in [(RIGHTS_MAX, false), (RIGHTS_MAX + 1, true)] {
        let mut world = World::shaped(Shape::plain(2, 3), Dice::new(1), true);
        world.database.principals[2].user = true;
        world.database.voids = true;
        world.settle_device(1, ProtocolVersion::V5);
        world.settle_device(2, ProtocolVersion::V5);
        let moment = world.moment;
        world.database.add_channels(known, 2, moment);
        world.settle_all();
        assert!(!world.broker.has_voided());
        let moment = world.moment;
        world.database.set_right(2, 1, Right::PUBLISH, moment);
        settle(&mut world);
        world.rounds(10);
        assert_eq!(world.broker.has_voided(), voided, "{known} were known");
        world.with(2, |device, around| {
            device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
        });
        world.rounds(10);
        world.with(1, |device, around| {
            device.publish_to((0, "a"), QoS::AtLeastOnce, false, 0, around);
        });
        world.rounds(10);
        assert_eq!(world.devices[2].heard.len(), 1, "{}", world.story(60));
    }
}

/// Until control has answered everything, a question at a time.
fn settle(world: &mut World) {
    for _ in 0..4 * RIGHTS_MAX {
        if world.database.settled >= world.database.revision {
            return;
        }
        world.shards_and_feed();
    }
    panic!("control never answers");
}

/// Messages that a publisher on one shard sent to two readers on the other.
struct Apart {
    world: World,
    /// The shard of the publisher.
    own: usize,
    sent: usize,
}

impl Apart {
    /// None if this seed has a reader on the publisher's shard.
    fn new(seed: u64) -> Option<Apart> {
        let mut shape = Shape::plain(2, 4);
        shape.limits.fanout_slice = 1;
        let mut world = World::shaped(shape, Dice::new(seed), true);
        for number in 1..4 {
            world.settle_device(number, ProtocolVersion::V5);
        }
        for number in 2..4 {
            world.with(number, |device, around| {
                device.subscribe_to(vec![(0, "#", QoS::AtMostOnce, false, false)], around);
            });
        }
        world.rounds(20);
        let mut apart = Apart {
            world,
            own: 0,
            sent: 0,
        };
        let before = apart.taken();
        apart.publish(3);
        apart.world.carry_all();
        apart.world.whole_turn_of(0);
        apart.own = usize::from(apart.taken() == before);
        apart.world.whole_turn_of(apart.own);
        if apart.owed() > 0 {
            return None;
        }
        apart.world.whole_turn_of(1 - apart.own);
        (apart.owed() > 0).then_some(apart)
    }

    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            // Another topic each time: a run of one topic counts as one.
            let topic = if self.sent.is_multiple_of(2) {
                "a"
            } else {
                "b"
            };
            self.world.with(1, |device, around| {
                device.publish_to((0, topic), QoS::AtMostOnce, false, 0, around);
            });
            self.sent += 1;
        }
    }

    fn taken(&self) -> u64 {
        self.world.broker.sum(|c| c.messages_in_total())
    }

    fn owed(&self) -> u64 {
        self.world.broker.sum(|c| c.owed.get())
    }
}

#[test]
fn nobody_is_read_while_a_shard_owes_too_much_of_what_others_posted() {
    let mut apart = (0..50).find_map(Apart::new).expect("a seed has them apart");
    let bound = OWED_AT_ALL_MAX as u64;
    let mut most = 0;
    for _ in 0..100 {
        apart.publish(8);
        apart.world.carry_all();
        // Each reads one message in a turn, and makes one delivery of those that are owed.
        for _ in 0..8 {
            apart.world.whole_turn_of(apart.own);
        }
        apart.world.whole_turn_of(1 - apart.own);
        most = most.max(apart.owed());
    }
    assert!(most > bound, "{most} deliveries were owed at most");
    assert!(most <= bound + 4 * 8, "{most} deliveries were owed");
    let taken = apart.taken();
    apart.publish(1);
    apart.world.carry_all();
    apart.world.whole_turn_of(apart.own);
    assert_eq!(apart.taken(), taken, "it was read nevertheless");
    // Then it goes on, and nothing is lost.
    for _ in 0..20_000 {
        apart.world.rounds(1);
        if apart.owed() == 0 && apart.taken() - taken >= 1 {
            break;
        }
    }
    apart.world.rounds(50);
    for reader in 2..4 {
        assert_eq!(apart.world.devices[reader].heard.len(), apart.sent);
    }
    apart.world.quiesce();
}
