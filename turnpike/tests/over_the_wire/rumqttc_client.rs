//! rumqttc, a client that is not ours: both versions, every QoS, large payloads, resume.

use std::time::Duration;

use rumqttc::v5;

use crate::broker::Broker;

const WAIT: Duration = Duration::from_secs(20);

fn address(broker: &Broker) -> (String, u16) {
    let (host, port) = broker.address().rsplit_once(':').unwrap();
    (host.to_owned(), port.parse().unwrap())
}

/// Payloads of every QoS, each sent and received by one client that subscribes to itself.
fn payloads() -> Vec<(u8, Vec<u8>)> {
    let mut payloads: Vec<(u8, Vec<u8>)> = (0..30u8)
        .map(|number| (number % 3, vec![number; 20]))
        .collect();
    payloads.push((1, vec![7; 200_000]));
    payloads
}

#[test]
fn rumqttc_of_version_3_1_1_hears_itself() {
    let broker = Broker::start(&[]);
    let (host, port) = address(&broker);
    let credentials = broker.client(0);
    let mut options = rumqttc::MqttOptions::new("rumqttc-v4", host, port);
    options
        .set_credentials(credentials.username.unwrap(), credentials.password.unwrap())
        .set_max_packet_size(1 << 20, 1 << 20);
    let (client, mut connection) = rumqttc::Client::new(options, 100);
    let topic = broker.topic("rumqttc/4");
    client.subscribe(&topic, rumqttc::QoS::ExactlyOnce).unwrap();
    let mut got = Vec::new();
    while got.len() < payloads().len() {
        let event = connection
            .recv_timeout(WAIT)
            .expect("an event in time")
            .unwrap();
        match event {
            rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_)) => {
                for (qos, payload) in payloads() {
                    client
                        .publish(&topic, rumqttc::qos(qos).unwrap(), false, payload)
                        .unwrap();
                }
            }
            rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => {
                got.push((publish.qos as u8, publish.payload.to_vec()));
            }
            _ => {}
        }
    }
    same(got);
}

#[test]
fn rumqttc_of_version_5_hears_itself() {
    let broker = Broker::start(&[]);
    let (host, port) = address(&broker);
    let credentials = broker.client(1);
    let mut options = v5::MqttOptions::new("rumqttc-v5", host, port);
    options.set_credentials(credentials.username.unwrap(), credentials.password.unwrap());
    options.set_max_packet_size(Some(1 << 20));
    let (client, mut connection) = v5::Client::new(options, 100);
    let topic = broker.topic("rumqttc/5");
    client
        .subscribe(&topic, v5::mqttbytes::QoS::ExactlyOnce)
        .unwrap();
    let mut got = Vec::new();
    while got.len() < payloads().len() {
        let event = connection
            .recv_timeout(WAIT)
            .expect("an event in time")
            .unwrap();
        match event {
            v5::Event::Incoming(v5::Incoming::SubAck(_)) => {
                for (qos, payload) in payloads() {
                    let qos = v5::mqttbytes::qos(qos).unwrap();
                    client.publish(&topic, qos, false, payload).unwrap();
                }
            }
            v5::Event::Incoming(v5::Incoming::Publish(publish)) => {
                got.push((publish.qos as u8, publish.payload.to_vec()));
            }
            _ => {}
        }
    }
    same(got);
}

/// Everything came, and in order within each QoS.
fn same(got: Vec<(u8, Vec<u8>)>) {
    for qos in 0..3 {
        let of = |all: &[(u8, Vec<u8>)]| -> Vec<Vec<u8>> {
            all.iter()
                .filter(|(of, _)| *of == qos)
                .map(|(_, payload)| payload.clone())
                .collect()
        };
        assert!(of(&got) == of(&payloads()), "QoS {qos}");
    }
}
