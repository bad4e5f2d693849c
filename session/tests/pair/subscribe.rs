//! SUBSCRIBE and UNSUBSCRIBE (MQTT 5, 3.8 to 3.11).

use authcache::Right;
use codec::mqtt::{Delivery, Packet, QoS, ReasonCode, RetainHandling, Subscription};

use crate::node::{Node, V5, V31, V311, id, publish, publishes, subscribe, to};
use crate::world::{DOMAIN, LINE, NEWS, SECRET, line, on};

fn payloads(node: &mut Node, at: usize) -> Vec<u8> {
    publishes(&node.read(at))
        .iter()
        .map(|sent| sent.payload[0])
        .collect()
}

fn say(node: &mut Node, at: usize, topic: &str, payload: u8) {
    node.send(
        at,
        &Packet::Publish(publish(topic, Delivery::AtMostOnce, &[payload])),
    );
}

#[test]
fn suback_has_one_code_for_each_filter_in_order() {
    // [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]
    // [MQTT-3.9.3-2] [MQTT-2.2.1-6] [MQTT3-3.8.4-1] [MQTT3-3.8.4-2] [MQTT3-3.8.4-4]
    // [MQTT3-3.8.4-5] [MQTT3-3.9.3-1] [MQTT3-3.9.3-2] [MQTT3-2.3.1-7] [MQTT3-3.8.3-2]
    let names = [
        (line("a"), QoS::AtLeastOnce, 1),
        ("outside/#".to_owned(), QoS::AtMostOnce, 0x8F),
        (on(SECRET, "#"), QoS::AtMostOnce, 0x87),
        (line("+/b/#"), QoS::ExactlyOnce, 2),
        ("$share//x".to_owned(), QoS::AtMostOnce, 0x8F),
        ("$share/g".to_owned(), QoS::AtMostOnce, 0x8F),
        (format!("$share/g/{}", line("#")), QoS::AtLeastOnce, 1),
        (
            format!("$share/g/{}", on(SECRET, "#")),
            QoS::AtLeastOnce,
            0x87,
        ),
        ("$SYS/#".to_owned(), QoS::AtMostOnce, 0x87),
        ("hc/plant".to_owned(), QoS::AtMostOnce, 0x87),
        ("m/+/c/line".to_owned(), QoS::AtMostOnce, 0x8F),
        (format!("m/{DOMAIN}/c/none/#"), QoS::AtMostOnce, 0x87),
        (on(NEWS, ""), QoS::AtMostOnce, 0),
    ];
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let at = node.fresh(version);
        let filters: Vec<_> = names.iter().map(|(name, qos, _)| to(name, *qos)).collect();
        let codes = node.subscribe(at, &filters);
        let expected: Vec<u8> = names
            .iter()
            .map(|&(_, _, code)| {
                if version.is_v5() {
                    code
                } else {
                    code.min(0x80)
                }
            })
            .collect();
        assert_eq!(codes, expected, "{version:?}");
    }
}

#[test]
fn wildcard_in_a_share_name_refuses_this_filter_alone() {
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2] [MQTT3-4.7.1-3] [MQTT3-4.8.0-1]
    let topic = line("t");
    for share in [
        "$share/g+",
        "$share/+g",
        "$share/g#",
        "$share/#",
        "$share/+",
    ] {
        let filter = format!("{share}/{topic}");
        let asked = [
            to(&topic, QoS::AtLeastOnce),
            to(&filter, QoS::AtLeastOnce),
            to("$share/g+", QoS::AtLeastOnce),
        ];
        let mut node = Node::new();
        let at = node.fresh(V5);
        assert_eq!(node.subscribe(at, &asked), [1, 0x8F, 0x8F], "{filter}");
        assert_eq!(node.conns[at].closed, None);
    }
    // There are no ShareNames before MQTT 5: the wildcard of a Topic Filter stands wrong.
    let mut node = Node::new();
    let at = node.fresh(V311);
    node.feed(at, b"\x82\x10\0\x01\0\x0B$share/g+/t\x01");
    assert_eq!(node.conns[at].closed, Some(ReasonCode::MALFORMED_PACKET));
}

#[test]
fn t_top_4_refused_filter_is_not_entered() {
    let mut node = Node::new();
    let at = node.fresh(V5);
    node.subscribe(at, &[to(&on(SECRET, "#"), QoS::AtMostOnce)]);
    assert!(
        node.conns[at]
            .machine()
            .session()
            .unwrap()
            .subscriptions()
            .is_empty()
    );
}

#[test]
fn t_top_3_limits_of_filters_and_subscriptions() {
    let mut node = Node::new();
    node.world.limits.max_filters_per_packet = 3;
    node.world.limits.max_subscriptions_per_client = 4;
    let at = node.fresh(V5);
    let names: Vec<String> = (0..5).map(|number| line(&number.to_string())).collect();
    let filters: Vec<_> = names.iter().map(|name| to(name, QoS::AtMostOnce)).collect();
    assert_eq!(node.subscribe(at, &filters), [0, 0, 0, 0x97, 0x97]);
    assert_eq!(node.subscribe(at, &filters[3..]), [0, 0x97]);
    assert_eq!(
        node.subscribe(at, &filters[..1]),
        [0],
        "replacing needs no room"
    );
}

#[test]
fn delivery_qos_is_the_minimum() {
    // [MQTT-3.8.4-8] [MQTT3-3.8.4-6]
    let every = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
    for granted in every {
        for published in every {
            let mut node = Node::new();
            let at = node.fresh(V311);
            let topic = line("t");
            node.subscribe(at, &[to(&topic, granted)]);
            let message = publish(&topic, Delivery::new(published, id(3)), b"x");
            node.send(at, &Packet::Publish(message));
            let got = publishes(&node.read(at));
            assert_eq!(got[0].delivery.qos(), granted.min(published));
        }
    }
}

#[test]
fn same_filter_replaces_and_loses_nothing() {
    // [MQTT-3.8.4-3] [MQTT-3.8.4-4] [MQTT3-3.8.4-3]
    let mut node = Node::new();
    let at = node.fresh(V5);
    let topic = line("t");
    node.subscribe(at, &[to(&topic, QoS::AtMostOnce)]);
    say(&mut node, at, &topic, 1);
    let again = subscribe(V5, 9, Some(5), &[to(&topic, QoS::ExactlyOnce)]);
    node.feed(at, &again);
    say(&mut node, at, &topic, 2);
    let got = node.read(at);
    let sent = publishes(&got);
    assert_eq!(sent.len(), 2, "one subscription, one copy each");
    assert!(sent[1].properties.subscription_identifiers.iter().eq([5]));
    assert_eq!(
        node.conns[at]
            .machine()
            .session()
            .unwrap()
            .subscriptions()
            .len(),
        1
    );
}

#[test]
fn retain_handling_says_when_retained_messages_are_sent() {
    // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4] [MQTT3-3.8.4-3]
    // [MQTT3-3.3.1-6]
    for (handling, expected) in [
        (RetainHandling::Send, [true, true]),
        (RetainHandling::SendIfNew, [true, false]),
        (RetainHandling::DoNotSend, [false, false]),
    ] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        let topic = line("t");
        let mut filter = to(&topic, QoS::AtMostOnce);
        filter.retain_handling = handling;
        for replay in expected {
            node.conns[at].log.clear();
            node.subscribe(at, &[filter]);
            assert_eq!(node.conns[at].log, [format!("replay {replay}")]);
        }
        // Nothing retained goes to a group (MQTT 5, 4.8.2).
        let shared = format!("$share/g/{topic}");
        node.conns[at].log.clear();
        node.subscribe(
            at,
            &[Subscription {
                filter: &shared,
                ..filter
            }],
        );
        assert_eq!(node.conns[at].log, ["replay false"]);
    }
}

#[test]
fn no_local_and_retain_as_published_reach_the_router() {
    for (no_local, retain_as_published) in [(false, false), (false, true), (true, true)] {
        let mut node = Node::new();
        let at = node.fresh(V5);
        let topic = line("t");
        let filter = Subscription {
            no_local,
            retain_as_published,
            ..to(&topic, QoS::AtMostOnce)
        };
        node.subscribe(at, &[filter]);
        let mut message = publish(&topic, Delivery::AtMostOnce, b"x");
        message.retain = true;
        node.send(at, &Packet::Publish(message));
        let got = publishes(&node.read(at));
        assert_eq!(got.len(), usize::from(!no_local));
        assert!(got.iter().all(|sent| sent.retain == retain_as_published));
    }
}

#[test]
fn no_local_on_a_shared_subscription_closes() {
    // [MQTT-3.8.3-4]
    let mut node = Node::new();
    let at = node.fresh(V5);
    let mut bytes = vec![0x82, 0, 0, 1, 0, 0];
    let filter = format!("$share/g/{}", line("t"));
    bytes[5] = filter.len() as u8;
    bytes.splice(4..4, [0]);
    bytes.extend_from_slice(filter.as_bytes());
    bytes.push(0b100);
    bytes[1] = (bytes.len() - 2) as u8;
    node.feed(at, &bytes);
    let Packet::Disconnect(told) = node.read_one(at) else {
        panic!()
    };
    assert_eq!(told.reason, ReasonCode::PROTOCOL_ERROR);
}

#[test]
fn overlapping_subscriptions_get_one_copy_with_all_identifiers() {
    // [MQTT-3.3.4-3] [MQTT-3.3.4-5]
    let mut node = Node::new();
    let at = node.fresh(V5);
    let (topic, wide) = (line("t"), line("#"));
    node.subscribe_with(at, Some(1), &[to(&topic, QoS::AtMostOnce)]);
    node.subscribe_with(at, Some(268_435_455), &[to(&wide, QoS::AtLeastOnce)]);
    node.send(
        at,
        &Packet::Publish(publish(&topic, Delivery::AtLeastOnce(id(1)), b"x")),
    );
    let got = publishes(&node.read(at));
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].delivery.qos(), QoS::AtLeastOnce);
    assert!(
        got[0]
            .properties
            .subscription_identifiers
            .iter()
            .eq([1, 268_435_455])
    );
}

#[test]
fn unsuback_answers_each_filter_in_order_whether_it_was_there_or_not() {
    // [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1]
    // [MQTT-3.11.3-2] [MQTT-2.2.1-6] [MQTT3-3.10.4-1] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5]
    // [MQTT3-3.10.4-6] [MQTT3-2.3.1-7]
    for version in [V31, V311, V5] {
        let mut node = Node::new();
        let at = node.fresh(version);
        let (a, b, wide) = (line("a"), line("b"), line("#"));
        node.subscribe(at, &[to(&a, QoS::AtMostOnce), to(&b, QoS::AtMostOnce)]);
        let answer = node.unsubscribe(at, &[&wide, &b, "outside", &b]);
        let Packet::UnsubAck(unsuback) = answer else {
            panic!()
        };
        assert_eq!(unsuback.packet_id, id(11));
        let expected: &[u8] = if version.is_v5() {
            &[0x11, 0, 0x11, 0x11]
        } else {
            &[]
        };
        assert_eq!(unsuback.codes, expected);
        let left = node.conns[at]
            .machine()
            .session()
            .unwrap()
            .subscriptions()
            .len();
        assert_eq!(left, 1);
    }
}

#[test]
fn unsubscribed_filter_gets_nothing_new_and_what_was_begun_is_completed() {
    // [MQTT-3.10.4-3] [MQTT3-3.10.4-3]
    for version in [V311, V5] {
        let mut node = Node::new();
        let at = node.fresh(version);
        let topic = line("t");
        node.subscribe(at, &[to(&topic, QoS::ExactlyOnce)]);
        node.send(
            at,
            &Packet::Publish(publish(&topic, Delivery::ExactlyOnce(id(4)), b"x")),
        );
        let number = publishes(&node.read(at))[0].delivery.packet_id().unwrap();
        node.unsubscribe(at, &[&topic]);
        node.send(
            at,
            &Packet::Publish(publish(&topic, Delivery::AtLeastOnce(id(5)), b"y")),
        );
        assert!(publishes(&node.read(at)).is_empty());
        node.send(
            at,
            &Packet::PubRec(codec::mqtt::Ack::new(number, ReasonCode::SUCCESS)),
        );
        assert!(matches!(node.read_one(at), Packet::PubRel(_)));
    }
}

#[test]
fn topic_comes_as_the_subscriber_wrote_it() {
    // [MQTT-3.3.2-3] [MQTT3-3.3.2-3] [MQTT-4.7.3-4] [MQTT3-4.7.3-4]
    for prefix in [
        "m/plant/c/line".to_owned(),
        "/m/plant/c/line".to_owned(),
        format!("/m/{DOMAIN}/c/{LINE}"),
        format!("m/{DOMAIN}/c/line"),
    ] {
        for delivery in [Delivery::AtMostOnce, Delivery::AtLeastOnce(id(1))] {
            let mut node = Node::new();
            let at = node.fresh(V311);
            let filters = [prefix.clone(), format!("{prefix}/+/b")];
            node.subscribe(
                at,
                &filters.each_ref().map(|name| to(name, QoS::AtLeastOnce)),
            );
            for subtopic in ["", "a/b"] {
                node.send(
                    at,
                    &Packet::Publish(publish(&line(subtopic), delivery, b"x")),
                );
            }
            let got = publishes(&node.read(at));
            let topics: Vec<&str> = got.iter().map(|sent| sent.topic).collect();
            assert_eq!(topics, [prefix.clone(), format!("{prefix}/a/b")]);
        }
    }
}

#[test]
fn unsubscribe_by_a_route_finds_it_after_the_route_has_changed() {
    // [MQTT-3.10.4-1]
    let mut node = Node::new();
    let at = node.fresh(V5);
    let names = [
        "m/plant/c/line/#",
        "$share/g/m/plant/c/line/#",
        "m/plant/c/line",
    ];
    node.subscribe(at, &names.map(|name| to(name, QoS::AtMostOnce)));
    node.world.writer.apply(&authcache::Change::ChannelSet {
        id: LINE,
        domain: DOMAIN,
        route: Some("renamed".into()),
        status: authcache::Status::Enabled,
        open: false,
    });
    let Packet::UnsubAck(unsuback) = node.unsubscribe(at, &names) else {
        panic!()
    };
    assert_eq!(unsuback.codes, [0, 0, 0]);
}

#[test]
fn open_namespace_and_channels_keep_apart() {
    let mut node = Node::new();
    node.world.open();
    let at = node.fresh(V311);
    let wide = ["#", "+/x", "a/#", "/+"];
    node.subscribe(at, &wide.map(|name| to(name, QoS::AtMostOnce)));
    say(&mut node, at, &line("a/x"), 1);
    say(&mut node, at, "$SYS/x", 2);
    assert!(payloads(&mut node, at).is_empty());
    say(&mut node, at, "a/x", 3);
    say(&mut node, at, "/x", 4);
    assert_eq!(payloads(&mut node, at), [3, 4]);
}

#[test]
fn unknown_right_of_a_user_is_asked_for_before_anything_is_entered() {
    for (right, code) in [(Right::SUBSCRIBE, 1), (Right::PUBLISH, 0x87)] {
        let mut node = Node::new();
        let mut connect = crate::node::connect(V5, "one");
        connect.username = Some("user");
        let (at, _) = node.connect(&connect);
        let (topic, shared) = (line("t"), format!("$share/g/{}", line("t")));
        let filters = [to(&topic, QoS::AtLeastOnce), to(&shared, QoS::AtLeastOnce)];
        node.feed(at, &subscribe(V5, 3, None, &filters));
        assert!(node.conns[at].out.bytes.is_empty());
        node.answer_right(at, right);
        let Packet::SubAck(suback) = node.read_one(at) else {
            panic!()
        };
        assert_eq!(suback.codes, [code, code]);
    }
}
