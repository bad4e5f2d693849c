//! The invariants of the hot path (HOTPATH 2), each shown on the shipped shard.

use codec::mqtt::{ProtocolVersion, QoS};

use super::dice::Dice;
use super::ledger::{NEVER, payload};
use super::world::{Shape, World};
use crate::metrics::Counters;
use crate::shard::inbox::{Batch, Inbox, Post};
use session::Limits;

/// A publisher, and a subscriber of channel 0, both quiet.
fn pair(shards: usize, seed: u64, version: ProtocolVersion, limits: Limits) -> World {
    let mut shape = Shape::plain(shards, 3);
    shape.limits = limits;
    let mut world = World::shaped(shape, Dice::new(seed), true);
    world.settle_device(1, version);
    world.settle_device(2, version);
    world.with(2, |device, around| {
        device.subscribe_to(vec![(0, "#", QoS::ExactlyOnce, false, false)], around);
    });
    world.rounds(10);
    world
}

fn publish(world: &mut World, count: usize, qos: QoS, padding: usize) {
    for _ in 0..count {
        world.with(1, |device, around| {
            device.publish_to((0, "a"), qos, false, padding, around)
        });
    }
    world.carry_all();
}

/// Sends since the last turn of a connection's shard began.
fn sends(world: &World, device: usize) -> u32 {
    let conn = world.devices[device].conn.expect("it is connected");
    world.broker.net.borrow().conns[conn].sends
}

#[test]
fn i2_turn_sends_once_to_each_touched_connection() {
    for shards in 1..=3 {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut world = pair(shards, 1, ProtocolVersion::V5, Limits::default());
            publish(&mut world, 50, qos, 0);
            for _ in 0..40 {
                for at in 0..shards {
                    world.whole_turn_of(at);
                    for device in 0..3 {
                        assert!(sends(&world, device) <= 1, "{shards} shards, {qos:?}");
                    }
                }
            }
            let deliveries = world
                .ledger
                .messages
                .values()
                .flat_map(|sent| &sent.deliveries);
            let delivered = deliveries.filter(|one| one.device == 2).count();
            assert_eq!(delivered, 50, "{shards} shards, {qos:?}");
        }
    }
}

#[test]
fn shards_do_what_comes_once_a_second_at_different_moments() {
    let mut world = pair(3, 1, ProtocolVersion::V5, Limits::default());
    for at in 0..3 {
        world.whole_turn_of(at);
    }
    let envs = || world.broker.shards.iter().map(|driven| &driven.shard.env);
    let moments: Vec<u64> = envs()
        .map(|env| env.next_own_second().as_millis() % 1000)
        .collect();
    assert_eq!(moments, [0, 333, 666]);
    for env in envs() {
        let ahead = env.next_own_second().as_millis() - env.now.as_millis();
        assert!((1..=1000).contains(&ahead), "{ahead} ms ahead");
    }
}

#[test]
fn i3_idle_connection_owns_no_buffer() {
    let mut world = pair(2, 2, ProtocolVersion::V5, Limits::default());
    world.check_insides();
    // A half packet is kept in a buffer, and the buffer goes with its other half.
    let conn = world.devices[1].conn.expect("it is connected");
    let at = world.shard_of(1);
    let partials = |world: &World| {
        let slots = &world.broker.shards[at].shard.outlets.slots;
        slots
            .used()
            .filter(|id| slots.slot(*id).partial.is_some())
            .count()
    };
    world.broker.net.borrow_mut().write(conn, &[0xc0]);
    world.rounds(3);
    assert_eq!(partials(&world), 1);
    world.broker.net.borrow_mut().write(conn, &[0]);
    world.rounds(3);
    assert_eq!(partials(&world), 0);
    publish(&mut world, 300, QoS::AtLeastOnce, 100);
    world.quiesce();
}

#[test]
fn i5_qos_0_leaves_byte_for_byte_as_it_came() {
    for shards in 1..=2 {
        for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
            let mut world = pair(shards, 3, version, Limits::default());
            let topic = super::client::topic(&world.database, 0, "a", false);
            let mut sent = Vec::new();
            for count in 1..30usize {
                let place = (0, "a");
                let flags = (QoS::AtMostOnce, false, false);
                let number = world.ledger.register(1, 1, place, flags);
                let content = payload(number, count * count);
                let mut body = (topic.len() as u16).to_be_bytes().to_vec();
                body.extend(topic.bytes());
                if version.is_v5() {
                    // Content Type and a User Property pass through untouched.
                    body.extend([12, 0x03, 0, 1, b't', 0x26, 0, 1, b'k', 0, 2, b'v', b'w']);
                }
                body.extend(content);
                sent.push(0x30);
                let mut len = body.len();
                while len >= 128 {
                    sent.push((len % 128) as u8 | 0x80);
                    len /= 128;
                }
                sent.push(len as u8);
                sent.extend(body);
            }
            let from = world.devices[1].conn.expect("it is connected");
            let to = world.devices[2].conn.expect("it is connected");
            world.broker.net.borrow_mut().write(from, &sent);
            for _ in 0..60 {
                world.shards_only();
            }
            let got = world.broker.net.borrow_mut().carry_down(to, usize::MAX);
            assert_eq!(got, sent, "{shards} shards, {version:?}");
        }
    }
}

#[test]
fn i8_backlog_is_bounded_in_bytes_and_what_does_not_fit_is_counted() {
    let limits = Limits {
        outbound_queue_bytes: 10_000,
        ..Limits::default()
    };
    let mut world = pair(2, 4, ProtocolVersion::V5, limits);
    let conn = world.devices[2].conn.expect("it is connected");
    world.broker.net.borrow_mut().conns[conn].room = 100;
    let at = world.shard_of(2);
    let before = world.broker.sum(Counters::messages_out_total);
    for _ in 0..100 {
        publish(&mut world, 10, QoS::AtMostOnce, 200);
        world.shards_only();
        let slots = &world.broker.shards[at].shard.outlets.slots;
        for id in slots.used() {
            let waits = slots
                .slot(id)
                .backlog
                .as_ref()
                .map_or(0, |backlog| backlog.bytes());
            // What the turn of the first partial send held comes on top.
            assert!(waits <= 10_000 + 10 * 300, "{waits} bytes wait");
        }
    }
    for _ in 0..20 {
        world.shards_only();
    }
    let dropped = world.broker.sum(Counters::dropped_total);
    let out = world.broker.sum(Counters::messages_out_total) - before;
    assert!(dropped > 900);
    assert_eq!(
        out + dropped,
        2_000,
        "each message is delivered or counted, to each of two"
    );
    world.broker.net.borrow_mut().conns[conn].room = 1 << 20;
    world.quiesce();
}

#[test]
fn i8_session_queue_is_bounded_and_what_does_not_fit_is_counted() {
    let limits = Limits {
        session_queue_messages: 20,
        max_inflight_out: 5,
        ..Limits::default()
    };
    let mut world = pair(1, 5, ProtocolVersion::V5, limits);
    world.with(2, |device, around| {
        device.cut(super::net::Gone::Reset, around)
    });
    world.rounds(3);
    let before = world.broker.sum(Counters::dropped_total);
    for _ in 0..50 {
        publish(&mut world, 1, QoS::AtLeastOnce, 0);
        world.rounds(3);
    }
    assert_eq!(
        world.broker.sum(Counters::dropped_total) - before,
        30,
        "the oldest made room"
    );
    world.with(2, |device, around| device.connect(false, around));
    world.rounds(30);
    let heard = world
        .ledger
        .messages
        .values()
        .filter(|sent| sent.deliveries.iter().any(|one| one.device == 2));
    assert_eq!(heard.count(), 20);
}

#[test]
fn i8_inbox_is_bounded_and_runs_that_do_not_fit_are_counted() {
    let inbox: Inbox<()> = Inbox::new(Box::new(|| {}));
    let run = session::Run {
        address: session::Address {
            channel: authcache::ChannelIndex::new(1),
            wild: None,
            subtopic_at: 0,
        },
        topic: b"t",
        frames: &[0; 1 << 20],
        count: 7,
        longest: 1 << 20,
        version5: false,
        origin: session::Origin {
            shard: router::ShardId::new(0),
            slot: None,
        },
        publisher: authcache::PrincipalIndex::new(1),
    };
    let batch = || {
        let mut batch = Batch::default();
        batch.push_run(&run);
        batch.posts.push(Post::Fence {
            round: 1,
            covers: None,
        });
        batch
    };
    for _ in 0..15 {
        assert_eq!(inbox.post(batch()), 0);
    }
    // The topic was copied too, so the sixteenth is over the bound: its run is dropped, the
    // fence is not.
    assert_eq!(inbox.post(batch()), 7);
    let mut taken = Vec::new();
    inbox.take(&mut taken);
    let bytes: usize = taken.iter().map(|batch| batch.bytes.len()).sum();
    assert!(bytes <= Inbox::<()>::BYTES_MAX);
    let fences = taken.iter().flat_map(|batch| &batch.posts);
    let fences = fences
        .filter(|post| matches!(post, Post::Fence { .. }))
        .count();
    assert_eq!((taken.len(), fences), (16, 16));
    assert_eq!(inbox.post(batch()), 0, "there is room again");
}

#[test]
fn i9_payload_that_waits_is_not_in_the_read_buffer() {
    let mut world = pair(1, 6, ProtocolVersion::V5, Limits::default());
    let to = world.devices[2].conn.expect("it is connected");
    world.broker.net.borrow_mut().conns[to].room = 30;
    publish(&mut world, 3, QoS::AtMostOnce, 500);
    publish(&mut world, 3, QoS::AtLeastOnce, 500);
    for _ in 0..30 {
        world.shards_only();
    }
    // Other input goes through the same buffers before the wire takes bytes again.
    world.with(0, |device, around| {
        device.subscribe_to(vec![(1, "#", QoS::AtMostOnce, false, false)], around);
    });
    for _ in 0..3 {
        world.shards_only();
    }
    world.broker.net.borrow_mut().conns[to].room = 1 << 20;
    world.quiesce();
    let sent = world
        .ledger
        .messages
        .values()
        .filter(|sent| sent.input != NEVER);
    for sent in sent {
        assert!(sent.deliveries.iter().any(|one| one.device == 2));
    }
}
