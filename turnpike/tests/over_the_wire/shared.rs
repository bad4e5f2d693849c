//! Shared Subscriptions (MQTT 5, 4.8.2), in 3.1.1 too.

use codec::mqtt::{
    ConnectProperties, Delivery, ProtocolVersion, Publish, PublishProperties, QoS, ReasonCode,
};

use crate::broker::Broker;
use crate::client::{Client, Got, Options};

fn member<'a>(version: ProtocolVersion, client_id: &'a str) -> Options<'a> {
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
fn each_message_reaches_one_member_and_ordinary_subscribers_too() {
    // [MQTT-4.8.2-3]
    let broker = Broker::start(&[]);
    let filter = format!("$share/crew/{}", broker.topic("jobs/#"));
    let mut members: Vec<Client> = (0..4)
        .map(|at| {
            let version = if at % 2 == 0 {
                ProtocolVersion::V5
            } else {
                ProtocolVersion::V311
            };
            let options = Options {
                version,
                ..Options::default()
            };
            let (mut client, _) =
                Client::connect(broker.address(), &broker.client(at % 2), &options);
            assert_eq!(client.subscribe(&filter, QoS::AtLeastOnce), 1);
            client
        })
        .collect();
    let (mut plain, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    plain.subscribe(&broker.topic("jobs/+"), QoS::AtLeastOnce);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    for number in 0..100 {
        publisher.publish(
            &broker.topic("jobs/x"),
            number.to_string().as_bytes(),
            QoS::ExactlyOnce,
            false,
        );
    }
    for number in 0..100 {
        assert_eq!(plain.payload(), number.to_string());
    }
    let mut got = Vec::new();
    let mut rounds_after = 0;
    while rounds_after < 2 {
        rounds_after += usize::from(got.len() >= 100);
        for client in &mut members {
            for packet in client.ping() {
                let Got::Publish(message) = packet else {
                    panic!("{packet:?}")
                };
                assert_eq!(message.qos, 1);
                client.puback(message.id);
                let number = String::from_utf8(message.payload).unwrap();
                got.push(number.parse::<u32>().unwrap());
            }
        }
    }
    got.sort_unstable();
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

#[test]
fn messages_that_come_together_are_shared_evenly() {
    let broker = Broker::start_on_one_shard();
    let topic = broker.topic("jobs");
    let filter = format!("$share/crew/{topic}");
    let mut members: Vec<Client> = [ProtocolVersion::V5, ProtocolVersion::V311]
        .map(|version| {
            let options = Options {
                version,
                ..Options::default()
            };
            let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &options);
            assert_eq!(client.subscribe(&filter, QoS::AtMostOnce), 0);
            client
        })
        .into();
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    let mut burst = Vec::new();
    for number in 0..20u8 {
        let publish = Publish {
            dup: false,
            retain: false,
            delivery: Delivery::AtMostOnce,
            topic: &topic,
            properties: PublishProperties::default(),
            payload: &[number],
        };
        publish.encode(Options::default().version, &mut burst);
    }
    publisher.send(&burst);
    let mut all = Vec::new();
    for client in &mut members {
        let got: Vec<u8> = (0..10).map(|_| client.message().payload[0]).collect();
        assert!(got.is_sorted(), "{got:?}");
        all.extend(got);
    }
    all.sort_unstable();
    assert_eq!(all, (0..20).collect::<Vec<_>>());
}

#[test]
fn unacknowledged_message_goes_to_another_member_when_its_own_leaves() {
    // [MQTT-4.8.2-4] [MQTT-4.8.2-5] [MQTT-4.8.2-6]
    let broker = Broker::start(&[]);
    let filter = format!("$share/crew/{}", broker.topic("work"));
    let (mut first, _) = Client::connect(
        broker.address(),
        &broker.client(0),
        &member(ProtocolVersion::V5, "first"),
    );
    first.subscribe(&filter, QoS::ExactlyOnce);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    publisher.publish(&broker.topic("work"), b"once", QoS::AtLeastOnce, false);
    assert!(matches!(first.next(), Got::Publish(_)));
    let (mut second, _) = Client::connect(
        broker.address(),
        &broker.client(1),
        &member(ProtocolVersion::V5, "second"),
    );
    second.subscribe(&filter, QoS::ExactlyOnce);
    drop(first);
    assert_eq!(second.payload(), "once");
    // A QoS 2 exchange stays with its member.
    publisher.publish(&broker.topic("work"), b"twice", QoS::ExactlyOnce, false);
    let Got::Publish(started) = second.next() else {
        panic!("no PUBLISH")
    };
    assert_eq!(started.qos, 2);
    let (mut first, present) = Client::connect(
        broker.address(),
        &broker.client(0),
        &member(ProtocolVersion::V5, "first"),
    );
    assert!(present);
    drop(second);
    let (mut second, _) = Client::connect(
        broker.address(),
        &broker.client(1),
        &member(ProtocolVersion::V5, "second"),
    );
    let again = second.message();
    assert_eq!(
        (again.payload.as_slice(), again.id),
        (&b"twice"[..], started.id)
    );
    assert_eq!(first.ping(), []);
}

#[test]
fn share_without_name_or_filter_is_refused() {
    // [MQTT-4.8.2-1] [MQTT-4.8.2-2]
    let broker = Broker::start(&[]);
    let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    for filter in [
        "$share//m/demo/c/demo",
        "$share/x",
        "$share/x+/m/demo/c/demo",
    ] {
        let mut failed = None;
        match client.try_subscribe(filter) {
            Got::SubAck(codes) => failed = Some(codes[0]),
            Got::Disconnect(code) => assert!(code.is_error()),
            other => panic!("{other:?}"),
        }
        match failed {
            Some(code) => assert_eq!(code, ReasonCode::TOPIC_FILTER_INVALID.get()),
            None => {
                client =
                    Client::connect(broker.address(), &broker.client(0), &Options::default()).0;
            }
        }
    }
}
