//! The open namespace: ordinary MQTT beside the channels.

use codec::mqtt::{ProtocolVersion, QoS, ReasonCode};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Options};

fn anonymous(broker: &Broker, version: ProtocolVersion) -> Client {
    let options = Options {
        version,
        ..Options::default()
    };
    Client::connect(broker.address(), &Credentials::default(), &options).0
}

#[test]
fn any_topic_works_with_wildcards_at_every_level_for_anybody() {
    let broker = Broker::start(&["--open"]);
    let mut publisher = anonymous(&broker, ProtocolVersion::V311);
    for version in [
        ProtocolVersion::V31,
        ProtocolVersion::V311,
        ProtocolVersion::V5,
    ] {
        let mut names = Vec::new();
        for filter in [
            "#",
            "+/kitchen/temp",
            "home/+/temp",
            "home/kitchen/#",
            "home/kitchen/temp",
        ] {
            let options = Options {
                version,
                client_id: filter,
                ..Options::default()
            };
            let (mut client, _) =
                Client::connect(broker.address(), &Credentials::default(), &options);
            assert_eq!(client.subscribe(filter, QoS::AtLeastOnce), 1, "{filter}");
            names.push(client);
        }
        publisher.publish("home/kitchen/temp", b"21", QoS::AtLeastOnce, false);
        for client in &mut names {
            assert_eq!(client.message().topic, "home/kitchen/temp");
            assert_eq!(client.ping(), []);
        }
    }
}

#[test]
fn wildcards_reach_neither_dollar_topics_nor_channels() {
    // [MQTT-4.7.2-1]
    let broker = Broker::start(&["--open"]);
    let mut everything = anonymous(&broker, ProtocolVersion::V5);
    everything.subscribe("#", QoS::AtMostOnce);
    everything.subscribe("+/#", QoS::AtMostOnce);
    let (mut device, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    device.publish(&broker.topic("x"), b"x", QoS::AtLeastOnce, false);
    let mut figures = anonymous(&broker, ProtocolVersion::V5);
    assert_eq!(figures.subscribe("$SYS/broker/uptime", QoS::AtMostOnce), 0);
    assert_eq!(figures.message().topic, "$SYS/broker/uptime");
    assert_eq!(everything.ping(), []);
}

#[test]
fn retained_messages_are_found_by_wildcards_across_all_shards() {
    let broker = Broker::start(&["--open"]);
    let mut publisher = anonymous(&broker, ProtocolVersion::V5);
    for number in 0..300 {
        publisher.publish(&format!("r{number}/state"), b"on", QoS::AtLeastOnce, true);
    }
    let mut late = anonymous(&broker, ProtocolVersion::V5);
    late.subscribe("+/state", QoS::AtMostOnce);
    let mut topics: Vec<String> = (0..300).map(|_| late.message().topic).collect();
    topics.sort_unstable();
    topics.dedup();
    assert_eq!(topics.len(), 300);
}

#[test]
fn configured_user_comes_in_by_name_and_a_wrong_secret_does_not() {
    let broker = Broker::start(&["--open"]);
    let user = broker.provision(&["client", "create", "--domain", "open", "alice"]);
    let login = |password: &str| Credentials {
        username: Some("alice".to_owned()),
        password: Some(password.to_owned()),
    };
    let secret = user["secret"].as_str().unwrap();
    Client::connect(broker.address(), &login(secret), &Options::default());
    let refused = Client::try_connect(broker.address(), &login("wrong"), &Options::default());
    assert!(matches!(
        refused.1,
        crate::client::Got::ConnAck {
            code: ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            ..
        }
    ));
}

#[test]
fn without_the_open_namespace_other_topics_are_refused() {
    let broker = Broker::start(&[]);
    let (mut device, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    assert_eq!(
        device.subscribe("home/#", QoS::AtMostOnce),
        ReasonCode::TOPIC_FILTER_INVALID.get()
    );
    let refused = device.publish_only("home/x", b"x", QoS::AtLeastOnce, false, None);
    assert_eq!(refused, Some(ReasonCode::TOPIC_NAME_INVALID));
}
