//! What control knows of what clients did.

use std::time::{Duration, Instant};

use codec::mqtt::QoS;
use serde_json::Value;

use crate::broker::Broker;
use crate::client::{Client, Options};

/// Where the telemetry of a demo client is.
fn path(broker: &Broker, number: usize) -> String {
    let id = broker.client(number).username.unwrap();
    format!("/{}/journal/client/{id}/telemetry", broker.domain())
}

/// The telemetry at `path`, once it is as it should be.
fn until(broker: &Broker, path: &str, token: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let seen = broker.get(path, token);
        if is_it(&seen) {
            return seen;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{seen}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn messages_and_subscriptions_of_a_client_are_counted_and_outlive_the_process() {
    let broker = Broker::start(&[]);
    let token = broker.token();
    let (of_writer, of_reader) = (path(&broker, 0), path(&broker, 1));
    let topic = broker.topic("counted");
    let (mut reader, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    reader.subscribe(&topic, QoS::AtMostOnce);
    reader.subscribe(&broker.topic("else"), QoS::AtMostOnce);
    let (mut writer, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        writer.publish(&topic, b"x", qos, false);
        assert_eq!(reader.payload(), "x");
    }
    until(&broker, &of_writer, &token, |seen| {
        seen["inbound_messages"] == 3
    });
    let seen = until(&broker, &of_reader, &token, |seen| {
        seen["outbound_messages"] == 3
    });
    assert_eq!(seen["subscriptions"], 2);
    assert_eq!(seen["inbound_messages"], 0);
    assert!(seen["first_seen"].is_string() && seen["last_seen"].is_string());
    reader.unsubscribe(&topic);
    until(&broker, &of_reader, &token, |seen| {
        seen["subscriptions"] == 1
    });
    drop(reader);
    until(&broker, &of_reader, &token, |seen| {
        seen["subscriptions"] == 0
    });
    let again = Broker::configured(broker.kill(), "");
    let seen = again.get(&of_reader, &token);
    assert_eq!(seen["outbound_messages"], 3);
}
