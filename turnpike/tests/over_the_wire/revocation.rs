//! What a connection is told when it loses the right of a subscription.

use codec::mqtt::{ConnectProperties, ProtocolVersion, QoS, ReasonCode};

use crate::broker::Broker;
use crate::client::{Client, Got, Options};

const CLOSES: &str = "[listeners.mqtt]\non_revoke = \"close\"\n";

fn kept(version: ProtocolVersion) -> Options<'static> {
    Options {
        version,
        client_id: "kept",
        clean_start: false,
        properties: ConnectProperties {
            session_expiry: if version.is_v5() { 300 } else { 0 },
            ..ConnectProperties::default()
        },
        ..Options::default()
    }
}

/// `verb` for the demo channel's right to subscribe of the first demo client.
fn switch(broker: &Broker, verb: &str) {
    let id = broker.client(0).username.unwrap();
    let channel = broker.channel().to_owned();
    let of = ["--domain", "demo", "--client", &id, "--channel", &channel];
    broker.provision(&[&[verb][..], &of, &["--type", "subscribe"]].concat());
}

fn expect_end(client: &mut Client, version: ProtocolVersion) {
    if version.is_v5() {
        assert_eq!(client.next(), Got::Disconnect(ReasonCode::NOT_AUTHORIZED));
    }
    assert_eq!(client.next(), Got::Closed);
}

#[test]
fn a_listener_that_closes_ends_connections_once_and_keeps_their_sessions() {
    let broker = Broker::configured(tempfile::tempdir().unwrap(), CLOSES);
    let topic = broker.topic("lost");
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        for filter in [topic.clone(), format!("$share/crew/{topic}")] {
            let options = Options {
                clean_start: true,
                ..kept(version)
            };
            let (ended, _) = Client::connect(broker.address(), &broker.client(0), &options);
            ended.disconnect(ReasonCode::SUCCESS);
            let options = kept(version);
            let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &options);
            client.subscribe(&filter, QoS::AtLeastOnce);
            switch(&broker, "disconnect");
            expect_end(&mut client, version);
            // It comes back to a subscription that sleeps; other changes do not end it again.
            let (mut client, present) =
                Client::connect(broker.address(), &broker.client(0), &options);
            assert!(present, "the session was kept");
            broker.provision(&["channel", "create", "--domain", "demo", "other"]);
            broker.provision(&["channel", "disable", "--domain", "demo", "other"]);
            broker.provision(&["channel", "delete", "--domain", "demo", "other"]);
            publisher.publish(&topic, b"asleep", QoS::AtLeastOnce, false);
            assert_eq!(client.ping(), []);
            switch(&broker, "connect");
            publisher.publish(&topic, b"awake", QoS::AtLeastOnce, false);
            let message = client.message();
            assert_eq!(message.payload, b"awake");
            client.puback(message.id);
            // A channel that is switched off takes the right away as well.
            let channel = broker.channel().to_owned();
            broker.provision(&["channel", "disable", "--domain", "demo", &channel]);
            expect_end(&mut client, version);
            broker.provision(&["channel", "enable", "--domain", "demo", &channel]);
        }
    }
}

#[test]
fn other_listeners_let_the_subscription_sleep() {
    let broker = Broker::start(&[]);
    let topic = broker.topic("asleep");
    let options = kept(ProtocolVersion::V5);
    let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &options);
    client.subscribe(&topic, QoS::AtMostOnce);
    switch(&broker, "disconnect");
    assert_eq!(client.ping(), []);
}
