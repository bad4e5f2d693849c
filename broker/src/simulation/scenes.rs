//! Scenes that chance alone would seldom play: storms, cuts at every byte, races, blocked wires.

use authcache::Right;
use codec::mqtt::{ProtocolVersion, QoS, ReasonCode};

use super::client::{Role, topic};
use super::dice::Dice;
use super::ledger::NEVER;
use super::net::Gone;
use super::world::{Shape, World};

fn plain(shards: usize, devices: usize, seed: u64) -> World {
    World::shaped(Shape::plain(shards, devices), Dice::new(seed), true)
}

fn play(world: &mut World, steps: usize) {
    for _ in 0..steps {
        world.step();
    }
}

#[test]
fn takeover_storm_of_one_key_has_one_owner_at_any_instant() {
    for seed in 0..10 {
        let mut shape = Shape::plain(3, 3);
        shape.cuts = 2;
        let mut world = World::shaped(shape, Dice::new(seed), false);
        for _ in 0..100 {
            let clean = world.dice.percent(30);
            world.with(1, |device, around| device.connect(clean, around));
            world.with(1, |device, around| device.publish(around));
            let steps = world.dice.roll(12);
            play(&mut world, steps);
        }
        world.quiesce();
        assert!(
            world.broker.sum(|c| c.takeovers.get()) > 5,
            "nothing was taken over"
        );
    }
}

#[test]
fn session_is_taken_over_once_in_a_while_and_by_the_newest() {
    let mut world = plain(2, 3, 7);
    world.settle_device(1, ProtocolVersion::V5);
    let takeovers = |world: &World| world.broker.sum(|c| c.takeovers.get());
    for _ in 0..20 {
        world.with(1, |device, around| device.connect(false, around));
        world.rounds(4);
    }
    assert_eq!(takeovers(&world), 1, "within a moment");
    let refused = |view: &&super::ledger::ConnView| {
        view.device == 1 && view.closed.is_some() && view.connected.is_none()
    };
    assert_eq!(world.ledger.conns.iter().filter(refused).count(), 18);
    world.broker.now = world.broker.now.plus_millis(100);
    world.rounds(4);
    assert_eq!(takeovers(&world), 2);
    assert!(world.devices[1].live, "the newest has it");
    world.quiesce();
}

#[test]
fn who_waits_for_a_session_is_refused_when_a_newer_one_gets_it_at_once() {
    let mut world = plain(2, 3, 7);
    world.settle_device(1, ProtocolVersion::V5);
    let takeovers = |world: &World| world.broker.sum(|c| c.takeovers.get());
    let mut conns = Vec::new();
    for _ in 0..2 {
        world.with(1, |device, around| device.connect(false, around));
        world.rounds(4);
        conns.push(world.devices[1].conn.expect("it was opened"));
    }
    assert_eq!(takeovers(&world), 1, "the second waits");
    // The owner leaves meanwhile, so the next one takes nothing over.
    world.with(1, |_, around| around.net.leave(conns[0], Gone::Fin));
    world.rounds(4);
    world.with(1, |device, around| device.connect(false, around));
    world.rounds(4);
    assert!(world.devices[1].live, "nobody is in its way");
    world.broker.now = world.broker.now.plus_millis(100);
    world.rounds(4);
    assert_eq!(takeovers(&world), 1, "an older one takes nothing over");
    assert!(world.devices[1].live, "the newest has it");
    world.quiesce();
}

/// Everything a client says in a life, as bytes.
fn script(world: &World, version: ProtocolVersion) -> Vec<u8> {
    let name = topic(&world.database, 0, "a", false);
    let mut bytes = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u16).to_be_bytes());
        bytes.extend(text.bytes());
    };
    let packet = |bytes: &mut Vec<u8>, first: u8, body: &[u8]| {
        assert!(body.len() < 128, "one byte of length");
        bytes.extend([first, body.len() as u8]);
        bytes.extend(body);
    };
    let properties: &[u8] = if version.is_v5() { &[0] } else { &[] };
    let mut connect = vec![0, 4];
    connect.extend(b"MQTT");
    connect.extend([if version.is_v5() { 5 } else { 4 }, 0b1100_0010, 0, 0]);
    connect.extend(properties);
    text(&mut connect, "script");
    text(&mut connect, "1");
    text(&mut connect, "1");
    packet(&mut bytes, 0x10, &connect);
    let mut subscribe = vec![0, 1];
    subscribe.extend(properties);
    text(&mut subscribe, &name);
    subscribe.push(2);
    packet(&mut bytes, 0x82, &subscribe);
    for (first, id) in [(0x30, None), (0x33, Some(2)), (0x34, Some(3))] {
        let mut publish = Vec::new();
        text(&mut publish, &name);
        publish.extend(id.map(|id| [0, id]).into_iter().flatten());
        publish.extend(properties);
        packet(&mut bytes, first, &publish);
    }
    packet(&mut bytes, 0x62, &[0, 3]);
    let mut unsubscribe = vec![0, 4];
    unsubscribe.extend(properties);
    text(&mut unsubscribe, &name);
    packet(&mut bytes, 0xa2, &unsubscribe);
    packet(&mut bytes, 0xc0, &[]);
    packet(&mut bytes, 0xe0, &[]);
    bytes
}

#[test]
fn connection_cut_at_any_byte_leaves_nothing_behind() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut world = plain(2, 2, 5);
        let script = script(&world, version);
        for cut in 0..=script.len() {
            for how in [Gone::Fin, Gone::Reset] {
                world.raw(1, version, &script[..cut], how);
            }
        }
        // Whatever half a CONNECT left is closed by its deadline.
        world.broker.now = world.broker.now.plus_secs(10);
        world.rounds(20);
        world.check_insides();
        assert_eq!(
            world.broker.sum(|c| c.sessions.get()),
            1,
            "the observer alone is left"
        );
    }
}

#[test]
fn bytes_that_come_one_at_a_time_are_served_as_if_whole() {
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let mut world = plain(2, 2, 6);
        let script = script(&world, version);
        let conn = world.open_raw(1, version);
        for byte in &script {
            world.broker.net.borrow_mut().write(conn, &[*byte]);
            world.rounds(1);
        }
        world.rounds(10);
        assert!(
            world.broker.net.borrow().conns[conn].closed,
            "DISCONNECT was the last byte"
        );
        let in_total = world.broker.sum(|c| c.messages_in_total());
        assert_eq!(in_total, 3);
        world.check_insides();
    }
}

#[test]
fn delivery_cut_at_any_byte_is_finished_on_the_next_connection() {
    for seed in 0..4 {
        let mut world = plain(2, 3, seed);
        let versions = [ProtocolVersion::V311, ProtocolVersion::V5];
        world.settle_device(1, versions[seed as usize % 2]);
        world.settle_device(2, versions[seed as usize / 2]);
        world.with(2, |device, around| {
            device.subscribe_to(vec![(0, "#", QoS::ExactlyOnce, false, false)], around);
        });
        world.rounds(10);
        for room in 0..110 {
            let conn = world.devices[2].conn.expect("it is connected");
            world.broker.net.borrow_mut().conns[conn].room = room;
            for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
                world.with(1, |device, around| {
                    device.publish_to((0, "a"), qos, false, 0, around)
                });
            }
            // Nothing is read until the cut.
            for _ in 0..3 {
                world.shards_only();
            }
            let how = if room % 2 == 0 {
                Gone::Fin
            } else {
                Gone::Reset
            };
            world.with(2, |device, around| device.cut(how, around));
            world.rounds(4);
            world.with(2, |device, around| device.connect(false, around));
            world.rounds(12);
        }
        world.quiesce();
    }
}

#[test]
fn thousand_revocations_of_every_kind_let_nothing_pass_late() {
    for seed in 0..20 {
        let mut shape = Shape::plain(1 + seed as usize % 3, 6);
        shape.slow = 10;
        shape.cuts = 1;
        let mut world = World::shaped(shape, Dice::new(seed), false);
        for _ in 0..50 {
            let before = world.database.revision;
            while world.database.revision == before {
                world.control_operation();
            }
            let committed = world.database.revision;
            for _ in 0..2_000 {
                world.step();
                if world.database.settled >= committed {
                    break;
                }
            }
            play(&mut world, 10);
        }
        world.quiesce();
        assert!(world.database.settled > 50);
    }
}

#[test]
fn what_waits_for_a_slow_reader_is_dropped_with_its_right() {
    for room in [0, 1, 40, 94, 95, 200] {
        for kind in 0..4 {
            let mut world = plain(2, 3, 20 + room as u64);
            world.settle_device(1, ProtocolVersion::V5);
            world.settle_device(2, ProtocolVersion::V5);
            world.with(2, |device, around| {
                device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
            });
            world.rounds(10);
            let conn = world.devices[2].conn.expect("it is connected");
            world.broker.net.borrow_mut().conns[conn].room = room;
            for qos in [
                QoS::AtMostOnce,
                QoS::AtLeastOnce,
                QoS::AtMostOnce,
                QoS::AtLeastOnce,
            ] {
                world.with(1, |device, around| {
                    device.publish_to((0, "a"), qos, false, 0, around)
                });
                world.shards_only();
                world.shards_only();
            }
            let reader = world.devices[2].principal;
            let moment = world.moment;
            match kind {
                0 => world.database.set_right(reader, 0, Right::PUBLISH, moment),
                1 => world.database.switch_channel(0, false, moment),
                2 => world.database.switch_domain(0, false, moment),
                _ => {
                    world.database.remove_channel(0, moment);
                }
            }
            world.settle_all();
            if kind == 3 {
                // Its index goes to another channel that the reader may read.
                for channel in [1, 2] {
                    let moment = world.moment;
                    world.database.remove_channel(channel, moment);
                    world.settle_all();
                }
            }
            world.broker.net.borrow_mut().conns[conn].room = 1 << 20;
            // R-1 is checked frame by frame.
            world.rounds(20);
            world.quiesce();
        }
    }
}

#[test]
fn slow_reader_that_reads_again_takes_a_part_of_its_backlog_in_a_turn() {
    let mut world = plain(1, 3, 5);
    world.settle_device(1, ProtocolVersion::V5);
    world.settle_device(2, ProtocolVersion::V5);
    world.with(2, |device, around| {
        device.subscribe_to(vec![(0, "#", QoS::AtMostOnce, false, false)], around);
    });
    world.rounds(10);
    let conn = world.devices[2].conn.expect("it is connected");
    world.broker.net.borrow_mut().conns[conn].room = 0;
    for _ in 0..12 {
        world.with(1, |device, around| {
            device.publish_to((0, "a"), QoS::AtMostOnce, false, 50_000, around)
        });
        for _ in 0..20 {
            world.shards_only();
        }
    }
    world.broker.net.borrow_mut().conns[conn].room = 1 << 30;
    let sent = |world: &World| world.broker.sum(|c| c.wire_bytes_out.get());
    let (before, mut turns) = (sent(&world), 0);
    loop {
        let last = sent(&world);
        world.whole_turn_of(0);
        let now = sent(&world) - last;
        // 128 KiB, and what was gathered last.
        assert!(now <= (128 + 64 + 64) << 10, "{now} bytes in a turn");
        if now == 0 {
            break;
        }
        turns += 1;
    }
    assert!(sent(&world) - before > 500_000 && turns > 2);
    world.quiesce();
}

#[test]
fn member_that_leaves_passes_on_what_it_did_not_acknowledge() {
    for seed in 0..20 {
        let mut world = plain(1 + seed as usize % 3, 4, seed);
        let ends = seed % 2 == 0;
        for number in 1..4 {
            world.settle_device(number, ProtocolVersion::V5);
        }
        for number in 2..4 {
            world.devices[number].role = Role::Worker;
            world.devices[number].expiry = if ends && number == 2 { 0 } else { 3600 };
            world.with(number, |device, around| device.connect(true, around));
            world.rounds(10);
            world.with(number, |device, around| device.subscribe(around));
        }
        world.rounds(10);
        let mut sent = Vec::new();
        for _ in 0..10 {
            sent.extend(world.with(1, |device, around| {
                device.publish_to((0, "a"), QoS::AtLeastOnce, false, 0, around)
            }));
        }
        for _ in 0..40 {
            world.shards_only();
        }
        assert!(world.devices[2].heard.is_empty() && world.devices[3].heard.is_empty());
        let of_leaver = |world: &World| {
            let sent = world
                .ledger
                .messages
                .values()
                .flat_map(|sent| &sent.deliveries);
            sent.filter(|one| one.device == 2).count()
        };
        let held = of_leaver(&world);
        world.with(2, |device, around| device.cut(Gone::Reset, around));
        world.rounds(20);
        let heard = &world.devices[3].heard;
        assert_eq!(
            heard.len(),
            sent.len(),
            "seed {seed}: {held} were in flight to who left"
        );
        world.quiesce();
    }
}

#[test]
fn secret_that_is_changed_shuts_out_who_is_on_the_way() {
    for seed in 0..60 {
        let mut world = plain(3, 4, seed);
        for number in 1..4 {
            world.with(number, |device, around| device.connect(true, around));
        }
        let steps = world.dice.roll(60);
        play(&mut world, steps);
        for number in 1..4 {
            let principal = world.devices[number].principal;
            world.rotate(principal);
        }
        play(&mut world, 200);
        world.quiesce();
    }
}

#[test]
fn connection_on_its_way_when_its_secret_is_changed_ends_before_the_answer() {
    let mut late = 0;
    for seed in 0..40 {
        let mut world = plain(2, 2, seed);
        world.settle_device(1, ProtocolVersion::V5);
        // Known credentials: the second connection is identified without a question.
        world.with(1, |device, around| device.connect(false, around));
        let conn = world.devices[1].conn.expect("it was opened");
        world.carry_all();
        let at = world.broker.net.borrow().conns[conn].listener_shard;
        let other = 1 - at;
        // Accepted in one turn, identified in the next, which does not end.
        world.whole_turn_of(at);
        world.run_shard(at);
        while world.broker.net.borrow().conns[conn].place.is_some() && world.broker.in_turn(at) {
            world.run_shard(at);
        }
        let principal = world.devices[1].principal;
        world.rotate(principal);
        for _ in 0..20 {
            world.broker.control(&mut world.database, &mut world.dice);
            world.settle();
            world.broker.carry_feed(usize::MAX);
        }
        world.whole_turn_of(other);
        late += usize::from(world.ledger.conns[conn].connected.is_none());
        world.settle_all();
        let view = &world.ledger.conns[conn];
        assert!(
            view.connected.is_none() || view.closed.is_some(),
            "seed {seed}: it lives by the old secret"
        );
        world.quiesce();
    }
    assert!(late > 0, "no connection was on its way");
}

#[test]
fn retained_message_reaches_who_subscribes_behind_its_acknowledgement() {
    for seed in 0..40 {
        let mut world = plain(2, 3, seed);
        world.settle_device(1, ProtocolVersion::V5);
        world.settle_device(2, ProtocolVersion::V5);
        let qos = QoS::AtLeastOnce;
        let sent = world.with(1, |device, around| {
            device.publish_to((0, "a"), qos, true, 0, around)
        });
        let sent = sent.expect("it is connected");
        // The publisher's shard alone runs, until the acknowledgement is out.
        let publisher = world.shard_of(1);
        world.carry_all();
        while world.ledger.messages[&sent].acked == NEVER {
            world.whole_turn_of(publisher);
        }
        world.with(2, |device, around| {
            device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
        });
        world.carry_all();
        let subscriber = world.shard_of(2);
        world.whole_turn_of(subscriber);
        world.rounds(20);
        let got = world.devices[2].retained.get(&(0, "a".to_owned()));
        assert_eq!(got, Some(&sent), "seed {seed}\n{}", world.story(400));
    }
}

#[test]
fn retained_message_takes_the_place_of_one_that_was_acknowledged_before() {
    for seed in 0..40 {
        let mut world = plain(2, 3, seed);
        world.settle_device(1, ProtocolVersion::V5);
        world.settle_device(2, ProtocolVersion::V5);
        let mut last = 0;
        for publisher in [1, 2] {
            let sent = world.with(publisher, |device, around| {
                device.publish_to((0, "a"), QoS::AtLeastOnce, true, 0, around)
            });
            last = sent.expect("it is connected");
            world.carry_all();
            // The home of what is retained may not have had a turn since the first.
            let at = world.shard_of(publisher);
            while world.ledger.messages[&last].acked == NEVER {
                world.whole_turn_of(at);
            }
        }
        world.rounds(10);
        world.devices[0].retained.clear();
        world.observe(0..1);
        world.rounds(40);
        let got = world.devices[0].retained.get(&(0, "a".to_owned()));
        assert_eq!(got, Some(&last), "seed {seed}\n{}", world.story(400));
    }
}

#[test]
fn retained_message_reaches_who_subscribes_while_it_is_routed() {
    for seed in 0..40 {
        let mut world = plain(3, 3, seed);
        world.settle_device(1, ProtocolVersion::V5);
        world.settle_device(2, ProtocolVersion::V5);
        let sent = world.with(1, |device, around| {
            device.publish_to((0, "a"), QoS::AtLeastOnce, true, 0, around)
        });
        let sent = sent.expect("it is connected");
        let (publisher, subscriber) = (world.shard_of(1), world.shard_of(2));
        if publisher == subscriber {
            continue;
        }
        world.with(2, |device, around| {
            device.subscribe_to(vec![(0, "#", QoS::AtLeastOnce, false, false)], around);
        });
        world.carry_all();
        // It is routed, its turn goes on; meanwhile the others have turns of their own.
        world.run_shard(publisher);
        world.run_shard(publisher);
        for _ in 0..3 {
            for at in (0..3).filter(|at| *at != publisher) {
                world.whole_turn_of(at);
            }
        }
        world.whole_turn_of(publisher);
        world.rounds(20);
        let heard = world.ledger.messages[&sent].deliveries.iter();
        assert!(
            heard.clone().any(|one| one.device == 2),
            "seed {seed}: lost between two ways\n{}",
            world.story(400)
        );
    }
}

#[test]
fn refused_connection_hears_why() {
    let mut world = plain(1, 2, 3);
    let principal = world.devices[1].principal;
    let moment = world.moment;
    world.database.switch_principal(principal, false, moment);
    world.rounds(20);
    world.with(1, |device, around| device.connect(true, around));
    let conn = world.devices[1].conn.expect("it was opened");
    world.rounds(20);
    assert!(world.broker.net.borrow().conns[conn].closed);
    assert_eq!(
        world.broker.sum(|c| c.connected.get()),
        1,
        "the observer alone"
    );
    assert_eq!(ReasonCode::NOT_AUTHORIZED.connack_v3(), Some(5));
}
