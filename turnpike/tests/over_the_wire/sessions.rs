//! Sessions that end, resume and are taken over; wills.

use codec::mqtt::{ConnectProperties, ProtocolVersion, QoS, ReasonCode};

use crate::broker::Broker;
use crate::client::{Client, Got, Options, will};

const VERSIONS: [ProtocolVersion; 2] = [ProtocolVersion::V311, ProtocolVersion::V5];

fn kept<'a>(version: ProtocolVersion, client_id: &'a str) -> Options<'a> {
    Options {
        version,
        client_id,
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: if version.is_v5() { 300 } else { 0 },
            ..ConnectProperties::default()
        },
        ..Options::default()
    }
}

#[test]
fn second_connect_with_the_same_identifier_takes_the_session_over() {
    // [MQTT-3.1.4-3] [MQTT3-3.1.4-2]
    let broker = Broker::start(&[]);
    for version in VERSIONS {
        for number in 0..8 {
            let name = format!("taken-{number}");
            let options = Options {
                version,
                client_id: &name,
                ..Options::default()
            };
            let (mut first, _) = Client::connect(broker.address(), &broker.client(0), &options);
            let (mut second, _) = Client::connect(broker.address(), &broker.client(0), &options);
            if version.is_v5() {
                assert_eq!(
                    first.next(),
                    Got::Disconnect(ReasonCode::SESSION_TAKEN_OVER)
                );
            }
            assert_eq!(first.next(), Got::Closed);
            assert_eq!(second.ping(), []);
        }
    }
}

#[test]
fn other_principals_with_the_same_identifier_have_sessions_of_their_own() {
    let broker = Broker::start(&[]);
    let options = Options {
        client_id: "same",
        ..Options::default()
    };
    let (mut first, _) = Client::connect(broker.address(), &broker.client(0), &options);
    let (mut second, _) = Client::connect(broker.address(), &broker.client(1), &options);
    assert_eq!(first.ping(), []);
    assert_eq!(second.ping(), []);
}

#[test]
fn resumed_session_gets_what_came_while_it_was_away_in_order() {
    // [MQTT-3.1.2-5] [MQTT-3.1.2-25] [MQTT-4.1.0-1] [MQTT-4.5.0-1] [MQTT-4.6.0-5] [MQTT-3.2.2-3]
    // [MQTT3-3.1.2-4] [MQTT3-3.1.2-5] [MQTT3-3.2.2-2] [MQTT3-4.5.0-1]
    let broker = Broker::start(&[]);
    for version in VERSIONS {
        let options = kept(version, "resumed");
        let (mut first, present) = Client::connect(broker.address(), &broker.client(0), &options);
        assert!(!present);
        let topic = broker.topic("away/#");
        first.subscribe(&topic, QoS::ExactlyOnce);
        first.disconnect(ReasonCode::SUCCESS);
        let (mut publisher, _) =
            Client::connect(broker.address(), &broker.client(1), &Options::default());
        for number in 0..100 {
            let qos = if number % 2 == 0 {
                QoS::AtLeastOnce
            } else {
                QoS::ExactlyOnce
            };
            publisher.publish(
                &broker.topic("away/x"),
                number.to_string().as_bytes(),
                qos,
                false,
            );
        }
        let (mut again, present) = Client::connect(broker.address(), &broker.client(0), &options);
        assert!(present);
        for number in 0..100 {
            assert_eq!(again.payload(), number.to_string());
        }
        again.ping();
        drop(again);
        let clean = Options {
            clean_start: true,
            ..options
        };
        let (cleaned, present) = Client::connect(broker.address(), &broker.client(0), &clean);
        // [MQTT-3.1.2-4] [MQTT-3.2.2-2] [MQTT3-3.1.2-6] [MQTT3-3.2.2-1]
        assert!(!present);
        cleaned.disconnect(ReasonCode::SUCCESS);
    }
}

#[test]
fn unacknowledged_message_is_sent_again_with_dup_and_its_identifier() {
    // [MQTT-3.3.1-1] [MQTT-4.4.0-1] [MQTT3-3.3.1-1]
    let broker = Broker::start(&[]);
    for version in VERSIONS {
        let options = kept(version, "again");
        let (mut first, _) = Client::connect(broker.address(), &broker.client(0), &options);
        first.subscribe(&broker.topic("again"), QoS::AtLeastOnce);
        let (mut publisher, _) =
            Client::connect(broker.address(), &broker.client(1), &Options::default());
        publisher.publish(&broker.topic("again"), b"x", QoS::AtLeastOnce, false);
        let Got::Publish(sent) = first.next() else {
            panic!("no PUBLISH")
        };
        assert!(!sent.dup);
        drop(first);
        let (mut again, _) = Client::connect(broker.address(), &broker.client(0), &options);
        let resent = again.message();
        assert_eq!((resent.dup, resent.id), (true, sent.id));
        again.ping();
        drop(again);
        let clean = Options {
            clean_start: true,
            ..options
        };
        Client::connect(broker.address(), &broker.client(0), &clean);
    }
}

#[test]
fn session_without_expiry_ends_with_its_connection() {
    // [MQTT-4.1.0-2] [MQTT-3.1.2-6] [MQTT-3.2.2-3] [MQTT3-3.2.2-3]
    let broker = Broker::start(&[]);
    let options = Options {
        clean_start: false,
        client_id: "short",
        ..Options::default()
    };
    let (mut first, _) = Client::connect(broker.address(), &broker.client(0), &options);
    first.subscribe(&broker.topic("short"), QoS::AtLeastOnce);
    first.disconnect(ReasonCode::SUCCESS);
    let (_second, present) = Client::connect(broker.address(), &broker.client(0), &options);
    assert!(!present);
}

#[test]
fn will_is_sent_when_the_connection_breaks_and_not_after_disconnect() {
    // [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-12] [MQTT-3.14.4-3]
    // [MQTT3-3.1.2-8] [MQTT3-3.1.2-10] [MQTT3-3.1.2-12]
    let broker = Broker::start(&[]);
    let (mut watcher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    watcher.subscribe(&broker.topic("wills/#"), QoS::AtLeastOnce);
    for version in VERSIONS {
        let topic = broker.topic("wills/w");
        let options = Options {
            version,
            will: Some(will(&topic, b"gone", QoS::AtLeastOnce, 0)),
            ..Options::default()
        };
        let (broken, _) = Client::connect(broker.address(), &broker.client(0), &options);
        drop(broken);
        assert_eq!(watcher.payload(), "gone");
        let (polite, _) = Client::connect(broker.address(), &broker.client(0), &options);
        polite.disconnect(ReasonCode::SUCCESS);
        if version.is_v5() {
            let (asking, _) = Client::connect(broker.address(), &broker.client(0), &options);
            asking.disconnect(ReasonCode::DISCONNECT_WITH_WILL_MESSAGE);
            assert_eq!(watcher.payload(), "gone");
        }
        watcher.ping();
    }
}

#[test]
fn delayed_will_is_cancelled_by_a_reconnect_and_sent_when_the_session_ends() {
    // [MQTT-3.1.2-26] [MQTT-3.1.2-8]
    let broker = Broker::start(&[]);
    let (mut watcher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    watcher.subscribe(&broker.topic("late"), QoS::AtLeastOnce);
    let topic = broker.topic("late");
    let mut options = kept(ProtocolVersion::V5, "delayed");
    options.will = Some(will(&topic, b"first", QoS::AtLeastOnce, 200));
    let (broken, _) = Client::connect(broker.address(), &broker.client(0), &options);
    drop(broken);
    options.will = Some(will(&topic, b"second", QoS::AtLeastOnce, 200));
    // The reconnect may come before the broker has seen the end; then it is a takeover.
    let (broken, _) = Client::connect(broker.address(), &broker.client(0), &options);
    drop(broken);
    // Clean Start ends the session, and that ends the delay.
    options.clean_start = true;
    options.will = None;
    let (_fresh, present) = Client::connect(broker.address(), &broker.client(0), &options);
    assert!(!present);
    assert_eq!(watcher.payload(), "second");
    assert_eq!(watcher.ping(), []);
}

#[test]
fn client_is_told_when_the_broker_shuts_down() {
    let broker = Broker::start(&[]);
    let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    broker.terminate();
    assert_eq!(
        client.next(),
        Got::Disconnect(ReasonCode::SERVER_SHUTTING_DOWN)
    );
    assert_eq!(client.next(), Got::Closed);
}

#[test]
fn silent_client_is_closed_after_one_and_a_half_keep_alives() {
    // [MQTT-3.1.2-24] [MQTT3-3.1.2-24]
    let broker = Broker::start(&[]);
    for version in VERSIONS {
        let options = Options {
            version,
            keep_alive: 1,
            ..Options::default()
        };
        let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &options);
        if version.is_v5() {
            assert_eq!(
                client.next(),
                Got::Disconnect(ReasonCode::KEEP_ALIVE_TIMEOUT)
            );
        }
        assert_eq!(client.next(), Got::Closed);
    }
}
