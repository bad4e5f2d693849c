//! Control on PostgreSQL, which goes away and comes back.

use std::time::{Duration, Instant};

use codec::mqtt::{QoS, ReasonCode};

use crate::broker::Broker;
use crate::client::{Client, Options};
use crate::postgres::Server;
use crate::roles::connect_until;

/// Longest wait for something that has to come.
const WAIT: Duration = Duration::from_secs(20);

fn until_health(broker: &Broker, status: &str) {
    let began = Instant::now();
    let wanted = format!("HTTP/1.1 {status}");
    while !broker.health().starts_with(&wanted) {
        assert!(began.elapsed() < WAIT, "health is never {status}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn broker_fails_closed_without_postgresql_and_goes_on_when_it_is_back() {
    let Some(mut server) = Server::start() else {
        return;
    };
    let configuration = format!("[control]\ndatabase_url = \"{}\"\n", server.url());
    let broker = Broker::configured(tempfile::tempdir().unwrap(), &configuration);
    assert!(!broker.folder().join("turnpike-data/control.db").exists());
    let (writer, reader) = (broker.client(0), broker.client(1));
    let topic = broker.topic("line");
    let options = Options {
        keep_alive: 0,
        ..Options::default()
    };
    let (mut publisher, _) = Client::connect(broker.address(), &writer, &options);
    let (mut subscriber, _) = Client::connect(broker.address(), &reader, &options);
    subscriber.subscribe(&topic, QoS::AtLeastOnce);
    publisher.publish(&topic, b"one", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "one");
    let domain = broker.provision(&["domain", "create", "kept"]);

    server.crash();
    let answer = broker.login();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    until_health(&broker, "503");
    connect_until(&broker, &writer, ReasonCode::SERVER_UNAVAILABLE);

    server.start_again();
    until_health(&broker, "200");
    connect_until(&broker, &writer, ReasonCode::SUCCESS);
    publisher.publish(&topic, b"two", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.payload(), "two");
    let domains = broker.provision(&["domain", "list"]).to_string();
    assert!(
        domains.contains(domain["id"].as_str().unwrap()),
        "{domains}"
    );

    // A call that takes a right away holds as before.
    let id = reader.username.clone().unwrap();
    let channel = broker.channel().to_owned();
    let connection = ["--domain", "demo", "--client", &id, "--channel", &channel];
    broker.provision(&[&["disconnect"][..], &connection].concat());
    publisher.publish(&topic, b"three", QoS::AtLeastOnce, false);
    assert_eq!(subscriber.ping(), []);
}
