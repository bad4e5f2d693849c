//! Who gets a message, how often, and in which order; and who does not.

use codec::mqtt::{
    ConnectProperties, ProtocolVersion, QoS, ReasonCode, RetainHandling, Subscription,
};

use crate::broker::Broker;
use crate::client::{Client, Got, Options, with_options};

fn connect(broker: &Broker, number: usize, version: ProtocolVersion) -> Client {
    let options = Options {
        version,
        ..Options::default()
    };
    Client::connect(broker.address(), &broker.client(number), &options).0
}

#[test]
fn channel_named_by_route_or_by_id_reaches_the_same_subscribers() {
    // [MQTT-3.3.2-3] [MQTT3-3.3.2-3]
    let broker = Broker::start(&[]);
    let mut by_id = connect(&broker, 0, ProtocolVersion::V5);
    let mut by_route = connect(&broker, 0, ProtocolVersion::V311);
    let mut publisher = connect(&broker, 1, ProtocolVersion::V5);
    by_id.subscribe(&broker.topic("a/#"), QoS::AtLeastOnce);
    by_route.subscribe("m/demo/c/demo/a/#", QoS::AtLeastOnce);
    for topic in [
        broker.topic("a/b"),
        "m/demo/c/demo/a/b".into(),
        "/m/demo/c/demo/a/b".into(),
    ] {
        for qos in [QoS::AtMostOnce, QoS::AtLeastOnce] {
            publisher.publish(&topic, b"x", qos, false);
            assert_eq!(by_id.message().topic, broker.topic("a/b"));
            assert_eq!(by_route.message().topic, "m/demo/c/demo/a/b");
        }
    }
}

#[test]
fn overlapping_subscriptions_give_one_copy_with_the_highest_qos_and_all_identifiers() {
    // [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4] [MQTT-3.3.4-5] [MQTT3-3.3.5-1]
    let broker = Broker::start(&[]);
    let mut subscriber = connect(&broker, 0, ProtocolVersion::V5);
    let mut publisher = connect(&broker, 1, ProtocolVersion::V5);
    let (wide, narrow) = (broker.topic("o/#"), broker.topic("o/+"));
    subscriber.subscribe_with(Subscription::new(&wide, QoS::AtMostOnce), Some(1));
    subscriber.subscribe_with(Subscription::new(&narrow, QoS::ExactlyOnce), Some(2));
    publisher.publish(&broker.topic("o/x"), b"x", QoS::ExactlyOnce, false);
    let mut message = subscriber.message();
    message.identifiers.sort_unstable();
    assert_eq!((message.qos, message.identifiers), (2, vec![1, 2]));
    assert_eq!(subscriber.next(), Got::PubRel(message.id));
    subscriber.pubcomp(message.id);
    assert_eq!(subscriber.ping(), []);
}

#[test]
fn no_local_keeps_a_client_from_hearing_itself() {
    // [MQTT-3.8.3-3]
    let broker = Broker::start(&[]);
    let mut client = connect(&broker, 0, ProtocolVersion::V5);
    let topic = broker.topic("echo");
    client.subscribe_with(
        with_options(&topic, true, false, RetainHandling::Send),
        None,
    );
    client.publish(&topic, b"mine", QoS::AtMostOnce, false);
    client.publish(&topic, b"mine", QoS::AtLeastOnce, false);
    assert_eq!(client.ping(), []);
    connect(&broker, 1, ProtocolVersion::V5).publish(&topic, b"yours", QoS::AtMostOnce, false);
    assert_eq!(client.payload(), "yours");
}

#[test]
fn delivery_has_the_lower_of_both_qos_and_neither_dup_nor_retain_of_the_publisher() {
    // [MQTT-3.8.4-8] [MQTT-3.3.1-2] [MQTT-3.3.1-3] [MQTT-4.3.1-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
    // [MQTT3-3.8.4-6] [MQTT3-3.3.1-2] [MQTT3-3.3.1-3] [MQTT3-3.3.1-9]
    let broker = Broker::start(&[]);
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for granted in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let mut subscriber = connect(&broker, 0, version);
            let mut publisher = connect(&broker, 1, version);
            let topic = broker.topic(&format!("q/{}", granted.as_u8()));
            assert_eq!(subscriber.subscribe(&topic, granted), granted.as_u8());
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                publisher.publish(&topic, b"x", qos, false);
                let got = subscriber.message();
                assert_eq!(got.qos, qos.min(granted).as_u8());
                assert!(!got.dup && !got.retain);
            }
        }
    }
}

#[test]
fn messages_of_one_publisher_keep_their_order_across_shards_and_versions() {
    // [MQTT-4.6.0-5] [MQTT-4.6.0-6] [MQTT-7.1.1-1]
    let broker = Broker::start(&[]);
    let mut subscribers: Vec<Client> = (0..8)
        .map(|at| {
            let version = if at % 2 == 0 {
                ProtocolVersion::V5
            } else {
                ProtocolVersion::V311
            };
            let mut client = connect(&broker, 0, version);
            client.subscribe(&broker.topic("order/#"), QoS::AtLeastOnce);
            client
        })
        .collect();
    let mut publisher = connect(&broker, 1, ProtocolVersion::V311);
    for number in 0..300 {
        let qos = if number % 3 == 0 {
            QoS::AtLeastOnce
        } else {
            QoS::AtMostOnce
        };
        publisher.publish(
            &broker.topic("order/x"),
            number.to_string().as_bytes(),
            qos,
            false,
        );
    }
    for subscriber in &mut subscribers {
        let mut by_qos = [Vec::new(), Vec::new()];
        for _ in 0..300 {
            let message = subscriber.message();
            let number: u32 = String::from_utf8(message.payload).unwrap().parse().unwrap();
            by_qos[usize::from(message.qos)].push(number);
        }
        assert!(by_qos.iter().all(|numbers| numbers.is_sorted()));
        assert_eq!(by_qos[0].len(), 200);
    }
}

#[test]
fn unsubscribed_filter_gets_nothing_new() {
    // [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT3-3.10.4-1]
    // [MQTT3-3.10.4-2] [MQTT3-3.10.4-4] [MQTT3-3.10.4-5]
    let broker = Broker::start(&[]);
    let mut subscriber = connect(&broker, 0, ProtocolVersion::V5);
    let topic = broker.topic("left");
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    assert_eq!(subscriber.unsubscribe(&topic), Got::UnsubAck(vec![0]));
    assert_eq!(subscriber.unsubscribe(&topic), Got::UnsubAck(vec![0x11]));
    connect(&broker, 1, ProtocolVersion::V5).publish(&topic, b"x", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.ping(), []);
}

#[test]
fn revoked_subscription_sleeps_and_wakes_without_a_new_subscribe() {
    let broker = Broker::start(&[]);
    let mut subscriber = connect(&broker, 0, ProtocolVersion::V5);
    let mut publisher = connect(&broker, 1, ProtocolVersion::V5);
    let topic = broker.topic("sleep");
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    let id = broker.client(0).username.unwrap();
    let channel = broker.channel().to_owned();
    let connection = |verb| {
        broker.provision(&[
            verb,
            "--domain",
            "demo",
            "--client",
            &id,
            "--channel",
            &channel,
            "--type",
            "subscribe",
        ]);
    };
    connection("disconnect");
    publisher.publish(&topic, b"between", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.ping(), []);
    connection("connect");
    publisher.publish(&topic, b"after", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "after");
    broker.provision(&["channel", "disable", "--domain", "demo", &channel]);
    let refused = publisher.publish_only(&topic, b"x", QoS::AtLeastOnce, false, None);
    assert_eq!(refused, Some(ReasonCode::NOT_AUTHORIZED));
    broker.provision(&["channel", "enable", "--domain", "demo", &channel]);
    publisher.publish(&topic, b"again", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "again");
}

#[test]
fn disabled_client_is_closed_before_the_call_returns() {
    let broker = Broker::start(&[]);
    let mut client = connect(&broker, 0, ProtocolVersion::V5);
    let id = broker.client(0).username.unwrap();
    broker.provision(&["client", "disable", "--domain", "demo", &id]);
    assert_eq!(
        client.next(),
        Got::Disconnect(ReasonCode::ADMINISTRATIVE_ACTION)
    );
    assert_eq!(client.next(), Got::Closed);
    let again = Client::try_connect(broker.address(), &broker.client(0), &Options::default());
    assert!(matches!(
        again.1,
        Got::ConnAck {
            code: ReasonCode::NOT_AUTHORIZED,
            ..
        }
    ));
}

#[test]
fn administrator_reads_the_figures_and_nobody_else_does() {
    let broker = Broker::start(&[]);
    let (mut admin, _) = Client::connect(broker.address(), &broker.admin(), &Options::default());
    assert_eq!(admin.subscribe("$SYS/broker/clients/#", QoS::AtMostOnce), 0);
    assert!(admin.message().topic.starts_with("$SYS/broker/clients/"));
    let mut device = connect(&broker, 0, ProtocolVersion::V5);
    assert_eq!(
        device.subscribe("$SYS/#", QoS::AtMostOnce),
        ReasonCode::NOT_AUTHORIZED.get()
    );
    let refused = device.publish_only("$SYS/x", b"x", QoS::AtLeastOnce, false, None);
    assert_eq!(refused, Some(ReasonCode::NOT_AUTHORIZED));
}

#[test]
fn metrics_count_what_passed() {
    let broker = Broker::start(&[]);
    let mut subscriber = connect(&broker, 0, ProtocolVersion::V5);
    subscriber.subscribe(&broker.topic("count"), QoS::AtLeastOnce);
    let mut publisher = connect(&broker, 1, ProtocolVersion::V5);
    publisher.publish(&broker.topic("count"), b"x", QoS::AtLeastOnce, false);
    subscriber.message();
    subscriber.ping();
    let metrics = broker.metrics();
    for line in [
        "turnpike_connections 2",
        "turnpike_subscriptions 1",
        "turnpike_messages_received_total{qos=\"1\"} 1",
        "turnpike_messages_sent_total{qos=\"1\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
    let shards = metrics
        .lines()
        .filter_map(|line| line.strip_prefix("turnpike_shard_connections{shard=\""))
        .map(|rest| rest.split_once("\"} ").unwrap().1);
    let held: u64 = shards.map(|count| count.parse::<u64>().unwrap()).sum();
    assert_eq!(held, 2, "{metrics}");
}

#[test]
fn messages_that_waited_are_counted_as_sent_when_they_leave() {
    let broker = Broker::start(&[]);
    let properties = ConnectProperties {
        receive_maximum: 1,
        ..ConnectProperties::default()
    };
    let options = Options {
        properties,
        ..Options::default()
    };
    let mut subscriber = Client::connect(broker.address(), &broker.client(0), &options).0;
    let mut publisher = connect(&broker, 1, ProtocolVersion::V5);
    let topic = broker.topic("one-by-one");
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    for _ in 0..5 {
        publisher.publish(&topic, b"x", QoS::AtLeastOnce, false);
    }
    for _ in 0..5 {
        subscriber.message();
    }
    subscriber.ping();
    let metrics = broker.metrics();
    assert!(
        metrics.contains("turnpike_messages_sent_total{qos=\"1\"} 5\n"),
        "{metrics}"
    );
}
