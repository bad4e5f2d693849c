//! Retained messages and the options that decide who gets them.

use codec::mqtt::{ConnectProperties, ProtocolVersion, QoS, ReasonCode, RetainHandling};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Options, with_options};

fn pair(broker: &Broker) -> (Client, Client) {
    let (publisher, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    let (subscriber, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    (publisher, subscriber)
}

#[test]
fn last_retained_message_is_kept_replaced_and_removed() {
    // [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT3-3.3.1-5]
    // [MQTT3-3.3.1-6] [MQTT3-3.3.1-7] [MQTT3-3.3.1-10] [MQTT3-3.3.1-11] [MQTT3-3.3.1-12]
    // [MQTT3-3.1.2-7]
    let broker = Broker::start(&[]);
    let (mut publisher, _) = pair(&broker);
    let topic = broker.topic("kept");
    publisher.publish(&topic, b"one", QoS::AtLeastOnce, true);
    publisher.publish(&topic, b"two", QoS::AtLeastOnce, true);
    publisher.publish(&topic, b"live", QoS::AtLeastOnce, false);
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let options = Options {
            version,
            ..Options::default()
        };
        let (mut late, _) = Client::connect(broker.address(), &broker.client(1), &options);
        late.subscribe(&topic, QoS::ExactlyOnce);
        // [MQTT3-3.3.1-8]
        let kept = late.message();
        assert_eq!(
            (kept.payload.as_slice(), kept.retain, kept.qos),
            (&b"two"[..], true, 1)
        );
        assert_eq!(late.ping(), []);
    }
    publisher.publish(&topic, b"", QoS::AtLeastOnce, true);
    let (mut late, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    late.subscribe(&topic, QoS::AtMostOnce);
    assert_eq!(kept_before_marker(&broker, &mut publisher, &mut late), 0);
}

/// How many retained messages come before that of a subscription made now: questions to one home
/// shard are answered in order, so whatever was asked for before has come by then.
fn kept_before_marker(broker: &Broker, publisher: &mut Client, subscriber: &mut Client) -> usize {
    let marker = broker.topic("marker");
    subscriber.unsubscribe(&marker);
    publisher.publish(&marker, b"marker", QoS::AtLeastOnce, true);
    subscriber.subscribe(&marker, QoS::AtLeastOnce);
    let mut before = 0;
    while subscriber.message().topic != marker {
        before += 1;
    }
    before
}

#[test]
fn retain_handling_decides_whether_a_subscription_gets_what_is_kept() {
    // [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-4]
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair(&broker);
    let topic = broker.topic("handling");
    publisher.publish(&topic, b"kept", QoS::AtLeastOnce, true);
    let mut replayed = |subscriber: &mut Client, handling| {
        subscriber.subscribe_with(with_options(&topic, false, false, handling), None);
        kept_before_marker(&broker, &mut publisher, subscriber)
    };
    assert_eq!(replayed(&mut subscriber, RetainHandling::DoNotSend), 0);
    assert_eq!(
        replayed(&mut subscriber, RetainHandling::SendIfNew),
        0,
        "it is there already"
    );
    assert_eq!(replayed(&mut subscriber, RetainHandling::Send), 1);
    assert_eq!(
        replayed(&mut subscriber, RetainHandling::Send),
        1,
        "each time"
    );
    subscriber.unsubscribe(&topic);
    assert_eq!(replayed(&mut subscriber, RetainHandling::SendIfNew), 1);
}

#[test]
fn retain_as_published_keeps_the_flag_and_its_absence_clears_it() {
    // [MQTT-3.3.1-12] [MQTT-3.3.1-13] [MQTT3-3.3.1-9]
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair(&broker);
    for (as_published, flag) in [(false, false), (true, true)] {
        let topic = broker.topic(&format!("flag/{as_published}"));
        let wanted = with_options(&topic, false, as_published, RetainHandling::DoNotSend);
        subscriber.subscribe_with(wanted, None);
        publisher.publish(&topic, b"x", QoS::AtLeastOnce, true);
        assert_eq!(subscriber.message().retain, flag);
        publisher.publish(&topic, b"y", QoS::AtLeastOnce, false);
        assert!(!subscriber.message().retain);
    }
}

#[test]
fn expired_retained_message_is_not_sent_and_the_rest_counts_down() {
    // [MQTT-3.3.2-5] [MQTT-3.3.2-6]
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair(&broker);
    let topic = broker.topic("expiry");
    publisher.publish_only(&topic, b"long", QoS::AtLeastOnce, true, Some(1000));
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    let left = subscriber.message().expiry.unwrap();
    assert!((900..=1000).contains(&left), "{left}");
}

#[test]
fn reader_without_right_gets_nothing_that_is_kept() {
    let broker = Broker::start(&[]);
    let (mut publisher, _) = pair(&broker);
    let topic = broker.topic("secret");
    publisher.publish(&topic, b"kept", QoS::AtLeastOnce, true);
    let reader = broker.client(1);
    let id = reader.username.clone().unwrap();
    let channel = broker.channel();
    broker.provision(&[
        "disconnect",
        "--domain",
        "demo",
        "--client",
        &id,
        "--channel",
        channel,
        "--type",
        "subscribe",
    ]);
    let (mut late, _) = Client::connect(broker.address(), &reader, &Options::default());
    assert_eq!(
        late.subscribe(&topic, QoS::AtMostOnce),
        ReasonCode::NOT_AUTHORIZED.get()
    );
    assert_eq!(late.ping(), []);
}

#[test]
fn large_store_is_given_as_the_subscriber_takes_it() {
    let broker = Broker::start(&["--open"]);
    let (mut publisher, _) = Client::connect(
        broker.address(),
        &Credentials::default(),
        &Options::default(),
    );
    // More than a session's queue takes (10 000 messages).
    for number in 0..12_000 {
        let topic = format!("store/{number}");
        publisher.publish(&topic, b"kept", QoS::AtMostOnce, true);
    }
    publisher.ping();
    for qos in [QoS::AtLeastOnce, QoS::AtMostOnce] {
        let (mut late, _) = Client::connect(
            broker.address(),
            &Credentials::default(),
            &Options::default(),
        );
        late.subscribe("store/#", qos);
        let mut topics: Vec<String> = (0..12_000).map(|_| late.message().topic).collect();
        topics.sort_unstable();
        topics.dedup();
        assert_eq!(topics.len(), 12_000);
    }
}

#[test]
fn what_is_retained_goes_on_where_a_lost_connection_stopped() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut other) = pair(&broker);
    for number in 0..1_000 {
        let topic = broker.topic(&number.to_string());
        publisher.publish(&topic, b"kept", QoS::AtLeastOnce, true);
    }
    let options = Options {
        client_id: "late",
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: 600,
            receive_maximum: 20,
            ..Default::default()
        },
        ..Options::default()
    };
    let mut topics = std::collections::BTreeSet::new();
    let mut connections = 0;
    while topics.len() < 1_000 {
        let (mut late, present) = Client::connect(broker.address(), &broker.client(1), &options);
        assert_eq!(present, connections > 0);
        if connections == 0 {
            late.subscribe(&broker.topic("#"), QoS::AtLeastOnce);
        }
        // Some of what came is acknowledged, and the connection is lost.
        for _ in 0..150.min(1_000 - topics.len()) {
            topics.insert(late.message().topic);
        }
        connections += 1;
        assert!(connections < 100, "{} of 1000 came", topics.len());
    }
    assert!(other.alive());
}

#[test]
fn who_subscribes_again_and_again_without_reading_is_owed_what_is_kept_once() {
    let broker = Broker::start(&[]);
    let (mut publisher, mut subscriber) = pair(&broker);
    // More than a window and two slices, which is all that is given without acknowledgements.
    for at in 0..2_000 {
        let topic = broker.topic(&format!("again/{at}"));
        publisher.publish(&topic, b"kept", QoS::AtLeastOnce, true);
    }
    // Nothing is acknowledged meanwhile, so that nearly all has to wait.
    for _ in 0..10 {
        subscriber.subscribe(&broker.topic("again/#"), QoS::AtLeastOnce);
    }
    let before = kept_before_marker(&broker, &mut publisher, &mut subscriber);
    assert!(
        (2_000..6_000).contains(&before),
        "{before} were given for ten subscriptions to 2000"
    );
    // Of a subscription that has ended nothing follows.
    subscriber.subscribe(&broker.topic("again/#"), QoS::AtLeastOnce);
    subscriber.unsubscribe(&broker.topic("again/#"));
    let before = kept_before_marker(&broker, &mut publisher, &mut subscriber);
    assert!(
        before < 2_000,
        "{before} came behind the end of a subscription"
    );
}
